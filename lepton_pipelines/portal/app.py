"""The portal as one ASGI application."""

from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lepton_pipelines.portal import api, fetching_api, pages, pool_api, pool_pages, publishing_api, publishing_pages
from lepton_pipelines.portal.guarding import LARGEST_BODY, LARGEST_DOCUMENT, Limits, Portal, guard
from lepton_pipelines.portal.listing import NotThere
from lepton_pipelines.portal.stand import Stand
from lepton_pipelines.spec.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def create_app(stands: dict[str, Stand], address: str, limits: Limits | None = None) -> FastAPI:
    """Put pages, API and guards together.

    stands: by organisation. address: as it is reached, such as http://127.0.0.1:8800: what is signed names it, and
    requests that name another host are refused, so that no other name can be made to point here.
    """
    app = FastAPI(
        title="Lepton Pipelines: portal",
        version="1",
        description="Organisations, data products, requests, models, runs, ledger, as one organisation sees them.",
        openapi_url=f"{api.PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.portal = Portal(stands, address.rstrip("/"), limits or Limits())
    app.include_router(api.router)
    app.include_router(publishing_api.router)
    app.include_router(fetching_api.router)
    app.include_router(pool_api.router)
    app.include_router(pages.router)
    app.include_router(pool_pages.router)
    app.include_router(publishing_pages.router)
    app.mount("/static", StaticFiles(directory=Path(str(files("lepton_pipelines.portal") / "static"))), name="static")
    app.add_exception_handler(UserError, _refused)
    app.add_exception_handler(StarletteHTTPException, _failed)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_middleware(_BodyLimits)
    host = urlsplit(address).hostname or "127.0.0.1"
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, host])
    app.add_middleware(BaseHTTPMiddleware, dispatch=guard)
    return app


class _BodyLimits:
    """Bodies of the usual length, and longer ones only where a contract is sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._usual = RequestBodyLimitMiddleware(app, max_body_size=LARGEST_BODY)
        self._documents = RequestBodyLimitMiddleware(app, max_body_size=LARGEST_DOCUMENT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        paths = (f"{api.PREFIX}/products", f"{api.PREFIX}/products/search", "/publish/product")
        document = scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in paths
        await (self._documents if document else self._usual)(scope, receive, send)


async def _refused(request: Request, error: Exception) -> Response:
    """Say what the library refuses: 404 for what is not there, 409 for the rest."""
    problems = error.problems if isinstance(error, UserError) else [str(error)]
    return _say(request, 404 if isinstance(error, NotThere) else 409, problems)


async def _failed(request: Request, error: Exception) -> Response:
    """Say what a route refuses. A page without a session leads to the sign-in."""
    if not isinstance(error, StarletteHTTPException):
        raise error
    if error.status_code == 401 and not _is_api(request) and request.method == "GET":
        return RedirectResponse("/sign-in", 303)
    return _say(request, error.status_code, [str(error.detail)], dict(error.headers or {}))


async def _malformed(request: Request, error: Exception) -> Response:
    """Name every field that is wrong."""
    if not isinstance(error, RequestValidationError):
        raise error
    problems = [f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors()]
    return _say(request, 422, problems)


def _say(request: Request, code: int, problems: list[str], headers: dict[str, str] | None = None) -> Response:
    if _is_api(request):
        return JSONResponse({"problems": problems}, code, headers)
    return pages.problem(request, code, problems, headers)


def _is_api(request: Request) -> bool:
    return request.url.path.startswith("/api/")
