"""The model's bytes do not depend on where rows lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_pipelines.linear.fixed_point import TOTAL_BOUND, bits_for, fixed_sum, real
from lepton_pipelines.linear.rows import BLOCK_ROWS, Shard, Table

KINDS = [
    {},
    {"solver": "closed_form", "alpha": 0.01, "lambda": 0.1},
    {"objective": "binary:logistic", "solver": "newton", "lambda": 0.01},
    {"objective": "binary:logistic", "alpha": 0.01, "missing": "mean"},
    {"learning_rate": 0.02, "momentum": 0.5, "standardize": False, "lambda": 0.1},
]


def rows_of(seed, count, missing):
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 4)) * [1.0, 3.0, 0.01, 1.0] + [0.0, 5.0, 0.0, -1.0]
    features[:, 3] = np.exp(features[:, 3])
    label = (features @ [1.0, -0.2, 30.0, 0.4] + random.logistic(size=count) > 0).astype(float)
    label[:2] = 0, 1
    if missing:
        features[random.random(features.shape) < 0.1] = np.nan
    return features, label, random.uniform(0.1, 3.0, count)


def deal(rows, places):
    """Give every row to a place; a place may stay empty."""
    return [Shard({"train": Table(*(values[places == place] for values in rows))}) for place in range(places.max() + 1)]


@pytest.mark.parametrize("parameters", KINDS, ids=str)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(40, 200), workers=st.integers(1, 5), data=st.data())
def test_model_bytes_do_not_depend_on_the_partition_or_the_order(train_alone, parameters, seed, count, workers, data):
    rows = rows_of(seed, count, "missing" in parameters)
    whole = train_alone(deal(rows, np.zeros(count, int)), rounds=60, **parameters)

    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    order = random.permutation(count)
    shards = deal(tuple(values[order] for values in rows), random.integers(0, workers, count))
    assert train_alone(shards, rounds=60, **parameters).model == whole.model


@pytest.mark.parametrize("parameters", KINDS, ids=str)
def test_model_bytes_are_those_of_the_pooled_rows_when_summed_under_encryption(train_alone, train_together, parameters):
    rows = rows_of(1, 3 * BLOCK_ROWS // 2, "missing" in parameters)
    whole = train_alone(deal(rows, np.zeros(len(rows[1]), int)), rounds=40, **parameters)
    north, *south = deal(rows, np.random.default_rng(0).choice(4, len(rows[1]), p=[0.7, 0.1, 0.1, 0.1]))
    results = train_together({"north": [north], "south": south[:2], "west": south[2:]}, rounds=40, **parameters)
    assert {result.model for result in results.values()} == {whole.model}
    assert results["west"].history == whole.history


@given(
    values=st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=50),
    rows=st.integers(1, 10**9),
)
def test_a_total_is_exact_to_half_a_unit_a_row_and_within_its_bound(values, rows):
    rows = max(rows, len(values))
    bits = bits_for(max(abs(value) for value in values), rows)
    total = fixed_sum(np.array(values), bits)
    assert abs(total) <= TOTAL_BOUND
    unit = 2.0**-bits
    assert abs(real(total, bits) - sum(values)) <= unit * len(values) / 2 + 1e-12 * sum(map(abs, values))
