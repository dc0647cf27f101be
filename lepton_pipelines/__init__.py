"""Lepton Pipelines: several organisations train one XGBoost model together, and none shows its rows."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lepton_pipelines.boosting.api import train
    from lepton_pipelines.boosting.dataset import Dataset
    from lepton_pipelines.boosting.estimators import FederatedXGBClassifier, FederatedXGBRegressor
    from lepton_pipelines.organisation.simulation import simulate
    from lepton_pipelines.portal.client import Platform

__version__ = "0.1.0"
__all__ = ["Dataset", "FederatedXGBClassifier", "FederatedXGBRegressor", "Platform", "__version__", "simulate", "train"]

# Where the public names live: they bring NumPy, Numba and XGBoost, which `import lepton_pipelines` alone does not.
_HOMES = {
    "Dataset": "lepton_pipelines.boosting.dataset",
    "FederatedXGBClassifier": "lepton_pipelines.boosting.estimators",
    "FederatedXGBRegressor": "lepton_pipelines.boosting.estimators",
    "Platform": "lepton_pipelines.portal.client",
    "simulate": "lepton_pipelines.organisation.simulation",
    "train": "lepton_pipelines.boosting.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
