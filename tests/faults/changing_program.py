"""An organisation as a process that trains with the others at a hub and goes on without one that was lost.

python changing_program.py HOME PORT RUN [--die SUM] [--slow SECONDS]
"""

import argparse
import hashlib
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lepton_pipelines as lp
from lepton_pipelines.federation.changing import go_on, stage_of_now
from lepton_pipelines.federation.grpc_member import RunSuspended
from lepton_pipelines.federation.runs import connect, staged
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.spec.hub import Hub
from lepton_pipelines.spec.organisation import Policy

NAMES = ("coast", "harbour", "north", "valley")
PARAMETERS = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.3}
ROUNDS = 12


def part_of(member: str) -> Any:
    """A quarter of scikit-learn's breast-cancer rows."""
    from sklearn.datasets import load_breast_cancer

    features, label = load_breast_cancer(return_X_y=True)
    mine = slice(NAMES.index(member), None, len(NAMES))
    return lp.Dataset(features[mine].astype("float32"), label[mine].astype("float32"))


def model_of(member: str, sums: Any) -> str:
    """Train, and return the digest of the model file."""
    data = part_of(member)
    booster = lp.train(PARAMETERS, data, ROUNDS, sums=sums, evals=[(data, "train")], verbose_eval=False)
    return hashlib.sha256(bytes(booster.save_raw("ubj"))).hexdigest()


def told(text: str) -> None:
    say(event="told", text=text)


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("run")
    parser.add_argument("--die", type=int)
    parser.add_argument("--slow", type=float, default=0.0)
    options = parser.parse_args()
    home = OrganisationHome(options.home)
    hub = Hub(hub=f"localhost:{options.port}", when_lost="go_on", grace_seconds=6)
    pipeline: Any = SimpleNamespace(federation=hub, publisher="north", name="test")
    while True:
        try:
            stage = stage_of_now(options.run, home, pipeline, policy=Policy(), tell=told)
            with staged(connect(stage, home, policy=Policy(), address=hub.hub), home) as sums:
                sums.wait_until_ready(120)
                say(event="ready", stage=stage)
                watch(sums, options)
                model = model_of(home.organisation, sums)
                sums.finish(bytes.fromhex(model))
                members = [sums.manifest.names]
                say(event="model", model=model, ends=list(sums._replay.ends), members=members, stage=stage)
                break
        except RunSuspended as error:
            say(event="suspended", reason=str(error))
            if not go_on(options.run, home, pipeline, policy=Policy(), tell=told):
                raise


def watch(sums: Any, options: Any) -> None:
    """Tell of every sum, go slowly, or die after one."""
    start = sums.start

    def watched(name: str, *arguments: Any, **settings: Any) -> Any:
        pending = start(name, *arguments, **settings)
        if sums._replay.live:
            say(event="sum", name=name)
            time.sleep(options.slow)
            if options.die is not None and sums.position > options.die:
                os.kill(os.getpid(), signal.SIGKILL)
        return pending

    sums.start = watched
    sums.sum = lambda *arguments, **settings: watched(*arguments, **settings).result()


if __name__ == "__main__":
    main()
