"""Write three banks' customers in the shape of the public set: generated, nobody's data.

For where the set cannot be fetched.

Bills follow the credit limit, delays the bills and a trait of the customer that is not in the rows; default follows
the delays, what was paid and how much of the limit is used. The same files come out every time.

Run from anywhere: python examples/finance/make_rows.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

CUSTOMERS = {"private": 3000, "regional": 2000, "universal": 4000}
EDUCATION = {"private": [1], "regional": [3, 4], "universal": [2]}
LIMITS = {"private": 12.1, "regional": 11.3, "universal": 11.6}
SEED = 350
MONTHS = 6


def customers(bank: str, first: int, random: np.random.Generator) -> pd.DataFrame:
    """Return a bank's customers, numbered from `first` on."""
    count = CUSTOMERS[bank]
    limit = np.clip(np.exp(random.normal(LIMITS[bank], 0.7, count)), 10_000, 800_000).round(-4)
    trouble = random.normal(0, 1, count)
    used = 1 / (1 + np.exp(-(0.9 * trouble + random.normal(-0.4, 1, count))))
    columns: dict[str, np.ndarray] = {
        "customer_id": np.arange(first, first + count),
        "LIMIT_BAL": limit,
        "SEX": random.choice([1, 2], count, p=[0.4, 0.6]),
        "EDUCATION": random.choice(EDUCATION[bank], count),
        "MARRIAGE": random.choice([1, 2, 3], count, p=[0.45, 0.53, 0.02]),
        "AGE": np.clip(random.normal(36, 9, count), 21, 79),
    }
    delays, bills, paid = [], [], []
    for _ in range(MONTHS):
        late = 1.4 * trouble + random.normal(-1.2, 0.8, count)
        delays.append(np.where(late > 0.4, np.clip(np.ceil(late), 1, 8), np.where(used < 0.15, -1, 0)))
        bills.append(limit * used * random.uniform(0.8, 1.1, count))
        paid.append(bills[-1] * np.clip(random.normal(0.25 - 0.1 * trouble, 0.1, count), 0, 1))
    months = [0, 2, 3, 4, 5, 6]
    columns |= {f"PAY_{month}": each for month, each in zip(months, delays, strict=True)}
    columns |= {f"BILL_AMT{month}": each for month, each in enumerate(bills, 1)}
    columns |= {f"PAY_AMT{month}": each for month, each in enumerate(paid, 1)}
    risk = 1.3 * trouble + 0.5 * delays[0] + 0.8 * used - 2.6
    columns["default_next_month"] = random.random(count) < 1 / (1 + np.exp(-risk))
    return pd.DataFrame({name: np.asarray(values).astype(np.int64) for name, values in columns.items()})


def write(folder: Path) -> dict[str, Path]:
    """Write one parquet file a bank into FOLDER/NAME/ and return the files by bank."""
    random, files, first = np.random.default_rng(SEED), {}, 1
    for bank, count in CUSTOMERS.items():
        files[bank] = folder / bank / "rows.parquet"
        files[bank].parent.mkdir(parents=True, exist_ok=True)
        customers(bank, first, random).to_parquet(files[bank], index=False)
        first += count
    return files


def main() -> None:
    """Write the files and say where they are."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    for bank, path in write(folder).items():
        rows = pd.read_parquet(path, columns=["default_next_month"])
        share = float(rows["default_next_month"].mean())
        sys.stdout.write(f"{bank:9} {len(rows):5} rows, {share:4.0%} default: {path}\n")


if __name__ == "__main__":
    main()
