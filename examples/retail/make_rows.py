"""Write three retail chains' sales: generated, no real shop's.

A row is what a shop sold of a product on a day of 2024 or 2025. Expected sales are the product's base, times the shop's
size, the weekday (each chain has its own week), the season, a promotion, the price against the list price, holidays
and, for ice cream and drinks, the temperature; what is sold is drawn from a gamma-Poisson mixture around it. Chains
differ in size, in what they carry and in how often they promote: organic has never sold ice cream before June 2025,
discount promotes every sixth day, city hardly ever. The same files come out every time.

Run from anywhere: python examples/retail/make_rows.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

SEED = 365
PRODUCTS = {  # base sales a day, list price, how much it likes the heat, how much it likes December
    "bread": (40, 2.9, 0.0, 0.0),
    "milk": (50, 1.2, 0.0, 0.1),
    "drinks": (35, 1.5, 0.03, 0.1),
    "ice-cream": (15, 3.5, 0.07, -0.2),
    "salad": (12, 2.2, 0.03, -0.3),
    "cheese": (18, 4.5, -0.01, 0.4),
    "chocolate": (20, 2.0, -0.02, 0.9),
}
CHAINS = {  # sizes of the shops, promotions, the week from Monday on, what is carried
    "discount": ([1.6, 1.4, 1.3, 1.2, 1.0, 0.9], 1 / 6, [0.9, 0.9, 0.9, 1.0, 1.2, 1.4, 0.0], list(PRODUCTS)),
    "city": ([0.8, 0.7, 0.6, 0.5], 1 / 40, [1.1, 1.1, 1.1, 1.1, 1.2, 0.8, 0.5], list(PRODUCTS)),
    "organic": (
        [0.5, 0.4],
        1 / 15,
        [0.8, 0.9, 1.0, 1.0, 1.2, 1.5, 0.0],
        ["bread", "milk", "salad", "cheese", "ice-cream"],
    ),
}
HOLIDAYS = pd.to_datetime(
    [f"{year}-{day}" for year in (2024, 2025) for day in ("01-01", "05-01", "10-03", "12-25", "12-26")]
)


def weather(days: pd.DatetimeIndex, random: np.random.Generator) -> np.ndarray:
    """Return each day's temperature: the season, and weather that lasts some days."""
    season = 10 - 10 * np.cos(2 * np.pi * (days.day_of_year.to_numpy() - 20) / 365.25)
    spell, spells = 0.0, []
    for shock in random.normal(0, 2.2, len(days)):
        spell = 0.8 * spell + shock
        spells.append(spell)
    return (season + np.array(spells)).round(1)


def rows() -> dict[str, pd.DataFrame]:
    """Return each chain's rows in the order of the days."""
    random = np.random.default_rng(SEED)
    days = pd.date_range("2024-01-01", "2025-12-31", freq="D")
    temperature = weather(days, random)
    found = {}
    for chain, (sizes, promoted, week, carried) in CHAINS.items():
        parts = []
        for place, size in enumerate(sizes, 1):
            for product in carried:
                base, listed, heat, december = PRODUCTS[product]
                promotion = random.random(len(days)) < promoted
                price = listed * np.where(promotion, 0.75, random.choice([0.97, 1.0, 1.03], len(days)))
                expected = base * size * np.array(week)[days.day_of_week] * (price / listed) ** -1.6
                expected *= np.where(promotion, 1.4, 1.0) * np.exp(heat * (temperature - 10))
                expected *= 1 + december * np.exp(-(((days.day_of_year.to_numpy() - 352) / 12) ** 2))
                expected = np.where(days.isin(HOLIDAYS), 0.1, 1.0) * expected
                frame = pd.DataFrame(
                    {
                        "shop": f"{chain}-{place}",
                        "product": product,
                        "day": days,
                        "list_price": listed,
                        "price": price.round(2),
                        "promotion": promotion,
                        "holiday": days.isin(HOLIDAYS),
                        "temperature": temperature,
                        "sold": random.poisson(expected * random.gamma(20, 1 / 20, len(days))),
                    }
                )
                if chain == "organic" and product == "ice-cream":
                    frame = frame[frame["day"] >= "2025-06-01"]
                parts.append(frame[np.array(week)[frame["day"].dt.day_of_week] > 0])
        found[chain] = pd.concat(parts).sort_values(["day", "shop", "product"], ignore_index=True)
    return found


def write(folder: Path) -> dict[str, Path]:
    """Write one parquet file a chain into FOLDER/NAME/ and return the files by chain."""
    files = {}
    for name, frame in rows().items():
        files[name] = folder / name / "sales.parquet"
        files[name].parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(files[name], index=False)
    return files


def main() -> None:
    """Write the files and say where they are."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    for name, path in write(folder).items():
        sold = pd.read_parquet(path, columns=["sold"])["sold"]
        sys.stdout.write(f"{name:9} {len(sold):6} rows, {sold.mean():5.1f} sold a day and product: {path}\n")


if __name__ == "__main__":
    main()
