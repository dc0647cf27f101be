"""What the columns are: agreed by all parties before anything is summed."""

from collections.abc import Sequence
from dataclasses import dataclass

CATEGORICAL = "c"
NUMERIC = ("q", "float", "int", "i")


@dataclass(frozen=True)
class FeatureSchema:
    """The columns of every party's rows, in order.

    names: one a column; empty if the columns have none (XGBoost then calls them f0, f1, …).
    types: XGBoost's feature types, one a column: `c` categorical, `q` or `float` a number, `int` a whole
        number, `i` an indicator; empty means numbers throughout.
    categories: for a categorical column how many codes it has (0 … n-1), else 0; empty means that there is no
        categorical column. Agreed by contract, or found as the largest code over all parties.
    columns: how many columns there are, if they have no names.
    category_names: for each column the names behind its codes, for the model file; empty if codes have no names.
    """

    names: Sequence[str] = ()
    types: Sequence[str] = ()
    categories: Sequence[int] = ()
    columns: int = 0
    category_names: Sequence[Sequence[str] | Sequence[int]] = ()

    @property
    def count(self) -> int:
        """How many columns."""
        return len(self.names) or self.columns

    def is_categorical(self, feature: int) -> bool:
        """Tell whether a column holds category codes."""
        return bool(self.types) and self.types[feature] == CATEGORICAL

    def name(self, feature: int) -> str:
        """Return a column's name as a message should call it."""
        return self.names[feature] if self.names else f"f{feature}"
