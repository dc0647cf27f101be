"""Data products and the grants for them, as the entries so far made them."""

from dataclasses import dataclass

from lepton_pipelines.ledger.entries import (
    GrantAsked,
    GrantGiven,
    GrantRefused,
    GrantRevoked,
    GrantUsed,
    ProductChanged,
    ProductPublished,
    ProductWithdrawn,
)
from lepton_pipelines.ledger.errors import EntryRefused


@dataclass
class Product:
    """A data product on offer, at its newest version."""

    terms: ProductPublished | ProductChanged
    index: int
    withdrawn: bool = False

    @property
    def owner(self) -> str:
        """The organisation that offers it."""
        return self.terms.author.organisation


@dataclass
class Grant:
    """A request and what became of it. state: asked, given, refused or revoked; reason: of the last two."""

    asked: GrantAsked
    state: str = "asked"
    given: GrantGiven | None = None
    index: int = 0
    used_by: tuple[str, ...] = ()
    reason: str = ""


class Grants:
    """What is on offer and what was allowed. Each rule that an entry breaks is named in the refusal."""

    def __init__(self) -> None:
        self.products: dict[str, Product] = {}
        self.by_id: dict[tuple[str, str], Grant] = {}

    def publish(self, index: int, terms: ProductPublished) -> None:
        """Offer a product."""
        self._own(terms.product, terms.author.organisation)
        known = self.products.get(terms.product)
        if known is not None and not known.withdrawn:
            raise EntryRefused(f"{terms.product} is published already: a new version is a product-changed entry")
        if known is not None and terms.version <= known.terms.version:
            raise EntryRefused(f"{terms.product} was at version {known.terms.version}; the next one is higher")
        self.products[terms.product] = Product(terms, index)

    def change(self, index: int, terms: ProductChanged) -> None:
        """Offer a new version."""
        self._own(terms.product, terms.author.organisation)
        known = self._offered(terms.product)
        if terms.version <= known.terms.version:
            raise EntryRefused(f"{terms.product} is at version {known.terms.version}; the next one is higher")
        self.products[terms.product] = Product(terms, index)

    def withdraw(self, withdrawn: ProductWithdrawn) -> None:
        """Offer it no longer."""
        self._own(withdrawn.product, withdrawn.author.organisation)
        self._offered(withdrawn.product).withdrawn = True

    def ask(self, index: int, asked: GrantAsked) -> None:
        """Note a request."""
        product = self._offered(asked.product)
        if asked.contract != product.terms.contract:
            raise EntryRefused(f"grant {asked.grant} is asked for another contract of {asked.product} than is offered")
        if (asked.product, asked.grant) in self.by_id:
            raise EntryRefused(f"there is a request {asked.grant} for {asked.product} already")
        self.by_id[asked.product, asked.grant] = Grant(asked, index=index)

    def give(self, index: int, given: GrantGiven) -> None:
        """Allow what was asked, for the one who asked, for the contract that is offered now."""
        self._own(given.product, given.author.organisation)
        grant = self._grant(given.product, given.grant, given.request, "asked")
        product = self._offered(given.product)
        if given.to != grant.asked.author.organisation:
            raise EntryRefused(f"grant {given.grant} was asked by {grant.asked.author.organisation}, not {given.to}")
        if given.purpose != grant.asked.purpose:
            raise EntryRefused(f"grant {given.grant} was asked for another purpose")
        if given.contract != product.terms.contract:
            raise EntryRefused(f"the contract of {given.product} is not the one that grant {given.grant} is for")
        grant.state, grant.given, grant.index = "given", given, index

    def answer(self, answer: GrantRefused | GrantRevoked) -> None:
        """Refuse a request, or take a grant back."""
        self._own(answer.product, answer.author.organisation)
        refused = isinstance(answer, GrantRefused)
        grant = self._grant(answer.product, answer.grant, answer.request, "asked" if refused else "given")
        grant.state, grant.reason = "refused" if refused else "revoked", answer.reason

    def use(self, used: GrantUsed, run_members: tuple[str, ...]) -> None:
        """Use a grant for a run that its holder takes part in, within the terms."""
        self._own(used.product, used.author.organisation)
        grant = self._grant(used.product, used.grant, used.request, "given")
        given = grant.given
        product = self._offered(used.product)
        if given is None or given.contract != product.terms.contract:
            raise EntryRefused(f"the contract of {used.product} changed after grant {used.grant} was given")
        if given.to not in run_members:
            raise EntryRefused(f"grant {used.grant} is for {given.to}, who is not a member of run {used.run}")
        if given.until is not None and used.time > given.until:
            raise EntryRefused(f"grant {used.grant} ended at {given.until}")
        if used.run in grant.used_by:
            raise EntryRefused(f"grant {used.grant} is in use by run {used.run} already")
        if given.runs is not None and len(grant.used_by) >= given.runs:
            raise EntryRefused(f"grant {used.grant} is for {given.runs} runs, and as many were made")
        grant.used_by = (*grant.used_by, used.run)

    def _own(self, product: str, author: str) -> None:
        if product.split("/")[0] != author:
            raise EntryRefused(f"{author} cannot speak for {product}: only {product.split('/')[0]} can")

    def _offered(self, product: str) -> Product:
        known = self.products.get(product)
        if known is None or known.withdrawn:
            raise EntryRefused(f"{product} is not on offer")
        return known

    def _grant(self, product: str, name: str, request: str, state: str) -> Grant:
        grant = self.by_id.get((product, name))
        if grant is None or grant.asked.request != request:
            raise EntryRefused(f"nobody asked for grant {name} of {product} in these words")
        if grant.state != state:
            raise EntryRefused(f"grant {name} of {product} is {grant.state}, not {state}")
        return grant
