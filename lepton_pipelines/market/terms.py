"""Terms of use: what an owner writes, and the same in ODRL's vocabulary, as it is published.

What ODRL's core has no word for (algorithm, depth, privacy) comes from a profile of ours, `urn:lepton:odrl:`.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, ClassVar

from pydantic import Field

from lepton_pipelines.market.errors import MarketRefused, TermsRefused
from lepton_pipelines.spec.fields import Name, SpecModel, Text

CONTEXT = "http://www.w3.org/ns/odrl.jsonld"
PROFILE = "urn:lepton:odrl:"

Purpose = Annotated[Text, Field(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Price(SpecModel):
    """What a use costs. Settled between the two; nothing here moves money."""

    amount: float = Field(gt=0, title="Amount", description="For each run.")
    currency: Text = Field(pattern="^[A-Z]{3}$", title="Currency", description="ISO 4217, such as EUR.")


class Terms(SpecModel):
    """Under what a product may be used. Every clause is checked where the rows are, before a run and at each tree."""

    members: list[Name] | None = Field(
        default=None, min_length=1, title="Members", description="With whom it may be trained; unset: any member."
    )
    purposes: list[Purpose] | None = Field(
        default=None, min_length=1, title="Purposes", description="For which purposes; unset: the one that is granted."
    )
    algorithms: list[Name] | None = Field(
        default=None, min_length=1, title="Algorithms", description="What may be trained, such as xgboost; unset: any."
    )
    until: date | None = Field(default=None, title="Until", description="Last day of use, UTC.")
    runs: int | None = Field(default=None, ge=1, le=1_000_000, title="Runs", description="Most runs under a grant.")
    minimum_members: int = Field(default=3, ge=2, le=64, title="Minimum members", description="Fewest in a run.")
    max_depth: int | None = Field(default=None, ge=1, title="Depth", description="Largest max_depth.")
    max_rounds: int | None = Field(default=None, ge=1, title="Rounds", description="Most rounds.")
    disclosure_limit: int = Field(
        default=20, ge=20, le=1_000_000, title="Disclosure limit", description="Rows of the total behind any figure."
    )
    epsilon: float | None = Field(
        default=None, gt=0, title="Epsilon", description="Only with differential privacy of at most this epsilon."
    )
    price: Price | None = Field(default=None, title="Price", description="What a run costs.")

    noun: ClassVar[str] = "clause"

    def check(self, use: "Use", product: str) -> None:
        """Refuse a use that a clause does not allow. Raises TermsRefused, naming it, the product and both values."""
        others = [name for name in use.members if name != product.split("/")[0]]
        strangers = [name for name in others if self.members is not None and name not in self.members]
        if strangers:
            _refuse(product, "members", f"do not name {', '.join(strangers)}", "Run without, or ask for other terms")
        if self.purposes is not None and use.purpose not in self.purposes:
            _refuse(product, "purposes", f"allow {_listed(self.purposes)}, not «{use.purpose}»", "Ask the owner")
        if self.algorithms is not None and use.algorithm not in self.algorithms:
            _refuse(product, "algorithms", f"allow {_listed(self.algorithms)}, not {use.algorithm}", "Train another")
        if self.until is not None and use.at > last_second(self.until):
            _refuse(product, "until", f"ended on {self.until.isoformat()}", "Ask the owner for new terms")
        if len(use.members) < self.minimum_members:
            told = f"ask for {self.minimum_members} members, the run has {len(use.members)}"
            _refuse(product, "minimum_members", told, "Find another member")
        if self.max_depth is not None and not 1 <= use.depth <= self.max_depth:
            _refuse(product, "max_depth", f"allow {self.max_depth}, training.max_depth is {use.depth}", "Lower it")
        if self.max_rounds is not None and use.rounds > self.max_rounds:
            _refuse(product, "max_rounds", f"allow {self.max_rounds}, training.rounds is {use.rounds}", "Lower it")
        if use.disclosure_limit < self.disclosure_limit:
            told = f"ask for {self.disclosure_limit} rows behind a figure, the run's limit is {use.disclosure_limit}"
            _refuse(product, "disclosure_limit", told, "Raise the run's limit, or ask for other terms")
        if self.epsilon is not None and (use.epsilon is None or use.epsilon > self.epsilon):
            shown = "none" if use.epsilon is None else f"{use.epsilon:g}"
            told = f"ask for differential privacy with epsilon up to {self.epsilon:g}, the run has {shown}"
            _refuse(product, "epsilon", told, "Set it, or ask for other terms")

    def to_odrl(self, product: str) -> dict[str, Any]:
        """Return the terms as an ODRL offer of the product's owner."""
        dumped = self.model_dump(mode="json", exclude_none=True)
        constraints = [
            {"leftOperand": operand, "operator": operator, "rightOperand": dumped[clause]}
            for clause, (operand, operator) in _OPERANDS.items()
            if clause in dumped
        ]
        permission: dict[str, Any] = {"target": product, "action": "use", "constraint": constraints}
        if self.price is not None:
            amount = {"leftOperand": "payAmount", "operator": "eq", "rightOperand": self.price.amount}
            permission["duty"] = [{"action": "compensate", "constraint": [{**amount, "unit": self.price.currency}]}]
        return {
            "@context": [CONTEXT, {"lepton": PROFILE}],
            "@type": "Offer",
            "profile": PROFILE,
            "uid": f"urn:lepton:offer:{product}",
            "assigner": product.split("/")[0],
            "permission": [permission],
        }

    @staticmethod
    def from_odrl(offer: dict[str, Any]) -> "Terms":
        """Read terms back from an offer. Raises MarketRefused for one that has clauses that we do not know."""
        told: dict[str, Any] = {}
        try:
            (permission,) = offer["permission"]
            for constraint in permission["constraint"]:
                (clause,) = (
                    name
                    for name, known in _OPERANDS.items()
                    if known == (constraint["leftOperand"], constraint["operator"])
                )
                told[clause] = constraint["rightOperand"]
            for duty in permission.get("duty", []):
                (paid,) = duty["constraint"]
                told["price"] = {"amount": paid["rightOperand"], "currency": paid["unit"]}
            terms = Terms.model_validate(told)
        except (KeyError, TypeError, ValueError) as error:
            raise MarketRefused(
                f"the offer has terms that are not understood, so nothing is allowed: {error}"
            ) from error
        return terms


@dataclass(frozen=True)
class Use:
    """What somebody wants to do with a product. at: now, UTC, as in the ledger."""

    run: str
    members: tuple[str, ...]
    publisher: str
    purpose: str
    algorithm: str
    depth: int
    rounds: int
    epsilon: float | None = None
    disclosure_limit: int = 20
    at: str = ""


_OPERANDS = {
    "members": ("recipient", "isAnyOf"),
    "purposes": ("purpose", "isAnyOf"),
    "algorithms": ("lepton:algorithm", "isAnyOf"),
    "until": ("dateTime", "lteq"),
    "runs": ("count", "lteq"),
    "minimum_members": ("lepton:members", "gteq"),
    "max_depth": ("lepton:maxDepth", "lteq"),
    "max_rounds": ("lepton:rounds", "lteq"),
    "disclosure_limit": ("lepton:disclosureLimit", "gteq"),
    "epsilon": ("lepton:epsilon", "lteq"),
}


def last_second(day: date) -> str:
    """Return the last second of a day, UTC, as the ledger writes times."""
    return datetime.combine(day, time(23, 59, 59), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now() -> str:
    """Return the time as the ledger writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _refuse(product: str, clause: str, why: str, advice: str) -> None:
    raise TermsRefused(f"{product}: terms.{clause} {why}. {advice}.", clause)


def _listed(values: list[str]) -> str:
    return ", ".join(values)
