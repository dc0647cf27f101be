"""Rows from any library: the values that XGBoost would see, and everything that cannot be trained on refused."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import xgboost

from lepton_pipelines.boosting.dataset import Dataset
from lepton_pipelines.spec.errors import UserError

FRAME = pd.DataFrame(
    {
        "float": [1.5, np.nan, 3.0],
        "int": [1, 2, 3],
        "bool": [True, False, True],
        "nullable int": pd.array([1, None, 3], dtype="Int64"),
        "nullable bool": pd.array([True, None, False], dtype="boolean"),
        "arrow int": pd.array([1, 2, None], dtype=pd.ArrowDtype(pa.int32())),
        "text": pd.Categorical(["x", None, "y"]),
        "codes": pd.Categorical([7, 3, 7]),
    }
)
WIDE = np.array([[1.5, np.nan], [2.0, -1.0], [0.0, 4.0]])


def seen_by_xgboost(X, **settings):
    """The values of a stock DMatrix, NaN where missing."""
    data = xgboost.DMatrix(X, **settings).get_data()
    dense = np.full(data.shape, np.nan, np.float32)
    rows = np.repeat(np.arange(data.shape[0]), np.diff(data.indptr))
    dense[rows, data.indices] = data.data
    return dense


def same(ours, theirs):
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == np.float32
    assert ours.flags.c_contiguous


def test_a_pandas_frame_is_read_as_xgboost_reads_it():
    data, stock = Dataset(FRAME), xgboost.DMatrix(FRAME, enable_categorical=True)
    same(data.block(0, 3), seen_by_xgboost(FRAME, enable_categorical=True))
    assert list(data.feature_names) == stock.feature_names
    assert list(data.feature_types) == stock.feature_types
    assert data.category_names == ((), (), (), (), (), (), ("x", "y"), (3, 7))
    assert list(data.schema.categories) == [0, 0, 0, 0, 0, 0, 2, 2]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.bool_])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_read_as_xgboost_reads_it(kind, order):
    X = np.asarray(np.nan_to_num(WIDE), dtype=kind, order=order)
    same(Dataset(X).block(0, 3), seen_by_xgboost(X))
    same(Dataset(X[:, ::-1]).block(1, 3), seen_by_xgboost(X[:, ::-1])[1:3])


@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.csc_matrix, scipy.sparse.csr_array])
def test_what_a_sparse_matrix_does_not_store_is_missing(make):
    X = make(np.array([[0, 1.0, 0], [2, 0, 0], [0, 0, 3]]))
    same(Dataset(X).block(0, 3), seen_by_xgboost(X.tocsr()))
    same(Dataset(X).block(1, 2), seen_by_xgboost(X.tocsr())[1:2])


def arrow():
    return pa.table(
        {
            "a": pa.chunked_array([[1.5, None], [3.0]]),
            "c": pa.chunked_array([pa.array(["x", None]).dictionary_encode(), pa.array(["y"]).dictionary_encode()]),
            "i": pa.array([1, 2, None], pa.int16()),
            "b": [True, None, False],
            "n": pa.nulls(3),
        }
    )


def test_an_arrow_table_keeps_its_nulls_and_its_categories():
    data = Dataset(arrow())
    expected = [[1.5, 0, 1, 1, np.nan], [np.nan, np.nan, 2, np.nan, np.nan], [3, 1, np.nan, 0, np.nan]]
    same(data.block(0, 3), np.array(expected, np.float32))
    assert data.feature_types == ("float", "c", "int", "i", "float")
    assert data.category_names == ((), ("x", "y"), (), (), ())


def test_a_polars_frame_is_read_as_its_arrow_table():
    frame = pl.DataFrame(
        {
            "a": [1.5, None, 3.0],
            "e": pl.Series(["x", "z", "y"], dtype=pl.Enum(["z", "y", "x"])),
            "b": [True, None, False],
        }
    )
    data = Dataset(frame, frame["a"].fill_null(0))
    same(data.block(0, 3), np.array([[1.5, 2, 1], [np.nan, 0, np.nan], [3, 1, 0]], np.float32))
    assert data.category_names[1] == ("z", "y", "x")
    assert data.label.tolist() == [1.5, 0, 3]


def test_empty_tables_are_rows_too():
    for X in (np.zeros((0, 2)), FRAME.iloc[:0], arrow().slice(0, 0), scipy.sparse.csr_matrix((0, 2))):
        data = Dataset(X, [])
        assert data.n_rows == 0
        assert data.block(0, 0).shape == (0, data.n_features)


def test_functions_written_for_a_dmatrix_find_labels_and_weights():
    data = Dataset(WIDE, pd.Series([1, 0, 1]), weight=[[1], [2], [3]], base_margin=np.ones((3, 2)))
    assert data.get_label().tolist() == [1, 0, 1]
    assert data.get_weight().tolist() == [1, 2, 3]
    assert data.get_base_margin().shape == (3, 2)
    assert (data.num_row(), data.num_col(), len(data)) == (3, 2, 3)


def test_a_row_id_is_the_same_wherever_the_row_lies():
    ids = ["p-4411", "p-4412", "p-5020"]
    whole = Dataset(WIDE, row_id=ids).row_id
    assert (Dataset(WIDE[:2], row_id=ids[1:]).row_id == whole[1:]).all()
    assert len(set(whole.tolist())) == 3
    assert Dataset(WIDE, row_id=[5, 6, -1]).row_id.tolist() == [5, 6, 2**64 - 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dataset(pd.DataFrame({"name": ["x", "y"]})), '"name" holds str.*category type, or leave it out'),
        (lambda: Dataset(pd.DataFrame({"mixed": [1, "y"]})), '"mixed" holds objects'),
        (lambda: Dataset(pd.DataFrame({"day": pd.to_datetime(["2020", "2021"])})), '"day" holds datetime64'),
        (lambda: Dataset(pa.table({"name": ["x", "y"]})), '"name" holds string'),
        (lambda: Dataset(pd.DataFrame({"c": pd.Categorical([0.5, 1.5])})), '"c" has categories of type float'),
        (lambda: Dataset(np.array([["a", "b"]])), "are not numbers"),
        (lambda: Dataset(np.zeros(3)), "X has 1 dimensions"),
        (lambda: Dataset(pd.DataFrame({"a": [np.inf, 1.0, -np.inf]})), '"a": 2 of 3 values are infinite'),
        (lambda: Dataset(np.array([[1.0, 1e300]])), "column 1 of X: 1 of 1 values are infinite or beyond float32"),
        (lambda: Dataset(scipy.sparse.csr_matrix([[np.inf, 1.0]])), "column 0 of X: 1 of 1 values are infinite"),
        (lambda: Dataset(WIDE, [1, 2]), "label has 2 values, X has 3 rows"),
        (lambda: Dataset(WIDE, np.zeros((3, 2))), r"label has shape \(3, 2\); one number a row"),
        (lambda: Dataset(WIDE, [1, np.nan, np.inf]), "label: 2 of 3 values are missing, infinite"),
        (lambda: Dataset(WIDE, ["a", "b", "c"]), "label holds .*not numbers"),
        (lambda: Dataset(WIDE, [0, 1, 5], label_bounds=(0, 1)), r"label: 1 of 3 rows .* 0 to 1 \(for example 5\)"),
        (lambda: Dataset(WIDE, weight=[1, -1, -2]), "weight: 2 of 3 rows have a negative weight"),
        (lambda: Dataset(WIDE, weight=[1, 2, 5], weight_bound=2), "weight: 1 of 3 rows .* beyond the declared bound 2"),
        (lambda: Dataset(WIDE, base_margin=np.zeros((2, 2))), r"base_margin has shape \(2, 2\)"),
        (lambda: Dataset(WIDE, base_margin=[0, np.nan, 0]), "base_margin: 1 of 3 values"),
        (lambda: Dataset(WIDE, row_id=[0.5, 1, 2]), "row_id holds float64"),
        (lambda: Dataset(WIDE, row_id=[1]), "row_id has shape"),
        (lambda: Dataset(WIDE, feature_names=["a"]), "1 names for 2 columns"),
        (lambda: Dataset(WIDE, feature_names=["a", "a"]), "a stands for several columns"),
        (lambda: Dataset(WIDE, feature_names=["a[0]", "b"]), r"a\[0\]: XGBoost's names hold no"),
        (lambda: Dataset(WIDE, feature_types=["q"]), "1 types for 2 columns"),
        (lambda: Dataset(WIDE, feature_types=["q", "text"]), "text is not a type"),
        (lambda: Dataset(np.array([[0.5], [-1.0]]), feature_types=["c"]), "2 values .* are no category codes"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_all_columns_that_cannot_be_used_are_told_at_once():
    frame = pd.DataFrame({"a": ["x"], "b": [1.0], "c": pd.to_datetime(["2020"])})
    with pytest.raises(UserError) as told:
        Dataset(frame)
    assert len(told.value.problems) == 2
