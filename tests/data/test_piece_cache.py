"""The cache: the same rows as without it, only what is new is read, and nothing in it is trusted blindly."""

import pandas as pd
import pytest

from lepton_pipelines.data import preparation
from lepton_pipelines.data.encoding import Gathered
from lepton_pipelines.data.preparation import prepare_pieces
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.errors import UserError


@pytest.fixture
def days(tmp_path, patients):
    """A folder of one file a day."""

    def write(day, frame=None):
        (tmp_path / "days").mkdir(exist_ok=True)
        frame = patients(30, first=1000 * day) if frame is None else frame
        frame.to_parquet(tmp_path / "days" / f"{day}.parquet")

    for day in (1, 2, 3):
        write(day)
    return write


@pytest.fixture
def prepared(tmp_path, organisation, contract, split, monkeypatch):
    """Prepares all days and tells which files were read."""
    read = []
    honest = preparation.prepare

    def counted(source, piece, *args, **options):
        read.append(piece.file.path.rpartition("/")[2])
        return honest(source, piece, *args, **options)

    monkeypatch.setattr(preparation, "prepare", counted)

    def run(*, cache="cache", contract=contract, split=split):
        read.clear()
        options = {} if cache is None else {"cache": str(tmp_path / cache)}
        source = open_source(organisation(tmp_path / "days", **options), contract)
        return list(prepare_pieces(source, source.pieces(), split)), list(read)

    return run


def _bytes(parts):
    sets = {name: Gathered() for name in parts[0].sets}
    for part in parts:
        for name, rows in part.sets.items():
            sets[name].add(rows)
    made = {name: rows.encoded() for name, rows in sets.items()}
    arrays = {name: (r.X.tobytes(), r.label.tobytes(), r.row_id.tobytes()) for name, r in made.items()}
    groups = {name: {g: c.tobytes() for g, c in r.groups.items()} for name, r in made.items()}
    return (
        arrays,
        groups,
        [part.digest for part in parts],
        sum((p.violations for p in parts[1:]), parts[0].violations).missing,
    )


def test_a_second_run_reads_nothing_and_has_the_same_rows(days, prepared):
    plain, _ = prepared(cache=None)
    first, read = prepared()
    assert read == ["1.parquet", "2.parquet", "3.parquet"]
    second, read = prepared()
    assert read == []
    assert _bytes(plain) == _bytes(first) == _bytes(second)


def test_only_new_and_changed_files_are_read(days, prepared, patients):
    prepared()
    days(4)
    days(2, patients(31, first=2000))
    _, read = prepared()
    assert read == ["2.parquet", "4.parquet"]


def test_entries_of_files_that_are_gone_are_deleted(days, prepared, tmp_path):
    prepared()
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 3
    (tmp_path / "days" / "3.parquet").unlink()
    prepared()
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 2


def test_another_contract_or_split_reads_anew(days, prepared, document, split):
    prepared()
    document["schema"][0]["properties"][1]["logicalTypeOptions"]["maximum"] = 101
    assert len(prepared(contract=parse_contract(document))[1]) == 3
    assert len(prepared(split=split.model_copy(update={"salt": "again"}))[1]) == 3


def test_rows_that_break_the_contract_are_told_of_each_time(days, prepared, patients):
    broken = patients(30, first=2000)
    broken.loc[3, "radius"] = -1
    days(2, broken)
    for _ in range(2):
        parts, read = prepared()
        assert sum(part.violations.rejected for part in parts) == 1
        assert "2.parquet" in read


def test_a_damaged_entry_is_read_anew(days, prepared, tmp_path):
    first, _ = prepared()
    entries = sorted((tmp_path / "cache").rglob("*.npz"))
    entries[0].write_bytes(entries[0].read_bytes()[:100])
    spoiled = bytearray(entries[1].read_bytes())
    spoiled[len(spoiled) // 3] ^= 1
    entries[1].write_bytes(spoiled)
    again, read = prepared()
    assert len(read) == 2
    assert _bytes(first) == _bytes(again)


def test_the_cache_is_its_owners_alone(days, prepared, tmp_path):
    prepared()
    for path in (tmp_path / "cache").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_a_cache_that_cannot_be_written_is_refused(days, prepared, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data.cache .*file/cache cannot be written"):
        prepared(cache="file/cache")


def test_windows_into_changed_files_are_computed_anew(tmp_path, organisation, document, split):
    document["schema"][0]["properties"].insert(
        1,
        {
            "name": "time",
            "logicalType": "timestamp",
            "customProperties": [{"property": "lepton", "value": {"role": "time"}}],
        },
    )
    contract = parse_contract(document).with_derived(({"name": "before", "lag": "visits", "before": 1},))

    def write(day, visits):
        times = pd.date_range(f"2026-01-0{day}", periods=20, freq="h")
        frame = {"patient_id": range(100 * day, 100 * day + 20), "time": times, "radius": 1.0, "visits": visits}
        rows = pd.DataFrame({**frame, "stage": "I", "smoker": True, "malignant": [0, 1] * 10})
        (tmp_path / "days").mkdir(exist_ok=True)
        rows.to_parquet(tmp_path / "days" / f"{day}.parquet")

    def run(cache):
        options = {"cache": str(tmp_path / "cache")} if cache else {}
        source = open_source(organisation(tmp_path / "days", **options), contract)
        return _bytes(list(prepare_pieces(source, source.pieces(), split)))

    write(1, 3)
    write(2, 5)
    assert run(cache=True) == run(cache=True) == run(cache=False)
    write(1, 4)
    assert run(cache=True) == run(cache=False)
