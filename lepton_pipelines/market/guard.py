"""Whether a run may use a product, decided where the product's rows are, from the owner's own copy of the ledger."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lepton_pipelines.ledger.documents import decode
from lepton_pipelines.ledger.errors import DocumentRefused
from lepton_pipelines.ledger.grants import Grant
from lepton_pipelines.ledger.history import History
from lepton_pipelines.market.errors import MarketRefused, TermsRefused
from lepton_pipelines.market.terms import Terms, Use, now

ReadDocument = Callable[[str], bytes]
"""digest → document; raises DocumentRefused if it is not there."""


def allowed(history: History, read: ReadDocument, product: str, use: Use) -> str | None:
    """Return the number of the grant under which a run may use a product; None where its owner publishes the model.

    use: what the run is. Raises TermsRefused, naming the clause, if there is no grant for just this, or the product's
    terms do not allow it.
    """
    entry = history.grants.products.get(product)
    if entry is None or entry.withdrawn:
        gone = "was withdrawn from" if entry is not None else "is not published in"
        raise TermsRefused(
            f"{product} {gone} the market: publish it (lepton market publish), or take product out.", "product"
        )
    try:
        terms = Terms.from_odrl(decode(read(entry.terms.terms)))
    except (DocumentRefused, MarketRefused) as error:
        raise TermsRefused(f"{product}: its terms cannot be read, so nothing is allowed: {error}", "terms") from error
    use = _at_now(use)
    terms.check(use, product)
    if use.publisher == product.split("/")[0]:
        return None
    reasons: list[TermsRefused] = []
    for (name, number), grant in sorted(history.grants.by_id.items()):
        if name != product or grant.asked.author.organisation != use.publisher:
            continue
        try:
            check_grant(history, read, product, number, use)
        except TermsRefused as error:
            reasons.append(error)
        else:
            return number
    if reasons:
        raise reasons[-1]
    raise TermsRefused(
        f"{product}: {use.publisher} has no grant for it. Ask its owner: lepton market request {product} --purpose …",
        "grant",
    )


def check_grant(history: History, read: ReadDocument, product: str, number: str, use: Use) -> None:
    """Check one grant against a use, at the start of a run and again at each tree. Raises TermsRefused."""
    use = _at_now(use)
    grant, entry = history.grants.by_id[product, number], history.grants.products[product]
    where = f"{product}, grant {number}:"
    if entry.withdrawn:
        raise TermsRefused(f"{where} the product was withdrawn.", "product")
    if grant.state != "given" or grant.given is None:
        why = f" ({grant.reason})" if grant.reason else ""
        told = {"asked": "its owner has not answered yet", "refused": f"it was refused{why}"}
        raise TermsRefused(f"{where} {told.get(grant.state, f'it was revoked{why}')}.", "grant")
    given = grant.given
    if given.contract != entry.terms.contract:
        raise TermsRefused(f"{where} the contract changed after it was given. Ask anew.", "contract")
    if given.purpose != use.purpose:
        raise TermsRefused(f"{where} it is for «{given.purpose}», the run's purpose is «{use.purpose}».", "purpose")
    if given.until is not None and use.at > given.until:
        raise TermsRefused(f"{where} it ended at {given.until}. Ask anew.", "until")
    if given.runs is not None and use.run not in grant.used_by and len(grant.used_by) >= given.runs:
        raise TermsRefused(f"{where} it is for {given.runs} runs, and as many were made. Ask anew.", "runs")
    _check_request(grant, read, entry.terms.terms, where, use)


def _check_request(grant: Grant, read: ReadDocument, terms: str, where: str, use: Use) -> None:
    try:
        asked: dict[str, Any] = decode(read(grant.asked.request))
    except (DocumentRefused, MarketRefused) as error:
        raise TermsRefused(f"{where} what was asked for cannot be read: {error}", "request") from error
    if asked["terms"] != terms:
        raise TermsRefused(f"{where} the terms changed after it was asked for. Ask anew.", "terms")
    if asked["members"] and sorted(use.members) != asked["members"]:
        told = ", ".join(asked["members"])
        raise TermsRefused(f"{where} it is for a run of {told}; this one has {', '.join(use.members)}.", "members")
    if asked["algorithm"] is not None and asked["algorithm"] != use.algorithm:
        raise TermsRefused(f"{where} it is for {asked['algorithm']}, the run trains {use.algorithm}.", "algorithm")


def _at_now(use: Use) -> Use:
    return use if use.at else replace(use, at=now())
