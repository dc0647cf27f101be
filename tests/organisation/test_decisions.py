"""A run that did not end, and a person's decisions, in the ledger of runs in one process."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.run_ledger import RunLedger
from lepton_pipelines.ledger.statement import read_entry
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.organisation.decisions import record_decision, record_stopped
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.recording import admit, open_ledger
from lepton_pipelines.registry.promotion import Decision
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import read_pipeline

ROOT = Path(__file__).parents[2]
MEMBERS = ["harbour", "north", "valley"]
DIGEST = "ab" * 32


@pytest.fixture
def run(tmp_path):
    for file in (ROOT / "examples/healthcare").glob("*.yaml"):
        shutil.copy(file, tmp_path)
    return SimpleNamespace(
        pipeline=read_pipeline(tmp_path / "pipeline.yaml"), folder=RunFolder(tmp_path / "var", "r-1")
    )


def told(run):
    return verify_ledger(run.folder.var / "ledger" / "valley")


def test_a_run_that_was_stopped_is_suspended_in_the_ledger_without_the_errors_text(run):
    record_stopped(run.pipeline, run.folder, KeyError("patient 4411"), {"north": 7, "valley": 6})
    record_stopped(run.pipeline, run.folder, KeyError("patient 4411"), {"north": 7, "valley": 6})
    verified = told(run)
    assert verified.history.runs.by_id["r-1"].state == "suspended"
    kinds = [read_entry(leaf) for leaf in verified.view.entries()]
    (suspended,) = [entry.predicate for entry in kinds if entry.kind == "run-suspended"]
    assert suspended.reason == "stopped after round 6 (KeyError)"


def test_a_policys_refusal_is_noted_by_its_clause(run):
    with open_ledger(run.folder.var, MEMBERS) as (sequencer, _, signers):
        admit(sequencer, signers)
        sequencer.sign_head()
    error = UserError(["harbour: policy.max_depth is 3, training.max_depth is 4.", "north: data/north is empty."])
    record_stopped(run.pipeline, run.folder, error, {})
    (refused,) = [e.predicate for e in map(read_entry, told(run).view.entries()) if e.kind == "policy-refused"]
    assert (refused.author.organisation, refused.clause) == ("harbour", "max_depth")


def test_what_is_refused_at_first_sight_leaves_no_files_behind(run):
    record_stopped(run.pipeline, run.folder, UserError("harbour: policy.max_depth is 3."), {})
    assert not run.folder.var.exists()


def test_a_persons_decisions_move_the_champion_in_the_ledger_too(run):
    var, manifest = run.folder.var, DIGEST
    with open_ledger(var, MEMBERS) as (sequencer, replicas, signers):
        admit(sequencer, signers)
        ledger = RunLedger(sequencer, replicas, signers)
        for number in (1, 2):
            name = f"r-{number}"
            ledger.record(
                entries.RunOpened, by="north", run=name, pipeline="p", members=MEMBERS, manifest=manifest,
                spec=DIGEST, code_version="1",
            )  # fmt: skip
            for member in MEMBERS:
                ledger.record(
                    entries.RunJoined, by=member, run=name, manifest=manifest, dataset=f"hmac-sha256:{DIGEST}"
                )
            ledger.record(entries.RunFinished, by="north", run=name, manifest=manifest, trees=1, model=DIGEST)
            ledger.record(entries.ModelPublished, by="north", model="m", version=number, run=name, digest=DIGEST)
        ledger.record(entries.ModelPromoted, by="north", model="m", version=1, alias="champion", digest=DIGEST)
        ledger.checkpoint()
    made = Decision("m", "2", "champion", "2", "better for children")
    assert record_decision(var, made) is not None
    assert record_decision(var, made) is None
    back = Decision("m", "1", "champion", "1", "rolled back: it was not")
    assert record_decision(var, back) is not None
    assert told(run).history.runs.aliases["m", "champion"] == 1
    assert record_decision(var, Decision("unknown", "1", "champion", "1", "")) is None
