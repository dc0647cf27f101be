"""Write three utilities' substations: generated, no real grid's.

A row is an hour of 2025 at a substation: its load in megawatts, with the weather that was forecast for the hour. Load
follows the hour and weekday of homes, offices and industry, of which every substation has its own mixture, and heating
and cooling beyond comfortable temperatures. The utilities differ in size, mixture and climate: valley has cold winters,
coast mild ones and tourists in summer, metro offices and air conditioning. In the middle of December a cold wave comes
to all of them; coast had none before. Some weather forecasts are missing. The same files come out every time.

Run from anywhere: python examples/grid-load/make_rows.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

SEED = 8760
# Substations, mean temperature, its swing over the year, shares of homes, offices and industry, tourists in summer.
UTILITIES = {
    "valley": (5, 8.0, 12.0, (0.5, 0.2, 0.3), 0.0),
    "metro": (3, 13.0, 10.0, (0.3, 0.6, 0.1), 0.0),
    "coast": (2, 15.0, 5.0, (0.7, 0.2, 0.1), 0.5),
}
HOLIDAYS = pd.to_datetime([f"2025-{day}" for day in ("01-01", "04-18", "04-21", "05-01", "10-03", "12-25", "12-26")])


def shapes(hours: pd.DatetimeIndex) -> np.ndarray:
    """Return how much homes, offices and industry take in each hour, (hours, 3)."""
    hour, free = hours.hour.to_numpy(), (hours.day_of_week >= 5) | hours.normalize().isin(HOLIDAYS)
    homes = 0.6 + 0.35 * np.exp(-(((hour - 19) / 3) ** 2)) + 0.2 * np.exp(-(((hour - 7.5) / 1.5) ** 2)) + 0.1 * free
    offices = np.where(free, 0.35, 0.35 + 0.65 * ((hour >= 8) & (hour < 18)))
    industry = np.where(free, 0.6, 0.8 + 0.2 * ((hour >= 6) & (hour < 22)))
    return np.column_stack([homes, offices, industry])


def weather(hours: pd.DatetimeIndex, mean: float, swing: float, random: np.random.Generator) -> np.ndarray:
    """Return the temperature: season, time of day, weather that lasts, and the cold wave of December."""
    season = mean - swing * np.cos(2 * np.pi * (hours.day_of_year.to_numpy() - 20) / 365)
    daily = 0.3 * swing * np.cos(2 * np.pi * (hours.hour.to_numpy() - 15) / 24)
    spell, spells = 0.0, []
    for shock in random.normal(0, 0.35, len(hours)):
        spell = 0.99 * spell + shock
        spells.append(spell)
    days = (hours - pd.Timestamp("2025-12-15")).total_seconds().to_numpy() / 86400
    return season + daily + np.array(spells) - 14 * np.exp(-((days / 4) ** 2))


def rows() -> dict[str, pd.DataFrame]:
    """Return each utility's rows in the order of time."""
    random = np.random.default_rng(SEED)
    hours = pd.date_range("2025-01-01", "2025-12-31 23:00", freq="h")
    shape = shapes(hours)
    found = {}
    for utility, (count, mean, swing, shares, tourists) in UTILITIES.items():
        temperature = weather(hours, mean, swing, random)
        summer = 1 + tourists * np.exp(-(((hours.day_of_year.to_numpy() - 213) / 35) ** 2))
        parts = []
        for place in range(1, count + 1):
            size = random.uniform(20, 120)
            mixture = random.dirichlet(20 * np.array(shares))
            heating = mixture[0] * 0.025 * np.maximum(15 - temperature, 0) ** 1.15
            cooling = mixture[1] * 0.05 * np.maximum(temperature - 22, 0)
            load = size * (shape @ mixture * summer + heating + cooling) * np.exp(random.normal(0, 0.02, len(hours)))
            forecast = (temperature + random.normal(0, 0.8, len(hours))).round(1)
            forecast[random.random(len(hours)) < 0.01] = np.nan
            parts.append(
                pd.DataFrame(
                    {
                        "substation": f"{utility}-{place}",
                        "time": hours,
                        "temperature": forecast,
                        "holiday": hours.normalize().isin(HOLIDAYS),
                        "homes": mixture[0].round(3),
                        "offices": mixture[1].round(3),
                        "load": load.round(3),
                    }
                )
            )
        found[utility] = pd.concat(parts).sort_values(["time", "substation"], ignore_index=True)
    return found


def write(folder: Path) -> dict[str, Path]:
    """Write one parquet file a utility into FOLDER/NAME/ and return the files by utility."""
    files = {}
    for name, frame in rows().items():
        files[name] = folder / name / "hours.parquet"
        files[name].parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(files[name], index=False)
    return files


def main() -> None:
    """Write the files and say where they are."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    for name, path in write(folder).items():
        load = pd.read_parquet(path, columns=["load"])["load"]
        sys.stdout.write(f"{name:7} {len(load):6} rows, {load.mean():6.1f} MW on average: {path}\n")


if __name__ == "__main__":
    main()
