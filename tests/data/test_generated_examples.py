"""The examples whose rows are generated: the same rows each time, and they keep their contracts."""

import importlib.util

import pytest

from lepton_pipelines.data.derived import read_windows
from lepton_pipelines.data.lineage import piece_digest
from lepton_pipelines.data.preparation import prepare
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.spec.pipeline import read_pipeline

ROWS = {
    "retail": {"discount": 26_334, "city": 20_468, "organic": 5_382},
    "manufacturing": {"forge": 39_204, "mill": 26_136, "press": 13_068},
    "grid-load": {"valley": 43_800, "metro": 26_280, "coast": 17_520},
}


@pytest.mark.parametrize("name", ROWS)
def test_generated_rows_keep_the_contract_and_are_the_same_each_time(name, tmp_path, request, organisation):
    folder = request.config.rootpath / "examples" / name
    told = importlib.util.spec_from_file_location(f"make_{name.replace('-', '_')}", folder / "make_rows.py")
    maker = importlib.util.module_from_spec(told)
    told.loader.exec_module(maker)
    files = maker.write(tmp_path)
    pipeline = read_pipeline(folder / "pipeline.yaml")
    contract = pipeline.read_contract()
    assert sorted(files) == pipeline.members
    again = maker.rows()
    for who, path in files.items():
        source = open_source(organisation(path.parent, name=who), contract)
        (piece,) = source.pieces()
        prepared = prepare(source, piece, pipeline.split, windows=read_windows(source, [piece])[0])
        assert prepared.violations.problems(contract, organisation=who, on_violation="refuse") == []
        assert prepared.violations.rows == ROWS[name][who]
        assert piece_digest(again[who][contract.read_columns]) == piece_digest(source.read(piece))
        assert all(len(rows) for rows in prepared.sets.values())
