"""The REST API, below /api/v1: the command line's verbs, with an OpenAPI document at /api/v1/openapi.json."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response

from lepton_pipelines.market import algorithms, catalogue, dealing
from lepton_pipelines.portal import listing, messages, runs
from lepton_pipelines.portal.guarding import (
    COOKIE,
    Asker,
    Checker,
    Decider,
    Portal,
    Reader,
    Runner,
    Visit,
    portal_of,
    who_asks,
)
from lepton_pipelines.portal.signing_in import CHALLENGE_SECONDS, SESSION_SECONDS, Session, statement

PREFIX = "/api/v1"
REFUSED: dict[int | str, dict[str, Any]] = {
    code: {"model": messages.Problem, "description": told}
    for code, told in {
        400: "Not understood.",
        401: "Nobody is signed in.",
        403: "The roles of who is signed in do not allow it, or the CSRF token is missing.",
        404: "There is no such thing.",
        409: "The ledger or the market refuses it: the message says why.",
        413: "The body is too large.",
        422: "A field is malformed.",
        429: "Too often.",
    }.items()
}

router = APIRouter(prefix=PREFIX, responses=REFUSED)

Name = Annotated[str, Path(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$")]
Words = Annotated[str, Query(max_length=200, description="All of them must occur.")]
Filter = Annotated[str | None, Query(max_length=200)]
Version = Annotated[int, Path(ge=1, le=1_000_000_000)]
Release = Annotated[str, Path(pattern="^[0-9A-Za-z][0-9A-Za-z.!+_-]{0,79}$")]
Index = Annotated[int, Path(ge=0, le=2**53)]


@router.get("/health", tags=["portal"])
def health() -> messages.Health:
    """Say that the portal is there."""
    return messages.Health()


@router.post("/challenges", status_code=201, tags=["sign-in"])
def challenge(request: Request) -> messages.Challenge:
    """Hand out a nonce to sign."""
    portal = portal_of(request)
    portal.spend("sign in", who_asks(request), portal.limits.sign_ins)
    return messages.Challenge(nonce=portal.door.challenge(), address=portal.address, expires_in=CHALLENGE_SECONDS)


@router.post("/sessions", status_code=201, tags=["sign-in"])
def sign_in(answer: messages.SignIn, request: Request, response: Response) -> messages.SignedIn:
    """Take the signed challenge; answer with a cookie, or with a link that opens a browser's session."""
    portal = portal_of(request)
    portal.spend("sign in", who_asks(request), portal.limits.sign_ins)
    session = _admitted(portal, answer)
    if answer.browser:
        return signed_in(session, link=f"{portal.address}/sign-in/{portal.door.link(session)}")
    give_cookie(response, portal, session)
    return signed_in(session)


@router.get("/session", tags=["sign-in"])
def session(visit: Reader) -> messages.SignedIn:
    """Say who is signed in."""
    return signed_in(visit.session)


@router.delete("/session", status_code=204, tags=["sign-in"])
def sign_out(visit: Reader, request: Request, response: Response) -> None:
    """End the session."""
    visit.portal.door.close(request.cookies.get(COOKIE))
    response.delete_cookie(COOKIE)


@router.get("/organisations", tags=["organisations"])
def organisations(visit: Reader) -> list[messages.Organisation]:
    """List the ledger's members and how each stands."""
    return listing.organisations(visit.stand)


@router.get("/products", tags=["market"])
def products(
    visit: Reader,
    text: Words = "",
    domain: Filter = None,
    column: Annotated[list[str] | None, Query(max_length=50)] = None,
    label: Filter = None,
    objective: Filter = None,
) -> list[messages.Product]:
    """Find data products."""
    market = visit.stand.market()
    found = catalogue.search(market, text, domain=domain, columns=tuple(column or ()), label=label, objective=objective)
    return [messages.Product(**one.summary()) for one in found]


@router.get("/products/{owner}/{name}", tags=["market"])
def product(visit: Reader, owner: Name, name: Name) -> messages.ProductDetail:
    """Show a product: its columns and terms."""
    return listing.product(catalogue.offer(visit.stand.market(), _there(visit, f"{owner}/{name}")))


@router.get("/compatibility", tags=["market"])
def compatibility(
    visit: Reader, product: Annotated[list[str], Query(min_length=2, max_length=20)]
) -> messages.Compatibility:
    """Say whether products can be trained on together, and what is in the way, column by column."""
    return listing.compatibility(visit.stand, [_there(visit, each) for each in product])


@router.get("/requests", tags=["market"])
def requests(visit: Reader, product: Filter = None) -> list[messages.Asked]:
    """List requests, what was answered, and which runs used them."""
    return listing.requests(visit.stand, product)


@router.post("/requests", status_code=201, tags=["market"])
def ask(visit: Asker, asked: messages.Ask) -> messages.AskedDetail:
    """Ask a product's owner for its use."""
    _there(visit, asked.product)
    wanted = dealing.Request(
        asked.product, asked.purpose, asked.algorithm, tuple(asked.members), asked.runs, asked.until, asked.message
    )
    number = visit.stand.speak(lambda place: dealing.request(place, wanted))
    return listing.request(visit.stand, asked.product, number)


@router.get("/requests/{owner}/{name}/{number}", tags=["market"])
def request(visit: Reader, owner: Name, name: Name, number: Name) -> messages.AskedDetail:
    """Show a request with its text."""
    return listing.request(visit.stand, *_asked(visit, owner, name, number))


@router.post("/requests/{owner}/{name}/{number}/grant", tags=["market"])
def grant(visit: Decider, owner: Name, name: Name, number: Name, answer: messages.Grant) -> messages.AskedDetail:
    """Grant a request, for what was asked and within the product's terms."""
    product, number = _asked(visit, owner, name, number)
    visit.stand.speak(lambda place: dealing.give(place, product, number, runs=answer.runs, until=answer.until))
    return listing.request(visit.stand, product, number)


@router.post("/requests/{owner}/{name}/{number}/refuse", tags=["market"])
def refuse(visit: Decider, owner: Name, name: Name, number: Name, answer: messages.Refusal) -> messages.AskedDetail:
    """Refuse a request."""
    product, number = _asked(visit, owner, name, number)
    visit.stand.speak(lambda place: dealing.refuse(place, product, number, answer.reason))
    return listing.request(visit.stand, product, number)


@router.post("/requests/{owner}/{name}/{number}/revoke", tags=["market"])
def revoke(visit: Decider, owner: Name, name: Name, number: Name, answer: messages.Refusal) -> messages.AskedDetail:
    """Take a grant back: a run that uses it stops at its next tree."""
    product, number = _asked(visit, owner, name, number)
    visit.stand.speak(lambda place: dealing.revoke(place, product, number, answer.reason))
    return listing.request(visit.stand, product, number)


@router.get("/models", tags=["models"])
def models(visit: Reader, text: Words = "") -> list[messages.Model]:
    """List published versions, on offer or not."""
    return listing.published(visit.stand, text)


@router.get("/models/{name}/{version}", tags=["models"])
def model(visit: Reader, name: Name, version: Version) -> messages.ModelDetail:
    """Show a version: its card and its lineage."""
    return listing.model(visit.stand, name, version)


@router.get("/algorithms", tags=["algorithms"])
def list_algorithms(visit: Reader, text: Words = "") -> list[messages.Algorithm]:
    """List algorithms on offer."""
    return [messages.Algorithm(**one.summary()) for one in algorithms.algorithm_offers(visit.stand.market(), text)]


@router.get("/algorithms/{owner}/{name}/{version}", tags=["algorithms"])
def algorithm(visit: Reader, owner: Name, name: Name, version: Release) -> messages.AlgorithmDetail:
    """Show an algorithm: what it sums and what that reveals, its parameters, its code's digest."""
    return listing.algorithm(offered_algorithm(visit, f"{owner}/{name}", version))


@router.get("/runs", tags=["runs"])
def list_runs(visit: Runner) -> list[messages.Run]:
    """List runs, the newest first."""
    return runs.runs(visit.stand)


@router.get("/runs/{run}", tags=["runs"])
def show_run(visit: Runner, run: Name) -> messages.RunDetail:
    """Show a run: rounds so far, scores, members, and where its pages are."""
    return runs.run(visit.stand, run)


@router.get("/ledger", tags=["ledger"])
def ledger(
    visit: Reader,
    first: Annotated[int | None, Query(ge=0, le=2**53, description="Unset: the newest ones.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> messages.Ledger:
    """Read entries and the newest head."""
    return listing.ledger(visit.stand, first, limit)


@router.get("/ledger/{index}", tags=["ledger"])
def entry(visit: Reader, index: Index) -> messages.Entry:
    """Read one entry."""
    return listing.entry_at(visit.stand, index)


@router.get("/ledger/{index}/proof", tags=["ledger"])
def proof(visit: Checker, index: Index) -> messages.ProofOfEntry:
    """Prove that an entry is in the ledger, with everything that recomputing takes."""
    return listing.proof(visit.stand, index)


@router.post("/ledger/verify", tags=["ledger"])
def verify(visit: Checker, request: Request) -> messages.Verification:
    """Recompute every hash, signature and rule of this organisation's copy, now."""
    visit.portal.spend("verify", who_asks(request), visit.portal.limits.verifications)
    return listing.verify(visit.stand)


def give_cookie(response: Response, portal: Portal, session: Session) -> None:
    """Let the browser or program keep the session."""
    response.set_cookie(
        COOKIE,
        portal.door.hand_out(session),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=portal.secure,
        path="/",
    )


def signed_in(session: Session, *, link: str = "") -> messages.SignedIn:
    """Say who is signed in; the token of a session that goes to a browser by a link stays there."""
    return messages.SignedIn(
        name=session.name,
        organisation=session.organisation,
        roles=sorted(session.roles),
        rights=sorted(session.rights),
        csrf="" if link else session.csrf,
        link=link,
    )


def _admitted(portal: Portal, answer: messages.SignIn) -> Session:
    """Return a session for who answered a challenge rightly. Raises 403, the same for every reason."""
    refused = HTTPException(403, f"{answer.name} cannot sign in here with this key and these roles.")
    own = answer.name if answer.name in portal.stands else None
    only = next(iter(portal.stands)) if len(portal.stands) == 1 else None
    stand = portal.stands.get(answer.organisation or own or only or "")
    if stand is None:
        raise refused
    key, roles = stand.people().get(answer.name, (bytes(32), frozenset()))
    asked = [str(role) for role in answer.roles]
    signed = statement(portal.address, answer.name, answer.organisation or "", asked, answer.nonce)
    try:
        signature = bytes.fromhex(answer.signature)
    except ValueError:
        raise refused from None
    right_key = portal.door.answers(answer.nonce, key, signature, signed)
    wanted = frozenset(answer.roles) or roles
    if not right_key or not wanted or not wanted <= roles:
        raise refused
    return portal.door.open(answer.name, stand.organisation, key, wanted)


def offered_algorithm(visit: Visit, offer: str, version: str) -> algorithms.AlgorithmOffer:
    """Return an algorithm on offer. Raises NotThere if there is none."""
    release = visit.stand.snapshot().history.algorithms.releases.get((offer, version))
    if release is None or release.withdrawn:
        raise listing.NotThere(f"{offer} {version} is not on offer.")
    return algorithms.algorithm_offer(visit.stand.market(), offer, version)


def _there(visit: Reader, product: str) -> str:
    """Return a product's id. Raises 404 if the market has never had it."""
    if product not in visit.stand.snapshot().history.grants.products:
        raise HTTPException(404, f"{product} is not in this market.")
    return product


def _asked(visit: Reader, owner: str, name: str, number: str) -> tuple[str, str]:
    """Return a request's product and number. Raises 404 if there is none."""
    product = _there(visit, f"{owner}/{name}")
    if (product, number) not in visit.stand.snapshot().history.grants.by_id:
        raise HTTPException(404, f"{product} has no request {number}.")
    return product, number
