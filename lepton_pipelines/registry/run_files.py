"""A file that lies beside a registered version: with the MLflow run that it came from."""

import tempfile
from pathlib import Path

from lepton_pipelines.registry.tracking import Tracking, quiet_logging


def read_run_file(tracking: Tracking, model: str, version: str, name: str) -> bytes | None:
    """Return a file among the artifacts of a version's run; None if there is none of this name."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    run = tracking.client().get_model_version(model, version).run_id
    with tempfile.TemporaryDirectory(prefix="lepton-") as folder, tracking.as_current(), quiet_logging():
        try:
            return Path(download_artifacts(artifact_uri=f"runs:/{run}/{name}", dst_path=folder)).read_bytes()
        except (MlflowException, OSError):
            return None
