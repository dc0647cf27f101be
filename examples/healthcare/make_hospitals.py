"""Write the rows of three hospitals: scikit-learn's breast cancer patients, dealt out with a skew on purpose.

Large tumours are sent to north, small ones stay in valley, as a specialised clinic and a country practice would
see them: about 61, 32 and 12 % of their patients have a malignant tumour. The same files come out every time.

Run from anywhere: python examples/healthcare/make_hospitals.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer

HOSPITALS = {"north": 214, "harbour": 187, "valley": 168}
SEED = 569
# How far chance blurs the rule "large tumours go north", as a share of the ranks.
BLUR = 0.38


def patients() -> pd.DataFrame:
    """Return the 569 patients with snake-case columns, a patient_id, and malignant as 0 or 1."""
    bunch = load_breast_cancer(as_frame=True)
    frame = bunch.data.rename(columns=lambda name: name.replace(" ", "_"))
    frame.insert(0, "patient_id", np.arange(4001, 4001 + len(frame), dtype=np.int64))
    # scikit-learn codes malignant as 0.
    return frame.assign(malignant=(1 - bunch.target).astype(np.int64))


def deal(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Deal the patients out to the hospitals by the size of the tumour, blurred by seeded chance."""
    rank = frame["mean_radius"].rank().to_numpy() / len(frame)
    blurred = rank + BLUR * np.random.default_rng(SEED).standard_normal(len(frame))
    order = np.argsort(-blurred, kind="stable")
    ends = np.cumsum(list(HOSPITALS.values()))
    parts = np.split(order, ends[:-1])
    return {name: frame.iloc[np.sort(rows)].reset_index(drop=True) for name, rows in zip(HOSPITALS, parts, strict=True)}


def write(folder: Path) -> dict[str, Path]:
    """Write one parquet file a hospital into FOLDER/NAME/ and return the files by hospital."""
    files = {}
    for name, rows in deal(patients()).items():
        files[name] = folder / name / "patients.parquet"
        files[name].parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(files[name], index=False)
    return files


def main() -> None:
    """Write the files and say where they are."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    for name, path in write(folder).items():
        rows = pd.read_parquet(path, columns=["malignant"])
        share = float(rows["malignant"].mean())
        sys.stdout.write(f"{name:8} {len(rows):4} rows, {share:4.0%} malignant: {path}\n")


if __name__ == "__main__":
    main()
