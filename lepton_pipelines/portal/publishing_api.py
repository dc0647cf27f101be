"""The REST API of what is offered in an organisation's own name: products, models, algorithms; offered and withdrawn.

What is sent is a document; a file of the organisation's own is named, and lies in its folder `offers` or its registry.
"""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from lepton_pipelines.market import algorithms, catalogue, dealing, models
from lepton_pipelines.market.product import ProductTerms
from lepton_pipelines.portal import listing, messages
from lepton_pipelines.portal.api import PREFIX, REFUSED, Name, Release, Version
from lepton_pipelines.portal.guarding import Publisher

OFFERS = "offers"  # the folder of an organisation's home that a portal reads algorithms' files from

router = APIRouter(prefix=PREFIX, responses=REFUSED)


class PublishProduct(messages.Message):
    """A data product as its owner writes it, and its contract (ODCS) as a document."""

    product: ProductTerms
    contract: dict[str, Any]


class PublishModel(messages.Message):
    """A version of the organisation's own registry, and what is said of it."""

    model: messages.Id
    version: Annotated[int, Field(ge=1, le=1_000_000_000)]
    licence: Annotated[str, Field(min_length=1, max_length=200)]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    description: Annotated[str, Field(max_length=20_000)] = ""


class PublishAlgorithm(messages.Message):
    """An algorithm's YAML file in the folder `offers` of the organisation's home, with its wheel beside it."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.ya?ml$")]


@router.post("/products", status_code=201, tags=["market"])
def publish(visit: Publisher, told: PublishProduct) -> messages.ProductDetail:
    """Offer a data product, or a new version of it; never rows."""
    name, _, _ = visit.stand.speak(lambda place: dealing.publish_product(place, told.product, told.contract))
    return listing.product(catalogue.offer(visit.stand.market(), name))


@router.post("/products/{owner}/{name}/withdraw", status_code=204, tags=["market"])
def withdraw(visit: Publisher, owner: Name, name: Name, why: messages.Refusal) -> None:
    """Offer a product no longer: runs that use it stop at their next tree."""
    product = f"{owner}/{name}"
    if product not in visit.stand.snapshot().history.grants.products:
        raise listing.NotThere(f"{product} is not in this market.")
    visit.stand.speak(lambda place: dealing.withdraw(place, product, why.reason))


@router.post("/models", status_code=201, tags=["models"])
def publish_model(visit: Publisher, told: PublishModel) -> messages.ModelDetail:
    """Offer a version that this organisation has registered and published in the ledger."""
    stand = visit.stand
    known = stand.snapshot().history.runs.versions.get((told.model, told.version))
    if known is None or known.published.author.organisation != stand.organisation:
        raise listing.NotThere(f"{stand.organisation} has published no {told.model} v{told.version} in this ledger.")
    from lepton_pipelines.organisation.model_market import offer_from_registry
    from lepton_pipelines.registry.tracking import open_tracking

    tracking = open_tracking(stand.links.mlflow, folder=stand.var.absolute())
    fields = {"licence": told.licence, "title": told.title, "description": told.description}
    stand.speak(lambda place: offer_from_registry(place, tracking, told.model, told.version, **fields))
    return listing.model(stand, told.model, told.version)


@router.post("/models/{name}/{version}/withdraw", status_code=204, tags=["models"])
def withdraw_model(visit: Publisher, name: Name, version: Version, why: messages.Refusal) -> None:
    """Offer a version no longer. Who has pulled it keeps it."""
    offer = f"{visit.stand.organisation}/{name}"
    if (offer, version) not in visit.stand.snapshot().history.runs.offers:
        raise listing.NotThere(f"{offer} v{version} is not on offer.")
    visit.stand.speak(lambda place: models.withdraw_model(place, offer, version, why.reason))


@router.post("/algorithms", status_code=201, tags=["algorithms"])
def publish_algorithm(visit: Publisher, told: PublishAlgorithm) -> messages.AlgorithmDetail:
    """Offer the algorithm that a file of the organisation's own describes; it must be what is installed there."""
    spec = visit.stand.home.folder / OFFERS / told.file
    if not spec.is_file():
        raise listing.NotThere(f"there is no {told.file} in the folder {OFFERS} of {visit.stand.organisation}'s home.")
    offer, version, _ = visit.stand.speak(lambda place: algorithms.offer_algorithm(place, spec))
    return listing.algorithm(algorithms.algorithm_offer(visit.stand.market(), offer, version))


@router.post("/algorithms/{owner}/{name}/{version}/withdraw", status_code=204, tags=["algorithms"])
def withdraw_algorithm(visit: Publisher, owner: Name, name: Name, version: Release, why: messages.Refusal) -> None:
    """Offer a version of an algorithm no longer. Who has pulled it keeps it."""
    offer = f"{owner}/{name}"
    known = visit.stand.snapshot().history.algorithms.releases.get((offer, version))
    if known is None or known.withdrawn:
        raise listing.NotThere(f"{offer} {version} is not on offer.")
    visit.stand.speak(lambda place: algorithms.withdraw_algorithm(place, offer, version, why.reason))
