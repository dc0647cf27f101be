"""Bad days: heads that disagree, logs that shrink, members that are away, full disks, forged entries."""

import json
import resource
import shutil
import threading
from contextlib import contextmanager

import pytest

from lepton_pipelines.ledger import evidence
from lepton_pipelines.ledger.checkpoint import Checkpoint
from lepton_pipelines.ledger.entries import RunFinished, TreeFinished
from lepton_pipelines.ledger.errors import (
    EntryRefused,
    LedgerDamaged,
    LedgerError,
    LedgerForked,
    ProofRefused,
    ReplicaBehind,
    StorageRefused,
    WitnessSilent,
)
from lepton_pipelines.ledger.merkle import leaf_hash
from lepton_pipelines.ledger.note import Note, Signer, cosign, cosigners
from lepton_pipelines.ledger.predicate import fresh
from lepton_pipelines.ledger.replica import Extension
from lepton_pipelines.ledger.run_ledger import RunLedger
from lepton_pipelines.ledger.sequencer import Sequencer
from lepton_pipelines.ledger.statement import sign_entry
from lepton_pipelines.ledger.verification import verify_ledger

A = "a" * 64


@pytest.fixture
def running(federation):
    """A run is under way: everybody has joined."""
    federation.admit()
    federation.open_run()
    return federation


def signed_head(federation, leaves):
    """Sign, with the log's own key, a head over these leaves: what a log that lies would do."""
    frontier = federation.sequencer.store.edge.frontier.__class__()
    for leaf in leaves:
        frontier.append(leaf_hash(leaf))
    return Checkpoint(federation.log.name, frontier.size, frontier.root()).sign(federation.log)


def another_tree(federation, number=1, model=A):
    north = federation.keys[federation.names[0]]
    common = fresh(north.name, north.verifier.key_id, federation.log.name)
    return sign_entry(TreeFinished(**common, run="r-1", tree=number, model=model, check="passed"), [north])


def checked(forked):
    """What a third party, who has nothing but the file, makes of the evidence."""
    return evidence.check(evidence.load(forked.value.evidence))


def test_a_head_counts_when_every_member_has_cosigned_it(running):
    running.tree(1)
    note = running.run.checkpoint()
    verifiers = [running.keys[name].verifier for name in running.names]
    assert sorted(cosigners(note, verifiers)) == sorted(running.names)
    assert {replica.size for replica in running.replicas.values()} == {running.sequencer.size}
    assert len({replica.store.root for replica in running.replicas.values()}) == 1
    assert str(running.replicas["valley"].store.note) == str(note)


def test_two_heads_of_one_size_that_disagree_stop_the_run_and_convict_the_log(running):
    valley, leaves = running.replicas["valley"], list(running.sequencer.store.entries())
    running.tree(1)
    running.run.checkpoint()
    other = signed_head(running, [*leaves, another_tree(running)])
    with pytest.raises(LedgerForked, match="signed two heads that disagree") as forked:
        valley.extend(Extension(len(leaves), (another_tree(running),), str(other)))
    assert "cannot be of one log" in checked(forked).proved
    with pytest.raises(ProofRefused, match="not about"):
        evidence.check(evidence.load(forked.value.evidence), Signer.generate(running.log.name).verifier)


def test_a_shorter_head_of_another_history_convicts_the_log_too(running):
    leaves = list(running.sequencer.store.entries())
    for number in (1, 2, 3):
        running.tree(number)
    running.run.checkpoint()
    other = signed_head(running, [*leaves, another_tree(running)])
    with pytest.raises(LedgerForked, match="disagree") as forked:
        running.replicas["north"].extend(Extension(len(leaves), (), str(other)))
    assert "cannot be of one log" in checked(forked).proved
    with pytest.raises(LedgerForked):
        running.replicas["harbour"].compare(str(other))


def test_a_shortened_log_stops_the_run(running):
    before = running.sequencer.store.note
    running.tree(1)
    running.run.checkpoint()
    with pytest.raises(LedgerForked, match="it was shortened") as forked:
        running.replicas["north"].extend(Extension(0, (), str(before)))
    finding = checked(forked)
    assert "is not its newest" in finding.proved
    assert "withheld 1 entries" in finding.not_proved


def test_entries_that_do_not_lead_to_the_head_are_not_cosigned(running):
    running.tree(1)
    note = running.sequencer.sign_head()
    first = running.replicas["north"].size
    with pytest.raises(LedgerForked, match="do not lead to it") as forked:
        running.replicas["north"].extend(Extension(first, (another_tree(running),), str(note)))
    assert "do not lead to the head" in checked(forked).proved
    running.run.checkpoint()


@pytest.mark.parametrize("kind", ["split-view", "shortened", "foreign-entries"])
def test_evidence_with_anything_changed_convinces_nobody(running, kind):
    leaves, before = list(running.sequencer.store.entries()), running.sequencer.store.note
    running.tree(1)
    note = running.sequencer.sign_head()
    running.run.checkpoint()
    north, size = running.replicas["north"], len(leaves) + 1
    other = signed_head(running, [*leaves, another_tree(running)])
    longer = signed_head(running, [*leaves, another_tree(running), another_tree(running, 2)])
    extension = {
        "split-view": Extension(size, (), str(other)),
        "shortened": Extension(0, (), str(before)),
        "foreign-entries": Extension(size, (another_tree(running, 2),), str(longer)),
    }[kind]
    with pytest.raises(LedgerForked) as forked:
        north.extend(extension)
    genuine = json.loads(forked.value.evidence.read_bytes())
    evidence.check(evidence.load(forked.value.evidence))
    # What was sent is the finder's word: other entries that do not lead to the head are as good.
    for name in genuine.keys() - {"summary", "found_by", "time", "format", "kind", "log", "entries"}:
        value = genuine[name]
        if isinstance(value, str):
            changed = genuine | {name: value.replace("A", "B").replace("e", "f")}
        else:
            changed = genuine | {name: value[:-1]} if value else genuine | {name: ["00" * 32]}
        path = forked.value.evidence.with_name("changed.json")
        path.write_text(json.dumps(changed))
        with pytest.raises((ProofRefused, LedgerError)):
            evidence.check(evidence.load(path))
    assert note.text == running.sequencer.store.note.text


def test_two_heads_that_agree_are_no_evidence(running):
    note = str(running.sequencer.store.note)
    common = evidence.common(running.log.verifier, "north", "nothing")
    with pytest.raises(ProofRefused, match="no evidence of anything"):
        evidence.check(evidence.SplitView(**common, smaller=note, larger=note))
    with pytest.raises(ProofRefused, match="no evidence"):
        evidence.check(evidence.Shortened(**common, seen=note, presented=note))


def test_an_entry_that_breaks_a_rule_is_refused_by_the_log_and_by_every_replica(running):
    forged = another_tree(running, number=7)
    with pytest.raises(EntryRefused, match="the next is 1, not 7"):
        running.sequencer.submit(forged)
    leaves = list(running.sequencer.store.entries())
    note = signed_head(running, [*leaves, forged])
    size = running.replicas["north"].size
    with pytest.raises(EntryRefused, match="the next is 1, not 7"):
        running.replicas["north"].extend(Extension(size, (forged,), str(note)))
    assert running.replicas["north"].size == size
    running.tree(1)
    running.run.checkpoint()


def test_a_replayed_entry_is_refused_by_every_replica(running):
    leaves = list(running.sequencer.store.entries())
    note = signed_head(running, [*leaves, leaves[-1]])
    with pytest.raises(EntryRefused, match="replay"):
        running.replicas["valley"].extend(Extension(len(leaves), (leaves[-1],), str(note)))


def test_a_head_that_the_log_did_not_sign_is_refused(running):
    impostor = Signer.generate(running.log.name)
    note = Checkpoint(impostor.name, 99, bytes(32)).sign(impostor)
    with pytest.raises(ProofRefused, match="not signed by the log's key"):
        running.replicas["north"].extend(Extension(0, (), str(note)))


def test_a_member_refuses_an_entry_that_misstates_its_own_part(make_federation, digest):
    federation = make_federation()
    federation.admit()
    federation.open_run()

    def own_part(index, entry):
        if isinstance(entry.predicate, TreeFinished) and entry.predicate.sent.get("valley") != digest("valley 1"):
            raise EntryRefused(f"entry {index} misstates what valley sent")

    federation.replicas["valley"]._own_check = own_part
    federation.run.record(
        TreeFinished, by="north", run="r-1", tree=1, model=A, sent={"valley": digest("something else")}, check="passed"
    )
    with pytest.raises(EntryRefused, match="misstates what valley sent"):
        federation.run.checkpoint()
    assert federation.replicas["valley"].size < federation.sequencer.size


def test_a_replica_that_was_away_is_brought_up_to_the_head(running):
    at_home = {name: running.replicas[name] for name in ("harbour", "north")}
    alone = RunLedger(running.sequencer, at_home, running.keys)
    for number in (1, 2):
        running.tree(number)
        alone.checkpoint()
    assert running.replicas["valley"].size == running.sequencer.size - 2
    running.tree(3)
    running.run.checkpoint()
    assert running.replicas["valley"].size == running.sequencer.size


def test_a_replica_says_from_where_on_it_needs_entries(running):
    running.tree(1)
    note = running.sequencer.sign_head()
    north = running.replicas["north"]
    with pytest.raises(ReplicaBehind) as behind:
        north.extend(Extension(north.size + 1, (), str(note)))
    assert behind.value.size == north.size
    with pytest.raises(ReplicaBehind, match="came with it"):
        north.extend(Extension(north.size, (), str(note)))


def test_a_replica_that_is_ahead_of_the_log_stops_the_run(running, tmp_path):
    running.sequencer.publish()
    shutil.copytree(running.folder / "hub", tmp_path / "backup")
    running.tree(1)
    running.run.checkpoint()
    running.sequencer.store.give_back()
    restored = Sequencer(tmp_path / "backup", running.log)
    with pytest.raises(LedgerForked, match="it was shortened"):
        restored.collect(running.replicas)
    restored.submit(another_tree(running))
    restored.sign_head()
    with pytest.raises(LedgerForked, match="two heads that disagree") as forked:
        restored.collect(running.replicas)
    assert "cannot be of one log" in checked(forked).proved
    restored.close()


class Mute:
    """A witness that takes the question and never answers."""

    def __init__(self):
        self.asked, self.release = threading.Event(), threading.Event()

    def extend(self, extension):
        self.asked.set()
        self.release.wait()
        raise LedgerError("too late")

    def confirm(self, note, required):
        raise AssertionError("nobody confirms what was not cosigned")


def test_a_witness_that_never_answers_is_named_and_holds_up_nobody_else(running):
    mute = Mute()
    ledger = RunLedger(running.sequencer, running.replicas | {"valley": mute}, running.keys, timeout=0.2)
    running.tree(1)
    with pytest.raises(WitnessSilent, match="from valley: the run waits"):
        ledger.checkpoint()
    assert mute.asked.is_set()
    assert running.replicas["north"].size == running.sequencer.size
    note = running.run.checkpoint()
    mute.release.set()
    assert len(note.signatures) == 4


def test_a_hub_cannot_pass_off_a_head_that_someone_did_not_cosign(running):
    running.tree(1)
    note = running.sequencer.sign_head()
    north = running.replicas["north"]
    size = running.sequencer.size
    line = north.extend(running.sequencer.extension(size - 1, note))
    impostor = cosign(note.text, Signer.generate("valley"))
    with pytest.raises(ProofRefused, match="valley did not cosign"):
        north.confirm(str(note.with_signatures([line, impostor])), ["north", "valley"])
    other = signed_head(running, list(running.sequencer.store.entries())[:-1])
    with pytest.raises(ProofRefused, match="not the one that this replica cosigned"):
        north.confirm(str(other), ["north"])


@contextmanager
def files_no_longer_than(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_replica_on_a_full_disk_does_not_cosign_and_goes_on_when_there_is_room(running):
    running.tree(1)
    running.sequencer.sign_head()
    valley = running.replicas["valley"]
    size = valley.size
    full = (valley.folder / "journal").stat().st_size + 1
    with files_no_longer_than(full), pytest.raises(StorageRefused, match="Make room on the disk"):
        running.run.checkpoint()
    assert valley.size == size
    running.run.checkpoint()
    assert valley.size == size + 1


def test_a_log_on_a_full_disk_signs_nothing(running):
    running.tree(1)
    size = running.sequencer.size
    with files_no_longer_than(10), pytest.raises(StorageRefused):
        running.sequencer.sign_head()
    assert running.sequencer.size == size
    running.run.checkpoint()
    assert running.sequencer.size == size + 1


def test_everything_cosigned_is_there_after_a_crash(running):
    running.tree(1)
    head = running.run.checkpoint()
    for replica in running.replicas.values():
        replica.store.give_back()
    running.sequencer.store.give_back()
    running.__post_init__()
    assert running.sequencer.store.note.text == head.text
    assert all(replica.store.note.text == head.text for replica in running.replicas.values())
    running.tree(2)
    running.finish_run(2)
    running.close()
    assert verify_ledger(running.folder / "north").history.runs.by_id["r-1"].state == "finished"


def test_a_changed_entry_in_a_replicas_files_is_found_with_evidence(written):
    folder = written.folder / "north"
    bundle = next((folder / "tile" / "entries").rglob("11"))
    data = bytearray(bundle.read_bytes())
    data[-40] ^= 1
    bundle.write_bytes(data)
    with pytest.raises(LedgerDamaged, match="entry 10 in its bundle is not the one under the signed head"):
        written.replica("north")
    found = next((folder / "evidence").glob("changed-file-*.json"))
    assert "entry 10 in the files of north is not the one" in evidence.check(evidence.load(found)).proved


def test_a_replica_of_another_log_is_refused(written):
    written.log = Signer.generate(written.log.name)
    with pytest.raises(LedgerDamaged, match="pins the log"):
        written.replica("north")


def test_nobody_speaks_in_a_name_whose_key_is_not_there(running):
    with pytest.raises(LedgerError, match="cannot speak for stranger"):
        running.run.record(RunFinished, by="stranger", run="r-1", manifest=A, trees=1, model=A)


def test_a_log_without_entries_has_no_head(federation):
    with pytest.raises(LedgerError, match="no entries yet"):
        federation.run.checkpoint()


def test_a_longer_head_is_checked_by_its_consistency_proof(running):
    north = running.replicas["north"]
    size = north.size
    running.tree(1)
    note = running.sequencer.sign_head()
    proof = running.sequencer.store.consistency_proof(size, running.sequencer.size)
    north.check_consistency(str(note), proof)
    with pytest.raises(ProofRefused):
        north.check_consistency(str(note), [*proof[:-1], bytes(32)])
    with pytest.raises(ReplicaBehind):
        north.compare(str(note))
    north.compare(str(Note.parse(str(north.store.note))))
