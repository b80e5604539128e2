"""Frequencies: every name that is accepted or refused, and what is told from times alone."""

from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import Frequency, StepsDiffer

CANONICAL = (
    *("s", "30s", "min", "15min", "90min", "h", "6h", "36h", "D", "2D", "10D", "B", "2B", "W-SUN", "W-MON", "2W-FRI"),
    *(
        "MS",
        "ME",
        "2MS",
        "5ME",
        "QS-JAN",
        "QS-FEB",
        "QS-MAR",
        "QE-OCT",
        "QE-NOV",
        "QE-DEC",
        "2QS-JAN",
        "YS-APR",
        "YE-DEC",
    ),
    *("2YE-JUN", "step", "10step"),
)
ACCEPTED = {
    **{
        "S": "s",
        "T": "min",
        "Min": "min",
        "15T": "15min",
        "H": "h",
        "d": "D",
        "b": "B",
        "W": "W-SUN",
        "w-mon": "W-MON",
    },
    **{
        "M": "ME",
        "me": "ME",
        "Q": "QE-DEC",
        "q": "QE-DEC",
        "Q-NOV": "QE-NOV",
        "QE": "QE-DEC",
        "QS": "QS-JAN",
        "qs": "QS-JAN",
    },
    **{
        "A": "YE-DEC",
        "A-JUN": "YE-JUN",
        "Y": "YE-DEC",
        "AS": "YS-JAN",
        "AS-APR": "YS-APR",
        "YS": "YS-JAN",
        "YE": "YE-DEC",
    },
    **{
        "60s": "min",
        "3600s": "h",
        "60min": "h",
        "120min": "2h",
        "24h": "D",
        "48H": "2D",
        "1440min": "D",
        "7D": "W-SUN",
    },
    **{
        "14d": "2W-SUN",
        "3MS": "QS-JAN",
        "3M": "QE-DEC",
        "6MS": "2QS-JAN",
        "12ME": "YE-DEC",
        "4QS-FEB": "YS-FEB",
        "1D": "D",
    },
    **{"QS-APR": "QS-JAN", "QS-NOV": "QS-FEB", "QE-MAR": "QE-DEC", "QE-AUG": "QE-NOV", " h ": "h", "15 min": "15min"},
    **{"PT30S": "30s", "PT15M": "15min", "PT1H": "h", "PT1H30M": "90min", "PT90M": "90min", "P1D": "D", "PT24H": "D"},
    **{
        "P1DT12H": "36h",
        "P1W": "W-SUN",
        "P7D": "W-SUN",
        "P2W": "2W-SUN",
        "P1M": "MS",
        "P3M": "QS-JAN",
        "P1Y": "YS-JAN",
    },
    **{"P1Y6M": "6QS-JAN", "pt1h": "h", "STEP": "step", "00001h": "h"},
}
REFUSED = {
    **{
        "m": "minutes min",
        "ms": "milliseconds",
        "Ms": "months are MS",
        "5m": "minutes min",
        "L": "shorter than a second",
    },
    **{
        "us": "shorter than a second",
        "10ns": "shorter than a second",
        "BM": "business months",
        "BMS": "business months",
    },
    **{"BQS-JAN": "business quarters", "BYE": "business years", "bh": "business hours", "SM": "half months"},
    **{"WOM-2MON": "n-th weekday", "C": "custom business", "W-FOO": "one of MON, TUE", "QS-15": "one of JAN"},
    **{"D-MON": "D has no anchor", "h-JAN": "h has no anchor", "MS-JAN": "MS has no anchor", "0h": "at least a second"},
    **{
        "P0D": "at least a second",
        "101Y": "at most a century",
        "999999999h": "at most a century",
        "P1M1D": "shorter units",
    },
    **{
        "": "got ''",
        "P": "got 'P'",
        "PT": "got 'PT'",
        "P1DT": "got",
        "1.5h": "got",
        "-1D": "got",
        "+1D": "got",
        "1h30min": "got",
    },
    **{"h" * 99: "h…'", "१h": "got", "hourly": "got", "W-": "got", "1234567890s": "got", "5": "got", "h\n\nh": "got"},
}


@pytest.mark.parametrize("name", CANONICAL)
def test_a_canonical_name_is_its_own_frequency(name: str) -> None:
    assert Frequency.parse(name).name == name
    assert Frequency.parse(name).is_integer == name.endswith("step")


@pytest.mark.parametrize(("said", "name"), ACCEPTED.items())
def test_other_names_mean_one(said: str, name: str) -> None:
    assert Frequency.parse(said).name == name


@pytest.mark.parametrize(("said", "reason"), REFUSED.items())
def test_what_is_not_supported_is_refused_by_name(said: str, reason: str) -> None:
    with pytest.raises(ValueError, match="frequency: expected s, min, h, D, B, W-MON") as caught:
        Frequency.parse(said)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


def test_whatever_pandas_calls_its_frequencies_is_understood() -> None:
    for name in CANONICAL[:-2]:
        offset = pd.tseries.frequencies.to_offset(name)
        assert Frequency.parse(offset.freqstr).name == name


@pytest.mark.parametrize(
    ("name", "seasons"),
    [
        *(("s", (60, 3600)), ("30s", (120, 2880)), ("10s", (360, 8640)), ("min", (60, 1440)), ("5min", (288, 2016))),
        *(
            ("15min", (96, 672)),
            ("30min", (48, 336)),
            ("h", (24, 168)),
            ("6h", (4, 28)),
            ("12h", (2, 14)),
            ("7h", (24,)),
        ),
        *(
            ("36h", (1,)),
            ("11s", (1,)),
            ("D", (7,)),
            ("2D", (7,)),
            ("10D", (37,)),
            ("B", (5,)),
            ("2B", (5,)),
            ("W-MON", (52,)),
        ),
        *(
            ("2W-MON", (26,)),
            ("MS", (12,)),
            ("2ME", (6,)),
            ("5MS", (1,)),
            ("QE-DEC", (4,)),
            ("2QS-JAN", (2,)),
            ("YS-JAN", (1,)),
        ),
        ("step", (1,)),
    ],
)
def test_seasons(name: str, seasons: tuple[int, ...]) -> None:
    assert Frequency.parse(name).seasons == seasons
    assert Frequency.parse(name).season == seasons[0]


def test_names_that_differ_in_anchor_or_side_agree() -> None:
    for group in (("W-SUN", "W-MON"), ("MS", "ME"), ("QS-FEB", "QE-DEC"), ("YS-JAN", "YE-JUN"), ("2W-SUN", "2W-FRI")):
        assert Frequency.parse(group[0]).agrees(Frequency.parse(group[1]))
    different = ("s", "min", "h", "2h", "D", "2D", "B", "W-SUN", "2W-SUN", "MS", "2MS", "QS-JAN", "YS-JAN", "step")
    for one, other in pairwise(map(Frequency.parse, different)):
        assert not one.agrees(other)


# From times --------------------------------------------------------------------------------------------------------


def micros(index: pd.DatetimeIndex) -> NDArray[np.int64]:
    return index.tz_convert("UTC").tz_localize(None).as_unit("us").asi8


def dates(*texts: str, zone: str = "UTC") -> NDArray[np.int64]:
    return micros(pd.DatetimeIndex(list(texts)).tz_localize(ZoneInfo(zone)))


def grid(name: str, zone: str, start: str = "2019-01-05", periods: int = 80) -> NDArray[np.int64]:
    index = pd.date_range(start, periods=periods, freq=name)
    if Frequency.parse(name).unit in {"s", "min", "h"}:
        return micros(index.tz_localize("UTC"))
    return micros(index.tz_localize(ZoneInfo(zone), nonexistent="shift_forward"))


def infer(*series: NDArray[np.int64], zone: str = "UTC") -> str:
    codes = np.repeat(np.arange(len(series)), [len(times) for times in series])
    return Frequency.infer(np.concatenate(series), codes, zone).name


USUAL = ("s", "30s", "min", "15min", "h", "6h", "D", "2D", "B", "W-SUN", "W-WED", "2W-FRI", "MS", "ME", "2MS")
USUAL += ("QS-JAN", "QS-FEB", "QE-DEC", "QE-NOV", "2QS-JAN", "YS-JAN", "YS-APR", "YE-DEC", "YE-JUN", "2YS-JAN")
ZONES = ("UTC", "Europe/Berlin", "America/Sao_Paulo")


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("name", USUAL)
def test_told_from_two_rows_and_from_eighty(name: str, zone: str) -> None:
    times = grid(name, zone)
    assert infer(times, zone=zone) == name
    if name != "B":  # two days in a row are days to anyone
        assert infer(times[1:3], zone=zone) == name


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("name", USUAL)
def test_told_from_many_series_with_gaps_in_any_order(name: str, zone: str) -> None:
    random = np.random.default_rng(7)
    times = grid(name, zone, periods=120)
    series = [times[first:][random.random(120 - first) < 0.7] for first in random.integers(0, 60, 12)]
    series += [times[3:4], times[90:91]]  # a single row says nothing and does no harm
    codes = np.repeat(random.permutation(len(series)), [len(one) for one in series])
    order = random.permutation(len(codes))
    assert Frequency.infer(np.concatenate(series)[order], codes[order], zone).name == name


def test_hours_of_a_local_clock_are_hours_across_its_changes() -> None:
    for zone in ("Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo"):
        index = pd.date_range("2018-01-01", "2018-12-31", freq="h", tz=ZoneInfo(zone))
        assert infer(micros(index), zone=zone) == "h"


def test_days_of_23_and_25_hours_are_days() -> None:
    times = grid("D", "Europe/Berlin", "2026-03-20", 300)
    assert set(np.diff(times) // 3_600_000_000) == {23, 24, 25}
    assert infer(times, zone="Europe/Berlin") == "D"
    sao_paulo = grid("D", "America/Sao_Paulo", "2017-10-10", 12)  # the midnight of 15 October did not exist
    assert infer(sao_paulo, zone="America/Sao_Paulo") == "D"


def test_months_at_any_day() -> None:
    assert infer(dates("2023-01-15", "2023-02-15", "2023-03-15")) == "MS"
    assert infer(dates("2023-01-31", "2023-02-28", "2023-03-31", "2023-04-30")) == "ME"
    assert infer(dates("2023-01-30", "2023-02-28", "2023-03-30", "2023-04-30", "2023-05-30")) == "MS"
    assert infer(dates("2023-01-31", "2023-02-28")) == "ME"
    assert infer(dates("2023-01-01T06:00", "2023-02-01T06:00")) == "MS"


def test_series_on_different_days_share_a_frequency() -> None:
    assert infer(dates("2023-01-02", "2023-01-09", "2023-01-16"), dates("2023-01-04", "2023-01-11")) == "W-MON"
    assert infer(dates("2023-01-01", "2023-02-01", "2023-03-01"), dates("2023-01-15", "2023-02-15")) == "MS"


def test_business_days_need_a_weekend_that_is_missing() -> None:
    assert infer(dates("2023-01-02", "2023-01-03", "2023-01-04")) == "D"
    assert infer(dates("2023-01-05", "2023-01-06", "2023-01-09", "2023-01-10")) == "B"
    assert infer(dates("2023-01-06", "2023-01-09")) == "B"
    assert infer(dates("2023-01-03", "2023-01-06", "2023-01-09", "2023-01-12", "2023-01-15")) == "3D"
    assert infer(grid("B", "UTC"), dates("2023-01-07", "2023-01-08")) == "D"  # one Saturday among them


def test_a_few_rows_off_the_grid_do_not_hide_it() -> None:
    stray = np.array([37 * 1_000_000])
    hours = grid("h", "UTC", periods=500)
    assert infer(np.sort(np.r_[hours, hours[40:41] + stray])) == "h"
    days = grid("D", "Europe/Berlin", periods=500)
    assert infer(np.sort(np.r_[days, days[40:41] + stray]), zone="Europe/Berlin") == "D"


def test_equal_times_count_once() -> None:
    times = grid("h", "UTC")
    assert infer(np.repeat(times, 3)) == "h"


@pytest.mark.parametrize("series", [(), ((5,),), ((5, 5, 5),), ((5,), (7,), (900,))])
def test_one_row_a_series_is_too_little(series: tuple[tuple[int, ...], ...]) -> None:
    arrays = [np.array(times, np.int64) for times in series] or [np.array([], np.int64)]
    with pytest.raises(ValueError, match=r"two different times.*pass frequency="):
        infer(*arrays)


def test_wild_spacing_is_explained() -> None:
    random = np.random.default_rng(3)
    times = np.sort(random.integers(0, 10**15, 400))
    with pytest.raises(ValueError, match=r"evenly spaced.*and \d+ more; no step fits them all; pass frequency="):
        infer(times)
    with pytest.raises(ValueError, match=r"2 days \(50%\), 3 days \(50%\); no step"):
        infer(dates("2023-01-02", "2023-01-04", "2023-01-07"))
    with pytest.raises(ValueError, match=r"got 0\.25 s"):
        infer(np.arange(50) * 250_000)


@pytest.mark.parametrize(
    ("often", "rarely", "told"),
    [
        ("h", "D", "a day or more, most rows by less"),
        ("h", "6h", "6 h, most rows by 1 h"),
        ("15min", "h", "1 h, most rows by 15 min"),
        ("D", "W-MON", "7 days, most rows by 1 day"),
        ("D", "MS", "a month or more, most rows by less"),
        ("B", "W-MON", "5 business days, most rows by 1"),
        ("ME", "QE-DEC", "3 months, most rows by 1 month"),
        ("QS-JAN", "YS-JAN", "12 months, most rows by 3 months"),
    ],
)
def test_series_that_step_differently_are_told(often: str, rarely: str, told: str) -> None:
    for zone in ZONES:
        often_times, rarely_times = grid(often, zone, periods=200), grid(rarely, zone, periods=20)
        with pytest.raises(ValueError, match=f"1 of 3 by {told}.*datasets of their own") as caught:
            infer(often_times[:1], often_times, rarely_times, often_times, zone=zone)
        assert isinstance(caught.value, StepsDiffer)
        assert caught.value.series == 2


@pytest.mark.parametrize("name", ["D", "W-MON", "MS", "ME"])
@pytest.mark.parametrize(("written", "read"), [("UTC", "Europe/Berlin"), ("Europe/Berlin", "UTC")])
def test_days_of_another_zone_are_told(name: str, written: str, read: str) -> None:
    with pytest.raises(ValueError, match=rf"changing times of day in {read}; give time_zone="):
        infer(grid(name, written, periods=365), zone=read)


def test_a_step_that_most_rows_keep_is_found_among_rarer_ones() -> None:
    hours = grid("h", "UTC", periods=400)
    assert infer(np.sort(np.r_[hours, hours[::30] + 1_800_000_000])) == "h"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-(10**4), 10**4)), max_size=14),
    st.sampled_from([1, 10**6, 3600 * 10**6, 86_400 * 10**6, 2_629_746 * 10**6]),
    st.sampled_from(ZONES),
)
def test_any_rows_have_a_frequency_or_a_reason(rows: list[tuple[int, int]], unit: int, zone: str) -> None:
    codes, times = np.array(rows, np.int64).reshape(-1, 2).T
    try:
        told = Frequency.infer(times * unit, codes, zone).name
    except ValueError as reason:
        told = str(reason)
    assert told.startswith("frequency: ") or Frequency.parse(told).name == told


def test_hours_that_follow_the_local_clock_are_told() -> None:
    local = pd.date_range("2026-01-01", periods=4 * 365, freq="6h").tz_localize(ZoneInfo("Europe/Berlin"))
    with pytest.raises(ValueError, match="steps shorter than a day advance in UTC"):
        infer(micros(local), zone="Europe/Berlin")
