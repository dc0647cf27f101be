"""Universal Binary JSON: what is written reads back, XGBoost reads it, and damaged files are refused."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_pipelines.boosting.ubjson import read_ubjson, write_ubjson
from lepton_pipelines.spec.errors import UserError

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
arrays = st.sampled_from([np.float32, np.float64, np.uint8, np.int8, np.int16, np.int32, np.int64])


@given(values)
def test_what_is_written_reads_back(value):
    document = {"value": value}
    assert read_ubjson(write_ubjson(document)) == document


@given(arrays, st.lists(st.integers(0, 100)))
def test_arrays_keep_their_type(kind, numbers):
    back = read_ubjson(write_ubjson({"numbers": np.array(numbers, kind)}))["numbers"]
    assert back.dtype == kind
    assert back.tolist() == numbers


@given(values, st.data())
def test_a_cut_file_is_refused(value, data):
    whole = write_ubjson({"value": value})
    with pytest.raises(UserError, match="model file"):
        read_ubjson(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(UserError):
        read_ubjson(b"{" + data)


def test_a_length_beyond_the_file_is_refused_before_memory_is_taken():
    with pytest.raises(UserError, match="cut off"):
        read_ubjson(b"[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff")


def test_bytes_behind_the_end_are_refused():
    with pytest.raises(UserError, match="after its end"):
        read_ubjson(write_ubjson({}) + b"Z")


def test_endless_nesting_is_refused():
    with pytest.raises(UserError, match="nests deeper"):
        read_ubjson(b"[" * 10_000)
