"""The pages of the compute pool: offers with what is free, reservations, quotas, core-hours."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lepton_pipelines.portal import pool_listing
from lepton_pipelines.portal.api import Name, Words
from lepton_pipelines.portal.guarding import Asker, Reader, Visit, form_of
from lepton_pipelines.portal.pages import filled, in_thread, render, told_of
from lepton_pipelines.portal.pool_api import let_go
from lepton_pipelines.portal.pool_messages import Reserve
from lepton_pipelines.spec.errors import UserError

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

FIELDS = ("work", "cores", "memory", "hours", "accelerators", "start")
SHOWN = 30  # reservations on the pool's first page, the newest first


@router.get("/pool")
def pool(request: Request, visit: Reader, text: Words = "") -> Response:
    """Show what is on offer, what is reserved, and what it took."""
    status = pool_listing.status(visit.stand)
    return render(
        request,
        "pool",
        visit,
        offers=pool_listing.search(visit.stand, text),
        reservations=list(reversed(status.reservations))[:SHOWN],
        more=max(len(status.reservations) - SHOWN, 0),
        hours=status.core_hours.by_organisation,
        text=text,
    )


@router.get("/pool/{owner}/{name}")
def offer(request: Request, visit: Reader, owner: Name, name: Name) -> Response:
    """Show an offer, with a form that reserves some of it."""
    return _offer(request, visit, f"{owner}/{name}")


@router.post("/pool/{owner}/{name}/reserve")
async def reserve(request: Request, visit: Asker, owner: Name, name: Name) -> Response:
    """Reserve some of an offer."""
    form = await form_of(request)
    return await in_thread(_reserve, request, visit, f"{owner}/{name}", form)


@router.get("/reservations/{held}")
def reservation(request: Request, visit: Reader, held: Name) -> Response:
    """Show a reservation, what was done under it, and a form that ends it."""
    return _reservation(request, visit, held)


@router.post("/reservations/{held}")
async def release(request: Request, visit: Asker, held: Name) -> Response:
    """End a reservation."""
    form = await form_of(request)
    return await in_thread(_release, request, visit, held, form)


def _reserve(request: Request, visit: Visit, name: str, form: dict[str, str]) -> Response:
    told: dict[str, Any] = {field: form[field].strip() for field in FIELDS if form.get(field, "").strip()}
    try:
        held = pool_listing.reserve(visit.stand, Reserve(offer=name, **told))
    except (ValidationError, UserError) as error:
        return _offer(request, visit, name, told_of(error), form)
    return RedirectResponse(f"/reservations/{held.reservation}", 303)


def _release(request: Request, visit: Visit, held: str, form: dict[str, str]) -> Response:
    try:
        let_go(visit, held, filled(form.get("reason"), "Say why: the other side reads the reason."))
    except UserError as error:
        return _reservation(request, visit, held, error.problems)
    return RedirectResponse(f"/reservations/{held}", 303)


def _offer(
    request: Request, visit: Visit, name: str, problems: list[str] | None = None, form: dict[str, str] | None = None
) -> Response:
    return render(
        request,
        "compute",
        visit,
        offer=pool_listing.offer(visit.stand, name),
        problems=problems or [],
        form=form or {"start": pool_listing.now()},
        code_status=409 if problems else 200,
    )


def _reservation(request: Request, visit: Visit, name: str, problems: list[str] | None = None) -> Response:
    held = pool_listing.reservation(visit.stand, name)
    return render(
        request,
        "reservation",
        visit,
        held=held,
        may_release=pool_listing.may_release(visit, held),
        results=[pool_listing.result(visit.stand, each.job) for each in held.jobs],
        problems=problems or [],
        code_status=409 if problems else 200,
    )
