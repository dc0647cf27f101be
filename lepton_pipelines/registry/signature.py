"""What a published model takes and gives: raw columns, as a caller of the model server writes them.

Rules, each because of what JSON and CSV can say and MLflow enforces: a whole-number column that may be missing is
`double`, since an integer cannot be missing; so is a yes/no column that may be missing (0, 1 or null); a category
is its text. The input example is made up from the contract's ranges and categories: no row of anybody's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

ColumnKind = Literal["number", "integer", "boolean", "category"]


@dataclass(frozen=True)
class InputColumn:
    """A raw input column of a model.

    missing: whether values may be missing. categories: of a category column, in the order of their codes.
    minimum, maximum: the contract's range, from which the example takes its value.
    """

    name: str
    kind: ColumnKind = "number"
    missing: bool = True
    categories: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    @property
    def type(self) -> str:
        """MLflow's data type."""
        if self.kind == "category":
            return "string"
        if self.kind == "number" or self.missing:
            return "double"
        return "long" if self.kind == "integer" else "boolean"

    def example(self) -> object:
        """Return a made-up value: the middle of the range, or the first category."""
        if self.kind == "category":
            return self.categories[0]
        if self.type == "boolean":
            return True
        ends = [end for end in (self.minimum, self.maximum) if end is not None]
        middle = 1.0 if self.kind == "boolean" else sum(ends) / len(ends) if ends else 1.0
        if self.kind == "integer":
            middle = float(int(middle))
        return int(middle) if self.type == "long" else middle


def input_example(columns: Sequence[InputColumn]) -> "pd.DataFrame":
    """Make up two rows of raw columns: one complete, and one in which whatever may be missing is missing."""
    import pandas as pd

    rows = {}
    for column in columns:
        value = column.example()
        rows[column.name] = pd.Series([value, None if column.missing else value], dtype=_pandas_type(column))
    return pd.DataFrame(rows)


def _pandas_type(column: InputColumn) -> str:
    return {"string": "object", "double": "float64", "long": "int64", "boolean": "bool"}[column.type]


def signature_of(columns: Sequence[InputColumn], outputs: int) -> "ModelSignature":
    """Describe input and output to MLflow.

    outputs: 1 for a figure a row (a probability or a value), the number of classes for probabilities of each.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    inputs = Schema([ColSpec(column.type, column.name, required=True) for column in columns])
    shape = (-1,) if outputs == 1 else (-1, outputs)
    return ModelSignature(inputs=inputs, outputs=Schema([TensorSpec(np.dtype("float32"), shape)]))
