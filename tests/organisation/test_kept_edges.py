"""Edges and codes kept from run to run: used only where they do, and never another model than they stand for."""

import runpy
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lepton_pipelines.boosting import binning as binning_module
from lepton_pipelines.boosting.collective import Collective
from lepton_pipelines.boosting.dataset import Dataset
from lepton_pipelines.boosting.edges import EdgeSearch
from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.boosting.rows import LocalRows
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.boosting.training import boost
from lepton_pipelines.data.encoding import Encoded
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.organisation.comparison import compare_trees, train_pooled
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.kept_edges import Agreed, KeptEdges, agree
from lepton_pipelines.organisation.rows import ReadPieces, ToShard, feature_schema
from lepton_pipelines.organisation.run import OrganisationRun
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.organisation import Organisation, read_organisation
from lepton_pipelines.spec.pipeline import KeySplit, read_pipeline
from lepton_pipelines.sums import LocalSums

MEMBERS = ["harbour", "north", "valley"]
COLUMNS = 4
SCHEMA = FeatureSchema(columns=COLUMNS)
PARAMETERS = BoosterParameters.read({"objective": "binary:logistic", "max_depth": 4})


def rows(seed, n, *, missing=(0,)):
    draw = np.random.default_rng(seed)
    X = draw.normal(size=(n, COLUMNS)).astype(np.float32)
    for column in missing:
        X[draw.random(n) < 0.1, column] = np.nan
    return X, (np.nan_to_num(X[:, 0]) + X[:, 1] > 0).astype(np.float32)


def agreed(parts, kept, *, smallest=20, max_bin=64):
    """Let members with these rows agree; returns what each found."""
    total = sum(len(X) for X, _ in parts)
    federation = InProcessFederation(MEMBERS)

    def member(place):
        X, label = parts[place]
        with federation.sums(MEMBERS[place]) as sums:
            collective = Collective(LocalRows(Shard({"train": Dataset(X, label)}, threads=1)), sums, "binning")
            return agree(collective, sums, SCHEMA, EdgeSearch(max_bin, smallest, total), kept[place])

    try:
        with ThreadPoolExecutor(len(MEMBERS)) as threads:
            return list(threads.map(member, range(len(MEMBERS))))
    finally:
        federation.close()


def one(found: list[Agreed]) -> Agreed:
    """Return what all have found; the same, or the test fails."""
    assert len({(each.binning.digest, each.kept) for each in found}) == 1
    return found[0]


@pytest.fixture(scope="module")
def first():
    """Three members' rows, and the edges that they kept."""
    parts = [rows(seed, 1000) for seed in range(3)]
    found = one(agreed(parts, [None] * 3))
    assert not found.kept
    return parts, KeptEdges(found.binning, 3000, b"settings")


def grown(parts, by):
    return [tuple(np.concatenate(pair) for pair in zip(part, rows(90 + i, by), strict=True)) for i, part in
            enumerate(parts)]  # fmt: skip


def test_edges_that_all_have_kept_are_used_again(first):
    parts, kept = first
    again = one(agreed(grown(parts, 50), [kept] * 3))
    assert again.kept
    assert again.binning.digest == kept.binning.digest


@pytest.mark.parametrize("odd", [None, "other edges"])
def test_all_search_anew_if_one_member_has_no_edges_or_others(first, odd):
    parts, kept = first
    other = None if odd is None else replace(kept, rows=kept.rows + 1)
    again = one(agreed(grown(parts, 50), [kept, other, kept]))
    assert not again.kept


@pytest.mark.parametrize("factor", [0.45, 2.1])
def test_all_search_anew_once_the_rows_are_more_or_fewer_than_edges_stand_for(first, factor):
    _, kept = first
    some = [rows(seed, int(1000 * factor)) for seed in range(3)]
    assert not one(agreed(some, [kept] * 3)).kept


def test_all_search_anew_if_a_bin_would_hold_fewer_rows_than_may_be_shown(first):
    parts, kept = first
    moved = [(X + np.float32(1.5), label) for X, label in parts]  # the lowest bins of 46 rows empty themselves
    found = one(agreed(moved, [kept] * 3))
    assert not found.kept
    for column, edges in enumerate(found.binning.edges):
        values = np.concatenate([X[:, column] for X, _ in moved])
        held = np.bincount(np.searchsorted(edges, values[~np.isnan(values)], side="right"))
        assert held.min() >= 20


def test_all_search_anew_if_a_column_lacks_values_that_lacked_none(first):
    parts, kept = first
    holes = [parts[0], parts[1], rows(2, 1000, missing=(0, 3))]
    assert not kept.binning.missing[3]
    found = one(agreed(holes, [kept] * 3))
    assert not found.kept
    assert found.binning.missing[3]


def test_a_damaged_file_of_edges_is_as_good_as_none(first):
    data = first[1].to_bytes()
    assert KeptEdges.from_bytes(data).digest == first[1].digest
    assert KeptEdges.from_bytes(b"") is None
    assert KeptEdges.from_bytes(data[:-40]) is None
    spoiled = bytearray(data)
    spoiled[len(data) // 2] ^= 1
    assert KeptEdges.from_bytes(bytes(spoiled)) is None


@pytest.fixture
def days(tmp_path):
    """Writes a file of a day, and makes a shard of all days as a worker would."""
    folder = tmp_path / "days"
    folder.mkdir()
    names = [f"x{i}" for i in range(COLUMNS)]
    properties = [{"name": "row", "logicalType": "integer", "primaryKey": True}]
    properties += [{"name": name, "logicalType": "number"} for name in names]
    role = [{"property": "lepton", "value": {"role": "label"}}]
    properties.append({"name": "y", "logicalType": "integer", "required": True, "customProperties": role})
    told = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "days", "version": "1.0.0", "status": "active"}
    contract = parse_contract({**told, "schema": [{"name": "days", "properties": properties}]})

    def write(day, *, seed=None):
        X, label = rows(day if seed is None else seed, 400)
        frame = pd.DataFrame(X, columns=names).assign(row=np.arange(400) + 1000 * day, y=label.astype(int))
        frame.to_parquet(folder / f"{day}.parquet", index=False)

    def held(*, cache=True):
        data = {"url": str(folder)} | ({"cache": str(tmp_path / "cache")} if cache else {})
        source = open_source(Organisation.model_validate({"organisation": "harbour", "data": data}), contract)
        split = KeySplit(key="row", train=0.7, valid=0.15, test=0.15)
        return ToShard(1, keeps_codes=True)(ReadPieces(source, split)(source.pieces()))

    for day in (1, 2, 3):
        write(day)
    write.held, write.features, write.cache = held, feature_schema(contract), tmp_path / "cache"
    return write


@pytest.fixture
def encoded_rows(monkeypatch):
    """Counts rows that are put into bins, not taken from the cache."""
    seen = []
    honest = binning_module._encode_block
    monkeypatch.setattr(
        binning_module, "_encode_block", lambda block, *rest: (seen.append(len(block)), honest(block, *rest))
    )
    return seen


def model(days, edges, **how):
    made = boost(PARAMETERS, LocalRows(days.held(**how)), sums=LocalSums(), rounds=5, features=days.features,
                 evaluation=("valid",), edges=edges)  # fmt: skip
    return made.model


def test_only_new_and_changed_pieces_are_put_into_bins_and_the_model_is_the_same_as_without_a_cache(days, encoded_rows):
    edges = boost(PARAMETERS, LocalRows(days.held()), sums=LocalSums(), rounds=1, features=days.features).binning
    old = model(days, edges)
    encoded_rows.clear()
    assert model(days, edges) == old
    assert sum(encoded_rows) == 0
    days(4)
    days(2, seed=77)
    changed = model(days, edges)
    assert 0 < sum(encoded_rows) < 800  # train and valid of two days
    assert changed != old
    assert changed == model(days, edges, cache=False)


@pytest.mark.parametrize("harm", ["cut off", "a bit turned", "another piece's", "gone"])
def test_damaged_codes_are_made_anew(days, encoded_rows, harm):
    edges = boost(PARAMETERS, LocalRows(days.held()), sums=LocalSums(), rounds=1, features=days.features).binning
    old = model(days, edges)
    mine, other = sorted(days.cache.rglob("*.train.codes.npz"))[:2]
    content = mine.read_bytes()
    if harm == "cut off":
        mine.write_bytes(content[:-100])
    elif harm == "a bit turned":
        mine.write_bytes(content[:700] + bytes([content[700] ^ 4]) + content[701:])
    elif harm == "another piece's":
        mine.write_bytes(other.read_bytes())
    else:
        mine.unlink()
    encoded_rows.clear()
    assert model(days, edges) == old
    assert 0 < sum(encoded_rows) < 400
    assert all(path.stat().st_mode & 0o077 == 0 for path in days.cache.rglob("*"))


def test_codes_by_other_edges_are_not_used(days):
    edges = boost(PARAMETERS, LocalRows(days.held()), sums=LocalSums(), rounds=1, features=days.features).binning
    model(days, edges)
    moved = replace(edges, edges=[each[::2] if len(each) % 2 else each[1::2] for each in edges.edges])
    assert model(days, moved) == model(days, moved, cache=False)


def test_trees_on_kept_edges_are_stock_xgboosts_on_the_pooled_rows_and_the_same_edges(first):
    parts, kept = first
    more = grown(parts, 100)
    X, label = (np.concatenate(each) for each in zip(*more, strict=True))
    found = one(agreed(more, [kept] * 3))
    assert found.kept
    shard = LocalRows(Shard({"train": Dataset(X, label)}, threads=1))
    ours = boost(PARAMETERS, shard, sums=LocalSums(), rounds=20, features=SCHEMA, edges=found.binning)
    pooled = train_pooled(PARAMETERS, Encoded(X, label, None, np.arange(len(X), dtype=np.uint64)), found.binning, 20,
                          feature_names(), 1)  # fmt: skip
    assert compare_trees(ours.model, pooled, X, "XGBoost").equal


def feature_names():
    return FeatureSchema(columns=COLUMNS, names=tuple(f"x{i}" for i in range(COLUMNS)), types=("float",) * COLUMNS)


@pytest.mark.slow
def test_a_second_run_takes_the_edges_and_codes_of_the_first_and_trains_the_same_model(tmp_path, request):
    source, folder = request.config.rootpath / "examples" / "healthcare", tmp_path / "healthcare"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("var", "data", "__pycache__"))
    runpy.run_path(str(source / "make_hospitals.py"))["write"](folder / "data")
    spec = folder / "pipeline.yaml"
    spec.write_text(spec.read_text().replace("rounds: 60", "rounds: 4\n  edges: kept"))
    pipeline = read_pipeline(spec)

    def run(run_id):
        federation = InProcessFederation(pipeline.members)

        def member(name):
            own = read_organisation(folder / f"{name}.yaml")
            own = own.model_copy(update={"data": own.data.model_copy(update={"cache": str(tmp_path / "cache" / name)})})
            with federation.sums(name) as sums:
                part = OrganisationRun(pipeline, own, sums, RunFolder(tmp_path / "var", run_id), share=3)
                try:
                    part.ingest()
                    part.validate()
                    return part.bin(), part.train()
                finally:
                    part.close()

        try:
            with ThreadPoolExecutor(3) as threads:
                return list(threads.map(member, pipeline.members))
        finally:
            federation.close()

    before, again = run("r-1"), run("r-2")
    assert [binned.kept for binned, _ in before] == [False] * 3
    assert [binned.kept for binned, _ in again] == [True] * 3
    assert len({trained.digest for _, trained in (*before, *again)}) == 1
    assert len(list((tmp_path / "cache").rglob("*.train.codes.npz"))) == 3
    for path in (tmp_path / "var" / "organisations").rglob("edges/*.npz"):
        assert path.stat().st_mode & 0o077 == 0
