"""Doors that open for a bearer token alone, run by uvicorn: Prefect's own server behind one, and a way to MLflow's.

DOOR_TOKEN is what is asked for. To MLflow, DOOR_UPSTREAM says where the server is, DOOR_ACCOUNT (name:password) how one
signs in there, and DOOR_AUTHORITY whose certificates are trusted.
"""

import os
import ssl

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send


class Door:
    """Lets a request in that carries the token, and everything that is no request."""

    def __init__(self, inside: ASGIApp) -> None:
        self.inside = inside
        self.wanted = f"Bearer {os.environ['DOOR_TOKEN']}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and Request(scope).headers.get("authorization") != self.wanted:
            await PlainTextResponse("no token", 401)(scope, receive, send)
        else:
            await self.inside(scope, receive, send)


async def _to_mlflow(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    request = Request(scope, receive)
    name, _, password = os.environ["DOOR_ACCOUNT"].partition(":")
    trusted = ssl.create_default_context(cafile=os.environ["DOOR_AUTHORITY"])
    kept = {key: value for key, value in request.headers.items() if key not in ("authorization", "host")}
    async with httpx.AsyncClient(verify=trusted, auth=(name, password), timeout=60) as client:
        said = await client.request(
            request.method,
            os.environ["DOOR_UPSTREAM"] + request.url.path,
            params=request.query_params,
            headers=kept,
            content=await request.body(),
        )
    told = {key: value for key, value in said.headers.items() if key in ("content-type", "content-disposition")}
    await Response(said.content, said.status_code, told)(scope, receive, send)


def prefect() -> Door:
    """Make Prefect's own server, behind a door."""
    from prefect.server.api.server import create_app

    return Door(create_app())


def mlflow() -> Door:
    """Make a way to an MLflow server, behind a door."""
    return Door(_to_mlflow)
