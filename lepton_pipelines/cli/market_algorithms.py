"""`lepton market`, algorithms: offered, found, pulled, held against what is installed, allowed; never installed."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lepton_pipelines.cli.market_options import HOME, VAR, As, AsJson, Home, Licence, Var, Why, Words, kept_in, place_of

Algorithm = Annotated[str, typer.Argument(metavar="ALGORITHM", help="OWNER/NAME.", show_default=False)]
Version = Annotated[str | None, typer.Option(help="Unset: the one that was offered last.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `lepton market`."""
    for name, command in (
        ("publish-algorithm", publish_algorithm),
        ("withdraw-algorithm", withdraw_algorithm),
        ("algorithms", algorithms),
        ("show-algorithm", show_algorithm),
        ("pull-algorithm", pull_algorithm),
        ("verify-algorithm", verify_algorithm),
        ("use-algorithm", use_algorithm),
    ):
        app.command(name)(command)


def publish_algorithm(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", exists=True, help="The algorithm's YAML file.")],
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
) -> None:
    """Offer an algorithm: its wheel, its parameters, what it sums and what that reveals."""
    from lepton_pipelines.market.algorithms import offer_algorithm as command

    offer, version, written = command(place_of(home, name, var), spec)
    typer.echo(f"{offer} {version} is on offer" + ("" if written else ": nothing has changed"))


def withdraw_algorithm(
    algorithm: Algorithm, reason: Why, version: Version = None, home: Home = HOME, name: As = None, var: Var = VAR
) -> None:
    """Offer an algorithm no longer. Who has pulled it keeps it."""
    from lepton_pipelines.market.algorithms import withdraw_algorithm as command

    number = command(place_of(home, name, var), algorithm, version, reason)
    typer.echo(f"{algorithm} {number} is not on offer any more")


def algorithms(
    text: Words = "",
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
    as_json: AsJson = False,
) -> None:
    """Find algorithms on offer."""
    from lepton_pipelines.market.algorithms import algorithm_offers

    found = algorithm_offers(place_of(home, name, var), text)
    if as_json:
        typer.echo(json.dumps([one.summary() for one in found]))
        return
    for one in found:
        typer.echo(f"{one.id:<32} {one.version:<10} {one.card.licence:<12} {one.card.title}")
    if not found:
        typer.echo("no algorithm is on offer that fits")


def show_algorithm(
    algorithm: Algorithm,
    version: Version = None,
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
    as_json: AsJson = False,
) -> None:
    """Show an algorithm's card: digests, parameters, and what each of its sums reveals."""
    from lepton_pipelines.market.algorithms import algorithm_offer

    found = algorithm_offer(place_of(home, name, var), algorithm, version)
    card = found.card
    if as_json:
        typer.echo(json.dumps({**found.summary(), "card": card.model_dump(mode="json")}))
        return
    typer.echo(f"{found.id} {found.version}, licence {card.licence}\n{card.title}\n\n{card.description}\n")
    typer.echo(f"wheel      {card.file}, {card.size:,} bytes, SHA-256 {found.wheel}\ncode       {found.code}")
    typer.echo(f"entry      {card.entry_point} of {card.distribution} {card.version}")
    for required in card.requires:
        typer.echo(f"requires   {required}")
    for parameter, told in card.parameters.get("properties", {}).items():
        typer.echo(f"parameter  {parameter:<28} {told.get('description', '')}")
    for one in card.sums:
        typer.echo(f"sum        {one.name:<28} {one.what}\n{'reveals':>38}  {one.reveals}")


def pull_algorithm(
    algorithm: Algorithm,
    version: Version = None,
    licence: Licence = None,
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
) -> None:
    """Fetch an algorithm's wheel and check its digest. It is not installed: that is your administrator's to do."""
    from lepton_pipelines.data.storage import open_url, plain_errors
    from lepton_pipelines.market.algorithms import algorithm_offer
    from lepton_pipelines.market.algorithms import pull_algorithm as command
    from lepton_pipelines.spec.organisation import Storage

    place = place_of(home, name, var)
    found = algorithm_offer(place, algorithm, version)
    with plain_errors(algorithm, algorithm, Storage()):
        path = command(place.get, found, kept_in(home, name, var, "algorithms"), open_url, licence=licence)
    typer.echo(f"{path}\nRead it; then install it wherever its rows are computed on: pip install --no-deps {path}")


def verify_algorithm(
    algorithm: Algorithm,
    version: Version = None,
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
    as_json: AsJson = False,
) -> None:
    """Hold the code that is installed here against an algorithm on offer. Nothing of it is run."""
    from lepton_pipelines.market.algorithms import algorithm_offer, verify_installed

    found = algorithm_offer(place_of(home, name, var), algorithm, version)
    code = verify_installed(found)
    if as_json:
        told = {"algorithm": found.id, "version": found.version, "code": code.digest, "installed": True}
        typer.echo(json.dumps(told))
        return
    typer.echo(f"{code.distribution} {code.version} is installed here as {found.id} {found.version}: {code.digest}")


def use_algorithm(
    algorithm: Algorithm,
    organisation: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="The organisation's own file, whose policy allows it.")
    ],
    version: Version = None,
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
) -> None:
    """Allow an installed algorithm in this organisation's policy, by the digest of its code."""
    from lepton_pipelines.market.algorithms import algorithm_offer
    from lepton_pipelines.market.algorithms import use_algorithm as command

    found = algorithm_offer(place_of(home, name, var), algorithm, version)
    changed = command(found, organisation)
    told = "now allows" if changed else "allows already"
    typer.echo(f"{organisation} {told} {found.card.name} with the code {found.code}")
