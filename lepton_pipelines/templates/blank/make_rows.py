"""Write rows to begin with, until there are real ones: generated, nobody's data. The same files come out every time.

Run from anywhere: python make_rows.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROWS = {"first": 600, "second": 400, "third": 300}
KINDS = ["plain", "special", "rare"]
SEED = 7


def rows() -> dict[str, pd.DataFrame]:
    """Return each organisation's rows."""
    random, found, number = np.random.default_rng(SEED), {}, 1
    for place, (name, count) in enumerate(ROWS.items()):
        amount = random.lognormal(3 + 0.3 * place, 1, count).round(2)
        counted = random.poisson(4 + place, count)
        kind = random.choice(3, count, p=[0.6, 0.3, 0.1])
        active = random.random(count) < 0.5
        risk = 0.8 * np.log(amount) - 0.4 * counted + kind - np.where(active, 1.0, 0.0) - 1.2
        found[name] = pd.DataFrame(
            {
                "row_id": np.arange(number, number + count),
                "amount": np.where(random.random(count) < 0.05, np.nan, amount),
                "count": counted,
                "kind": np.array(KINDS)[kind],
                "active": active,
                "outcome": (random.random(count) < 1 / (1 + np.exp(-risk))).astype(np.int64),
            }
        )
        number += count
    return found


def write(folder: Path) -> dict[str, Path]:
    """Write one parquet file an organisation into FOLDER/NAME/ and return the files."""
    files = {}
    for name, frame in rows().items():
        files[name] = folder / name / "rows.parquet"
        files[name].parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(files[name], index=False)
    return files


def main() -> None:
    """Write the files and say where they are."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    for name, path in write(folder).items():
        sys.stdout.write(f"{name:8} {path}\n")


if __name__ == "__main__":
    main()
