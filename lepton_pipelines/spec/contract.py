"""The contract: which columns every organisation brings, what they mean and what values they may hold.

It is a file in the Open Data Contract Standard (ODCS 3.1), which other tools read too. What the standard has
is taken from there: `logicalType`, `required`, `primaryKey`, `unique`, `logicalTypeOptions.minimum` and
`.maximum`, `logicalTypeOptions.format`. What it has not stands in one custom property named `lepton`, at the
schema (`minimum_rows`) and at its properties (`role`, `unit`, `categories`, `missing`, …).
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from .errors import UserError
from .fields import SpecModel, Text, did_you_mean
from .yaml_file import Document, read_yaml

Role = Literal["feature", "label", "key", "weight", "group", "time", "unused"]
Kind = Literal["number", "category", "boolean", "text", "time"]

_KINDS: dict[str, Kind] = {
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "string": "text",
    "date": "time",
    "timestamp": "time",
}

# XGBoost holds categories as float32 codes and its kept category sets are 32-bit words.
_MOST_CATEGORIES = 1 << 16


def category_text(value: Any) -> str:
    """Return the one spelling of a category: 3, 3.0 and "3" are the same, True is "true"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _texts(values: Any) -> Any:
    return [category_text(v) for v in values] if isinstance(values, (list, tuple)) else values


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]


class Drift(SpecModel):
    """How far a column may move between runs before it is reported."""

    psi: float = Field(
        default=0.2, gt=0, title="Population stability index", description="Largest PSI against the last run's values."
    )


class Column(SpecModel):
    """One column of the contract."""

    name: Text = Field(title="Name", description="The column's name in the data and in the model.")
    role: Role = Field(default="feature", title="Role", description="What the column is for; features enter the model.")
    kind: Kind = Field(default="number", title="Kind", description="What its values are.")
    integer: bool = Field(default=False, title="Whole numbers", description="A number must be whole.")
    unit: Text | None = Field(default=None, title="Unit", description="Unit of its numbers, as in UCUM: mm, mg/dL, 1.")
    minimum: float | None = Field(default=None, title="Minimum", description="Smallest allowed number.")
    maximum: float | None = Field(default=None, title="Maximum", description="Largest allowed number.")
    earliest: Text | None = Field(
        default=None, title="Earliest", description="Earliest allowed date or time, ISO 8601."
    )
    latest: Text | None = Field(default=None, title="Latest", description="Latest allowed date or time, ISO 8601.")
    categories: Texts = Field(
        default=(), title="Categories", description="All allowed categories; their order is their code."
    )
    required: bool = Field(default=False, title="Required", description="No value may be missing.")
    unique: bool = Field(default=False, title="Unique", description="No value may stand twice.")
    allowed_missing: float = Field(
        default=1.0,
        ge=0,
        le=1,
        title="Allowed missing",
        description="Largest share of missing values in an organisation.",
    )
    missing: Texts = Field(
        default=(), title="Missing markers", description="Values that mean missing, such as -9 or ?."
    )
    personal: bool = Field(
        default=False, title="Personal", description="Its values never stand in a message or a report."
    )
    group: bool = Field(default=False, title="Group", description="Fairness is measured by this column's categories.")
    description: str | None = Field(default=None, title="Description", description="What the column means.")
    drift: Drift | None = Field(
        default=None, title="Allowed drift", description="When a change of its values is reported."
    )

    noun: ClassVar[str] = "property of a column"

    @model_validator(mode="after")
    def _consistent(self) -> "Column":
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise _problem(f"has the minimum {self.minimum:g} above its maximum {self.maximum:g}")
        if self.categories and self.kind != "category":
            raise _problem("has categories but is not a category")
        if self.kind == "category" and not self.categories:
            raise _problem("is a category without categories. List them: the codes come from that list")
        twice = sorted({c for c in self.categories if self.categories.count(c) > 1})
        if twice:
            raise _problem(f"lists the category {twice[0]!r} twice")
        if len(self.categories) > _MOST_CATEGORIES:
            raise _problem(f"lists {len(self.categories)} categories, {_MOST_CATEGORIES} are the most")
        if self.role == "feature" and self.kind == "text":
            raise _problem(
                "is text, which a model cannot take. Give it lepton.categories, "
                "or say lepton.role: unused (or key, or group)"
            )
        if self.role == "feature" and self.kind == "time":
            raise _problem("is a time, which a model cannot take. Say lepton.role: time or unused, and derive numbers")
        if self.role in {"weight", "label"} and self.kind in {"text", "time"}:
            raise _problem(f"is a {self.role} and must be a number, a boolean or a category, not a {self.kind}")
        if self.role == "group" and self.kind not in {"category", "boolean"}:
            raise _problem("is a group and must be a category or a boolean")
        return self

    @property
    def feature_type(self) -> str:
        """XGBoost's name of the feature type: "c" for categories, "i" for booleans, "int" or "float" for numbers."""
        return {"category": "c", "boolean": "i"}.get(self.kind, "int" if self.integer else "float")


class Contract(SpecModel):
    """What every organisation's rows must look like: our view of an ODCS file."""

    id: Text = Field(title="Id", description="The contract's id.")
    version: Text = Field(title="Version", description="The contract's version.")
    name: Text = Field(title="Table", description="Name of the table in the contract.")
    description: str | None = Field(default=None, title="Description", description="What the rows are.")
    minimum_rows: int = Field(
        default=1, ge=1, title="Minimum rows", description="Fewest rows an organisation may bring."
    )
    key_is_unique: bool = Field(
        default=False, title="Key is unique", description="No two rows have the same key (ODCS: primaryKey)."
    )
    columns: tuple[Column, ...] = Field(title="Columns", description="The table's columns, in their order.")

    @model_validator(mode="after")
    def _whole(self) -> "Contract":
        names = [c.name for c in self.columns]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise _problem(f"names the column {twice[0]} twice")
        for role in ("label", "weight", "time"):
            held = [c.name for c in self.columns if c.role == role]
            if len(held) > 1:
                raise _problem(f"has {len(held)} columns with the role {role} ({', '.join(held)}), one is the most")
        if not self.features:
            raise _problem("has no features: every column has another role")
        return self

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that enter the model, in the contract's order."""
        return tuple(c for c in self.columns if c.role == "feature")

    @property
    def feature_names(self) -> list[str]:
        """The features' names."""
        return [c.name for c in self.features]

    @property
    def feature_types(self) -> list[str]:
        """The features' types in XGBoost's letters."""
        return [c.feature_type for c in self.features]

    @property
    def feature_categories(self) -> dict[str, list[str]]:
        """The categories of each categorical feature; a category's code is its place in the list."""
        return {c.name: list(c.categories) for c in self.features if c.kind == "category"}

    @property
    def keys(self) -> tuple[Column, ...]:
        """The columns that together name a row."""
        return tuple(c for c in self.columns if c.role == "key")

    @property
    def has_unique_key(self) -> bool:
        """Whether the key columns name a row: no two rows may have the same."""
        return bool(self.keys) and self.key_is_unique

    @property
    def groups(self) -> tuple[Column, ...]:
        """The columns by which fairness is measured; features may be among them."""
        return tuple(c for c in self.columns if c.role == "group" or c.group)

    @property
    def label(self) -> Column | None:
        """The column to predict."""
        return self._only("label")

    @property
    def weight(self) -> Column | None:
        """The column with the rows' weights."""
        return self._only("weight")

    @property
    def time(self) -> Column | None:
        """The column with the rows' time."""
        return self._only("time")

    @property
    def read_columns(self) -> list[str]:
        """The columns that are read from a source: all but the unused ones."""
        return [c.name for c in self.columns if c.role != "unused"]

    def column(self, name: str) -> Column:
        """Return a column by its name. Raises UserError with the nearest name if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        names = [c.name for c in self.columns]
        raise UserError(f'contract {self.id} has no column "{name}".{did_you_mean(name, names)}')

    def with_label(self, label: str) -> "Contract":
        """Return the contract with this column as its label. Raises UserError if the contract marks another."""
        column = self.column(label)
        if self.label is not None and self.label.name != label:
            raise UserError(
                f'training.label is "{label}", but contract {self.id} marks "{self.label.name}" as the label. '
                "Make them equal."
            )
        if column.role == "label":
            return self
        columns = [{**c.model_dump(), "role": "label"} if c is column else c.model_dump() for c in self.columns]
        try:
            return Contract.model_validate({**self.model_dump(), "columns": columns})
        except ValidationError as error:
            raise UserError(f'training.label "{label}": {error.errors()[0]["msg"]}.') from None

    def agreement(self) -> bytes:
        """Return the SHA-256 of everything that must be equal at every organisation: columns, units, codes."""
        told = self.model_dump(mode="json", exclude={"description": True, "columns": {"__all__": {"description"}}})
        return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).digest()

    def _only(self, role: Role) -> Column | None:
        return next((c for c in self.columns if c.role == role), None)


def read_contract(path: Path | str) -> Contract:
    """Read an ODCS file.

    Raises UserError with every problem as "file:line  property what", unknown keys included.
    """
    return _Standard(read_yaml(path)).contract()


def parse_contract(document: dict[str, Any], *, name: str = "contract") -> Contract:
    """Read an ODCS document that came as data, as in an invitation. Raises UserError as `read_contract`."""
    return _Standard(Document(Path(name), document)).contract()


def _problem(message: str) -> PydanticCustomError:
    return PydanticCustomError("spec", "{why}", {"why": message})


_OURS_AT_SCHEMA = ("minimum_rows",)
_OURS_AT_PROPERTY = ("role", "unit", "categories", "missing", "allowed_missing", "personal", "group", "drift")


class _Standard:
    """Reads the standard's document, gathering problems with their lines."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[str] = []

    def contract(self) -> Contract:
        data = self.document.data
        if not isinstance(data, dict):
            raise UserError(f"{self.document.at(())}  is not a data contract: it must hold apiVersion, kind, id, …")
        self._standard(data)
        if self.problems:
            raise UserError(self.problems)
        table = data["schema"][0]
        properties = table.get("properties") or []
        columns = [c for i, p in enumerate(properties) if (c := self._column(p, i))]
        ours = self._ours(table, ("schema", 0), _OURS_AT_SCHEMA)
        contract = None
        if not self.problems:
            description = data.get("description") or {}
            try:
                contract = Contract.model_validate(
                    {
                        "id": str(data["id"]),
                        "version": str(data["version"]),
                        "name": table["name"],
                        "description": description.get("purpose"),
                        "key_is_unique": any(p.get("primaryKey") for p in properties),
                        "columns": columns,
                        **ours,
                    }
                )
            except ValidationError as error:
                for details in error.errors(include_url=False):
                    where = self.document.at(("schema", 0))
                    named = ".".join(str(s) for s in details["loc"])
                    self.problems.append(f"{where}  {named or 'the contract'} {details['msg']}.")
        if contract is None or self.problems:
            raise UserError(self.problems)
        return contract

    def _standard(self, data: dict[str, Any]) -> None:
        """Check against the standard's own models, and for keys that they would pass over in silence."""
        from open_data_contract_standard.model import OpenDataContractStandard

        for key in ("apiVersion", "kind", "id", "version", "status", "schema"):
            if key not in data:
                self.problems.append(f"{self.document.at(())}  {key} is missing. Add it: ODCS 3.1 wants it.")
        if not str(data.get("apiVersion", "v3")).startswith("v3"):
            self._say(("apiVersion",), f"is {data['apiVersion']}, versions v3.0.0 and later are read")
        if data.get("kind", "DataContract") != "DataContract":
            self._say(("kind",), f"is {data['kind']}, not DataContract")
        try:
            OpenDataContractStandard.model_validate(data)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                location = tuple(details["loc"])
                if details["type"] == "extra_forbidden":
                    known = [f.alias or n for n, f in OpenDataContractStandard.model_fields.items()]
                    guess = did_you_mean(str(location[-1]), known)
                    self._say(location, f"is not a field of the standard.{guess}")
                else:
                    self._say(location, f"is not as the standard has it: {details['msg']}")
        if not self.problems:
            self._known_keys(data)

    def _known_keys(self, data: dict[str, Any]) -> None:
        from open_data_contract_standard.model import SchemaObject, SchemaProperty

        tables = data["schema"]
        if not isinstance(tables, list) or len(tables) != 1:
            self._say(("schema",), "must hold exactly one table: a model is trained on one")
            return
        if not tables[0].get("name"):
            self._say(("schema", 0), "has no name")
        self._keys(tables[0], ("schema", 0), list(SchemaObject.model_fields))
        properties = tables[0].get("properties") or []
        if not properties:
            self._say(("schema", 0), "has no properties: list the columns there")
        for i, column in enumerate(properties):
            self._keys(column, ("schema", 0, "properties", i), list(SchemaProperty.model_fields))

    def _keys(self, entry: dict[str, Any], location: tuple[str | int, ...], known: list[str]) -> None:
        for key in entry:
            if key not in known:
                self._say((*location, key), f"is not a field of the standard.{did_you_mean(str(key), known)}")

    def _ours(self, entry: dict[str, Any], location: tuple[str | int, ...], known: tuple[str, ...]) -> dict[str, Any]:
        for i, custom in enumerate(entry.get("customProperties") or []):
            if custom.get("property") != "lepton":
                continue
            value, place = custom.get("value"), (*location, "customProperties", i, "value")
            if not isinstance(value, dict):
                self._say(place, f"must hold some of {', '.join(known)}")
                return {}
            for key in value:
                if key not in known:
                    guess = did_you_mean(str(key), known) or f" Known are: {', '.join(known)}."
                    self._say((*place, key), f"is not one of ours.{guess}")
            return {k: v for k, v in value.items() if k in known}
        return {}

    def _column(self, entry: dict[str, Any], index: int) -> Column | None:
        location = ("schema", 0, "properties", index)
        ours = self._ours(entry, location, _OURS_AT_PROPERTY)
        logical = entry.get("logicalType", "string")
        if not entry.get("name"):
            self._say(location, "has no name")
            return None
        if logical not in _KINDS:
            guess = did_you_mean(str(logical), list(_KINDS)) or f" Known are: {', '.join(_KINDS)}."
            self._say(
                (*location, "logicalType"), f"of {entry['name']} is {logical}, which cannot be trained on.{guess}"
            )
            return None
        if entry.get("enum") and "categories" not in ours:
            ours["categories"] = [item["value"] for item in entry["enum"]]
        kind: Kind = "category" if ours.get("categories") else _KINDS[logical]
        told: dict[str, Any] = {
            "name": str(entry["name"]),
            "kind": kind,
            "integer": kind == "number" and logical == "integer",
            "required": bool(entry.get("required")) or bool(entry.get("primaryKey")),
            "unique": bool(entry.get("unique")),
            "description": entry.get("description"),
            **ours,
        }
        if entry.get("primaryKey"):
            told.setdefault("role", "key")
        options = entry.get("logicalTypeOptions") or {}
        names = ("earliest", "latest") if kind == "time" else ("minimum", "maximum")
        for name, option in zip(names, ("minimum", "maximum"), strict=True):
            if option in options:
                told[name] = str(options[option]) if kind == "time" else options[option]
        try:
            return Column.model_validate(told)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                inner = ".".join(str(s) for s in details["loc"] if not isinstance(s, int))
                named = f"{entry['name']}.{inner}" if inner else str(entry["name"])
                self.problems.append(f"{self.document.at(location)}  {named} {details['msg']}.")
        return None

    def _say(self, location: tuple[str | int, ...], message: str) -> None:
        place = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in location).lstrip(".")
        end = "" if message.endswith((".", "?")) else "."
        self.problems.append(f"{self.document.at(location)}  {place} {message}{end}")
