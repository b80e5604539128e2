"""Segments painted over many series at once: rows of one array that end with the newest step of each series."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.services.codecs import RAW, decode_all

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

UNPACKED = 1 << 20  # values unpacked together


@dataclass(frozen=True)
class Pieces:
    """Segments of many series, oldest first: `places` (segment,) of the series, `starts` and `lengths` in steps."""

    places: Ints
    starts: Ints
    lengths: Ints
    codecs: Sequence[int]
    payloads: Sequence[bytes]

    def among(self, places: Ints) -> "Pieces":
        """Those of these series."""
        which = np.flatnonzero(np.isin(self.places, places))
        some = which.tolist()
        codecs, payloads = [self.codecs[at] for at in some], [self.payloads[at] for at in some]
        return Pieces(self.places[which], self.starts[which], self.lengths[which], codecs, payloads)


def lay(values: Floats, stops: Ints, pieces: Pieces) -> None:
    """Paint segments over (series, steps), whose rows end before the steps `stops` (series,); later over earlier."""
    width = values.shape[1]
    ends = stops[pieces.places]
    low = np.maximum(pieces.starts, ends - width)
    counts = np.maximum(np.minimum(pieces.starts + pieces.lengths, ends) - low, 0)
    offsets = np.cumsum(counts) - counts
    flat = np.empty(int(counts.sum()))
    raw = np.array(pieces.codecs) == RAW
    skipped = low - pieces.starts
    for which, unpack in ((np.flatnonzero(raw), _unpacked_raw), (np.flatnonzero(~raw & (counts > 0)), _unpacked)):
        for some in _grouped(which, pieces.lengths):
            held = unpack(pieces, some)
            begins = np.cumsum(pieces.lengths[some]) - pieces.lengths[some] + skipped[some]
            flat[spread(offsets[some], counts[some])] = held[spread(begins, counts[some])]
    # Of a cell that is painted twice, numpy keeps the last value.
    values[np.repeat(pieces.places, counts), spread(low - ends + width, counts)] = flat


def _grouped(places: Ints, lengths: Ints) -> Iterator[Ints]:
    """The places in runs of segments that together hold about `UNPACKED` values."""
    if len(places):
        runs = np.cumsum(lengths[places]) // UNPACKED
        yield from np.split(places, np.flatnonzero(np.diff(runs)) + 1)


def _unpacked_raw(pieces: Pieces, some: Ints) -> Floats:
    places: list[int] = some.tolist()
    return np.frombuffer(b"".join([pieces.payloads[place] for place in places]), "<f8")


def _unpacked(pieces: Pieces, some: Ints) -> Floats:
    places: list[int] = some.tolist()
    codecs, payloads = [pieces.codecs[place] for place in places], [pieces.payloads[place] for place in places]
    return decode_all(codecs, payloads, pieces.lengths[some].tolist())


def spread(starts: Ints, counts: Ints) -> Ints:
    """The numbers from each start on, so many of each, end to end."""
    total = int(counts.sum())
    return np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(total)


def trim(values: Floats, stops: Ints) -> Ints:
    """Move rows of (series, steps) that end in missing values to the right until they end with their last one, in
    place; gives by how many steps, (series,). A row without any value stays."""
    moved = np.zeros(len(values), np.int64)
    if not values.shape[1]:
        return moved
    for place in np.flatnonzero(np.isnan(values[:, -1])).tolist():
        known = np.flatnonzero(~np.isnan(values[place]))
        if len(known):
            step = values.shape[1] - 1 - int(known[-1])
            values[place, step:] = values[place, : values.shape[1] - step].copy()
            values[place, :step] = np.nan
            moved[place] = step
        else:
            moved[place] = values.shape[1]
    return moved


def shifted(values: Floats, by: Ints) -> Floats:
    """A copy of (series, steps) with each row moved to the left by so many steps, NaN behind it."""
    by = np.minimum(by, values.shape[1])
    if len(by) and (by == by[0]).all():  # one point more for each, as mostly
        found, step = np.empty_like(values), int(by[0])
        found[:, : values.shape[1] - step] = values[:, step:]
        found[:, values.shape[1] - step :] = np.nan
        return found
    found = values.copy()
    for step in np.unique(by[by > 0]).tolist():
        rows = np.flatnonzero(by == step)
        found[rows, : values.shape[1] - step] = values[rows, step:]
        found[rows, values.shape[1] - step :] = np.nan
    return found
