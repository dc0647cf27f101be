"""A piece made ready: split, clean, digested; what is set aside stays at home in a file."""

import numpy as np
import pandas as pd
import pytest

from lepton_pipelines.data.lineage import dataset_digest, piece_digest
from lepton_pipelines.data.preparation import prepare
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.data.splits import SETS, assign
from lepton_pipelines.data.validation import read
from lepton_pipelines.spec.errors import UserError


@pytest.fixture
def broken(patients):
    frame = patients()
    frame.loc[3, "radius"] = -1
    frame.loc[5, "stage"] = "IV"
    frame.loc[5, "radius"] = 1e9
    return frame


def _prepare(folder, organisation, contract, split, **options):
    source = open_source(organisation(folder / "p.parquet"), contract)
    (piece,) = source.pieces()
    return prepare(source, piece, split, **options)


def test_sets_are_every_good_row_once(tmp_path, organisation, contract, split, broken):
    broken.to_parquet(tmp_path / "p.parquet")
    prepared = _prepare(tmp_path, organisation, contract, split)
    assert list(prepared.sets) == ["train", "valid", "test"]
    assert sum(len(s) for s in prepared.sets.values()) == 38
    assert prepared.violations.rejected == 2


def test_what_is_set_aside_is_written_with_its_reason(tmp_path, organisation, contract, split, broken):
    broken.to_parquet(tmp_path / "p.parquet")
    home = tmp_path / "quarantine"
    for _ in range(2):
        _prepare(tmp_path, organisation, contract, split, quarantine=home)
    (file,) = home.iterdir()
    aside = pd.read_parquet(file)
    assert aside["patient_id"].tolist() == [4004, 4006]
    assert aside["row"].tolist() == [4, 6]
    assert aside["reason"].tolist() == ["radius: range", "stage: category; radius: range"]
    assert home.stat().st_mode & 0o077 == 0


def test_a_quarantine_that_cannot_be_written_is_refused(tmp_path, organisation, contract, split, broken):
    broken.to_parquet(tmp_path / "p.parquet")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="harbour: quarantined rows cannot be written to"):
        _prepare(tmp_path, organisation, contract, split, quarantine=tmp_path / "file" / "q")


def test_the_digest_is_of_the_content_not_the_path_or_format(tmp_path, organisation, contract, split, patients):
    digests = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        patients().to_parquet(tmp_path / name / "p.parquet", compression="gzip" if name == "a" else "snappy")
        digests.add(_prepare(tmp_path / name, organisation, contract, split).digest)
    assert len(digests) == 1
    changed = patients()
    changed.loc[7, "radius"] = 50.5
    changed.to_parquet(tmp_path / "p.parquet")
    assert _prepare(tmp_path, organisation, contract, split).digest not in digests


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.iloc[::-1].reset_index(drop=True),
        lambda f: f.rename(columns={"radius": "size"}),
        lambda f: f.assign(stage=f["stage"].replace({"I": "II"})),
        lambda f: f.assign(radius=f["radius"].fillna(0)),
        lambda f: f.iloc[:-1],
    ],
    ids=["order", "name", "category", "missing", "length"],
)
def test_any_change_changes_a_pieces_digest(patients, change):
    assert piece_digest(patients()) != piece_digest(change(patients()))


def test_a_writers_choice_of_width_changes_no_digest(patients):
    narrow = patients().astype({"visits": "int8", "stage": "category"})
    assert piece_digest(narrow) == piece_digest(patients())


def test_the_whole_digest_does_not_depend_on_the_order_of_pieces():
    pieces = [b"a" * 32, b"b" * 32, b"c" * 32]
    assert dataset_digest(pieces) == dataset_digest(reversed(pieces))
    assert dataset_digest(pieces) != dataset_digest(pieces[:2])


def test_a_category_that_only_held_out_rows_have_keeps_its_code(tmp_path, organisation, contract, split, patients):
    frame = patients(200)
    sets = assign(read(frame, contract).values, split, contract)
    frame["stage"] = np.where(sets == SETS.index("test"), "III", np.where(frame.index % 2, "I", "II"))
    frame.to_parquet(tmp_path / "p.parquet", index=False)
    source = open_source(organisation(tmp_path), contract)
    ready = prepare(source, source.pieces()[0], split)
    place = contract.feature_names.index("stage")
    assert set(ready.sets["train"].X[:, place]) == {0.0, 1.0}
    assert set(ready.sets["test"].X[:, place]) == {2.0}
    assert ready.violations.problems(contract, organisation="harbour", on_violation="refuse") == []
