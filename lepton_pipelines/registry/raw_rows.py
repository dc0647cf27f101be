"""Save an XGBoost model with categories so that stock MLflow scores raw rows with it.

MLflow's XGBoost flavor passes a frame straight to XGBoost, which refuses text; JSON and CSV have nothing else
for a category. So the saved model is MLflow's XGBoost model (`mlflow.xgboost.load_model` gives the booster) whose
`python_function` flavor loads a small module that is saved with it and maps each text to its code. Models
without categories do not need this and are MLflow's own in full.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LOADER = Path(__file__).with_name("raw_rows_loader.py")


def save_model(
    path: str, *, mlflow_model: Any, booster: Any, categories: Mapping[str, Sequence[str]], **settings: Any
) -> None:
    """Write a model folder; what `mlflow.models.Model.log` calls of a flavor.

    categories: {column: texts in the order of their codes}. settings: as `mlflow.xgboost.save_model` takes them.
    """
    import mlflow.pyfunc
    import mlflow.xgboost

    mlflow.xgboost.save_model(booster, path, mlflow_model=mlflow_model, code_paths=[str(LOADER)], **settings)
    folder = Path(path)
    (folder / "categories.json").write_text(json.dumps({name: list(known) for name, known in categories.items()}))
    native = mlflow_model.flavors.pop(mlflow.pyfunc.FLAVOR_NAME)
    mlflow.pyfunc.add_to_model(
        mlflow_model,
        loader_module=LOADER.stem,
        data=".",
        code=native["code"],
        conda_env=native["env"]["conda"],
        python_env=native["env"]["virtualenv"],
    )
    mlflow_model.save(str(folder / "MLmodel"))
