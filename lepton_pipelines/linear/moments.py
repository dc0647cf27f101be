"""Counts, means and spreads of the columns over all parties: four sums before the first gradient.

Each party's rows are only ever added up: first how many there are and how large values get (as exponents), then
means, then how far values are from the means, then variances. Means come before variances so that a column far
from zero loses no digits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import ldexp, sqrt
from typing import Any

import numpy as np

from lepton_pipelines.linear.design import Design
from lepton_pipelines.linear.fixed_point import (
    EXPONENT_CELLS,
    TOTAL_BOUND,
    Float64Array,
    bits_for,
    count_exponent,
    fixed_sum,
    largest_magnitude,
    real,
)
from lepton_pipelines.linear.parameters import LOGISTIC, LinearParameters
from lepton_pipelines.linear.rows import Block, Shard
from lepton_pipelines.spec.algorithm import Rows
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Int64Array, Sums

COUNT_BOUND = 1 << 40
_LABEL_FAULTS = 4  # cells of a set: rows, labels not finite, labels neither 0 nor 1, weights not usable


@dataclass(frozen=True)
class Survey:
    """What the first sums said. own_weights: the sums of this party's weights, by set; not shared."""

    design: Design
    own_weights: dict[str, float]
    constant: tuple[str, ...]


def survey(
    rows: Rows, sums: Sums, *, parameters: LinearParameters, names: Sequence[str], train: str, sets: Sequence[str]
) -> Survey:
    """Agree on the coordinates to train in.

    names: of the columns. sets: all that are looked at, `train` among them.
    Raises UserError, at every party alike, for rows that cannot be trained on: see `_refuse`.
    """
    columns = len(names)
    counted = _collect(rows, sums, "rows", CountRows(columns, tuple(sets)), COUNT_BOUND, b"")
    counts = _Counts(counted.total, columns, sets)
    _refuse(counts, _Counts(counted.own, columns, sets), parameters, names, train)

    weight_reach = largest_magnitude(counts.exponents[-1])
    reach = [largest_magnitude(cells) for cells in counts.exponents[:-1]]
    context = sha256(counted.total.tobytes()).digest()
    row_count = max(counts.rows.values())
    bits = tuple(bits_for(weight_reach * one, row_count) for one in (1.0, *reach))
    summed = _collect(rows, sums, "means", AddValues(columns, tuple(sets), train, bits), TOTAL_BOUND, context)
    weights = {name: real(int(summed.total[i]), bits[0]) for i, name in enumerate(sets)}
    own_weights = {name: real(int(summed.own[i]), bits[0]) for i, name in enumerate(sets)}
    if not weights[train] > 0:
        raise UserError(f"the rows of set {train} weigh nothing together: give some of them a weight above 0.")
    there = [real(int(total), bits[0]) for total in summed.total[len(sets) :][:columns]]
    if absent := [name for name, weight in zip(names, there, strict=True) if not weight > 0]:
        raise UserError(f"column {absent[0]} is missing in all rows of set {train} that weigh anything. Take it out.")
    values = summed.total[len(sets) + columns :].tolist()
    value_sums = [real(total, one) for total, one in zip(values, bits[1:], strict=True)]
    means = np.array([value / weight for value, weight in zip(value_sums[:-1], there, strict=True)])
    label_mean = value_sums[-1] / weights[train]

    raw = not parameters.standardize and parameters.learning_rate != "auto"
    centred = parameters.fit_intercept and not raw
    centre = means if centred else np.zeros(columns)
    squared = parameters.objective != LOGISTIC
    label_centre = label_mean if squared and parameters.fit_intercept else 0.0
    measure = FindReach(tuple(sets), means, centre, label_centre)
    context = sha256(context + summed.total.tobytes()).digest()
    found = _collect(rows, sums, "reach", measure, COUNT_BOUND, context)
    distance = np.array([largest_magnitude(cells) for cells in found.total.reshape(columns + 1, EXPONENT_CELLS)])
    spread_bits = tuple(bits_for(weight_reach * one * one, row_count) for one in distance.tolist())
    adding = AddSquares(train, means, centre, label_centre, spread_bits)
    squares = _collect(rows, sums, "variances", adding, TOTAL_BOUND, context + found.total.tobytes())
    spread = np.array(
        [
            sqrt(real(int(total), one) / weights[train])
            for total, one in zip(squares.total.tolist(), spread_bits, strict=True)
        ]
    )
    rounding = np.array([ldexp(1.0, -one) for one in bits[1:-1]]) * counts.rows[train] / weights[train]
    # A constant column's mean is off by rounding, and so are all its values from that mean.
    constant = spread[:-1] <= 2.0**-45 * np.abs(means) + rounding if centred else distance[:-1] == 0
    scale = np.ones(columns) if raw else np.where(constant, 1.0, spread[:-1])
    inverse = np.where(constant, 0.0, 1.0 / scale)
    one = [1.0] if parameters.fit_intercept else []
    design = Design(
        intercept=parameters.fit_intercept,
        train=train,
        rows=counts.rows,
        weights=weights,
        fill=means,
        centre=centre,
        inverse=inverse,
        reach=np.array([*one, *(distance[:-1] * inverse)]),
        spread=np.array([*one, *(spread[:-1] * inverse)]),
        label_centre=label_centre,
        label_reach=float(distance[-1]),
        label_spread=float(spread[-1]) if squared else 1.0,
        weight_reach=weight_reach,
    )
    return Survey(design, own_weights, tuple(name for name, is_so in zip(names, constant, strict=True) if is_so))


@dataclass(frozen=True)
class CountRows:
    """How many rows, missing and impossible values there are, and how large values get.

    Vector: of every set rows, labels that are not finite, labels that are neither 0 nor 1, weights that are negative
    or not finite; labels of 1 in all sets; of every column missing and infinite values; exponent cells of every
    column, the label and the weight.
    """

    columns: int
    sets: tuple[str, ...]

    def run(self, shard: Shard) -> Int64Array:
        """Count."""
        heads = np.zeros((len(self.sets), _LABEL_FAULTS), np.int64)
        ones = np.zeros(1, np.int64)
        faults = np.zeros((self.columns, 2), np.int64)
        largest = np.zeros(self.columns + 2)
        for position, name in enumerate(self.sets):
            for block in shard.blocks(name):
                finite_weight = np.isfinite(block.weight) & (block.weight >= 0)
                finite_label = np.isfinite(block.label)
                heads[position] += [
                    block.label.size,
                    np.count_nonzero(~finite_label),
                    np.count_nonzero((block.label != 0) & (block.label != 1)),
                    np.count_nonzero(~finite_weight),
                ]
                ones += np.count_nonzero(block.label == 1)
                faults[:, 0] += np.isnan(block.columns).sum(axis=1)
                faults[:, 1] += np.isinf(block.columns).sum(axis=1)
                largest[:-2] = np.maximum(largest[:-2], _largest(block.columns))
                largest[-2] = max(largest[-2], _largest(block.label))
                largest[-1] = max(largest[-1], _largest(block.weight))
        cells = [count_exponent(one) for one in largest.tolist()]
        return np.concatenate([heads.ravel(), ones, faults.ravel(), *cells])


@dataclass(frozen=True)
class AddValues:
    """Sums of weights by set, and over the rows to train on the sums that means are made of.

    Vector: weights by set; weight of the rows where a value is there and weight × value, by column; weight × label.
    bits: of the weights, of weight × value of every column, of weight × label.
    """

    columns: int
    sets: tuple[str, ...]
    train: str
    bits: tuple[int, ...]

    def run(self, shard: Shard) -> Int64Array:
        """Add up."""
        weights = np.zeros(len(self.sets), np.int64)
        out = np.zeros(2 * self.columns + 1, np.int64)
        for position, name in enumerate(self.sets):
            for block in shard.blocks(name):
                weights[position] += fixed_sum(block.weight, self.bits[0])
                if name != self.train:
                    continue
                for column, values in enumerate(block.columns):
                    there = ~np.isnan(values)
                    weight = block.weight[there]
                    out[column] += fixed_sum(weight, self.bits[0])
                    out[self.columns + column] += fixed_sum(weight * values[there], self.bits[1 + column])
                out[-1] += fixed_sum(block.weight * block.label, self.bits[-1])
        return np.concatenate([weights, out])


@dataclass(frozen=True)
class FindReach:
    """How far values of every column, and labels, are from the centre, as exponents; in all sets."""

    sets: tuple[str, ...]
    fill: Float64Array
    centre: Float64Array
    label_centre: float

    def run(self, shard: Shard) -> Int64Array:
        """Look."""
        largest = np.zeros(len(self.centre) + 1)
        for name in self.sets:
            for block in shard.blocks(name):
                distances, labels = _distances(block, self.fill, self.centre, self.label_centre)
                largest[:-1] = np.maximum(largest[:-1], _largest(distances))
                largest[-1] = max(largest[-1], _largest(labels))
        return np.concatenate([count_exponent(one) for one in largest.tolist()])


@dataclass(frozen=True)
class AddSquares:
    """Weight × squared distance from the centre, of every column and the label, over the rows to train on."""

    train: str
    fill: Float64Array
    centre: Float64Array
    label_centre: float
    bits: tuple[int, ...]

    def run(self, shard: Shard) -> Int64Array:
        """Add up."""
        out = np.zeros(len(self.bits), np.int64)
        for block in shard.blocks(self.train):
            distances, labels = _distances(block, self.fill, self.centre, self.label_centre)
            for column, values in enumerate([*distances, labels]):
                out[column] += fixed_sum(block.weight * (values * values), self.bits[column])
        return out


@dataclass(frozen=True)
class _Collected:
    own: Int64Array
    total: Int64Array


def _collect(rows: Rows, sums: Sums, name: str, step: Any, bound: int, context: bytes) -> _Collected:
    own = rows.add_up(step)
    if isinstance(step, (CountRows, FindReach)):
        # An organisation tells its largest value's exponent, not those of each of its workers.
        cells = own[_exponents_from(step) :].reshape(-1, EXPONENT_CELLS)
        cells[:, :-1][np.logical_or.accumulate(cells[:, :0:-1], axis=1)[:, ::-1]] = 0
        np.minimum(cells, 1, out=cells)
    return _Collected(own, sums.sum(f"linear/{name}", own, bound=bound, context=context))


def _exponents_from(step: CountRows | FindReach) -> int:
    if isinstance(step, FindReach):
        return 0
    return len(step.sets) * _LABEL_FAULTS + 1 + 2 * step.columns


class _Counts:
    """A vector of `CountRows`, read."""

    def __init__(self, vector: Int64Array, columns: int, sets: Sequence[str]) -> None:
        head = len(sets) * _LABEL_FAULTS
        heads = vector[:head].reshape(len(sets), _LABEL_FAULTS)
        self.rows = {name: int(heads[i, 0]) for i, name in enumerate(sets)}
        self.labels_not_finite, self.labels_not_binary, self.weights_not_usable = (
            int(heads[:, i].sum()) for i in range(1, _LABEL_FAULTS)
        )
        self.ones = int(vector[head])
        faults = vector[head + 1 : head + 1 + 2 * columns].reshape(columns, 2)
        self.missing, self.infinite = faults[:, 0], faults[:, 1]
        self.exponents = vector[head + 1 + 2 * columns :].reshape(columns + 2, EXPONENT_CELLS)


def _refuse(counts: _Counts, own: _Counts, parameters: LinearParameters, names: Sequence[str], train: str) -> None:
    """Raise UserError for rows that cannot be trained on, with counts over all organisations and here."""
    total = sum(counts.rows.values())
    if counts.rows[train] == 0:
        raise UserError(f"no organisation has rows in set {train}: there is nothing to train on. Check the split.")

    def told(everywhere: int, here: int) -> str:
        return f"{everywhere} of {total} rows over all organisations, {here} of them here"

    problems = []
    if counts.labels_not_finite:
        problems.append(
            f"the label is missing or infinite in {told(counts.labels_not_finite, own.labels_not_finite)}. "
            "Take these rows out."
        )
    elif parameters.objective == LOGISTIC and counts.labels_not_binary:
        problems.append(
            f"the label is neither 0 nor 1 in {told(counts.labels_not_binary, own.labels_not_binary)}. "
            "binary:logistic takes 0 and 1; take objective: reg:squarederror for numbers."
        )
    elif parameters.objective == LOGISTIC and counts.ones in {0, total}:
        problems.append(
            f"the label is {int(counts.ones > 0)} in all {total} rows over all organisations: "
            "binary:logistic needs both classes."
        )
    if counts.weights_not_usable:
        problems.append(
            f"the weight is negative or not finite in {told(counts.weights_not_usable, own.weights_not_usable)}. "
            "Weights are numbers from 0."
        )
    for column, name in enumerate(names):
        missing, infinite = int(counts.missing[column]), int(counts.infinite[column])
        if infinite or counts.exponents[column, -1]:
            problems.append(
                f"column {name} holds values that are infinite or beyond 2^128 "
                f"({told(infinite, int(own.infinite[column]))} infinite). Correct them or make them missing."
            )
        if missing == total:
            problems.append(f"column {name} is missing in all {total} rows. Take it out of the features.")
        elif missing and parameters.missing == "refuse":
            problems.append(
                f"column {name} is missing in {told(missing, int(own.missing[column]))}. A linear model needs a "
                "number: say missing: mean to fill in the mean over all organisations, fill the values in before, "
                "or take algorithm: xgboost."
            )
    if problems:
        raise UserError(problems)


def _distances(
    block: Block, fill: Float64Array, centre: Float64Array, label_centre: float
) -> tuple[Float64Array, Float64Array]:
    columns = np.where(np.isnan(block.columns), fill[:, None], block.columns) - centre[:, None]
    return columns, block.label - label_centre


def _largest(values: Float64Array) -> Any:
    """Return the largest magnitude along the last axis, 0 for none; missing values are passed over."""
    return np.fmax.reduce(np.abs(values), axis=-1, initial=0.0)
