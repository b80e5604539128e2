"""Time zones as arrays: every change of a zone's offset in one table, so that a million instants cost one search."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

SECOND = 1_000_000  # everything here counts in microseconds
HOUR = 3600 * SECOND
DAY = 24 * HOUR
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# No zone changed before FIRST: local mean time ruled. Long before 2100 the last zone settles on a rule of the Gregorian
# calendar, which repeats after 400 years of exactly 20,871 weeks, so instants after LAST are looked up cycles earlier.
FIRST = int((datetime(1800, 1, 1, tzinfo=UTC) - EPOCH).total_seconds())
LAST = int((datetime(2500, 1, 1, tzinfo=UTC) - EPOCH).total_seconds())
CYCLE = 146_097 * DAY
PROBE = 3 * 86_400  # seconds between probes: no zone has changed twice in less (Freetown 1939 comes nearest, 3.99 days)


@dataclass(frozen=True, eq=False)
class Zone:
    """One time zone as arrays of int64 µs.

    `changes` (c,) are the UTC instants at which the offset changes, `offsets` (c + 1,) the offsets before, between and
    after them; `early` and `late` (c,) are the local readings at which each change begins and ends to matter.
    """

    name: str
    changes: Int
    offsets: Int
    early: Int
    late: Int

    def offset(self, times: Int) -> Int:
        """Offset from UTC in µs at each UTC instant in µs."""
        return self.offsets[_place(self.changes, _within(times))]

    def to_local(self, times: Int) -> Int:
        """What the local clock shows, in µs since 1970-01-01T00:00 on that clock, at each UTC instant in µs."""
        return times + self.offset(times)

    def to_utc(self, local: Int, second: Bool | None = None) -> tuple[Int, Bool, Bool]:
        """UTC µs of readings of the local clock in µs; which readings it shows twice; which it never shows.

        A reading shown twice means the first time, or the second where `second` is true. One that is never shown is
        read with the offset before the change, which moves it forward by the gap (PEP 495, fold=0).
        """
        within = _within(local)
        before, after = self.offsets[_place(self.late, within)], self.offsets[_place(self.early, within)]
        ambiguous, missing = after < before, after > before
        offset = before if second is None else np.where(ambiguous & second, after, before)
        return local - offset, ambiguous, missing


@cache
def zone(name: str) -> Zone:
    """The zone of an IANA name. Raises ValueError on a name that the installed zone data does not have.

    The first call for a zone other than UTC takes about a tenth of a second, later ones nothing.
    """
    if name != "UTC" and name not in _names():  # to list them takes a while
        raise ValueError(
            f"time_zone: expected an IANA name such as UTC or Europe/Berlin, got {name[:60]!r}{_hint(name)}"
        )
    changes, offsets = _probe(ZoneInfo(name))
    at, by = np.array(changes, np.int64) * SECOND, np.array(offsets, np.int64) * SECOND
    return Zone(name, at, by, at + np.minimum(by[:-1], by[1:]), at + np.maximum(by[:-1], by[1:]))


@cache
def _names() -> frozenset[str]:
    return frozenset(available_timezones())


def _hint(name: str) -> str:
    folded = {known.casefold(): known for known in sorted(_names())}
    close = get_close_matches(name[:60].casefold(), folded, n=1)
    return f" (did you mean {folded[close[0]]}?)" if close else ""


def _offset(place: ZoneInfo, second: int) -> int:
    offset = (EPOCH + timedelta(seconds=second)).astimezone(place).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def _probe(place: ZoneInfo) -> tuple[list[int], list[int]]:
    """The changes of a zone in UTC seconds and the offsets around them in seconds.

    Found by looking every few days and halving where the offset differs, for zoneinfo shows its table to nobody.
    """
    if place.key == "UTC":
        return [], [0]
    changes: list[int] = []
    offsets = [_offset(place, FIRST)]
    for probe in range(FIRST + PROBE, LAST + 366 * 86_400, PROBE):
        now = _offset(place, probe)
        if now == offsets[-1]:
            continue
        low, high = probe - PROBE, probe
        while high - low > 1:
            middle = (low + high) // 2
            if _offset(place, middle) == offsets[-1]:
                low = middle
            else:
                high = middle
        changes.append(high)
        offsets.append(now)
    return changes, offsets


def _within(times: Int) -> Int:
    """The same times, those after LAST moved back by whole cycles."""
    last = LAST * SECOND
    if not times.size or times.max() < last:
        return times
    return times - np.maximum((times - last) // CYCLE + 1, 0) * CYCLE


def _place(bounds: Int, times: Int) -> NDArray[np.intp]:
    """How many bounds lie at or before each time. Only the bounds inside the times' range are searched: usually few."""
    if not times.size or not bounds.size:
        return np.zeros(times.shape, np.intp)
    low, high = np.searchsorted(bounds, (times.min(), times.max()), side="right")
    return low + np.searchsorted(bounds[low:high], times, side="right")
