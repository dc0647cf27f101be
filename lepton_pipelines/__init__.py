"""Lepton Pipelines: several organisations train one XGBoost model together, and none shows its rows."""

__version__ = "0.1.0"
