"""The end of one stored series as it is kept in memory, and how it is continued by the segments that are newer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.services.codecs import decode
from app.services.segments import Extent
from models import Note, Series

ENTRY = 2500  # bytes of a series beside its values: objects, names, what is kept with it


@dataclass(slots=True)
class Tail:
    """The end of a stored series at `revision`: `series` ends with its last value and holds the `asked` steps before
    it, without those missing at their beginning. `kept` are forecasts made from it, with what is said about them;
    `extent` is what is stored of the series, where that is known."""

    id: int
    series: Series
    asked: int
    revision: int
    kept: dict[Any, tuple[bytes, Sequence[Note]]] = field(default_factory=dict[Any, tuple[bytes, Sequence[Note]]])
    extent: Extent | None = None

    @property
    def size(self) -> int:
        return ENTRY + self.series.target.nbytes


def painted(tail: Tail, rows: Sequence[Any]) -> bool:
    """Paint (revision, base, start, length, codec, payload) rows, oldest first, over a tail. False when the tail is not
    enough for that, and left as it was: an end that has become missing, a value before the first."""
    series = tail.series
    first, stop = series.start, series.start + len(series.target)
    full = len(series.target) >= tail.asked
    for _, _, start, length, _, _ in rows:
        if not length or (start < first and not full) or start > stop + tail.asked:
            return False
    if not rows or _went_on(tail, rows):
        return True
    end = max(stop, *(start + length for _, _, start, length, _, _ in rows))
    values = np.full(end - first, np.nan)
    values[: stop - first] = series.target
    fresh = 0
    for revision, base, start, length, codec, payload in rows:
        if base and revision != fresh:  # the first segment of one: the series begins anew
            values[:], fresh = np.nan, revision
        low = max(start, first)
        if low < start + length:
            values[low - first : start + length - first] = decode(codec, payload, length)[low - start :]
    return _settled(tail, values)


def _went_on(tail: Tail, rows: Sequence[Any]) -> bool:
    """The same for one segment that begins where the tail ends, as nearly all do: nothing has to be searched for."""
    series = tail.series
    _, base, start, length, codec, payload = rows[0]
    if len(rows) > 1 or base or start != series.start + len(series.target) or length > tail.asked:
        return False
    over = max(0, len(series.target) + length - tail.asked)
    values = np.concatenate((series.target[over:], decode(codec, payload, length)))
    if np.isnan(values[0]) or np.isnan(values[-1]):
        return False
    tail.series = Series(series.key, values, start + length - len(values), series.phase)
    tail.kept = {}  # after the series, and another one: who still holds the old one writes into nothing
    return True


def _settled(tail: Tail, values: Any) -> bool:
    """Make (time,) values from the tail's first step on its new ones, as far as they reach back."""
    first = tail.series.start
    present = np.flatnonzero(~np.isnan(values))
    if not len(present):
        return False
    stop = int(present[-1]) + 1
    if stop < len(tail.series.target):
        return False  # older values are wanted now, which may not be here
    low = max(0, stop - tail.asked)
    low = int(present[np.searchsorted(present, low)])
    kept = values[low:stop].copy()
    tail.series = Series(tail.series.key, kept, first + low, tail.series.phase)
    tail.kept = {}  # after the series, and another one: who still holds the old one writes into nothing
    return True
