"""Work in the pool: data in, data out, on the owner's cluster, metered by Dask, and never on private rows."""

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost

from lepton_pipelines.compute.cluster import open_cluster
from lepton_pipelines.ledger.errors import EntryRefused
from lepton_pipelines.market import dealing
from lepton_pipelines.pool.errors import PoolRefused
from lepton_pipelines.pool.jobs import Benchmark, Scoring, Tuning, ask, read_job
from lepton_pipelines.pool.metering import Metered
from lepton_pipelines.pool.offers import OfferFile
from lepton_pipelines.pool.reserving import release
from lepton_pipelines.pool.serving import result_of, serve_once
from lepton_pipelines.pool.status import status
from lepton_pipelines.pool.work import Bench
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import LocalCompute
from lepton_pipelines.spec.yaml_file import read_model

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: waves
version: 1.0.0
status: active
schema:
  - name: waves
    logicalType: object
    physicalType: table
    properties:
      - name: id
        logicalType: integer
        primaryKey: true
        required: true
      - {name: a, logicalType: number, required: true}
      - {name: b, logicalType: number, required: true}
      - name: y
        logicalType: number
        required: true
        customProperties: [{property: lepton, value: {role: label}}]
"""
SMALL = Benchmark(work="benchmark", rows=1000, columns=3, rounds=2, max_depth=2, repeats=3)


def local(url):
    return Path(url).open("rb")


def no_registry():
    raise AssertionError("no registry is needed")


@pytest.fixture
def serve(pool):
    """Do what is asked of harbour's offer, on threads of this process."""

    def run(tracking=no_registry):
        bench = Bench(pool.of("harbour"), pool.folder / "cache", local, tracking)
        return serve_once(bench, read_model(OfferFile, pool.write()), pool.folder / "harbour-jobs")

    return run


def asked(pool, job, by="north", **wanted):
    held = pool.reserve(by, work=job.work, **wanted).reserved.reservation
    return held, ask(pool.of(by), held, job, pool.folder / f"{by}-jobs")


def test_a_benchmark_is_done_once_where_it_was_reserved_and_its_core_hours_are_told(pool, serve):
    pool.offer()
    _, job = asked(pool, SMALL)
    assert result_of(pool.of("north"), job) is None
    began = time.monotonic()
    (ended,) = serve()
    took = time.monotonic() - began
    assert serve() == []
    told = result_of(pool.of("north"), job)
    assert (told.outcome, told.result) == ("done", ended.result)
    assert len(told.result["seconds"]) == 3
    assert sum(told.result["seconds"]) <= told.core_seconds <= 2 * took
    hours = status(pool.of("valley"))["core_hours"]
    assert hours["by_run"][job] == {
        "organisation": "north", "offer": "harbour/evenings", "core_hours": round(told.core_seconds / 3600, 6)
    }  # fmt: skip
    assert hours["by_organisation"]["north"]["measured"] == hours["by_run"][job]["core_hours"]


@pytest.fixture(scope="module")
def client():
    with open_cluster(LocalCompute(threads=4), organisation="harbour") as one:
        yield one


def test_dask_measures_as_long_as_a_task_takes_and_no_more_run_at_once_than_were_reserved(client):
    metered = Metered(client, 2, 60)
    spans = metered.map(busy, [0.15] * 5)
    assert metered.tasks == 5
    assert sum(end - start for start, end in spans) <= metered.core_seconds < sum(e - s for s, e in spans) + 0.5
    assert max(sum(start <= at < end for start, end in spans) for at, _ in spans) <= 2


def busy(seconds):
    start = time.time()
    while time.time() < start + seconds:
        pass
    return start, time.time()


def test_work_that_outlasts_its_reservation_is_stopped(client):
    with pytest.raises(PoolRefused, match="the reservation ended before the work did"):
        Metered(client, 1, 0.3).map(busy, [0.2] * 20)


@pytest.fixture
def waves(pool):
    """Shareable rows of valley's, and how to publish them."""
    random = np.random.default_rng(3)
    rows = pd.DataFrame({"id": range(400), "a": random.normal(size=400), "b": random.normal(size=400)})
    rows["y"] = np.sin(2 * rows["a"]) + rows["b"] * rows["a"]
    file = pool.folder / "waves.parquet"
    rows.to_parquet(file, index=False)
    (pool.folder / "contract.odcs.yaml").write_text(CONTRACT)

    def publish(shareable=True):
        spec = pool.folder / "waves.yaml"
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        more = f"shareable: {{url: {file}, digest: {digest}, licence: CC0-1.0}}\n" if shareable else ""
        spec.write_text(f"product: waves\norganisation: valley\ntitle: Waves\ncontract: contract.odcs.yaml\n{more}")
        dealing.publish(pool.of("valley"), spec)

    return publish


TUNING = Tuning(
    work="tuning", product="valley/waves", split={"key": "id", "train": 0.6, "valid": 0.3, "test": 0.1},
    objective="reg:squarederror", rounds=8, candidates={"max_depth": [2, 5], "eta": [0.1, 0.5]},
)  # fmt: skip


def test_tuning_scores_every_candidate_as_xgboost_does_on_the_same_rows(pool, serve, waves):
    waves()
    pool.offer()
    _, job = asked(pool, TUNING)
    (ended,) = serve()
    assert ended.outcome == "done", ended.result
    told = result_of(pool.of("north"), job).result
    assert [one["parameters"] for one in told["candidates"]] == TUNING.combinations()
    from lepton_pipelines.pool.work import _read
    from lepton_pipelines.spec.contract import read_contract

    rows, held_out = _read(pool.folder / "waves.parquet", read_contract(pool.folder / "contract.odcs.yaml"), TUNING)
    for one in told["candidates"]:
        scores = {}
        data, valid = (xgboost.DMatrix(part.X, part.label) for part in (rows, held_out))
        parameters = {"objective": "reg:squarederror", "tree_method": "hist", "nthread": 1} | one["parameters"]
        xgboost.train(parameters, data, 8, evals=[(valid, "valid")], evals_result=scores, verbose_eval=False)
        # Bins are not XGBoost's own, so trees part a little.
        assert one["rmse"] == pytest.approx(scores["valid"]["rmse"][-1], rel=0.05)


def test_rows_that_are_not_shareable_never_leave_whatever_there_is_room_for(pool, serve, waves):
    waves(shareable=False)
    pool.offer()
    held = pool.reserve("north", work="tuning").reserved.reservation
    with pytest.raises(PoolRefused, match="valley/waves is not shareable: private rows stay at home"):
        ask(pool.of("north"), held, TUNING, pool.folder)


def test_a_product_that_is_shareable_no_more_is_not_fetched_by_the_owner_of_the_computers(pool, serve, waves):
    waves()
    pool.offer()
    _, job = asked(pool, TUNING)
    waves(shareable=False)
    (ended,) = serve()
    assert ended.outcome == "failed" and "private rows stay at home" in ended.result["problem"]
    assert result_of(pool.of("north"), job).outcome == "failed"


@pytest.mark.parametrize("work", ["training", "python", "", "[1]"])
def test_training_or_code_is_no_work_for_the_pool(tmp_path, work):
    (tmp_path / "job.yaml").write_text(f"work: {work}\ncommand: rm -rf /\n")
    with pytest.raises(PoolRefused, match=r"Training on private rows stays where the rows are"):
        read_job(tmp_path / "job.yaml")


def test_a_job_with_an_unknown_parameter_or_too_many_candidates_is_refused(tmp_path):
    (tmp_path / "job.yaml").write_text("work: benchmark\nrow: 5\n")
    with pytest.raises(UserError, match=r"job\.yaml:2 .*row is not a field.*rows"):
        read_job(tmp_path / "job.yaml")
    many = {name: [0.1] * 20 for name in ("eta", "gamma")}
    with pytest.raises(PoolRefused, match="makes 400 combinations"):
        TUNING.model_copy(update={"candidates": many}).combinations()
    with pytest.raises(UserError, match="max_deph"):
        TUNING.model_copy(update={"candidates": {"max_deph": [3]}}).combinations()


def test_work_is_asked_for_by_the_holder_for_what_was_reserved_and_while_it_lasts(pool):
    pool.offer()
    held = pool.reserve("north").reserved.reservation
    with pytest.raises(PoolRefused, match="is reserved for benchmark, the job is scoring"):
        ask(pool.of("north"), held, Scoring(work="scoring", model="m", version=1, source="a", target="b"), pool.folder)
    with pytest.raises(EntryRefused, match=f"{held} is held by north, not by valley"):
        ask(pool.of("valley"), held, SMALL, pool.folder)
    release(pool.of("north"), held, "done")
    with pytest.raises(EntryRefused, match=f"{held} is from"):
        ask(pool.of("north"), held, SMALL, pool.folder)


@pytest.mark.slow
def test_ones_own_rows_are_scored_on_ones_own_computers_and_what_they_are_called_stays_at_home(pool, serve):
    from lepton_pipelines.registry.publishing import Publication, publish
    from lepton_pipelines.registry.signature import InputColumn
    from lepton_pipelines.registry.tracking import open_tracking

    random = np.random.default_rng(5)
    rows = random.normal(size=(200, 2))
    data = xgboost.DMatrix(rows, rows[:, 0], feature_names=["a", "b"], feature_types=["float"] * 2)
    model = bytes(xgboost.train({"nthread": 1}, data, 3).save_raw("ubj"))
    tracking = open_tracking(folder=pool.folder / "own")
    publish(tracking, Publication(
        run_id="r-1", experiment="e", registered_model="m", model=model,
        columns=[InputColumn(name, "number", True, (), None, None) for name in "ab"], description="d", scores={},
    ))  # fmt: skip
    source = pool.folder / "secret-ward"
    source.mkdir()
    for part in range(3):
        pd.DataFrame(rows[part::3], columns=["a", "b"]).to_parquet(source / f"{part}.parquet", index=False)
    pool.offer()
    job = Scoring(work="scoring", model="m", version=1, source=str(source), target=str(pool.folder / "scored"))
    _, name = asked(pool, job, by="harbour")
    (ended,) = serve(lambda: tracking)
    assert ended.outcome == "done", ended.result
    for part in range(3):
        told = pd.read_parquet(pool.folder / "scored" / f"{part}.parquet")
        stock = xgboost.Booster(model_file=bytearray(model))
        mine = xgboost.DMatrix(rows[part::3], feature_names=["a", "b"], feature_types=["float"] * 2)
        np.testing.assert_array_equal(told["prediction"], stock.predict(mine))
    compute = pool.of("north").history().compute
    held = compute.reservations[compute.jobs[name]].jobs[name]
    seen = [pool.of("north").get(digest) for digest in (held.asked.document, held.ended.result)]
    assert not any(b"secret-ward" in each or b"200" in each for each in seen)
    assert json.loads(seen[1])["digest"] == hashlib.sha256(model).hexdigest()
