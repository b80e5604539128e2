"""When a cron line fires next, on the clock of a time zone.

Where clocks change, as Vixie's cron does it: a line with a fixed hour fires once on every day that it means, as much
later as the clock was set forward when its own time was skipped (02:30 becomes 03:30), and at the first of the two when
its time comes twice. A line whose hour begins with `*` goes by the hours that pass: it leaves out those that were
skipped, and fires in both that have one name.
"""

import datetime as dt
import re
from zoneinfo import ZoneInfo

from croniter import croniter

from app.errors import Complaint, Invalid

MOST = 100  # characters of a line
FIELDS = re.compile(r"[0-9A-Za-z*,/#-]+")
RANDOM = re.compile(r"(?<![A-Za-z])[HhRr](?![A-Za-z])")  # hashed and random fields: another library's business
SHIFT = dt.timedelta(hours=3)  # more than any clock is set forward or back


def check(line: str) -> None:
    """Raises Invalid, pointing at /cron, unless this is five fields that fire at some time."""
    fields = line.split()
    good = len(fields) == 5 and all(map(FIELDS.fullmatch, fields)) and not RANDOM.search(line)
    if not good or not croniter.is_valid(line):
        raise _refusal(line, "expected five fields: minute, hour, day of month, month, day of week, as in `0 3 * * *`")
    try:
        croniter(line, dt.datetime(2000, 1, 1)).get_next(dt.datetime)
    except ValueError as error:
        raise _refusal(line, "expected a line that fires at some time") from error


def following(line: str, time_zone: str, after: dt.datetime) -> dt.datetime:
    """The first moment, UTC, later than `after` at which the line fires in the time zone."""
    zone = ZoneInfo(time_zone)
    by_the_hour = line.split()[1].startswith("*")
    local = after.astimezone(zone).replace(tzinfo=None)
    dial = croniter(line, local - SHIFT)
    best: dt.datetime | None = None
    while True:
        time: dt.datetime = dial.get_next(dt.datetime)
        if best is not None and time > best.astimezone(zone).replace(tzinfo=None) + SHIFT:
            return best
        for moment in _moments(time, zone, by_the_hour):
            if moment > after and (best is None or moment < best):
                best = moment


def _moments(local: dt.datetime, zone: ZoneInfo, by_the_hour: bool) -> list[dt.datetime]:
    """When the dial shows this time and the line fires, UTC."""
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(dt.UTC) for fold in (0, 1))
    if first == second or not by_the_hour:
        return [first]  # of a time that was skipped: as if the clock had not been set forward
    skipped = first.astimezone(zone).replace(tzinfo=None) != local
    return [] if skipped else [first, second]


def _refusal(line: str, expected: str) -> Invalid:
    said = f"cron: {expected}, got {line[:MOST]!r}"
    return Invalid(said + ".", errors=[Complaint("cron", said, pointer="/cron", value_preview=line[:MOST])])
