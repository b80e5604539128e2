"""A file whose series come one after the other, in the order of keys: each block is placed as soon as it is read."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from app.services.ingest.blocks import Block, Names, Odd
from app.services.ingest.grid import Ints
from app.services.ingest.placing import Place, Placing
from app.services.ingest.sheet import Case
from app.services.ingest.upload import Upload
from models import Calendar, Frequency

# Keys and lengths (series,), times and values (rows,) of some series.
Lot = tuple[list[str], Ints, Ints, NDArray[np.float64]]


class Astray(Exception):
    """The file is in no such order after all; what was told of it does not hold."""


class Order:
    """Whether blocks come in the order of keys, as far as they were looked at."""

    def __init__(self, names: Names) -> None:
        self._names, self._seen, self._last, self._ascend = names, 0, 0, True

    def of_keys(self) -> bool:
        """Whether the keys met so far were met in their order."""
        keys = self._names.keys
        new = keys[max(self._seen - 1, 0) :]
        self._seen = len(keys)
        self._ascend = self._ascend and all(one < other for one, other in pairwise(new))
        return self._ascend

    def holds(self, codes: NDArray[np.int32]) -> bool:
        """Look at the next block: no key before an earlier one, neither in it nor in what it adds to the names."""
        if not self.of_keys():
            return False
        first, self._last = self._last, int(codes[-1])
        return bool(codes[0] >= first and (codes[1:] >= codes[:-1]).all())


@dataclass(frozen=True)
class Telling:
    """How a frequency is told: `wanted` where somebody said it, else from all rows; where they are more than `many`,
    from `few` of the first, of the middle and of the last ones."""

    wanted: str | None
    few: int
    many: int


def place_straight(
    lots: Iterator[Lot], place: Place, case: Case, telling: Telling, columns: dict[str, object]
) -> Upload:
    """The Upload, written to `place`. Raises Astray where the blocks are in another order, a series is too long to be
    held, or the first series have another frequency than all; Odd as they are read."""
    first = next(lots)
    is_told = telling.wanted is not None
    with Placing(place, _calendar(first, telling.wanted, case), case, sampled=not is_told) as placing:
        for lot in chain([first], lots):
            try:
                placing.add(*lot)
            except Odd as error:  # or is it the frequency, which not all rows have told?
                raise error if is_told else Astray from error
            if len(placing.keys) > case.ask.max_series:
                raise Odd
    upload = placing.upload(columns)
    if not is_told and _told_again(upload, placing.ends, telling) != upload.calendar.frequency:
        raise Astray
    return upload


def finished(blocks: Iterator[Block], names: Names, alone: str, most: int) -> Iterator[Lot]:
    """The series that are there whole, a block's at a time; `alone` is the key where a file has none. Raises Astray
    where one has more than `most` rows."""
    order = Order(names)
    held: list[Block] = []
    for block in blocks:
        if not order.holds(block.codes):
            raise Astray
        cut = int(np.searchsorted(block.codes, int(block.codes[-1])))
        if held and (cut or held[0].codes[0] != block.codes[0]):
            yield _lot([*held, _slice(block, slice(0, cut))], names, alone)
            held.clear()
        elif cut:
            yield _lot([_slice(block, slice(0, cut))], names, alone)
        held.append(_slice(block, slice(cut, None)))
        if sum(len(each.codes) for each in held) > most:
            raise Astray
    yield _lot(held, names, alone)


def _slice(block: Block, rows: slice) -> Block:
    return Block(block.codes[rows], block.times[rows], block.values[rows])


def _lot(held: list[Block], names: Names, alone: str) -> Lot:
    codes, times, values = joined(held)
    starts = np.concatenate(([0], np.flatnonzero(codes[1:] != codes[:-1]) + 1))
    places: list[int] = codes[starts].tolist()
    keys = [names.keys[place] for place in places] if names.keys else [alone]
    return keys, np.diff(starts, append=len(codes)), times, values


def joined(blocks: list[Block]) -> Block:
    """The rows of all of them."""
    if len(blocks) == 1:
        return blocks[0]
    return Block(
        np.concatenate([block.codes for block in blocks]),
        np.concatenate([block.times for block in blocks]),
        np.concatenate([block.values for block in blocks]),
    )


def _calendar(lot: Lot, wanted: str | None, case: Case) -> Calendar:
    """The calendar of the rows. Raises Astray where they do not tell it."""
    zone = case.known.time_zone
    if wanted is not None:
        return Calendar.of(wanted, zone)
    _, lengths, times, _ = lot
    try:
        return Calendar(Frequency.infer(times, np.repeat(np.arange(len(lengths)), lengths), zone), zone)
    except ValueError as error:
        raise Astray from error


def _told_again(upload: Upload, ends: list[int], telling: Telling) -> Frequency:
    """The frequency as all of a file's rows tell it; of a long one the first, the middle and the last."""
    offsets, parts = upload.offsets, len(ends) - 1
    spans = [(0, len(upload.keys))]
    if ends[-1] > telling.many:
        begins = np.searchsorted(offsets, [ends[part] for part in sorted({0, parts // 2, parts - 1})])
        stops = np.searchsorted(offsets, offsets[begins] + telling.few, side="right") - 1
        spans = list(zip(begins.tolist(), np.maximum(stops, begins + 1).tolist(), strict=True))
    codes = np.concatenate([np.repeat(np.arange(*span), np.diff(offsets[span[0] : span[1] + 1])) for span in spans])
    steps = np.concatenate([upload.steps[offsets[start] : offsets[stop]] for start, stop in spans])
    times = upload.calendar.times(steps, upload.phases[codes])
    return Frequency.infer(times, codes, upload.calendar.time_zone)
