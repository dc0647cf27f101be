"""Which columns a node may ask about, and between which bounds its children's weights lie."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import did_you_mean

BoolArray = NDArray[np.bool_]


def monotone_directions(
    constraints: Sequence[int] | Mapping[str, int] | None, features: FeatureSchema
) -> NDArray[np.int8]:
    """int8, one a column: -1 falling, 1 rising, 0 free.

    Raises UserError if there are more directions than columns, or one for a column that there is not.
    """
    directions = np.zeros(features.count, np.int8)
    if isinstance(constraints, Mapping):
        for name, direction in constraints.items():
            directions[_column("monotone_constraints", name, features)] = direction
    elif constraints is not None:
        if len(constraints) > features.count:
            raise UserError(
                f"monotone_constraints: {len(constraints)} directions for {features.count} columns. Give one a column."
            )
        directions[: len(constraints)] = constraints
    return directions


def interaction_groups(
    constraints: Sequence[Sequence[int | str]] | None, features: FeatureSchema
) -> tuple[tuple[int, ...], ...]:
    """Column numbers of each group. Raises UserError for a column that there is not."""
    return tuple(
        tuple(_column("interaction_constraints", column, features) for column in group) for group in constraints or ()
    )


def _column(parameter: str, column: int | str, features: FeatureSchema) -> int:
    if isinstance(column, str):
        if column not in features.names:
            raise UserError(f"{parameter}: there is no column {column!r}.{did_you_mean(column, list(features.names))}")
        return list(features.names).index(column)
    if not 0 <= column < features.count:
        raise UserError(f"{parameter}: there is no column {column}; columns are numbered 0 … {features.count - 1}.")
    return column


class InteractionConstraints:
    """Sets of columns that may meet on one way from the root to a leaf.

    A node may ask about what was asked above it and about every set that holds all of that; the root about
    anything. (XGBoost: `src/tree/constraints.cc`.)
    """

    def __init__(self, groups: Sequence[Sequence[int]], features: int) -> None:
        """groups: column numbers; empty means that there is no constraint."""
        self._groups = np.zeros((len(groups), features), bool)
        for row, group in zip(self._groups, groups, strict=True):
            row[list(group)] = True
        self._asked: dict[int, BoolArray] = {}

    def __bool__(self) -> bool:
        """Tell whether anything is constrained."""
        return len(self._groups) > 0

    def start(self) -> None:
        """Forget the last tree."""
        self._asked = {0: np.zeros(self._groups.shape[1], bool)}

    def split(self, node: int, feature: int, left: int) -> None:
        """Note that a node asks about a column; its children are `left` and `left + 1`."""
        asked = self._asked.pop(node).copy()
        asked[feature] = True
        self._asked[left] = self._asked[left + 1] = asked

    def allowed(self, node: int) -> BoolArray:
        """Bool, one a column: the node may ask about it."""
        asked = self._asked[node]
        if not asked.any():
            return np.ones_like(asked)
        open_groups = self._groups[np.all(self._groups | ~asked, axis=1)]
        return asked | open_groups.any(axis=0)
