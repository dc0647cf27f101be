"""The list of faults, by number, each with what must come of it: the fault-free model, or an abort that names why.

Faults of the protocol run under the simulator, with sums that travel whole and with those that the hub adds up; what
processes, certificates and messages do is in `tests/faults`, `test_network.py`, `test_fuzz.py` and `tests/identity`.
"""

import errno
import os
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lepton_pipelines as lp
from lepton_pipelines.federation import journal as journal_module
from lepton_pipelines.federation.announcement import Announcement
from lepton_pipelines.federation.effects import Commitment, TotalHeld
from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.federation.journal import JournalFailedError, RunJournal
from lepton_pipelines.federation.keys import mask_keys
from lepton_pipelines.federation.proposal import differences, proposed_manifest
from lepton_pipelines.federation.secure_sum import SecureSumError, add_up, lay_out, mask, unmask
from lepton_pipelines.identity.hub_home import HubHome
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.spec.pipeline import read_pipeline
from lepton_pipelines.sums import BoundExceeded

ROOT = Path(__file__).parents[2]

NAMES = ("harbour", "north", "valley")
WHOLE, NOT_LOGGED, ADDED_UP = 2, 4, 1  # seeds: the simulator lets sums of even ones travel whole


@pytest.fixture(params=[WHOLE, NOT_LOGGED, ADDED_UP], ids=["shown whole", "not logged", "added up by the hub"])
def run(request, simulator):
    """Run one schedule that has these faults and no others; returns the simulation and how each member ended."""

    def run_(**faults):
        world = simulator.Simulation(request.param)
        quiet = simulator.Schedule(0, 0, 0.01, [], [], None, None, 0.001, None, None, None, None)
        world.schedule = replace(quiet, **faults)
        with simulator.masks_watched():
            ends = world.run()
        world.model = simulator.fault_free_model(world.names)
        return world, ends

    return run_


def all_have_the_model(world, ends):
    assert ends == dict.fromkeys(NAMES, world.model)


def all_aborted(ends, *causes):
    for end in ends.values():
        assert end.startswith("aborted: ") and any(cause in end for cause in causes), end


@pytest.mark.parametrize("when", [0.02, 0.1, 0.3])
def test_fault_1_an_organisation_is_killed_and_comes_back(run, when):
    all_have_the_model(*run(member_crashes=[(when, "valley", 5.0)]))


def test_fault_1_an_organisation_comes_back_with_other_rows(run):
    world, ends = run(member_crashes=[(0.1, "valley", 5.0)], rows_change="valley")
    assert world.processes["valley"].restarts == 1 and world.processes["valley"].disk.commitments
    all_aborted(ends, "with other numbers. The rows changed in between", "another total: a member changed its rows")


@pytest.mark.parametrize("when", [0.02, 0.1, 0.3])
def test_fault_2_the_hub_is_killed_in_mid_sum(run, when):
    all_have_the_model(*run(hub_crashes=[(when, 3.0)]))


def test_fault_4_and_5_messages_and_answers_are_lost_and_come_twice(run):
    all_have_the_model(*run(loss=0.2, duplicates=0.5))


def test_fault_6_messages_come_in_another_order(run):
    all_have_the_model(*run(delay=20.0, duplicates=0.5))


def test_fault_7_a_partition_shorter_than_the_grace_time(run):
    world, ends = run(partition=(0.05, 120.0, "north"))
    all_have_the_model(world, ends)
    assert world.hub.epoch == 1


def test_fault_7_a_partition_longer_than_the_grace_time(run):
    all_have_the_model(*run(partition=(0.05, 2000.0, "north")))  # suspended, then resumed by the same members


def test_fault_8_an_organisation_is_100_times_slower(run):
    all_have_the_model(*run(slow="valley", delay=0.2))


@pytest.mark.parametrize("lie", ["drops a member", "invents a member"])
def test_fault_10_the_hub_drops_or_invents_a_member(run, lie):
    world, ends = run(lie=lie)
    assert world.lied
    all_aborted(ends, "the hub left out harbour", "is not a member of run")


@pytest.mark.parametrize("lie", ["+1", "+2^39", "two totals", "swaps"])
def test_fault_11_the_hub_alters_a_total(run, lie):
    # a change of 2^63 needs cells of eight bytes: test_secure_sum.py
    world, ends = run(lie=lie)
    assert world.lied
    all_aborted(
        ends,
        "is not the sum of what the members sent",
        "the hub gave",
        "other bytes of",
        "can reach",
        "has other bytes",
    )


def test_fault_11_a_change_that_is_chosen_after_the_challenge_meets_signed_transcripts(run):
    world, ends = run(lie="forges")
    if world.manifest.dimensions.whole:
        all_aborted(ends, "did not sign the upload")
    else:
        all_aborted(ends, "did not sign the transcript", "did not make", "is malformed")


def test_fault_12_an_organisation_holds_another_model_state(run):
    _, ends = run(other_state="north")
    all_aborted(ends, "north is at the state 0000000000000000")


def test_fault_12_masks_that_do_not_cancel_show_in_the_zero_words():
    secrets = {frozenset(pair): os.urandom(32) for pair in (NAMES[:2], NAMES[1:], NAMES[::2])}
    group, layout = os.urandom(32), lay_out(10, 1 << 40, 3)
    sum_ = Announcement("r", 0, "s", (10,), 1 << 40, b"", NAMES)
    cells = []
    for name in NAMES:
        pairs = {other: secrets[frozenset((name, other))] for other in NAMES if other != name}
        if name == "valley":
            pairs["north"] = os.urandom(32)
        keys = mask_keys(name, pairs, group, sum_)
        cells.append(mask(np.arange(10), layout, add=keys.add, subtract=keys.subtract))
    with pytest.raises(SecureSumError, match="a word whose true total is zero is not zero"):
        unmask(add_up(cells), layout, subtract=keys.group, shape=(10,), bound=1 << 40, members=3)


def test_fault_13_a_statement_of_an_earlier_step_is_replayed(run):
    world, ends = run(lie="replays")
    if world.lied:
        all_aborted(ends, "statement of another step")


def test_fault_14_the_disk_of_an_organisation_fails(run):
    _, ends = run(disk_fails=(0.05, "north"))
    all_aborted(ends, "north cannot write: no space left on device")


COMMITMENT = Commitment(0, "s", (3,), 9, b"", bytes(16), bytes(16))


def test_fault_14_a_full_disk_takes_no_commitment(tmp_path):
    journal = RunJournal(tmp_path / "run")
    (pages,) = journal._database.execute("PRAGMA page_count").fetchone()
    journal._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalFailedError, match="database or disk is full"):
        journal.write_small([TotalHeld(0, np.zeros(50_000, np.int64)), COMMITMENT])
    assert journal.commitment("s") is None and journal.done == 0
    journal.close()


def test_fault_14_an_fsync_that_fails_keeps_no_total(tmp_path, monkeypatch):
    journal = RunJournal(tmp_path / "run")

    def failing(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(journal_module.os, "fsync", failing)
    with pytest.raises(JournalFailedError, match="Input/output error"):
        journal.write_total(TotalHeld(0, np.arange(3)))
    assert journal.done == 0 and journal.total(0) is None
    journal.close()


def test_fault_14_a_folder_that_cannot_be_written_is_said_before_anything_is_sent(tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(JournalFailedError, match="cannot be written"):
        RunJournal(tmp_path / "run")
    read_only = RunJournal(tmp_path / "other")
    read_only._database.execute("PRAGMA query_only = ON")
    with pytest.raises(JournalFailedError, match="attempt to write a readonly database"):
        read_only.write_small([COMMITMENT])
    read_only.close()


def test_a_total_that_rotted_on_disk_is_not_taken_for_one(tmp_path):
    journal = RunJournal(tmp_path / "run")
    journal.write_small([TotalHeld(0, np.arange(3))])
    journal.write_total(TotalHeld(1, np.arange(4)))
    np.testing.assert_array_equal(journal.total(0), np.arange(3))
    np.testing.assert_array_equal(journal.total(1), np.arange(4))
    journal.close()
    with sqlite3.connect(tmp_path / "run" / "journal.sqlite") as database:
        (kept,) = database.execute("SELECT total FROM totals").fetchone()
        database.execute("UPDATE totals SET total = ?", (kept[:-1] + b"\x07",))
    database.close()
    path = tmp_path / "run" / "totals" / "0000000001.total"
    path.write_bytes(path.read_bytes()[:-1])
    again = RunJournal(tmp_path / "run")
    assert again.done == 2 and again.total(0) is None and again.total(1) is None
    again.close()


def test_fault_17_a_manifest_for_another_contract_or_pipeline_is_refused(tmp_path):
    path = tmp_path / "healthcare"
    shutil.copytree(ROOT / "examples" / "healthcare", path, ignore=shutil.ignore_patterns("var", "data", "__pycache__"))
    mine = read_pipeline(path / "pipeline-hub.yaml")
    homes = {name: OrganisationHome.create(tmp_path / name, name) for name in NAMES}
    hub = HubHome.create(tmp_path / "hub", "localhost:7443")
    asked = homes["north"].request()
    admission = hub.admit(asked, fingerprint=asked.fingerprint)
    homes["north"].accept(admission.model_dump_json().encode(), fingerprint=hub.fingerprint)
    for name in ("harbour", "valley"):
        request = homes[name].request()
        homes["north"].trust(request.model_dump_json().encode(), fingerprint=request.fingerprint)
    hub.close()
    proposed = proposed_manifest(mine, homes["north"], "r-1")
    assert differences(proposed, mine, "valley") == []
    assert differences(proposed, mine, "valley", "watch") == ["it is a training, not a watch"]
    (other_code,) = differences(proposed.model_copy(update={"code": "0.0.9"}), mine, "valley")
    assert "it is for lepton-pipelines 0.0.9, and here is" in other_code
    assert "pip install lepton-pipelines==0.0.9" in other_code

    contract = path / "contract.odcs.yaml"
    contract.write_text(
        contract.read_text().replace(
            "name: mean_area\n        logicalType: number", "name: mean_area\n        logicalType: integer"
        )
    )
    found = differences(proposed, read_pipeline(path / "pipeline-hub.yaml"), "valley")
    assert any("its contract is not the one that stands here" in one for one in found)

    (path / "pipeline-hub.yaml").write_text(
        (path / "pipeline-hub.yaml").read_text().replace("max_depth: 4", "max_depth: 6")
    )
    found = differences(proposed, read_pipeline(path / "pipeline-hub.yaml"), "valley")
    assert any("its parameters are not those of the pipeline that stands here" in one for one in found)


def rows(kind, count):
    """A shard's rows and labels: as usual, constant, or of one class."""
    random = np.random.default_rng(len(kind) + count)
    features = random.normal(size=(count, 4)).astype(np.float32)
    label = (features[:, 0] + random.normal(size=count) > 0).astype(np.float32)
    if kind == "constant":
        features[:] = 1.5
    if kind == "one class":
        label[:] = 1.0
    return features, label


@pytest.mark.parametrize("odd", ["empty", "constant", "one class"])
def test_fault_18_an_empty_constant_or_one_class_shard_gives_the_pooled_model(odd):
    shards = [rows("usual", 300), rows("usual", 200), rows(odd, 0 if odd == "empty" else 150)]
    parameters = {"objective": "binary:logistic", "max_depth": 3}
    edges = [np.linspace(-3, 3, 32).astype(np.float32)] * 4
    together = [np.concatenate(parts) for parts in zip(*shards, strict=True)]
    pooled = lp.train(parameters, lp.Dataset(*together), 5, edges=edges, verbose_eval=False)
    federated = lp.simulate(parameters, [lp.Dataset(*shard) for shard in shards], 5, edges=edges, verbose_eval=False)
    assert federated.save_raw("ubj") == pooled.save_raw("ubj")


def test_fault_19_a_value_beyond_the_bound_is_refused_at_home():
    federation = InProcessFederation(NAMES)
    with pytest.raises(BoundExceeded, match=r"1 of 3 values are beyond the bound 9"):
        federation.sums("north").start("s", np.array([0, 10, 0]), bound=9)
    federation.close()
