"""What goes from the hub's log when its days are over, and what stays: how runs ended, evidence, and runs under way."""

import json
import sqlite3
import time
from contextlib import closing

import numpy as np
import pytest
from typer.testing import CliRunner

from lepton_pipelines.cli.app import app
from lepton_pipelines.federation.envelope import Author, Slot
from lepton_pipelines.federation.hub_log import HubLog
from lepton_pipelines.federation.hub_outputs import Keep
from lepton_pipelines.federation.hub_retention import clear_log
from lepton_pipelines.federation.runs import propose
from lepton_pipelines.federation.wire import federation_pb2 as wire

DAY = 86400.0


def part(sums):
    sums.sum("s", np.arange(500), bound=1_500)
    sums.finish(b"model")
    return "finished"


@pytest.fixture
def served(hub_of_three):
    """A hub with a run that is finished and one that invites; it is stopped."""
    standing = hub_of_three.manifest.model_copy(update={"run": "standing"})
    propose(standing, hub_of_three.homes["north"], address=f"localhost:{hub_of_three.port}")
    assert hub_of_three.everywhere(part) == ["finished"] * 3
    hub_of_three.stop()
    return hub_of_three


def kinds(log, run):
    return [one.envelope.kind if one.envelope is not None else one.state for one in log.records(run)]


def cleared(log, days=30, after=31):
    return {one.run: one for one in clear_log(log, days=days, now=time.time() + after * DAY)}


def test_of_a_run_that_is_over_only_its_end_is_left_and_one_under_way_is_left_alone(served):
    with closing(HubLog(served.hub.folder)) as log:
        before = kinds(log, "standing")
        masked = [one.data for one in log.records("r-7f3a") if one.data]
        assert masked and all(len(vector) >= 500 for vector in masked)
        assert cleared(log, after=29) == {}
        (one,) = cleared(log).values()
        assert (one.run, one.bytes > sum(map(len, masked))) == ("r-7f3a", True)
        assert kinds(log, "r-7f3a") == [wire.KIND_MANIFEST] * 3 + [wire.KIND_FINISH] * 3 + ["finished"]
        assert kinds(log, "standing") == before
        assert cleared(log) == {}
    kept = b"".join(path.read_bytes() for path in served.hub.folder.glob("hub.sqlite*"))
    assert not any(vector[:64] in kept for vector in masked)


def test_who_comes_late_to_a_run_that_was_cleared_is_told_how_it_ended_and_nobody_takes_its_id(served):
    with closing(HubLog(served.hub.folder)) as log:
        assert cleared(log)
    served.serve()
    with closing(served.connect("valley")) as connection:
        assert connection.look("r-7f3a").status == "finished"
        with pytest.raises(Exception, match="exists with another manifest"):
            connection.propose(served.manifest.model_copy(update={"spec": "22" * 32}))
    sums = served.join("valley")
    sums.wait_until_ready(30)
    assert sums.sum("s", np.arange(500), bound=1_500).tolist() == (3 * np.arange(500)).tolist()
    sums.finish(b"model")


def test_evidence_stays_with_what_it_contradicts(served):
    slot = Slot(1, wire.KIND_KEYS, 0)
    with closing(HubLog(served.hub.folder)) as log:
        (first,) = [
            one.envelope
            for one in log.records("r-7f3a")
            if one.envelope is not None and (one.envelope.kind, one.envelope.member) == (wire.KIND_KEYS, "valley")
        ]
        second = Author("r-7f3a", "valley", served.homes["valley"].signer()).state(slot, b"other keys")
        log.carry_out([Keep("r-7f3a", second, evidence=True)])
        assert cleared(log)
        keys = [one.envelope for one in log.records("r-7f3a") if one.envelope and one.envelope.kind == wire.KIND_KEYS]
    assert keys == [first, second]


def test_a_log_of_before_begins_to_count_when_it_is_opened(served):
    with closing(sqlite3.connect(served.hub.folder / "hub.sqlite")) as database:
        database.execute("ALTER TABLE runs DROP COLUMN ended")
    with closing(HubLog(served.hub.folder, clock=lambda: 5e9)) as log:
        assert log.ends() == {"r-7f3a": 5e9, "standing": None}


def test_the_command_takes_the_days_from_the_hubs_settings(served):
    def clear(*options):
        return CliRunner().invoke(app, ["hub", "clear", "--home", str(served.hub.folder), *options])

    assert "does not say how long runs are kept" in str(clear().exception)
    settings = served.hub.folder / "hub.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "kept_days": 30}))
    assert clear().output == "no run was over for 30 days\n"
    with closing(sqlite3.connect(served.hub.folder / "hub.sqlite")) as database, database:
        database.execute("UPDATE runs SET ended = ended - ?", (31 * DAY,))
    assert clear().output.startswith("  run r-7f3a: ")
    settings.write_text(json.dumps({"address": "localhost:1", "kept_days": "long"}))
    assert "kept_days is 'long'; write a number of days" in str(clear().exception)
