"""What the REST API takes and answers: one model a noun. The SDK hands the same models to its caller."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lepton_pipelines.portal.roles import Right, Role

Text = Annotated[str, Field(max_length=300)]
Id = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$")]
Hex = Annotated[str, Field(pattern="^[0-9a-f]*$", max_length=200)]


class Message(BaseModel):
    """Closed: a field that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(Message):
    """Why something was refused, one sentence a problem."""

    problems: list[str]


class Health(Message):
    """That the portal is there."""

    status: Literal["ok"] = "ok"


class Challenge(Message):
    """What is to be signed. address: the portal's own, which the signature names."""

    nonce: str
    address: str
    expires_in: int


class SignIn(Message):
    """A challenge, answered. name: who signs; organisation: at whose stand, unset: the own, or the only one.

    roles: asked for; empty: all that the name has. browser: answer with a link instead of a cookie.
    """

    name: Id
    organisation: Id | None = None
    roles: list[Role] = Field(default_factory=list, max_length=4)
    nonce: Hex
    signature: Hex
    browser: bool = False


class SignedIn(Message):
    """Who is signed in. csrf: to be sent as X-CSRF-Token with whatever changes something. link: opens a browser's."""

    name: str
    organisation: str
    roles: list[Role]
    rights: list[Right]
    csrf: str = ""
    link: str = ""


class Organisation(Message):
    """A member of the ledger. key: its fingerprint; None: revoked. cosigned: it has cosigned the newest head.

    seconds_since_heard: how long ago the hub heard of it; None: not since the hub was started, or there is no hub.
    """

    name: str
    key: str | None
    admitted_at: int
    cosigned: bool
    own: bool
    trusted: bool
    products: list[str]
    runs: int
    models: int
    seconds_since_heard: float | None = None


class Product(Message):
    """A data product on offer, as a listing shows it."""

    product: str
    version: int
    title: str
    rows: int | None
    columns: int
    label: str | None
    shareable: bool
    refreshed: str | None
    contract: str


class Column(Message):
    """A column of a product."""

    name: str
    role: str
    kind: str
    unit: str | None = None
    description: str | None = None


class ProductDetail(Product):
    """A product with its terms and columns."""

    owner: str
    description: str
    index: int
    terms: dict[str, Any]
    column_list: list[Column]
    croissant: dict[str, Any]


class Obstacle(Message):
    """What keeps two products from being trained on together."""

    products: list[str]
    column: str | None
    problem: str


class Compatibility(Message):
    """Whether products can be trained on together."""

    compatible: bool
    obstacles: list[Obstacle]


class Asked(Message):
    """A request for a product's use and what became of it: asked, given, refused or revoked."""

    product: str
    grant: str
    state: str
    asked_by: str
    purpose: str
    until: str | None
    runs_allowed: int | None
    runs: list[str]
    reason: str
    to_decide: bool = False
    index: int


class AskedDetail(Asked):
    """A request with its full text. message: in the words of who asks; show it as text."""

    algorithm: str | None = None
    members: list[str] = Field(default_factory=list)
    runs_asked: int | None = None
    until_asked: str | None = None
    message: str = ""
    time: str = ""


class Ask(Message):
    """A request for the use of a product."""

    product: Annotated[str, Field(max_length=200)]
    purpose: Annotated[str, Field(min_length=1, max_length=120)]
    algorithm: Id | None = None
    members: list[Id] = Field(default_factory=list, max_length=64)
    runs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    until: date | None = None
    message: Annotated[str, Field(max_length=2000)] = ""


class Grant(Message):
    """An answer that allows. runs, until: narrower than the terms, if given."""

    runs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    until: date | None = None


class Refusal(Message):
    """An answer that refuses, or takes back, and why. The reason stands in the ledger for ever."""

    reason: Annotated[str, Field(min_length=1, max_length=300)]


class Model(Message):
    """A published version of a model. offer: the id under which it is on offer, if it is."""

    model: str
    version: int
    publisher: str
    published: str
    run: str
    digest: str
    index: int
    aliases: list[str]
    offer: str | None = None
    title: str | None = None
    licence: str | None = None
    scores: dict[str, float] = Field(default_factory=dict)


class Lineage(Message):
    """Where a model comes from, as the ledger has it: entries by their number, in words."""

    nodes: list["LineageNode"]
    edges: list[tuple[str, str]]


class LineageNode(Message):
    """One thing in a model's lineage. kind: model, run, member, product, score or alias. index: of its entry."""

    id: str
    kind: str
    title: str
    lines: list[str]
    index: int | None = None


class ModelDetail(Model):
    """A version with its lineage and, if it is on offer, its card."""

    members: list[str]
    lineage: Lineage
    card: dict[str, Any] | None = None


class ModelProof(Message):
    """What the ledger proves of a version, once it is recomputed, and what it cannot."""

    proved: list[str]
    not_proved: list[str]


class PulledModel(ModelProof):
    """A version of another's that is in the own registry now.

    registered_model, version: there. origin: OWNER/NAME/VERSION. serve: the command that serves it.
    """

    registered_model: str
    version: int
    origin: str
    serve: str


class Run(Message):
    """A run. trees: in the ledger; rounds: done here, of `of`. state: open, suspended, aborted, finished or here."""

    run: str
    pipeline: str
    state: str
    members: list[str]
    trees: int
    rounds: int
    of: int | None
    index: int | None = None
    model: str | None = None


class RunDetail(Run):
    """A run with what each member said, its scores, and where its pages are.

    history: this organisation's view of the training so far, by set and metric, a score a round.
    """

    manifest: str | None = None
    spec: str | None = None
    joined: dict[str, int | None] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    gates: dict[str, bool] = Field(default_factory=dict)
    models: list[str] = Field(default_factory=list)
    history: dict[str, dict[str, list[float]]] = Field(default_factory=dict)
    report: bool = False
    links: dict[str, str] = Field(default_factory=dict)


class Entry(Message):
    """An entry of the ledger. what: its own fields."""

    index: int
    kind: str
    time: str
    author: str
    what: dict[str, Any]


class Ledger(Message):
    """A stretch of the ledger, and its newest head."""

    origin: str
    size: int
    root: str
    cosigned_by: list[str]
    behind: str
    entries: list[Entry]


class Algorithm(Message):
    """An algorithm on offer. wheel, code: digests of the file and of what is in it; index: of the ledger's entry."""

    id: str
    version: str
    index: int
    wheel: str
    code: str
    title: str
    licence: str


class SummedVector(Message):
    """What an algorithm adds up over organisations, and what the total tells everybody."""

    name: str
    what: str
    reveals: str


class AlgorithmDetail(Algorithm):
    """An algorithm with what it sums, what it takes, and which code it is.

    parameters: JSON Schema. card: digest of the document that says all this.
    """

    description: str
    entry_point: str
    distribution: str
    requires: list[str]
    file: str
    size: int
    sums: list[SummedVector]
    parameters: dict[str, Any]
    card: str


class ProofOfEntry(Message):
    """Everything with which anyone recomputes the root from one entry. leaf, hashes, root: base64. proof: as a file."""

    index: int
    size: int
    leaf: str
    hashes: list[str]
    root: str
    proof: str


class Verification(Message):
    """What recomputing the whole ledger proved, and what it cannot."""

    holds: bool
    seconds: float
    size: int = 0
    proved: list[str] = Field(default_factory=list)
    not_proved: list[str] = Field(default_factory=list)
    problems: list[str] = Field(default_factory=list)
