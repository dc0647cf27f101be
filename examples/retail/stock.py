"""What a forecast is worth: how much to order for tomorrow, and what it costs to be wrong.

A piece that is missing costs its margin, one that is left over its waste. The cheapest order is the quantile of demand
at margin / (margin + waste); demand is taken as negative binomial around the forecast, as spread out as the chain's
own residuals on the validation days say. For every chain the same rule is applied to four forecasts of the held-out
days: what was sold a week ago, XGBoost trained on the chain's rows alone, the federated model, and the true demand.

Run after `lepton run examples/retail/pipeline.yaml`:
    python examples/retail/stock.py var/runs/RUN/organisations/city/model.ubj
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost
from scipy.stats import nbinom

from lepton_pipelines.data.derived import derive_frame
from lepton_pipelines.spec.pipeline import read_pipeline

HERE = Path(__file__).parent
MARGIN, WASTE = 0.35, 0.6  # of the list price: a missing piece, a piece left over
PARAMETERS = {
    "objective": "count:poisson",
    "max_depth": 6,
    "learning_rate": 0.1,
    "min_child_weight": 50,
    "eval_metric": "poisson-nloglik",
}


def matrix(features: pd.DataFrame, categories: dict[str, list[str]], label: pd.Series | None = None) -> xgboost.DMatrix:
    """Make XGBoost's matrix of features: categories are codes in the contract's order."""
    codes = {
        name: features[name].map({text: place for place, text in enumerate(known)})
        for name, known in categories.items()
    }
    values = features.assign(**codes).astype("float32")
    types = ["c" if name in categories else "q" for name in values.columns]
    return xgboost.DMatrix(
        values.to_numpy(), label, feature_names=list(values.columns), feature_types=types, enable_categorical=True
    )


def orders(forecast: np.ndarray, dispersion: float) -> np.ndarray:
    """Return how much to order: the quantile of demand around a forecast. dispersion: variance is m + d · m²."""
    mean = np.maximum(forecast, 0.01)
    size = 1 / max(dispersion, 1e-6)
    return nbinom.ppf(MARGIN / (MARGIN + WASTE), size, size / (size + mean))


def dispersion_of(forecast: np.ndarray, sold: np.ndarray) -> float:
    """Return by how much more than Poisson's demand spreads around a forecast, by moments."""
    return float(max(np.sum((sold - forecast) ** 2 - forecast) / np.sum(forecast**2), 0.0))


def cost(ordered: np.ndarray, sold: np.ndarray, price: np.ndarray) -> float:
    """Return what an order's errors cost, in euros."""
    return float(np.sum(price * (MARGIN * np.maximum(sold - ordered, 0) + WASTE * np.maximum(ordered - sold, 0))))


def main() -> None:
    """Print each chain's cost a day, by forecast."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    federated = xgboost.Booster(model_file=sys.argv[1])
    pipeline = read_pipeline(HERE / "pipeline.yaml")
    contract, split = pipeline.read_contract(), pipeline.split
    totals: dict[str, float] = {}
    for chain in pipeline.organisations:
        rows = pd.read_parquet(HERE / "data" / chain / "sales.parquet")
        features = derive_frame(rows, contract)
        test = (rows["day"] >= split.test_from).to_numpy()
        valid = (rows["day"] >= split.valid_from).to_numpy() & ~test
        train = ~(valid | test)
        sold, price = rows["sold"].to_numpy(float), rows["list_price"].to_numpy()
        known = {
            name: matrix(features[part], contract.feature_categories, rows["sold"][part])
            for name, part in (("train", train), ("valid", valid))
        }
        alone = xgboost.train(
            PARAMETERS,
            known["train"],
            300,
            evals=[(known["valid"], "valid")],
            early_stopping_rounds=20,
            verbose_eval=False,
        )
        everything = matrix(features, contract.feature_categories)
        forecasts = {
            "a week ago": features["sold_a_week_ago"].fillna(features["sold_28_days"]).fillna(0).to_numpy(),
            "alone": alone.predict(everything, iteration_range=(0, alone.best_iteration + 1)),
            "federated": federated.predict(everything),
        }
        days = rows["day"][test].nunique()
        told = []
        for name, forecast in forecasts.items():
            ordered = orders(forecast[test], dispersion_of(forecast[valid], sold[valid]))
            each = cost(ordered, sold[test], price[test]) / days
            totals[name] = totals.get(name, 0) + each
            told.append(f"{name} {each:8.2f}")
        sys.stdout.write(f"{chain:9} euros a day: {', '.join(told)}\n")
    sys.stdout.write(f"together  euros a day: {', '.join(f'{name} {each:8.2f}' for name, each in totals.items())}\n")


if __name__ == "__main__":
    main()
