"""Delta tables: the rows that count at a version, no others, wherever the table lies."""

import sys

import pandas as pd
import pytest

from lepton_pipelines.data.sources import open_source
from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.errors import UserError

deltalake = pytest.importorskip("deltalake", reason="the extra delta is not installed")


@pytest.fixture
def table(tmp_path, patients):
    """A table in three versions: forty rows, forty more, and all but those of one patient."""
    folder = tmp_path / "table"
    first, second = patients(40), patients(40, first=5001)
    deltalake.write_deltalake(folder, first, partition_by=["stage"])
    deltalake.write_deltalake(folder, second, mode="append")
    deltalake.DeltaTable(folder).delete("patient_id = 4003")
    return folder


def rows(source):
    return pd.concat([source.read(piece) for piece in source.pieces()]).sort_values("patient_id")


def keys(source):
    return set(rows(source)["patient_id"])


def test_deleted_rows_are_not_read_and_a_version_can_be_pinned(table, organisation, contract):
    newest = open_source(organisation(table), contract)
    assert newest.table_version == 2
    assert keys(newest) == ({*range(4001, 4041), *range(5001, 5041)} - {4003})
    first = open_source(organisation(table, delta_version=0), contract)
    assert (first.table_version, keys(first)) == (0, set(range(4001, 4041)))


def test_the_rows_are_those_that_the_library_reads_itself(table, organisation, contract):
    ours = rows(open_source(organisation(table), contract))
    theirs = deltalake.DeltaTable(table).to_pandas().sort_values("patient_id")
    for name in ("patient_id", "radius", "visits", "malignant"):
        pd.testing.assert_series_equal(
            ours[name].reset_index(drop=True), theirs[name].reset_index(drop=True), check_dtype=False
        )
    assert list(ours["stage"].astype(str)) == list(theirs["stage"].astype(str))


def test_a_table_in_s3_is_read_with_the_same_credentials(table, bucket, organisation, contract):
    endpoint, name, filesystem = bucket
    filesystem.put(str(table), f"{name}/table", recursive=True)
    source = open_source(organisation(f"s3://{name}/table", storage={"endpoint": endpoint}), contract)
    assert len(keys(source)) == 79


def test_a_partition_whose_folder_has_an_odd_name_is_found(tmp_path, organisation, document, patients):
    property_ = next(p for p in document["schema"][0]["properties"] if p["name"] == "stage")
    property_["customProperties"][0]["value"]["categories"] = ["no rth", "a/b"]
    frame = patients(40).assign(stage=["no rth", "a/b"] * 20)
    deltalake.write_deltalake(tmp_path / "table", frame, partition_by=["stage"])
    found = rows(open_source(organisation(tmp_path / "table"), parse_contract(document)))
    assert list(found["stage"]) == ["no rth", "a/b"] * 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delta_version": 9}, "cannot be read as a Delta table at data.delta_version 9"),
        ({}, "was cleaned up: name a newer data.delta_version"),
    ],
)
def test_what_cannot_be_read_is_refused(table, organisation, contract, change, message):
    if not change:
        next(table.rglob("*.parquet")).unlink()
        change = {"delta_version": 1}
        for path in table.rglob("*.parquet"):
            path.unlink()
    with pytest.raises(UserError, match=message):
        open_source(organisation(table, **change), contract)


def test_a_table_with_deletion_vectors_is_refused_by_name(tmp_path, organisation, contract, patients):
    deltalake.write_deltalake(
        tmp_path / "table", patients(40), configuration={"delta.enableDeletionVectors": "true"}
    )  # fmt: skip
    if "deletionVectors" not in (deltalake.DeltaTable(tmp_path / "table").protocol().reader_features or []):
        deltalake.DeltaTable(tmp_path / "table").alter.add_feature(
            deltalake.TableFeatures.DeletionVectors, allow_protocol_versions_increase=True
        )
    with pytest.raises(UserError, match=r"is a Delta table that needs deletionVectors.*not supported"):
        open_source(organisation(tmp_path / "table"), contract)


def test_without_the_extra_the_refusal_says_what_to_install(table, organisation, contract, monkeypatch):
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(UserError, match=r'is a Delta table: .*pip install "lepton-pipelines\[delta\]"'):
        open_source(organisation(table), contract)


def test_a_version_of_what_is_no_delta_table_is_refused(tmp_path, organisation, contract, patients):
    patients(40).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"data.delta_version is set, but .* is no Delta table"):
        open_source(organisation(tmp_path, delta_version=1), contract)
