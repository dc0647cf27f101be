"""While rows are read, who listens learns how many pieces and rows are there; also from workers that are processes."""

import pandas as pd
import pytest

from lepton_pipelines.compute.cluster import open_cluster
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.organisation.progress import PiecesRead
from lepton_pipelines.organisation.reading import read_rows
from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.organisation import LocalCompute, Organisation
from lepton_pipelines.spec.pipeline import KeySplit

SPLIT = KeySplit(key="row", train=0.7, valid=0.15, test=0.15)


@pytest.fixture(scope="module")
def contract():
    role = [{"property": "lepton", "value": {"role": "label"}}]
    properties = [
        {"name": "row", "logicalType": "integer", "primaryKey": True},
        {"name": "x", "logicalType": "number"},
        {"name": "y", "logicalType": "integer", "required": True, "customProperties": role},
    ]
    told = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "days", "version": "1.0.0", "status": "active"}
    return parse_contract({**told, "schema": [{"name": "days", "properties": properties}]})


def rows(day):
    return pd.DataFrame({"row": range(1000 * day, 1000 * day + 300), "x": 0.5, "y": [0, 1] * 150})


def told_of(folder, contract, workers, **data):
    """Read a folder; returns what was told, and the rows that are held."""
    own = Organisation.model_validate({"organisation": "harbour", "data": {"url": str(folder), **data}})
    told = []
    with open_cluster(LocalCompute(workers=workers), organisation="harbour", share=1) as client:
        source = open_source(own, contract)
        held = read_rows(client, source, SPLIT, quarantine=None, on_loss=pytest.fail, tell=told.append)
        try:
            return told, sum(held.ask(_rows))
        finally:
            held.close()


def _rows(held):
    return sum(len(one) for one in held.sets.values())


@pytest.mark.parametrize("workers", [1, 2])
def test_pieces_and_rows_are_told_as_they_are_read(tmp_path, contract, workers):
    for day in range(6):
        rows(day).to_parquet(tmp_path / f"{day}.parquet", index=False)
    told, held = told_of(tmp_path, contract, workers)
    assert held == 1800
    assert told[-1] == PiecesRead("harbour", pieces=6, of=6, rows=1800, total=1800)
    shares = [one.share for one in told]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 1
    assert told[-1].told() == "6 of 6 pieces · 1,800 of 1,800 rows"


def test_a_large_file_of_one_piece_is_told_block_by_block(tmp_path, contract, monkeypatch):
    monkeypatch.setattr("lepton_pipelines.data.csv_file._BLOCK_BYTES", 800)
    rows(1).to_csv(tmp_path / "1.csv", index=False)
    told, _ = told_of(tmp_path, contract, 1)
    assert len(told) > 3
    assert told[-1] == PiecesRead("harbour", pieces=1, of=1, rows=300, total=None)
    assert [one.pieces for one in told[:-1]] == [0] * (len(told) - 1)
    assert 0 < told[0].rows < 300
    assert told[-1].told() == "1 of 1 pieces · 300 rows"


def test_pieces_from_the_cache_are_told_too(tmp_path, contract):
    (tmp_path / "rows").mkdir()
    for day in range(2):
        rows(day).to_parquet(tmp_path / "rows" / f"{day}.parquet", index=False)
    for _ in range(2):
        told, _ = told_of(tmp_path / "rows", contract, 1, cache=str(tmp_path / "cache"))
        assert told[-1].pieces == 2
