"""The last steps of stored series, kept in memory where the next forecast finds them.

What is kept of a dataset holds as long as the database's stamp stands still. When it has moved, one query says whether
the dataset has, and one more brings what has come since to the series asked for: a few rows of segments, painted over
the end of what is there. Whatever is not a plain continuation is read anew."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session

from app.db.session import Stamp
from app.db.tables import ColumnRow, DatasetRow, RevisionRow, SegmentRow, SeriesRow
from app.errors import NotFound
from app.services.codecs import decode
from app.services.segments import BATCH, TARGET, batched, extents
from app.services.series import read_series, series_rows
from models import Calendar, Note, Series

KEPT_DATASETS = 256
MIB = 1024 * 1024
AHEAD = 224  # series continued together with those that are asked for
COLD = 16  # series read anew in one turn: the event loop may be what waits for them
ENTRY = 2500  # bytes of a series beside its values: objects, names, what is kept with it


class State(NamedTuple):
    """A dataset as it stands: what moves whenever anything of it that a forecast can see does. An erased series moves
    no head, but the totals."""

    id: int
    head: int
    revision: int  # the row's id
    digest: str
    series: int
    points: int


@dataclass
class Dataset:
    """A dataset as the last look found it."""

    name: str
    state: State
    calendar: Calendar
    covariates: bool  # whether it has, or ever had, any column beside the target
    stamp: Stamp


@dataclass(slots=True)
class Tail:
    """The end of a stored series at `revision`: `series` ends with its last value and holds the `asked` steps before
    it, without those missing at their beginning. `kept` are forecasts made from it, with what is said about them."""

    id: int
    series: Series
    asked: int
    revision: int
    kept: dict[Any, tuple[bytes, Sequence[Note]]] = field(default_factory=dict[Any, tuple[bytes, Sequence[Note]]])

    @property
    def size(self) -> int:
        return ENTRY + self.series.target.nbytes


class Contexts:
    """The datasets and series asked for last, within a number of bytes. To be used by one thread at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._cold = COLD  # series that may still be read in this turn
        self._datasets: OrderedDict[tuple[str, str], Dataset] = OrderedDict()
        self._tails: OrderedDict[tuple[int, str], Tail] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tails)

    def begin(self, cold: int = COLD) -> None:
        """Another turn: so many series may be read anew again."""
        self._cold = cold

    def forget(self, workspace: str, name: str) -> None:
        """Let go of a dataset."""
        if (known := self._datasets.pop((workspace, name), None)) is not None:
            self._forget(known.state.id)

    def dataset(self, session: Session, name: str, stamp: Stamp) -> Dataset | None:
        """The dataset of this name as it is now; None when there is none or nothing is in it."""
        key = (session.info["workspace"], name)
        if (same := self.known(*key, stamp)) is not None:
            return same
        known = self._datasets.get(key)
        found = _look_up(session, name, stamp)
        if known is not None and (found is None or not _continues(known.state, found.state)):
            self._forget(known.state.id)
        if found is None:
            self._datasets.pop(key, None)
            return None
        self._datasets[key] = found
        self._datasets.move_to_end(key)
        if len(self._datasets) > KEPT_DATASETS:
            _, left = self._datasets.popitem(last=False)
            self._forget(left.state.id)
        return found

    def known(self, workspace: str, name: str, stamp: Stamp) -> Dataset | None:
        """The dataset of this name, where nothing has been committed since it was looked up."""
        known = self._datasets.get((workspace, name))
        if known is None or stamp is None or known.stamp != stamp:
            return None
        self._datasets.move_to_end((workspace, name))
        return known

    def held(self, dataset: Dataset, keys: Sequence[str], steps: int) -> list[Tail] | None:
        """The ends of these series as they are kept, where all of them are, at the dataset's head and so long."""
        number, head = dataset.state.id, dataset.state.head
        found: list[Tail] = []
        for key in keys:
            tail = self._tails.get((number, key))
            if tail is None or tail.revision != head or tail.asked < steps:
                return None
            self._tails.move_to_end((number, key))
            found.append(tail)
        return found

    def tails(self, session: Session, dataset: Dataset, wanted: Collection[tuple[str, int]]) -> dict[str, Tail]:
        """The ends of these series, (key, steps) each, by key, at the dataset's head. Keys that it has not are left
        out, and those for which there is no time in this turn: asked for often enough, all of them get here."""
        steps: dict[str, int] = {}
        for key, count in wanted:
            steps[key] = max(count, steps.get(key, 0))
        head, number = dataset.state.head, dataset.state.id
        here = {key: tail for key in steps if (tail := self._tails.get((number, key))) is not None}
        if stale := [tail for tail in here.values() if tail.revision != head]:
            for tail in self._continued(session, number, [*stale, *self._others(number, head, stale)], head):
                here.pop(tail.series.key, None)
                self._drop((number, tail.series.key))
        short = {key for key, tail in here.items() if tail.asked < steps[key]}
        missing = [key for key in steps if key not in here or key in short]
        for key in missing:
            here.pop(key, None)
        if missing := missing[: self._cold]:
            self._cold -= len(missing)
            here |= self._read(session, dataset, missing, max(steps[key] for key in missing))
        for key in here:
            self._tails.move_to_end((number, key))
        self._shrink(keep=len(here))
        return here

    # -------------------------------------------------------- inside

    def _read(self, session: Session, dataset: Dataset, keys: Sequence[str], last: int) -> dict[str, Tail]:
        ids = {row.key: row.id for row in series_rows(session, dataset.state.id, keys)}
        row = session.get_one(DatasetRow, dataset.state.id)
        head, there = dataset.state.head, [key for key in keys if key in ids]
        try:
            read = read_series(session, row, head, there, last, beside=())
        except NotFound:  # some are no part of the dataset any more, though they have a row
            filled = extents(session, [ids[key] for key in there], head, [TARGET])
            parts = {number for (number, _), extent in filled.items() if extent.stop > extent.start}
            read = read_series(session, row, head, [key for key in there if ids[key] in parts], last, beside=())
        found: dict[str, Tail] = {}
        for series in read:
            # A copy of what is needed: the array read may be the end of a far longer one.
            held = Series(series.key, series.target.copy(), series.start, series.phase)
            found[series.key] = Tail(ids[series.key], held, last, head)
        for key, tail in found.items():
            self._drop((dataset.state.id, key))
            self._tails[dataset.state.id, key] = tail
            self._size += tail.size
        return found

    def _others(self, number: int, head: int, but: Sequence[Tail]) -> Iterable[Tail]:
        """Tails of the same dataset that were asked for lately and are not at its head either: the next turns will want
        them, and one query for all takes little longer than one for each turn."""
        asked = {tail.id for tail in but}
        lately = (tail for (mine, _), tail in reversed(self._tails.items()) if mine == number)
        return islice((tail for tail in lately if tail.revision != head and tail.id not in asked), AHEAD)

    def _continued(self, session: Session, dataset_id: int, stale: Sequence[Tail], head: int) -> Iterable[Tail]:
        """Bring tails to the head; gives those that must be read anew."""
        left = {tail.id: tail for tail in stale}
        for ids in batched(list(left), BATCH):
            since = min(left[series_id].revision for series_id in ids)
            rows = session.execute(_newer(dataset_id, ids, since, head))
            for series_id, mine in groupby(rows, key=lambda row: row[0]):
                tail = left[series_id]
                before = tail.size
                if painted(tail, [row[1:] for row in mine if row[1] is not None and row[1] > tail.revision]):
                    self._size += tail.size - before
                    tail.revision = head
                    del left[series_id]
        return list(left.values())  # those that have no row any more among them

    def _drop(self, key: tuple[int, str]) -> None:
        if (tail := self._tails.pop(key, None)) is not None:
            self._size -= tail.size

    def _forget(self, dataset_id: int) -> None:
        for key in [key for key in self._tails if key[0] == dataset_id]:
            self._drop(key)

    def _shrink(self, keep: int) -> None:
        while self._size > self._limit and len(self._tails) > keep:
            self._drop(next(iter(self._tails)))


def _newer(dataset_id: int, series_ids: Sequence[int], since: int, head: int) -> Select[*tuple[Any, ...]]:
    """What has come to each series after a revision: (id, revision, base, start, length, codec, payload), oldest first;
    of one to which nothing has, the id alone, and of one that is gone nothing."""
    later = and_(
        SegmentRow.series_id == SeriesRow.id,
        SegmentRow.column == TARGET,
        SegmentRow.revision > since,
        SegmentRow.revision <= head,
    )
    columns = (
        SegmentRow.revision,
        SegmentRow.base,
        SegmentRow.start_step,
        SegmentRow.length,
        SegmentRow.codec,
        SegmentRow.payload,
    )
    wanted = select(SeriesRow.id, *columns).join(SegmentRow, later, isouter=True)
    # An erased series' id may be that of another dataset's series by now.
    wanted = wanted.where(SeriesRow.id.in_(series_ids), SeriesRow.dataset_id == dataset_id)
    return wanted.order_by(SeriesRow.id, SegmentRow.revision, SegmentRow.id)


def painted(tail: Tail, rows: Sequence[Any]) -> bool:
    """Paint (revision, base, start, length, codec, payload) rows, oldest first, over a tail. False when the tail is not
    enough for that, and left as it was: an end that has become missing, a value before the first."""
    series = tail.series
    first, stop = series.start, series.start + len(series.target)
    full = len(series.target) >= tail.asked
    for _, _, start, length, _, _ in rows:
        if not length or (start < first and not full) or start > stop + tail.asked:
            return False
    if not rows:
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


def _continues(before: State, after: State) -> bool:
    """Whether what is kept of a dataset is still worth something: nothing was erased, or cannot have been."""
    return before.id == after.id and (after.head > before.head or before == after)


def _look_up(session: Session, name: str, stamp: Stamp) -> Dataset | None:
    row = session.execute(
        select(
            DatasetRow.id,
            DatasetRow.head,
            DatasetRow.frequency,
            DatasetRow.time_zone,
            RevisionRow.id,
            RevisionRow.digest,
            RevisionRow.series,
            RevisionRow.points,
            select(func.count()).where(ColumnRow.dataset_id == DatasetRow.id).scalar_subquery(),
        )
        .join(RevisionRow, and_(RevisionRow.dataset_id == DatasetRow.id, RevisionRow.number == DatasetRow.head))
        .where(DatasetRow.name == name)
    ).one_or_none()
    if row is None:
        return None
    number, head, frequency, time_zone, revision, digest, series, points, covariates = row
    state = State(number, head, revision, digest, series, points)
    return Dataset(name, state, Calendar.of(frequency or "D", time_zone), covariates > 0, stamp)
