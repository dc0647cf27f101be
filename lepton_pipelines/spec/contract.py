"""The contract: which columns every organisation brings, what they mean and what values they may hold.

It is a file in the Open Data Contract Standard (ODCS 3.1), which other tools read too. What the standard has
is taken from there: `logicalType`, `required`, `primaryKey`, `unique`, `logicalTypeOptions.minimum` and
`.maximum`, `logicalTypeOptions.format`. What it has not stands in one custom property named `lepton`, at the
schema (`minimum_rows`) and at its properties (`role`, `unit`, `categories`, `missing`, …).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from .column import Column as Column
from .column import Kind, Role, fault
from .column import category_text as category_text
from .derived import Derived, Windowed
from .derived_columns import check_derived, derived_column
from .errors import UserError
from .fields import SpecModel, Text, did_you_mean
from .yaml_file import Document, read_yaml

_KINDS: dict[str, Kind] = {
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "string": "text",
    "date": "time",
    "timestamp": "time",
}


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
    derived: tuple[Derived, ...] = Field(
        default=(), title="Derived", description="Columns that the pipeline computes from the table's."
    )

    @model_validator(mode="after")
    def _whole(self) -> "Contract":
        names = [c.name for c in self.columns]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise fault(f"names the column {twice[0]} twice")
        for role in ("label", "weight", "time"):
            held = [c.name for c in self.columns if c.role == role]
            if len(held) > 1:
                raise fault(f"has {len(held)} columns with the role {role} ({', '.join(held)}), one is the most")
        for column in self.columns:
            if column.may_be_unknown and column.role not in {"label", "unused"}:
                raise fault(f"says may_be_unknown of {column.name}, which is not the label")
        for told, known in self._in_turn():
            check_derived(told, known, self.columns)
        if self.weight is not None and self.weight.maximum is None:
            raise fault(
                f"has the weight {self.weight.name} without a maximum: one row could outweigh all others. "
                "Say logicalTypeOptions.maximum"
            )
        if not self.features and not any(c.role == "ingredient" for c in self.columns):
            raise fault("has no features: every column has another role")
        return self

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that enter the model: the table's in the contract's order, then the derived ones in theirs."""
        return (*(c for c in self.columns if c.role == "feature"), *self.derived_columns)

    @property
    def derived_columns(self) -> tuple[Column, ...]:
        """The derived columns as columns: all of them enter the model."""
        return tuple(derived_column(told, known) for told, known in self._in_turn())

    @property
    def windowed(self) -> tuple[Windowed, ...]:
        """The derived columns that look at earlier rows."""
        return tuple(told for told in self.derived if isinstance(told, Windowed))

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
        return tuple(c for c in self.columns if c.role == "key" or c.in_key)

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

    @property
    def needed_columns(self) -> list[str]:
        """The columns of the table from which every feature, derived ones included, can be computed."""
        needed = {c.name for c in self.columns if c.role == "feature"}
        needed |= {source for told in self.derived for source in told.sources}
        for told in self.windowed:
            needed |= {*told.by, self.time.name if self.time is not None else ""}
        return [c.name for c in self.columns if c.name in needed]

    def only(self, names: "set[str]") -> "Contract":
        """Return what the contract says of some columns alone: nothing of keys, derived columns or rows."""
        kept = tuple(c.model_copy(update={"unique": False, "in_key": False}) for c in self.columns if c.name in names)
        return self.model_copy(update={"columns": kept, "derived": (), "key_is_unique": False, "minimum_rows": 1})

    def to_score(self) -> "Contract":
        """Return what the contract says of rows that are scored: what features are computed from, labels unknown."""
        needed = set(self.needed_columns)
        changes = {"unique": False, "in_key": False}
        unknown = {"role": "ingredient", "required": False, "may_be_unknown": False}
        kept = tuple(
            c.model_copy(update=changes | (unknown if c.role == "label" else {}))
            for c in self.columns
            if c.name in needed
        )
        return self.model_copy(update={"columns": kept, "key_is_unique": False, "minimum_rows": 1})

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

    def with_derived(self, derived: tuple[Any, ...]) -> "Contract":
        """Return the contract with derived columns among its features.

        Raises UserError if one cannot be computed from the table, naming it.
        """
        if not derived:
            if not self.features:
                raise UserError(
                    f"contract {self.id} has no features: every column has another role. "
                    "Say derived in the pipeline, or take lepton.role: ingredient out."
                )
            return self
        try:
            return Contract.model_validate({**self.model_dump(), "derived": derived})
        except ValidationError as error:
            raise UserError(f"derived: the spec {error.errors()[0]['msg']}.") from None

    @property
    def to_find(self) -> tuple[Column, ...]:
        """The columns whose categories members find together before a run."""
        return tuple(c for c in self.columns if c.find_categories and c.role != "unused")

    def with_categories(self, found: Mapping[str, Sequence[str]]) -> "Contract":
        """Return the contract with categories that were found, by column, as if they had been listed."""
        columns = tuple(
            c.model_copy(update={"categories": tuple(found[c.name]), "find_categories": False})
            if c.name in found
            else c
            for c in self.columns
        )
        return self.model_copy(update={"columns": columns})

    def agreement(self) -> bytes:
        """Return the SHA-256 of everything that must be equal at every organisation: columns, units, codes."""
        told = self.model_dump(mode="json", exclude={"description": True, "columns": {"__all__": {"description"}}})
        for column in told["columns"]:  # the digest that releases before these two made
            if not column["find_categories"] and column["other_categories"] == "refuse":
                del column["find_categories"], column["other_categories"]
        return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).digest()

    def _in_turn(self) -> "Iterator[tuple[Derived, dict[str, Column]]]":
        """Go through the derived columns, each with the columns that stand before it."""
        known = {c.name: c for c in self.columns}
        for told in self.derived:
            yield told, dict(known)
            known[told.name] = derived_column(told, known)

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


FOUND = "found"
"""Stands in place of a list of categories that members find together."""

_OURS_AT_SCHEMA = ("minimum_rows",)
_OURS_AT_PROPERTY = (
    "role",
    "unit",
    "categories",
    "other_categories",
    "missing",
    "allowed_missing",
    "personal",
    "group",
    "drift",
    "may_be_unknown",
)


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
        if ours.get("categories") == FOUND:
            if logical == "boolean" or _KINDS[logical] == "time":
                self._say(location, f"{entry['name']} says categories: {FOUND}, which a {logical} cannot be")
            if ours.setdefault("other_categories", "missing") != "missing":
                self._say(
                    location,
                    f"{entry['name']} says categories: {FOUND}, so other_categories is missing: rare categories are "
                    "not shown to others",
                )
            ours |= {"categories": (), "find_categories": True}
        is_category = ours.get("categories") or ours.get("find_categories")
        kind: Kind = "category" if is_category else _KINDS[logical]
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
            told["in_key"] = told["role"] != "key"
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
