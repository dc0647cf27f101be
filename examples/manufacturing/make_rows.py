"""Write three plants' machines: generated, no real machine's.

A row is a machine at the end of a shift of eight hours in 2025: what its sensors say, what it made, how long ago it was
serviced. A machine wears by load and age; when wear passes a limit drawn for it, it fails within some shifts and is
repaired. There are three ways to fail, each with its own trace in the sensors: bearings (vibration rises for days),
heat (temperature and current rise under load), leaks (pressure falls). Every machine may fail in every way, but forge's
mostly overheat, bearing trouble is found at mill, and press's leak: so each plant has seen little of what will hit it
next. Some sensors fall out. The same files come out every time.

Run from anywhere: python examples/manufacturing/make_rows.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

SEED = 1095
SHIFTS = 3 * 365
AHEAD = 6  # shifts in which the failure to foresee lies: two days
# Machines, share of each way to fail (bearing, heat, leak), mean load, age in years.
PLANTS = {
    "forge": (36, (0.1, 0.8, 0.1), 0.75, 9),
    "mill": (24, (0.8, 0.1, 0.1), 0.6, 5),
    "press": (12, (0.1, 0.1, 0.8), 0.5, 3),
}
KINDS = ["lathe", "drill", "press"]


def machine(name: str, random: np.random.Generator, shares: tuple[float, ...], load: float, age: float) -> pd.DataFrame:
    """Return one machine's shifts."""
    loads = np.clip(random.normal(load, 0.15, SHIFTS), 0.1, 1.0)
    own = random.normal(0, 1, 3) * [0.3, 3.0, 0.2]  # no two machines sound alike
    service, traces, failed = np.zeros(SHIFTS), np.zeros((SHIFTS, 3)), np.zeros(SHIFTS, bool)
    since, wear, way, limit = 0, np.zeros(3), random.choice(3, p=shares), random.uniform(60, 200)
    for shift in range(SHIFTS):
        since += 1
        wear[way] += loads[shift] * (1 + age / 20) * random.gamma(2, 0.5)
        late = max(0.0, (wear[way] / limit - 0.8) / 0.2)  # begins to show when four fifths are worn
        traces[shift, way], service[shift] = late**1.5, since
        if wear[way] > limit:
            failed[shift], since, wear = True, 0, np.zeros(3)
            way, limit = random.choice(3, p=shares), random.uniform(60, 200)
    noise = random.normal(0, 1, (SHIFTS, 5))
    ahead = pd.Series(failed[::-1]).rolling(AHEAD, min_periods=1).max().to_numpy()[::-1].astype(bool)
    bearing, heat, leak = traces.T
    frame = pd.DataFrame(
        {
            "machine": name,
            "time": pd.date_range("2025-01-01 06:00", periods=SHIFTS, freq="8h"),
            "kind": random.choice(KINDS),
            "age": age + random.integers(0, 5),
            "load": loads.round(3),
            "since_service": service,
            "vibration": (2 + own[0] + loads + 2.5 * bearing + 0.5 * noise[:, 0]).round(3),
            "temperature": (55 + own[1] + 15 * loads + 18 * heat * loads + 3 * noise[:, 1]).round(1),
            "current": (12 + 9 * loads + 4 * heat + 1.0 * noise[:, 2]).round(2),
            "pressure": (6 + own[2] - 1.2 * leak + 0.25 * noise[:, 3]).round(3),
            "parts": np.rint(400 * loads * (1 - 0.1 * leak) + 10 * noise[:, 4]).clip(0),
            "fails": ahead,
        }
    )
    for sensor in ("vibration", "temperature", "pressure"):
        frame.loc[random.random(SHIFTS) < 0.03, sensor] = np.nan
    return frame[:-AHEAD]  # what comes after the last shifts is not known


def rows() -> dict[str, pd.DataFrame]:
    """Return each plant's rows in the order of time."""
    random = np.random.default_rng(SEED)
    found = {}
    for plant, (count, shares, load, age) in PLANTS.items():
        machines = [machine(f"{plant}-{place:02d}", random, shares, load, age) for place in range(1, count + 1)]
        found[plant] = pd.concat(machines).sort_values(["time", "machine"], ignore_index=True)
    return found


def write(folder: Path) -> dict[str, Path]:
    """Write one parquet file a plant into FOLDER/NAME/ and return the files by plant."""
    files = {}
    for name, frame in rows().items():
        files[name] = folder / name / "shifts.parquet"
        files[name].parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(files[name], index=False)
    return files


def main() -> None:
    """Write the files and say where they are."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    for name, path in write(folder).items():
        fails = pd.read_parquet(path, columns=["fails"])["fails"]
        sys.stdout.write(f"{name:6} {len(fails):6} rows, {fails.mean():4.1%} before a failure: {path}\n")


if __name__ == "__main__":
    main()
