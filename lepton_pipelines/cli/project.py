"""`lepton init`: a folder with a pipeline that runs at once, its rows, and a README that explains it."""

import json
import re
import runpy
import shutil
from importlib.resources import as_file, files
from pathlib import Path

import typer

from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import did_you_mean

TEMPLATES = {
    "healthcare": "three hospitals, 569 real patients' rows, is a tumour malignant?",
    "finance": "three banks, generated rows in the shape of a public set, a fairness gate",
    "retail": "three retail chains, generated sales, derived columns, split by time",
    "blank": "three organisations, generated rows, every line explained: replace them by your own",
}
_LEFT_OUT = shutil.ignore_patterns("data", "var", ".gitignore", "__pycache__", "README.md", "pipeline-hub.yaml")
_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")
_REPOSITORY_LINK = re.compile(r"\[([^\]]+)\]\(\.\./\.\./[^)]*\)")

FETCHED = """
The rows here are **generated** in the shape of the set (`make_rows.py`), so that everything runs at once; the figures
below are those of the real rows, which the first of these commands fetches over them:
"""

END = """
## Make it yours

1. Put rows of yours where each organisation's file says (`data:`; parquet, CSV, `s3://`, or a database).
2. Say in `contract.odcs.yaml` what they look like: `lepton data profile FILE --label COLUMN` drafts it.
3. `lepton check pipeline.yaml` says, one line a problem, what is not right yet. It trains nothing.
4. `lepton run pipeline.yaml` trains, evaluates, registers; `var/runs/RUN/report.html` is the report.
5. On a schedule: `lepton deploy pipeline.yaml`. On several machines: `federation: {hub: host:port}`.

`pipeline.schema.json` and `organisation.schema.json` let an editor complete and check the YAML files.
"""


def init(template: str, name: str) -> None:
    """Write a project into the folder `name`. Raises UserError if there is no such template, or if it is there."""
    if template not in TEMPLATES:
        known = ", ".join(TEMPLATES)
        raise UserError(
            f"there is no template {template}.{did_you_mean(template, list(TEMPLATES))} There are: {known}."
        )
    folder = Path(name)
    project = folder.name
    if not _NAME.match(project):
        raise UserError(
            f"{project!r} cannot name a pipeline: write small letters, digits and hyphens, as in my-pipeline."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and is not empty. Name another folder.")
    try:
        with as_file(files("lepton_pipelines") / "templates" / template) as source:
            shutil.copytree(source, folder, ignore=_LEFT_OUT, dirs_exist_ok=True)
            readme = (source / "README.md").read_text(encoding="utf-8")
        _write(folder, project, template, readme)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}). Name another folder.") from error
    typer.echo(f"  {folder}/ holds {TEMPLATES[template]}")
    for what, line in (
        ("read", f"{folder}/README.md"),
        ("check", f"cd {folder} && lepton check pipeline.yaml"),
        ("run", f"cd {folder} && lepton run pipeline.yaml"),
    ):
        typer.echo(f"  {what:<6} {line}")


def _write(folder: Path, project: str, template: str, readme: str) -> None:
    from lepton_pipelines.spec.schema import json_schema

    for kind in ("pipeline", "organisation"):
        (folder / f"{kind}.schema.json").write_text(json.dumps(json_schema(kind), indent=1) + "\n", encoding="utf-8")
    (folder / ".gitignore").write_text("# Rows, runs and models are nobody else's.\ndata/\nvar/\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(readme, template), encoding="utf-8")
    spec = folder / "pipeline.yaml"
    text = spec.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^# yaml-language-server: .*$", "# yaml-language-server: $schema=pipeline.schema.json", text)
    text = re.sub(r"(?m)^name: .*$", f"name: {project}", text, count=1)
    text = re.sub(r"(?m)^(registry: \{model: )[^,]+", rf"\g<1>{project}", text, count=1)
    spec.write_text(text, encoding="utf-8")
    script = next(folder.glob("make_*.py"))
    runpy.run_path(str(script))["write"](folder / "data")


def _readme(text: str, template: str) -> str:
    """Return an example's README as a project's: paths are its own, and links into the repository become words."""
    text = text.replace(f"examples/{template}/", "")
    text = _REPOSITORY_LINK.sub(r"\1", text)
    if template == "finance":
        text = text.replace("\n```\n", f"{FETCHED}\n```\n", 1)
    return text.rstrip() + "\n" + END
