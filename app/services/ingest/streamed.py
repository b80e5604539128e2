"""A long, clean file as an Upload in bounded memory: its rows go to disk as they come, and are put in order from there.

First pass: codes, times and values of each block are appended to three files. Then the blocks are sorted by key, one at
a time, in place. At last all blocks' rows of so many series are fetched, put in order and placed on the calendar. What
takes more judgement than that is left to `assemble`, which sees the whole file.
"""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from app.errors import AppError
from app.services.ingest.arrow import pa
from app.services.ingest.blocks import Names, Odd, Source, opened
from app.services.ingest.grid import Ints, allowed_spans, ordered, wanted_frequency
from app.services.ingest.sheet import Case
from app.services.ingest.upload import Ask, Audit, Known, Upload
from models import Calendar, Frequency

ROWS = 1 << 18  # sorted, and placed on the calendar, at a time
TOLD = 3  # times as many are the rows from which a frequency is told; a longer file must agree with it in every row
TYPES = {"codes": "<i4", "times": "<i8", "values": "<f8"}
ENOUGH = 8  # steps of a series from which on it shows how long its own are; as where a frequency is told

Bools = NDArray[np.bool_]


def read_streamed(path: Path, folder: Path, ask: Ask, known: Known, *, rows: int = ROWS) -> Upload | None:
    """The Upload, whose steps and values are files in `folder`; None where `assemble` must see the whole file. At most
    `rows` rows, or one series, are sorted at a time."""
    try:
        with opened(path, ask, known) as source:
            return _upload(source, folder, ask, rows)
    except (Odd, AppError, pa.ArrowException, ValueError, OSError, EOFError):
        # A full disk may have room again; and what lies here under an array's name would be taken for the answer.
        for left in (*folder.glob("*.rows"), *folder.glob("*.npy")):
            left.unlink()
        return None


class _Later:
    """Arrays written by another thread while the next ones are made. One lot waits at most."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writing")
        self._waiting: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._settle()
        finally:
            self._thread.shutdown()

    def write(self, *lot: tuple[BinaryIO, NDArray[Any]]) -> None:
        """Append each array to its file. Raises what writing the lot before has raised."""
        self._settle()
        self._waiting = self._thread.submit(_write, lot)

    def _settle(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.result()


def _write(lot: Sequence[tuple[BinaryIO, NDArray[Any]]]) -> None:
    for file, array in lot:
        array.tofile(file)


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
        """Codes from 0, times and values (rows,) of the series of a batch, by series and time."""
        start, stop = self.bounds[batch : batch + 2]
        found: list[tuple[int, int]] = [
            (low, high) for low, high in self.cuts[:, batch : batch + 2].tolist() if low < high
        ]
        owners, times, values = (self.read(name, found) for name in TYPES)
        owners = owners.astype(np.int64) - start
        if len(found) > 1 and (owners[1:] < owners[:-1]).any():
            order = _by_code(owners, stop - start)
            owners, times, values = owners[order], times[order], values[order]
        order = ordered(owners, times)
        return (owners, times, values) if order is None else (owners, times[order], values[order])


def _by_code(codes: NDArray[Any], count: int) -> Ints:
    """The order of rows by code, equal ones as they are; sixteen bits are sorted by radix."""
    return np.argsort(codes.astype(np.uint16) if count < 1 << 16 else codes, kind="stable")


def _upload(source: Source, folder: Path, ask: Ask, most: int) -> Upload:
    case, roles = source.case, source.roles
    wanted = wanted_frequency(ask, case.known)
    if wanted == "step":
        raise Odd
    names = Names(ask.max_series)
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {
            name: stack.enter_context((folder / f"{name}.rows").open("w+b")) for name in TYPES
        }
        rows = _Rows(files, _spill(source, names, files, most), most)
        _sort(rows, names, ask)
        calendar = _calendar(rows, wanted, case)
        phases = _place(rows, folder, calendar, case, sampled=wanted is None)
    columns: dict[str, object] = {"layout": "long", "id": roles.id, "time": roles.time, "target": roles.target}
    columns |= {"future": [], "past": [], "static": []}
    for name in TYPES:
        (folder / f"{name}.rows").unlink()
    steps, values = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("steps", "values"))
    return Upload(calendar, rows.keys, phases, rows.offsets, steps, values, {}, {}, columns, Audit())


def _spill(source: Source, names: Names, files: Mapping[str, BinaryIO], most: int) -> list[int]:
    """Append every block to the files; where blocks of `most` rows and a little more end."""
    ends: list[int] = []
    count = 0
    with _Later() as later:
        for block in source.blocks(names):
            columns = block._asdict().items()
            later.write(*((files[name], column.astype(TYPES[name], copy=False)) for name, column in columns))
            count += len(block.codes)
            if count - (ends[-1] if ends else 0) >= most:
                ends.append(count)
    if not count:
        raise Odd
    for file in files.values():
        file.flush()
    return ends if ends and ends[-1] == count else [*ends, count]


def _sort(rows: _Rows, names: Names, ask: Ask) -> None:
    """Put the rows of each block in the order of keys, in place: codes become ranks among the keys."""
    texts = names.keys or [ask.dataset]
    places = [place for place in range(len(texts)) if not names.keys or names.used[place]]
    places.sort(key=texts.__getitem__)
    if len(places) > ask.max_series:
        raise Odd
    rank = np.full(len(texts), -1, np.int32)
    rank[places] = np.arange(len(places))
    counts = np.zeros(len(places), np.int64)
    rows.keys = [texts[place] for place in places]
    for begin, end in rows.blocks():
        codes = rank[rows.read("codes", [(begin, end)])]
        counts += np.bincount(codes, minlength=len(places))
        made: dict[str, NDArray[Any]] = {"codes": codes}
        if (codes[1:] < codes[:-1]).any():
            order = _by_code(codes, len(places))
            made = {"codes": codes[order]}
            made |= {name: rows.read(name, [(begin, end)])[order] for name in ("times", "values")}
        for name, column in made.items():
            rows.write(name, begin, column)
    rows.offsets = np.concatenate(([0], np.cumsum(counts)))
    rows.split()


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
        owners, moments, _ = rows.fetch(batch)
        # As many series as have a quarter of the rows, and the first in any case.
        last = max(int(owners[len(owners) // 4]), 1)
        enough = int(np.searchsorted(owners, last)) if few else len(owners)
        codes.append(owners[:enough] + rows.bounds[batch])
        times.append(moments[:enough])
    return Calendar(Frequency.infer(np.concatenate(times), np.concatenate(codes), zone), zone)


def _place(rows: _Rows, folder: Path, calendar: Calendar, case: Case, sampled: bool) -> Ints:
    """Write the steps and values of all rows, in order, as .npy files; the phases of the series, (series,)."""
    phases = np.zeros(len(rows.keys), np.int64)
    stored = case.known.phases
    total = int(rows.offsets[-1])
    with (
        _begun(folder / "steps.npy", "<i8", total) as at,
        _begun(folder / "values.npy", "<f8", total) as what,
        _Later() as later,
    ):
        for batch, (start, stop) in enumerate(pairwise(rows.bounds)):
            codes, times, values = rows.fetch(batch)
            steps, own = calendar.locate(times)
            mine = calendar.settle(codes, own, steps)
            if stored:
                named = zip(rows.keys[start:stop], mine.tolist(), strict=True)
                mine = np.array([stored.get(key, phase) for key, phase in named], np.int64)
            offsets = rows.offsets[start : stop + 1] - rows.offsets[start]
            common = int(mine[0])
            expected = common if (mine == common).all() else mine[codes]
            if not calendar.on_grid(steps, own, expected).all() or _is_odd(steps, offsets, sampled):
                raise Odd
            if (steps[offsets[1:] - 1] - steps[offsets[:-1]] + 1 > allowed_spans(offsets, case.ask)).any():
                raise Odd
            phases[start:stop] = mine
            later.write((at, steps), (what, values))
    return phases


def _begun(path: Path, kind: str, length: int) -> Any:
    """A .npy file of one array, open behind its header."""
    file = path.open("wb")
    facts = {"descr": kind, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, facts)  # pyright: ignore[reportUnknownMemberType]
    file.flush()
    return file


def _is_odd(steps: Ints, offsets: Ints, sampled: bool) -> bool:
    """Whether a series has a step twice; or, where the frequency was told from others, only steps longer than one."""
    apart = np.diff(steps, prepend=steps[:1])
    apart[offsets[:-1]] = 2  # the first row of a series is apart from nothing
    if (apart < 1).any():
        return True
    if not sampled:
        return False
    ones = np.logical_or.reduceat(apart == 1, offsets[:-1])
    return bool((~ones & (np.diff(offsets) > ENOUGH)).any())
