"""What people do in the market: publish and withdraw, ask, grant, refuse, revoke. Each is one entry in the ledger."""

import secrets
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.documents import encode
from lepton_pipelines.market.catalogue import grant_of, offer
from lepton_pipelines.market.croissant import describe
from lepton_pipelines.market.errors import MarketRefused
from lepton_pipelines.market.place import Place
from lepton_pipelines.market.product import ProductTerms, read_product
from lepton_pipelines.market.terms import last_second
from lepton_pipelines.spec.contract import parse_contract

REQUEST_FORMAT = "lepton-market-request/v1"


@dataclass(frozen=True)
class Request:
    """What is asked for. members: with whom it would be trained, the one who asks and the owner included, if known."""

    product: str
    purpose: str
    algorithm: str | None = None
    members: tuple[str, ...] = ()
    runs: int | None = None
    until: date | None = None
    message: str = ""


def publish(place: Place, spec: Path) -> tuple[str, int, bool]:
    """Offer the product that a file describes. Raises UserError if the file is wrong."""
    product, document, _ = read_product(spec)
    return publish_product(place, product, document)


def publish_product(place: Place, product: ProductTerms, document: dict[str, object]) -> tuple[str, int, bool]:
    """Offer a product, or a new version of one; the same again changes nothing.

    document: its contract. Returns its id, its version, and whether anything was written. Raises UserError if the
    contract is wrong, or if it is another organisation's product.
    """
    if product.organisation != place.organisation:
        raise MarketRefused(
            f"{product.id}: the product is {product.organisation}'s, but you speak for {place.organisation}."
        )
    contract = parse_contract(document, name=f"{product.id}'s contract")
    try:
        written = encode(document)
    except (ValueError, TypeError, RecursionError) as error:
        raise MarketRefused(f"{product.id}: its contract cannot be written as a document: {error}") from error
    documents = {
        "contract": written,
        "terms": encode(product.terms.to_odrl(product.id)),
        "description": encode(describe(product, contract)),
    }
    digests = {name: place.put(each) for name, each in documents.items()}
    told: dict[str, Any] = {**digests, "shareable": product.shareable is not None}
    if product.told_rows is not None:
        told["rows"] = product.told_rows
    known = place.history().grants.products.get(product.id)
    if known is None or known.withdrawn:
        version = 1 if known is None else known.terms.version + 1
        place.record(entries.ProductPublished, product=product.id, version=version, **told)
        return product.id, version, True
    before = known.terms.model_dump(exclude_none=True)
    if all(before.get(name) == value for name, value in told.items()) and before.get("rows") == told.get("rows"):
        return product.id, known.terms.version, False
    version = known.terms.version + 1
    place.record(entries.ProductChanged, product=product.id, version=version, **told)
    return product.id, version, True


def withdraw(place: Place, product: str, reason: str) -> None:
    """Offer a product no longer: no run may use it from here on."""
    contract = offer(place, product).entry.terms.contract
    place.record(entries.ProductWithdrawn, product=product, contract=contract, reason=reason)


def request(place: Place, asked: Request) -> str:
    """Ask for the use of a product; return the request's number. Raises MarketRefused if its terms rule it out."""
    found = offer(place, asked.product)
    terms = found.terms
    if terms.purposes is not None and asked.purpose not in terms.purposes:
        allowed = ", ".join(terms.purposes)
        raise MarketRefused(f"{asked.product}: terms.purposes allow {allowed}, not «{asked.purpose}».")
    if terms.members is not None and place.organisation not in terms.members:
        raise MarketRefused(f"{asked.product}: terms.members do not name {place.organisation}. Ask its owner.")
    told = {
        "format": REQUEST_FORMAT,
        "product": asked.product,
        "version": found.entry.terms.version,
        "contract": found.entry.terms.contract,
        "terms": found.entry.terms.terms,
        "by": place.organisation,
        "purpose": asked.purpose,
        "members": sorted(asked.members),
        "algorithm": asked.algorithm,
        "runs": asked.runs,
        "until": None if asked.until is None else asked.until.isoformat(),
        "message": asked.message[:2000],
        "nonce": secrets.token_hex(16),
    }
    number = f"g-{secrets.token_hex(4)}"
    place.record(
        entries.GrantAsked,
        grant=number,
        product=asked.product,
        contract=found.entry.terms.contract,
        request=place.put(encode(told)),
        purpose=asked.purpose,
    )
    return number


def give(
    place: Place, product: str, number: str, *, runs: int | None = None, until: date | None = None
) -> entries.GrantGiven:
    """Grant a request, for what was asked and no more. runs, until: narrower than the terms, if given."""
    asked = grant_of(place, product, number).asked
    terms = offer(place, product).terms
    ends = [day for day in (until, terms.until) if day is not None]
    counts = [count for count in (runs, terms.runs) if count is not None]
    fields: dict[str, Any] = {
        "grant": number,
        "product": product,
        "contract": asked.contract,
        "request": asked.request,
        "to": asked.author.organisation,
        "purpose": asked.purpose,
    }
    if ends:
        fields["until"] = last_second(min(ends))
    if counts:
        fields["runs"] = min(counts)
    place.record(entries.GrantGiven, **fields)
    given = grant_of(place, product, number).given
    if given is None:
        raise MarketRefused(f"{product}: the grant {number} did not reach the ledger. Try again.")
    return given


def refuse(place: Place, product: str, number: str, reason: str) -> None:
    """Refuse a request."""
    asked = grant_of(place, product, number).asked
    place.record(entries.GrantRefused, grant=number, product=product, request=asked.request, reason=reason)


def revoke(place: Place, product: str, number: str, reason: str) -> None:
    """Take a grant back: a run that uses it stops at its next tree."""
    asked = grant_of(place, product, number).asked
    place.record(entries.GrantRevoked, grant=number, product=product, request=asked.request, reason=reason)
