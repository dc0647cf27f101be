"""Row keys as numbers: the same everywhere and for ever, evenly spread."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_pipelines.data.keys import combine, hash_floats, hash_integers, hash_texts, start

START = start("split")

KNOWN = {
    "start": 13855926953421502910,
    "integers": [9582682836897049220, 8005678796595581408, 4739867738206586330, 10624498351620596164],
    "texts": [9582682836897049220, 12542241166473767296, 9644423215564263379, 9088537539576051276],
    "floats": [9582682836897049220, 2122640583548407273, 4054211466767555956],
}


def test_known_keys_have_known_numbers():
    """Held-out rows must stay held out: these numbers may never change."""
    assert int(START) == KNOWN["start"]
    assert hash_integers(np.array([0, 1, 4411, -1]), START).tolist() == KNOWN["integers"]
    assert hash_texts(pd.Series(["", "a", "patient-4411", "häß"]), START).tolist() == KNOWN["texts"]
    assert hash_floats(np.array([0.0, 1.5, np.nan]), START).tolist() == KNOWN["floats"]


@pytest.mark.parametrize("kind", ["integers", "texts"])
def test_consecutive_keys_are_spread_evenly(kind):
    keys = np.arange(200_000)
    hashed = hash_integers(keys, START) if kind == "integers" else hash_texts(pd.Series(keys).astype(str), START)
    assert len(np.unique(hashed)) == len(keys)
    counts = np.bincount((hashed >> np.uint64(56)).astype(int), minlength=256)
    expected = len(keys) / 256
    # χ² with 255 degrees of freedom: 400 has a chance of 1e-8.
    assert ((counts - expected) ** 2 / expected).sum() < 400


def test_purposes_and_salts_are_independent():
    keys = np.arange(50_000)
    half = np.uint64(1 << 63)
    low = [hash_integers(keys, s) < half for s in (start("split"), start("row"), start("split", "2"))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs((low[one] & low[other]).mean() - 0.25) < 0.01


@given(st.lists(st.one_of(st.none(), st.text(max_size=40)), min_size=1, max_size=30))
def test_a_text_has_its_number_whatever_stands_beside_it(texts):
    together = hash_texts(pd.Series(texts, dtype="string"), START)
    alone = [hash_texts(pd.Series([t], dtype="string"), START)[0] for t in texts]
    assert together.tolist() == alone
    assert len(set(together.tolist())) == len(set(texts))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True))
def test_no_two_integers_share_a_number(keys):
    assert len(np.unique(hash_integers(np.array(keys), START))) == len(keys)


def test_zero_has_one_number_and_so_has_nan():
    hashed = hash_floats(np.array([0.0, -0.0, np.nan, -np.nan]), START)
    assert hashed[0] == hashed[1]
    assert hashed[2] == hashed[3]


def test_columns_are_combined_in_their_order():
    one, other = hash_integers(np.array([1]), START), hash_integers(np.array([2]), START)
    assert combine([one, other]) != combine([other, one])
    with pytest.raises(ValueError, match="at least one column"):
        combine([])


def test_blocks_of_rows_do_not_show():
    texts = pd.Series(np.arange(70_000)).astype(str)
    assert (hash_texts(texts, START)[-10:] == hash_texts(texts[-10:], START)).all()
