"""One organisation's own file: where its rows lie, what may be done with them, and where they are computed on."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from .errors import UserError
from .fields import Arguments, Name, Secret, SpecModel, Text
from .row_filter import Conditions
from .yaml_file import read_yaml, validate

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_SIZE = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*$")
_SIZES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = _SIZE.match(value)
    sizes = {unit.lower(): size for unit, size in _SIZES.items()}
    if not found or found[2].lower() not in sizes:
        raise PydanticCustomError(
            "spec", 'is "{value}", which is no amount of memory. Write it as 4 GB or 512 MiB', {"value": value}
        )
    return int(float(found[1]) * sizes[found[2].lower()])


Memory = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str), Field(gt=0)]
"""Bytes, written as a number or with a unit: 4 GB, 512 MiB."""


def memory_of(text: str) -> int:
    """Read an amount of memory, such as 4 GB, in bytes. Raises UserError."""
    try:
        return TypeAdapter(Memory).validate_python(text)
    except ValidationError as error:
        raise UserError(f"the memory {error.errors()[0]['msg']}.") from None


class Storage(SpecModel):
    """How an object store is reached; unset, the environment or the machine's role say it."""

    endpoint: Text | None = Field(
        default=None,
        title="Endpoint",
        description="Address of an S3-compatible store other than AWS, http(s)://host:port.",
    )
    region: Text | None = Field(default=None, title="Region", description="The bucket's region.")
    profile: Text | None = Field(default=None, title="Profile", description="Profile of the AWS configuration files.")
    anonymous: bool = Field(default=False, title="Anonymous", description="Read a public bucket without credentials.")
    key: Secret | None = Field(
        default=None, title="Access key", description="Environment variable with the access key id."
    )
    secret: Secret | None = Field(
        default=None, title="Secret key", description="Environment variable with the secret key."
    )
    token: Secret | None = Field(
        default=None, title="Session token", description="Environment variable with the token."
    )

    @model_validator(mode="after")
    def _one_way(self) -> "Storage":
        if (self.key is None) != (self.secret is None):
            raise PydanticCustomError("spec", "needs key and secret together")
        ways = [n for n in ("anonymous", "profile", "key") if getattr(self, n)]
        if len(ways) > 1:
            raise PydanticCustomError(
                "spec", "names {first} and {second}. Keep one", {"first": ways[0], "second": ways[1]}
            )
        return self


class Csv(SpecModel):
    """How a CSV file is written."""

    delimiter: Text = Field(
        default=",", min_length=1, max_length=1, title="Delimiter", description="What separates values."
    )
    encoding: Text = Field(default="utf-8", title="Encoding", description="The text's encoding.")
    header: bool = Field(
        default=True, title="Header", description="The first line names the columns; if not, the contract's order does."
    )
    decimal: Literal[".", ","] = Field(default=".", title="Decimal mark", description="What separates decimals.")


class Sql(SpecModel):
    """Which rows of a database; data.url is then SQLAlchemy's address of it, postgresql+psycopg://host/database."""

    table: Text | None = Field(default=None, title="Table", description="The table or view, schema.table if need be.")
    query: Text | None = Field(
        default=None, title="Query", description="Instead of a table, a SELECT that gives the rows."
    )
    user: Secret | None = Field(
        default=None, title="User", description="Environment variable with the user's name; unset: the URL's."
    )
    password: Secret | None = Field(
        default=None, title="Password", description="Environment variable with the password; unset: none."
    )


class Data(SpecModel):
    """Where an organisation's rows lie."""

    url: Text = Field(
        title="URL", description="File, folder or pattern: a path, s3://bucket/folder/, or any fsspec URL."
    )
    format: Literal["parquet", "csv"] | None = Field(
        default=None, title="Format", description="Unset: by the files' names (.parquet; .csv, .csv.gz, .csv.zst)."
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        title="Columns",
        description="The contract's name and the data's name of columns that are called differently here.",
    )
    filter: Conditions = Field(
        default_factory=dict,
        title="Filter",
        description="By the data's own column names, which rows are read: a value, a list, or {min, max, below}.",
    )
    delta_version: int | None = Field(
        default=None, ge=0, title="Delta version", description="Of a Delta table, which version; unset: the newest."
    )
    csv: Csv = Field(default_factory=Csv, title="CSV", description="How CSV files are written.")
    cache: Text | None = Field(
        default=None,
        title="Cache",
        description="Folder on the workers' machines that keeps prepared pieces between runs; unset: none are kept.",
    )
    storage: Storage = Field(default_factory=Storage, title="Storage", description="How an object store is reached.")
    sql: Sql | None = Field(default=None, title="SQL", description="Which rows of a database, if the URL is one's.")

    @model_validator(mode="after")
    def _database(self) -> "Data":
        if re.match(r"^[^/]*://[^/@:]*:[^/@]*@", self.url):
            raise PydanticCustomError(
                "spec", "holds a password in its url. Take it out and name its variable in data.sql.password"
            )
        if self.sql is None:
            return self
        if (self.sql.table is None) == (self.sql.query is None):
            raise PydanticCustomError("spec", "needs sql.table or sql.query, one of them")
        if not _SCHEME.match(self.url):
            raise PydanticCustomError(
                "spec", "has sql, so its url must be a database's, such as postgresql+psycopg://host/database"
            )
        for name in ("format", "cache", "delta_version"):
            if getattr(self, name) is not None:
                raise PydanticCustomError("spec", "has sql and {name}, which is for files. Take it out", {"name": name})
        return self


def _data(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


class LocalCompute(SpecModel):
    """Dask workers on this machine, started for the run."""

    workers: int = Field(default=1, ge=1, le=1024, title="Workers", description="Number of Dask workers.")
    threads: int | None = Field(
        default=None, ge=1, title="Threads", description="Threads a worker; unset: the machine's cores shared out."
    )
    processes: bool | None = Field(
        default=None, title="Processes", description="Each worker is a process; unset: if there are several workers."
    )
    memory: Memory | None = Field(
        default=None, title="Memory", description="Most memory a worker may use, such as 4 GB."
    )


class Tls(SpecModel):
    """Certificates with which a Dask scheduler is reached."""

    ca: Text = Field(title="Authority", description="File with the certificate authority's certificate.")
    certificate: Text = Field(title="Certificate", description="File with this client's certificate.")
    key: Text = Field(title="Key", description="File with this client's private key.")


class SchedulerCompute(SpecModel):
    """A Dask cluster that runs already."""

    scheduler: Text = Field(
        pattern=r"^(tls|tcp|ws|wss|ucx)://\S+$", title="Scheduler", description="Its address, tls://host:8786."
    )
    tls: Tls | None = Field(
        default=None, title="TLS", description="Certificates; unset: Dask's own configuration says them."
    )


class ClusterCompute(SpecModel):
    """Any Dask cluster class, started for the run."""

    cluster: Text = Field(
        pattern=r"^[A-Za-z_][\w]*(\.[A-Za-z_][\w]*)+$",
        title="Cluster class",
        description="Import path, such as dask_kubernetes.operator.KubeCluster.",
    )
    arguments: Arguments = Field(
        default_factory=dict, title="Arguments", description="Keyword arguments for the class."
    )
    workers: int = Field(default=1, ge=1, title="Workers", description="Number of Dask workers to scale to.")


def _compute_kind(value: Any) -> str:
    # Tags hold a space: no key of a file does, so a message never takes one for a field.
    if isinstance(value, (SchedulerCompute, ClusterCompute)):
        return "a scheduler" if isinstance(value, SchedulerCompute) else "a cluster class"
    if isinstance(value, dict):
        if "scheduler" in value:
            return "a scheduler"
        if "cluster" in value:
            return "a cluster class"
    return "local workers"


Compute = Annotated[
    Annotated[LocalCompute, Tag("local workers")]
    | Annotated[SchedulerCompute, Tag("a scheduler")]
    | Annotated[ClusterCompute, Tag("a cluster class")],
    Discriminator(_compute_kind),
]


class AllowedAlgorithm(SpecModel):
    """An algorithm that may be trained; one that is not Lepton Pipelines' own, by the digest of its code."""

    name: Name = Field(title="Name", description="As a pipeline's training.algorithm has it.")
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, title="Digest", description="Of its code, as `lepton market verify-algorithm` tells it."
    )


def _named(value: Any) -> Any:
    return value if isinstance(value, (dict, AllowedAlgorithm)) else {"name": value}


class Policy(SpecModel):
    """What this organisation lets happen with its rows; checked at home before anything starts."""

    members: list[Name] | None = Field(
        default=None,
        title="Members",
        description="With whom a model may be trained; unset: with anyone the pipeline names.",
    )
    publishers: list[Name] | None = Field(
        default=None, title="Publishers", description="Who may register the model; unset: any of the members."
    )
    minimum_members: int = Field(
        default=3, ge=2, title="Minimum members", description="Fewest organisations in a run, this one included."
    )
    runs_per_week: int | None = Field(
        default=None, ge=1, title="Runs per week", description="Most runs within seven days; unset: any number."
    )
    max_depth: int | None = Field(default=None, ge=1, title="Depth", description="Largest max_depth; unset: any.")
    max_rounds: int | None = Field(default=None, ge=1, title="Rounds", description="Most rounds; unset: any number.")
    max_bin: int | None = Field(default=None, ge=2, title="Bins", description="Most bins a feature; unset: any number.")
    algorithms: (
        list[Annotated[AllowedAlgorithm, BeforeValidator(_named, json_schema_input_type=Name | AllowedAlgorithm)]]
        | None
    ) = Field(
        default=None,
        title="Algorithms",
        description="What may be trained here: xgboost, linear, others as {name, digest}; unset: the first two.",
    )
    when_lost: Literal["suspend", "go_on"] = Field(
        default="go_on",
        title="When an organisation is lost",
        description="suspend: refuse runs that may go on without an organisation, this one included, which shows the "
        "others nearly its own sums; go_on: take part in them.",
    )
    contribution: bool = Field(
        default=False,
        title="Contribution",
        description="Sign for contribution reports, which show the other members nearly this organisation's own sums.",
    )
    kept_days: int | None = Field(
        default=None,
        ge=1,
        title="Days kept",
        description="Days that journals, checkpoints, set-aside rows and logs of runs that are over are kept; unset: "
        "for ever.",
    )
    share_scores: bool = Field(
        default=False, title="Share scores", description="This organisation's own scores may be shown to the others."
    )
    share_rows: bool = Field(
        default=False,
        title="Share row counts",
        description="This organisation's number of rows may be shown to the others.",
    )

    noun: ClassVar[str] = "policy"


class Tracking(SpecModel):
    """Where this organisation keeps its MLflow records."""

    mlflow: Text | None = Field(
        default=None,
        title="MLflow",
        description="Tracking server's address; unset: SQLite and a folder beside the run.",
    )
    experiment: Text | None = Field(default=None, title="Experiment", description="Unset: the pipeline's name.")


class Organisation(SpecModel):
    """One organisation's own file, seen by nobody else."""

    organisation: Name = Field(title="Organisation", description="This organisation's name, as the pipeline has it.")
    data: Annotated[Data, BeforeValidator(_data, json_schema_input_type=str | Data)] = Field(
        title="Data", description="Where its rows lie: a URL, or a URL with options."
    )
    compute: Compute = Field(
        default_factory=LocalCompute, title="Compute", description="The Dask cluster that holds its rows."
    )
    policy: Policy = Field(
        default_factory=Policy, title="Policy", description="What this organisation lets happen with its rows."
    )
    tracking: Tracking = Field(default_factory=Tracking, title="Tracking", description="Where its records are kept.")
    on_violation: Literal["refuse", "quarantine"] = Field(
        default="refuse",
        title="On violation",
        description="Rows that break the contract: refuse the run, or set them aside in a file at home and go on.",
    )
    product: Name | None = Field(
        default=None,
        title="Data product",
        description="Its rows are this product of its own in the market: its terms are kept, and a run needs a grant.",
    )
    identity: Text | None = Field(
        default=None, title="Identity", description="Folder with this organisation's key and certificate."
    )


def read_organisation(path: Path | str) -> Organisation:
    """Read an organisation's file; paths in it are taken from the folder that it lies in.

    Raises UserError with every problem as "file:line  field what".
    """
    path = Path(path)
    document = read_yaml(path)
    organisation = validate(Organisation, document)
    folder = path.resolve().parent
    data = organisation.data.model_copy(update={"url": _from(folder, organisation.data.url)})
    if data.cache is not None:
        data = data.model_copy(update={"cache": _from(folder, data.cache)})
    changes: dict[str, Any] = {"data": data}
    if organisation.identity is not None:
        changes["identity"] = _from(folder, organisation.identity)
    if isinstance(organisation.compute, SchedulerCompute) and organisation.compute.tls is not None:
        tls = {name: _from(folder, file) for name, file in organisation.compute.tls.model_dump().items()}
        changes["compute"] = organisation.compute.model_copy(update={"tls": Tls(**tls)})
    return organisation.model_copy(update=changes)


def check_policy(organisation: Organisation, *, members: list[str], publisher: str, depth: int, rounds: int) -> None:
    """Refuse a run that this organisation's policy does not allow. Raises UserError with every reason."""
    policy, name = organisation.policy, organisation.organisation
    problems = []
    others = [m for m in members if m != name]
    if name not in members:
        problems.append(f"{name}: the pipeline does not name {name} among its organisations.")
    if policy.members is not None and (strangers := [m for m in others if m not in policy.members]):
        problems.append(f"{name}: policy.members does not allow training with {', '.join(strangers)}.")
    if policy.publishers is not None and publisher not in policy.publishers:
        problems.append(f"{name}: policy.publishers does not allow {publisher} to register the model.")
    if len(members) < policy.minimum_members:
        problems.append(
            f"{name}: policy.minimum_members is {policy.minimum_members}, the pipeline names {len(members)}."
        )
    if policy.max_depth is not None and (depth == 0 or depth > policy.max_depth):
        told = "unlimited" if depth == 0 else depth
        problems.append(f"{name}: policy.max_depth is {policy.max_depth}, training.max_depth is {told}.")
    if policy.max_rounds is not None and rounds > policy.max_rounds:
        problems.append(f"{name}: policy.max_rounds is {policy.max_rounds}, training.rounds is {rounds}.")
    if problems:
        raise UserError([f"{p} Change the pipeline, or ask {name} to change its policy." for p in problems])


def _from(folder: Path, place: str) -> str:
    if _SCHEME.match(place):
        return place
    path = str(folder / Path(place).expanduser())
    # A slash at the end says that it is a folder.
    return path + "/" if place.endswith("/") else path
