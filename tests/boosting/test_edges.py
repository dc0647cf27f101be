"""Edges lie at the wanted ranks, and hold enough rows."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lepton_pipelines.boosting.cells import key_of, lowest_value
from lepton_pipelines.boosting.collective import Collective
from lepton_pipelines.boosting.dataset import Dataset
from lepton_pipelines.boosting.edges import EdgeSearch, find_edges
from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.boosting.rows import LocalRows
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.sums import LocalSums

ROWS = 200_000


def find(X, *, max_bin=256, smallest=1, weight=None):
    shard = Shard({"train": Dataset(X, weight=weight)}, threads=2)
    exponent = None if weight is None else int(np.frexp(weight.max())[1])
    search = EdgeSearch(max_bin, smallest, len(X), exponent)
    return find_edges(
        Collective(LocalRows(shard), LocalSums(), "test"), "train", FeatureSchema(columns=X.shape[1]), search
    )


def columns():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=ROWS)
    return {
        "normal": normal,
        "far from zero": normal * 1e-3 + 1000,
        "heavy-tailed": rng.standard_cauchy(ROWS) ** 3,
        "log-normal": np.exp(4 * normal),
        "uniform": rng.random(ROWS),
        "missing": np.where(rng.random(ROWS) < 0.5, np.nan, normal),
    }


@pytest.mark.parametrize("name", columns())
@pytest.mark.parametrize("weighted", [False, True])
def test_edges_are_within_a_twentieth_of_a_percent_of_the_wanted_rank(name, weighted):
    x = columns()[name].astype(np.float32)
    weight = np.random.default_rng(1).random(ROWS).astype(np.float32) + np.float32(0.1) if weighted else None
    edges = find(x[:, None], weight=weight).edges[0][:-1]
    there = ~np.isnan(x)
    order = np.argsort(x[there], kind="stable")
    share = (weight[there] if weighted else np.ones(there.sum()))[order].astype(np.float64)
    below = np.concatenate([[0], np.cumsum(share)]) / share.sum()
    ranks = below[np.searchsorted(x[there][order], edges)]
    bins = 255 if name == "missing" else 256
    wanted = np.arange(1, bins) / bins
    # Where a value fills more rows than a bin should, no edge lies at the wanted rank: only what is reachable counts.
    reachable = below[np.flatnonzero(np.diff(x[there][order])) + 1]
    nearest, best = (np.abs(near[:, None] - wanted).min(axis=0) for near in (ranks, reachable))
    assert (nearest - best).max() <= 0.0005


def test_a_constant_column_has_one_bin_and_an_absent_one_too():
    X = np.stack([np.full(1000, 3.5), np.full(1000, np.nan)], axis=1).astype(np.float32)
    binning = find(X)
    assert [len(edges) for edges in binning.edges] == [1, 1]
    assert binning.missing.tolist() == [False, True]


@given(counts=st.lists(st.integers(1, 2000), min_size=2, max_size=60))
@settings(max_examples=15, deadline=None)
def test_a_column_of_few_values_has_a_bin_for_each(counts):
    values = np.arange(len(counts), dtype=np.float32) - 20
    x = np.repeat(values, counts)
    edges = find(x[:, None]).edges[0]
    codes = np.minimum(np.searchsorted(edges, values, side="right"), len(edges) - 1)
    assert len(set(codes.tolist())) == len(values)


@given(arrays(np.float32, st.integers(1, 3000), elements=st.floats(width=32, allow_nan=True, allow_infinity=False)))
@settings(max_examples=25, deadline=None)
def test_edges_ascend_and_every_bin_holds_the_rows_that_it_must(x):
    smallest = 20
    binning = find(x[:, None], smallest=smallest, max_bin=64)
    edges = binning.edges[0]
    assert (np.diff(edges) > 0).all() and len(edges) <= 64
    there = x[~np.isnan(x)]
    counts = np.bincount(np.minimum(np.searchsorted(edges, there, side="right"), len(edges) - 1), minlength=len(edges))
    assert len(edges) == 1 or counts.min() >= smallest


@settings(deadline=None)
@given(st.floats(width=32, allow_nan=False), st.floats(width=32, allow_nan=False))
def test_the_map_keeps_the_order_of_float32(a, b):
    keys = [_keys(np.float32(value)) for value in (a, b)]
    assert (keys[0] < keys[1]) == (np.float32(a) < np.float32(b))
    assert lowest_value(np.array(keys))[0] == np.float32(a)


@numba.njit
def _keys(value):
    return key_of(value)
