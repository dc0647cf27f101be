"""What may stand in the ledger: the predicates of our in-toto statements, one class a kind."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from lepton_pipelines.ledger.compute_entries import COMPUTE_KINDS
from lepton_pipelines.ledger.predicate import (
    DISCLOSURE_LIMIT,
    Commitment,
    KeyId,
    Metric,
    Name,
    Organisation,
    Predicate,
    ProductId,
    PublicKey,
    Purpose,
    Reason,
    Release,
    Rows,
    Sha256,
    Time,
    digest_of,
)


class MemberAdmitted(Predicate):
    """An organisation joins with its key. Signed by the new key and by the log's operator or a member."""

    KIND: ClassVar[str] = "member-admitted"

    organisation: Organisation
    key: PublicKey

    def subjects(self) -> list[tuple[str, str]]:
        """The new member's key."""
        return [(self.organisation, digest_of(self.key.raw))]


class KeyRotated(Predicate):
    """A member goes over to a new key. Signed by the old and the new key."""

    KIND: ClassVar[str] = "key-rotated"

    key: PublicKey

    def subjects(self) -> list[tuple[str, str]]:
        """The new key."""
        return [(self.author.organisation, digest_of(self.key.raw))]


class KeyRevoked(Predicate):
    """A key is worth nothing from here on. Signed by its organisation or by the log's operator."""

    KIND: ClassVar[str] = "key-revoked"

    organisation: Organisation
    key: KeyId
    reason: Reason

    def subjects(self) -> list[tuple[str, str]]:
        """The revoked key."""
        return [(self.organisation, self.key.removeprefix("ed25519:"))]


class _ProductTerms(Predicate):
    """A data product as its owner offers it: digests of contract, description and terms, never rows.

    rows: their number, None where it is below the disclosure limit or not to be told.
    """

    product: ProductId
    version: Annotated[int, Field(ge=1, le=1_000_000)]
    contract: Sha256
    terms: Sha256
    description: Sha256 | None = None
    rows: Rows | None = None
    commitment: Commitment | None = None
    shareable: bool = False

    def subjects(self) -> list[tuple[str, str]]:
        """The product's contract and terms."""
        return [(f"{self.product}/contract", self.contract), (f"{self.product}/terms", self.terms)]


class ProductPublished(_ProductTerms):
    """A data product is offered for the first time."""

    KIND: ClassVar[str] = "product-published"


class ProductChanged(_ProductTerms):
    """A data product has a new version; grants for the one before do not cover it."""

    KIND: ClassVar[str] = "product-changed"


class ProductWithdrawn(Predicate):
    """A data product is offered no longer."""

    KIND: ClassVar[str] = "product-withdrawn"

    product: ProductId
    contract: Sha256
    reason: Reason

    def subjects(self) -> list[tuple[str, str]]:
        """The product's contract."""
        return [(f"{self.product}/contract", self.contract)]


class GrantAsked(Predicate):
    """The author asks for the use of a product; the request's full text stays with the two and is named by digest."""

    KIND: ClassVar[str] = "grant-asked"

    grant: Name
    product: ProductId
    contract: Sha256
    request: Sha256
    purpose: Purpose

    def subjects(self) -> list[tuple[str, str]]:
        """The request."""
        return [(f"{self.product}/{self.grant}", self.request)]


class GrantGiven(Predicate):
    """The product's owner allows what was asked: for whom, for what, until when, how many runs."""

    KIND: ClassVar[str] = "grant-given"

    grant: Name
    product: ProductId
    contract: Sha256
    request: Sha256
    to: Organisation
    purpose: Purpose
    until: Time | None = None
    runs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    def subjects(self) -> list[tuple[str, str]]:
        """The request and the contract that it is for."""
        return [(f"{self.product}/{self.grant}", self.request), (f"{self.product}/contract", self.contract)]


class _GrantAnswer(Predicate):
    """What an owner says about a request: which, and why."""

    grant: Name
    product: ProductId
    request: Sha256
    reason: Reason

    def subjects(self) -> list[tuple[str, str]]:
        """The request."""
        return [(f"{self.product}/{self.grant}", self.request)]


class GrantRefused(_GrantAnswer):
    """The product's owner refuses what was asked."""

    KIND: ClassVar[str] = "grant-refused"


class GrantRevoked(_GrantAnswer):
    """The product's owner takes a grant back."""

    KIND: ClassVar[str] = "grant-revoked"


class GrantUsed(Predicate):
    """A run uses a product under a grant. Written by the owner, at whose place the grant is checked."""

    KIND: ClassVar[str] = "grant-used"

    grant: Name
    product: ProductId
    request: Sha256
    run: Name

    def subjects(self) -> list[tuple[str, str]]:
        """The request that was granted."""
        return [(f"{self.product}/{self.grant}", self.request)]


class RunOpened(Predicate):
    """A run begins: its members, and the digests of manifest and spec that it goes by."""

    KIND: ClassVar[str] = "run-opened"

    run: Name
    pipeline: Name
    members: Annotated[list[Organisation], Field(min_length=1, max_length=64)]
    manifest: Sha256
    spec: Sha256
    code_version: Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[\w.+!-]+$")]
    disclosure_limit: Annotated[int, Field(ge=DISCLOSURE_LIMIT, le=1_000_000)] = DISCLOSURE_LIMIT

    @model_validator(mode="after")
    def _members_in_order(self) -> "RunOpened":
        if self.members != sorted(set(self.members)):
            raise ValueError("members are listed once each, in alphabetical order")
        return self

    def subjects(self) -> list[tuple[str, str]]:
        """The manifest and the spec."""
        return [(f"{self.run}/manifest", self.manifest), (f"{self.run}/spec", self.spec)]


class RunJoined(Predicate):
    """The author takes part under this manifest with the rows behind this commitment.

    rows: their number, None where it is below the run's disclosure limit or not to be told.
    """

    KIND: ClassVar[str] = "run-joined"

    run: Name
    manifest: Sha256
    dataset: Commitment
    rows: Rows | None = None

    def subjects(self) -> list[tuple[str, str]]:
        """The manifest."""
        return [(f"{self.run}/manifest", self.manifest)]


class _RunState(Predicate):
    """Where a run stands: after how many trees, under which manifest."""

    run: Name
    manifest: Sha256
    trees: Annotated[int, Field(ge=0, le=10_000_000)]

    def subjects(self) -> list[tuple[str, str]]:
        """The manifest."""
        return [(f"{self.run}/manifest", self.manifest)]


class RunSuspended(_RunState):
    """A run waits: who is missing, and why."""

    KIND: ClassVar[str] = "run-suspended"

    missing: list[Organisation] = Field(default_factory=list, max_length=64)
    reason: Reason


class RunResumed(_RunState):
    """A run goes on where it stood."""

    KIND: ClassVar[str] = "run-resumed"


class RunAborted(_RunState):
    """A run has ended without a model."""

    KIND: ClassVar[str] = "run-aborted"

    reason: Reason


class RunFinished(_RunState):
    """A run has ended with this model."""

    KIND: ClassVar[str] = "run-finished"

    model: Sha256

    def subjects(self) -> list[tuple[str, str]]:
        """The model and the manifest that it was trained under."""
        return [(f"{self.run}/model", self.model), (f"{self.run}/manifest", self.manifest)]


class TreeFinished(Predicate):
    """A tree is done: the digest of the model so far, of what each member sent, and what the check of the sums said.

    tree: counts from 1; where a round grows several trees (one a class), they count as one.
    sent: member → digest of its masked uploads since the tree before; empty where no hub adds up.
    """

    KIND: ClassVar[str] = "tree-finished"

    run: Name
    tree: Annotated[int, Field(ge=1, le=10_000_000)]
    model: Sha256
    sent: dict[Organisation, Sha256] = Field(default_factory=dict)
    check: Literal["passed", "failed", "no hub"]

    def subjects(self) -> list[tuple[str, str]]:
        """The model as it stands after this tree."""
        return [(f"{self.run}/tree-{self.tree}", self.model)]


class ModelPublished(Predicate):
    """A version of a model is in its publisher's registry."""

    KIND: ClassVar[str] = "model-published"

    model: Name
    version: Annotated[int, Field(ge=1, le=1_000_000_000)]
    run: Name
    digest: Sha256

    def subjects(self) -> list[tuple[str, str]]:
        """The model's file."""
        return [(f"{self.model}/{self.version}", self.digest)]


class ModelPromoted(Predicate):
    """A version got an alias (`champion`), by the gates or by a decision."""

    KIND: ClassVar[str] = "model-promoted"

    model: Name
    version: Annotated[int, Field(ge=1, le=1_000_000_000)]
    alias: Name
    digest: Sha256

    def subjects(self) -> list[tuple[str, str]]:
        """The model's file."""
        return [(f"{self.model}/{self.version}", self.digest)]


class ModelRolledBack(Predicate):
    """An alias went back to an earlier version."""

    KIND: ClassVar[str] = "model-rolled-back"

    model: Name
    version: Annotated[int, Field(ge=1, le=1_000_000_000)]
    before: Annotated[int, Field(ge=1, le=1_000_000_000)]
    alias: Name
    digest: Sha256
    reason: Reason

    def subjects(self) -> list[tuple[str, str]]:
        """The file of the model that serves again."""
        return [(f"{self.model}/{self.version}", self.digest)]


class ModelOffered(Predicate):
    """A published version is offered to others, with a card that says what it is and under which licence."""

    KIND: ClassVar[str] = "model-offered"

    offer: ProductId
    version: Annotated[int, Field(ge=1, le=1_000_000_000)]
    digest: Sha256
    card: Sha256

    def subjects(self) -> list[tuple[str, str]]:
        """The model's file and its card."""
        return [(f"{self.offer}/{self.version}", self.digest), (f"{self.offer}/{self.version}/card", self.card)]


class ModelWithdrawn(Predicate):
    """A version is offered no longer."""

    KIND: ClassVar[str] = "model-withdrawn"

    offer: ProductId
    version: Annotated[int, Field(ge=1, le=1_000_000_000)]
    digest: Sha256
    reason: Reason

    def subjects(self) -> list[tuple[str, str]]:
        """The model's file."""
        return [(f"{self.offer}/{self.version}", self.digest)]


class AlgorithmOffered(Predicate):
    """An algorithm is offered: its wheel, the code that is in it, and a card. A version is one wheel for ever."""

    KIND: ClassVar[str] = "algorithm-offered"

    offer: ProductId
    version: Release
    wheel: Sha256
    code: Sha256
    card: Sha256

    def subjects(self) -> list[tuple[str, str]]:
        """The wheel, and its card."""
        return [(f"{self.offer}/{self.version}", self.wheel), (f"{self.offer}/{self.version}/card", self.card)]


class AlgorithmWithdrawn(Predicate):
    """An algorithm's version is offered no longer."""

    KIND: ClassVar[str] = "algorithm-withdrawn"

    offer: ProductId
    version: Release
    wheel: Sha256
    reason: Reason

    def subjects(self) -> list[tuple[str, str]]:
        """The wheel."""
        return [(f"{self.offer}/{self.version}", self.wheel)]


class Evaluation(Predicate):
    """How a model scored over all members' held-out rows, and which gates it passed."""

    KIND: ClassVar[str] = "evaluation"

    run: Name
    model: Sha256
    rows: Rows | None = None
    metrics: dict[Name, Metric] = Field(max_length=200)
    gates: dict[Name, bool] = Field(default_factory=dict, max_length=200)

    def subjects(self) -> list[tuple[str, str]]:
        """The model that was scored."""
        return [(f"{self.run}/model", self.model)]


class PolicyRefused(Predicate):
    """An organisation's policy refused a run: under which manifest, by which clause."""

    KIND: ClassVar[str] = "policy-refused"

    run: Name
    manifest: Sha256
    clause: Name
    reason: Reason

    def subjects(self) -> list[tuple[str, str]]:
        """The manifest."""
        return [(f"{self.run}/manifest", self.manifest)]


KINDS: dict[str, type[Predicate]] = {
    kind.KIND: kind
    for kind in (
        MemberAdmitted, KeyRotated, KeyRevoked,
        ProductPublished, ProductChanged, ProductWithdrawn,
        GrantAsked, GrantGiven, GrantRefused, GrantRevoked, GrantUsed,
        RunOpened, RunJoined, RunSuspended, RunResumed, RunAborted, RunFinished, TreeFinished,
        ModelPublished, ModelPromoted, ModelRolledBack, ModelOffered, ModelWithdrawn, Evaluation, PolicyRefused,
        AlgorithmOffered, AlgorithmWithdrawn, *COMPUTE_KINDS,
    )
}  # fmt: skip
