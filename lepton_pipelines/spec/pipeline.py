"""The pipeline: what all organisations agree on, in one short file that may be shown to everyone."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from .contract import FOUND, Contract, parse_contract, read_contract
from .derived import Derived
from .errors import UserError
from .fields import Column, Name, SpecModel, Text
from .gates import Gates
from .hub import Hub
from .organisation import Organisation, read_organisation
from .schedule import Schedule
from .training import XGBOOST, AnyTraining
from .yaml_file import Document, read_yaml, validate

FEWEST_FOR_CONTRIBUTION = 4


def _federation_kind(value: Any) -> str:
    return "a hub" if isinstance(value, (dict, Hub)) else "in process"


Federation = Annotated[
    Annotated[Literal["in-process"], Tag("in process")] | Annotated[Hub, Tag("a hub")], Discriminator(_federation_kind)
]

_SUM_TOLERANCE = 1e-6


class KeySplit(SpecModel):
    """Rows are dealt out by a hash of a key: the same on every machine and in every run."""

    key: Column = Field(title="Key", description="Column whose equal values stay together, such as patient_id.")
    train: float = Field(default=0.7, gt=0, lt=1, title="Train", description="Share of keys to train on.")
    valid: float = Field(default=0.15, ge=0, lt=1, title="Valid", description="Share of keys for early stopping.")
    test: float = Field(default=0.15, gt=0, lt=1, title="Test", description="Share of keys held out for the gates.")
    salt: Text = Field(default="", title="Salt", description="Another salt deals the keys out anew.")

    @model_validator(mode="after")
    def _whole(self) -> "KeySplit":
        total = self.train + self.valid + self.test
        if abs(total - 1) > _SUM_TOLERANCE:
            raise PydanticCustomError(
                "spec", "has train, valid and test adding up to {total}, not 1", {"total": f"{total:g}"}
            )
        return self


def _moment(value: Any) -> Any:
    # YAML reads an unquoted 2016-03-01 as a date.
    return value.isoformat() if isinstance(value, date) else value


Moment = Annotated[Text, BeforeValidator(_moment)]
"""A date or time as ISO 8601."""


class TimeSplit(SpecModel):
    """Rows are dealt out by time: trained on what came before, tested on what came after."""

    time: Column = Field(title="Time", description="Column with the rows' time.")
    valid_from: Moment | None = Field(
        default=None, title="Validation from", description="First time of the validation rows, ISO 8601; unset: none."
    )
    test_from: Moment = Field(title="Test from", description="First time of the held-out rows, ISO 8601.")

    @model_validator(mode="after")
    def _ordered(self) -> "TimeSplit":
        times = {}
        for name in ("valid_from", "test_from"):
            if (value := getattr(self, name)) is None:
                continue
            try:
                times[name] = datetime.fromisoformat(value)
            except ValueError:
                raise PydanticCustomError(
                    "spec",
                    'has {name} "{value}", which is no time. Write it as 2016-03-01 or 2016-03-01T00:00',
                    {"name": name, "value": value},
                ) from None
        if len({t.tzinfo is None for t in times.values()}) > 1:
            raise PydanticCustomError("spec", "gives a time zone to only one of valid_from and test_from")
        if "valid_from" in times and times["valid_from"] >= times["test_from"]:
            raise PydanticCustomError("spec", "has valid_from not before test_from")
        return self


def _split_kind(value: Any) -> str:
    if isinstance(value, TimeSplit) or (isinstance(value, dict) and "time" in value):
        return "by time"
    return "by key"


Split = Annotated[Annotated[KeySplit, Tag("by key")] | Annotated[TimeSplit, Tag("by time")], Discriminator(_split_kind)]


class Registry(SpecModel):
    """Where and how the model is registered."""

    model: Name | None = Field(
        default=None, title="Model", description="Registered model's name; unset: the pipeline's."
    )
    publisher: Name | None = Field(
        default=None, title="Publisher", description="The organisation that registers it; unset: the first."
    )
    promote: Literal["automatically", "ask"] = Field(
        default="automatically",
        title="Promote",
        description="A model that passes the gates becomes champion automatically, or when a person says so.",
    )
    node_statistics: Literal["keep", "strip"] = Field(
        default="keep",
        title="Node statistics",
        description="strip: leave gain, hessian (cover) and inner weights of all nodes out of the model file.",
    )


class Comparison(SpecModel):
    """What the federation is compared with; only a demo, whose rows are public, can do this."""

    alone: bool = Field(
        default=False, title="Alone", description="Train stock XGBoost on each organisation's rows alone, too."
    )
    pooled: bool = Field(
        default=False,
        title="Pooled",
        description="Train stock XGBoost on all rows together, too, and compare the trees.",
    )


class Contribution(SpecModel):
    """What each organisation's rows add to the model: asked for here, so that every member signs for it."""

    report: bool = Field(
        default=False,
        title="Report",
        description="Allow lepton market contribution, which trains once more without each organisation in turn and "
        "so shows the others nearly its own sums (docs/security.md).",
    )
    metric: (
        Literal["auc", "aucpr", "logloss", "brier", "calibration_error", "rmse", "mae", "r2", "mlogloss", "merror"]
        | None
    ) = Field(default=None, title="Metric", description="What is compared; unset: the main one of the task.")

    noun: ClassVar[str] = "field"

    @model_validator(mode="after")
    def _asked_for(self) -> "Contribution":
        if self.metric is not None and not self.report:
            raise PydanticCustomError("spec", "has a metric but no report: true")
        return self


def _organisations(value: Any) -> Any:
    """Accept `[north, harbour]` and `{north: north.yaml, harbour: harbour.yaml}`."""
    if isinstance(value, (list, tuple)):
        texts = [str(v) for v in value if not isinstance(v, (dict, list))]
        if twice := sorted({t for t in texts if texts.count(t) > 1}):
            raise PydanticCustomError(
                "spec", "name {name} twice. Every organisation has a name of its own", {"name": twice[0]}
            )
    return value


def _list_or_mapping(value: Any) -> str:
    return "a mapping" if isinstance(value, dict) else "a list"


Members = Annotated[
    Annotated[list[Name], Tag("a list")] | Annotated[dict[Name, Text], Tag("a mapping")],
    Discriminator(_list_or_mapping),
    BeforeValidator(_organisations),
]


def _contract(value: dict[str, Any]) -> dict[str, Any]:
    try:
        parse_contract(value)
    except UserError as error:
        raise PydanticCustomError("spec", "is not a contract: {why}", {"why": str(error)}) from None
    return value


def _file_or_document(value: Any) -> str:
    return "a document" if isinstance(value, dict) else "a file"


ContractSource = Annotated[
    Annotated[Text, Tag("a file")] | Annotated[dict[str, Any], AfterValidator(_contract), Tag("a document")],
    Discriminator(_file_or_document),
]


class Pipeline(SpecModel):
    """The shared spec of a retraining pipeline."""

    name: Name = Field(title="Name", description="The pipeline's name; also of its MLflow experiment.")
    organisations: Members = Field(
        title="Organisations",
        description="The organisations' names; in-process, the file of each (unset: NAME.yaml beside this file).",
    )
    federation: Federation = Field(
        default="in-process", title="Federation", description="in-process for demos and tests, or the hub's address."
    )
    allow_two_parties: bool = Field(
        default=False,
        title="Allow two parties",
        description="Let two organisations train together although each can subtract itself from every sum.",
    )
    contract: ContractSource = Field(
        title="Contract", description="File with the data contract (ODCS 3.1), or the contract itself."
    )
    purpose: Text | None = Field(
        default=None,
        min_length=1,
        max_length=120,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        title="Purpose",
        description="What the model is for; data products from the market are granted for a purpose.",
    )
    derived: tuple[Derived, ...] = Field(
        default=(),
        title="Derived columns",
        description="Lags, rolling windows, ratios, logarithms and parts of dates that the model takes, too.",
    )
    training: AnyTraining = Field(
        title="Training",
        description="What is predicted, and how the model is trained.",
        # Another algorithm's parameters are open, so the engine's fit them too: exactly one cannot be asked for.
        json_schema_extra=lambda schema: schema.update(anyOf=schema.pop("oneOf")),
    )
    split: Split = Field(title="Split", description="Which rows are trained on and which are held out.")
    gates: Gates = Field(
        default_factory=Gates, title="Gates", description="What a model must reach before it becomes champion."
    )
    registry: Registry = Field(
        default_factory=Registry, title="Registry", description="Where and how the model is registered."
    )
    schedule: Schedule | None = Field(
        default=None, title="Schedule", description="When the pipeline runs by itself; unset: when it is started."
    )
    comparison: Comparison = Field(
        default_factory=Comparison, title="Comparison", description="What a demo compares the federation with."
    )
    contribution: Contribution = Field(
        default_factory=Contribution, title="Contribution", description="Whether what each one's rows add is measured."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Pipeline":
        members = self.members
        if len(members) < 2:
            raise PydanticCustomError("spec", "organisations must name at least two")
        if len(members) < 3 and not self.allow_two_parties:
            raise PydanticCustomError(
                "spec",
                "organisations are two: each could subtract itself and see the other's sums. "
                "Add a third, or write allow_two_parties: true",
            )
        if self.registry.node_statistics == "strip" and self.training.algorithm != XGBOOST:
            raise PydanticCustomError(
                "spec", "registry.node_statistics: strip is for trees; with another algorithm take it out"
            )
        if self.registry.publisher is not None and self.registry.publisher not in members:
            raise PydanticCustomError(
                "spec", "registry.publisher {name} is not one of the organisations", {"name": self.registry.publisher}
            )
        if self.federation != "in-process":
            if isinstance(self.organisations, dict):
                raise PydanticCustomError(
                    "spec",
                    "organisations name files, which only federation: in-process reads. "
                    "With a hub list the names; every organisation keeps its own file",
                )
            if isinstance(self.federation, Hub):
                self.federation.check(self.training, self.members, allow_two_parties=self.allow_two_parties)
            if self.comparison.alone or self.comparison.pooled:
                raise PydanticCustomError(
                    "spec", "comparison needs federation: in-process: with a hub no one holds the others' rows"
                )
        if self.contribution.report:
            self._check_contribution()
        return self

    def _check_contribution(self) -> None:
        if len(self.members) < FEWEST_FOR_CONTRIBUTION:
            raise PydanticCustomError(
                "spec",
                "contribution.report needs at least four organisations, here are {count}: without one of three, two "
                "are left, who see each other's sums",
                {"count": len(self.members)},
            )
        if isinstance(self.federation, Hub) and self.federation.when_lost == "go_on":
            raise PydanticCustomError(
                "spec",
                "contribution.report needs federation.when_lost: suspend: a run without two is none of its report",
            )
        if getattr(self.training, "start", "anew") != "anew":
            raise PydanticCustomError(
                "spec", "contribution.report needs training.start: anew: a champion has learned from everybody's rows"
            )

    @property
    def members(self) -> list[str]:
        """The organisations' names, sorted: the order that every party uses."""
        return sorted(self.organisations)

    @property
    def publisher(self) -> str:
        """The organisation that registers the model."""
        return self.registry.publisher or next(iter(self.organisations))

    @property
    def model_name(self) -> str:
        """The registered model's name."""
        return self.registry.model or self.name

    def read_contract(self) -> Contract:
        """Return the contract with the training's label, checked against this spec.

        Raises UserError if the contract cannot be read, or lacks a column that the spec names.
        """
        told = self.contract
        contract = parse_contract(told) if isinstance(told, dict) else read_contract(told)
        contract = contract.with_label(self.training.label).with_derived(self.derived)
        self._check(contract)
        return contract

    def read_organisations(self) -> dict[str, Organisation]:
        """Read the organisations' files of an in-process pipeline, by name in sorted order.

        Raises UserError with the problems of all files, or if a file is another organisation's.
        """
        if not isinstance(self.organisations, dict):
            raise UserError(
                f"{self.name}: no organisation's file is known here. "
                "In-process, write organisations: {north: north.yaml, …}."
            )
        found: dict[str, Organisation] = {}
        problems: list[str] = []
        for name in self.members:
            path = self.organisations[name]
            try:
                organisation = read_organisation(path)
            except UserError as error:
                problems += error.problems
                continue
            if organisation.organisation != name:
                problems.append(
                    f"{path} is the file of {organisation.organisation}, but the pipeline gives it to {name}. "
                    "Two organisations must not have the same name or file."
                )
            found[name] = organisation
        if problems:
            raise UserError(problems)
        return found

    def digest(self) -> bytes:
        """Return the SHA-256 of what all organisations agree on: everything but local paths and the schedule."""
        left_out = {"organisations", "contract", "schedule", "comparison"}
        if not self.contribution.report:  # nothing to sign for, and the digest that releases before this one made
            left_out.add("contribution")
        told = self.model_dump(mode="json", exclude=left_out)
        told["organisations"] = self.members
        told["contract"] = self.read_contract().agreement().hex()
        return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).digest()

    def with_contract_inside(self) -> "Pipeline":
        """Return the spec with the contract's document in place of its path, as an invitation carries it."""
        if isinstance(self.contract, dict):
            return self
        return self.model_copy(update={"contract": _plain(read_yaml(self.contract).data)})

    def with_categories(self, found: Mapping[str, Sequence[str]]) -> "Pipeline":
        """Return the spec with categories that were found written into its contract: what a model is served with."""
        if not found:
            return self
        told: Any = deepcopy(self.with_contract_inside().contract)
        for entry in told["schema"][0]["properties"]:
            for custom in entry.get("customProperties") or []:
                if custom.get("property") == "lepton" and custom["value"].get("categories") == FOUND:
                    custom["value"] |= {"categories": list(found[entry["name"]]), "other_categories": "missing"}
        return self.model_copy(update={"contract": told})

    def _check(self, contract: Contract) -> None:
        split = self.split
        column = contract.column(split.key if isinstance(split, KeySplit) else split.time)
        problems = []
        if column.role in {"label", "unused"}:
            problems.append(
                f"split: {column.name} is {column.role} in contract {contract.id}, so rows cannot be split by it."
            )
        if isinstance(split, TimeSplit) and column.kind != "time":
            problems.append(
                f"split.time: {column.name} is a {column.kind} in contract {contract.id}, not a date or timestamp."
            )
        if column.find_categories:
            problems.append(
                f"split.key: the categories of {column.name} are found anew in each run, so a row's set would change "
                "with them. List them in the contract, or split by another column."
            )
        problems += _leaks(split, contract)
        if self.contribution.report and contract.to_find:
            names = ", ".join(column.name for column in contract.to_find)
            problems.append(
                f"contribution.report: contract {contract.id} leaves the categories of {names} to be found, and "
                "without an organisation others are found: such models cannot be scored on the same rows. List them."
            )
        if self.gates.fairness is not None:
            group = contract.column(self.gates.fairness.group)
            if group.name not in [c.name for c in contract.groups]:
                problems.append(
                    f"gates.fairness.group: {group.name} is not marked in contract {contract.id}. "
                    "Add lepton.group: true to it."
                )
        if self.training.early_stopping_rounds is not None and (
            split.valid == 0 if isinstance(split, KeySplit) else split.valid_from is None
        ):
            problems.append("training.early_stopping_rounds needs validation rows: set split.valid or valid_from.")
        if problems:
            raise UserError(problems)


def _leaks(split: KeySplit | TimeSplit, contract: Contract) -> list[str]:
    """Name the derived columns that would carry held-out labels into the rows that are trained on."""
    if isinstance(split, TimeSplit) or contract.label is None:
        return []
    label = contract.label.name
    return [
        f"derived: {told.name} looks at the label {label} of other rows, which split.key: {split.key} may hold out. "
        f"Split by time, or by a column that {told.name} goes by."
        for told in contract.windowed
        if label in told.sources and split.key not in told.by
    ]


def read_pipeline(path: Path | str) -> Pipeline:
    """Read a pipeline's file; paths in it are taken from the folder that it lies in.

    In-process, an organisation that names no file has NAME.yaml beside the pipeline's.
    Raises UserError with every problem as "file:line  field what".
    """
    path = Path(path)
    document = read_yaml(path)
    pipeline = validate(Pipeline, document)
    folder = path.resolve().parent
    changes: dict[str, Any] = {}
    if isinstance(pipeline.contract, str):
        changes["contract"] = str(folder / pipeline.contract)
    if isinstance(pipeline.organisations, dict):
        changes["organisations"] = {name: str(folder / file) for name, file in pipeline.organisations.items()}
    elif pipeline.federation == "in-process":
        changes["organisations"] = {name: str(folder / f"{name}.yaml") for name in pipeline.organisations}
    return pipeline.model_copy(update=changes)


def parse_pipeline(data: dict[str, Any], *, name: str = "pipeline") -> Pipeline:
    """Make a pipeline of data that came by another way than a file. Raises UserError with every problem."""
    return validate(Pipeline, Document(Path(name), data))


def _plain(data: Any) -> Any:
    """Return JSON's types only: dates of YAML become text."""
    return json.loads(json.dumps(data, default=str))
