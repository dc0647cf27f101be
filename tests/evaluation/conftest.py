"""Rows with scores, as hypothesis and numpy make them."""

import numpy as np
import pytest


@pytest.fixture
def scored_rows():
    """A maker of labels and probabilities of a model that is neither useless nor perfect."""

    def make(rows: int = 4000, seed: int = 0):
        rng = np.random.default_rng(seed)
        margin = rng.normal(0, 2.5, rows).astype(np.float32)
        label = (margin + rng.normal(0, 2.5, rows) > 0.7).astype(np.float32)
        return label, (1 / (1 + np.exp(-margin))).astype(np.float32)

    return make
