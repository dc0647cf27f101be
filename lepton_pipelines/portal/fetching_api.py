"""The REST API of what is looked up and fetched: products that fit a contract, documents by digest, others' models."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from lepton_pipelines.ledger.errors import DocumentRefused
from lepton_pipelines.market import catalogue, models
from lepton_pipelines.portal import listing, messages
from lepton_pipelines.portal.api import PREFIX, REFUSED, Name, Version
from lepton_pipelines.portal.guarding import Checker, Puller, Reader, who_asks
from lepton_pipelines.spec.contract import parse_contract

router = APIRouter(prefix=PREFIX, responses=REFUSED)

Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256.")]
Words = Annotated[str, Field(max_length=200)]
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


class SearchProducts(messages.Message):
    """What is looked for; all of it must fit. fits: a contract (ODCS) as a document, which the rows must fulfil."""

    fits: dict[str, Any]
    text: Words = ""
    domain: Words | None = None
    columns: Annotated[list[Words], Field(max_length=50, default_factory=list)]
    label: Words | None = None
    objective: Words | None = None


class PullModel(messages.Message):
    """Which version (unset: the newest on offer), under which licence (unset: any), and whether to use it at once."""

    version: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    licence: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    use: bool = False


@router.post("/products/search", tags=["market"])
def search(visit: Reader, told: SearchProducts) -> list[messages.Product]:
    """Find who has rows that fit a contract."""
    contract = parse_contract(told.fits, name="fits")
    found = catalogue.search(
        visit.stand.market(),
        told.text,
        domain=told.domain,
        columns=tuple(told.columns),
        label=told.label,
        objective=told.objective,
        fits=contract,
    )
    return [messages.Product(**one.summary()) for one in found]


@router.get("/documents/{digest}", tags=["market"], response_class=Response, responses=BYTES)
def document(visit: Puller, digest: Digest) -> Response:
    """Return a document that the ledger names by its digest: a card, a contract, a model's file, a wheel."""
    try:
        found = visit.stand.place.get(digest)
    except DocumentRefused as error:
        raise listing.NotThere(str(error)) from error
    return Response(found, media_type="application/octet-stream", headers={"Content-Disposition": "attachment"})


@router.post("/models/{name}/{version}/verify", tags=["models"])
def verify(visit: Checker, request: Request, name: Name, version: Version) -> messages.ModelProof:
    """Recompute this organisation's whole copy of the ledger, and say what it proves of a version."""
    visit.portal.spend("verify", who_asks(request), visit.portal.limits.verifications)
    return listing.model_proof(visit.stand, name, version)


@router.post("/models/{owner}/{name}/pull", status_code=201, tags=["models"])
def pull(visit: Puller, request: Request, owner: Name, name: Name, told: PullModel) -> messages.PulledModel:
    """Verify a model on offer and register it in this organisation's MLflow, ready to serve."""
    from lepton_pipelines.organisation import model_market
    from lepton_pipelines.registry.serving import serve_line
    from lepton_pipelines.registry.tracking import open_tracking

    visit.portal.spend("verify", who_asks(request), visit.portal.limits.verifications)
    stand, offer = visit.stand, f"{owner}/{name}"
    if not any(one == offer and told.version in (None, number) for one, number in stand.snapshot().history.runs.offers):
        raise listing.NotThere(f"{offer} {f'v{told.version} ' if told.version else ''}is not on offer.")
    place = stand.market()
    found = models.model_offer(place, offer, told.version)
    tracking = open_tracking(stand.links.mlflow, folder=stand.var.absolute())
    published, lineage = model_market.pull(place, stand.ledger, tracking, found, licence=told.licence)
    selector = f"/{published.version}"
    if told.use:
        selector = model_market.use(tracking, published, found, by=visit.session.name)
    return messages.PulledModel(
        registered_model=published.registered_model,
        version=int(published.version),
        origin=f"{found.id}/{found.version}",
        serve=serve_line(tracking, published.registered_model, selector),
        proved=lineage.proved,
        not_proved=lineage.not_proved,
    )
