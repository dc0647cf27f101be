"""The platform's organisations and their first pipeline: the healthcare example, each hospital in a folder of its own.

Done once; a second start finds everything where it was. Keys and admissions are made as `lepton hub init`,
`lepton org init`, `request`, `admit`, `accept` and `trust` make them. Fingerprints are compared here because all
parties are this one user; between machines people compare them.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from lepton_pipelines.identity.hub_home import HubHome
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.local_platform.home import HOST, PlatformHome

ORGANISATIONS = ("north", "harbour", "valley")
SPEC = "pipeline.yaml"
CONTRACT = "contract.odcs.yaml"
KEYS = "keys"


def set_up(home: PlatformHome, example: Path, *, hub_port: int) -> Path:
    """Make whatever the platform does not have yet: hub, keys, admissions, rows, specs. Returns the pipeline's file.

    example: the healthcare example with its hospitals' rows.
    """
    if not (home.hub / "hub.json").exists():
        HubHome.create(home.hub, f"{HOST}:{hub_port}")
    hub = HubHome(home.hub)
    try:
        for name in ORGANISATIONS:
            _onboard(hub, home.keys(name), name)
    finally:
        hub.close()
    _introduce({name: OrganisationHome(home.keys(name)) for name in ORGANISATIONS})
    for name in ORGANISATIONS:
        _hand_out(example, home.organisation(name), name)
    spec = home.pipeline / SPEC
    if not spec.exists():
        home.pipeline.mkdir(exist_ok=True, mode=0o700)
        shutil.copyfile(example / CONTRACT, home.pipeline / CONTRACT)
        spec.write_text(_shared_spec((example / SPEC).read_text(encoding="utf-8"), hub_port), encoding="utf-8")
    return spec


def _onboard(hub: HubHome, folder: Path, name: str) -> None:
    if not (folder / "signing.key").exists():
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        OrganisationHome.create(folder, name)
    mine = OrganisationHome(folder)
    if (folder / "admission.json").exists():
        return
    request = mine.request()
    admission = hub.admit(request, fingerprint=request.fingerprint)
    mine.accept(admission.model_dump_json().encode(), fingerprint=hub.fingerprint)


def _introduce(homes: dict[str, OrganisationHome]) -> None:
    requests = {name: home.request() for name, home in homes.items()}
    for name, home in homes.items():
        for other, request in requests.items():
            if other != name and other not in home.trusted():
                home.trust(request.model_dump_json().encode(), fingerprint=request.fingerprint)


def _hand_out(example: Path, folder: Path, name: str) -> None:
    """Put an organisation's rows and its own file into its folder."""
    rows = folder / "data" / name
    if not rows.exists():
        shutil.copytree(example / "data" / name, rows)
    own = folder / f"{name}.yaml"
    if not own.exists():
        text = (example / f"{name}.yaml").read_text(encoding="utf-8")
        own.write_text(f"{text}identity: {KEYS}\n", encoding="utf-8")


def _shared_spec(text: str, hub_port: int) -> str:
    """Return the example's pipeline for this platform: through its hub, so without a comparison."""
    lines = {
        "organisations:": f"organisations: [{', '.join(ORGANISATIONS)}]",
        "federation:": f'federation: {{hub: "{HOST}:{hub_port}"}}',
        "comparison:": "",
    }
    return _with_lines(text, lines)


def _with_lines(text: str, lines: dict[str, str]) -> str:
    """Put lines in the place of those that begin with the same word; the language server's hint leads elsewhere."""
    told = [line for line in text.splitlines() if not line.startswith("# yaml-language-server")]
    for start, new in lines.items():
        _only_one(told, start)
        told = [new if line.startswith(start) else line for line in told]
    return "\n".join(told) + "\n"


def _only_one(lines: Sequence[str], start: str) -> None:
    if sum(line.startswith(start) for line in lines) != 1:
        raise ValueError(f"the example's pipeline has not exactly one line {start}")
