"""What a run leaves on disk: its owner's alone, whole or not at all, and nothing of a run that came to nothing."""

import pytest

from lepton_pipelines.organisation.folder import RunFolder, check_writable
from lepton_pipelines.spec.errors import UserError


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "var", "20261122-030000-7f3a")
    made.create()
    return made


def test_everything_is_the_owner_s_alone(folder):
    folder.write("report.html", "<!doctype html>")
    folder.of("north").write_checkpoint(1, b"trees")
    for path in [folder.path, *folder.path.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_last_two_checkpoints_are_kept(folder):
    north = folder.of("north")
    for rounds in (1, 2, 3, 10):
        north.write_checkpoint(rounds, f"after {rounds}".encode())
    assert north.rounds() == [3, 10]
    assert north.read_checkpoint(10) == b"after 10"


def test_a_file_that_cannot_be_written_leaves_no_part_of_itself(folder):
    (folder.path / "report.html").mkdir()
    with pytest.raises(UserError, match=r"report\.html cannot be written"):
        folder.write("report.html", "text")
    assert [path.name for path in folder.path.iterdir()] == ["report.html"]


def test_a_discarded_run_leaves_nothing_not_even_empty_folders(folder):
    folder.write("pipeline.json", "{}")
    folder.discard()
    assert not folder.var.exists()


def test_discarding_leaves_other_runs_alone(folder):
    other = RunFolder(folder.var, "other")
    other.create()
    folder.discard()
    assert other.path.is_dir()


def test_checking_a_folder_does_not_make_it(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folder_s_place_is_named(tmp_path):
    (tmp_path / "var").write_text("")
    with pytest.raises(UserError, match=r"var is a file, .* Name another with --var"):
        check_writable(tmp_path / "var" / "runs")
