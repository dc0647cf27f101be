"""Scores of the new model, the champion and a demo's other models on everybody's held-out rows.

Each organisation scores its own rows with stock XGBoost where they lie and counts the scores; the counts are
summed. What it knows of itself (its own scores, its row counts) it hands to the others only as far as its policy
allows; where scores are not shown, others learn whether its limits were kept and no more.
"""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lepton_pipelines.boosting.model_file import booster_of
from lepton_pipelines.evaluation.fairness import GroupRows
from lepton_pipelines.evaluation.importance import gain_importance, shap_importance
from lepton_pipelines.evaluation.regression_scores import MAGNITUDE_LENGTH, count_magnitudes
from lepton_pipelines.evaluation.result import (
    Champion,
    ComparisonRow,
    Fairness,
    Figures,
    Importance,
    OrganisationFigures,
    Scores,
)
from lepton_pipelines.evaluation.score_histogram import ScoreHistogram, score_histogram, task_of
from lepton_pipelines.organisation import progress
from lepton_pipelines.organisation.models import has_statistics
from lepton_pipelines.organisation.reports import EvaluateReport
from lepton_pipelines.organisation.rows import CountScores, Scorer, TakeRows
from lepton_pipelines.organisation.wire import gather, gather_json
from lepton_pipelines.spec.algorithm import find_algorithm
from lepton_pipelines.spec.contract import Column, Contract
from lepton_pipelines.spec.training import XGBOOST
from lepton_pipelines.sums import Int64Array

if TYPE_CHECKING:
    from lepton_pipelines.organisation.run import OrganisationRun

LATENCY_ROWS = 20
SHAP_ROWS = 2000


@dataclass(frozen=True)
class Contender:
    """A model that is scored. name, kind: as in the comparison. algorithm: that it is a model file of."""

    name: str
    kind: Literal["alone", "federated", "champion", "pooled"]
    model: bytes
    algorithm: str = XGBOOST


@dataclass
class Evaluating:
    """One organisation's evaluation. part: with a trained model."""

    part: "OrganisationRun"
    own: dict[str, Scores] = field(default_factory=dict)

    @property
    def algorithm(self) -> str:
        """What the new model is a model file of."""
        return self.part.pipeline.training.algorithm

    def evaluate(self) -> EvaluateReport:
        """Score everything there is to score, and put the report together."""
        part = self.part
        held_out = part.sums.sum("evaluation/rows", np.array([part.summary.rows["test"]], np.int64), bound=1 << 40)
        self.held_out = int(held_out[0])
        found = shared_champion(part, "evaluation/champion")
        contenders = [Contender("federated", "federated", part.model, self.algorithm), *part.compared.contenders]
        if found is not None and self._comparable(found):
            contenders.append(Contender("champion", "champion", found.model, found.algorithm))
        figures = {one.name: self._score(one) for one in contenders}
        shown = self._show()
        comparison = [
            ComparisonRow(
                name=one.name,
                kind=one.kind,
                scores=figures[one.name].scores,
                per_organisation={n: d["scores"][one.name] for n, d in shown.items() if d["scores"]},
            )
            for one in contenders
        ]
        champion = None
        if found is not None:
            scores = figures["champion"].scores if "champion" in figures else {}
            champion = Champion(version=found.version, scores=scores)
        return EvaluateReport(
            organisation=part.name,
            figures=figures["federated"],
            comparison=comparison,
            champion=champion,
            fairness=self._fairness(),
            gain=gain_importance(booster_of(part.model)) if self.algorithm == XGBOOST else [],
            shap=self._shap(),
            organisations=[_organisation_figures(name, document) for name, document in shown.items()],
            verdicts={name: document["verdicts"] for name, document in shown.items() if document["verdicts"]},
            latency_ms=self._latency(),
            seconds=0,
        )

    def score(self, one: Contender, held_out: int) -> Figures:
        """Score one model on everybody's held-out rows. held_out: how many these are."""
        self.held_out = held_out
        return self._score(one)

    def _score(self, one: Contender) -> Figures:
        part, objective = self.part, self.part.pipeline.training.objective
        key = f"evaluation/{one.name}"
        magnitudes = None
        if task_of(objective) == "regression":
            magnitude = CountScores(one.model, objective, _magnitudes, threads=part.threads, algorithm=one.algorithm)
            own_magnitudes = part.rows.add_up(magnitude)
            magnitudes = part.sums.sum(f"{key}/magnitudes", own_magnitudes, bound=max(1, 2 * self.held_out))
        histogram = score_histogram(
            objective,
            classes=class_names(part.label, getattr(part.parameters, "num_class", 0)),
            magnitudes=magnitudes,
            largest_weight=None if part.contract.weight is None else part.contract.weight.maximum,
        )
        counting = CountScores(one.model, objective, histogram.count, threads=part.threads, algorithm=one.algorithm)
        vector = part.rows.add_up(counting)
        own = _read(histogram, vector)
        self.own[one.name] = {} if own is None else own.scores
        total = part.sums.sum(key, vector, bound=histogram.bound(self.held_out))
        figures: Figures = histogram.read(total)
        return figures

    def _show(self) -> dict[str, dict[str, Any]]:
        """Hand the others what policy allows of our own figures; return everybody's, by organisation."""
        part, policy = self.part, self.part.organisation.policy
        trained = part.boosted
        document = {
            "rows": part.summary.rows if policy.share_rows else None,
            "share": part.summary.label_mean if policy.share_rows else None,
            "workers": part.summary.workers if policy.share_rows else None,
            # what work took goes with the number of rows
            "core_seconds": part.rows.core_seconds() if policy.share_rows else None,
            "scores": self.own if policy.share_scores else None,
            "history": trained.own_history if policy.share_scores else None,
            "verdicts": None if policy.share_scores else self._verdicts(),
            "seconds": {stage: report.model_dump()["seconds"] for stage, report in part.reports.items()},
            "sums": part.sums.traffic.sums,
            "bytes_sent": part.sums.traffic.bytes_sent,
            "bytes_received": part.sums.traffic.bytes_received,
        }
        said = json.loads(part.once("shown", lambda: json.dumps(document).encode()))
        return gather_json(part.sums, "shown", member=part.name, members=part.pipeline.members, document=said)

    def _verdicts(self) -> dict[str, bool]:
        floor = self.part.pipeline.gates.worst_organisation
        if floor is None:
            return {}
        scores, verdicts = self.own["federated"], {}
        for metric, limit in floor.limits().items():
            if metric in scores:
                low = -np.inf if limit.min is None else limit.min
                high = np.inf if limit.max is None else limit.max
                verdicts[metric] = bool(low <= scores[metric] <= high)
        return verdicts

    def _fairness(self) -> list[Fairness]:
        part = self.part
        objective = part.pipeline.training.objective
        if task_of(objective) != "binary":
            return []
        found = []
        for column in part.contract.groups:
            groups = GroupRows(column.name, tuple(column.categories) or ("no", "yes"))
            step = CountScores(
                part.model,
                objective,
                groups.count,
                group=column.name,
                threads=part.threads,
                algorithm=self.algorithm,
            )
            vector = part.rows.add_up(step)
            total = part.sums.sum(f"evaluation/by {column.name}", vector, bound=groups.bound(self.held_out))
            found.append(groups.read(total))
        return found

    def _shap(self) -> list[Importance]:
        """Mean SHAP values of our own rows; for the publisher's report only, whose reader we are."""
        if not self.part.publishes or self.algorithm != XGBOOST:
            return []
        if not has_statistics(self.part.complete_model):
            reason = "no SHAP values: the model that training went on from says nothing of its nodes"
            progress.tell(self.part.folder.run_id, progress.Notice(self.part.name, reason))
            return []
        taken = self.part.rows.ask(TakeRows(("test",), SHAP_ROWS))
        values = np.concatenate([sets["test"].X for sets in taken])
        return shap_importance(booster_of(self.part.complete_model), values)

    def _latency(self) -> float:
        """Milliseconds to score one row, the median of some."""
        scorer = Scorer(self.part.model, self.part.pipeline.training.objective, algorithm=self.algorithm)
        row = np.zeros((1, self.part.features.count), np.float32)
        seconds = []
        for _ in range(LATENCY_ROWS):
            began = time.perf_counter()
            scorer.predict(row)
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds) * 1000

    def _comparable(self, champion: "ModelInUse") -> bool:
        """Tell whether the champion takes the columns of this contract; if not, say so."""
        if list(find_algorithm(champion.algorithm).columns(champion.model)) != list(self.part.features.names):
            self.part.notice("the champion takes other columns: it cannot be compared on these rows")
            return False
        if other := champion.other_codes(self.part.contract):
            self.part.notice(
                f"the champion was trained with other categories of {', '.join(other)}: it cannot be compared on "
                "these rows"
            )
            return False
        return True


@dataclass(frozen=True)
class ModelInUse:
    """The champion: its version, the algorithm that it is of, its model file, and the categories that it knows."""

    version: str
    algorithm: str
    model: bytes
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def other_codes(self, contract: Contract) -> list[str]:
        """Return the columns whose categories have other codes in this model than in a contract."""
        if self.algorithm != XGBOOST:
            return []
        known = {name: list(listed) for name, listed in self.categories.items()}
        wanted = contract.feature_categories
        return sorted(name for name in known.keys() | wanted.keys() if known.get(name) != wanted.get(name))


def shared_champion(part: "OrganisationRun", name: str) -> ModelInUse | None:
    """Let the publisher hand the champion to everybody; None if there is none."""

    def say() -> bytes:
        mine = part.champion()
        return (
            b""
            if mine is None
            else "\n".join((mine.version, mine.algorithm, json.dumps(mine.categories), "")).encode() + mine.model
        )

    document = part.once(name, say)
    told = gather(part.sums, name, member=part.name, members=part.pipeline.members, document=document)
    found = told[part.pipeline.publisher]
    if not found:
        return None
    version, algorithm, categories, model = found.split(b"\n", 3)
    return ModelInUse(version.decode(), algorithm.decode(), model, json.loads(categories))


def class_names(label: Column, classes: int) -> tuple[str, ...]:
    """Return what the label's classes are called, in the order of their codes."""
    if label.categories:
        return tuple(label.categories)
    return tuple(str(code) for code in range(max(classes, 2)))


def _organisation_figures(name: str, document: dict[str, Any]) -> OrganisationFigures:
    told = {key: value for key, value in document.items() if key not in ("scores", "verdicts")}
    scores = document["scores"]
    return OrganisationFigures(name=name, scores=None if scores is None else scores["federated"], **told)


def _magnitudes(label: Any, prediction: Any, weight: Any = None) -> Int64Array:
    if len(label) == 0:
        return np.zeros(MAGNITUDE_LENGTH, np.int64)
    return count_magnitudes(label, prediction)


def _read(histogram: ScoreHistogram, vector: Int64Array) -> Figures | None:
    """Read one organisation's own counts; None if it has no rows to speak of."""
    if not vector.any():
        return None
    figures: Figures = histogram.read(vector)
    return figures
