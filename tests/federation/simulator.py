"""Runs of the federation's own state machines under a virtual clock, network and disk, one seed a schedule.

    python tests/federation/simulator.py --schedules 1000000     # every seed from 0; stops at the first that fails
    python tests/federation/simulator.py --seed 4711 --trace     # the same schedule again, message by message

What must hold in every schedule: all members end with the model of the fault-free run, or with a signed abort that
names a cause that the schedule has; every total that anyone gets is the exact one; no mask is used on two plaintexts.
"""

import contextlib
import hashlib
import heapq
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
from batches import command, run_batch
from stand_ins import Disk, Signature, masks_watched

from lepton_pipelines.federation.effects import (
    Deliver,
    Finished,
    Join,
    Reply,
    Say,
    Stop,
    TotalHeld,
    Write,
)
from lepton_pipelines.federation.envelope import Slot, slot_of
from lepton_pipelines.federation.hub import HubRun
from lepton_pipelines.federation.hub_outputs import Answer, Drop, Keep
from lepton_pipelines.federation.manifest import Dimensions, Manifest
from lepton_pipelines.federation.manifest import Member as Party
from lepton_pipelines.federation.member import Member
from lepton_pipelines.federation.secure_sum import pack, packed_layout, unpack
from lepton_pipelines.federation.wire import federation_pb2 as wire

GRACE = 300
RETRY = 15.0
BOUND = 1 << 40
STEPS = (("edges", 1), ("tree-0/level-0", 2), ("tree-1/level-0", 1))  # name, sums in flight


@dataclass
class Schedule:
    """The faults of one seed."""

    loss: float
    duplicates: float
    delay: float
    member_crashes: list[tuple[float, str, float]]
    hub_crashes: list[tuple[float, float]]
    partition: tuple[float, float, str] | None
    slow: str | None
    disk_delay: float
    disk_fails: tuple[float, str] | None
    rows_change: str | None
    lie: str | None
    other_state: str | None

    @classmethod
    def draw(cls, random: Random, members: tuple[str, ...]) -> "Schedule":
        chance = random.random
        honest = chance() < 0.7
        return cls(
            loss=random.choice([0, 0, 0.02, 0.15]),
            duplicates=random.choice([0, 0, 0.1, 0.3]),
            delay=random.choice([0.001, 0.01, 0.2]),
            member_crashes=[
                (chance() * random.choice([0.1, 1, 20]), random.choice(members), chance() * random.choice([0.1, 60]))
                for _ in range(random.choice([0, 0, 1, 1, 2, 4]))
            ],
            hub_crashes=[
                (chance() * random.choice([0.1, 1, 20]), chance() * random.choice([0.1, 60]))
                for _ in range(random.choice([0, 0, 0, 1, 2]))
            ],
            partition=(chance() * 5, random.choice([5.0, 120.0, 2000.0]), random.choice(members))
            if chance() < 0.2
            else None,
            slow=random.choice(members) if chance() < 0.2 else None,
            disk_delay=random.choice([0, 0.001, 0.1]),
            disk_fails=(chance(), random.choice(members)) if not honest and chance() < 0.15 else None,
            rows_change=random.choice(members) if not honest and chance() < 0.3 else None,
            lie=random.choice(LIES) if not honest and chance() < 0.6 else None,
            other_state=random.choice(members) if not honest and chance() < 0.1 else None,
        )


FORGED = (wire.KIND_UPLOAD, wire.KIND_TRANSCRIPT, wire.KIND_FORM)
LIES = (
    "+1",
    "+2^39",
    "+2^63",
    "two totals",
    "drops a member",
    "invents a member",
    "swaps",
    "replays",
    "forges",
)


class Simulation:
    """One run of three members and a hub under one seed."""

    def __init__(self, seed: int, *, members: tuple[str, ...] = ("harbour", "north", "valley"), trace: bool = False):
        self.seed = seed
        self.random = Random(seed)
        self.names = members
        self.schedule = Schedule.draw(self.random, members)
        self.trace = trace
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.counter = 0
        hub = Signature("hub")
        self.manifest = Manifest(
            run=f"r-{seed}",
            hub=hub.public.hex(),
            members=tuple(Party(name=name, key=Signature(name).public.hex()) for name in members),
            spec="00" * 32,
            contract="11" * 32,
            code="simulated",
            dimensions=Dimensions(largest_sum=64, sums=64, whole=0 if seed % 2 else 1 << 16),
            grace_seconds=GRACE,
            expires_seconds=3600,
        )
        self.log: list[Keep] = []
        self.logged = 0 if seed % 4 == 0 else 1 << 16
        self.hub: HubRun | None = HubRun(self.manifest, hub, now=0.0, logged=self.logged)
        self.hub_signer = hub
        self.processes = {name: Process(self, name) for name in members}
        self.old_statements: list[wire.Envelope] = []
        self.lied = False
        self.totals: dict[int, np.ndarray] = {}

    # ---- the world ----

    def at(self, delay: float, action: Callable[[], None]) -> None:
        self.counter += 1
        heapq.heappush(self.events, (self.now + delay, self.counter, action))

    def run(self) -> dict[str, str]:
        """Let everything happen; return each member's end: its model's digest, or why it has none."""
        for process in self.processes.values():
            process.boot()
        for when, name, pause in self.schedule.member_crashes:
            self.at(when, lambda name=name, pause=pause: self.processes[name].crash(pause))
        for when, pause in self.schedule.hub_crashes:
            self.at(when, lambda pause=pause: self.crash_hub(pause))
        if self.schedule.disk_fails:
            when, name = self.schedule.disk_fails
            self.at(when, lambda: setattr(self.processes[name].disk, "failing", True))
        self.at(10, self.tick)
        while self.events and not all(process.end for process in self.processes.values()):
            self.now, _, action = heapq.heappop(self.events)
            if self.now > 50_000:
                break
            action()
        return {name: process.end or "hangs" for name, process in self.processes.items()}

    def tick(self) -> None:
        if self.hub is not None:
            for process in self.processes.values():
                if process.machine is not None and not process.end and not self.cut(process.name):
                    self.hub.heard(process.name, self.now)
            self.outputs(self.hub.tick(self.now))
        self.at(10, self.tick)

    def cut(self, name: str) -> bool:
        partition = self.schedule.partition
        return partition is not None and partition[2] == name and partition[0] <= self.now < partition[0] + partition[1]

    def crash_hub(self, pause: float) -> None:
        self.say("hub", "crashes")
        self.hub = None
        self.at(pause, self.boot_hub)

    def boot_hub(self) -> None:
        self.hub = HubRun(self.manifest, self.hub_signer, now=self.now, logged=self.logged)
        self.outputs(self.hub.restore(list(self.log)))
        self.say("hub", f"is back in epoch {self.hub.epoch}")

    def latency(self, name: str) -> float:
        slow = 100.0 if self.schedule.slow == name else 1.0
        return self.random.random() * self.schedule.delay * slow

    def carry(self, process: "Process", request: Join | Say, life: int) -> None:
        """One attempt at a request; the process tries again until it is answered."""
        times = 2 if self.random.random() < self.schedule.duplicates else 1
        for _ in range(times):
            if self.random.random() >= self.schedule.loss and not self.cut(process.name):
                self.at(self.latency(process.name), lambda: self.arrive(process.name, request))

    def arrive(self, name: str, request: Join | Say) -> None:
        if self.hub is None:
            return
        self.say(name, f"→ hub: {_described(request)}")
        if isinstance(request, Join):
            self.outputs(self.hub.join(self.now, request))
        else:
            self.outputs(self.hub.say(self.now, name, request))

    def outputs(self, outputs: list[Keep | Drop | Answer]) -> None:
        for output in outputs:
            match output:
                case Keep():
                    self.log.append(output)
                case Answer():
                    process, life = self.processes[output.member], self.processes[output.member].life
                    if self.random.random() >= self.schedule.loss and not self.cut(output.member):
                        reply = self.falsify(output.member, output.reply)
                        asked = output.asked
                        self.at(
                            self.latency(output.member), lambda p=process, a=asked, r=reply, n=life: p.hear(a, r, n)
                        )

    def say(self, who: str, what: str) -> None:
        if self.trace:
            print(f"{self.now:10.3f} {who:>8} {what}")  # noqa: T201

    # ---- a hub that lies ----

    def falsify(self, member: str, reply: Reply) -> Reply:
        """Alter what the hub answers, as the schedule says, in sums after the first."""
        lie, slot = self.schedule.lie, reply.slot
        if lie is None or slot is None or reply.status != wire.STATUS_COMPLETE:
            return reply
        self.old_statements += reply.envelopes
        if lie in ("+1", "+2^39", "+2^63", "two totals", "swaps") and slot.kind == wire.KIND_UPLOAD:
            if slot.number == 0 or (lie == "two totals" and member != self.names[-1]):
                return reply
            upload = wire.Upload.FromString(reply.envelopes[0].body)
            if self.manifest.dimensions.whole:  # all uploads are shown: the hub can only alter somebody's
                self.lied = True
                altered = bytearray(reply.answer)
                altered[self.random.randrange(len(altered))] ^= 1 << self.random.randrange(8)
                return _changed(reply, answer=bytes(altered))
            layout = packed_layout(upload.cells, upload.width)
            cells = unpack(reply.answer, layout)
            change = {"+1": 1, "+2^39": 1 << 39, "+2^63": 1 << 63, "two totals": 1, "swaps": 12345}[lie]
            cells[0] = (int(cells[0]) + change) % (1 << 8 * layout.dtype.itemsize)
            answer = pack([cells], layout)
            if answer != reply.answer:
                self.lied = True
            return _changed(reply, answer=answer)
        if lie == "drops a member" and slot.kind == wire.KIND_ANNOUNCE and slot.number == 1:
            self.lied = True
            return _changed(reply, envelopes=[e for e in reply.envelopes if e.member != self.names[0]])
        if lie == "invents a member" and slot.kind == wire.KIND_KEYS:
            self.lied = True
            stranger = wire.Envelope()
            stranger.CopyFrom(reply.envelopes[0])
            stranger.member = "stranger"
            return _changed(reply, envelopes=[*reply.envelopes, stranger])
        if lie == "replays" and slot.number == 2:
            older = [e for e in self.old_statements if e.kind == slot.kind and e.number < slot.number]
            if older:
                self.lied = True
                return _changed(reply, envelopes=[older[0], *reply.envelopes[1:]])
        if lie == "forges" and slot.kind in FORGED and slot.number == 1:
            self.lied = True
            forged = wire.Envelope()
            forged.CopyFrom(reply.envelopes[0])
            forged.body = bytes(len(forged.body))
            return _changed(reply, envelopes=[forged, *reply.envelopes[1:]])
        return reply


class Process:
    """One organisation: its state machine, its disk, and the algorithm that asks for sums."""

    def __init__(self, world: Simulation, name: str) -> None:
        self.world = world
        self.name = name
        self.disk = Disk()
        self.durable = {True: 0.0, False: 0.0}  # when the last queued total, or other record, will be on disk
        self.life = 0
        self.machine: Member | None = None
        self.end = ""
        self.restarts = 0

    def boot(self) -> None:
        world = self.world
        if self.end:
            return
        self.life += 1
        self.waiting: dict[Slot | None, Join | Say] = {}
        self.machine = Member(
            self.name,
            world.manifest,
            Signature(self.name),
            draw=world.random.randbytes,
            journal=self.disk,
            verify=Signature.verify,
        )
        self.results: dict[int, np.ndarray] = {}
        self.algorithm: Iterator[bool] | None = None
        self.act(self.machine.open())

    def crash(self, pause: float) -> None:
        if self.machine is None or self.end:
            return
        self.world.say(self.name, "crashes")
        self.machine = None
        self.life += 1
        self.restarts += 1
        self.world.at(pause, self.boot)

    def hear(self, asked: Slot | None, reply: Reply, life: int) -> None:
        if self.machine is None or life != self.life or self.end:
            return
        self.world.say(self.name, f"← hub: {wire.Status.Name(reply.status)} {reply.slot or ''}")
        self.waiting.pop(asked, None)
        self.act(self.machine.receive(reply))
        self.advance()

    def written(self, write: Write, life: int) -> None:
        if self.machine is None or life != self.life or self.end:
            return
        if self.disk.failing:
            self.act(self.machine.abort(f"{self.name} cannot write: no space left on device"))
            return
        self.disk.write(write.record)
        self.act(self.machine.written(write.token))
        self.advance()

    def act(self, effects: list[object]) -> None:
        for effect in effects:
            match effect:
                case Join():
                    self.request(None, effect)
                case Say():
                    self.request(slot_of(effect.envelope), effect)
                case Write():
                    # as the journal's writer does it: commitments in order, totals in an order of their own
                    total = isinstance(effect.record, TotalHeld)
                    delay = self.world.random.random() * self.world.schedule.disk_delay
                    self.durable[total] = max(self.durable[total], self.world.now + delay)
                    delay = self.durable[total] - self.world.now
                    self.world.at(delay, lambda w=effect, n=self.life: self.written(w, n))
                case Deliver():
                    self.results[effect.number] = effect.total
                case Finished():
                    self.end = self.state.hex()
                case Stop() if effect.suspended:
                    self.world.say(self.name, f"is suspended: {effect.reason}")
                    self.machine = None
                    self.life += 1
                    self.world.at(30, self.boot)  # a person resumes the run
                case Stop():
                    self.world.say(self.name, f"stops: {effect.reason}")
                    self.end = f"aborted: {effect.reason}"

    def request(self, slot: Slot | None, request: Join | Say) -> None:
        self.waiting[slot] = request

        def attempt(life: int = self.life) -> None:
            # an abort goes out although the process ends with it
            if self.waiting.get(slot) is not request or life != self.life:
                return
            if self.end and (slot is None or slot.kind != wire.KIND_ABORT):
                return
            self.world.carry(self, request, life)
            if slot is None or slot.kind != wire.KIND_ABORT or not self.end:
                self.world.at(RETRY, attempt)

        attempt()

    # ---- what an algorithm does with sums ----

    def advance(self) -> None:
        """Let the algorithm go on as far as totals are there."""
        if self.algorithm is None:
            if self.machine is None or not (self.machine.ready or self.machine.ended_without_us):
                return
            held = self.machine.floor if self.machine.floor is not None else self.disk.done
            position, self.state = [one for one in self.disk.checkpoints if one[0] <= held][-1]
            self.act(self.machine.resume_at(position))
            self.algorithm = self.train(position)
        with contextlib.suppress(StopIteration):
            while self.machine is not None and not self.end and self.machine.stopped is None:
                if next(self.algorithm):
                    return

    def train(self, position: int) -> Iterator[bool]:
        """Ask for sums; yields True while totals are awaited."""
        number = 0
        for name, width in STEPS:
            numbers, begun = [], self.state
            skip = number + width <= position
            for part in range(width):
                if not skip:
                    assert self.machine is not None
                    vector = rows(self.name, f"{name}/{part}", self.state)
                    if self.world.schedule.rows_change == self.name and self.restarts:
                        vector[0] += 1
                    context = hashlib.sha256(self.state).digest()
                    if self.world.schedule.other_state == self.name and number == 3:
                        context = bytes(32)
                    given, effects = self.machine.begin(f"{name}/{part}", vector, bound=BOUND, context=context)
                    assert given == number
                    self.act(effects)
                    if self.machine is None or self.machine.stopped:
                        return
                    numbers.append(number)
                number += 1
            for one in numbers:
                while one not in self.results:
                    yield True
                total = self.results.pop(one)
                part = one - numbers[0]
                expected = sum(rows(other, f"{name}/{part}", begun) for other in self.world.names)
                if self.world.schedule.rows_change is not None:  # before they were committed to, rows may change
                    expected = self.world.totals.setdefault(one, total)
                assert np.array_equal(total, expected), f"{self.name} got a wrong total of {name}"
                self.state = hashlib.sha256(self.state + total.tobytes()).digest()
            if not skip and "level" in name:
                self.disk.checkpoints = [*self.disk.checkpoints[-2:], (number, self.state)]
        assert self.machine is not None
        self.act(self.machine.finish(self.state))
        while True:
            yield True


def rows(member: str, name: str, state: bytes) -> np.ndarray:
    """What a member has to add: a function of its rows and of the model so far."""
    drawn = hashlib.blake2b(member.encode() + name.encode() + state, digest_size=24).digest()
    return (np.frombuffer(drawn, "<i8") >> 26).copy()


def fault_free_model(members: tuple[str, ...]) -> str:
    state = b"start"
    for name, width in STEPS:
        begun = state
        for part in range(width):
            total = sum(rows(member, f"{name}/{part}", begun) for member in members)
            state = hashlib.sha256(state + total.tobytes()).digest()
    return state.hex()


def check(seed: int, *, trace: bool = False) -> str:
    """Run one schedule. Return how it ended; raise AssertionError if it ended as it must not."""
    simulation = Simulation(seed, trace=trace)
    with masks_watched():
        ends = simulation.run()
    schedule, model = simulation.schedule, fault_free_model(simulation.names)
    if trace:
        print(schedule, ends)  # noqa: T201
    changed = schedule.rows_change is not None and simulation.processes[schedule.rows_change].restarts > 0
    agreed = min(ends.values())
    if changed and len(set(ends.values())) == 1 and not agreed.startswith(("aborted", "hangs")):
        model = agreed  # what was trained on are the rows that were committed to
    whole = set(ends.values()) == {model}
    if whole:
        assert not simulation.lied or schedule.lie == "replays", f"seed {seed}: a lie went unnoticed: {schedule}"
        return "model"
    assert "hangs" not in ends.values(), f"seed {seed} hangs: {ends} {schedule}"
    finished = [name for name, end in ends.items() if end == model]
    aborted = {end for end in ends.values() if end.startswith("aborted: ")}
    assert aborted and len(finished) + len([e for e in ends.values() if e in aborted]) == len(ends), (seed, ends)
    excused = (
        simulation.lied
        or schedule.disk_fails is not None
        or changed
        or schedule.other_state is not None
        or any("expired" in end for end in aborted)
    )
    assert excused, f"seed {seed} aborted without a cause: {ends} {schedule}"
    return "abort"


def check_batch(seeds: range) -> tuple[dict[str, int], str]:
    """`run_batch` of this module's own schedules."""
    return run_batch(check, seeds)


def _changed(reply: Reply, **changes: object) -> Reply:
    return Reply(**{**{name: getattr(reply, name) for name in reply.__dataclass_fields__}, **changes})


def _described(request: Join | Say) -> str:
    if isinstance(request, Join):
        return f"join after epoch {request.after_epoch}"
    slot = slot_of(request.envelope)
    return f"{slot.step} {slot.number} of epoch {slot.epoch}"


if __name__ == "__main__":
    sys.exit(command(check, "model", "abort"))
