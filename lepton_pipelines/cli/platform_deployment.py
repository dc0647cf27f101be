"""What `lepton up` registers at its Prefect server, in one program of its own: importing Prefect once takes seconds.

python -m lepton_pipelines.cli.platform_deployment SPEC HOME
"""

import sys
from pathlib import Path

from lepton_pipelines.cli.app import complain
from lepton_pipelines.cli.deploy import deploy
from lepton_pipelines.local_platform.demo import ORGANISATIONS
from lepton_pipelines.local_platform.home import PlatformHome
from lepton_pipelines.spec.errors import UserError

WATCH = "0 5 * * *"


def register(spec: Path, home: PlatformHome) -> None:
    """Register what starts the parts, at the first organisation's pool, and every organisation's part at its own."""
    first = ORGANISATIONS[0]
    deploy(spec, var=home.organisation(first) / "var", pool=first, watch=WATCH, organisation=None, home=None)
    for name in ORGANISATIONS:
        folder = home.organisation(name)
        deploy(spec, var=folder / "var", pool=name, watch=WATCH, organisation=folder / f"{name}.yaml", home=None)


if __name__ == "__main__":
    try:
        register(Path(sys.argv[1]), PlatformHome(Path(sys.argv[2])))
    except UserError as error:
        complain(error)
        sys.exit(2)
