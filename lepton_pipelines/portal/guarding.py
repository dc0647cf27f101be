"""What stands before every route: who asks, whether they may, how often, and what a browser may do with the answer."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from fastapi.dependencies.models import Dependant
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.responses import JSONResponse, Response

from lepton_pipelines.portal.roles import Right
from lepton_pipelines.portal.signing_in import Door, Session, same
from lepton_pipelines.portal.stand import Stand

COOKIE = "lepton_session"
CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf"
LARGEST_BODY = 64 * 1024
LARGEST_DOCUMENT = 512 * 1024  # with a contract in it, of which 256 KiB may be published
SAFE = {"GET", "HEAD", "OPTIONS"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# A run's report is one file with its style and pictures inside: it may show these, and do nothing.
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # without any, a form of ours would come from nowhere
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """How often one address may ask, a minute: for anything; to sign in; to have the ledger recomputed."""

    requests: int = 600
    sign_ins: int = 30
    verifications: int = 10


@dataclass
class Portal:
    """What the routes share. stands: by organisation; address: as people and programs reach it, without a path."""

    stands: dict[str, Stand]
    address: str
    limits: Limits = field(default_factory=Limits)
    door: Door = field(default_factory=Door)
    limiter: MovingWindowRateLimiter = field(default_factory=lambda: MovingWindowRateLimiter(MemoryStorage()))

    @property
    def secure(self) -> bool:
        """Whether it is reached through TLS, so that cookies need it."""
        return self.address.startswith("https://")

    def spend(self, what: str, who: str, most: int) -> None:
        """Count one more. Raises 429 if that is too many in a minute."""
        if not self.limiter.hit(RateLimitItemPerMinute(most), what, who):
            raise HTTPException(429, f"more than {most} a minute: wait a little.", {"Retry-After": "60"})


def portal_of(request: Request) -> Portal:
    """Return what the routes share."""
    found: Portal = request.app.state.portal
    return found


def who_asks(request: Request) -> str:
    """Return the address that a request comes from."""
    return request.client.host if request.client else "unknown"


@dataclass(frozen=True)
class Visit:
    """A request of someone who may make it."""

    session: Session
    stand: Stand
    portal: Portal

    def may(self, right: str) -> bool:
        """Tell whether they have a right: for pages, that show what can be done."""
        return Right(right) in self.session.rights


class Allowed:
    """A route's guard: lets those pass who are signed in and have the right; what changes something needs the token.

    Raises 401 without a session, 403 without the right or the token.
    """

    def __init__(self, right: Right) -> None:
        self.right = right

    async def __call__(self, request: Request) -> Visit:
        """Check a request, and return who makes it."""
        portal = portal_of(request)
        session = portal.door.session(request.cookies.get(COOKIE))
        if session is None or not still_admitted(portal, session):
            raise HTTPException(401, "sign in first: lepton portal sign-in")
        if self.right not in session.rights:
            roles = ", ".join(sorted(session.roles))
            raise HTTPException(
                403, f"{session.name} signed in as {roles}, which does not give the right to {self.right}."
            )
        if request.method not in SAFE:
            await _check_token(request, session)
        return Visit(session, portal.stands[session.organisation], portal)


def still_admitted(portal: Portal, session: Session) -> bool:
    """Tell whether the file at home still gives a session its roles, to the key that signed for it."""
    key, roles = portal.stands[session.organisation].people().get(session.name, (b"", frozenset()))
    return key == session.key and session.roles <= roles


async def _check_token(request: Request, session: Session) -> None:
    """Refuse what another site made a browser send."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
        raise HTTPException(403, "the request comes from another site.")
    token = request.headers.get(CSRF_HEADER) or (await form_of(request)).get(CSRF_FIELD, "")
    if not same(token, session.csrf):
        raise HTTPException(403, f"the form is of another session: load the page again (programs send {CSRF_HEADER}).")


async def form_of(request: Request) -> dict[str, str]:
    """Return a form's fields. Raises 400 for what is no form of ours."""
    from urllib.parse import parse_qsl

    if not request.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    try:
        return dict(parse_qsl((await request.body()).decode(), max_num_fields=30))
    except (ValueError, UnicodeDecodeError) as error:
        raise HTTPException(400, "the form cannot be read.") from error


Reader = Annotated[Visit, Depends(Allowed(Right.READ))]
Asker = Annotated[Visit, Depends(Allowed(Right.ASK))]
Decider = Annotated[Visit, Depends(Allowed(Right.DECIDE))]
Publisher = Annotated[Visit, Depends(Allowed(Right.PUBLISH))]
Puller = Annotated[Visit, Depends(Allowed(Right.PULL))]
Checker = Annotated[Visit, Depends(Allowed(Right.VERIFY))]
Runner = Annotated[Visit, Depends(Allowed(Right.RUNS))]


def right_of(dependant: Dependant) -> Right | None:
    """Return the right that a route asks for; None for one that everybody may call."""
    for each in dependant.dependencies:
        if isinstance(each.call, Allowed):
            return each.call.right
    return None


async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Count the request, and tell the browser what it may do with the answer."""
    portal = portal_of(request)
    try:
        portal.spend("requests", who_asks(request), portal.limits.requests)
        response = await call_next(request)
    except HTTPException as error:
        response = JSONResponse({"problems": [str(error.detail)]}, error.status_code, error.headers)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if portal.secure:
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    return response
