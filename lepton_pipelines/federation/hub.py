"""The hub's side of a run: a relay with a memory and a clock, as a state machine without I/O.

It keeps one statement of each member for each step, shows all of them to everyone once the last is there, and adds up
masked vectors. It holds no key of the run: what it adds up is noise to it. It counts a statement once however often it
comes, refuses a second, different one for the same step and keeps both as evidence.
"""

import hashlib
from collections.abc import Iterable

from google.protobuf.message import DecodeError

from lepton_pipelines.federation.effects import Join, Reply, Say
from lepton_pipelines.federation.envelope import HUB, Author, Slot, slot_of
from lepton_pipelines.federation.hub_outputs import Answer, Drop, Keep, Output
from lepton_pipelines.federation.manifest import Manifest
from lepton_pipelines.federation.secure_sum import pack, packed_layout, summed_parts
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.identity.signing import Signer

_BEFORE = {
    wire.KIND_BOXES: wire.KIND_KEYS,
    wire.KIND_ANNOUNCE: wire.KIND_BOXES,
    wire.KIND_UPLOAD: wire.KIND_ANNOUNCE,
    wire.KIND_TRANSCRIPT: wire.KIND_UPLOAD,
    wire.KIND_FORM: wire.KIND_TRANSCRIPT,
    wire.KIND_FINISH: wire.KIND_BOXES,
}
_TAKEN = {wire.KIND_MANIFEST, wire.KIND_KEYS, *_BEFORE}
_OF_A_SUM = (wire.KIND_ANNOUNCE, wire.KIND_UPLOAD, wire.KIND_TRANSCRIPT, wire.KIND_FORM)
_LARGEST_BODY = {wire.KIND_MANIFEST: 64, wire.KIND_KEYS: 2048, wire.KIND_ABORT: 8192, wire.KIND_ANNOUNCE: 16384}
_BODY_PER_MEMBER = 1400  # an ML-KEM-768 ciphertext, a wrapped key, two names

LOGGED = 1 << 16  # bytes of all vectors of a sum up to which they go into the log

INVITING, RUNNING, SUSPENDED, ABORTED, FINISHED = "inviting", "running", "suspended", "aborted", "finished"
CONTINUED = "continued"  # with other members, as another run
_OVER = (ABORTED, FINISHED, CONTINUED)


class HubRun:
    """One run at the hub.

    signer: the hub's own key, for aborts that it has to declare. now: seconds of a clock that only goes forward.
    logged: bytes of all vectors of a sum up to which the log keeps them.
    Handlers return outputs for the driver: what to log (before it answers), whom to answer.
    """

    def __init__(self, manifest: Manifest, signer: Signer, *, now: float, logged: int = LOGGED) -> None:
        self.manifest = manifest
        self._logged = logged
        self.state = INVITING
        self.epoch = 1
        self.reason = ""
        self.lost: tuple[str, ...] = ()
        self.returning: set[str] = set()
        self.successor = ""
        self.bytes = 0
        self.since = now
        self.seen: dict[str, float] = {}
        self.incarnations: dict[str, bytes] = {}
        self._author = Author(manifest.run, HUB, signer)
        self._slots: dict[Slot, dict[str, wire.Envelope]] = {}
        self._data: dict[int, dict[str, bytes | bytearray | memoryview]] = {}
        self._answers: dict[int, bytes | bytearray] = {}
        self._waiting: dict[tuple[str, Slot | None], None] = {}
        self._done: dict[str, int] = {}
        self._abort: wire.Envelope | None = None
        self._returned: set[str] = set()

    # ---- restart ----

    def restore(self, kept: Iterable[Keep]) -> list[Keep]:
        """Take up what the log holds, in its order.

        Masked vectors are in it where they are small. Of the others, members send again those that the hub adds up;
        where members add up themselves, one that has done so cannot: a new epoch repeats the sum.
        """
        vectors: dict[Slot, dict[str, bytes]] = {}
        for record in kept:
            if record.envelope is None:
                self.state, self.epoch = record.state, record.epoch
                self.incarnations = dict(record.incarnations)
                self.reason, self.lost = record.reason, record.lost
                self.successor = record.reason if record.state == CONTINUED else ""
                continue
            envelope = record.envelope
            if envelope.kind == wire.KIND_ABORT:
                self._abort, self.state = envelope, ABORTED
                self.reason = wire.Abort.FromString(envelope.body).reason
            elif not record.evidence:
                self._slots.setdefault(slot_of(envelope), {})[envelope.member] = envelope
                self._note_done(envelope)
                if record.data:
                    vectors.setdefault(slot_of(envelope), {})[envelope.member] = record.data
        for slot, data in vectors.items():
            if slot.epoch == self.epoch and slot in self._slots and self.state not in _OVER:
                self._data[slot.number] = dict(data)
                self._complete(slot)
        if self.state in _OVER or not any(self._is_lost(slot) for slot in self._slots):
            return []
        self._open_epoch(self.epoch + 1)
        return [self._keep_state()]

    def _is_lost(self, slot: Slot) -> bool:
        """Whether these vectors were shown to members, who let go of them, and are not in the log."""
        if slot.kind != wire.KIND_UPLOAD or slot.number in self._answers or not self._is_complete(slot):
            return False
        upload = wire.Upload.FromString(next(iter(self._slots[slot].values())).body)
        whole = self.manifest.dimensions.travels_whole(len(self.manifest.names), upload.size)
        return slot.epoch == self.epoch and slot.number >= self._everyone_holds() and whole

    # ---- what members say ----

    def join(self, now: float, request: Join) -> list[Output]:
        """A member's process is here. A new one after keys were shown opens a new epoch."""
        member = request.member
        self._see(member, now)
        over = self._over(member, None)
        if over is not None:
            return over
        if self.state == INVITING:
            return self._refuse(member, None, "not every member has signed the manifest")
        if self.state == FINISHED:
            self._waiting[member, None] = None
            return self._answer_waiting()
        outputs: list[Output] = []
        keys = self._slots.get(Slot(self.epoch, wire.KIND_KEYS, 0), {})
        known = self.incarnations.get(member)
        opens = known is not None and known != request.incarnation and member in keys
        changed = known != request.incarnation
        self.incarnations[member] = request.incarnation
        if opens or request.after_epoch >= self.epoch:
            self._open_epoch(max(self.epoch, request.after_epoch) + 1)
            changed = True
        if changed:
            outputs.append(self._keep_state())
        if self.state == SUSPENDED:
            self._returned.add(member)
            if self._returned >= set(self.manifest.names) and not self.returning:
                self.state, self._returned, self.lost, self.reason = RUNNING, set(), (), ""
                outputs.append(self._keep_state())
        self._waiting[member, None] = None
        return outputs + self._answer_waiting()

    def say(self, now: float, member: str, request: Say) -> list[Output]:
        """A member states something and waits for everyone's statement of the same step.

        member: whom the connection belongs to; a statement in another's name is refused.
        """
        envelope = request.envelope
        slot = slot_of(envelope)
        self._see(member, now)
        if envelope.member != member or envelope.run != self.manifest.run:
            return self._refuse(member, slot, f"{member} may not speak for {envelope.member} in {envelope.run}")
        if slot.kind == wire.KIND_ABORT and len(envelope.body) <= _LARGEST_BODY[wire.KIND_ABORT]:
            return self._aborted_by(envelope)
        over = self._over(member, slot)
        if over is not None:
            return over
        mine = self._slots.get(slot, {}).get(member)
        if mine is not None and mine.SerializeToString() != envelope.SerializeToString():
            evidence = Keep(self.manifest.run, envelope, evidence=True)
            return [
                evidence,
                *self._refuse(member, slot, f"{member} sent different bytes for the same {slot.step} {slot.number}"),
            ]
        if slot.kind != wire.KIND_MANIFEST and slot.epoch < self.epoch:
            return [self._answer(member, slot, Reply(wire.STATUS_NEW_EPOCH, self.epoch, slot))]
        again = mine is not None and (slot.kind != wire.KIND_UPLOAD or not self._lacks_data_of(member, slot))
        problem = "" if again else self._unfit(slot, envelope, request)
        if problem:
            return self._refuse(member, slot, problem)
        outputs: list[Output] = []
        if slot.kind == wire.KIND_UPLOAD and slot.number not in self._answers and not again:
            self._data.setdefault(slot.number, {})[member] = request.data
        if mine is None:
            self._slots.setdefault(slot, {})[member] = envelope
            self._note_done(envelope)
            outputs += self._kept(slot, envelope)
        self.bytes += len(envelope.body) + len(request.data)
        self._waiting[member, slot] = None
        outputs += self._complete(slot)
        return outputs + self._answer_waiting()

    def tick(self, now: float) -> list[Output]:
        """Time has passed: suspend a run that lost a member, end one that nobody took up again."""
        if self.state in _OVER:
            return []
        if self.state == RUNNING:
            return self._suspend(now, self.absent(now)) if self.absent(now) else []
        if self.state == INVITING and self.manifest.continues and now - self.since > self.manifest.grace_seconds:
            return self._suspend(now, sorted(set(self.manifest.names) - self.signed()))
        if now - self.since > self.manifest.expires_seconds:
            what = "suspended" if self.state == SUSPENDED else "waiting for signatures"
            return self.abort(f"run {self.manifest.run} was {what} for {self.manifest.expires_seconds} s and expired")
        return []

    def welcome(self, now: float, member: str) -> list[Output]:
        """Somebody who was lost is back: stand still, so that the members can go on with it if they signed for that."""
        if self.state in _OVER or self.manifest.when_lost != "go_on":
            return []
        self.returning.add(member)
        return self._suspend(now, ()) if self.state == RUNNING else []

    def continued(self, run: str) -> list[Output]:
        """The run goes on as another one, with other members: there is nothing more to be said in this one."""
        if self.state in _OVER:
            return []
        self.state, self.reason, self.successor = CONTINUED, run, run
        self._data.clear()
        self._answers.clear()
        return [self._keep_state(), *self._answer_waiting()]

    def abort(self, reason: str) -> list[Output]:
        """End the run in the hub's own name."""
        body = wire.Abort(reason=reason).SerializeToString()
        return self._aborted_by(self._author.state(Slot(self.epoch, wire.KIND_ABORT, 0), body))

    # ---- what people ask ----

    def absent(self, now: float) -> list[str]:
        """Members that were not heard of for the grace time."""
        grace = self.manifest.grace_seconds
        return [name for name in self.manifest.names if now - self.seen.get(name, self.since) > grace]

    def missing(self) -> tuple[str, int, list[str]]:
        """Return the earliest step that is not complete, its number, and whom it waits for."""
        names = set(self.manifest.names)
        if self.state == INVITING:
            return "manifest", 0, sorted(names - self.signed())
        for slot in sorted(self._slots, key=lambda slot: (slot.number, slot.kind)):
            said = self._slots[slot]
            if slot.epoch == self.epoch and len(said) < len(names):
                return slot.step, slot.number, sorted(names - said.keys())
        return "", max(self._done.values(), default=0), []

    def signed(self) -> set[str]:
        """Members that have signed the manifest."""
        return set(self._slots.get(Slot(0, wire.KIND_MANIFEST, 0), {}))

    def heard(self, member: str, now: float) -> None:
        """A member asks for news: it lives."""
        self._see(member, now)

    def upload_size(self, member: str, epoch: int, number: int) -> int:
        """Bytes that the member announced for this sum's vector; 0 if none is wanted of it."""
        announced = self._slots.get(Slot(epoch, wire.KIND_ANNOUNCE, number), {})
        if epoch != self.epoch or self.state != RUNNING or len(announced) < len(self.manifest.names):
            return 0
        announce = wire.Announce.FromString(announced[member].body)
        return int(announce.cells * announce.width)

    def answer_bytes(self, epoch: int, number: int) -> bytes | bytearray | None:
        """The answer to a sum of this epoch, for members that fetch it in chunks."""
        return self._answers.get(number) if epoch == self.epoch else None

    # ---- parts ----

    def _see(self, member: str, now: float) -> None:
        self.seen[member] = now

    def _over(self, member: str, slot: Slot | None) -> list[Output] | None:
        """The answer if the run takes no statements; None if it does."""
        if self.state == ABORTED:
            reply = Reply(wire.STATUS_ABORTED, self.epoch, slot, reason=self.reason, abort=self._abort)
            return [self._answer(member, slot, reply)]
        if self.state == CONTINUED:
            reply = Reply(wire.STATUS_SUSPENDED, self.epoch, slot, reason=self._gone_on())
            return [self._answer(member, slot, reply)]
        if self.state == SUSPENDED and slot is not None and slot.kind != wire.KIND_MANIFEST:
            return [self._answer(member, slot, self._suspended(slot))]
        return None

    def _gone_on(self) -> str:
        return f"run {self.manifest.run} goes on with other members as run {self.successor}"

    def _suspended(self, slot: Slot) -> Reply:
        reason = ""
        if self.returning and not self.lost:
            reason = f"run {self.manifest.run} stands still: {', '.join(sorted(self.returning))} came back"
        return Reply(wire.STATUS_SUSPENDED, self.epoch, slot, missing=self.lost, reason=reason)

    def _suspend(self, now: float, lost: Iterable[str]) -> list[Output]:
        self.state, self.since, self._returned, self.lost = SUSPENDED, now, set(), tuple(lost)
        self.reason = ", ".join(self.lost)
        return [self._keep_state(), *self._answer_waiting()]

    def _kept(self, slot: Slot, envelope: wire.Envelope) -> list[Output]:
        """What the log takes with a statement.

        Those of a sum go in together when the last one is there: before that nobody is shown them, and who waits for
        the others says his again.
        """
        if slot.kind not in _OF_A_SUM:
            return [Keep(self.manifest.run, envelope)]
        if not self._is_complete(slot):
            return []
        data = self._data.get(slot.number, {}) if slot.kind == wire.KIND_UPLOAD else {}
        whole = self.manifest.dimensions.travels_whole(len(data), max(map(len, data.values()), default=0))
        small = whole and sum(map(len, data.values())) <= self._logged
        kept: list[Output] = [
            Keep(self.manifest.run, said, data=bytes(data.get(name, b"")) if small else b"")
            for name, said in self._slots[slot].items()
        ]
        return kept + (self._drop_finished() if slot.kind == wire.KIND_ANNOUNCE else [])

    def _everyone_holds(self) -> int:
        """Number of the first sum whose total somebody does not hold."""
        return min((self._done.get(name, 0) for name in self.manifest.names), default=0)

    def _unfit(self, slot: Slot, envelope: wire.Envelope, request: Say) -> str:
        """Say why a statement cannot be taken; empty if it can."""
        data = request.data
        dimensions, names = self.manifest.dimensions, self.manifest.names
        if slot.kind not in _TAKEN or slot.epoch > self.epoch or (slot.kind == wire.KIND_MANIFEST) != (slot.epoch == 0):
            return f"there is no {slot.step} in epoch {slot.epoch}"
        if len(envelope.body) > _LARGEST_BODY.get(slot.kind, _BODY_PER_MEMBER * (len(names) + 1)):
            return f"a {slot.step} of {len(envelope.body)} bytes"
        if slot.kind not in _OF_A_SUM and slot.number != 0:
            return f"there is no {slot.step} {slot.number}"
        before = _BEFORE.get(slot.kind)
        if before is not None:
            number = slot.number if before in _OF_A_SUM else 0
            if not self._is_complete(Slot(self.epoch, before, number)):
                return f"{slot.step} {slot.number} before everyone's {wire.Kind.Name(before)[5:].lower()}"
        if slot.kind in _OF_A_SUM:
            done = self._everyone_holds()
            if not done <= slot.number < min(dimensions.sums, done + 4 * dimensions.in_flight):
                return f"sum {slot.number} is out of turn: everyone holds the totals up to {done}"
        try:
            if slot.kind == wire.KIND_UPLOAD:
                return self._unfit_upload(slot, wire.Upload.FromString(envelope.body), request)
            if slot.kind == wire.KIND_KEYS:
                wire.KeyShare.FromString(envelope.body)
            if slot.kind == wire.KIND_ANNOUNCE:
                announce = wire.Announce.FromString(envelope.body)
                if not 1 <= announce.width <= 8 or announce.cells * announce.width > dimensions.largest_upload:
                    return f"{announce.cells} cells of {announce.width} bytes are more than the manifest allows"
        except DecodeError:
            return f"a malformed {slot.step}"
        return "" if not data else f"a {slot.step} carries no vector"

    def _unfit_upload(self, slot: Slot, upload: wire.Upload, request: Say) -> str:
        data = request.data
        for name in self.manifest.names:
            announced = wire.Announce.FromString(
                self._slots[Slot(self.epoch, wire.KIND_ANNOUNCE, slot.number)][name].body
            )
            if (announced.cells, announced.width) != (upload.cells, upload.width):
                return f"an upload of other cells than {name} announced"
        if not upload.cells * upload.width == upload.size == len(data):
            return f"{len(data)} bytes came, {upload.cells} cells of {upload.width} bytes were to come"
        if (request.digest or hashlib.sha256(data).digest()) != upload.digest:
            return "an upload whose bytes are not those of its digest"
        return ""

    def _complete(self, slot: Slot) -> list[Output]:
        """What follows from a step for which everyone's statement is here."""
        if not self._is_complete(slot):
            return []
        if slot.kind == wire.KIND_MANIFEST and self.state == INVITING:
            self.state = RUNNING
            return [self._keep_state()]
        if slot.kind == wire.KIND_FINISH and self.state == RUNNING:
            self.state = FINISHED
            return [self._keep_state()]
        if slot.kind == wire.KIND_UPLOAD and slot.number not in self._answers:
            data = self._data.get(slot.number, {})
            if len(data) == len(self.manifest.names):
                upload = wire.Upload.FromString(next(iter(self._slots[slot].values())).body)
                vectors = [data[name] for name in self.manifest.names]
                if self.manifest.dimensions.travels_whole(len(vectors), upload.size):
                    self._answers[slot.number] = b"".join(vectors)
                else:
                    layout = packed_layout(upload.cells, upload.width)
                    self._answers[slot.number] = pack(summed_parts(vectors, layout), layout)
                del self._data[slot.number]
        return []

    def _answer_waiting(self) -> list[Output]:
        """Answer everybody whose step is complete, or for whom there are other news."""
        answers: list[Output] = []
        for member, slot in list(self._waiting):
            reply = self._news(member, slot)
            if reply is not None:
                answers.append(self._answer(member, slot, reply))
        return answers

    def _news(self, member: str, slot: Slot | None) -> Reply | None:
        if slot is None:
            if self.state == SUSPENDED:
                return None
            if self.state == CONTINUED:
                return Reply(wire.STATUS_SUSPENDED, self.epoch, None, reason=self._gone_on())
            if self.state == FINISHED:
                end = Slot(self.epoch, wire.KIND_FINISH, 0)
                return Reply(wire.STATUS_COMPLETE, self.epoch, end, list(self._slots[end].values()))
            return Reply(wire.STATUS_COMPLETE, self.epoch)
        over = self._over(member, slot)
        if over is not None:
            return next(output.reply for output in over if isinstance(output, Answer))
        if slot.kind != wire.KIND_MANIFEST and slot.epoch < self.epoch:
            return Reply(wire.STATUS_NEW_EPOCH, self.epoch, slot)
        if slot.kind == wire.KIND_MANIFEST and self.state == SUSPENDED and not self._is_complete(slot):
            return self._suspended(slot)
        if self._is_complete(slot):
            said = self._slots[slot]
            envelopes = [said[name] for name in self.manifest.names]
            if slot.kind != wire.KIND_UPLOAD:
                return Reply(wire.STATUS_COMPLETE, self.epoch, slot, envelopes)
            if slot.number in self._answers:
                return Reply(wire.STATUS_COMPLETE, self.epoch, slot, envelopes, answer=self._answers[slot.number])
        if slot.kind == wire.KIND_UPLOAD and self._is_complete(Slot(self.epoch, wire.KIND_TRANSCRIPT, slot.number)):
            return Reply(wire.STATUS_REFUSED, self.epoch, slot, reason="everyone has the answer already")
        if self._lacks_data_of(member, slot):
            return Reply(wire.STATUS_RESEND, self.epoch, slot)
        return None

    def _is_complete(self, slot: Slot) -> bool:
        return len(self._slots.get(slot, {})) == len(self.manifest.names)

    def _lacks_data_of(self, member: str, slot: Slot) -> bool:
        """Whether the member's vector went with a restart of the hub, and somebody still needs the answer."""
        if slot.kind not in (wire.KIND_UPLOAD, wire.KIND_TRANSCRIPT) or slot.number in self._answers:
            return False
        uploads = self._slots.get(Slot(self.epoch, wire.KIND_UPLOAD, slot.number), {})
        return member in uploads and member not in self._data.get(slot.number, {})

    def _drop_finished(self) -> list[Output]:
        below = self._everyone_holds()
        old = [
            slot for slot in self._slots if slot.kind in _OF_A_SUM and (slot.number < below or slot.epoch < self.epoch)
        ]
        for slot in old:
            del self._slots[slot]
        for number in [number for number in self._answers if number < below]:
            del self._answers[number]
        return [Drop(self.manifest.run, below)] if old else []

    def _note_done(self, envelope: wire.Envelope) -> None:
        if envelope.kind == wire.KIND_ANNOUNCE:
            done = wire.Announce.FromString(envelope.body).done
            self._done[envelope.member] = max(self._done.get(envelope.member, 0), done)
        elif envelope.kind == wire.KIND_KEYS:
            self._done[envelope.member] = wire.KeyShare.FromString(envelope.body).done

    def _open_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self._data.clear()
        self._answers.clear()
        for slot in [slot for slot in self._slots if 0 < slot.epoch < epoch]:
            del self._slots[slot]

    def _aborted_by(self, envelope: wire.Envelope) -> list[Output]:
        if self.state in _OVER:
            return []
        try:
            self.reason = wire.Abort.FromString(envelope.body).reason
        except DecodeError:
            self.reason = f"{envelope.member} aborted the run with a malformed reason"
        self.state, self._abort = ABORTED, envelope
        self._data.clear()
        self._answers.clear()
        return [Keep(self.manifest.run, envelope), self._keep_state(), *self._answer_waiting()]

    def _keep_state(self) -> Keep:
        incarnations = dict(self.incarnations)
        return Keep(self.manifest.run, None, self.state, self.epoch, incarnations, self.reason, self.lost)

    def _refuse(self, member: str, slot: Slot | None, reason: str) -> list[Output]:
        return [self._answer(member, slot, Reply(wire.STATUS_REFUSED, self.epoch, slot, reason=reason))]

    def _answer(self, member: str, asked: Slot | None, reply: Reply) -> Answer:
        self._waiting.pop((member, asked), None)
        return Answer(member, asked, reply)
