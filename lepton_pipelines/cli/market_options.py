"""What the commands of market and pool have in common: who speaks, and where the market is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.market.place import Place

Home = Annotated[Path, typer.Option("--home", help="The organisation's folder with its keys; the market is its hub's.")]
As = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="Speak for NAME in the folder --var, without a hub.", show_default=False),
]
Var = Annotated[Path, typer.Option("--var", help="With --as: where runs and records are kept.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")]
Why = Annotated[str, typer.Option("--reason", help="Stands in the ledger for ever: no names of persons.")]
Words = Annotated[str, typer.Argument(metavar="[WORDS]", help="All of them must occur.", show_default=False)]
Licence = Annotated[
    str | None, typer.Option("--licence", help="Refuse any other licence than this.", show_default=False)
]
HOME = Path("organisation")
VAR = Path("var")


def place_of(home: Path, name: str | None, var: Path) -> "Place":
    """Return where the market is held: in a folder with --as, else at the hub of the organisation in --home."""
    from lepton_pipelines.identity.organisation_home import OrganisationHome
    from lepton_pipelines.organisation.market_place import HubMarket, LocalMarket

    if name is not None:
        return LocalMarket(var, name)
    if not (home / "organisation.json").exists():
        raise UserError(
            f"{home} holds no organisation's keys. Name the folder with --home, or speak in the folder of runs in one "
            "process: --as NAME --var FOLDER"
        )
    return HubMarket(OrganisationHome(home))


def kept_in(home: Path, name: str | None, var: Path, what: str) -> Path:
    """Return the folder of who speaks in which something is kept, such as products that were pulled."""
    return (var if name else home) / what
