"""Skew: what a federation is worth when organisations see different rows.

    python benchmarks/skew.py

Four organisations share 40,000 generated rows with twelve columns, in four ways: all alike; label skew (each has its
own share of positives); quantity skew (one has most rows); feature skew (each has its own range of the three columns
that matter most). On the same 20,000 rows of the whole: the federated model, stock XGBoost on the pooled rows (with its
own bin edges), each organisation alone, and bagging, which is the mean of the lone models' margins (what an exchange
of trained models gives).
"""

import argparse

import numpy as np
import xgboost
from sklearn.metrics import log_loss, roc_auc_score

import lepton_pipelines as lp

ORGANISATIONS, ROWS, HELD_OUT, COLUMNS, ROUNDS = 4, 40_000, 20_000, 12, 100
PARAMETERS = {"objective": "binary:logistic", "max_depth": 5, "learning_rate": 0.1, "min_child_weight": 5}

Rows = tuple[np.ndarray, np.ndarray]


def generated(random: np.random.Generator, rows: int) -> Rows:
    """Rows whose label depends on steps, a product and a wave: nothing that a few rows would show."""
    X = random.standard_normal((rows, COLUMNS), np.float32)
    score = 1.5 * np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + (X[:, 3] > 0.5) - 0.5 * (X[:, 4] < -0.5) + 0.5 * X[:, 5]
    return X, (random.random(rows) < 1 / (1 + np.exp(-score))).astype(np.float32)


def alike(random: np.random.Generator, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Deal rows out by chance."""
    return random.integers(0, ORGANISATIONS, len(y))


def by_label(random: np.random.Generator, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Deal most positives to the first and most negatives to the last."""
    shares = np.array([[0.05, 0.15, 0.3, 0.5], [0.5, 0.3, 0.15, 0.05]])
    ends = shares[y.astype(int)].cumsum(axis=1)
    return (random.random(len(y))[:, None] > ends).sum(axis=1)


def by_quantity(random: np.random.Generator, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Deal four fifths to the first, a hundredth to the last."""
    return random.choice(ORGANISATIONS, len(y), p=[0.8, 0.14, 0.05, 0.01])


def by_feature(random: np.random.Generator, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Deal rows out by the sum of three columns, blurred a little."""
    score = X[:, 0] + X[:, 1] + X[:, 2] + 0.3 * random.standard_normal(len(y))
    return np.digitize(score, np.quantile(score, [0.25, 0.5, 0.75]))


SKEWS = {"none": alike, "label": by_label, "quantity": by_quantity, "feature": by_feature}


def scores(y: np.ndarray, margin: np.ndarray) -> str:
    """Write AUC and log loss of margins."""
    probability = 1 / (1 + np.exp(-margin.astype(np.float64)))
    return f"{roc_auc_score(y, probability):.4f} / {log_loss(y, probability):.4f}"


def alone(X: np.ndarray, y: np.ndarray) -> xgboost.Booster:
    """Train XGBoost on one organisation's rows."""
    return xgboost.train(PARAMETERS, xgboost.QuantileDMatrix(X, y, max_bin=256), ROUNDS)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("| skew | federated | pooled | alone: best, median, worst by log loss | bagging |")
    print("| --- | --- | --- | --- | --- |")
    test_X, test_y = generated(np.random.default_rng(1), HELD_OUT)
    test = xgboost.DMatrix(test_X)
    for name, deal in SKEWS.items():
        random = np.random.default_rng(7)
        X, y = generated(random, ROWS)
        part = deal(random, X, y)
        parts = [(X[part == k], y[part == k]) for k in range(ORGANISATIONS)]
        federated = lp.simulate(PARAMETERS, [lp.Dataset(*rows) for rows in parts], ROUNDS)
        pooled = alone(X, y)
        margins = [alone(*rows).predict(test, output_margin=True) for rows in parts]
        by_loss = sorted((scores(test_y, margin) for margin in margins), key=lambda told: float(told.split("/")[1]))
        lone = ", ".join((by_loss[0], by_loss[len(by_loss) // 2], by_loss[-1]))
        cells = [
            scores(test_y, federated.predict(test, output_margin=True)),
            scores(test_y, pooled.predict(test, output_margin=True)),
            lone,
            scores(test_y, np.mean(margins, axis=0)),
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
