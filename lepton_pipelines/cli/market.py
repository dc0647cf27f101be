"""`lepton market`: data products on offer, who may use them for what, and what was done with them.

Where: at a hub, in the name of the organisation whose keys lie in --home; or, with --as NAME, in the folder of runs in
one process. Exit codes: 0, 1 where `compatible` finds an obstacle, 2 for a mistake or a refusal.
"""

import json
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_pipelines.cli.market_options import HOME, VAR, As, AsJson, Home, Licence, Var, Why, Words, kept_in, place_of
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.market.catalogue import Offer

app = typer.Typer(
    name="market",
    help="Offer data products, find them, ask for their use.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Id = Annotated[str, typer.Argument(metavar="PRODUCT", help="OWNER/NAME.", show_default=False)]
Number = Annotated[str, typer.Argument(metavar="GRANT", help="The request's number.", show_default=False)]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day, UTC.", show_default=False)]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="OWNER/NAME.", show_default=False)]
Version = Annotated[int | None, typer.Option(min=1, help="Unset: the newest on offer.", show_default=False)]


@app.command()
def publish(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", exists=True, help="The product's YAML file.")],
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
) -> None:
    """Offer a data product, or a new version of it: contract, description and terms; never rows."""
    from lepton_pipelines.market.dealing import publish as command

    product, version, written = command(place_of(home, name, var), spec)
    typer.echo(f"{product} is on offer, version {version}" + ("" if written else ": nothing has changed"))


@app.command()
def withdraw(product: Id, reason: Why, home: Home = HOME, name: As = None, var: Var = VAR) -> None:
    """Offer a product no longer."""
    from lepton_pipelines.market.dealing import withdraw as command

    command(place_of(home, name, var), product, reason)
    typer.echo(f"{product} is not on offer any more; runs that use it stop at their next tree")


@app.command()
def search(
    text: Words = "",
    domain: Annotated[str | None, typer.Option(help="Such as healthcare.", show_default=False)] = None,
    column: Annotated[list[str] | None, typer.Option(help="A column that it has; give several.")] = None,
    label: Annotated[str | None, typer.Option(help="What it lets predict.", show_default=False)] = None,
    objective: Annotated[
        str | None, typer.Option(help="What its label can be trained for: binary:logistic, …", show_default=False)
    ] = None,
    fits: Annotated[
        Path | None, typer.Option(exists=True, help="A contract: who has rows that fit it?", show_default=False)
    ] = None,
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
    as_json: AsJson = False,
) -> None:
    """Find data products."""
    from lepton_pipelines.market.catalogue import search as command
    from lepton_pipelines.spec.contract import read_contract

    contract = None if fits is None else read_contract(fits)
    place = place_of(home, name, var)
    found = command(
        place, text, domain=domain, columns=tuple(column or ()), label=label, objective=objective, fits=contract
    )
    if as_json:
        typer.echo(json.dumps([one.summary() for one in found]))
        return
    for one in found:
        typer.echo(f"{one.id:<32} {_rows(one):>10}  {one.title}")
    if not found:
        typer.echo("nothing is on offer that fits")


@app.command()
def show(product: Id, home: Home = HOME, name: As = None, var: Var = VAR, as_json: AsJson = False) -> None:
    """Show a product: what its rows are, its columns, its terms."""
    from lepton_pipelines.market.catalogue import offer

    found = offer(place_of(home, name, var), product)
    terms = found.terms.model_dump(mode="json", exclude_none=True)
    if as_json:
        columns = [column.model_dump(mode="json") for column in found.contract.columns]
        told = {**found.summary(), "terms": terms, "columns": columns, "croissant": found.description}
        typer.echo(json.dumps(told))
        return
    typer.echo(f"{found.id}, version {found.entry.terms.version}\n{found.title}\n")
    typer.echo(f"{found.description['description']}\n")
    typer.echo(f"rows       {_rows(found)}, contract {found.contract.id} {found.contract.version}")
    for clause, value in terms.items():
        typer.echo(f"terms      {clause}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    for column in found.contract.columns:
        unit = f" in {column.unit}" if column.unit else ""
        typer.echo(f"column     {column.name:<28} {column.role:<8} {column.kind}{unit}")


@app.command()
def compatible(
    products: Annotated[list[str], typer.Argument(metavar="PRODUCT...", help="Two or more.", show_default=False)],
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
    as_json: AsJson = False,
) -> None:
    """Say whether products can be trained on together, and what is in the way, column by column."""
    from lepton_pipelines.market.catalogue import offer
    from lepton_pipelines.market.compatibility import obstacles

    place = place_of(home, name, var)
    found = obstacles({product: offer(place, product).contract for product in products})
    if as_json:
        told = [{"products": each.products, "column": each.column, "problem": each.problem} for each in found]
        typer.echo(json.dumps({"compatible": not found, "obstacles": told}))
    for each in [] if as_json else found:
        typer.echo(f"{' and '.join(each.products)}: {each.column or 'table'}: {each.problem}")
    if found:
        raise typer.Exit(1)
    if not as_json:
        typer.echo(f"{', '.join(products)} can be trained on together")


@app.command()
def request(
    product: Id,
    purpose: Annotated[str, typer.Option(help="What for; the pipeline's purpose must be the same.")],
    algorithm: Annotated[str | None, typer.Option(help="Only to train this.", show_default=False)] = None,
    member: Annotated[list[str] | None, typer.Option(help="A member of the run; give all, or none.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="How many runs.", show_default=False)] = None,
    until: Day = None,
    message: Annotated[str, typer.Option(help="To the owner.")] = "",
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
) -> None:
    """Ask a product's owner for its use; prints the request's number."""
    from lepton_pipelines.market.dealing import Request
    from lepton_pipelines.market.dealing import request as command

    asked = Request(product, purpose, algorithm, tuple(member or ()), runs, _day(until), message)
    typer.echo(command(place_of(home, name, var), asked))


@app.command()
def grant(
    product: Id,
    number: Number,
    runs: Annotated[int | None, typer.Option(min=1, help="At most so many.", show_default=False)] = None,
    until: Day = None,
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
) -> None:
    """Grant a request, for what was asked and within the product's terms."""
    from lepton_pipelines.market.dealing import give

    given = give(place_of(home, name, var), product, number, runs=runs, until=_day(until))
    limits = [f"{given.runs} runs" if given.runs else "", f"until {given.until}" if given.until else ""]
    typer.echo(f"{given.to} may use {product} for «{given.purpose}»" + "".join(f", {each}" for each in limits if each))


@app.command()
def refuse(product: Id, number: Number, reason: Why, home: Home = HOME, name: As = None, var: Var = VAR) -> None:
    """Refuse a request."""
    from lepton_pipelines.market.dealing import refuse as command

    command(place_of(home, name, var), product, number, reason)
    typer.echo(f"{number} is refused")


@app.command()
def revoke(product: Id, number: Number, reason: Why, home: Home = HOME, name: As = None, var: Var = VAR) -> None:
    """Take a grant back: a run that uses it stops at its next tree."""
    from lepton_pipelines.market.dealing import revoke as command

    command(place_of(home, name, var), product, number, reason)
    typer.echo(f"{number} is revoked; a run that uses it stops at its next tree")


@app.command()
def usage(
    product: Annotated[str | None, typer.Argument(metavar="[PRODUCT]", help="Unset: all.", show_default=False)] = None,
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
    as_json: AsJson = False,
) -> None:
    """Show who asked for what, what was answered, and which runs used it."""
    from lepton_pipelines.market.catalogue import usage as command

    told = command(place_of(home, name, var), product)
    if as_json:
        typer.echo(json.dumps(told))
        return
    for one in told:
        runs = f"used by {', '.join(one['runs'])}" if one["runs"] else "not used yet"
        why = f" ({one['reason']})" if one["reason"] else ""
        asked = f"{one['asked_by']} for «{one['purpose']}»"
        typer.echo(f"{one['product']:<28} {one['grant']:<12} {one['state']:<8} {asked}; {runs}{why}")
    if not told:
        typer.echo("nobody has asked for anything")


@app.command()
def pull(
    product: Id,
    to: Annotated[Path | None, typer.Option(help="Copy it here, too.", show_default=False)] = None,
    licence: Licence = None,
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
) -> None:
    """Fetch a shareable product's rows, with their digest and licence checked; kept, so that it is fetched once."""
    from lepton_pipelines.data.storage import open_url, plain_errors
    from lepton_pipelines.market.catalogue import offer
    from lepton_pipelines.market.shared_rows import fetch
    from lepton_pipelines.spec.organisation import Storage

    found = offer(place_of(home, name, var), product)

    cache = kept_in(home, name, var, "products")
    with plain_errors(product, product, Storage()):
        path = fetch(found, cache, open_url, licence=licence, to=to)
    typer.echo(path)


@app.command("publish-model")
def publish_model(
    model: Annotated[str, typer.Argument(metavar="NAME/VERSION", help="Of this organisation's own registry.")],
    licence: Annotated[str, typer.Option(help="SPDX identifier, such as CC-BY-4.0.")],
    title: Annotated[str, typer.Option(help="One line for people.")],
    description: Annotated[str, typer.Option(help="What it is for, and what it must not be used for.")] = "",
    mlflow: Annotated[str | None, typer.Option(help="The registry; unset: below --var.", show_default=False)] = None,
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
) -> None:
    """Offer a registered model to others: its file, its card, and its place in the ledger."""
    from lepton_pipelines.organisation.model_market import offer_from_registry
    from lepton_pipelines.registry.tracking import open_existing

    own, slash, number = model.partition("/")
    if not slash or not number.isdecimal():
        raise UserError(f"{model!r} names no version: write NAME/3 for its third version.")
    place, tracking = place_of(home, name, var), open_existing(mlflow, folder=var.absolute())
    offer = offer_from_registry(
        place, tracking, own, int(number), licence=licence, title=title, description=description
    )
    typer.echo(f"{offer} v{number} is on offer")


@app.command("withdraw-model")
def withdraw_model(
    model: Model, reason: Why, version: Version = None, home: Home = HOME, name: As = None, var: Var = VAR
) -> None:
    """Offer a model no longer. Who has pulled it keeps it."""
    from lepton_pipelines.market.models import withdraw_model as command

    number = command(place_of(home, name, var), model, version, reason)
    typer.echo(f"{model} v{number} is not on offer any more")


@app.command("models")
def models(
    text: Words = "",
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
    as_json: AsJson = False,
) -> None:
    """Find models on offer."""
    from lepton_pipelines.market.models import model_offers

    found = model_offers(place_of(home, name, var), text)
    if as_json:
        typer.echo(json.dumps([one.summary() for one in found]))
        return
    for one in found:
        typer.echo(f"{one.id:<32} v{one.version:<4} {one.card.licence:<12} {one.card.title}")
    if not found:
        typer.echo("no model is on offer that fits")


@app.command("show-model")
def show_model(
    model: Model, version: Version = None, home: Home = HOME, name: As = None, var: Var = VAR, as_json: AsJson = False
) -> None:
    """Show a model's card."""
    from lepton_pipelines.market.models import model_offer

    found = model_offer(place_of(home, name, var), model, version)
    card = found.card
    if as_json:
        typer.echo(json.dumps({**found.summary(), "card": card.model_dump(mode="json")}))
        return
    typer.echo(f"{found.id} v{found.version}, licence {card.licence}\n{card.title}\n\n{card.description}\n")
    typer.echo(f"predicts   {card.label} ({card.objective}), trained by {', '.join(card.members)} in run {card.run}")
    for metric, score in sorted(card.scores.items()):
        typer.echo(f"score      {metric:<28} {score:.4g}")
    for column in card.columns:
        typer.echo(f"column     {column.name:<28} {column.kind}")


@app.command("pull-model")
def pull_model(
    model: Model,
    version: Version = None,
    licence: Licence = None,
    champion: Annotated[bool, typer.Option("--use", help="Make it the champion of its name here.")] = False,
    mlflow: Annotated[str | None, typer.Option(help="The registry; unset: below --var.", show_default=False)] = None,
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
) -> None:
    """Verify a model in the own copy of the ledger, and register it in the own MLflow, ready to serve."""
    import getpass

    from lepton_pipelines.market.models import model_offer
    from lepton_pipelines.organisation import model_market
    from lepton_pipelines.registry.serving import serve_line
    from lepton_pipelines.registry.tracking import open_tracking

    place = place_of(home, name, var)
    found = model_offer(place, model, version)
    ledger = var / "ledger" / name if name else home / "ledger"
    tracking = open_tracking(mlflow, folder=var.absolute())
    published, lineage = model_market.pull(place, ledger, tracking, found, licence=licence)
    typer.echo(f"{published.registered_model} v{published.version} is {found.id} v{found.version}\n\nproved")
    typer.echo("".join(f"  ✓ {line}\n" for line in lineage.proved) + "\nnot proved")
    typer.echo("".join(f"  – {line}\n" for line in lineage.not_proved))
    selector = f"/{published.version}"
    if champion:
        selector = model_market.use(tracking, published, found, by=getpass.getuser())
    typer.echo(f"serve  {serve_line(tracking, published.registered_model, selector)}")


def _rows(one: "Offer") -> str:
    rows = one.entry.terms.rows
    return "untold" if rows is None else f"{rows:,}"


def _day(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()
