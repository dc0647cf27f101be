"""What is on offer, as the ledger and its documents say: listing, search, and the details of one product."""

from dataclasses import dataclass
from typing import Any

from lepton_pipelines.ledger.documents import decode
from lepton_pipelines.ledger.errors import DocumentRefused
from lepton_pipelines.ledger.grants import Grant
from lepton_pipelines.ledger.grants import Product as Entry
from lepton_pipelines.market.compatibility import obstacles
from lepton_pipelines.market.errors import MarketRefused
from lepton_pipelines.market.place import Place
from lepton_pipelines.market.terms import Terms
from lepton_pipelines.spec.contract import Column, Contract, parse_contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import did_you_mean


@dataclass(frozen=True)
class Offer:
    """A product on offer. id: owner/name. entry: what the ledger has of it."""

    id: str
    entry: Entry
    description: dict[str, Any]
    contract: Contract
    terms: Terms

    @property
    def title(self) -> str:
        """One line for people."""
        return str(self.description.get("alternateName", self.id))

    @property
    def words(self) -> str:
        """Everything that a search looks through, in lower case."""
        columns = " ".join(f"{column.name} {column.description or ''}" for column in self.contract.columns)
        told = self.description
        parts = [self.id, self.title, str(told.get("description", "")), *self.keywords, columns]
        return " ".join(parts).lower()

    @property
    def keywords(self) -> list[str]:
        """What its owner calls it, its domain included."""
        told = self.description.get("keywords")
        return [str(each) for each in told] if isinstance(told, list) else []

    def _told(self, name: str) -> str | None:
        value = self.description.get(name)
        return None if value is None else str(value)

    def summary(self) -> dict[str, Any]:
        """Return what a listing shows."""
        terms = self.entry.terms
        label = self.contract.label
        return {
            "product": self.id,
            "version": terms.version,
            "title": self.title,
            "rows": terms.rows,
            "columns": len(self.contract.columns),
            "label": label.name if label is not None else None,
            "shareable": terms.shareable,
            "refreshed": self._told("dateModified"),
            "contract": terms.contract,
        }


def offers(place: Place) -> list[Offer]:
    """Return every product on offer, by id. One whose documents are missing or changed is left out."""
    found = []
    for name, entry in sorted(place.history().grants.products.items()):
        if entry.withdrawn:
            continue
        try:
            found.append(_read(place, name, entry))
        except (DocumentRefused, MarketRefused):
            continue
    return found


def offer(place: Place, product: str) -> Offer:
    """Return one product on offer. Raises MarketRefused, with the nearest name, if there is none."""
    products = place.history().grants.products
    entry = products.get(product)
    if entry is None:
        raise MarketRefused(f"{product} is not in this market.{did_you_mean(product, list(products))}")
    if entry.withdrawn:
        raise MarketRefused(f"{product} was withdrawn by {entry.owner}.")
    return _read(place, product, entry)


def search(
    place: Place,
    text: str = "",
    *,
    domain: str | None = None,
    columns: tuple[str, ...] = (),
    label: str | None = None,
    objective: str | None = None,
    fits: Contract | None = None,
) -> list[Offer]:
    """Return the products that match everything that is asked for.

    text: words that must all occur. domain: one of the keywords. columns: that it must have. label: what it lets
    predict. objective: what its label can be trained for, by XGBoost's names.
    fits: a contract that it must be trainable with, column by column.
    """
    found = []
    for one in offers(place):
        names = {column.name for column in one.contract.columns if column.role != "unused"}
        keywords = {each.lower() for each in one.keywords}
        has_label = one.contract.label
        if (
            all(word in one.words for word in text.lower().split())
            and (domain is None or domain.lower() in keywords)
            and set(columns) <= names
            and (label is None or (has_label is not None and has_label.name == label))
            and (objective is None or (has_label is not None and serves(has_label, objective)))
            and (fits is None or not obstacles({"you": fits, one.id: one.contract}))
        ):
            found.append(one)
    return found


def serves(label: Column, objective: str) -> bool:
    """Tell whether a label's values are what an objective predicts: two classes, several, or numbers."""
    classes = len(label.categories) or (2 if label.kind == "boolean" else 0)
    if label.integer and (label.minimum, label.maximum) == (0, 1):
        classes = 2
    if objective.startswith("binary:"):
        return classes == 2
    if objective.startswith("multi:"):
        return classes > 1 or label.integer
    return label.kind == "number"


def usage(place: Place, product: str | None = None) -> list[dict[str, Any]]:
    """Return every request, what became of it, and the runs that used it; of one product, or of all."""
    grants = place.history().grants.by_id
    return [
        {
            "product": name,
            "grant": number,
            "state": grant.state,
            "asked_by": grant.asked.author.organisation,
            "purpose": grant.asked.purpose,
            "until": grant.given.until if grant.given else None,
            "runs_allowed": grant.given.runs if grant.given else None,
            "runs": list(grant.used_by),
            "reason": grant.reason,
        }
        for (name, number), grant in sorted(grants.items())
        if product is None or product == name
    ]


def grant_of(place: Place, product: str, number: str) -> Grant:
    """Return a request by its number. Raises MarketRefused if there is none."""
    grants = place.history().grants.by_id
    grant = grants.get((product, number))
    if grant is None:
        known = [each for name, each in grants if name == product]
        raise MarketRefused(f"{product} has no request {number}.{did_you_mean(number, known)} See: lepton market usage")
    return grant


def _read(place: Place, name: str, entry: Entry) -> Offer:
    terms = entry.terms
    if terms.description is None:
        raise MarketRefused(f"{name} has no description in the ledger")
    try:
        description = decode(place.get(terms.description))
        contract = parse_contract(decode(place.get(terms.contract)), name=f"{name}'s contract")
        agreed = Terms.from_odrl(decode(place.get(terms.terms)))
    except DocumentRefused:
        raise
    except (UserError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MarketRefused(f"{name}: a document of its owner's cannot be read: {error}") from error
    if not isinstance(description, dict):
        raise MarketRefused(f"{name}: its description is no Croissant document.")
    return Offer(name, entry, description, contract, agreed)
