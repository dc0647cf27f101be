"""The hub's state machine: what it refuses, and what it keeps."""

import os

import pytest

from lepton_pipelines.federation.effects import Join, Say
from lepton_pipelines.federation.envelope import Author, Slot, Untrusted, check_all
from lepton_pipelines.federation.hub import HubRun
from lepton_pipelines.federation.hub_outputs import Answer, Keep
from lepton_pipelines.federation.manifest import Dimensions, Manifest, Member
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.identity.signing import SigningKey

NAMES = ("harbour", "north", "valley")
SIGNERS = {name: SigningKey.generate() for name in NAMES}
HUB = SigningKey.generate()


@pytest.fixture
def hub():
    manifest = Manifest(
        run="r-1",
        hub=HUB.public.hex(),
        members=tuple(Member(name=name, key=SIGNERS[name].public.hex()) for name in NAMES),
        spec="00" * 32,
        contract="11" * 32,
        code="test",
        dimensions=Dimensions(largest_sum=100, sums=10, in_flight=2),
        grace_seconds=60,
        expires_seconds=600,
    )
    return HubRun(manifest, HUB, now=0.0)


def say(hub, name, slot, body, data=b"", *, now=1.0):
    return hub.say(now, name, Say(Author("r-1", name, SIGNERS[name]).state(slot, body), data))


def open_run(hub):
    for name in NAMES:
        say(hub, name, Slot(0, wire.KIND_MANIFEST, 0), b"digest")
    for name in NAMES:
        hub.join(1.0, Join("r-1", name, os.urandom(16), 0))


def reply_of(outputs, name):
    (answer,) = (output for output in outputs if isinstance(output, Answer) and output.member == name)
    return answer.reply


def test_different_bytes_for_one_step_are_refused_and_kept_as_evidence(hub):
    open_run(hub)
    keys = Slot(1, wire.KIND_KEYS, 0)
    say(hub, "north", keys, wire.KeyShare(done=0).SerializeToString())
    again = say(hub, "north", keys, wire.KeyShare(done=0).SerializeToString())
    assert again == []  # counted once, waits for the others
    other = say(hub, "north", keys, wire.KeyShare(done=1).SerializeToString())
    assert reply_of(other, "north").status == wire.STATUS_REFUSED
    assert "different bytes for the same keys 0" in reply_of(other, "north").reason
    assert [output.evidence for output in other if isinstance(output, Keep)] == [True]


@pytest.mark.parametrize(
    ("slot", "body", "data", "reason"),
    [
        (Slot(1, wire.KIND_ANNOUNCE, 0), b"", b"", "announce 0 before everyone's boxes"),
        (Slot(1, wire.KIND_FORM, 0), b"", b"", "form 0 before everyone's transcript"),
        (Slot(2, wire.KIND_KEYS, 0), b"", b"", "there is no keys in epoch 2"),
        (Slot(1, wire.KIND_KEYS, 3), b"", b"", "there is no keys 3"),
        (Slot(1, wire.KIND_KEYS, 0), b"x" * 5000, b"", "a keys of 5000 bytes"),
        (Slot(1, wire.KIND_KEYS, 0), b"\xff\xff", b"", "a malformed keys"),
        (Slot(1, wire.KIND_KEYS, 0), b"", b"vector", "a keys carries no vector"),
        (Slot(1, 77, 0), b"", b"", "there is no statement of kind 77 in epoch 1"),
    ],
)
def test_a_statement_that_does_not_fit_is_refused_with_the_reason(hub, slot, body, data, reason):
    open_run(hub)
    reply = reply_of(say(hub, "north", slot, body, data), "north")
    assert reply.status == wire.STATUS_REFUSED and reason in reply.reason


def test_a_hub_that_comes_back_has_what_it_logged(hub):
    log = []
    for name in NAMES[:2]:
        outputs = say(hub, name, Slot(0, wire.KIND_MANIFEST, 0), b"digest")
        log += [output for output in outputs if isinstance(output, Keep)]
    back = HubRun(hub.manifest, HUB, now=5.0)
    back.restore(log)
    outputs = say(back, "valley", Slot(0, wire.KIND_MANIFEST, 0), b"digest")
    assert len(reply_of(outputs, "valley").envelopes) == 3


def test_a_run_that_lost_a_member_is_suspended_resumed_by_the_same_members_and_expires(hub):
    open_run(hub)
    hub.heard("north", 50.0)
    hub.heard("valley", 50.0)
    assert hub.tick(60.0) == [] and hub.state == "running"
    hub.tick(62.0)
    assert hub.state == "suspended" and hub.reason == "harbour"
    reply = reply_of(say(hub, "north", Slot(1, wire.KIND_KEYS, 0), b"", now=63.0), "north")
    assert reply.status == wire.STATUS_SUSPENDED and reply.missing == ("harbour",)
    for name in NAMES:
        outputs = hub.join(70.0, Join("r-1", name, os.urandom(16), 1))
    assert hub.state == "running" and hub.epoch == 2
    assert {output.member for output in outputs if isinstance(output, Answer)} == set(NAMES)
    hub.tick(200.0)
    outputs = hub.tick(900.0)
    assert hub.state == "aborted" and "was suspended for 600 s and expired" in hub.reason
    (kept,) = (output for output in outputs if isinstance(output, Keep) and output.envelope is not None)
    assert check_abort(kept.envelope)


def check_abort(envelope):
    from lepton_pipelines.federation.envelope import statement
    from lepton_pipelines.identity.signing import verified

    return verified(HUB.public, envelope.signature, statement(envelope))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda said: said.pop(0), "the hub left out harbour"),
        (lambda said: said.append(said[0]), "two statements of harbour"),
        (lambda said: setattr(said[1], "member", "stranger"), "'stranger', which is not a member"),
        (lambda said: setattr(said[1], "body", b"other"), "north did not sign the keys"),
        (lambda said: setattr(said[1], "epoch", 4), "north's statement of another step"),
        (lambda said: setattr(said[1], "run", "r-0"), "north's statement of another step"),
        (lambda said: said[0].MergeFrom(wire.Envelope(signature=bytes(64))), "harbour did not sign"),
    ],
)
def test_a_member_believes_exactly_one_genuine_statement_of_everyone(tamper, message):
    slot = Slot(3, wire.KIND_KEYS, 0)
    keys = {name: signer.public for name, signer in SIGNERS.items()}
    said = [Author("r-1", name, SIGNERS[name]).state(slot, b"body") for name in NAMES]
    assert check_all(said, run="r-1", slot=slot, keys=keys).keys() == keys.keys()
    tamper(said)
    with pytest.raises(Untrusted, match=message):
        check_all(said, run="r-1", slot=slot, keys=keys)
