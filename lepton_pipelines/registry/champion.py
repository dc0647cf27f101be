"""The model in use: its bytes, for comparing a new one with it on the same held-out rows."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lepton_pipelines.registry.other_models import other_model_file
from lepton_pipelines.registry.promotion import CHAMPION, holder
from lepton_pipelines.registry.publishing import ALGORITHM_TAG, MODEL_DIGEST_TAG
from lepton_pipelines.registry.tracking import Tracking, open_tracking, quiet_logging
from lepton_pipelines.spec.errors import UserError

MODEL_FILE = "model.ubj"
CATEGORIES_FILE = "categories.json"


@dataclass(frozen=True)
class RegisteredModel:
    """A version's model file. digest: SHA-256 of `model`, hex, as it was when it was published.

    algorithm: that it is a model file of. categories: of its columns, in the order of their codes, if it is XGBoost's.
    """

    name: str
    version: str
    model: bytes
    digest: str
    algorithm: str = "xgboost"
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenRegistry:
    """A registry that answered when a run began, and the champion of then. name: of the registered model."""

    tracking: Tracking
    name: str
    before: RegisteredModel | None

    def champion(self, notice: Callable[[str], None]) -> RegisteredModel | None:
        """Return the champion of now; if MLflow is away by now, that of when the run began, and say so to `notice`."""
        from lepton_pipelines.registry.model_version import store_failures

        away: tuple[type[Exception], ...] = (UserError, *store_failures())
        try:
            return load_champion(self.tracking, self.name)
        except away:
            notice("MLflow is away: the model is compared with the champion of when the run began")
            return self.before


def open_registry(uri: str | None, *, folder: Path, name: str) -> OpenRegistry:
    """Open a run's registry before anything is trained. uri, folder: as `open_tracking` takes them.

    Raises UserError if it does not answer, or if the champion's file cannot be read.
    """
    tracking = open_tracking(uri, folder=folder)
    return OpenRegistry(tracking, name, load_champion(tracking, name))


def load_champion(tracking: Tracking, name: str) -> RegisteredModel | None:
    """Load the champion; None if there is none yet, or if the version that was champion has been deleted."""
    found = holder(tracking, name, CHAMPION)
    return None if found is None else load_version(tracking, name, found.number)


def load_version(tracking: Tracking, name: str, version: str) -> RegisteredModel:
    """Load a version's model file and check its digest.

    Raises UserError if the file cannot be read or is not the one that was published.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="lepton-") as folder, tracking.as_current(), quiet_logging():
        try:
            found = tracking.client().get_model_version(name, version)
            algorithm = found.tags.get(ALGORITHM_TAG, "xgboost")
            # MLflow's folder of another algorithm's model holds what is served; the model file lies with the run.
            categories = {}
            if algorithm == "xgboost":
                files = Path(download_artifacts(artifact_uri=f"models:/{name}/{version}", dst_path=folder))
                path = files / MODEL_FILE
                if (known := files / CATEGORIES_FILE).exists():
                    categories = json.loads(known.read_text())
            else:
                place = f"runs:/{found.run_id}/{other_model_file(algorithm)}"
                path = Path(download_artifacts(artifact_uri=place, dst_path=folder))
            model = path.read_bytes()
        except (MlflowException, OSError) as problem:
            raise UserError(
                f"{name} v{version} is registered but its file cannot be read: {problem}. Delete the version or "
                f"restore MLflow's artifacts."
            ) from problem
    digest = hashlib.sha256(model).hexdigest()
    published = found.tags.get(MODEL_DIGEST_TAG, digest)
    if digest != published:
        raise UserError(
            f"{name} v{version} is not the file that was published: its digest is {digest[:12]}…, published was "
            f"{published[:12]}…. Do not use it; delete the version."
        )
    return RegisteredModel(name, version, model, digest, algorithm, categories)
