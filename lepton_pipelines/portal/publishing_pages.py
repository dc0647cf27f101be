"""The pages that offer something in an organisation's own name, and take it back: data products, models, algorithms."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lepton_pipelines.market.product import plain
from lepton_pipelines.portal import messages, pages, publishing_api
from lepton_pipelines.portal.api import Name, Release, Version
from lepton_pipelines.portal.guarding import Publisher, Visit, form_of
from lepton_pipelines.portal.pages import filled, in_thread, render
from lepton_pipelines.portal.publishing_api import OFFERS, PublishAlgorithm, PublishModel, PublishProduct
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.yaml_file import read_yaml_text

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

WHY = "Say why: it stands in the ledger, and others read it."
_FIELDS = ("product", "title", "description", "domain", "rows")


@router.get("/publish/product")
def product_form(request: Request, visit: Publisher) -> Response:
    """Show the form that offers a data product."""
    return _product_form(request, visit, {})


@router.post("/publish/product")
async def publish_product(request: Request, visit: Publisher) -> Response:
    """Offer a data product, or a new version of it."""
    form = await form_of(request)
    return await in_thread(_publish_product, request, visit, form)


@router.post("/products/{owner}/{name}/withdraw")
async def withdraw_product(request: Request, visit: Publisher, owner: Name, name: Name) -> Response:
    """Offer a product no longer."""
    form = await form_of(request)
    return await in_thread(
        _answered,
        lambda: publishing_api.withdraw(visit, owner, name, _reason(form)),
        "/products",
        lambda problems: pages.show_product(request, visit, f"{owner}/{name}", problems),
    )


@router.post("/models/{name}/{version}/offer")
async def offer_model(request: Request, visit: Publisher, name: Name, version: Version) -> Response:
    """Offer a version of the organisation's own registry."""
    form = await form_of(request)
    told = {field: form.get(field, "").strip() for field in ("licence", "title", "description")}
    return await in_thread(
        _answered,
        lambda: publishing_api.publish_model(visit, PublishModel(model=name, version=version, **told)),
        f"/models/{name}/{version}",
        lambda problems: pages.show_model(request, visit, name, version, problems, form),
    )


@router.post("/models/{name}/{version}/withdraw")
async def withdraw_model(request: Request, visit: Publisher, name: Name, version: Version) -> Response:
    """Offer a version no longer."""
    form = await form_of(request)
    return await in_thread(
        _answered,
        lambda: publishing_api.withdraw_model(visit, name, version, _reason(form)),
        f"/models/{name}/{version}",
        lambda problems: pages.show_model(request, visit, name, version, problems),
    )


@router.get("/publish/algorithm")
def algorithm_form(request: Request, visit: Publisher) -> Response:
    """Show the form that offers an algorithm: one of the files in the organisation's own folder for that."""
    return _algorithm_form(request, visit)


@router.post("/publish/algorithm")
async def publish_algorithm(request: Request, visit: Publisher) -> Response:
    """Offer an algorithm that is installed here."""
    form = await form_of(request)
    return await in_thread(_publish_algorithm, request, visit, form)


@router.post("/algorithms/{owner}/{name}/{version}/withdraw")
async def withdraw_algorithm(request: Request, visit: Publisher, owner: Name, name: Name, version: Release) -> Response:
    """Offer a version of an algorithm no longer."""
    form = await form_of(request)
    return await in_thread(
        _answered,
        lambda: publishing_api.withdraw_algorithm(visit, owner, name, version, _reason(form)),
        "/algorithms",
        lambda problems: pages.show_algorithm(request, visit, f"{owner}/{name}", version, problems),
    )


def _publish_product(request: Request, visit: Visit, form: dict[str, str]) -> Response:
    def publish() -> str:
        told: dict[str, Any] = {field: form[field].strip() for field in _FIELDS if form.get(field, "").strip()}
        rows = told.get("rows", "").replace(",", "")
        told |= {"rows": int(rows)} if rows.isdecimal() else {}
        pasted = filled(form.get("contract"), "Paste the contract: who asks wants to know the columns.")
        terms = read_yaml_text(form["terms"], Path("terms")).data if form.get("terms", "").strip() else {}
        contract = plain(read_yaml_text(pasted, Path("contract")).data)
        product = {**told, "organisation": visit.stand.organisation, "terms": terms}
        offered = PublishProduct.model_validate({"product": product, "contract": contract})
        return publishing_api.publish(visit, offered).product

    try:
        name = publish()
    except (ValidationError, UserError) as error:
        return _product_form(request, visit, form, pages.told_of(error))
    return RedirectResponse(f"/products/{name}", 303)


def _publish_algorithm(request: Request, visit: Visit, form: dict[str, str]) -> Response:
    try:
        file = filled(form.get("file"), "Choose a file.")
        found = publishing_api.publish_algorithm(visit, PublishAlgorithm(file=file))
    except (ValidationError, UserError) as error:
        return _algorithm_form(request, visit, pages.told_of(error))
    return RedirectResponse(f"/algorithms/{found.id}/{found.version}", 303)


def _answered(action: Callable[[], object], then: str, refused: Callable[[list[str]], Response]) -> Response:
    """Do something and go on to a page, or show the page with what was refused."""
    try:
        action()
    except (ValidationError, UserError) as error:
        return refused(pages.told_of(error))
    return RedirectResponse(then, 303)


def _reason(form: dict[str, str]) -> messages.Refusal:
    return messages.Refusal(reason=filled(form.get("reason"), WHY))


def _product_form(request: Request, visit: Visit, form: dict[str, str], problems: list[str] | None = None) -> Response:
    status = 409 if problems else 200
    return render(request, "publish_product", visit, form=form, problems=problems or [], code_status=status)


def _algorithm_form(request: Request, visit: Visit, problems: list[str] | None = None) -> Response:
    folder = visit.stand.home.folder / OFFERS
    files = sorted(path.name for path in folder.glob("*.y*ml")) if folder.is_dir() else []
    status = 409 if problems else 200
    return render(
        request, "publish_algorithm", visit, files=files, folder=OFFERS, problems=problems or [], code_status=status
    )
