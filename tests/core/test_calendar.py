"""The calendar: steps worked by hand, round trips at random, and pandas as the second route to the same times."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import Calendar

HOUR, DAY = 3_600_000_000, 86_400_000_000
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo")
FREQUENCIES = (
    "s",
    "30s",
    "min",
    "15min",
    "h",
    "7h",
    "36h",
    "D",
    "3D",
    "B",
    "3B",
    "W-SUN",
    "W-THU",
    "2W-MON",
    "MS",
    "ME",
)
FREQUENCIES += ("2MS", "5ME", "QS-FEB", "QE-DEC", "2QE-NOV", "YS-JAN", "YS-APR", "YE-JUN", "3YE-DEC")
Int = NDArray[np.int64]


def at(*texts: str, zone: str = "UTC") -> Int:
    """Local times in a zone, as UTC µs."""
    moments = [datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() for text in texts]
    return np.array([round(moment * 1_000_000) for moment in moments], np.int64)


def settled(calendar: Calendar, times: Int) -> tuple[int, Int, Int]:
    steps, phases = calendar.locate(times)
    return int(calendar.settle(np.zeros(len(times), np.int64), phases, steps)[0]), steps, phases


@pytest.mark.parametrize(
    ("frequency", "time", "step", "phase"),
    [
        ("s", "1970-01-01T00:00:05.25", 5, 250_000),
        ("min", "1969-12-31T23:59", -1, 0),
        ("h", "1970-01-01T05:30", 5, HOUR // 2),
        ("6h", "1970-01-01T13:00", 2, HOUR),
        ("36h", "1970-01-03T00:00", 1, 12 * HOUR),
        ("D", "1970-01-02T06:00", 1, 6 * HOUR),
        ("2D", "1970-01-04", 1, DAY),
        ("B", "1970-01-02", 1, 0),  # a Friday
        ("B", "1970-01-05", 2, 0),
        ("B", "1969-12-31", -1, 0),
        ("W-THU", "1970-01-08", 1, 0),
        ("W-SUN", "1970-01-04", 0, 0),
        ("W-SUN", "1970-01-05", 0, DAY),
        ("MS", "1970-03-01", 2, 0),
        ("MS", "1970-03-15T01:00", 2, 14 * DAY + HOUR),
        ("ME", "1970-02-28", 1, 0),
        ("ME", "1970-01-31", 0, 0),
        ("ME", "1970-01-30", 0, DAY),
        ("QS-JAN", "1970-04-01", 1, 0),
        ("QS-FEB", "1970-02-01", 0, 0),
        ("QS-FEB", "1970-01-01", -1, 2 * 31 * DAY),
        ("QE-DEC", "1970-03-31", 0, 0),
        ("QE-DEC", "1970-12-31", 3, 0),
        ("YS-APR", "1971-04-01", 1, 0),
        ("YE-DEC", "1970-12-31", 0, 0),
        ("YE-DEC", "1970-01-01", -1, 31 * DAY + 30 * DAY),
    ],
)
def test_steps_worked_by_hand(frequency: str, time: str, step: int, phase: int) -> None:
    calendar = Calendar.of(frequency)
    assert [part.tolist() for part in calendar.locate(at(time))] == [[step], [phase]]
    assert calendar.times(np.array([step]), phase).tolist() == at(time).tolist()


def test_integer_steps_are_the_integers() -> None:
    calendar = Calendar.of("step")
    times = np.array([-3, 0, 2**60])
    assert [part.tolist() for part in calendar.locate(times)] == [[-3, 0, 2**60], [0, 0, 0]]
    assert calendar.times(times, 0).tolist() == times.tolist()
    assert calendar.stamps(times) == [-3, 0, 2**60]
    assert [part.tolist() for part in Calendar.of("10step").locate(np.array([-1, 20]))] == [[-1, 2], [9, 0]]


low, high = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000 for year in (1900, 2200))
instants = st.lists(st.one_of(st.integers(low, high), st.integers(low // DAY, high // DAY).map(lambda day: day * DAY)))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("frequency", FREQUENCIES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(instants)
def test_times_and_steps_are_each_others_inverse(frequency: str, zone: str, moments: list[int]) -> None:
    calendar = Calendar.of(frequency, zone)
    # Beside the random instants: both sides of clock changes, month ends, leap days.
    times = np.r_[np.array(moments, np.int64), EDGES]
    steps, phases = calendar.locate(times)
    back = calendar.times(steps, phases)
    if calendar.frequency.unit in {"s", "min", "h"}:
        expected = times
    else:
        local = calendar.to_local(times)
        expected = calendar.to_utc(local)[0]  # the first of a local time shown twice
        assert (expected[~calendar.to_utc(local)[1]] == times[~calendar.to_utc(local)[1]]).all()
    np.testing.assert_array_equal(back, expected)
    again = calendar.locate(back)
    np.testing.assert_array_equal(again[0], steps)
    np.testing.assert_array_equal(again[1], phases)
    assert (calendar.times(steps + 1, phases) > back).all()
    grid = calendar.on_grid(steps, phases, phases)
    weekday = (calendar.to_local(times) // DAY + 3) % 7
    np.testing.assert_array_equal(grid, (weekday < 5) if calendar.frequency.unit == "B" else np.True_)


EDGES = np.concatenate(
    [
        at("2018-11-04T01:00", "2018-02-17T23:30", "1949-12-01", "1931-10-03T11:00", zone="America/Sao_Paulo"),
        at("2026-03-29T03:00", "2026-10-25T02:30", "1945-05-24T02:00", "2024-02-29", zone="Europe/Berlin"),
        at("2026-10-25T02:30", zone="Europe/Berlin") + HOUR,
        at("2026-11-01T01:30", "2026-03-08T03:00", "1918-03-31T03:00", zone="America/New_York"),
        at("2026-04-05T01:45", "2026-10-04T02:30", zone="Australia/Lord_Howe"),
        at("1900-03-01", "2100-02-28", "2000-02-29", "2023-12-31T23:59:59.999999", "1970-01-01"),
    ]
)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    "name", ["D", "3D", "B", "W-SUN", "2W-WED", "MS", "ME", "2MS", "QS-FEB", "QE-DEC", "YS-APR", "YE-JUN"]
)
def test_the_times_are_those_of_pandas(name: str, zone: str) -> None:
    index = pd.date_range("1990-01-01", "2029-12-31", freq=name)[:2000]
    local = index.tz_localize(ZoneInfo(zone), nonexistent="shift_forward", ambiguous=np.ones(len(index), np.bool_))
    times = local.tz_convert("UTC").tz_localize(None).as_unit("us").asi8
    calendar = Calendar.of(name, zone)
    phase, steps, phases = settled(calendar, times)
    assert phase == calendar.locate(times[-1:])[1][0]
    assert phase == 0 or name in {"3D", "2W-WED", "2MS"}  # multiples may begin inside a step
    np.testing.assert_array_equal(np.diff(steps), 1)
    np.testing.assert_array_equal(calendar.times(steps, phase), times)
    assert calendar.on_grid(steps, phases, phase).all()
    assert calendar.stamps(times) == [moment.isoformat() for moment in local]


def test_hours_are_those_of_pandas_across_clock_changes() -> None:
    for zone in ZONES:
        index = pd.date_range("2026-01-01", "2027-01-01", freq="30min", tz=ZoneInfo(zone))
        times = index.tz_convert("UTC").tz_localize(None).as_unit("us").asi8
        calendar = Calendar.of("30min", zone)
        steps, phases = calendar.locate(times)
        np.testing.assert_array_equal(np.diff(steps), 1)
        assert not phases.any()
        assert calendar.stamps(times) == [moment.isoformat() for moment in index]


def test_a_day_has_23_24_or_25_hours() -> None:
    calendar = Calendar.of("D", "Europe/Berlin")
    steps, _ = calendar.locate(at("2026-03-28", "2026-10-24", zone="Europe/Berlin"))
    lengths = [np.diff(calendar.times(step + np.arange(4), 0)) // HOUR for step in steps]
    assert [length.tolist() for length in lengths] == [[24, 23, 24], [24, 25, 24]]


def test_a_midnight_that_was_skipped_is_on_the_grid() -> None:
    zone = "America/Sao_Paulo"
    calendar = Calendar.of("D", zone)
    times = at("2017-10-14", "2017-10-15T01:00", "2017-10-16", zone=zone)
    phase, steps, phases = settled(calendar, times)
    assert phase == 0
    assert phases.tolist() == [0, HOUR, 0]
    assert calendar.on_grid(steps, phases, phase).all()
    assert calendar.times(steps, phase).tolist() == times.tolist()
    steps, phases = calendar.locate(at("2017-10-16T01:00", zone=zone))
    assert not calendar.on_grid(steps, phases, phase).any()


def test_both_occurrences_of_a_repeated_time_are_the_same_day() -> None:
    zone = "Europe/Berlin"
    first = at("2026-10-25T02:30", zone=zone)
    steps, phases = Calendar.of("D", zone).locate(np.r_[first, first + HOUR])
    assert steps[0] == steps[1]
    assert phases[0] == phases[1]
    hours, _ = Calendar.of("h", zone).locate(np.r_[first, first + HOUR])
    assert hours[1] - hours[0] == 1


def test_local_readings_become_utc() -> None:
    calendar = Calendar.of("h", "Europe/Berlin")
    wall = at("2026-10-25T02:30", "2026-10-25T02:30", "2026-03-29T02:30", "2026-07-01T00:00")  # read as a local clock
    times, ambiguous, missing = calendar.to_utc(wall, np.array([False, True, True, True]))
    assert times.tolist() == at("2026-10-25T00:30", "2026-10-25T01:30", "2026-03-29T01:30", "2026-06-30T22:00").tolist()
    assert ambiguous.tolist() == [True, True, False, False]
    assert missing.tolist() == [False, False, True, False]
    assert calendar.to_local(times).tolist() == [wall[0], wall[1], wall[2] + HOUR, wall[3]]


# Phases ------------------------------------------------------------------------------------------------------------

MEANT = [
    ("MS", ("2023-01-31", "2023-02-28", "2023-03-31"), 31),
    ("MS", ("2023-04-30", "2023-02-28"), 31),
    ("MS", ("2023-01-30", "2023-02-28", "2023-03-30"), 30),
    ("MS", ("2023-01-29", "2023-02-28", "2024-02-29"), 29),
    ("MS", ("2023-02-28", "2023-03-28"), 28),
    ("MS", ("2023-01-15", "2023-02-15", "2023-03-16"), 15),
    ("MS", ("2023-04-30", "2023-06-30"), 30),
    ("MS", ("2024-02-29",), 29),
    ("ME", ("2024-02-29",), 31),
    ("ME", ("2023-04-30", "2023-06-30"), 31),
    ("ME", ("2023-01-30", "2023-02-28", "2023-03-30", "2023-04-30", "2023-05-30"), 30),
    ("ME", ("2023-01-01", "2023-02-01"), 1),
    ("QS-JAN", ("2023-01-31", "2023-04-30", "2023-07-31"), 31),
    ("YE-DEC", ("2023-02-28", "2024-02-29", "2025-02-28"), 29),  # the ends of February
]


@pytest.mark.parametrize(("frequency", "texts", "day"), MEANT)
def test_the_day_of_the_month_that_a_series_means(frequency: str, texts: tuple[str, ...], day: int) -> None:
    calendar = Calendar.of(frequency)
    phase, steps, phases = settled(calendar, at(*texts))
    on = calendar.on_grid(steps, phases, phase)
    assert on.tolist() == [text != "2023-03-16" for text in texts]
    assert calendar.times(steps, phase)[on].tolist() == at(*texts)[on].tolist()
    one = int(calendar.locate(at("2023-01-01"))[0][0])
    days = calendar.to_local(calendar.times(one + np.arange(24), phase)) // DAY
    assert max(pd.to_datetime(days, unit="D").day) == day


def test_each_series_has_the_phase_of_most_of_its_rows() -> None:
    random = np.random.default_rng(5)
    calendar = Calendar.of("h", "Europe/Berlin")
    true = random.integers(0, 60, 10_000) * 60_000_000
    codes = np.repeat(np.arange(10_000), 5)
    steps = np.tile(np.arange(5), 10_000)
    times = calendar.times(steps, true[codes])
    times[3::5] += 1  # one row in five is off
    order = random.permutation(len(times))
    codes, (steps, phases) = codes[order], calendar.locate(times[order])
    settled_phases = calendar.settle(codes, phases, steps)
    np.testing.assert_array_equal(settled_phases, true)
    np.testing.assert_array_equal(calendar.on_grid(steps, phases, settled_phases[codes]), order % 5 != 3)


@pytest.mark.parametrize("frequency", ["MS", "ME", "QS-FEB", "QE-DEC", "YS-JAN"])
def test_ten_thousand_series_each_on_its_day_of_the_month(frequency: str) -> None:
    random = np.random.default_rng(6)
    calendar = Calendar.of(frequency, "America/New_York")
    true = calendar.locate(at("2023-01-01T06:00") + random.integers(0, 31, 10_000) * DAY)[1]
    codes = np.repeat(np.arange(10_000), 13)
    times = calendar.times(np.tile(np.arange(600, 613), 10_000), true[codes])
    steps, phases = calendar.locate(times)
    found = calendar.settle(codes, phases, steps)
    assert calendar.on_grid(steps, phases, found[codes]).all()
    np.testing.assert_array_equal(calendar.times(steps, found[codes]), times)


def test_weekends_never_settle_on_business_days() -> None:
    calendar = Calendar.of("B")
    times = at("2026-08-01", "2026-08-02", "2026-08-08", "2026-08-03")  # Saturday, Sunday, Saturday; Monday
    phase, steps, phases = settled(calendar, times)
    assert phase == 0
    assert calendar.on_grid(steps, phases, phase).tolist() == [False, False, False, True]
    assert calendar.times(steps, phases).tolist() == times.tolist()
    phase, steps, phases = settled(calendar, times[:3])
    assert phase == 0
    assert not calendar.on_grid(steps, phases, phases).any()


def test_no_rows_settle_nothing() -> None:
    nothing = np.array([], np.int64)
    for frequency in ("h", "D", "B", "MS", "step"):
        calendar = Calendar.of(frequency, "Europe/Berlin")
        assert [part.size for part in calendar.locate(nothing)] == [0, 0]
        assert calendar.settle(nothing, nothing, nothing).size == 0
        assert calendar.on_grid(nothing, nothing, nothing).size == 0
        assert calendar.times(nothing, 0).size == 0
        assert calendar.stamps(nothing) == []


# Stamps ------------------------------------------------------------------------------------------------------------


def test_stamps_carry_the_offset_and_fractions_where_there_are_any() -> None:
    calendar = Calendar.of("h", "America/New_York")
    times = at("2026-01-01", "2026-07-01T00:00:00.25", "2026-07-01T00:00:00.000001")
    assert calendar.stamps(times) == [
        "2025-12-31T19:00:00-05:00",
        "2026-06-30T20:00:00.25-04:00",
        "2026-06-30T20:00:00.000001-04:00",
    ]
    assert Calendar.of("h").stamps(at("2026-01-01")) == ["2026-01-01T00:00:00+00:00"]
    assert Calendar.of("h", "Asia/Kolkata").stamps(at("2026-01-01")) == ["2026-01-01T05:30:00+05:30"]
    assert Calendar.of("h", "America/St_Johns").stamps(at("2026-01-01")) == ["2025-12-31T20:30:00-03:30"]


def test_local_mean_time_keeps_its_instant() -> None:
    (stamp,) = Calendar.of("h", "Europe/Berlin").stamps(at("1880-01-01"))  # the clocks of Berlin stood at +00:53:28
    assert stamp == "1880-01-01T00:53:00+00:53"
    assert datetime.fromisoformat(stamp) == datetime(1880, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("frequency", "zone"), [("fortnight", "UTC"), ("h", "Europe/Nowhere")])
def test_an_unknown_frequency_or_zone_is_refused(frequency: str, zone: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Calendar.of(frequency, zone)
