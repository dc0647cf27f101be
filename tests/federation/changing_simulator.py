"""Runs that go on without a lost member and let it rejoin: virtual clock, network and disk, one seed a schedule.

    python tests/federation/changing_simulator.py --schedules 100000   # every seed; stops at the first that fails
    python tests/federation/changing_simulator.py --seed 4711 --trace  # the same schedule again, message by message

What must hold in every schedule: whoever finishes has the model that the same schedule of members gives without a
network; no member ever holds one sum's totals of two sets of members; no mask is used on two plaintexts; who does not
finish was told why. The state machines and the rules of succession are those that run in production.
"""

import contextlib
import hashlib
import heapq
import sys
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
from batches import command
from simulator import BOUND, GRACE, RETRY, rows
from stand_ins import Disk, Signature, masks_watched

from lepton_pipelines.federation.effects import Deliver, Finished, Join, Say, Stop, TotalHeld, Write
from lepton_pipelines.federation.envelope import Slot, slot_of
from lepton_pipelines.federation.hub import ABORTED, CONTINUED, FINISHED, RUNNING, SUSPENDED, HubRun
from lepton_pipelines.federation.hub_outputs import Answer, Keep
from lepton_pipelines.federation.manifest import Dimensions, Manifest
from lepton_pipelines.federation.manifest import Member as Party
from lepton_pipelines.federation.member import Member
from lepton_pipelines.federation.succession import (
    HELD,
    HELD_BOUND,
    Replay,
    following,
    handed_vector,
    handing,
    held_vector,
    misfit,
)
from lepton_pipelines.federation.wire import federation_pb2 as wire

NAMES = ("coast", "harbour", "north", "valley")
TREES, LEVELS = 3, 3


class Schedule:
    """The faults of one seed."""

    def __init__(self, random: Random) -> None:
        chance = random.random
        self.loss = random.choice([0, 0, 0.02, 0.1])
        self.duplicates = random.choice([0, 0, 0.2])
        self.delay = random.choice([0.001, 0.01, 0.2])
        self.disk_delay = random.choice([0, 0.001, 0.1])
        moments = [0.05, 0.2, 1, 20]
        self.lost = {}  # member: when it dies, and after how long it comes back (0: never)
        for name in random.sample(NAMES, random.choice([0, 1, 1, 1, 2])):
            self.lost[name] = (chance() * random.choice(moments), random.choice([0, 0, 400, 700, 3000]))
        self.crashes = [
            (chance() * random.choice([*moments, 500]), random.choice(NAMES), chance() * random.choice([0.1, 60]))
            for _ in range(random.choice([0, 0, 1, 2]))
        ]
        self.hub_crashes = [
            (chance() * random.choice([1, 20, 500]), chance() * random.choice([0.1, 60]))
            for _ in range(random.choice([0, 0, 0, 1]))
        ]
        self.cut = (chance() * 5, random.choice([100.0, 1000.0]), random.choice(NAMES)) if chance() < 0.15 else None


class Simulation:
    """A run of four members and a hub under one seed."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.random, self.trace = Random(seed), trace
        self.schedule = Schedule(self.random)
        self.now, self.counter = 0.0, 0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.signer = Signature("hub")
        self.root = Manifest(
            run="r",
            hub=self.signer.public.hex(),
            members=tuple(Party(name=name, key=Signature(name).public.hex()) for name in NAMES),
            spec="00" * 32,
            contract="11" * 32,
            code="simulated",
            dimensions=Dimensions(largest_sum=64, sums=256, whole=0 if seed % 2 else 1 << 16),
            when_lost="go_on",
            grace_seconds=GRACE,
            expires_seconds=6000,
        )
        self.manifests = {"r": self.root}
        self.logged = 0 if seed % 4 == 0 else 1 << 16
        self.hubs = {"r": HubRun(self.root, self.signer, now=0.0, logged=self.logged)}
        self.logs: dict[str, list[Keep]] = {"r": []}
        self.hub_is_up = True
        self.processes = {name: Process(self, name) for name in NAMES}

    def at(self, delay: float, action: Callable[[], None]) -> None:
        self.counter += 1
        heapq.heappush(self.events, (self.now + delay, self.counter, action))

    def run(self) -> dict[str, str]:
        """Let everything happen; return each member's end."""
        for one in self.processes.values():
            one.boot()
        for name, (when, pause) in self.schedule.lost.items():
            self.at(when, lambda n=name, p=pause: self.processes[n].crash(p, for_good=not p))
        for when, name, pause in self.schedule.crashes:
            self.at(when, lambda n=name, p=pause: self.processes[n].crash(p))
        for when, pause in self.schedule.hub_crashes:
            self.at(when, lambda p=pause: self.crash_hub(p))
        self.at(10, self.tick)
        while self.events and not all(one.end for one in self.processes.values()) and self.now < 60_000:
            self.now, _, action = heapq.heappop(self.events)
            action()
        return {name: one.end or "hangs" for name, one in self.processes.items()}

    # ---- the hub ----

    def tick(self) -> None:
        if self.hub_is_up:
            for one in self.processes.values():
                if one.machine is not None and not one.end and not self.is_cut(one.name):
                    self.hubs[one.stage].heard(one.name, self.now)
            for run, hub in list(self.hubs.items()):
                self.outputs(run, hub.tick(self.now))
        self.at(10, self.tick)

    def crash_hub(self, pause: float) -> None:
        self.hub_is_up = False
        self.at(pause, self.boot_hub)

    def boot_hub(self) -> None:
        for run, manifest in self.manifests.items():
            self.hubs[run] = HubRun(manifest, self.signer, now=self.now, logged=self.logged)
            self.outputs(run, self.hubs[run].restore(list(self.logs[run])))
        self.hub_is_up = True

    def propose(self, manifest: Manifest) -> bool:
        """As the hub's process does it."""
        if manifest.run in self.hubs:
            return self.manifests[manifest.run] == manifest
        before = self.hubs[manifest.continues[-1].run]
        left_out = set(before.manifest.names) - set(manifest.names) - set(before.lost)
        assert not misfit(self.root, manifest)
        if before.state not in (SUSPENDED, CONTINUED) or left_out:
            return False
        self.say("hub", f"invites {', '.join(manifest.names)} to {manifest.run}")
        self.manifests[manifest.run], self.logs[manifest.run] = manifest, []
        self.hubs[manifest.run] = HubRun(manifest, self.signer, now=self.now, logged=self.logged)
        return True

    def arrive(self, run: str, name: str, request: Join | Say) -> None:
        if not self.hub_is_up:
            return
        hub = self.hubs[run]
        self.outputs(
            run, hub.join(self.now, request) if isinstance(request, Join) else hub.say(self.now, name, request)
        )
        if hub.state == RUNNING:
            for stage in hub.manifest.continues:
                self.outputs(stage.run, self.hubs[stage.run].continued(run))

    def outputs(self, run: str, outputs: list[Any]) -> None:
        for output in outputs:
            if isinstance(output, Keep):
                self.logs[run].append(output)
            elif isinstance(output, Answer) and not self.lose(output.member):
                one = self.processes[output.member]
                self.at(self.latency(), lambda p=one, o=output, n=one.life: p.hear(o.asked, o.reply, n))

    # ---- the network ----

    def is_cut(self, name: str) -> bool:
        cut = self.schedule.cut
        return cut is not None and cut[2] == name and cut[0] <= self.now < cut[0] + cut[1]

    def lose(self, name: str) -> bool:
        return self.random.random() < self.schedule.loss or self.is_cut(name)

    def latency(self) -> float:
        return self.random.random() * self.schedule.delay

    def carry(self, run: str, name: str, request: Join | Say) -> None:
        for _ in range(2 if self.random.random() < self.schedule.duplicates else 1):
            if not self.lose(name):
                self.at(self.latency(), lambda: self.arrive(run, name, request))

    def say(self, who: str, what: str) -> None:
        if self.trace:
            print(f"{self.now:10.3f} {who:>8} {what}")  # noqa: T201


class Process:
    """One organisation: its state machine, its disks, one a stage, and the algorithm that asks for sums."""

    def __init__(self, world: Simulation, name: str) -> None:
        self.world, self.name = world, name
        self.disks: dict[str, Disk] = {}
        self.before: dict[str, int] = {}
        self.said: dict[str, list[int]] = {}
        self.may_change = False
        self.machine: Member | None = None
        self.stage = "r"
        self.life, self.end = 0, ""
        self.pending: list[Write] = []
        self.known: dict[str, tuple[str, ...]] = {}  # of whom the totals are that it holds
        self.kept: dict[str, tuple[str, ...]] = {}
        self.ends: tuple[int, ...] = ()

    def boot(self) -> None:
        if self.end or self.machine is not None:
            return
        self.life += 1
        stage = self.stage_of_now() if self.world.hub_is_up and not self.world.is_cut(self.name) else ""
        if self.end:
            return
        if not stage:
            life = self.life
            self.world.at(15, lambda: self.boot() if life == self.life else None)
            return
        self.stage = stage
        self.disk = self.disks.setdefault(stage, Disk())
        self.manifest = self.world.manifests[stage]
        self.waiting: dict[Slot | None, Join | Say] = {}
        self.results: dict[int, np.ndarray] = {}
        self.algorithm: Iterator[bool] | None = None
        self.durable = {True: 0.0, False: 0.0}
        self.machine = Member(
            self.name,
            self.manifest,
            Signature(self.name),
            draw=self.world.random.randbytes,
            journal=self.disk,
            verify=Signature.verify,
        )
        self.world.say(self.name, f"is in {stage}")
        self.act(self.machine.open())

    def stage_of_now(self) -> str:
        """As `changing.stage_of_now` does it."""
        hubs = self.world.hubs
        newest = max(
            (hub for hub in hubs.values() if self.name in hub.manifest.names), key=lambda h: len(h.manifest.run)
        )
        can = self.may_change and self.name not in newest.lost
        if newest.state == SUSPENDED and (newest.lost or newest.returning) and can:
            with contextlib.suppress(ValueError):
                after = following(self.world.root, newest.manifest, newest.lost, sorted(newest.returning))
                if self.world.propose(after):
                    newest = hubs[after.run]
        if newest.state != CONTINUED:
            return newest.manifest.run
        while newest.state == CONTINUED:
            newest = hubs[newest.successor]
        if newest.state in (FINISHED, ABORTED):
            self.end = f"over: {newest.manifest.run} is {newest.state}"
        elif self.name in newest.manifest.names:
            return newest.manifest.run
        else:
            self.world.outputs(newest.manifest.run, newest.welcome(self.world.now, self.name))
        return ""

    def crash(self, pause: float, *, for_good: bool = False) -> None:
        if self.end:
            return
        self.world.say(self.name, "is lost for good" if for_good else "crashes")
        self.machine, self.pending, self.known = None, [], dict(self.kept)
        self.life += 1
        if for_good:
            self.end = "lost"
        else:
            self.world.at(pause, self.boot)

    def hear(self, asked: Slot | None, reply: Any, life: int) -> None:
        if self.machine is None or life != self.life or self.end:
            return
        self.waiting.pop(asked, None)
        self.act(self.machine.receive(reply))
        self.advance()

    def written(self, write: Write, life: int) -> None:
        if self.machine is None or life != self.life or self.end:
            return
        self.pending.remove(write)
        self.keep(write)
        self.act(self.machine.written(write.token))
        self.advance()

    def keep(self, write: Write) -> None:
        self.disk.write(write.record)
        if isinstance(write.record, TotalHeld):
            name = next(one.name for one in self.disk.commitments.values() if one.number == write.record.number)
            self.kept[name] = self.manifest.names

    def act(self, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Join():
                    self.request(None, effect)
                case Say():
                    self.request(slot_of(effect.envelope), effect)
                case Write():
                    total = isinstance(effect.record, TotalHeld)
                    delay = self.world.random.random() * self.world.schedule.disk_delay
                    self.durable[total] = max(self.durable[total], self.world.now + delay)
                    self.pending.append(effect)
                    wait = self.durable[total] - self.world.now
                    self.world.at(wait, lambda w=effect, n=self.life: self.written(w, n))
                case Deliver():
                    self.results[effect.number] = effect.total
                case Finished():
                    self.end = self.state.hex()
                case Stop() if effect.suspended:
                    self.world.say(self.name, f"stands still: {effect.reason}")
                    for write in self.pending:  # as the journal does when it is closed
                        self.keep(write)
                    self.machine, self.pending = None, []
                    self.life += 1
                    life = self.life
                    self.world.at(
                        1 + 20 * self.world.random.random(), lambda n=life: self.boot() if n == self.life else None
                    )
                case Stop():
                    self.end = f"aborted: {effect.reason}"

    def request(self, slot: Slot | None, request: Join | Say) -> None:
        self.waiting[slot] = request
        run = self.stage

        def attempt(life: int = self.life) -> None:
            if self.waiting.get(slot) is not request or life != self.life:
                return
            abort = slot is not None and slot.kind == wire.KIND_ABORT
            if self.end and not abort:
                return
            self.world.carry(run, self.name, request)
            if not abort or not self.end:
                self.world.at(RETRY, attempt)

        attempt()

    # ---- what training does with sums ----

    def advance(self) -> None:
        machine = self.machine
        if self.algorithm is None:
            if machine is None or not (machine.ready or machine.ended_without_us):
                return
            self.algorithm = self.train()
        with contextlib.suppress(StopIteration):
            while self.machine is not None and not self.end and self.machine.stopped is None:
                if next(self.algorithm):
                    return

    def train(self) -> Iterator[bool]:
        """Ask for sums; yields True while totals are awaited."""
        self.before[self.stage], self.held = 0, np.zeros((0, 0), np.int64)
        replay = Replay((), ())
        if self.manifest.continues:
            earlier = [stage.run for stage in self.manifest.continues]
            has = [
                max(self.disks[run].done - self.before.get(run, 0), 0) if run in self.disks else 0 for run in earlier
            ]
            said = self.said.setdefault(self.stage, has)
            self.before[self.stage] = 1 << 40
            vector = held_vector(self.manifest.names, self.name, said)
            self.held = yield from self.made(HELD, vector, HELD_BOUND, b"")
            replay = Replay.read(self.held)
            self.before[self.stage] = 1 + len(replay.handed)
        self.ends = tuple(replay.ends)
        self.state = b"start"
        yield from self.step(replay, "edges")
        self.may_change = replay.may_change = True
        for tree in range(TREES):
            for level in range(LEVELS):
                if level and replay.members_change:
                    self.state = hashlib.sha256(self.state + b"closed").digest()
                    break
                yield from self.step(replay, f"tree-{tree}/level-{level}")
            yield from self.step(replay, f"tree-{tree}/scores")
        while replay.members_change:
            replay.next()
        assert replay.live and self.machine is not None
        self.act(self.machine.finish(self.state))
        while True:
            yield True

    def step(self, replay: Replay, name: str) -> Iterator[bool]:
        try:
            place = replay.next()
        except ValueError as error:
            assert self.machine is not None
            self.act(self.machine.abort(f"{self.name}: {error}"))
            while True:
                yield True
        vector, context = rows(self.name, name, self.state), hashlib.sha256(self.state).digest()
        if place is None:
            total = yield from self.made(name, vector, BOUND, context)
            names = self.manifest.names
        else:
            total = yield from self.earlier(replay, place, vector, context)
            names = self.world.manifests[self.manifest.continues[place[0]].run].names
        assert self.known.setdefault(name, names) == names, (
            f"{self.name} holds {name} of {names} and {self.known[name]}"
        )
        self.state = hashlib.sha256(self.state + total.tobytes()).digest()

    def earlier(self, replay: Replay, place: tuple[int, int], vector: Any, context: bytes) -> Iterator[bool]:
        stage, index = place
        run, names = self.manifest.continues[stage].run, self.manifest.names
        disk = self.disks.setdefault(run, Disk())
        number = self.before.setdefault(run, 0) + index
        mine = disk.total(number) if self.held[names.index(self.name), stage] > index else None
        if not replay.is_handed(place):
            assert mine is not None
            return mine
        given = handed_vector(self.held, names, self.name, place, vector.shape, lambda: mine)
        total = yield from self.made(handing(stage, index), given, BOUND, context)
        disk.totals.setdefault(number, total)
        return total

    def made(self, name: str, vector: Any, bound: int, context: bytes) -> Iterator[bool]:
        assert self.machine is not None
        number, effects = self.machine.begin(name, vector, bound=bound, context=context)
        self.act(effects)
        while number not in self.results:
            yield True
        return self.results.pop(number)


def model_of(stages: list[tuple[tuple[str, ...], int | None]]) -> str:
    """The model that a schedule of members gives: who adds up, and how many sums."""
    left, state = [list(stage) for stage in stages], b"start"

    def changes() -> bool:
        return left[0][1] == 0

    def total(name: str) -> bytes:
        while changes():
            left.pop(0)
        if left[0][1] is not None:
            left[0][1] -= 1
        return sum(rows(member, name, state) for member in left[0][0]).tobytes()

    state = hashlib.sha256(state + total("edges")).digest()
    for tree in range(TREES):
        for level in range(LEVELS):
            if level and changes():
                state = hashlib.sha256(state + b"closed").digest()
                break
            state = hashlib.sha256(state + total(f"tree-{tree}/level-{level}")).digest()
        state = hashlib.sha256(state + total(f"tree-{tree}/scores")).digest()
    return state.hex()


def check(seed: int, *, trace: bool = False) -> str:
    """Run one schedule. Return how it ended; raise AssertionError if it ended as it must not."""
    world = Simulation(seed, trace=trace)
    with masks_watched():
        ends = world.run()
    if trace:
        print(vars(world.schedule), ends)  # noqa: T201
    assert "hangs" not in ends.values(), f"seed {seed} hangs: {ends} {vars(world.schedule)}"
    other = {end for end in ends.values() if end.startswith(("aborted: ", "over: ")) or end == "lost"}
    finished = {name: end for name, end in ends.items() if end not in other}
    if finished:
        (model,) = set(finished.values())
        one = world.processes[next(iter(finished))]
        runs = [*(stage.run for stage in one.manifest.continues), one.stage]
        stages = [(world.manifests[run].names, end) for run, end in zip(runs, (*one.ends, None), strict=True)]
        assert model == model_of(stages), f"seed {seed}: another model than {stages} give: {vars(world.schedule)}"
        return "model" if len(stages) == 1 else "went on"
    excused = world.schedule.lost or world.schedule.cut
    assert excused, f"seed {seed} aborted without a cause: {ends} {vars(world.schedule)}"
    return "abort"


if __name__ == "__main__":
    sys.exit(command(check, "model", "went on", "abort"))
