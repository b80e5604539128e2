"""Time zones as arrays: every change of a zone's offset in one table, so that a million instants cost one searchsorted."""

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
DAY = 86_400 * SECOND
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# No zone changed before FIRST (local mean time ruled), and from 2100 on every zone follows a rule of the Gregorian calendar,
# which repeats after 400 years of exactly 20,871 weeks: later instants are looked up a whole number of cycles earlier.
FIRST = int((datetime(1800, 1, 1, tzinfo=UTC) - EPOCH).total_seconds())
LAST = int((datetime(2500, 1, 1, tzinfo=UTC) - EPOCH).total_seconds())
CYCLE = 146_097 * DAY
PROBE = 3 * 86_400  # seconds between probes: no zone changed twice within so short a time


@dataclass(frozen=True, eq=False)
class Zone:
    """One time zone. `changes` (c,) are the UTC instants at which its offset changes, `offsets` (c + 1,) the offsets before,
    between and after them; `early` and `late` (c,) are where each change begins and ends on the local clock. All int64 µs."""

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
        """UTC instants in µs of local clock readings in µs; which readings the clock shows twice; which it never shows.

        A reading shown twice means its first occurrence, or the second where `second` is true; one that is never shown is
        read with the offset before the change, which moves it forward by the gap (PEP 495, fold=0).
        """
        within = _within(local)
        first, last = _place(self.late, within), _place(self.early, within)
        before, after = self.offsets[first], self.offsets[last]
        ambiguous, missing = after < before, after > before
        used = before if second is None else np.where(ambiguous & second, after, before)
        return local - used, ambiguous, missing


@cache
def zone(name: str) -> Zone:
    """The zone of an IANA name. Raises ValueError on a name that the installed zone data does not have."""
    if name not in _names():
        close = get_close_matches(name, _names(), n=1) or [n for n in _names() if n.casefold() == name.casefold()]
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"time_zone: expected an IANA name such as UTC or Europe/Berlin, got {name[:60]!r}{hint}")
    changes, offsets = _probe(ZoneInfo(name))
    at, by = np.array(changes, np.int64) * SECOND, np.array(offsets, np.int64) * SECOND
    early, late = at + np.minimum(by[:-1], by[1:]), at + np.maximum(by[:-1], by[1:])
    return Zone(name, at, by, early, late)


@cache
def _names() -> frozenset[str]:
    return frozenset(available_timezones())


def _offset(place: ZoneInfo, second: int) -> int:
    offset = (EPOCH + timedelta(seconds=second)).astimezone(place).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def _probe(place: ZoneInfo) -> tuple[list[int], list[int]]:
    """The changes of a zone in UTC seconds and the offsets around them in seconds, by looking and halving: zoneinfo has the
    table but shows it to nobody."""
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
    """How many bounds lie at or before each time. Only the bounds within the times' range are searched: usually a few."""
    if not times.size or not bounds.size:
        return np.zeros(times.shape, np.intp)
    low, high = np.searchsorted(bounds, (times.min(), times.max()), side="right")
    if low == high:
        return np.full(times.shape, low, np.intp)
    return low + np.searchsorted(bounds[low:high], times, side="right")
