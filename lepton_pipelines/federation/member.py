"""A member of a run: the order of steps that makes a sum secure, as a state machine without I/O.

A run: sign the manifest, join, agree an epoch's keys (`keys`, `boxes`), make sums, finish. A sum: `announce` (compare
what is about to be added up, before anything is sent), `upload` (masked; after the plaintext's commitment is on disk),
`transcript` (digests of all uploads and of the hub's answer, signed and compared), and only then the challenge and
`form`, unmasking and delivery. A small sum ends after `upload`: everyone is shown all uploads, each under its member's
signature, and adds them up itself. Any difference ends the run with a signed abort that names the cause.

When a member restarts, the hub opens a new epoch and everyone repeats, under new keys and with the same plaintexts, the
sums whose totals somebody does not hold yet.
"""

import hashlib
from collections.abc import Callable
from itertools import count

import numpy as np
from google.protobuf.message import DecodeError

from lepton_pipelines.federation.announcement import difference, read_announcement
from lepton_pipelines.federation.effects import (
    Commitment,
    Deliver,
    Effect,
    EpochOpened,
    Finished,
    Join,
    Journal,
    Reply,
    Say,
    Stop,
    TotalHeld,
    Write,
)
from lepton_pipelines.federation.envelope import HUB, Author, Slot, Untrusted, Verify, check_all, statement
from lepton_pipelines.federation.keys import KeyEpoch
from lepton_pipelines.federation.manifest import Manifest
from lepton_pipelines.federation.member_sum import MemberSum, commit, same_plaintext
from lepton_pipelines.federation.secure_sum import SecureSumError
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.identity.signing import Signer, verified
from lepton_pipelines.sums import BoundExceeded, Int64Array, check_bound


class Member:
    """One organisation's side of a run.

    name: the organisation. signer: its identity key. draw: source of random bytes. journal: what it wrote down before.
    Every method returns effects for the driver to carry out in order.
    """

    def __init__(
        self,
        name: str,
        manifest: Manifest,
        signer: Signer,
        *,
        draw: Callable[[int], bytes],
        journal: Journal,
        verify: Verify = verified,
    ) -> None:
        self.name = name
        self.manifest = manifest
        self.stopped: Stop | None = None
        self.epoch = 0
        self.position = 0
        self.ready = False
        self.floor: int | None = None
        self._author = Author(manifest.run, name, signer)
        self._draw = draw
        self._journal = journal
        self._verify = verify
        self._incarnation = draw(16)
        self._digest = manifest.digest()
        self._keys: KeyEpoch | None = None
        self._sums: dict[int, MemberSum] = {}
        self._done = dict.fromkeys(manifest.names, 0)
        self._done[name] = journal.done
        self._tokens = count(1)
        self._writing: dict[int, Commitment | EpochOpened | TotalHeld] = {}
        self._joined = False
        self._outcome: bytes | None = None
        self._open_slots: dict[Slot, wire.Envelope] = {}  # what was said and is not answered
        self.ended_without_us = False

    # ---- what the caller does ----

    def open(self) -> list[Effect]:
        """Sign the manifest: the first thing that a member says in a run."""
        return [self._say(Slot(0, wire.KIND_MANIFEST, 0), self._digest)]

    def resume_at(self, position: int) -> list[Effect]:
        """Go on from a checkpoint that was taken when this many sums were finished."""
        if self._sums or self.position:
            raise ValueError("a member resumes before its first sum")
        self.position = position
        return self._check_floor()

    def begin(self, name: str, vector: Int64Array, *, bound: int, context: bytes) -> tuple[int, list[Effect]]:
        """Begin a sum and return its number.

        Raises BoundExceeded if the vector is beyond the bound, ValueError if it is longer than the manifest allows.
        A plaintext other than the one that an earlier start of this member committed itself to ends the run.
        """
        check_bound(name, vector, bound)
        limit = self.manifest.dimensions.largest_sum
        if vector.size > limit:
            raise ValueError(f"sum {name!r} has {vector.size} values, the manifest allows {limit}")
        commitment = self._journal.commitment(name)
        # after a restart: what lies behind a checkpoint is not begun again, and a new name comes after all known ones
        number = max(self.position, commitment.number if commitment else self._journal.next_number)
        skipped = number > self.position
        if number >= self.manifest.dimensions.sums:
            raise ValueError(f"sum {name!r} would be number {number}, the manifest allows {number} sums")
        if self.stopped is not None or any(known.name == name for known in self._sums.values()):
            reason = self.stopped.reason if self.stopped else f"sum {name!r} was already begun: a name is used once"
            raise ValueError(reason)
        self.position = number + 1
        effects: list[Effect] = []
        known, kept = None, commitment is not None
        if commitment is not None:
            changed = same_plaintext(commitment, number, vector, bound, context)
            if changed:
                return number, self.abort(f"{self.name}: {changed}")
            known = self._journal.total(number)
        else:
            commitment = commit(number, name, vector, bound, context, salt=self._draw(16))
        one = MemberSum(commitment, vector)
        self._sums[number] = one
        if known is None and self.ended_without_us:
            return number, self._stop(f"the others have finished run {self.manifest.run}; sum {name!r} is not on disk")
        if known is not None:
            one.total, one.vector = known, vector.copy()
            effects.append(Deliver(number, known))
            self._forget()
        elif not kept:
            one.token = self._token(commitment)
            effects.append(Write(one.token, commitment))
        if self.ready and self.floor is not None:
            effects += self._check_floor() if skipped or number < self.floor else []
            effects += self._announce(one) if number >= self.floor and self.stopped is None else []
        return number, effects

    def finish(self, outcome: bytes) -> list[Effect]:
        """End the run. outcome: digest of what the run made; every member must have made the same."""
        self._outcome = outcome
        if self.ended_without_us:
            self.stopped = Stop("the run is finished")
            return [Finished()]
        return self._say_finish()

    def abort(self, reason: str) -> list[Effect]:
        """End the run for everyone, with a signed reason."""
        if self.stopped is not None:
            return []
        slot = Slot(self.epoch, wire.KIND_ABORT, 0)
        said = self._say(slot, wire.Abort(reason=reason[:4000]).SerializeToString())
        return [said, *self._stop(reason)]

    # ---- what the world tells ----

    def written(self, token: int) -> list[Effect]:
        """A record is durable."""
        record = self._writing.pop(token, None)
        if self.stopped is not None or record is None:
            return []
        if isinstance(record, EpochOpened):
            return self._show_keys() if record.epoch == self.epoch else []
        if isinstance(record, TotalHeld):
            self._done[self.name] = max(self._done[self.name], self._journal.done)
            self._forget()
            return self._say_finish()
        one = self._sums.get(record.number)
        if one is None:
            return []
        one.token = 0
        return self._upload(one) if one.agreed else []

    def receive(self, reply: Reply) -> list[Effect]:
        """The hub answers."""
        if self.stopped is not None:
            return []
        try:
            return self._receive(reply)
        except Untrusted as error:
            return self.abort(f"{self.name} refuses to go on: {error}")
        except DecodeError:
            return self.abort(f"{self.name} refuses to go on: a statement in its hub's answer is malformed")
        except SecureSumError as error:
            return self.abort(f"{self.name}: {error}")
        except BoundExceeded as error:
            return self.abort(f"{self.name}: {error}. The run's bounds do not fit its data")

    def _receive(self, reply: Reply) -> list[Effect]:
        if reply.status == wire.STATUS_ABORTED:
            return self._stop(self._read_abort(reply))
        if reply.status == wire.STATUS_SUSPENDED:
            missing = ", ".join(reply.missing)
            return self._stop(
                reply.reason
                or f"run {self.manifest.run} is suspended: {missing} did not come back within the grace "
                f"time of {self.manifest.grace_seconds} s. Resume it with: lepton run --resume {self.manifest.run}",
                suspended=True,
            )
        if reply.slot is not None and reply.slot not in self._open_slots and reply.slot.kind != wire.KIND_FINISH:
            return []  # a duplicate of an answer that was acted upon
        if reply.status == wire.STATUS_REFUSED:
            if reply.slot is not None and self._needs_no_answer(reply.slot):
                return []
            return self.abort(f"the hub refused a statement of {self.name}: {reply.reason}")
        if reply.status == wire.STATUS_NEW_EPOCH:
            return self._open_epoch(reply.epoch)
        if reply.slot is None:
            self._joined = True
            return self._open_epoch(reply.epoch)
        if reply.slot.kind == wire.KIND_FINISH and self._keys is None:
            return self._late(reply)
        if reply.slot.epoch not in (0, self.epoch):
            return []  # an answer from before the last restart of a member
        if reply.status == wire.STATUS_RESEND:
            return self._resend(reply.slot)
        if reply.status != wire.STATUS_COMPLETE:
            return []
        said = check_all(
            reply.envelopes,
            run=self.manifest.run,
            slot=reply.slot,
            keys=self.manifest.keys,
            verify=self._verify,
            each=reply.slot.kind == wire.KIND_UPLOAD and self._travels_whole(self._sums.get(reply.slot.number)),
            own=self._open_slots.pop(reply.slot, None),
        )
        return self._step(reply, said)

    def _step(self, reply: Reply, said: dict[str, wire.Envelope]) -> list[Effect]:
        slot = reply.slot
        assert slot is not None  # noqa: S101 - `_receive` has seen to it
        match slot.kind:
            case wire.KIND_MANIFEST:
                return self._manifest_signed(said)
            case wire.KIND_KEYS:
                return self._keys_shown(said)
            case wire.KIND_BOXES:
                return self._boxes_shown(said)
            case wire.KIND_FINISH:
                return self._finished(said)
        one = self._sums.get(slot.number)
        if one is None:
            return []  # a repeat that everyone can do without by now
        match slot.kind:
            case wire.KIND_ANNOUNCE:
                return self._announced(one, said)
            case wire.KIND_UPLOAD:
                return self._answered(one, said, reply.answer)
            case wire.KIND_TRANSCRIPT:
                return self._transcribed(one, said)
            case wire.KIND_FORM:
                return self._proved(one, said)
        raise Untrusted(f"the hub answers {slot.step}, which no member says")

    # ---- opening ----

    def _manifest_signed(self, said: dict[str, wire.Envelope]) -> list[Effect]:
        for member, envelope in said.items():
            if envelope.body != self._digest:
                raise Untrusted(f"{member} signed another manifest for run {self.manifest.run}")
        if self._joined:
            return []
        return [Join(self.manifest.run, self.name, self._incarnation, self._journal.epoch)]

    def _open_epoch(self, epoch: int) -> list[Effect]:
        if epoch <= self.epoch:
            return []
        if epoch <= self._journal.epoch and self.epoch == 0:
            raise Untrusted(f"the hub offers key epoch {epoch}, {self.name} has already shown keys for it")
        self.epoch = epoch
        self.ready = False
        self._open_slots.clear()
        self._keys = KeyEpoch(self.name, epoch, self._digest, self._draw)
        for one in self._sums.values():
            one.reset()
        record = EpochOpened(epoch)
        return [Write(self._token(record), record)]

    def _show_keys(self) -> list[Effect]:
        assert self._keys is not None  # noqa: S101 - set when the epoch was opened
        share = self._keys.share(incarnation=self._incarnation, done=self._done[self.name])
        return [self._say(Slot(self.epoch, wire.KIND_KEYS, 0), share.SerializeToString(deterministic=True))]

    def _keys_shown(self, said: dict[str, wire.Envelope]) -> list[Effect]:
        assert self._keys is not None  # noqa: S101 - keys were shown
        shares = {member: wire.KeyShare.FromString(envelope.body) for member, envelope in said.items()}
        for member, share in shares.items():
            self._done[member] = max(self._done[member], share.done) if member == self.name else share.done
        self.floor = min(share.done for share in shares.values())
        boxes = self._keys.seal(shares)
        return [self._say(Slot(self.epoch, wire.KIND_BOXES, 0), boxes.SerializeToString(deterministic=True))]

    def _boxes_shown(self, said: dict[str, wire.Envelope]) -> list[Effect]:
        assert self._keys is not None  # noqa: S101 - keys were shown
        self._keys.open({member: wire.KeyBoxes.FromString(envelope.body) for member, envelope in said.items()})
        self.ready = True
        effects = self._check_floor()
        if self.stopped is not None or self.floor is None:
            return effects
        for number in sorted(self._sums):
            if number >= self.floor:
                effects += self._announce(self._sums[number])
        return effects + self._say_finish()

    def _check_floor(self) -> list[Effect]:
        if self.floor is None:
            return []
        damaged = [one.name for one in self._sums.values() if one.total is None and one.number < self.floor]
        if damaged:
            return self.abort(f"{self.name} wrote down the total of sum {damaged[0]!r} and cannot read it any more")
        lost = [number for number in range(self.floor, self.position) if number not in self._sums]
        if not lost:
            return []
        behind = ", ".join(member for member, done in self._done.items() if done <= lost[0])
        # Not the end for all: a member whose folder came from an older backup is caught up with by starting again.
        return self._stop(
            f"{behind} holds totals up to sum {self.floor}, {self.name} is at sum {self.position} and cannot repeat "
            f"what is between. Resume {self.name} from its totals, or a checkpoint not later than sum {self.floor}",
            suspended=True,
        )

    # ---- a sum ----

    def _announce(self, one: MemberSum) -> list[Effect]:
        assert self._keys is not None  # noqa: S101 - called only when the epoch is complete
        body = one.announce(self.manifest, self.epoch, self._keys, self.name)
        body.done = self._done[self.name]
        return [self._say(Slot(self.epoch, wire.KIND_ANNOUNCE, one.number), body.SerializeToString(deterministic=True))]

    def _announced(self, one: MemberSum, said: dict[str, wire.Envelope]) -> list[Effect]:
        assert self._keys is not None and one.announcement is not None  # noqa: S101,PT018
        views: dict[str, bytes] = {}
        for member, envelope in said.items():
            body = wire.Announce.FromString(envelope.body)
            views[member] = self._keys.open_announcement(member, one.number, body.sealed)
            self._done[member] = max(self._done[member], body.done)
        if any(view != one.announcement.encoded for view in views.values()):
            read = {member: read_announcement(view, member) for member, view in views.items()}
            return self.abort(difference(read) or "announcements differ in their encoding")
        self._forget()
        one.agreed = True
        return [] if one.token else self._upload(one)

    def _upload(self, one: MemberSum) -> list[Effect]:
        assert self._keys is not None  # noqa: S101
        body, data = one.upload(self.name, self._keys)
        return [self._say(Slot(self.epoch, wire.KIND_UPLOAD, one.number), body.SerializeToString(), data)]

    def _answered(self, one: MemberSum, said: dict[str, wire.Envelope], answer: bytes | bytearray) -> list[Effect]:
        uploads = {member: wire.Upload.FromString(envelope.body) for member, envelope in said.items()}
        if self._travels_whole(one):
            return self._total(one, one.total, one.add_up(self.name, uploads, answer))
        one.transcribe(uploads, answer)
        return [self._say(Slot(self.epoch, wire.KIND_TRANSCRIPT, one.number), one.transcribed())]

    def _transcribed(self, one: MemberSum, said: dict[str, wire.Envelope]) -> list[Effect]:
        assert self._keys is not None  # noqa: S101
        one.compare_transcripts(self.name, {m: wire.Transcript.FromString(e.body) for m, e in said.items()})
        everything = hashlib.sha256()
        for member in sorted(said):
            everything.update(hashlib.sha256(statement(said[member]) + said[member].signature).digest())
        body = one.prove(self.name, self._keys, everything.digest())
        return [self._say(Slot(self.epoch, wire.KIND_FORM, one.number), body.SerializeToString())]

    def _proved(self, one: MemberSum, said: dict[str, wire.Envelope]) -> list[Effect]:
        assert self._keys is not None  # noqa: S101
        earlier = one.total
        return self._total(
            one, earlier, one.conclude(self._keys, {m: wire.Form.FromString(e.body) for m, e in said.items()})
        )

    def _travels_whole(self, one: MemberSum | None) -> bool:
        return one is not None and self.manifest.dimensions.travels_whole(len(self.manifest.names), one.layout.size)

    def _total(self, one: MemberSum, earlier: Int64Array | None, total: Int64Array) -> list[Effect]:
        if earlier is not None:
            if not np.array_equal(earlier, total):
                raise SecureSumError(f"sum {one.name!r} was repeated and has another total: a member changed its rows")
            return []
        record = TotalHeld(one.number, total)
        return [Deliver(one.number, total), Write(self._token(record), record)]

    def _resend(self, slot: Slot) -> list[Effect]:
        """The hub restarted and no longer has the vector: send the same bytes, and wait for the same answer again."""
        one = self._sums.get(slot.number)
        if one is None:
            return []
        body, data = one.uploaded()
        upload = Slot(self.epoch, wire.KIND_UPLOAD, one.number)
        effects: list[Effect] = [Say(self._author.state(upload, body.SerializeToString()), data)]
        if slot.kind == wire.KIND_TRANSCRIPT:
            effects.append(self._say(slot, one.transcribed()))
        return effects

    def _needs_no_answer(self, slot: Slot) -> bool:
        """Whether a statement was about a sum that this member only repeated for others."""
        if slot.kind not in (wire.KIND_ANNOUNCE, wire.KIND_UPLOAD, wire.KIND_TRANSCRIPT, wire.KIND_FORM):
            return False
        one = self._sums.get(slot.number)
        return one is None or one.total is not None

    def _forget(self) -> None:
        """Let go of vectors whose totals everyone holds."""
        held = min(self._done.values())
        for number in [number for number, one in self._sums.items() if number < held and one.total is not None]:
            del self._sums[number]

    # ---- ending ----

    def _say_finish(self) -> list[Effect]:
        """End the run, once every total is on disk: the others will not be there to repeat a sum."""
        end = Slot(self.epoch, wire.KIND_FINISH, 0)
        on_disk = self._done[self.name] >= self.position
        if self._keys is None or self._outcome is None or not self.ready or not on_disk or end in self._open_slots:
            return []
        body = wire.Finish(outcome=self._keys.blind(self._outcome))
        return [self._say(end, body.SerializeToString())]

    def _finished(self, said: dict[str, wire.Envelope]) -> list[Effect]:
        outcomes = {member: wire.Finish.FromString(envelope.body).outcome for member, envelope in said.items()}
        mine = outcomes[self.name]
        other = [member for member, outcome in outcomes.items() if outcome != mine]
        if other:
            return self.abort(f"{', '.join(other)} ended the run with another model than {self.name}")
        self.stopped = Stop("the run is finished")
        return [Finished()]

    def _late(self, reply: Reply) -> list[Effect]:
        """The others have ended the run while this member was away: what it lacks must be in its journal."""
        assert reply.slot is not None  # noqa: S101
        check_all(reply.envelopes, run=self.manifest.run, slot=reply.slot, keys=self.manifest.keys, verify=self._verify)
        self.ended_without_us = True
        lost = [one.name for one in self._sums.values() if one.total is None]
        if lost:
            return self._stop(f"the others have finished run {self.manifest.run}; the total of sum {lost[0]!r} is lost")
        if self._outcome is not None:
            return self.finish(self._outcome)
        return []

    def _read_abort(self, reply: Reply) -> str:
        envelope = reply.abort
        if envelope is None:
            return "the hub says that the run was aborted, and shows nobody's signature for it"
        keys = {**self.manifest.keys, HUB: bytes.fromhex(self.manifest.hub)}
        if envelope.run != self.manifest.run or envelope.kind != wire.KIND_ABORT or envelope.member not in keys:
            return "the hub says that the run was aborted, and shows a statement that is no abort of this run"
        if not self._verify(keys[envelope.member], envelope.signature, statement(envelope)):
            return f"the hub says that {envelope.member} aborted the run, with a signature that is not its own"
        return str(wire.Abort.FromString(envelope.body).reason)

    def _stop(self, reason: str, *, suspended: bool = False) -> list[Effect]:
        self.stopped = Stop(reason, suspended)
        self.ready = False
        return [self.stopped]

    def _say(self, slot: Slot, body: bytes, data: bytes | bytearray = b"") -> Say:
        envelope = self._open_slots[slot] = self._author.state(slot, body)
        return Say(envelope, data)

    def _token(self, record: Commitment | EpochOpened | TotalHeld) -> int:
        token = next(self._tokens)
        self._writing[token] = record
        return token
