"""Registering models of algorithms other than the engine's: logged by the algorithm, loaded back, compared.

The algorithm logs its model in one of MLflow's own flavours, so that a stock server answers with it. What it was
trained to predict is held against what that answers.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lepton_pipelines.registry.publishing import Publication
from lepton_pipelines.registry.signature import InputColumn, input_example, signature_of
from lepton_pipelines.spec.algorithm import find_algorithm
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

ROUNDING = 1e-6  # a stock library may add up in another order, and in float32


def other_model_file(algorithm: str) -> str:
    """Return where among a run's artifacts an algorithm's model file lies."""
    return f"model-file/model.{algorithm}"


def files_of(publication: Publication) -> Mapping[str, str | bytes]:
    """Return the run's files, the model file among them."""
    return {**publication.files, other_model_file(publication.algorithm): publication.model}


def complete_example(columns: Sequence[InputColumn]) -> "pd.DataFrame":
    """Make up one row without gaps: not every algorithm takes missing values."""
    return input_example(columns)[:1]


def log_other_model(publication: Publication) -> str:
    """Let the algorithm log its model in the active run; return the logged model's id."""
    example = complete_example(publication.columns)
    expected = predicted(publication, example)
    outputs = 1 if expected.ndim == 1 else expected.shape[1]
    logged = find_algorithm(publication.algorithm).log_model(
        publication.model,
        name="model",
        signature=signature_of(publication.columns, outputs),
        input_example=example,
        metadata=publication.metadata,
    )
    return str(logged.model_id)


def predicted(publication: Publication, rows: "pd.DataFrame") -> "NDArray[np.float64]":
    """Predict raw rows with the model file."""
    import numpy as np

    coded = np.column_stack(
        [
            [column.categories.index(value) for value in rows[column.name]]
            if column.kind == "category"
            else rows[column.name].astype(np.float64)
            for column in publication.columns
        ]
    ).astype(np.float64)
    return np.asarray(find_algorithm(publication.algorithm).predict(publication.model, coded), np.float64)


def check_loaded(publication: Publication, model_uri: str, loaded: Any) -> None:
    """Compare what a loaded model answers with what the model file predicts. Raises UserError if they differ.

    A stock classifier may answer the probabilities of both classes where the model file predicts that of class 1.
    """
    import numpy as np

    example = complete_example(publication.columns)
    expected = predicted(publication, example)
    found = np.asarray(loaded.predict(example), np.float64)
    if expected.ndim == 1 and found.ndim == 2 and found.shape[1] == 2:
        found = found[:, 1]
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=ROUNDING, atol=ROUNDING):
        raise UserError(
            f"{model_uri} answers its input example with {found.tolist()}, the trained model with "
            f"{expected.tolist()}. It is not published; check the algorithm's log_model."
        )
