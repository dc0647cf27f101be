"""An organisation's Dask workers change how fast a model is trained, never which: real clusters, real files."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

from lepton_pipelines.boosting.training import boost
from lepton_pipelines.compute.pinned import PinnedRows
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.organisation.rows import ReadPieces, Restore, ToShard, feature_schema
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.organisation import Organisation
from lepton_pipelines.spec.pipeline import KeySplit
from lepton_pipelines.sums import LocalSums

PARAMETERS = BoosterParameters.read({"objective": "binary:logistic", "max_depth": 4, "subsample": 0.8, "seed": 3})
COLUMNS = [f"x{i}" for i in range(6)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Eight files of rows, some of whose values are missing, and their contract."""
    folder = tmp_path_factory.mktemp("rows")
    draw = np.random.default_rng(5)
    for place in range(8):
        X = draw.normal(size=(700, 6)).round(3)
        X[draw.random(X.shape) < 0.1] = np.nan
        label = (np.nan_to_num(X[:, 0] + X[:, 1] * X[:, 2]) + draw.normal(size=700) > 0).astype(int)
        frame = pd.DataFrame(X, columns=COLUMNS).assign(row=np.arange(700) + place * 700, y=label)
        frame.to_parquet(folder / f"part-{place}.parquet", index=False)
    properties = [{"name": "row", "logicalType": "integer", "primaryKey": True}]
    properties += [{"name": name, "logicalType": "number"} for name in COLUMNS]
    role = [{"property": "lepton", "value": {"role": "label"}}]
    properties.append({"name": "y", "logicalType": "integer", "required": True, "customProperties": role})
    told = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "rows", "version": "1.0.0", "status": "active"}
    contract = parse_contract({**told, "schema": [{"name": "rows", "properties": properties}]})
    own = Organisation.model_validate({"organisation": "harbour", "data": str(folder)})
    return open_source(own, contract)


def trained(client, source, *, after_round=None, checkpoints=False):
    """Train on a cluster; returns the model file and what was told of lost workers."""
    split, losses, features = KeySplit(key="row", train=0.7, valid=0.15, test=0.15), [], feature_schema(source.contract)
    rows = PinnedRows(client, ReadPieces(source, split), source.pieces(), patience=20, on_loss=losses.append)
    rows.change(ToShard(1))

    class Told:
        def on_round(self, report):
            if after_round is not None:
                after_round(rows, report.round)

    def checkpoint(reached):
        if checkpoints:
            rows.checkpoint(Restore(PARAMETERS, reached.binning, features, "train", ("valid",), reached.model))

    try:
        sums, told = LocalSums(), [Told()]
        made = boost(
            PARAMETERS, rows, sums=sums, rounds=8, features=features, evaluation=("valid",), callbacks=told,
            checkpoint=checkpoint,
        )  # fmt: skip
        return made.model, losses
    finally:
        rows.close()


def on_threads(workers, source):
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        return trained(client, source)[0]


@pytest.fixture(scope="module")
def model(source):
    """What one worker trains."""
    return on_threads(1, source)


@pytest.mark.parametrize("workers", [2, 5])
def test_more_workers_train_the_same_bytes(workers, source, model):
    assert on_threads(workers, source) == model


@pytest.mark.slow
@pytest.mark.parametrize("checkpoints", [False, True], ids=["from the first step on", "from the last tree on"])
def test_a_worker_killed_between_two_trees_is_replaced_and_the_bytes_are_the_same(source, model, checkpoints):
    killed = []

    def kill(rows, round_):
        if round_ == 4:
            address = rows.parts[0].worker
            killed.append(address)
            os.kill(rows.client.run(os.getpid, workers=[address])[address], signal.SIGKILL)

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        again, losses = trained(client, source, after_round=kill, checkpoints=checkpoints)
    assert len(killed) == len(losses) == 1
    assert f"{killed[0]} is lost" in losses[0]
    assert again == model
