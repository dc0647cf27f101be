"""Publish a trained model: its run, its files and a new version of the registered model.

Publishing is idempotent by run id: a run that was published before gives the version that it had, and one that
was interrupted is completed. A version counts as published only after it was loaded back from the store and its
input example scored as the model's own bytes score it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from lepton_pipelines.registry.signature import InputColumn
from lepton_pipelines.registry.tracking import Tracking
from lepton_pipelines.spec.errors import UserError

CHALLENGER = "challenger"

RUN_ID_TAG = "lepton.run_id"
MODEL_DIGEST_TAG = "lepton.model_digest"
ALGORITHM_TAG = "lepton.algorithm"
PUBLISHED_TAG = "lepton.published"


@dataclass(frozen=True)
class RowsUsed:
    """A dataset that a model was trained on, as lineage: what it was, never what was in it.

    context: training, validation or test. digest: of the rows, salted by its owner. source: the data product's
    id or a description; an address only where the owner allows that.
    """

    organisation: str
    context: str
    digest: str
    rows: int | None = None
    source: str = ""


@dataclass(frozen=True)
class Publication:
    """What is published.

    run_id: ours, the key under which publishing is idempotent. experiment: the pipeline's name.
    algorithm: what trained the model. model: its model file; xgboost's is a stock XGBoost model file, UBJSON.
    columns: the model's raw input columns in its order.
    history: {row set: {metric: [score a round]}} of the federation; own_history: the same by organisation, of
    those that allow it. scores: final figures, logged as metrics under test/. files: {path below the run's
    artifacts: content}, the report and plots among them. tags: organisations, manifest digest, privacy settings.
    computed: {input column: how the model's caller computes it}, for derived columns.
    """

    run_id: str
    experiment: str
    registered_model: str
    model: bytes
    columns: Sequence[InputColumn]
    description: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    history: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    own_history: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    datasets: Sequence[RowsUsed] = ()
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    algorithm: str = "xgboost"
    computed: Mapping[str, str] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, object]:
        """What is stored beside the model's signature."""
        told: dict[str, object] = {"lepton_run_id": self.run_id}
        return told | ({"lepton_computed_inputs": dict(self.computed)} if self.computed else {})


@dataclass(frozen=True)
class Published:
    """A version in the registry. digest: SHA-256 of the model file, hex. address: of the run's page, or its URI."""

    registered_model: str
    version: str
    mlflow_run_id: str
    model_uri: str
    digest: str
    address: str


def publish(tracking: Tracking, publication: Publication) -> Published:
    """Publish a run and its model, give the new version the alias `challenger`, and load it back.

    Publishing the same run id again returns the same version. Raises UserError if the store refuses something,
    naming it, and if what was loaded back does not score the input example as the model's bytes do; then the
    version carries no alias.
    """
    from lepton_pipelines.registry.model_version import publish_version

    return publish_version(tracking, publication)


@contextmanager
def delivered_later(tracking: Tracking, run_id: str) -> Iterator[None]:
    """Say of an MLflow that fails within the block that nothing is lost, and how the rest is delivered.

    Raises UserError in place of what MLflow's client raises.
    """
    from lepton_pipelines.registry.model_version import store_failures

    try:
        yield
    except store_failures() as problem:
        told = str(problem).strip().partition("\n")[0].rstrip(".")
        raise UserError(
            f"MLflow at {tracking.shown} did not take all of run {run_id}: {told}. What was trained is kept; deliver "
            f"the rest with: lepton publish {run_id}"
        ) from problem


def attach(tracking: Tracking, published: Published, files: Mapping[str, str | bytes]) -> None:
    """Put files among the artifacts of a published run: the report and its plots, which tell of gates and decision.

    files: {path below the run's artifacts: content}. Doing it twice writes the same files again.
    """
    from lepton_pipelines.registry.model_version import log_files

    log_files(tracking.client(), published.mlflow_run_id, files)
