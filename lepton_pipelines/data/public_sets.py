"""Public data sets by name: fetched from their public origin, checked, and written as organisations would have them.

Nothing of them is part of this package. What is checked is the SHA-256 of the values as they are used, so that a
copy that only spells them differently (as mirrors do) passes, and one whose values differ does not. A folder
named by LEPTON_DATA_MIRROR takes the place of the origin.
"""

import hashlib
import io
import os
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import did_you_mean

from .lineage import piece_digest

if TYPE_CHECKING:
    import pandas as pd

MIRROR = "LEPTON_DATA_MIRROR"

_UCI = "https://archive.ics.uci.edu"
_TIMEOUT_SECONDS = 60

Told = Callable[[str], None]
Fetch = Callable[[str, str], bytes]


@dataclass(frozen=True)
class PublicSet:
    """A public data set, and how its rows fall to organisations.

    digest: SHA-256 of the tables that `read` gives, in the order of the organisations' names.
    """

    name: str
    title: str
    page: str
    licence: str
    citation: str
    digest: str
    read: "Callable[[Fetch], dict[str, pd.DataFrame]]"

    def contract(self) -> str:
        """Return the text of the set's contract (ODCS)."""
        return (files(__package__) / "contracts" / f"{self.name}.odcs.yaml").read_text(encoding="utf-8")


def find_public_set(name: str) -> PublicSet:
    """Return a set by its name. Raises UserError with the nearest name if there is none."""
    if name not in PUBLIC_SETS:
        known = list(PUBLIC_SETS)
        raise UserError(
            f"there is no public data set {name}.{did_you_mean(name, known)} Known are: {', '.join(known)}."
        )
    return PUBLIC_SETS[name]


def fetch_public_set(name: str, folder: Path | str, *, tell: Told = lambda _: None) -> dict[str, Path]:
    """Fetch a set, check it, and write FOLDER/ORGANISATION/rows.parquet and FOLDER/contract.odcs.yaml.

    tell: is told what is under way, a line each. Returns the parquet files by organisation.
    Raises UserError if the set is not known, cannot be fetched, is not what it should be, or cannot be written.
    """
    chosen = find_public_set(name)
    mirror = os.environ.get(MIRROR)
    tables = chosen.read(_from_mirror(Path(mirror), tell) if mirror else _from_origin(tell))
    if (found := tables_digest(tables)) != chosen.digest:
        raise UserError(
            f"{name}: the values fetched are not those this release was tested with (SHA-256 {found[:12]}…, "
            f"not {chosen.digest[:12]}…). Look at {chosen.page} for a new version, or set {MIRROR} to a good copy."
        )
    folder = Path(folder)
    written = {}
    try:
        for organisation, table in tables.items():
            path = folder / organisation / "rows.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_parquet(path, index=False)
            written[organisation] = path
        (folder / "contract.odcs.yaml").write_text(chosen.contract(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{name}: cannot be written to {folder}: {error.strerror or error}.") from error
    return written


def tables_digest(tables: "dict[str, pd.DataFrame]") -> str:
    """Return the SHA-256 of the organisations' names and tables, as hex."""
    digest = hashlib.sha256()
    for organisation in sorted(tables):
        digest.update(organisation.encode() + b"\0" + piece_digest(tables[organisation]))
    return digest.hexdigest()


def _from_origin(tell: Told) -> Fetch:
    def fetch(_local: str, url: str) -> bytes:
        tell(f"downloading {url}")
        request = urllib.request.Request(url, headers={"User-Agent": "lepton-pipelines"})  # noqa: S310 - https only
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - https only
                content: bytes = answer.read()
                return content
        except OSError as error:
            raise UserError(
                f"{url} cannot be fetched: {getattr(error, 'reason', error)}. Check the network, "
                f"or set {MIRROR} to a folder that holds the files."
            ) from error

    return fetch


def _from_mirror(folder: Path, tell: Told) -> Fetch:
    def fetch(local: str, url: str) -> bytes:
        path = folder / local
        tell(f"reading {path}")
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(
                f"{path} cannot be read: {error.strerror}. {MIRROR} must hold the files of {url}, or be unset."
            ) from error

    return fetch


_HEART_COLUMNS = [
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
    "num",
]
_HEART_HOSPITALS = {"cleveland": "cleveland", "hungary": "hungarian", "switzerland": "switzerland", "long-beach": "va"}
_HEART_BOOLEANS = ("sex", "fbs", "exang")
_HEART_CATEGORIES = ("cp", "restecg", "slope", "thal")


def _heart_disease(fetch: Fetch) -> "dict[str, pd.DataFrame]":
    """Four hospitals. Missing is `?` or NaN, depending on the file; `num` counts narrowed vessels."""
    import pandas as pd

    tables = {}
    for place, (hospital, file) in enumerate(_HEART_HOSPITALS.items()):
        name = f"processed.{file}.data"
        url = f"{_UCI}/ml/machine-learning-databases/heart-disease/{name}"
        raw = pd.read_csv(
            io.BytesIO(fetch(f"heart-disease/{name}", url)),
            header=None,
            names=_HEART_COLUMNS,
            na_values=["?"],
            dtype="float64",
        )
        table = raw.drop(columns="num")
        for column in _HEART_BOOLEANS:
            table[column] = table[column].astype("boolean")
        for column in _HEART_CATEGORIES:
            table[column] = table[column].astype("Int64")
        # The files have no patient number; theirs is the place in the file, with the hospital's in front.
        table.insert(0, "patient_id", range(1000 * (place + 1) + 1, 1000 * (place + 1) + 1 + len(table)))
        tables[hospital] = table.assign(disease=(raw["num"] > 0).astype("int64"))
    return tables


_CREDIT_COLUMNS = [
    "ID",
    "LIMIT_BAL",
    "SEX",
    "EDUCATION",
    "MARRIAGE",
    "AGE",
    "PAY_0",
    "PAY_2",
    "PAY_3",
    "PAY_4",
    "PAY_5",
    "PAY_6",
    "BILL_AMT1",
    "BILL_AMT2",
    "BILL_AMT3",
    "BILL_AMT4",
    "BILL_AMT5",
    "BILL_AMT6",
    "PAY_AMT1",
    "PAY_AMT2",
    "PAY_AMT3",
    "PAY_AMT4",
    "PAY_AMT5",
    "PAY_AMT6",
    "default_next_month",
]


def _credit_default(fetch: Fetch) -> "dict[str, pd.DataFrame]":
    """Three banks, by the customers' education: private (graduate school), universal (university), regional."""
    import pandas as pd

    content = fetch("credit-default/UCI_Credit_Card.csv", f"{_UCI}/static/public/350/data.csv")
    table = pd.read_csv(io.BytesIO(content))
    # The origin calls the columns X1 to X23 and Y, the workbook and its copies by these names, in one order.
    if table.shape[1] != len(_CREDIT_COLUMNS):
        raise UserError(f"credit-default: has {table.shape[1]} columns instead of {len(_CREDIT_COLUMNS)}.")
    table = table.set_axis(_CREDIT_COLUMNS, axis=1).astype("int64").rename(columns={"ID": "customer_id"})
    bank = table["EDUCATION"].map({1: "private", 2: "universal"}).fillna("regional")
    return {str(name): rows.reset_index(drop=True) for name, rows in table.groupby(bank)}


_STATIONS = [
    "Aotizhongxin",
    "Changping",
    "Dingling",
    "Dongsi",
    "Guanyuan",
    "Gucheng",
    "Huairou",
    "Nongzhanguan",
    "Shunyi",
    "Tiantan",
    "Wanliu",
    "Wanshouxigong",
]
_AIR_ZIP = f"{_UCI}/static/public/501/beijing+multi+site+air+quality+data.zip"


def _beijing_air(fetch: Fetch) -> "dict[str, pd.DataFrame]":
    """Twelve stations and every hour that they measured, in the order of time."""
    tables = {}
    archive: zipfile.ZipFile | None = None

    def station_file(station: str) -> bytes:
        nonlocal archive
        name = f"PRSA_Data_{station}_20130301-20170228.csv"
        if archive is None:
            content = fetch(f"beijing-air/{name}.gz", _AIR_ZIP)
            if not zipfile.is_zipfile(io.BytesIO(content)):
                return content
            outer = zipfile.ZipFile(io.BytesIO(content))
            inner = next(n for n in outer.namelist() if n.endswith(".zip"))
            archive = zipfile.ZipFile(io.BytesIO(outer.read(inner)))
        return archive.read(next(n for n in archive.namelist() if n.endswith(name)))

    for station in _STATIONS:
        tables[station.lower()] = _air_table(station_file(station))
    return tables


def _air_table(content: bytes) -> "pd.DataFrame":
    import pandas as pd

    packed = content[:2] == b"\x1f\x8b"
    raw = pd.read_csv(io.BytesIO(content), compression="gzip" if packed else None, na_values=["NA", " "])
    time = pd.to_datetime(raw[["year", "month", "day", "hour"]])
    if not (time.diff().dropna() == pd.Timedelta(hours=1)).all():
        raise UserError("beijing-air: hours are missing or out of order.")
    table = pd.DataFrame(
        {"hour_number": raw["No"].astype("int64"), "station": raw["station"].str.lower(), "time": time}
    )
    for column in ("PM10", "SO2", "NO2", "CO", "O3", "TEMP", "PRES", "DEWP", "RAIN", "WSPM"):
        table[column.lower()] = raw[column].astype("float64")
    table["wind"] = raw["wd"]
    return table.assign(pm25=raw["PM2.5"].astype("float64"))


PUBLIC_SETS = {
    s.name: s
    for s in (
        PublicSet(
            "heart-disease",
            "Heart disease, four hospitals",
            f"{_UCI}/dataset/45/heart+disease",
            "CC BY 4.0",
            "Janosi, Steinbrunn, Pfisterer, Detrano (1989): Heart Disease. UCI Machine Learning Repository.",
            "1cd449b2b40386bd9408c40ab8925655d5e04fe86c96c4960b82082cf00a3ac2",
            _heart_disease,
        ),
        PublicSet(
            "credit-default",
            "Default of credit card clients, Taiwan 2005",
            f"{_UCI}/dataset/350/default+of+credit+card+clients",
            "CC BY 4.0",
            "Yeh (2009): Default of Credit Card Clients. UCI Machine Learning Repository.",
            "1f5c6eb36d111c2e35e4ec0135299bcbd72e8e640ce254ee37185af6c7fefb29",
            _credit_default,
        ),
        PublicSet(
            "beijing-air",
            "Air quality at twelve stations in Beijing, hourly, 2013 to 2017",
            f"{_UCI}/dataset/501/beijing+multi+site+air+quality+data",
            "CC BY 4.0",
            "Chen (2017): Beijing Multi-Site Air Quality. UCI Machine Learning Repository.",
            "4c219b340f30e422d792ad4304a3719226cb1a3f2f5f53f7043a11fac688981c",
            _beijing_air,
        ),
    )
}
"""The sets by name."""
