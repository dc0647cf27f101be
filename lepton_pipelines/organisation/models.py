"""What is asked of model files: how many rounds they have, and the same model with fewer."""

from dataclasses import replace

from lepton_pipelines.boosting.model_file import read_model, write_model


def rounds_of(model: bytes) -> int:
    """Return how many boosting rounds a model file holds."""
    return len(read_model(model).rounds) - 1


def first_rounds(model: bytes, rounds: int) -> bytes:
    """Return the model of the first rounds only: what early stopping found best, and what is to be served.

    A booster with later trees and a `best_iteration` would be served with all of them: MLflow's model server, like
    `Booster.predict`, does not look at the attribute.
    """
    read = read_model(model)
    kept = read.rounds[: rounds + 1]
    return write_model(replace(read, trees=tuple(read.trees[: kept[-1]]), rounds=kept))
