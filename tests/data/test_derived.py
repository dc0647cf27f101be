"""Derived columns: what pandas computes, from earlier rows only, wherever the rows lie."""

import math
import pickle
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_pipelines.data.derived import derive_frame, natural_log, read_windows, write_features
from lepton_pipelines.data.preparation import prepare
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.data.values import Values
from lepton_pipelines.data.windows import Ordered, compute
from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.derived import Lag, Rolling
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import TimeSplit

HOUR = 3_600_000_000
STATISTICS = ["mean", "sum", "min", "max", "std", "count"]


@st.composite
def series(draw):
    """Rows of up to three series with distinct whole hours, in any order, some values missing."""
    rows = []
    for name in range(draw(st.integers(1, 3))):
        hours = draw(st.lists(st.integers(0, 40), unique=True, min_size=1, max_size=25))
        value = st.one_of(st.just(math.nan), st.integers(-50, 50).map(float))
        rows += [(name, hour, draw(value)) for hour in hours]
    rows = draw(st.permutations(rows))
    frame = pd.DataFrame(rows, columns=["shop", "hour", "sold"])
    frame["sold"] = frame["sold"].astype("float64")
    return frame


def _ordered(frame):
    known = np.ones(len(frame), bool)
    return Ordered.of(frame["shop"].to_numpy(np.uint64), frame["hour"].to_numpy(np.int64) * HOUR, known)


def _ours(frame, told):
    values = frame["sold"].to_numpy()
    return compute(told, _ordered(frame), Values(values, np.isnan(values), np.zeros(len(values), bool))).values


def _by_pandas(frame, per_series):
    indexed = frame.assign(place=range(len(frame)), time=pd.to_datetime(frame["hour"] * HOUR * 1000)).sort_values(
        "time"
    )
    parts = [
        pd.Series(per_series(rows.set_index("time")["sold"]).to_numpy(), rows["place"])
        for _, rows in indexed.groupby("shop")
    ]
    return pd.concat(parts).sort_index().to_numpy(np.float64)


@given(frame=series(), rows=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_a_lag_in_rows_is_pandas_shift(frame, rows):
    expected = _by_pandas(frame, lambda sold: sold.shift(rows))
    np.testing.assert_array_equal(_ours(frame, Lag(name="l", lag="sold", before=rows)), expected)


@given(frame=series(), hours=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_a_lag_in_time_is_the_row_of_exactly_that_time(frame, hours):
    expected = _by_pandas(frame, lambda sold: sold.reindex(sold.index - pd.Timedelta(hours=hours)))
    np.testing.assert_array_equal(_ours(frame, Lag(name="l", lag="sold", before=timedelta(hours=hours))), expected)


def _statistic(windows, statistic, at_least):
    """What pandas says of rolling windows; its own count counts rows too, and its std carries rounding along."""
    if statistic == "count":
        count = windows(1).apply(lambda values: np.count_nonzero(~np.isnan(values)), raw=True).fillna(0)
        return count if at_least == 1 else count.where(count >= at_least)
    if statistic == "std":
        return windows(max(at_least, 2)).apply(lambda values: np.nanstd(values, ddof=1), raw=True)
    return getattr(windows(at_least), statistic)()


@pytest.mark.parametrize("statistic", STATISTICS)
@given(frame=series(), rows=st.integers(2, 6), gap=st.integers(0, 3), at_least=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_a_window_in_rows_is_pandas_rolling_before_the_row(statistic, frame, rows, gap, at_least):
    told = Rolling(name="r", rolling=statistic, of="sold", over=rows, gap=gap or None, at_least=min(at_least, rows))

    def rolling(sold):
        def windows(least):
            return sold.shift(1 + gap).rolling(rows, min_periods=min(least, rows))

        return _statistic(windows, statistic, told.at_least)

    np.testing.assert_allclose(_ours(frame, told), _by_pandas(frame, rolling), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("statistic", STATISTICS)
@given(frame=series(), hours=st.integers(1, 30), at_least=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_a_window_in_time_is_pandas_rolling_closed_on_the_left(statistic, frame, hours, at_least):
    told = Rolling(name="r", rolling=statistic, of="sold", over=timedelta(hours=hours), at_least=at_least)

    def rolling(sold):
        def windows(least):
            return sold.rolling(f"{hours}h", closed="left", min_periods=least)

        return _statistic(windows, statistic, at_least)

    np.testing.assert_allclose(_ours(frame, told), _by_pandas(frame, rolling), rtol=1e-9, atol=1e-9)


TOLD = st.one_of(
    st.integers(1, 5).map(lambda n: Lag(name="l", lag="sold", before=n)),
    st.integers(1, 30).map(lambda h: Lag(name="l", lag="sold", before=timedelta(hours=h))),
    st.tuples(st.sampled_from(STATISTICS), st.integers(1, 6), st.integers(0, 3)).map(
        lambda t: Rolling(name="r", rolling=t[0], of="sold", over=t[1], gap=t[2] or None)
    ),
    st.tuples(st.sampled_from(STATISTICS), st.integers(1, 30), st.integers(0, 9)).map(
        lambda t: Rolling(
            name="r",
            rolling=t[0],
            of="sold",
            over=timedelta(hours=t[1]),
            gap=timedelta(hours=t[2]) if t[2] else None,
        )
    ),
)


@given(frame=series(), told=TOLD, now=st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_no_window_sees_its_own_row_or_a_later_one(frame, told, now):
    changed = frame.assign(sold=frame["sold"].where(frame["hour"] < now, 1e9))
    until = (frame["hour"] <= now).to_numpy()
    np.testing.assert_array_equal(_ours(frame, told)[until], _ours(changed, told)[until])


@given(st.floats(min_value=1e-300, max_value=1e300))
@settings(max_examples=40, deadline=None)
def test_the_logarithm_is_right_to_the_last_places(x):
    ours = float(natural_log(np.array([x]))[0])
    assert abs(ours - math.log(x)) <= max(2 * math.ulp(math.log(x)), 3e-16)


def _document():
    def ours(**value):
        return [{"property": "lepton", "value": value}]

    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "sales",
        "version": "1.0.0",
        "status": "active",
        "schema": [
            {
                "name": "sales",
                "properties": [
                    {"name": "shop", "logicalType": "string", "primaryKey": True},
                    {
                        "name": "time",
                        "logicalType": "timestamp",
                        "primaryKey": True,
                        "customProperties": ours(role="time"),
                    },
                    {"name": "price", "logicalType": "number", "logicalTypeOptions": {"minimum": 0}},
                    {"name": "cost", "logicalType": "number", "customProperties": ours(role="ingredient")},
                    {"name": "weather", "logicalType": "string", "customProperties": ours(categories=["dry", "wet"])},
                    {"name": "secret", "logicalType": "number", "customProperties": ours(role="unused")},
                    {
                        "name": "sold",
                        "logicalType": "number",
                        "customProperties": ours(role="label", may_be_unknown=True),
                    },
                ],
            }
        ],
    }


DERIVED = [
    {"name": "sold_before", "lag": "sold", "before": 1, "by": "shop"},
    {"name": "sold_yesterday", "lag": "sold", "before": "24 h", "by": ["shop"]},
    {"name": "sold_week", "rolling": "mean", "of": "sold", "over": "7 days", "by": "shop", "at_least": 2},
    {"name": "weather_before", "lag": "weather", "before": 1, "by": "shop"},
    {"name": "margin", "ratio": ["price", "cost"]},
    {"name": "trend", "ratio": ["sold_before", "sold_week"]},
    {"name": "change", "difference": ["sold_before", "sold_yesterday"]},
    {"name": "log_price", "log": "price", "plus": 1},
    {"name": "hour", "part": "hour", "of": "time"},
    {"name": "weekend", "part": "weekend", "of": "time"},
]


def _contract(derived=DERIVED):
    return parse_contract(_document()).with_derived(tuple(derived))


@pytest.fixture(scope="module")
def sales():
    """Three shops, half a year of 6-hourly rows with gaps, in no order; some labels not known."""
    draw = np.random.default_rng(3)
    n = 3 * 700
    frame = pd.DataFrame(
        {
            "shop": np.repeat(["a", "b", "c"], 700),
            "time": np.tile(pd.date_range("2026-01-01", periods=700, freq="6h"), 3),
            "price": draw.uniform(0, 9, n).round(2),
            "cost": np.where(draw.random(n) < 0.1, 0, draw.uniform(1, 5, n)).round(2),
            "weather": draw.choice(["dry", "wet"], n),
            "sold": np.where(draw.random(n) < 0.1, np.nan, draw.poisson(20, n).astype(float)),
        }
    )
    return frame.sample(frac=0.9, random_state=1).reset_index(drop=True)


SPLIT = TimeSplit(time="time", test_from="2026-05-01")


def _encoded(folder, organisation, groups):
    """Prepare all pieces as workers do, each its own group of pieces; rows in the order of their numbers."""
    source = open_source(organisation(folder), _contract())
    source = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own bytes, as Dask sends them
    parts = []
    pieces = source.pieces()
    for held in groups(pieces):
        windows = read_windows(source, held)
        parts += [prepare(source, piece, SPLIT, windows=windows[piece.index]).sets for piece in held]
    return {
        name: np.concatenate([p[name].X for p in parts])[np.argsort(np.concatenate([p[name].row_id for p in parts]))]
        for name in ("train", "test")
    }


def test_values_do_not_depend_on_files_and_workers(tmp_path, organisation, sales):
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    sales.assign(secret=1).to_parquet(tmp_path / "one" / "all.parquet")
    for place, rows in sales.assign(secret=1).groupby(np.arange(len(sales)) % 7):
        rows.to_parquet(tmp_path / "many" / f"{place}.parquet")
    whole = _encoded(tmp_path / "one", organisation, lambda pieces: [pieces])
    for groups in (lambda p: [p], lambda p: [[one] for one in p], lambda p: [p[1::2], p[::2]]):
        spread = _encoded(tmp_path / "many", organisation, groups)
        assert {name: X.tobytes() for name, X in spread.items()} == {name: X.tobytes() for name, X in whole.items()}
    assert len(whole["train"]) + len(whole["test"]) == sales["sold"].notna().sum()


def test_scoring_computes_what_training_did(tmp_path, organisation, sales):
    sales.assign(secret=1).to_parquet(tmp_path / "all.parquet")
    contract = _contract()
    source = open_source(organisation(tmp_path), contract)
    (piece,) = source.pieces()
    trained = prepare(source, piece, SPLIT, windows=read_windows(source, [piece])[0]).sets
    made = derive_frame(sales, contract)
    assert list(made.columns) == contract.feature_names
    for name in contract.feature_categories:
        made[name] = made[name].map({"dry": 0, "wet": 1})
    known = sales["sold"].notna().to_numpy()
    test = (sales["time"] >= SPLIT.test_from).to_numpy()
    for rows, encoded in ((known & ~test, trained["train"]), (known & test, trained["test"])):
        np.testing.assert_array_equal(made[rows].to_numpy(np.float64).astype(np.float32), encoded.X)
    (file,) = write_features(source, tmp_path / "features")
    written = pd.read_parquet(file)
    assert list(written.columns) == ["shop", "time", *contract.feature_names]
    np.testing.assert_array_equal(written["sold_week"], made["sold_week"])


def test_columns_of_a_row_are_as_pandas_has_them(sales):
    made = derive_frame(sales, _contract())
    known = sales["cost"] != 0
    np.testing.assert_array_equal(made["margin"][known], (sales["price"] / sales["cost"])[known])
    assert made["margin"][~known].isna().all()
    np.testing.assert_allclose(made["log_price"], np.log1p(sales["price"]), rtol=1e-14)
    np.testing.assert_array_equal(made["hour"], sales["time"].dt.hour)
    np.testing.assert_array_equal(made["weekend"], sales["time"].dt.day_of_week >= 5)
    expected = sales.sort_values("time").groupby("shop")["weather"].shift(1).sort_index()
    assert made["weather_before"].fillna("").tolist() == expected.fillna("").tolist()


PARTS = ["hour", "weekday", "day", "day_of_year", "week", "month", "quarter", "year", "weekend"]


@given(moment=st.datetimes(min_value=pd.Timestamp("1990-01-01"), max_value=pd.Timestamp("2100-01-01")))
@settings(max_examples=25, deadline=None)
def test_parts_of_dates_are_pythons(moment):
    contract = _contract([{"name": part, "part": part, "of": "time"} for part in PARTS])
    frame = pd.DataFrame({"time": [moment], "price": [1.0], "cost": [1.0], "weather": ["dry"]})
    made = derive_frame(frame, contract).iloc[0]
    day = moment.timetuple().tm_yday
    week = moment.isocalendar().week
    expected = [
        moment.hour,
        moment.weekday(),
        moment.day,
        day,
        week,
        moment.month,
        (moment.month + 2) // 3,
        moment.year,
    ]
    assert made[PARTS].astype(float).tolist() == [*expected, moment.weekday() >= 5]


def test_two_rows_of_one_time_are_refused(tmp_path, organisation, sales):
    twice = pd.concat([sales, sales.head(3)]).assign(secret=1)
    twice.to_parquet(tmp_path / "p.parquet")
    source = open_source(organisation(tmp_path), _contract())
    with pytest.raises(UserError, match=r"harbour: 3 rows have a time that another row of their shop has, too"):
        read_windows(source, source.pieces())


def test_values_that_break_the_contract_are_seen_by_no_window(tmp_path, organisation, sales):
    told = [{"name": "before", "lag": "price", "before": 1, "by": "shop"}]
    spoiled = sales.assign(secret=1)
    spoiled.loc[spoiled["price"] > 5, "price"] *= -1
    spoiled.to_parquet(tmp_path / "p.parquet")
    source = open_source(organisation(tmp_path), _contract(told))
    before = read_windows(source, source.pieces())[0]["before"]
    expected = spoiled.assign(price=spoiled["price"].where(spoiled["price"] >= 0)).sort_values("time")
    np.testing.assert_array_equal(before.values, expected.groupby("shop")["price"].shift(1).sort_index())


def test_rows_for_scoring_must_keep_the_contract(sales):
    with pytest.raises(UserError, match='harbour: 1 row has "price" -1, the contract allows 0 and more'):
        derive_frame(
            sales.assign(price=sales["price"].where(sales.index != 5, -1)), _contract(), organisation="harbour"
        )
    with pytest.raises(UserError, match="the rows have no column cost"):
        derive_frame(sales.drop(columns="cost"), _contract())
