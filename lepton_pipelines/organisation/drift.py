"""Has what the model sees moved? Counts kept when it was trained, and later rows held against them.

Both are totals over all organisations, by secure sums: of every column's bins, of the label, of the predictions on
held-out rows. Bins are few and hold at least the disclosure limit's rows of the total when they are made; with fewer
fresh rows they are joined further. What is published are distances, never counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from lepton_pipelines.boosting.edges import SMALLEST_BIN
from lepton_pipelines.evaluation.drift import (
    MOST_BINS,
    ColumnBins,
    DriftCounts,
    affordable_bins,
    coarse_edges,
    compare_column,
    decay,
    score_bins,
)
from lepton_pipelines.evaluation.result import DriftLine, DriftReport, RegressionFigures, Scores
from lepton_pipelines.evaluation.score_histogram import task_of
from lepton_pipelines.federation.home_rules import WatchGuard
from lepton_pipelines.organisation.evaluating import Contender, Evaluating, class_names, shared_champion
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.rows import CountScores
from lepton_pipelines.organisation.wire import gather
from lepton_pipelines.registry.publishing import Published, attach
from lepton_pipelines.registry.run_files import read_run_file
from lepton_pipelines.registry.tracking import Tracking, open_existing
from lepton_pipelines.spec.contract import Contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Int64Array

if TYPE_CHECKING:
    from lepton_pipelines.organisation.run import OrganisationRun

REFERENCE_FILE = "drift-reference.json"
LABEL, PREDICTIONS = "label", "predictions"


class Counted(BaseModel):
    """A column's bins and how many rows each held, missing values last.

    edges: of a number, as `evaluation.drift.ColumnBins` has them. groups: of a category, which cell each code belongs
    to: categories with few rows share one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    edges: tuple[float, ...] = ()
    groups: tuple[int, ...] = ()
    counts: tuple[int, ...]

    def coarser(self, bins: int, smallest: int) -> "Counted":
        """Join a number's bins until there are at most so many, of at least so many rows."""
        if self.groups or not self.edges:
            return self
        counts = np.array(self.counts[:-1])
        kept = coarse_edges(self.edges, counts, bins=bins, smallest=smallest)
        return self.model_copy(update={"edges": kept, "counts": (*_joined(self.edges, counts, kept), self.counts[-1])})

    def bins(self, psi_limit: float) -> ColumnBins:
        """Say how rows are counted into these bins."""
        return ColumnBins(self.name, self.edges, max(self.groups, default=-1) + 1, psi_limit)


class Reference(BaseModel):
    """What a model saw when it was trained: totals over all organisations. rows: of all sets; held_out: of test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    held_out: int
    columns: list[Counted]
    label: Counted
    predictions: Counted
    scores: Scores


@dataclass(frozen=True)
class CountRows:
    """A step that counts what workers hold by bins, over all sets. groups: by place, a category's cells by code."""

    columns: tuple[ColumnBins, ...]
    label: ColumnBins
    groups: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def run(self, shard: Any) -> Int64Array:
        """Count: int64, (cells of the columns, then of the label)."""
        features, label = DriftCounts(self.columns), DriftCounts((self.label,))
        total = np.zeros(features.length + label.length, np.int64)
        for held in shard.sets.values():
            values = np.asarray(held.encoded.X, dtype=np.float64)
            for place, cells in self.groups.items():
                values[:, place] = _grouped(values[:, place], cells)
            labels = np.asarray(held.encoded.label, np.float64)[:, None]
            total += np.concatenate([features.count(values), label.count(labels)])
        return total


@dataclass(frozen=True)
class CountPredictions:
    """Counts predictions by bins; several classes by the one that is predicted."""

    bins: ColumnBins

    def __call__(self, label: Any, predicted: Any, weight: Any = None) -> Int64Array:
        """Count: int64, (cells,)."""
        found = np.asarray(predicted, np.float64)
        column = found.argmax(axis=1) if found.ndim == 2 else found
        return DriftCounts((self.bins,)).count(np.asarray(column, np.float64)[:, None])


def remember(part: "OrganisationRun") -> Reference | None:
    """Count what the model that was just trained has seen, together with the others, and keep it in the run's folder.

    None for models of other algorithms than the engine, which have no bins.
    """
    if not part.engine:
        return None
    fine = tuple(
        ColumnBins(name, categories=len(edges)) if categorical else ColumnBins(name, tuple(map(float, edges[:-1])))
        for name, edges, categorical in zip(
            part.features.names, part.binning.edges, part.binning.categorical, strict=True
        )
    )
    label, predictions = _outcome_bins(part)
    rows, held_out = _rows(part)
    total = _sum(part, "drift/rows seen", CountRows(fine, label), rows)
    cells = np.split(total, np.cumsum([column.cells for column in (*fine, label)])[:-1])
    columns = [_few(column, counts) for column, counts in zip(fine, cells[:-1], strict=True)]
    scored = _predictions(part, "drift/predictions then", part.model, predictions, held_out)
    figures = part.reports["evaluate"].figures  # type: ignore[attr-defined]
    reference = Reference(
        rows=rows,
        held_out=held_out,
        columns=columns,
        label=_kept(label, cells[-1]),
        predictions=_kept(predictions, scored),
        scores=figures.scores,
    )
    part.folder.write(str(reference_path(part.name)), reference.model_dump_json())
    return reference


def reference_path(organisation: str) -> Path:
    """Return where an organisation keeps a run's reference, below the run's folder."""
    return Path("organisations") / organisation / REFERENCE_FILE


def attach_reference(folder: RunFolder, publisher: str, published: Published, tracking: Tracking) -> None:
    """Put the publisher's copy of a run's reference beside the model in MLflow, if there is one."""
    path = folder.path / reference_path(publisher)
    if path.is_file():
        attach(tracking, published, {REFERENCE_FILE: path.read_bytes()})


def agree_to_compare(part: "OrganisationRun") -> bool:
    """Ask every organisation whether its rows may be compared today; part: with rows that were read and validated.

    Rows that differ by a few from an earlier run's may not: the difference of two totals would tell about them.
    """
    guard = part.guard if isinstance(part.guard, WatchGuard) else None
    ready = guard is None or guard.reason is None
    total = part.sums.sum("agreement/comparing", np.array([ready], np.int64), bound=len(part.pipeline.members))
    agreed = bool(total[0] == len(part.pipeline.members))
    if agreed and guard is not None:
        guard.note()
    return agreed


def watch(part: "OrganisationRun", *, worse: float) -> DriftReport:
    """Hold an organisation's rows, with the others', against what the champion saw when it was trained.

    part: with rows that were read and validated. worse: by what share of its value then the main score may be worse.
    Raises UserError if there is no champion, no reference, or too few rows.
    """
    champion, reference = _champion(part)
    rows, held_out = _rows(part)
    if held_out < SMALLEST_BIN:
        raise UserError(
            f"{part.pipeline.name}: {held_out} held-out rows over all organisations are too few to say anything of "
            f"them; {SMALLEST_BIN} are the least that are shown."
        )
    bins = affordable_bins(rows, SMALLEST_BIN)
    columns = [one.coarser(bins, SMALLEST_BIN) for one in reference.columns]
    limits = psi_limits(part.contract)
    counted = tuple(one.bins(limits.get(one.name, ColumnBins.psi_limit)) for one in columns)
    label, predictions = (
        reference.label.bins(_label_limit(part.contract)),
        reference.predictions.bins(ColumnBins.psi_limit),
    )
    groups = {place: one.groups for place, one in enumerate(columns) if one.groups}
    total = _sum(part, "drift/rows now", CountRows(counted, label, groups), rows)
    scored = _predictions(part, "drift/predictions now", champion.model, predictions, held_out)
    cells = np.split(total, np.cumsum([column.cells for column in (*counted, label)])[:-1])
    now = Evaluating(part).score(champion, held_out).scores
    worsening = decay(reference.scores, now)
    metric = _main_metric(part, reference.scores)
    if part.record is not None:
        part.record.finish(champion.model)
    return DriftReport(
        rows_before=reference.rows,
        rows_now=rows,
        columns=_lines(counted, columns, cells[:-1]),
        label=compare_column(label, np.array(reference.label.counts), cells[-1]),
        scores=compare_column(predictions, np.array(reference.predictions.counts), scored),
        decay=worsening,
        decay_limits={metric: worse * abs(reference.scores[metric])} if metric else {},
    )


def psi_limits(contract: Contract) -> dict[str, float]:
    """Return the drift that the contract allows, by column, where it says so."""
    return {column.name: column.drift.psi for column in contract.features if column.drift is not None}


def _label_limit(contract: Contract) -> float:
    label = contract.label
    return ColumnBins.psi_limit if label is None or label.drift is None else label.drift.psi


def _lines(bins: Sequence[ColumnBins], then: Sequence[Counted], now: Sequence[Int64Array]) -> list[DriftLine]:
    return [
        compare_column(column, np.array(before.counts), counts)
        for column, before, counts in zip(bins, then, now, strict=True)
    ]


def _champion(part: "OrganisationRun") -> tuple[Contender, Reference]:
    """Let the publisher hand champion and reference to everybody."""
    name = part.pipeline.model_name
    found = shared_champion(part, "drift/champion")
    if found is None:
        raise UserError(f"{name} has no champion to watch. Train one, or make one with: lepton promote {name}")
    version = found.version

    def say() -> bytes:
        if not part.publishes:
            return b""
        tracking = open_existing(part.organisation.tracking.mlflow, folder=part.folder.var.absolute())
        return read_run_file(tracking, name, version, REFERENCE_FILE) or b""

    document = part.once("drift/reference", say)
    told = gather(part.sums, "drift/reference", member=part.name, members=part.pipeline.members, document=document)
    if not (kept := told[part.pipeline.publisher]):
        raise UserError(
            f"{name} v{found.version} was published without {REFERENCE_FILE}, so there is nothing to compare with: it "
            f"is of algorithm {found.algorithm} or of an older release. Train it again with algorithm xgboost."
        )
    return Contender("champion", "champion", found.model, found.algorithm), Reference.model_validate_json(kept)


def _rows(part: "OrganisationRun") -> tuple[int, int]:
    """Add up how many rows there are in all sets, and held out."""
    own = np.array([part.summary.total, part.summary.rows["test"]], np.int64)
    rows, held_out = part.sums.sum("drift/row counts", own, bound=1 << 40)
    return int(rows), int(held_out)


def _sum(part: "OrganisationRun", name: str, step: CountRows, rows: int) -> Int64Array:
    return part.sums.sum(name, part.rows.add_up(step), bound=max(1, rows))


def _predictions(part: "OrganisationRun", name: str, model: bytes, bins: ColumnBins, rows: int) -> Int64Array:
    objective = part.pipeline.training.objective
    step = CountScores(model, objective, CountPredictions(bins), threads=part.threads)
    return part.sums.sum(name, part.rows.add_up(step), bound=max(1, rows))


def _outcome_bins(part: "OrganisationRun") -> tuple[ColumnBins, ColumnBins]:
    """Say how the label and the predictions are counted."""
    task = task_of(part.pipeline.training.objective)
    if task == "regression":
        figures: RegressionFigures = part.reports["evaluate"].figures  # type: ignore[attr-defined]
        inner = tuple(figures.value_edges[1:-1])
        return ColumnBins(LABEL, inner), ColumnBins(PREDICTIONS, inner)
    classes = len(class_names(part.label, getattr(part.parameters, "num_class", 0)))
    label = ColumnBins(LABEL, categories=classes)
    return label, score_bins() if task == "binary" else ColumnBins(PREDICTIONS, categories=classes)


def _few(column: ColumnBins, counts: Int64Array) -> Counted:
    """Join fine bins to a few that hold enough rows; categories with few rows to one."""
    if not column.categories:
        everything = Counted(name=column.name, edges=column.edges, counts=tuple(counts.tolist()))
        return everything.coarser(MOST_BINS, SMALLEST_BIN)
    some = counts[:-1]
    large = np.flatnonzero(some >= SMALLEST_BIN)
    groups = np.full(len(some), len(large))
    groups[large] = np.arange(len(large))
    joined = np.bincount(groups, weights=some, minlength=int(groups.max()) + 1).astype(np.int64)
    told = (*joined.tolist(), int(counts[-1]))
    return Counted(name=column.name, groups=tuple(groups.tolist()), counts=told)


def _kept(column: ColumnBins, counts: Int64Array) -> Counted:
    return Counted(
        name=column.name,
        edges=column.edges,
        groups=tuple(range(column.categories)),
        counts=tuple(counts.tolist()),
    )


def _joined(edges: Sequence[float], counts: Int64Array, kept: Sequence[float]) -> list[int]:
    """Add up the counts of the bins between the edges that are kept."""
    ends = np.searchsorted(np.asarray(edges), np.asarray(kept)) + 1
    return [int(piece.sum()) for piece in np.split(counts, ends)]


def _grouped(codes: "np.ndarray[Any, Any]", cells: Sequence[int]) -> "np.ndarray[Any, Any]":
    """Return the cell of each code; missing stays missing."""
    there = ~np.isnan(codes)
    found = np.full(len(codes), np.nan)
    found[there] = np.asarray(cells, np.float64)[codes[there].astype(np.intp)]
    return found


def _main_metric(part: "OrganisationRun", scores: Scores) -> str | None:
    main = {"binary": "auc", "multiclass": "mlogloss", "regression": "rmse"}[task_of(part.pipeline.training.objective)]
    return main if main in scores else None
