"""Verification from files alone: what holds is said, whatever was changed is found, the command line tells it."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lepton_pipelines.cli import main
from lepton_pipelines.ledger import evidence
from lepton_pipelines.ledger.commitment import Opening, dataset_document
from lepton_pipelines.ledger.entries import Evaluation, ModelPromoted, ModelPublished, RunJoined, RunOpened
from lepton_pipelines.ledger.errors import LedgerDamaged, LedgerError, ProofRefused
from lepton_pipelines.ledger.lineage import find_commitment, trace
from lepton_pipelines.ledger.note import Signer
from lepton_pipelines.ledger.policy import Policy, read_policy
from lepton_pipelines.ledger.proof import Proof
from lepton_pipelines.ledger.store import LedgerView
from lepton_pipelines.ledger.verification import verify_ledger

A = "a" * 64


@pytest.fixture
def lepton(monkeypatch, capsys):
    """The command line, in this process: arguments → exit code, what was printed, what was complained of."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lepton", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed, complained = capsys.readouterr()
        return SimpleNamespace(returncode=end.value.code or 0, stdout=printed, stderr=complained)

    return run


def proof_of(folder: Path, index: int) -> Proof:
    view = LedgerView(folder)
    return Proof(view.entry(index), index, tuple(view.inclusion_proof(index, view.size)), view.note)


def test_a_ledger_that_was_not_touched_holds_and_says_what_it_proves(written):
    for name in written.names:
        verified = verify_ledger(written.folder / name)
        assert verified.head.size == verified.history.size == 11
        assert any(
            "run r-1: 3 trees, opened to finished, cosigned by harbour, north, valley" in line
            for line in verified.proved
        )
        assert any("told the truth" in line for line in verified.not_proved)
        assert any("the log's key is the true one" in line for line in verified.not_proved)


def changed_bytes(folder: Path, step: int):
    """Change one byte at a time, every `step`-th of every file, and put it back."""
    at = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for position in range(len(whole)):
            at += 1
            if at % step:
                continue
            changed = bytearray(whole)
            changed[position] ^= 1 << (position % 8)
            path.write_bytes(changed)
            yield str(path.relative_to(folder)), position
        path.write_bytes(whole)


def every_change_is_found(written, step):
    folder = written.folder / "north"
    policy = Policy.of(written.log.verifier, [written.keys[name].verifier for name in written.names])
    untouched = verify_ledger(folder, policy=policy).proved
    log_signature = (folder / "checkpoint").read_bytes().index("— ".encode())
    cosignatures = (folder / "checkpoint").read_bytes().index("— ".encode(), log_signature + 1)
    for file, position in changed_bytes(folder, step):
        try:
            proved = verify_ledger(folder, policy=policy).proved
        except LedgerError:
            continue
        # What is left: the folder's policy, for which another was given, and a cosignature that is there twice, in
        # the checkpoint and in heads/11, which are the same head: a line of an unknown key is to be passed over.
        spare = file in {"policy", "heads/11"} or (file == "checkpoint" and position >= cosignatures)
        assert spare, f"{file} byte {position} may be anything"
        assert proved == untouched


def test_any_changed_byte_of_any_file_is_found(written):
    every_change_is_found(written, 61)


@pytest.mark.slow
def test_each_changed_byte_of_every_file_is_found(written):
    every_change_is_found(written, 1)


@pytest.mark.parametrize("path", ["checkpoint", "heads/11", "tile/0/000.p/11", "tile/entries/000.p/11"])
def test_a_missing_file_is_found(written, path):
    (written.folder / "north" / path).unlink()
    if path == "heads/11":
        verify_ledger(written.folder / "north")  # the checkpoint is the same head
        return
    with pytest.raises(LedgerError):
        verify_ledger(written.folder / "north")


@pytest.mark.parametrize("path", ["notes.txt", "tile/0/001", "tile/entries/000.p/12", "tile/2/000", "tile/0/000.p/x"])
def test_a_file_that_does_not_belong_is_found(written, path):
    (written.folder / "north" / path).parent.mkdir(parents=True, exist_ok=True)
    (written.folder / "north" / path).write_bytes(b"x" * 32)
    with pytest.raises(LedgerDamaged, match="does not belong"):
        verify_ledger(written.folder / "north")


def test_a_swapped_head_of_an_earlier_time_is_found(make_federation):
    federation = make_federation()
    federation.admit()
    federation.sequencer.publish()
    for replica in federation.replicas.values():
        replica.store.publish()
    federation.whole_run()
    federation.close()
    folder = federation.folder / "north"
    assert sorted(verify_ledger(folder).heads) == [3, 11]
    shutil.copy(folder / "heads" / "3", folder / "checkpoint")
    with pytest.raises(LedgerError):
        verify_ledger(folder)


def test_a_ledger_that_was_cut_off_holds_but_not_against_another_members(make_federation, lepton):
    federation = make_federation()
    federation.admit()
    for replica in federation.replicas.values():
        replica.store.publish()
    shutil.copytree(federation.folder / "north", federation.folder / "cut")
    federation.whole_run()
    federation.close()
    cut, whole = federation.folder / "cut", federation.folder / "valley"
    assert verify_ledger(cut).head.size == 3
    told = lepton("ledger", "verify", cut, "--against", whole)
    assert told.returncode == 0
    assert "8 entries behind" in told.stdout


def test_two_ledgers_that_one_log_signed_are_held_against_each_other(make_federation, tmp_path, lepton):
    one = make_federation("one")
    one.admit()
    one.whole_run()
    other = make_federation("other", log=one.log, keys=one.keys)
    other.admit()
    other.whole_run(trees=5)
    one.close(), other.close()
    told = lepton("ledger", "verify", one.folder / "north", "--against", other.folder / "north", "--evidence", tmp_path)
    assert told.returncode == 1
    assert "signed different ledgers" in told.stderr
    found = next((tmp_path / "evidence").glob("split-view-*.json"))
    checked = lepton("ledger", "verify", found)
    assert checked.returncode == 0
    assert "cannot be of one log" in checked.stdout


def test_what_the_journal_holds_is_verified_and_named(make_federation):
    federation = make_federation()
    federation.admit()
    federation.replicas["north"].store.publish()
    federation.open_run()
    verified = verify_ledger(federation.folder / "north")
    assert verified.head.size == 7
    assert any("the last 4 entries to others: they are in the journal" in line for line in verified.not_proved)
    assert any("an end of run r-1: it is open" in line for line in verified.not_proved)


def test_a_policy_that_asks_for_more_cosignatures_than_there_are_refuses_the_ledger(written):
    members = [written.keys[name].verifier for name in written.names]
    verify_ledger(written.folder / "north", policy=Policy.of(written.log.verifier, members))
    more = Policy.of(written.log.verifier, [*members, Signer.generate("auditor").verifier])
    with pytest.raises(LedgerDamaged, match="the policy asks for more"):
        verify_ledger(written.folder / "north", policy=more)
    with pytest.raises(ProofRefused, match="not signed by the log's key"):
        verify_ledger(written.folder / "north", policy=Policy(Signer.generate(written.log.name).verifier))


def test_a_proof_holds_by_itself_and_with_any_byte_changed_it_does_not(written):
    policy = read_policy(written.folder / "north" / "policy")
    proof = proof_of(written.folder / "north", 4)
    text = str(proof)
    head, seen_by = Proof.parse(text).check(policy)
    assert (head.size, sorted(seen_by)) == (11, sorted(written.names))
    for at in range(len(text)):
        changed = bytearray(text.encode())
        changed[at % len(changed)] ^= 1
        try:
            Proof.parse(changed.decode()).check(policy)
        except (ProofRefused, UnicodeDecodeError):
            continue
        raise AssertionError(f"byte {at} may be anything")


def test_a_policy_is_read_back_as_it_was_written(written):
    path = written.folder / "north" / "policy"
    assert str(read_policy(path)) == path.read_text()
    assert read_policy(path).quorum == "members"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace("quorum members", ""), "lacks its log line or its quorum"),
        (lambda text: text.replace("quorum members", "quorum others"), "line 6 of the policy is not understood"),
        (lambda text: text + "quorum none\n", "line 7 of the policy is not understood"),
        (lambda text: text.replace("group members all", "group members 4"), "is no threshold"),
        (lambda text: text.replace("harbour north", "harbour harbour", 1), "in two groups"),
        (lambda text: text.replace("witness north", "witness harbour"), "is taken"),
        (lambda text: text + "delegate north\n", "line 7 of the policy is not understood: 'delegate north'"),
    ],
)
def test_a_malformed_policy_is_named_for_what_is_wrong(written, change, reason):
    text = (written.folder / "north" / "policy").read_text()
    with pytest.raises(ProofRefused, match=reason):
        Policy.parse(change(text))


def test_a_policy_with_groups_in_groups_counts_as_the_standard_says(written):
    lines = (written.folder / "north" / "policy").read_text().splitlines()
    policy = Policy.parse(
        "\n".join([*lines[:4], "group two any harbour north", "group all all two valley", "quorum all", ""])
    )
    assert policy.satisfied_by(["harbour", "valley"])
    assert not policy.satisfied_by(["harbour", "north"])
    assert Policy.parse(f"# nobody\n\n{lines[0]}\nquorum none\n").satisfied_by([])


@pytest.fixture
def with_model(make_federation, digest):
    """A ledger in which a run's model was published as m v1 and promoted; openings of north's data."""
    federation = make_federation()
    opening = Opening(dataset_document("north/patients", {"rows": A}, rows=214, contract=A))
    federation.admit()
    common = {"run": "r-1", "manifest": digest("r-1")}
    members = sorted(federation.names)
    federation.run.record(
        RunOpened, by="north", pipeline="demo", members=members, spec=A, code_version="0.1.0", **common
    )
    for name in members:
        dataset = opening.commitment if name == "north" else f"hmac-sha256:{digest(name)}"
        federation.run.record(RunJoined, by=name, dataset=dataset, rows=100, **common)
    federation.tree(1)
    federation.finish_run(1)
    model = digest("r-1 1")
    federation.run.record(Evaluation, by="north", run="r-1", model=model, metrics={"auc": 0.99}, gates={"auc": True})
    version = {"model": "m", "version": 1, "digest": model}
    federation.run.record(ModelPublished, by="north", run="r-1", **version)
    federation.run.record(ModelPromoted, by="north", alias="champion", **version)
    federation.run.checkpoint()
    federation.close()
    return federation, opening, model


def test_a_model_is_traced_to_its_run_its_members_and_their_data(with_model):
    federation, _, model = with_model
    lineage = trace(verify_ledger(federation.folder / "valley"), "m", 1, model, alias="champion")
    told = "\n".join(lineage.proved)
    for part in (
        "north published as m v1", "made champion", "run r-1 of harbour, north, valley", "exactly this file",
        "valley joined with 100 rows", "auc 0.99; 1 of 1 gates passed", "cosigned the ledger after",
    ):  # fmt: skip
        assert part in told


def test_a_model_with_another_digest_than_its_entry_is_refused(with_model):
    federation, _, model = with_model
    verified = verify_ledger(federation.folder / "valley")
    with pytest.raises(ProofRefused, match="m v1 is not the model in the ledger"):
        trace(verified, "m", 1, A)
    with pytest.raises(ProofRefused, match="does not know m v2"):
        trace(verified, "m", 2, model)
    other = trace(verified, "m", 1, model, alias="challenger")
    assert any("in the ledger no version is" in line for line in other.not_proved)


def test_an_owner_can_open_its_commitment_to_an_auditor_and_no_other(with_model, tmp_path, lepton):
    federation, opening, _ = with_model
    opening.save(tmp_path / "opening.json")
    told = lepton("data", "prove", tmp_path / "opening.json", federation.folder / "valley")
    assert told.returncode == 0, told.stderr
    assert "north committed to these data when it joined run r-1" in told.stdout
    assert "rows: 214" in told.stdout
    other = Opening(opening.document | {"rows": 215}, opening.salt)
    with pytest.raises(ProofRefused, match="no commitment"):
        find_commitment(verify_ledger(federation.folder / "valley"), other)


def test_the_command_line_shows_proves_and_verifies(written, tmp_path, lepton):
    north = written.folder / "north"
    shown = lepton("ledger", "show", north, "--from", 3, "--limit", 2)
    assert shown.returncode == 0, shown.stderr
    assert "run-opened" in shown.stdout and "6 more: --from 5" in shown.stdout
    listed = lepton("ledger", "show", north, "--json").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in listed[:4]] == [*["member-admitted"] * 3, "run-opened"]
    proof = tmp_path / "joined.tlog-proof"
    assert lepton("ledger", "prove", north, 4, "--output", proof).returncode == 0
    checked = lepton("ledger", "verify", proof, "--policy", written.folder / "valley" / "policy")
    assert checked.returncode == 0, checked.stderr
    assert "entry 4 of lepton.test/ledger is: run-joined harbour" in checked.stdout
    whole = json.loads(lepton("ledger", "verify", north, "--json").stdout)
    assert whole["holds"] and whole["not_proved"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ledger", "show", "/nowhere"], 2, "there is no such folder"),
        (["ledger", "verify", "/nowhere"], 2, "there is no /nowhere"),
        (["ledger", "prove", "{north}", "99"], 2, "its 11 entries count from 0"),
        (["ledger", "verify", "{north}/checkpoint"], 1, "needs a policy"),
        (["ledger", "verify", "{north}", "--policy", "{north}/checkpoint"], 2, "cannot be used"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_without_a_traceback(written, arguments, code, said, lepton):
    told = lepton(*(each.format(north=written.folder / "north") for each in arguments))
    assert (told.returncode, said in told.stderr) == (code, True), told.stderr
    assert "Traceback" not in told.stderr


def test_a_changed_ledger_fails_on_the_command_line_with_evidence_that_holds(written, tmp_path, lepton):
    bundle = next((written.folder / "north" / "tile" / "entries").rglob("11"))
    data = bytearray(bundle.read_bytes())
    data[100] ^= 1
    bundle.write_bytes(data)
    told = lepton("ledger", "verify", written.folder / "north", "--evidence", tmp_path)
    assert told.returncode == 1
    assert "does not hold" in told.stderr and "a file was changed" in told.stderr
    found = next((tmp_path / "evidence").glob("changed-file-*.json"))
    assert "is not the one" in evidence.check(evidence.load(found)).proved
    assert json.loads(lepton("ledger", "verify", written.folder / "north", "--json").stdout)["holds"] is False


@pytest.mark.slow
def test_a_large_ledger_is_verified_on_all_cores_and_a_forged_signature_in_it_is_found(make_federation):
    federation = make_federation()
    federation.admit()
    federation.open_run()
    for number in range(1, 6001):
        federation.tree(number)
        if number % 500 == 0:
            federation.run.checkpoint()
    federation.finish_run(6000)
    federation.close()
    assert verify_ledger(federation.folder / "north").history.runs.by_id["r-1"].trees == 6000
