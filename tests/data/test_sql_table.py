"""Rows of a real database are those of a file; what is wrong is said with the place and without the password."""

import sqlite3

import numpy as np
import pytest

from lepton_pipelines.data.encoding import encode
from lepton_pipelines.data.preparation import prepare
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Organisation


@pytest.fixture
def database(tmp_path, patients):
    path = tmp_path / "clinic.sqlite"
    with sqlite3.connect(path) as connection:
        patients(500).sample(frac=1, random_state=2).to_sql("patients", connection, index=False)
    connection.close()
    return f"sqlite:///{path}"


def test_rows_are_those_of_the_table(database, organisation, contract, patients, split, monkeypatch):
    monkeypatch.setattr("lepton_pipelines.data.sql_table.ROWS_A_BLOCK", 120)
    source = open_source(organisation(database, sql={"table": "patients"}), contract)
    (piece,) = source.pieces()
    assert [len(block) for block in source.blocks(piece)] == [120, 120, 120, 120, 20]
    prepared = prepare(source, piece, split)
    assert prepared.violations.found == ()
    rows = np.concatenate([s.X for s in prepared.sets.values()])
    numbers = np.concatenate([s.row_id for s in prepared.sets.values()])
    whole = encode(patients(500), contract)
    np.testing.assert_array_equal(rows[np.argsort(numbers)], whole.X[np.argsort(whole.row_id)])
    assert prepare(source, piece, split).digest == prepared.digest


def test_a_query_may_rename_and_choose(database, organisation, contract):
    query = "select patient_id, radius as size, visits, stage, smoker, malignant from patients where patient_id < 4101;"
    source = open_source(organisation(database, sql={"query": query}, columns={"radius": "size"}), contract)
    assert len(source.read(source.pieces()[0])) == 100


def _refusal(organisation, contract):
    with pytest.raises(UserError) as refused:
        open_source(organisation, contract)
    return str(refused.value)


def test_a_missing_table_column_driver_or_variable_is_named(database, organisation, contract, monkeypatch):
    assert "no such table: patience" in _refusal(organisation(database, sql={"table": "patience"}), contract)
    told = _refusal(organisation(database, sql={"query": "select patient_id from patients"}), contract)
    assert 'column "radius" is missing' in told
    nowhere = organisation("nosuchdb://host/x", sql={"table": "t"})
    assert "SQLAlchemy knows no such database" in _refusal(nowhere, contract)
    locked = organisation("sqlite:////nowhere/x.sqlite", sql={"table": "t", "password": "${CLINIC_PASSWORD}"})
    assert "CLINIC_PASSWORD is not set" in _refusal(locked, contract)
    monkeypatch.setenv("CLINIC_PASSWORD", "hunter2")
    told = _refusal(locked, contract)
    assert told.startswith("harbour: sqlite:////nowhere/x.sqlite")
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"url": "postgresql://me:hunter2@db/clinic", "sql": {"table": "t"}}, "holds a password in its url"),
        ({"url": "postgresql://db/clinic", "sql": {}}, "needs sql.table or sql.query"),
        ({"url": "rows.parquet", "sql": {"table": "t"}}, "its url must be a database's"),
        ({"url": "postgresql://db/c", "sql": {"table": "t"}, "cache": "x"}, "has sql and cache, which is for files"),
        ({"url": "postgresql://db/c", "sql": {"table": "t", "password": "hunter2"}}, "is a secret and must not stand"),
    ],
)
def test_specs_that_mean_nothing_or_tell_a_secret_are_refused(data, why):
    with pytest.raises(ValueError, match=why):
        Organisation.model_validate({"organisation": "harbour", "data": data})
