"""The live view of a run, drawn from what a run tells."""

import io

from rich.console import Console

from lepton_pipelines.cli.live import LiveView
from lepton_pipelines.organisation.progress import PiecesRead, RowsRead, StageFinished, StageStarted


def drawn(events):
    console = Console(file=io.StringIO(), width=120)
    with LiveView(console, ["north"], noun="organisation", label="malignant", binary=True) as view:
        for event in events:
            view(event)
    return console.file.getvalue()


def test_a_part_that_goes_on_without_a_lost_member_shows_its_rows_once():
    part = [StageStarted("north", "ingest"), RowsRead("north", 214, 0.61, 1), StageFinished("north", "ingest", 1.0)]
    assert drawn([*part, *part]).count("61 %") == 1


def test_rows_that_changed_when_they_were_read_again_are_shown_again():
    told = drawn([RowsRead("north", 214, 0.61, 2), RowsRead("north", 213, 0.62, 2)])
    assert "61 %" in told and "62 %" in told


def test_the_reading_bar_moves_within_an_organisation_and_says_how_much_is_read():
    console = Console(file=io.StringIO(), width=120)
    with LiveView(console, ["harbour", "north"], noun="organisation", label="y", binary=True) as view:
        bar = view._progress
        view(StageStarted("north", "ingest"))
        view(PiecesRead("north", 3, 4, 1_500_000, 2_000_000))
        (task,) = bar.tasks
        assert (task.completed, task.total) == (0.75, 4)
        assert task.fields["detail"] == "north 3 of 4 pieces · 1,500,000 of 2,000,000 rows"
        view(PiecesRead("harbour", 1, 2, 20, None))
        assert task.completed == 1.25
        view(StageFinished("north", "ingest", 1.0))
        view(PiecesRead("north", 4, 4, 2_000_000, 2_000_000))  # late
        assert task.completed == 1.5
