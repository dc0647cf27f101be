"""What can be done in the pool: work that needs nobody's private rows. A job is data; no code travels.

A benchmark has generated rows. Tuning has rows that their owner publishes (a shareable product). Scoring has one's own
rows, so it is done on one's own reserved computers, and what it names stays at home. Training on private rows is not
among it: rows stay where they are, whatever the pool has room for.
"""

import json
import secrets
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter, ValidationError

from lepton_pipelines.identity.private_files import make_private_folder, read_private, write_private
from lepton_pipelines.ledger.compute_entries import WorkAsked
from lepton_pipelines.ledger.documents import decode, encode
from lepton_pipelines.market.catalogue import offer
from lepton_pipelines.market.place import Place
from lepton_pipelines.pool.errors import PoolRefused
from lepton_pipelines.pool.reserving import reservation
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.fields import Name, SpecModel, Text
from lepton_pipelines.spec.pipeline import KeySplit
from lepton_pipelines.spec.yaml_file import read_model, read_yaml

MOST_CANDIDATES = 200
KINDS = ("benchmark", "tuning", "scoring")


class Benchmark(SpecModel):
    """Train on generated rows and say how long a round takes."""

    work: Literal["benchmark"]
    rows: int = Field(default=100_000, ge=1000, le=5_000_000, title="Rows", description="Generated.")
    columns: int = Field(default=28, ge=1, le=500, title="Columns", description="Generated.")
    rounds: int = Field(default=20, ge=1, le=1000, title="Rounds", description="Of each training.")
    max_depth: int = Field(default=6, ge=1, le=16, title="Depth", description="Of each tree.")
    repeats: int = Field(default=1, ge=1, le=100, title="Repeats", description="Trainings, side by side.")

    noun: ClassVar[str] = "field"


class Tuning(SpecModel):
    """Train every combination of parameters on a shareable product's rows, and score it on its validation rows."""

    work: Literal["tuning"]
    product: Annotated[Text, Field(pattern="^[^/]+/[^/]+$")] = Field(title="Product", description="OWNER/NAME.")
    licence: Text | None = Field(default=None, title="Licence", description="Refuse any other than this.")
    split: KeySplit = Field(title="Split", description="As in a pipeline: by a key.")
    objective: Text = Field(title="Objective", description="By XGBoost's names.")
    metric: Text | None = Field(default=None, title="Metric", description="XGBoost's; unset: the objective's own.")
    rounds: int = Field(default=50, ge=1, le=2000, title="Rounds", description="Of each training.")
    candidates: dict[str, list[float | int | str]] = Field(
        min_length=1, title="Candidates", description="By parameter, the values to try: every combination is."
    )

    noun: ClassVar[str] = "field"

    def combinations(self) -> list[dict[str, Any]]:
        """Return every combination, the parameters by name. Raises UserError for more than 200, or wrong ones."""
        names = sorted(self.candidates)
        found = [
            dict(zip(names, values, strict=True)) for values in product(*(self.candidates[each] for each in names))
        ]
        if not 0 < len(found) <= MOST_CANDIDATES:
            raise PoolRefused(f"candidates makes {len(found)} combinations: from 1 to {MOST_CANDIDATES} are taken.")
        for one in found:
            BoosterParameters.read(self.parameters(one))
        return found

    def parameters(self, candidate: dict[str, Any]) -> dict[str, Any]:
        """Return all parameters of one training."""
        metric = {} if self.metric is None else {"eval_metric": self.metric}
        return {"objective": self.objective, "nthread": 1, **metric, **candidate}


class Scoring(SpecModel):
    """Score one's own parquet files with a version of one's own registry."""

    work: Literal["scoring"]
    model: Name = Field(title="Model", description="Of the own registry.")
    version: int = Field(ge=1, title="Version", description="Its number.")
    source: Text = Field(title="Source", description="A parquet file, or a folder of some.")
    target: Text = Field(title="Target", description="Folder for the scored files.")

    noun: ClassVar[str] = "field"


Job = Benchmark | Tuning | Scoring
_MODELS: dict[str, type[Job]] = {"benchmark": Benchmark, "tuning": Tuning, "scoring": Scoring}
_JOB: TypeAdapter[Job] = TypeAdapter(Annotated[Job, Field(discriminator="work")])


def read_job(path: Path) -> Job:
    """Read a job's file. Raises UserError for anything but the three kinds of work."""
    document = read_yaml(path).data
    work = document.get("work") if isinstance(document, dict) else None
    if str(work) not in _MODELS:
        raise PoolRefused(
            f"{path}: work {work!r} is not done in the pool, which takes {', '.join(_MODELS)}. Training on private "
            "rows stays where the rows are: lepton run"
        )
    return read_model(_MODELS[str(work)], path)


def ask(place: Place, held: str, job: Job, folder: Path) -> str:
    """Ask for some work under a reservation; return its name. folder: where jobs that stay at home are kept.

    Raises UserError if it is not allowed: a product that is not shareable, other work than was reserved.
    """
    known = reservation(place.history().compute, held)
    if job.work != known.reserved.work:
        raise PoolRefused(
            f"{held} is reserved for {known.reserved.work}, the job is {job.work}. Reserve for {job.work}."
        )
    if isinstance(job, Tuning):
        job.combinations()
        refuse_private(place, job)
    name = f"j-{secrets.token_hex(4)}"
    told = job.model_dump(mode="json", exclude_none=True)
    if isinstance(job, Scoring):
        write_private(make_private_folder(folder) / f"{name}.json", json.dumps(told).encode())
        told = {"work": "scoring", "kept": "at home", "nonce": secrets.token_hex(16)}
    place.record(WorkAsked, job=name, reservation=held, work=job.work, document=place.put(encode(told)))
    return name


def load_job(place: Place, name: str, asked: WorkAsked, folder: Path) -> Job:
    """Return what was asked for. Raises PoolRefused if it is not one of the three kinds, or lies at another's home."""
    try:
        if asked.work == "scoring":
            job = _JOB.validate_json(read_private(folder / f"{name}.json", what="the job"))
        else:
            job = _JOB.validate_python(decode(place.get(asked.document)))
    except (ValidationError, ValueError) as error:
        raise PoolRefused(f"job {name} is malformed: {error}") from error
    if job.work != asked.work:
        raise PoolRefused(f"job {name} is {job.work}, asked was for {asked.work}.")
    return job


def refuse_private(place: Place, job: Tuning) -> None:
    """Refuse rows that their owner does not publish."""
    found = offer(place, job.product)
    if not found.entry.terms.shareable:
        raise PoolRefused(
            f"{job.product} is not shareable: private rows stay at home, whatever the pool has room for. Train on them "
            "where they are: lepton run"
        )
