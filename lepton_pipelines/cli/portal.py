"""`lepton portal`: serve an organisation's portal, and sign in at one with a key that stays at home."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.portal.stand import Links, Stand

app = typer.Typer(
    name="portal",
    help="Pages and a REST API over ledger, market and runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

HOME = Path("organisation")
HOST, PORT = "127.0.0.1", 8800


@app.command()
def serve(
    home: Annotated[
        list[Path] | None, typer.Option(help="An organisation's folder of keys, at a hub; give several.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--as", metavar="NAME", help="Instead: NAME in the folder --var, without a hub; give several."),
    ] = None,
    var: Annotated[
        list[Path] | None, typer.Option("--var", help="Where runs are kept; one for all, or one for each --home.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = HOST,
    port: Annotated[int, typer.Option(min=1, max=65535)] = PORT,
    address: Annotated[
        str | None,
        typer.Option(help="As people reach it, behind a proxy that speaks TLS: https://….", show_default=False),
    ] = None,
    prefect: Annotated[str | None, typer.Option(help="Prefect's pages, to be linked to.", show_default=False)] = None,
    mlflow: Annotated[str | None, typer.Option(help="MLflow's pages, to be linked to.", show_default=False)] = None,
) -> None:
    """Serve the portal until stopped. Listens on this machine alone unless --host says otherwise."""
    import uvicorn

    from lepton_pipelines.portal.app import create_app
    from lepton_pipelines.portal.stand import Links

    reached = address or f"http://{host}:{port}"
    if host not in ("127.0.0.1", "localhost", "::1") and not reached.startswith("https://"):
        raise UserError(
            f"--host {host} would show sessions to whoever listens in. Put a proxy that speaks TLS before it, and say "
            "how it is reached: --address https://portal.example.org"
        )
    stands = _stands(home, name, var, Links(prefect, mlflow))
    typer.echo(f"{', '.join(stands)} at {reached}")
    where = f"--home {home[0]}" if home else f"--home {(var or [Path('var')])[0] / 'identity' / next(iter(stands))}"
    typer.echo(f"sign in  lepton portal sign-in {reached} {where}")
    uvicorn.run(
        create_app({one.organisation: one for one in stands.values()}, reached),
        host=host,
        port=port,
        log_level="warning",
        server_header=False,
        proxy_headers=address is not None,  # who a proxy says that asks counts only where there is one
        timeout_graceful_shutdown=5,
    )


@app.command("sign-in")
def sign_in(
    portal: Annotated[str, typer.Argument(metavar="[ADDRESS]", help="The portal's.")] = f"http://{HOST}:{PORT}",
    home: Annotated[Path, typer.Option(help="The folder with the key that signs.")] = HOME,
    at: Annotated[
        str | None, typer.Option(metavar="NAME", help="At whose stand, if not the own.", show_default=False)
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option(help="Ask for this one only: owner, engineer, operator, auditor; give several.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Sign the portal's challenge with the key at home, and open a page that is signed in."""
    import webbrowser

    from lepton_pipelines.portal.client import Platform
    from lepton_pipelines.portal.roles import Role

    known = [each.value for each in Role]
    for each in role or []:
        if each not in known:
            raise UserError(f"there is no role {each}. There are: {', '.join(known)}.")
    with Platform(portal, home=home, organisation=at, roles=role or []) as platform:
        link = platform.link()
    typer.echo(f"open within two minutes, once: {link}")
    if browser:
        webbrowser.open(link)


def _stands(
    home: list[Path] | None, name: list[str] | None, var: list[Path] | None, links: "Links"
) -> "dict[str, Stand]":
    from lepton_pipelines.identity.organisation_home import OrganisationHome
    from lepton_pipelines.portal.stand import stand_at_hub, stand_in_folder

    folders = var or [Path("var")]
    if home and name:
        raise UserError("--home is for organisations at a hub, --as for runs in one process. Give one of them.")
    if name:
        return {one: stand_in_folder(folders[0], one, links) for one in name}
    homes = home or [HOME]
    if len(folders) not in (1, len(homes)):
        raise UserError(
            f"{len(homes)} times --home, but {len(folders)} times --var: give one for all, or one for each."
        )
    if not (homes[0] / "organisation.json").exists():
        raise UserError(
            f"{homes[0]} holds no organisation's keys. Name the folder with --home, or serve the folder of runs in one "
            "process: --as NAME --var FOLDER"
        )
    folders = folders if len(folders) > 1 else folders * len(homes)
    found = [stand_at_hub(OrganisationHome(one), runs, links) for one, runs in zip(homes, folders, strict=True)]
    return {one.organisation: one for one in found}
