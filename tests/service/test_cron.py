"""When a cron line fires, worked by hand."""

import datetime as dt
from itertools import pairwise

import pytest

from app.errors import Invalid
from app.services import cron


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def times(line: str, zone: str, after: str, count: int) -> list[str]:
    found, at = [], utc(after)
    for _ in range(count):
        at = cron.following(line, zone, at)
        found.append(at.isoformat(sep=" ", timespec="minutes").removesuffix("+00:00"))
    return found


@pytest.mark.parametrize(
    ("line", "zone", "after", "expected"),
    [
        ("0 3 * * *", "UTC", "2026-11-21 03:00", ["2026-11-22 03:00", "2026-11-23 03:00"]),
        ("0 3 * * *", "UTC", "2026-11-21 02:59:59.5", ["2026-11-21 03:00"]),
        ("0 3 * * *", "Asia/Kolkata", "2026-11-21 00:00", ["2026-11-21 21:30"]),
        ("30 6 * * 1-5", "Europe/Berlin", "2026-11-20 12:00", ["2026-11-23 05:30", "2026-11-24 05:30"]),
        ("0 0 1 */3 *", "UTC", "2026-11-21 00:00", ["2027-01-01 00:00", "2027-04-01 00:00"]),
        ("0 12 29 2 *", "UTC", "2026-11-21 00:00", ["2028-02-29 12:00"]),
        # 29 March 2026: 02:00 becomes 03:00 in Berlin. What is skipped fires an hour later, once.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["2026-03-29 01:30", "2026-03-30 00:30"]),
        ("30 1-4 * * *", "Europe/Berlin", "2026-03-29 00:00", ["2026-03-29 00:30", "2026-03-29 01:30"]),
        ("0 * * * *", "Europe/Berlin", "2026-03-29 00:00", ["2026-03-29 01:00", "2026-03-29 02:00"]),
        # 25 October 2026: 03:00 becomes 02:00. A fixed time fires at the first of the two, the hours go on.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["2026-10-25 00:30", "2026-10-26 01:30"]),
        ("0 * * * *", "Europe/Berlin", "2026-10-25 00:00", ["2026-10-25 01:00", "2026-10-25 02:00"]),
        # Half an hour on Lord Howe Island; Sunday, 5 April 2026, 02:00 becomes 01:30.
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00", ["2026-04-04 14:45", "2026-04-05 15:15"]),
        ("*/15 * * * *", "Australia/Lord_Howe", "2026-04-04 14:50", ["2026-04-04 15:00", "2026-04-04 15:15"]),
    ],
)  # fmt: skip
def test_it_fires_when_the_dial_says_so(line: str, zone: str, after: str, expected: list[str]) -> None:
    assert times(line, zone, after, len(expected)) == expected


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
def test_the_quarters_of_a_year_are_a_quarter_apart(zone: str) -> None:
    """Every change of the clocks included."""
    at = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    for begin in (at, at + dt.timedelta(days=28), at.replace(month=4, day=4), at.replace(month=10, day=24)):
        found = [begin]
        for _ in range(24 * 4 * 2):
            found.append(cron.following("*/15 * * * *", zone, found[-1]))
        assert {later - earlier for earlier, later in pairwise(found)} == {dt.timedelta(minutes=15)}


@pytest.mark.parametrize(
    "line",
    ["", "* * * *", "* * * * * *", "61 * * * *", "0 24 * * *", "0 3 * * mond", "@daily", "0 0 30 2 *", "H 3 * * *",
     "R 3 * * *", "0 3 * * *; drop", "é 3 * * *"],
)  # fmt: skip
def test_what_is_no_cron_line_is_refused(line: str) -> None:
    with pytest.raises(Invalid, match="cron: expected") as refused:
        cron.check(line)
    assert refused.value.errors[0].pointer == "/cron"


@pytest.mark.parametrize("line", ["0 3 * * *", "*/5 0-6,18 1,15 jan-mar MON-fri", "0 0 L * *", "0 0 29 2 *"])
def test_what_is_one_is_not(line: str) -> None:
    cron.check(line)
