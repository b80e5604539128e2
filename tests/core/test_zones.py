"""Zones against zoneinfo itself: two routes to one offset."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.zones import DAY, SECOND, zone

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo")
ODD = ("Africa/Casablanca", "Africa/Freetown", "Asia/Gaza", "Pacific/Apia")
some = settings(max_examples=60, deadline=None, derandomize=True)


def seconds(first: int, last: int) -> st.SearchStrategy[list[int]]:
    low, high = (int((datetime(year, 1, 1, tzinfo=UTC) - EPOCH).total_seconds()) for year in (first, last))
    return st.lists(st.integers(low, high), min_size=1, max_size=20)


def offset(at: datetime) -> int:
    shown = at.utcoffset()
    assert shown is not None
    return shown // timedelta(microseconds=1)


@pytest.mark.parametrize("name", ZONES + ODD)
@some
@given(seconds(1700, 9990))
def test_offsets_are_those_of_zoneinfo(name: str, instants: list[int]) -> None:
    expected = [offset((EPOCH + timedelta(seconds=instant)).astimezone(ZoneInfo(name))) for instant in instants]
    assert zone(name).offset(np.array(instants) * SECOND).tolist() == expected


@pytest.mark.parametrize("name", ODD)
def test_no_change_between_two_probes_is_missed(name: str) -> None:
    days = np.arange(-25_567, 47_482)  # noons of 1900 to 2099
    place = ZoneInfo(name)
    expected = [offset((EPOCH + timedelta(days=day, hours=12)).astimezone(place)) for day in days.tolist()]
    np.testing.assert_array_equal(zone(name).offset(days * DAY + DAY // 2), expected)


def test_a_change_is_found_to_the_second() -> None:
    at = int(datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp())
    assert zone("Europe/Berlin").offset(np.array([at - 1, at]) * SECOND).tolist() == [3600 * SECOND, 7200 * SECOND]


@pytest.mark.parametrize("name", ZONES)
@some
@given(seconds(1850, 2700), st.integers(0, 2**32))
def test_local_readings_mean_what_zoneinfo_says(name: str, readings: list[int], seed: int) -> None:
    place = zone(name)
    # Random readings, and readings around the zone's changes: those are the ones that are shown twice or never.
    near = place.late[np.random.default_rng(seed).integers(0, len(place.late), 20)] if len(place.late) else []
    local = np.r_[np.array(readings) * SECOND, np.asarray(near, np.int64) - 1, np.asarray(near, np.int64)]
    naive = [(EPOCH + timedelta(microseconds=reading)).replace(tzinfo=ZoneInfo(name)) for reading in local.tolist()]
    first, second = [offset(at.replace(fold=0)) for at in naive], [offset(at.replace(fold=1)) for at in naive]
    got, ambiguous, missing = place.to_utc(local)
    np.testing.assert_array_equal(got, local - first)
    np.testing.assert_array_equal(ambiguous, np.less(second, first))
    np.testing.assert_array_equal(missing, np.greater(second, first))
    later = place.to_utc(local, np.ones(len(local), np.bool_))[0]
    np.testing.assert_array_equal(later, local - np.where(missing, first, second))


def test_empty_arrays_stay_empty() -> None:
    nothing = np.array([], np.int64)
    assert zone("Europe/Berlin").to_local(nothing).size == 0
    assert [part.size for part in zone("Europe/Berlin").to_utc(nothing)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("europe/berlin", "did you mean Europe/Berlin"), ("Europe/Berlim", "did you mean Europe/Berlin"), ("Utc", "UTC")],
)
def test_a_near_miss_is_told(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        zone(name)


@pytest.mark.parametrize(
    "name", ["", "Europe", "../etc/passwd", "/etc/localtime", "+01:00", "Mars/Base", "x" * 10_000, "\0"]
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected an IANA name") as caught:
        zone(name)
    assert len(str(caught.value)) < 400
