"""A column of the contract: what it is for, what its values are, and which of them are allowed."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .fields import SpecModel, Text

Role = Literal["feature", "label", "key", "weight", "group", "time", "ingredient", "unused"]
Kind = Literal["number", "category", "boolean", "text", "time"]

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
    in_key: bool = Field(
        default=False, title="In the key", description="Part of the primary key although its role is another."
    )
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
    find_categories: bool = Field(
        default=False,
        title="Find the categories",
        description="Members find the union of their categories before a run (ODCS: lepton.categories: found).",
    )
    other_categories: Literal["refuse", "missing"] = Field(
        default="refuse",
        title="Other categories",
        description="What a category that is not in the list is: a violation, or read as missing.",
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
    may_be_unknown: bool = Field(
        default=False,
        title="May be unknown",
        description="Rows without this label are neither trained nor tested on, but lags and windows see them.",
    )
    description: str | None = Field(default=None, title="Description", description="What the column means.")
    drift: Drift | None = Field(
        default=None, title="Allowed drift", description="When a change of its values is reported."
    )

    noun: ClassVar[str] = "property of a column"

    @model_validator(mode="after")
    def _consistent(self) -> "Column":
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise fault(f"has the minimum {self.minimum:g} above its maximum {self.maximum:g}")
        if self.categories and self.kind != "category":
            raise fault("has categories but is not a category")
        if self.kind == "category" and not self.categories and not self.find_categories:
            raise fault("is a category without categories. List them: the codes come from that list")
        self._check_open_list()
        twice = sorted({c for c in self.categories if self.categories.count(c) > 1})
        if twice:
            raise fault(f"lists the category {twice[0]!r} twice")
        if len(self.categories) > _MOST_CATEGORIES:
            raise fault(f"lists {len(self.categories)} categories, {_MOST_CATEGORIES} are the most")
        if self.role == "feature" and self.kind == "text":
            raise fault(
                "is text, which a model cannot take. Give it lepton.categories, "
                "or say lepton.role: unused (or key, or group)"
            )
        if self.role == "feature" and self.kind == "time":
            raise fault(
                "is a time, which a model cannot take. Say lepton.role: time, ingredient or unused, "
                "and take numbers from it under derived in the pipeline"
            )
        if self.may_be_unknown and self.required:
            raise fault("is required and may_be_unknown. Take one out")
        if self.role in {"weight", "label"} and self.kind in {"text", "time"}:
            raise fault(f"is a {self.role} and must be a number, a boolean or a category, not a {self.kind}")
        if self.role == "group" and self.kind not in {"category", "boolean"}:
            raise fault("is a group and must be a category or a boolean")
        return self

    def _check_open_list(self) -> None:
        """Refuse what a list that is found, or that lets others pass, cannot be."""
        if self.other_categories == "missing" and (self.kind != "category" or self.role == "label"):
            raise fault(
                "says other_categories: missing, which only categories may be, and not a label. Take it out, or list "
                "all categories"
            )
        if not self.find_categories:
            return
        if self.role not in {"feature", "group", "ingredient"} or self.in_key or self.unique:
            raise fault(
                "says categories: found, but only features, groups and ingredients that are no part of a key may be "
                "found. List the categories"
            )
        if self.personal:
            raise fault(
                "is personal and says categories: found, which would show its values to all members. List the "
                "categories, or leave the column unused"
            )

    @property
    def feature_type(self) -> str:
        """XGBoost's name of the feature type: "c" for categories, "i" for booleans, "int" or "float" for numbers."""
        return {"category": "c", "boolean": "i"}.get(self.kind, "int" if self.integer else "float")


def fault(message: str) -> PydanticCustomError:
    """Make a problem of it that is told as it stands."""
    return PydanticCustomError("spec", "{why}", {"why": message})
