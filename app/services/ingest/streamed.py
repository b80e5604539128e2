"""A long, clean file as an Upload in bounded memory: its rows go to disk as they come, and are put in order from there.

Rows that come in order are placed as they come (`straight`). Of others codes, times and values are appended to three
files, in blocks sorted by key; where keys do not come in their order, the blocks are sorted again, one at a time, in
place. At last all blocks' rows of so many series are fetched, put in order and placed on the calendar. What takes more
judgement than that is left to `assemble`, which sees the whole file.
"""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.errors import AppError
from app.services.ingest.arrow import pa
from app.services.ingest.blocks import Block, Names, Odd, Source, opened
from app.services.ingest.columns import Roles
from app.services.ingest.grid import Ints, wanted_frequency
from app.services.ingest.placing import NONE, Later, Place, Placing, Tell
from app.services.ingest.sheet import Case
from app.services.ingest.straight import Astray, Order, Telling, finished, joined, place_straight
from app.services.ingest.upload import Ask, Known, Upload
from models import Calendar, Frequency

ROWS = 1 << 18  # sorted, and placed on the calendar, at a time
TOLD = 3  # times as many are the rows from which a frequency is told; a longer file must agree with it in every row
TYPES = {"codes": "<i4", "times": "<i8", "values": "<f8"}


def read_streamed(
    path: Path, folder: Path, ask: Ask, known: Known, *, rows: int = ROWS, tell: Tell | None = None
) -> Upload | None:
    """The Upload, whose steps and values are files in `folder`; None where `assemble` must see the whole file. At most
    `rows` rows, or one series, are sorted at a time. `tell` is given a letter for each part that is there, as `Place`
    has it, and NONE where those that were told do not hold."""
    try:
        return _read(path, ask, known, rows, (Place(folder, "a", tell), Place(folder, "b", tell)))
    except (Odd, AppError, pa.ArrowException, ValueError, OSError, EOFError):
        # A full disk may have room again.
        for left in (*folder.glob("*.rows"), *folder.glob("*.part")):
            left.unlink()
        if tell is not None:
            tell(NONE)
        return None


def _read(path: Path, ask: Ask, known: Known, most: int, places: tuple[Place, Place]) -> Upload:
    with opened(path, ask, known) as source:
        wanted = wanted_frequency(ask, source.case.known)
        if wanted == "step":
            raise Odd
        names = Names(ask.max_series)
        blocks = (block for block in source.blocks(names) if len(block.codes))
        first = next(blocks, None)
        if first is None:
            raise Odd
        blocks = chain([first], blocks)
        if not Order(names).holds(first.codes):
            return _sorted(source, blocks, names, most, places[1])
        try:
            lots = finished(blocks, names, ask.dataset, TOLD * most)
            telling = Telling(wanted, most // 4, TOLD * most)
            return place_straight(lots, places[0], source.case, telling, columns_of(source.roles))
        except Astray:
            places[0].clear()
    with opened(path, ask, known) as source:
        names = Names(ask.max_series)
        return _sorted(source, source.blocks(names), names, most, places[1])


def columns_of(roles: Roles) -> dict[str, object]:
    columns: dict[str, object] = {"layout": "long", "id": roles.id, "time": roles.time, "target": roles.target}
    columns |= {"future": [], "past": [], "static": []}
    return columns


@dataclass
class _Rows:
    """The file's rows on disk, each column in a file of `files`: `ends` (blocks,) of the blocks; once these are sorted
    also `offsets` (series + 1,) of the series, `bounds` (batches + 1,) of ranges of series with at most `most` rows, or
    one series, and `cuts` (blocks, batches + 1), where these begin in each block."""

    files: dict[str, BinaryIO]
    ends: list[int]
    most: int
    keys: list[str] = field(default_factory=list[str])
    offsets: Ints = field(default_factory=lambda: np.zeros(1, np.int64))
    bounds: list[int] = field(default_factory=list[int])
    cuts: Ints = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    def read(self, name: str, spans: Sequence[tuple[int, int]]) -> NDArray[Any]:
        """The rows of the spans, one after the other."""
        kind = np.dtype(TYPES[name])
        rows = np.empty(sum(stop - start for start, stop in spans), kind)
        at = 0
        for start, stop in spans:
            part = rows[at : at + stop - start]
            if os.preadv(self.files[name].fileno(), [part.data], start * kind.itemsize) < part.nbytes:
                raise OSError(errno.EIO, f"{name}: rows are missing")
            at += stop - start
        return rows

    def write(self, name: str, start: int, rows: NDArray[Any]) -> None:
        """Put the rows in the place of others."""
        self.files[name].seek(start * rows.itemsize)
        rows.tofile(self.files[name])
        self.files[name].flush()

    def blocks(self) -> Iterator[tuple[int, int]]:
        yield from zip([0, *self.ends[:-1]], self.ends, strict=True)

    def split(self) -> None:
        """Tell `bounds` and `cuts` of sorted blocks."""
        self.bounds, count = [0], len(self.keys)
        while (start := self.bounds[-1]) < count:
            stop = int(np.searchsorted(self.offsets, int(self.offsets[start]) + self.most, side="right")) - 1
            self.bounds.append(max(stop, start + 1))
        bounds = np.array(self.bounds, TYPES["codes"])
        cuts = [begin + np.searchsorted(self.read("codes", [(begin, end)]), bounds) for begin, end in self.blocks()]
        self.cuts = np.array(cuts)

    def fetch(self, batch: int) -> tuple[Ints, Ints, NDArray[np.float64]]:
        """Lengths of the series of a batch, times and values of their rows, by series and else as they came."""
        start, stop = self.bounds[batch : batch + 2]
        found: list[tuple[int, int]] = [
            (low, high) for low, high in self.cuts[:, batch : batch + 2].tolist() if low < high
        ]
        lengths = np.diff(self.offsets[start : stop + 1])
        owners, times, values = (self.read(name, found) for name in TYPES)
        if len(found) > 1 and (owners[1:] < owners[:-1]).any():
            order = _by_code(owners - np.int32(start), stop - start)
            times, values = times[order], values[order]
        return lengths, times, values


def _by_code(codes: NDArray[Any], count: int) -> Ints:
    """The order of rows by code, equal ones as they are; sixteen bits are sorted by radix."""
    return np.argsort(codes.astype(np.uint16) if count < 1 << 16 else codes, kind="stable")


def _sorted(source: Source, blocks: Iterator[Block], names: Names, most: int, place: Place) -> Upload:
    """The Upload of rows in any order, written to `place`."""
    case = source.case
    wanted = wanted_frequency(case.ask, case.known)
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {
            name: stack.enter_context((place.folder / f"{name}.rows").open("w+b")) for name in TYPES
        }
        spilled = _spill(blocks, names, files, most)
        rows = _Rows(files, spilled.ends, most)
        _sort(rows, names.keys or [case.ask.dataset], spilled, case.ask)
        calendar = _calendar(rows, wanted, case)
        with Placing(place, calendar, case, sampled=wanted is None) as placing:
            for batch, (start, stop) in enumerate(pairwise(rows.bounds)):
                placing.add(rows.keys[start:stop], *rows.fetch(batch))
    for name in TYPES:
        (place.folder / f"{name}.rows").unlink()
    return placing.upload(columns_of(source.roles))


class _Spilled(NamedTuple):
    """Where the blocks on disk end, (blocks,); how many rows each code has, (codes,); whether codes are in the order of
    keys, and the rows of each block in that of codes."""

    ends: list[int]
    counts: Ints
    in_order: bool


def _spill(blocks: Iterator[Block], names: Names, files: Mapping[str, BinaryIO], most: int) -> _Spilled:
    """Append all rows to the files, in blocks of `most` rows and a little more. As long as keys come in order their
    rows are sorted on the way, which else takes reading them again."""
    ends: list[int] = []
    counts, order = np.zeros(0, np.int64), Order(names)
    with Later() as later:
        for block in _larger(blocks, most):
            known, counts = counts, np.bincount(block.codes, minlength=len(names.keys))
            counts[: len(known)] += known
            if order.of_keys() and (block.codes[1:] < block.codes[:-1]).any():
                by_code = _by_code(block.codes, len(counts))
                columns = [column[by_code] for column in block]
            else:
                columns = list(block)
            lot = zip(TYPES.items(), columns, strict=True)
            later.write(*((files[name], column.astype(kind, copy=False)) for (name, kind), column in lot))
            ends.append(len(block.codes) + (ends[-1] if ends else 0))
    if not ends:
        raise Odd
    for file in files.values():
        file.flush()
    return _Spilled(ends, counts, order.of_keys())


def _larger(blocks: Iterator[Block], least: int) -> Iterator[Block]:
    held: list[Block] = []
    for block in blocks:
        held.append(block)
        if sum(len(each.codes) for each in held) >= least:
            yield joined(held)
            held.clear()
    if held:
        yield joined(held)


def _sort(rows: _Rows, texts: list[str], spilled: _Spilled, ask: Ask) -> None:
    """Put the rows of each block in the order of keys, in place: codes, which stand for `texts`, become ranks among the
    keys that have rows."""
    places: list[int] = np.flatnonzero(spilled.counts).tolist()
    places.sort(key=texts.__getitem__)
    if len(places) > ask.max_series:
        raise Odd
    rows.keys = [texts[place] for place in places]
    rows.offsets = np.concatenate(([0], np.cumsum(spilled.counts[places])))
    if not spilled.in_order or len(places) < len(texts):
        rank = np.full(len(texts), -1, np.int32)
        rank[places] = np.arange(len(places))
        for begin, end in rows.blocks():
            _sort_block(rows, begin, end, rank)
    rows.split()


def _sort_block(rows: _Rows, begin: int, end: int, rank: NDArray[np.int32]) -> None:
    codes = rank[rows.read("codes", [(begin, end)])]
    made: dict[str, NDArray[Any]] = {"codes": codes}
    if (codes[1:] < codes[:-1]).any():
        order = _by_code(codes, len(rows.keys))
        made = {"codes": codes[order]}
        made |= {name: rows.read(name, [(begin, end)])[order] for name in ("times", "values")}
    for name, column in made.items():
        rows.write(name, begin, column)


def _calendar(rows: _Rows, wanted: str | None, case: Case) -> Calendar:
    """The calendar of the rows; told from a few of the first, the middle and the last series where nobody says it and
    the rows are many."""
    zone = case.known.time_zone
    if wanted is not None:
        return Calendar.of(wanted, zone)
    batches = range(len(rows.bounds) - 1)
    few = len(batches) > 1 and rows.offsets[-1] > TOLD * rows.most
    codes: list[Ints] = []
    times: list[Ints] = []
    for batch in sorted({0, len(batches) // 2, len(batches) - 1}) if few else batches:
        lengths, moments, _ = rows.fetch(batch)
        # As many series as have a quarter of the rows, and the first in any case.
        ends: Ints = np.cumsum(lengths)
        some = max(int(np.searchsorted(ends, int(ends[-1]) // 4, side="right")), 1) if few else len(lengths)
        codes.append(rows.bounds[batch] + np.repeat(np.arange(some), lengths[:some]))
        times.append(moments[: int(ends[some - 1])])
    return Calendar(Frequency.infer(np.concatenate(times), np.concatenate(codes), zone), zone)
