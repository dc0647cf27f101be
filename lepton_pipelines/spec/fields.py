"""What every model of a spec is built from: the strict base model and the types of its fields.

`${NAME}` stands for an environment variable and is taken in fields of type `Secret` only. Such a field keeps
the reference, not the value, so that a spec can be shown, stored and sent; `read_secret` looks the value up
where it is used.
"""

import os
import re
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError

from .errors import UserError

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class SpecModel(BaseModel):
    """Base of the models that users write: unknown keys are errors, defaults are checked, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=False)

    # What one entry of this model is called in messages: "training.max_deph is not a parameter".
    noun: ClassVar[str] = "field"


def nearest(word: str, words: "list[str] | tuple[str, ...]") -> str | None:
    """Return the word of the list that the user most likely meant, or None if none is near."""
    lowered = {w.lower(): w for w in words}
    found = get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)
    if found:
        return lowered[found[0]]
    # radius_mean and mean_radius are the same words in another order.
    ordered = {_in_order(w): w for w in words}
    turned = get_close_matches(_in_order(word), list(ordered), n=1, cutoff=0.8)
    return ordered[turned[0]] if turned else None


def _in_order(word: str) -> str:
    return " ".join(sorted(re.split(r"[\s_.-]+", word.lower())))


def did_you_mean(word: str, words: "list[str] | tuple[str, ...]") -> str:
    """Return " Did you mean X?" for the nearest of the words, or an empty string."""
    found = nearest(word, words)
    return f" Did you mean {found}?" if found else ""


def _without_references(value: Any) -> Any:
    if isinstance(value, str) and (found := _REFERENCE.search(value)):
        raise PydanticCustomError(
            "reference",
            "holds {reference}, but environment variables are read for secrets only. Write the value itself",
            {"reference": found[0]},
        )
    if isinstance(value, dict):
        for inner in value.values():
            _without_references(inner)
    elif isinstance(value, list):
        for inner in value:
            _without_references(inner)
    return value


def _reference(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        raise PydanticCustomError(
            "secret",
            "is a secret and must not stand in a file. Write the name of an environment variable, like ${MY_SECRET}",
        )
    return value


def _plain_scalar(value: Any) -> Any:
    # YAML reads `organisation: 12` as a number; a name is a name.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text = Annotated[str, AfterValidator(_without_references)]
"""A string without `${...}`."""

Name = Annotated[
    str,
    BeforeValidator(_plain_scalar),
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64),
]
"""A name that is safe in file names, URLs and metric names."""

Column = Annotated[str, BeforeValidator(_plain_scalar), AfterValidator(_without_references)]
"""A column's name as it stands in the data."""

Arguments = Annotated[dict[str, Any], AfterValidator(_without_references)]
"""Keyword arguments that are handed on as they are."""

Secret = Annotated[str, AfterValidator(_reference)]
"""A reference `${NAME}` to an environment variable."""


def read_secret(reference: str, *, field: str) -> str:
    """Look a secret up in the environment.

    reference: `${NAME}` as a `Secret` field holds it. field: where it stands, for the message.
    Raises UserError, naming the variable, if it is not set.
    """
    found = _REFERENCE.fullmatch(reference)
    variable = found[1] if found else reference
    value = os.environ.get(variable)
    if not value:
        raise UserError(f"{field}: the environment variable {variable} is not set. Set it, or take {field} out.")
    return value
