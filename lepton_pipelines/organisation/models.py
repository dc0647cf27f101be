"""What is asked of model files: how many rounds they have, the same model with fewer, or without node statistics."""

from dataclasses import replace

import numpy as np

from lepton_pipelines.boosting.model_file import read_model, write_model
from lepton_pipelines.boosting.tree import NONE, Tree


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


def without_statistics(model: bytes) -> bytes:
    """Return the model without what predicting does not need: gains, hessians (cover) and weights of inner nodes.

    They tell how many rows went where in training, and what a smaller tree would have said of them. Stock XGBoost
    predicts the same; importance by gain or cover is zero, SHAP values and `refresh` have nothing to go by.
    """
    read = read_model(model)
    return write_model(replace(read, trees=tuple(map(_without_statistics, read.trees))))


def has_statistics(model: bytes) -> bool:
    """Tell whether every tree says how much stood in its nodes; SHAP values weigh branches by that."""
    return all(float(tree.hessian[0]) > 0 for tree in read_model(model).trees if len(tree) > 1)


def _without_statistics(tree: Tree) -> Tree:
    nothing = np.zeros(len(tree), np.float32)
    weight = np.where(tree.left == NONE, tree.base_weight, nothing).astype(np.float32)
    return replace(tree, gain=nothing, hessian=nothing, base_weight=weight)
