"""An MLflow store of its own, and trained models to publish there."""

import itertools
import os
import select
import signal
import socket
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import requests
import xgboost

from lepton_pipelines.registry.publishing import Publication, RowsUsed
from lepton_pipelines.registry.signature import InputColumn
from lepton_pipelines.registry.tracking import open_tracking

SITES = ("lung", "skin", "bone")
NUMBERS = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def no_store_from_outside():
    """What the machine's own environment says about MLflow must not reach the tests."""
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("MLFLOW_")}
    yield
    os.environ.update(before)


@pytest.fixture(scope="session")
def tracking(tmp_path_factory):
    """The embedded default: SQLite and a folder."""
    return open_tracking(folder=tmp_path_factory.mktemp("var"))


@pytest.fixture
def model_name(request):
    """A name of a registered model that no other test uses."""
    return f"{request.node.originalname.removeprefix('test_').replace('_', '-')[:40]}-{next(NUMBERS)}"


@pytest.fixture(scope="session")
def trained():
    """A maker of boosters and raw rows: a number with missing values, whole numbers, and, if asked, a category."""

    def make(*, categories: bool = False, rounds: int = 5, rows: int = 400):
        rng = np.random.default_rng(0)
        raw = pd.DataFrame(
            {
                "size": np.where(rng.random(rows) < 0.2, np.nan, rng.normal(3, 1, rows)),
                "age": rng.integers(20, 90, rows),
                "visits": np.where(rng.random(rows) < 0.2, np.nan, rng.integers(0, 9, rows)),
            }
        )
        columns = [
            InputColumn("size", minimum=0, maximum=10),
            InputColumn("age", "integer", missing=False, minimum=0, maximum=120),
            InputColumn("visits", "integer", minimum=0, maximum=50),
        ]
        if categories:
            raw["site"] = pd.Series(rng.choice([*SITES, None], rows), dtype="object")
            raw["smoker"] = rng.random(rows) < 0.4
            columns += [
                InputColumn("site", "category", categories=SITES),
                InputColumn("smoker", "boolean", missing=False),
            ]
        codes = raw.copy()
        if categories:
            codes["site"] = codes["site"].map({name: float(code) for code, name in enumerate(SITES)})
        encoded = codes.to_numpy(dtype=np.float32)
        label = np.nan_to_num(encoded[:, 0]) + encoded[:, 1] / 30 > 4.5
        if categories:
            label ^= encoded[:, 3] == 2
        types = ["c" if column.kind == "category" else "q" for column in columns]
        names = [column.name for column in columns]
        matrix = xgboost.DMatrix(
            encoded, label=label, feature_names=names, feature_types=types, enable_categorical=True
        )
        history: dict = {}
        parameters = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1, "eval_metric": ["logloss", "auc"]}
        booster = xgboost.train(
            parameters, matrix, rounds, evals=[(matrix, "train")], evals_result=history, verbose_eval=False
        )
        return booster, raw, matrix, columns, history

    return make


@pytest.fixture
def publication(trained, model_name):
    """A maker of what is published, under a name of its own unless one is given."""

    def make(run_id: str = "r-1", *, name: str | None = None, categories: bool = False, rounds: int = 5):
        booster, _, _, columns, history = trained(categories=categories, rounds=rounds)
        return Publication(
            run_id=run_id,
            experiment=f"{name or model_name} experiment",
            registered_model=name or model_name,
            model=bytes(booster.save_raw("ubj")),
            columns=columns,
            description="Three hospitals, 400 patients.",
            parameters={"max_depth": 3, "rounds": rounds},
            history=history,
            own_history={"north": {"train": {"auc": [0.8] * rounds}}},
            scores={"auc": 0.93},
            datasets=[RowsUsed("north", "training", "sha256:" + "ab" * 32, 214), RowsUsed("valley", "training", "cd")],
            files={"report.html": "<p>a report</p>", "plots/roc.svg": "<svg/>"},
            tags={"lepton.organisations": "north, valley", "lepton.manifest": "sha256:ef"},
        )

    return make


@pytest.fixture(scope="session")
def free_port():
    """A maker of ports that nothing listens on."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    return find


class Process:
    """A server of a test: started, waited for, and stopped with everything that it started."""

    def __init__(self, command, url, log, **settings):
        self.url, self.log = url, log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, **settings
            )

    def wait_until_healthy(self, path="/health", within=300, **settings):
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"{self.process.args} ended:\n{self.log.read_text()[-3000:]}"
            try:
                if requests.get(self.url + path, timeout=5, **settings).ok:
                    return self
            except requests.exceptions.RequestException:
                select.select([], [], [], 0.2)  # nothing tells when a server of somebody else's is ready
        raise AssertionError(f"{self.url} is not healthy after {within} s:\n{self.log.read_text()[-3000:]}")

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


@pytest.fixture
def start(tmp_path):
    """A maker of server processes that are gone when the test ends."""
    running = []

    def begin(command, url, **settings):
        process = Process(command, url, tmp_path / f"{len(running)}.log", **settings)
        running.append(process)
        return process

    yield begin
    for process in reversed(running):
        process.stop()
