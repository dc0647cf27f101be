"""Rows with scores, and the evaluation of a real model."""

from datetime import UTC, datetime

import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer

from lepton_pipelines.evaluation.fairness import GroupRows
from lepton_pipelines.evaluation.importance import gain_importance, shap_importance
from lepton_pipelines.evaluation.result import (
    ComparisonRow,
    Evaluation,
    GateLine,
    OrganisationFigures,
    Privacy,
    Registration,
    Reproduction,
    TreesEqual,
    Wire,
)
from lepton_pipelines.evaluation.score_histogram import score_histogram

HOSPITALS = ("valley", "harbour", "north")


@pytest.fixture
def scored_rows():
    """A maker of labels and probabilities of a model that is neither useless nor perfect."""

    def make(rows: int = 4000, seed: int = 0):
        rng = np.random.default_rng(seed)
        margin = rng.normal(0, 2.5, rows).astype(np.float32)
        label = (margin + rng.normal(0, 2.5, rows) > 0.7).astype(np.float32)
        return label, (1 / (1 + np.exp(-margin))).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def evaluation():
    """The evaluation of a real model: breast cancer rows in three skewed hospitals, scored by the library."""
    split = np.random.default_rng(0)
    source = load_breast_cancer()
    rows, label = source.data.astype(np.float32), (source.target == 0).astype(np.float32)
    names = [name.replace(" ", "_") for name in source.feature_names]
    hospital = np.digitize(rows[:, 0] + split.normal(0, 2, len(rows)), [12.5, 15])
    part = split.choice(3, len(rows), p=[0.6, 0.15, 0.25])

    def matrix(chosen):
        return xgboost.DMatrix(rows[chosen], label=label[chosen], feature_names=names)

    def train(chosen):
        history = {}
        watched = [(matrix(chosen), "train"), (matrix(part == 1), "valid")]
        parameters = {"objective": "binary:logistic", "max_depth": 3, "eval_metric": ["logloss", "auc"], "nthread": 1}
        booster = xgboost.train(parameters, watched[0][0], 20, evals=watched, evals_result=history, verbose_eval=False)
        return booster, history

    histogram = score_histogram("binary:logistic", classes=("benign", "malignant"))

    def figures(booster, chosen):
        return histogram.read(histogram.count(label[chosen], booster.predict(matrix(chosen))))

    def compared(name, kind, booster):
        own = {h: figures(booster, (part == 2) & (hospital == i)).scores for i, h in enumerate(HOSPITALS)}
        return ComparisonRow(name=name, kind=kind, scores=figures(booster, part == 2).scores, per_organisation=own)

    federated, history = train(part == 0)
    comparison = [
        compared(f"{name} alone", "alone", train((part == 0) & (hospital == place))[0])
        for place, name in enumerate(HOSPITALS)
    ]
    comparison += [compared("federated", "federated", federated), compared("pooled", "pooled", federated)]
    group = GroupRows("age_band", ("under 50", "50 and over"))
    scores = figures(federated, part == 2).scores
    return Evaluation(
        pipeline="breast-cancer",
        run_id="r-7f3a",
        finished=datetime(2026, 11, 22, 3, 0, 41, tzinfo=UTC),
        label="malignant",
        objective="binary:logistic",
        primary_metric="auc",
        rounds=20,
        best_round=17,
        features=len(names),
        reader="north",
        organisations=[
            OrganisationFigures(
                name=name,
                rows={"train": int(((part == 0) & (hospital == place)).sum())},
                share=float(label[hospital == place].mean()),
                scores=comparison[-1].per_organisation[name],
                bytes_sent=1_100_000 + place,
                bytes_received=1_090_000,
            )
            for place, name in enumerate(HOSPITALS)
        ],
        figures=figures(federated, part == 2),
        comparison=comparison,
        trees_equal=TreesEqual(equal=True, trees_equal=20, trees=20, reference="stock XGBoost on the pooled rows"),
        history=history,
        gain=gain_importance(federated),
        shap=shap_importance(federated, rows[(part == 2) & (hospital == 2)]),
        fairness=[group.read(group.count(label, federated.predict(matrix(part >= 0)), np.arange(len(label)) % 2))],
        gates=[
            GateLine(name="AUC ≥ 0.95", figure=scores["auc"], limit=0.95, passed=True, message="AUC is 0.99."),
            GateLine(name="calibration error ≤ 0.05", figure=0.031, limit=0.05, passed=True, message="It is 0.031."),
        ],
        registration=Registration(
            model="breast-cancer", version="1", alias="champion", decision="v1 → champion: all 2 gates passed"
        ),
        privacy=Privacy(secure_sums=True, parties=3, smallest_bin=20),
        wire=[Wire(purpose="histograms", sums=120, bytes_sent=2_900_000, bytes_received=2_800_000)],
        seconds={"ingest": 0.3, "bin": 0.6, "train": 2.1},
        reproduction=Reproduction(
            command="lepton run examples/healthcare/pipeline.yaml",
            model_digest="sha256:" + "9c" * 32,
            dataset_digests=dict.fromkeys(HOSPITALS, "sha256:" + "3f" * 32),
            code_version="0.1.0",
            packages={"xgboost-cpu": xgboost.__version__},
            parameters={"max_depth": 3, "eval_metric": ["logloss", "auc"]},
        ),
    )
