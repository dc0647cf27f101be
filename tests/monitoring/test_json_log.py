"""JSON lines: whose they are, and what never stands in them."""

import json
import logging
import threading

import pytest

from lepton_pipelines.monitoring.json_log import JsonLines, also_log_json, log_of_a_service, logged_part
from lepton_pipelines.organisation import progress
from lepton_pipelines.spec.errors import UserError

VALUE = "Miller-4411"


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """A log of JSON lines, and what stands in it."""
    path = tmp_path / "log.jsonl"
    # where a test before has imported Prefect, its handler warns of a line that no flow run says
    monkeypatch.setattr(logging.getLogger("prefect.flow_runs"), "handlers", [])
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    also_log_json(str(path))
    also_log_json(str(path))
    root.setLevel(logging.INFO)
    added = [one for one in root.handlers if isinstance(one.formatter, JsonLines)]
    assert len(added) == 1, "asked twice, it logs once"
    yield lambda: [json.loads(line) for line in path.read_text().splitlines()]
    root.handlers, root.level = before, level
    for name in [one for one, logger in logging.root.manager.loggerDict.items() if isinstance(logger, logging.Logger)]:
        logger = logging.getLogger(name)
        added += [one for one in logger.handlers if isinstance(one.formatter, JsonLines)]
        logger.handlers = [one for one in logger.handlers if one not in added]
    for one in added:
        one.close()


def test_a_parts_steps_and_rounds_are_lines_with_run_and_organisation(lines):
    with logged_part("r-1", "north"):
        progress.tell("r-1", progress.StageStarted("north", "train"))
        progress.tell("r-1", progress.StageStarted("harbour", "train"))
        for number in range(1, 5):
            progress.tell("r-1", progress.RoundFinished("north", number, 4, {}, {}, 10 * number, 0.1 * number))
    told = lines()
    assert {(one["run"], one["organisation"]) for one in told} == {("r-1", "north")}
    assert [one["event"] for one in told] == ["started", "step started", "round", "round", "finished"]
    assert told[3] | {"round": 4, "rounds": 4, "sent_bytes": 40} == told[3]


def test_a_rows_value_in_an_error_is_in_no_line(lines):
    logger = logging.getLogger("lepton_pipelines.data.values")

    def read():
        try:
            float(VALUE)
        except ValueError as error:
            logger.warning("a column could not be read: %s", error)
            logger.exception("reading has failed")
            raise UserError(f"north: row {VALUE} is wrong") from error

    with pytest.raises(UserError), logged_part("r-1", "north"):
        read()
    logging.getLogger("pandas").error(f"could not convert {VALUE}")
    logging.getLogger("prefect.flow_runs").error("Finished in state Failed(%r)", ValueError(VALUE))
    told = lines()
    assert VALUE not in json.dumps(told)
    warning, failed = (one for one in told if one["logger"] == logger.name)
    assert warning["message"] == "a column could not be read: ValueError"
    assert (failed["message"], failed["error"]) == ("reading has failed", "ValueError")
    assert failed["places"][-1].endswith(" read")
    assert [one["level"] for one in told if one["logger"] == "pandas"] == ["error"]
    assert [one["error"] for one in told if one.get("event") == "stopped"] == ["UserError"]


def test_a_thread_of_a_process_with_one_part_speaks_for_it_and_with_two_for_none(lines):
    def work():
        thread = threading.Thread(target=lambda: logging.getLogger("lepton.federation").warning("late"))
        thread.start()
        thread.join()

    with logged_part("r-1", "north"):
        work()
        with logged_part("r-1", "harbour"):
            work()
    one, two = (told for told in lines() if told["logger"] == "lepton.federation")
    assert (one["run"], one["organisation"]) == ("r-1", "north")
    assert "organisation" not in two


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match="--log-json"):
        log_of_a_service(str(tmp_path / "no-such-folder" / "log.jsonl"))
