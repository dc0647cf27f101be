"""An organisation as a process, for tests that kill it: trains a chain of sums from checkpoints, and dies on demand.

python organisation_program.py HOME PORT RUN [--die MOMENT] [--changed] [--rounds N] [--host HOST]
"""

import argparse
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lepton_pipelines.federation.checkpoints import Checkpoints
from lepton_pipelines.federation.effects import Commitment
from lepton_pipelines.federation.runs import connect
from lepton_pipelines.identity import private_files
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.spec.organisation import Policy
from lepton_pipelines.sums import SumAborted

FATAL = "tree-2/level-1"  # the sum around which a process dies


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)  # noqa: T201


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def rows(member: str, name: str, state: bytes, values: int) -> np.ndarray:
    """What the member adds: a function of its rows and of the model so far."""
    seed = hashlib.sha256(member.encode() + name.encode() + state).digest()
    return np.random.default_rng(list(seed)).integers(-(1 << 30), 1 << 30, values)


def arm(moment: str, sums: Any) -> None:
    """Have the process killed at a moment that only the inside of it knows."""
    if moment in ("before write-ahead", "after write-ahead"):
        write = sums._journal.write_small

        def deadly(records: Any) -> None:
            fatal = any(isinstance(record, Commitment) and record.name == FATAL for record in records)
            if fatal and moment == "before write-ahead":
                kill_self()
            write(records)
            if fatal:
                kill_self()

        sums._journal.write_small = deadly
    if moment == "while a checkpoint is written":
        replace = Path.replace

        def torn(self: Path, target: Any) -> Any:
            if "checkpoint" in str(target):
                kill_self()
            return replace(self, target)

        private_files.Path.replace = torn


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("run")
    parser.add_argument("--die", default="")
    parser.add_argument("--changed", action="store_true")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--values", type=int, default=2_000)
    parser.add_argument("--host", default="localhost")
    options = parser.parse_args()
    home = OrganisationHome(options.home)
    checkpoints = Checkpoints(home.run_folder(options.run) / "checkpoints")
    try:
        with connect(options.run, home, policy=Policy(), address=f"{options.host}:{options.port}") as sums:
            arm(options.die, sums)
            held = sums.wait_until_ready(120)
            found = checkpoints.newest(not_after=held)
            first, state = 0, b"start"
            if found is not None:
                sums.resume_at(found.position)
                first, state = found.payload[0], found.payload[1:]
            say(event="ready", checkpoint=first)
            for tree in range(first, options.rounds):
                for level in range(3):
                    name = f"tree-{tree}/level-{level}"
                    vector = rows(sums.member, name, state, options.values)
                    if options.changed:
                        vector[0] += 1
                    if options.die == "in a sum" and name == FATAL:
                        sums.start(name, vector, bound=1 << 40, context=state)
                        say(event="dying")
                        signal.pause()
                    total = sums.sum(name, vector, bound=1 << 40, context=hashlib.sha256(state).digest())
                    state = hashlib.sha256(state + total.tobytes()).digest()
                    say(event="sum", name=name)
                checkpoints.save(sums.position, bytes([tree + 1]) + state)
            sums.finish(state)
            say(event="model", model=state.hex(), epoch=sums._machine.epoch)
    except SumAborted as error:
        say(event="aborted", kind=type(error).__name__, reason=str(error))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
