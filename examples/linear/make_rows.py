"""Write the rows of two organisations: 1,000 and 2,000, whose truth is θ = [1, 1].

South's values lie elsewhere than north's and are spread differently, so that neither sees what the other does. The
same files come out every time.

Run from anywhere: python examples/linear/make_rows.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

TRUTH = np.array([1.0, 1.0])
NOISE = 0.1
SEED = 2026
# Rows, and of each column mean and standard deviation.
ORGANISATIONS = {"north": (1000, (0.0, 1.0), (0.0, 1.0)), "south": (2000, (2.0, 0.5), (-1.0, 0.25))}


def rows() -> dict[str, pd.DataFrame]:
    """Return each organisation's rows: row_id, x1, x2 and y."""
    random = np.random.default_rng(SEED)
    found, first = {}, 1
    for name, (count, *columns) in ORGANISATIONS.items():
        features = np.column_stack([random.normal(mean, spread, count) for mean, spread in columns])
        label = features @ TRUTH + random.normal(0.0, NOISE, count)
        number = np.arange(first, first + count, dtype=np.int64)
        found[name] = pd.DataFrame({"row_id": number, "x1": features[:, 0], "x2": features[:, 1], "y": label})
        first += count
    return found


def write(folder: Path) -> dict[str, Path]:
    """Write one parquet file an organisation into FOLDER/NAME/ and return the files by organisation."""
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
        sys.stdout.write(f"{name:6} {len(pd.read_parquet(path, columns=['row_id'])):5} rows: {path}\n")


if __name__ == "__main__":
    main()
