"""A model file without node statistics predicts what the whole one does, and tells nothing of how rows lay."""

import threading

import numpy as np
import pytest
import xgboost

import lepton_pipelines as lp
from lepton_pipelines.boosting.model_file import read_model
from lepton_pipelines.federation.runs import join, opened_run
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.models import has_statistics, without_statistics
from lepton_pipelines.organisation.run import OrganisationRun
from lepton_pipelines.spec.organisation import read_organisation
from lepton_pipelines.spec.pipeline import read_pipeline

TYPES = ["float", "float", "c", "float"]


@pytest.fixture(scope="module")
def rows():
    """Numbers, some missing, and a column of categories; three classes."""
    draw = np.random.default_rng(7)
    X = draw.normal(size=(3000, 4)).astype(np.float32)
    X[:, 2] = draw.integers(0, 12, 3000)
    X[::9, 0] = np.nan
    y = (np.nan_to_num(X[:, 0]) + (X[:, 2] % 3 == 1) + draw.normal(scale=0.3, size=3000) > 0.5).astype(np.float32)
    return X, y + (X[:, 1] > 1)


def matrix(rows):
    return xgboost.DMatrix(rows[0], label=rows[1], feature_types=TYPES, enable_categorical=True)


PARAMETERS = {"objective": "multi:softprob", "num_class": 3, "max_depth": 4}


@pytest.fixture(scope="module")
def whole(rows):
    data = lp.Dataset(rows[0], rows[1], feature_types=TYPES)
    return bytes(lp.train(PARAMETERS, data, 6, verbose_eval=False).save_raw("ubj"))


@pytest.fixture(scope="module")
def stripped(whole):
    return without_statistics(whole)


def booster(model):
    return xgboost.Booster(model_file=bytearray(model))


def test_stock_xgboost_predicts_the_same_bits_from_the_stripped_file(rows, whole, stripped):
    assert has_statistics(whole) and not has_statistics(stripped)
    for told in ({}, {"output_margin": True}, {"pred_leaf": True}, {"iteration_range": (0, 3)}):
        both = [booster(model).predict(matrix(rows), **told) for model in (whole, stripped)]
        assert np.array_equal(*both)


def test_the_stripped_file_says_of_its_nodes_only_where_rows_go_and_what_leaves_give(whole, stripped):
    for before, after in zip(read_model(whole).trees, read_model(stripped).trees, strict=True):
        assert before.hessian.all() and before.gain.any()
        assert not after.hessian.any() and not after.gain.any() and not after.base_weight[~after.is_leaf].any()
        assert np.array_equal(after.threshold, before.threshold)
    assert set(booster(stripped).get_score(importance_type="total_gain").values()) == {0.0}
    assert booster(stripped).get_score(importance_type="weight") == booster(whole).get_score(importance_type="weight")


def test_training_goes_on_from_a_stripped_model_as_from_the_whole_one(rows, whole, stripped):
    data = lp.Dataset(rows[0], rows[1], feature_types=TYPES)
    went_on = [
        bytes(lp.train(PARAMETERS, data, 3, xgb_model=model, verbose_eval=False).save_raw("ubj"))
        for model in (whole, stripped)
    ]
    assert without_statistics(went_on[0]) == without_statistics(went_on[1])


@pytest.mark.slow
def test_every_organisation_ends_with_the_stripped_model_where_the_spec_says_so(example):
    example.replace("pipeline.yaml", "promote: automatically", "promote: automatically, node_statistics: strip")
    example.replace("pipeline.yaml", "rounds: 60", "rounds: 4")
    example.replace("pipeline.yaml", "comparison: {alone: true, pooled: true}", "")
    pipeline, ended = read_pipeline(example.spec), {}

    def part(name):
        with join("stripped", name) as sums:
            own = read_organisation(example.folder / f"{name}.yaml")
            run = OrganisationRun(pipeline, own, sums, RunFolder(example.var, "stripped"), share=3)
            try:
                for step in (run.ingest, run.validate, run.bin, run.train):
                    step()
                ended[name] = run, (run.own_folder.path / "model.ubj").read_bytes(), run.evaluate()
            finally:
                run.close()

    with opened_run("stripped", pipeline.members):
        threads = [threading.Thread(target=part, args=(name,)) for name in pipeline.members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(ended) == pipeline.members
    assert len({kept for _, kept, _ in ended.values()}) == 1
    for run, kept, evaluated in ended.values():
        assert kept == run.model == without_statistics(run.complete_model) != run.complete_model
        assert evaluated.gain == []
        assert bool(evaluated.shap) == run.publishes  # from the whole model, on the reader's own rows
