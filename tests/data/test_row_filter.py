"""`data.filter`: the rows that are read are those that pandas' own comparison keeps, wherever they lie."""

import sqlite3

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lepton_pipelines.data.preparation import prepare
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.errors import UserError

TIMES = pd.date_range("2016-01-01", periods=200, freq="12h")


@pytest.fixture
def rows(patients):
    """Rows with columns that the contract does not know, some of whose values are missing."""
    draw = np.random.default_rng(3)
    frame = patients(200).assign(
        admitted=TIMES,
        ward=draw.choice(["north", "south", "o'hare"], 200),
        score=np.where(draw.random(200) < 0.2, np.nan, draw.normal(size=200)),
        active=draw.random(200) < 0.5,
    )
    frame.loc[::7, "ward"] = None
    return frame


CONDITIONS = {
    "a text": ({"ward": "o'hare"}, lambda f: f["ward"] == "o'hare"),
    "some texts": ({"ward": ["north", "south"]}, lambda f: f["ward"].isin(["north", "south"])),
    "numbers": ({"visits": [1, 3]}, lambda f: f["visits"].isin([1, 3])),
    "limits": ({"score": {"min": -0.5, "below": 1}}, lambda f: (f["score"] >= -0.5) & (f["score"] < 1)),
    "a boolean": ({"active": True}, lambda f: f["active"]),
    "dates": (
        {"admitted": {"min": "2016-01-20", "below": "2016-03-01"}},
        lambda f: (f["admitted"] >= "2016-01-20") & (f["admitted"] < "2016-03-01"),
    ),
    "several": (
        {"visits": {"max": 5}, "ward": "north", "patient_id": {"min": 4050}},
        lambda f: (f["visits"] <= 5) & (f["ward"] == "north") & (f["patient_id"] >= 4050),
    ),
    "a column of the contract with missing values": ({"radius": {"max": 50}}, lambda f: f["radius"] <= 50),
}

WRITERS = {
    "rows.parquet": lambda f, p: pq.write_table(pa.Table.from_pandas(f, preserve_index=False), p, row_group_size=30),
    "rows.csv": lambda f, p: f.to_csv(p, index=False),
    "rows.csv.gz": lambda f, p: f.to_csv(p, index=False),
}


def ids(source):
    return [n for piece in source.pieces() for n in source.read(piece)["patient_id"].astype(int)]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("case", CONDITIONS)
def test_what_is_read_is_what_pandas_keeps(tmp_path, organisation, contract, rows, name, case):
    conditions, mask = CONDITIONS[case]
    WRITERS[name](rows, tmp_path / name)
    source = open_source(organisation(tmp_path / name, filter=conditions), contract)
    assert ids(source) == rows.loc[mask(rows), "patient_id"].tolist()
    assert list(source.read(source.pieces()[0]).columns) == contract.read_columns


@pytest.mark.parametrize("case", [name for name in CONDITIONS if name != "a boolean"])
def test_a_database_keeps_the_same_rows(tmp_path, organisation, contract, rows, case):
    conditions, mask = CONDITIONS[case]
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        rows.assign(admitted=rows["admitted"].dt.strftime("%Y-%m-%d %H:%M:%S")).to_sql("p", connection, index=False)
    connection.close()
    source = open_source(
        organisation(f"sqlite:///{tmp_path}/c.sqlite", sql={"table": "p"}, filter=conditions), contract
    )
    assert ids(source) == rows.loc[mask(rows), "patient_id"].tolist()


def test_row_groups_without_a_wanted_row_are_not_opened(tmp_path, organisation, contract, rows, monkeypatch):
    monkeypatch.setattr("lepton_pipelines.data.sources._PIECE_ROWS", 30)
    WRITERS["rows.parquet"](rows, tmp_path / "rows.parquet")
    told = {"admitted": {"min": "2016-02-01", "below": "2016-02-10"}}
    source = open_source(organisation(tmp_path, filter=told), contract)
    assert [piece.row_groups for piece in source.pieces()] == [(2,)]
    assert source.pieces()[0].first_row == 60
    assert len(ids(source)) == 18


def test_folders_whose_names_do_not_fit_are_not_opened(tmp_path, organisation, contract, rows):
    for (year, month), part in rows.groupby([TIMES.year, TIMES.month]):
        folder = tmp_path / f"year={year}" / f"month={month:02d}"
        folder.mkdir(parents=True)
        part.to_parquet(folder / "part.parquet")
    (tmp_path / "year=2016" / "month=04" / "part.parquet").write_bytes(b"no parquet")
    for told, months in (({"month": {"below": 4}}, (1, 2, 3)), ({"year": 2016, "month": [2, 3]}, (2, 3))):
        source = open_source(organisation(tmp_path, filter=told), contract)
        assert ids(source) == rows.loc[TIMES.month.isin(months), "patient_id"].tolist()


@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_named_by_their_number_in_the_file(tmp_path, organisation, document, rows, split, name):
    document["schema"][0]["properties"][0]["customProperties"] = [{"property": "lepton", "value": {"personal": True}}]
    rows.loc[150, "radius"] = 900
    WRITERS[name](rows, tmp_path / name)
    source = open_source(organisation(tmp_path, filter={"patient_id": {"min": 4101}}), parse_contract(document))
    found = [prepare(source, piece, split, quarantine=tmp_path / "out") for piece in source.pieces()]
    (told,) = [v for one in found for v in one.violations.found]
    assert told.keys == ("151",)
    (written,) = (tmp_path / "out").iterdir()
    assert pd.read_parquet(written)["row"].tolist() == [151]


@pytest.mark.parametrize("name", WRITERS)
def test_a_piece_of_which_no_row_is_left_is_prepared_as_empty(tmp_path, organisation, contract, rows, split, name):
    WRITERS[name](rows, tmp_path / name)
    source = open_source(organisation(tmp_path, filter={"visits": 1, "ward": "north", "radius": 3}), contract)
    for piece in source.pieces():
        assert [len(part) for part in prepare(source, piece, split).sets.values()] == [0, 0, 0]


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ({"wart": "north"}, 'data.filter names "wart", which'),
        ({"wart": "north"}, "Did you mean ward?"),
        ({"visits": "many"}, "data.filter compares \"visits\" with 'many', but that column is"),
        ({"visits": 2.5}, 'data.filter compares "visits" with 2.5'),
        ({"ward": 3}, 'data.filter compares "ward" with 3'),
        ({"visits": 99}, "meets data.filter. Correct it"),
    ],
)
def test_a_filter_that_cannot_be_is_refused_before_rows_are_read(
    tmp_path, organisation, contract, rows, conditions, told
):
    WRITERS["rows.parquet"](rows, tmp_path / "rows.parquet")
    with pytest.raises(UserError) as refused:
        open_source(organisation(tmp_path, filter=conditions), contract)
    assert str(refused.value).startswith("harbour: ")
    assert told in str(refused.value)


def test_a_csv_says_what_does_not_compare(tmp_path, organisation, contract, rows):
    WRITERS["rows.csv"](rows, tmp_path / "rows.csv")
    source = open_source(organisation(tmp_path, filter={"visits": "many"}), contract)
    with pytest.raises(UserError, match=r"data\.filter compares"):
        source.read(source.pieces()[0])
