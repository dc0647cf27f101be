"""The pages: the same as the API, for people. Rendered here, no build step, nothing fetched from elsewhere."""

from datetime import date
from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lepton_pipelines.market import algorithms, catalogue, dealing
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.portal import listing, runs
from lepton_pipelines.portal.api import Filter, Index, Name, Release, Version, Words, give_cookie, offered_algorithm
from lepton_pipelines.portal.chart import charts_of
from lepton_pipelines.portal.guarding import (
    COOKIE,
    REPORT_POLICY,
    Asker,
    Checker,
    Decider,
    Reader,
    Runner,
    Visit,
    form_of,
    portal_of,
    who_asks,
)
from lepton_pipelines.portal.lineage import picture
from lepton_pipelines.portal.server_pages import model_page
from lepton_pipelines.spec.errors import UserError

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

# The pages that the navigation names: path, name, right without which it is left out.
NAVIGATION = (
    ("/", "Overview", "read"),
    ("/products", "Data", "read"),
    ("/models", "Models", "read"),
    ("/algorithms", "Algorithms", "read"),
    ("/pool", "Computers", "read"),
    ("/requests", "Requests", "read"),
    ("/runs", "Runs", "runs"),
    ("/ledger", "Ledger", "read"),
    ("/organisations", "Organisations", "read"),
)
PAGE = 50
LIVE = {"open", "suspended", runs.HERE}

First = Annotated[int | None, Query(ge=0, le=2**53)]


@router.get("/sign-in")
def sign_in(request: Request) -> Response:
    """Say how to sign in."""
    portal = portal_of(request)
    return render(request, "sign_in", None, address=portal.address, stands=sorted(portal.stands))


@router.get("/sign-in/{ticket}")
def confirm(request: Request, ticket: str) -> Response:
    """Ask whether this browser is to be signed in; opening a link alone does nothing."""
    found = portal_of(request).door.behind(ticket, use=False)
    if found is None:
        return problem(
            request, 404, ["This link was used already, or is older than two minutes: lepton portal sign-in"]
        )
    return render(request, "confirm", None, session=found)


@router.post("/sign-in/{ticket}")
def enter(request: Request, ticket: str) -> Response:
    """Sign this browser in."""
    portal = portal_of(request)
    found = portal.door.behind(ticket, use=True)
    if found is None:
        return problem(
            request, 404, ["This link was used already, or is older than two minutes: lepton portal sign-in"]
        )
    response = RedirectResponse("/", 303)
    give_cookie(response, portal, found)
    return response


@router.post("/sign-out")
def sign_out(request: Request, visit: Reader) -> Response:
    """End the session."""
    visit.portal.door.close(request.cookies.get(COOKIE))
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(COOKIE)
    return response


@router.get("/")
def overview(request: Request, visit: Reader) -> Response:
    """Show what waits, what goes on, and what was said last."""
    requests = listing.requests(visit.stand)
    ledger = listing.ledger(visit.stand, None, 8)
    return render(
        request,
        "overview",
        visit,
        to_decide=[one for one in requests if one.to_decide],
        live=[one for one in runs.runs(visit.stand) if one.state in LIVE][:5] if visit.may("runs") else [],
        ledger=ledger,
        models=[one for one in listing.published(visit.stand) if one.aliases or one.offer][:4],
        counts={
            "organisations": len(listing.organisations(visit.stand)),
            "data products": len(catalogue.offers(visit.stand.market())),
            "models": len(visit.stand.snapshot().history.runs.versions),
            "ledger entries": ledger.size,
        },
    )


@router.get("/organisations")
def organisations(request: Request, visit: Reader) -> Response:
    """Show the members and how each stands."""
    return render(request, "organisations", visit, organisations=listing.organisations(visit.stand), stand=visit.stand)


@router.get("/products")
def products(
    request: Request, visit: Reader, text: Words = "", domain: Filter = None, label: Filter = None
) -> Response:
    """Find data products."""
    found = catalogue.search(visit.stand.market(), text, domain=domain or None, label=label or None)
    asked = {"text": text, "domain": domain or "", "label": label or ""}
    return render(request, "products", visit, products=[one.summary() for one in found], asked=asked)


@router.get("/products/{owner}/{name}")
def product(request: Request, visit: Reader, owner: Name, name: Name) -> Response:
    """Show a product, its terms, its columns, and what was asked for it."""
    return show_product(request, visit, f"{owner}/{name}")


@router.post("/products/{owner}/{name}/ask")
async def ask(request: Request, visit: Asker, owner: Name, name: Name) -> Response:
    """Ask for the use of a product."""
    form = await form_of(request)
    return await in_thread(_ask, request, visit, f"{owner}/{name}", form)


@router.get("/requests")
def requests(request: Request, visit: Reader) -> Response:
    """Show what was asked and answered, what is to be decided first."""
    return render(request, "requests", visit, requests=listing.requests(visit.stand))


@router.get("/requests/{owner}/{name}/{number}")
def one_request(request: Request, visit: Reader, owner: Name, name: Name, number: Name) -> Response:
    """Show a request, with a form where it can be decided."""
    return _request(request, visit, f"{owner}/{name}", number)


@router.post("/requests/{owner}/{name}/{number}")
async def decide(request: Request, visit: Decider, owner: Name, name: Name, number: Name) -> Response:
    """Grant, refuse or revoke."""
    form = await form_of(request)
    return await in_thread(_decide, request, visit, f"{owner}/{name}", number, form)


@router.get("/models")
def models(request: Request, visit: Reader, text: Words = "") -> Response:
    """Find models."""
    return render(request, "models", visit, models=listing.published(visit.stand, text), text=text)


@router.get("/models/{name}/{version}")
def model(request: Request, visit: Reader, name: Name, version: Version) -> Response:
    """Show a version, with its lineage as a picture."""
    return show_model(request, visit, name, version)


@router.get("/algorithms")
def list_algorithms(request: Request, visit: Reader, text: Words = "") -> Response:
    """Find algorithms."""
    found = [one.summary() for one in algorithms.algorithm_offers(visit.stand.market(), text)]
    return render(request, "algorithms", visit, algorithms=found, text=text)


@router.get("/algorithms/{owner}/{name}/{version}")
def algorithm(request: Request, visit: Reader, owner: Name, name: Name, version: Release) -> Response:
    """Show an algorithm: what it sums, and what that reveals."""
    return show_algorithm(request, visit, f"{owner}/{name}", version)


@router.get("/runs")
def list_runs(request: Request, visit: Runner) -> Response:
    """Show runs, the newest first."""
    return render(request, "runs", visit, runs=runs.runs(visit.stand), states=LIVE)


@router.get("/runs/{run}")
def run(request: Request, visit: Runner, run: Name) -> Response:
    """Show a run; while it goes on, the page keeps up with it."""
    return _run(request, visit, run, "run")


@router.get("/runs/{run}/live")
def live(request: Request, visit: Runner, run: Name) -> Response:
    """Show the part of a run's page that changes."""
    return _run(request, visit, run, "live")


@router.get("/runs/{run}/report")
def report(visit: Runner, run: Name) -> Response:
    """Show a run's report, as it was written."""
    try:
        content = (RunFolder(visit.stand.var, run).path / runs.REPORT).read_bytes()
    except OSError as error:
        raise listing.NotThere(f"run {run} has no report here.") from error
    return HTMLResponse(content, headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/ledger")
def ledger(request: Request, visit: Reader, first: First = None) -> Response:
    """Show the ledger as a timeline, the newest entry on top."""
    return render(request, "ledger", visit, ledger=listing.ledger(visit.stand, first, PAGE), page=PAGE, verified=None)


@router.post("/ledger/verify")
def verify(request: Request, visit: Checker) -> Response:
    """Recompute the whole ledger and show what that proves."""
    visit.portal.spend("verify", who_asks(request), visit.portal.limits.verifications)
    told = listing.verify(visit.stand)
    shown = listing.ledger(visit.stand, None, PAGE)
    return render(request, "ledger", visit, ledger=shown, page=PAGE, verified=told)


@router.get("/ledger/{index}")
def entry(request: Request, visit: Reader, index: Index) -> Response:
    """Show an entry, which the reader's own browser can prove to be in the ledger."""
    size = visit.stand.snapshot().view.size
    return render(request, "entry", visit, entry=listing.entry_at(visit.stand, index), size=size)


def problem(request: Request, code: int, problems: list[str], headers: dict[str, str] | None = None) -> Response:
    """Say what went wrong."""
    shown = render(request, "problem", None, problems=problems, code=code, code_status=code)
    shown.headers.update(headers or {})
    return shown


def _ask(request: Request, visit: Visit, product: str, form: dict[str, str]) -> Response:
    try:
        wanted = dealing.Request(
            product,
            filled(form.get("purpose"), "Say what for: the pipeline must name the same purpose."),
            runs=_number(form.get("runs")),
            until=_day(form.get("until")),
            message=form.get("message", ""),
        )
        number = visit.stand.speak(lambda place: dealing.request(place, wanted))
    except UserError as error:
        return show_product(request, visit, product, error.problems, form)
    return RedirectResponse(f"/requests/{product}/{number}", 303)


def _decide(request: Request, visit: Visit, product: str, number: str, form: dict[str, str]) -> Response:
    decision, reason = form.get("decision", ""), form.get("reason", "").strip()
    answers: dict[str, Any] = {
        "grant": lambda place: dealing.give(
            place, product, number, runs=_number(form.get("runs")), until=_day(form.get("until"))
        ),
        "refuse": lambda place: dealing.refuse(place, product, number, reason),
        "revoke": lambda place: dealing.revoke(place, product, number, reason),
    }
    try:
        filled(decision if decision in answers else "", "Choose what to do.")
        filled(reason if decision != "grant" else "-", "Say why: the other side reads the reason.")
        visit.stand.speak(answers[decision])
    except UserError as error:
        return _request(request, visit, product, number, error.problems)
    return RedirectResponse(f"/requests/{product}/{number}", 303)


def show_product(
    request: Request, visit: Visit, name: str, problems: list[str] | None = None, form: dict[str, str] | None = None
) -> Response:
    """Show a product. problems: what was refused. form: what was filled in."""
    if name not in visit.stand.snapshot().history.grants.products:
        raise listing.NotThere(f"{name} is not in this market.")
    return render(
        request,
        "product",
        visit,
        product=listing.product(catalogue.offer(visit.stand.market(), name)),
        requests=listing.requests(visit.stand, name),
        problems=problems or [],
        form=form or {},
        code_status=409 if problems else 200,
    )


def show_model(
    request: Request,
    visit: Visit,
    name: str,
    version: int,
    problems: list[str] | None = None,
    form: dict[str, str] | None = None,
) -> Response:
    """Show a version. problems: what was refused. form: what was filled in."""
    found = listing.model(visit.stand, name, version)
    own = found.publisher == visit.session.organisation
    return render(
        request,
        "model",
        visit,
        model=found,
        picture=picture(found.lineage),
        mlflow=model_page(visit.stand.links, name, version) if own else None,
        own=own,
        problems=problems or [],
        form=form or {},
        code_status=409 if problems else 200,
    )


def show_algorithm(
    request: Request, visit: Visit, offer: str, version: str, problems: list[str] | None = None
) -> Response:
    """Show an algorithm on offer. problems: what was refused."""
    found = listing.algorithm(offered_algorithm(visit, offer, version))
    return render(
        request,
        "algorithm",
        visit,
        algorithm=found,
        fields=_fields(found.parameters),
        own=offer.split("/")[0] == visit.session.organisation,
        problems=problems or [],
        code_status=409 if problems else 200,
    )


def _request(request: Request, visit: Visit, product: str, number: str, problems: list[str] | None = None) -> Response:
    if (product, number) not in visit.stand.snapshot().history.grants.by_id:
        raise listing.NotThere(f"{product} has no request {number}.")
    return render(
        request,
        "request",
        visit,
        asked=listing.request(visit.stand, product, number),
        own=product.split("/")[0] == visit.stand.organisation,
        problems=problems or [],
        code_status=409 if problems else 200,
    )


def _run(request: Request, visit: Visit, name: str, template: str) -> Response:
    found = runs.run(visit.stand, name)
    return render(request, template, visit, run=found, live=found.state in LIVE, charts=charts_of(found.history))


def render(request: Request, name: str, visit: Visit | None, *, code_status: int = 200, **values: Any) -> HTMLResponse:
    """Render a page. name: the template's; values: what it shows."""
    path = request.url.path
    text = (
        _templates()
        .get_template(f"{name}.html.j2")
        .render(
            visit=visit,
            path=path,
            navigation=[(to, word) for to, word, right in NAVIGATION if visit is not None and visit.may(right)],
            behind="" if visit is None else visit.stand.behind,
            **values,
        )
    )
    return HTMLResponse(text, code_status)


async def in_thread(action: Any, *arguments: Any) -> Response:
    """Do what waits for a network or a disk, without holding up others."""
    from starlette.concurrency import run_in_threadpool

    answer: Response = await run_in_threadpool(action, *arguments)
    return answer


def _fields(schema: dict[str, Any]) -> list[tuple[str, str]]:
    """Return parameters and what is said of them: the schema is another's, and may be anything."""
    properties = schema.get("properties")
    found = properties.items() if isinstance(properties, dict) else []
    return [(str(name), str(told.get("description") or "") if isinstance(told, dict) else "") for name, told in found]


def told_of(error: ValidationError | UserError) -> list[str]:
    """Return what is wrong with a form, one sentence a problem."""
    if isinstance(error, UserError):
        return error.problems
    return [f"{'.'.join(map(str, each['loc'])) or 'form'}: {each['msg']}." for each in error.errors()]


def filled(text: str | None, otherwise: str) -> str:
    """Return a field without the blanks around it. Raises UserError, in the words given, if nothing is left."""
    found = (text or "").strip()
    if not found:
        raise UserError(otherwise)
    return found


def _number(text: str | None) -> int | None:
    if not (text or "").strip():
        return None
    if not str(text).strip().isdecimal() or not 1 <= int(str(text)) <= 1_000_000:
        raise UserError("The number of runs is a whole number from 1 to 1,000,000.")
    return int(str(text))


def _day(text: str | None) -> date | None:
    if not (text or "").strip():
        return None
    try:
        return date.fromisoformat(str(text).strip())
    except ValueError as error:
        raise UserError("The last day is a date, as in 2027-01-31.") from error


def short(value: Any) -> str:
    """Write a field of an entry: digests by their beginning, lists and objects in words."""
    if isinstance(value, str):
        digest = value.rpartition(":")[2]
        return f"{digest[:12]}…" if len(digest) == 64 and digest.isalnum() else value
    if isinstance(value, list):
        return ", ".join(map(short, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {short(each)}" for key, each in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _ago(seconds: float) -> str:
    """How long ago, in the largest unit of which there is one."""
    for length, unit in ((86400, "days"), (3600, "hours"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _bytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("lepton_pipelines.portal", "templates"),
        autoescape=True,  # whatever others wrote is text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = short
    environment.filters["bytes"] = _bytes
    environment.filters["ago"] = _ago
    return environment
