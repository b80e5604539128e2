"""The ends of whole datasets, kept in memory as one array each: what a forecast of very many series reads.

What is kept of a dataset holds for the revision it was read at. When the head has moved on, one query brings the
segments that are newer, and they are painted over the end of what is there; what is no plain continuation is read anew.
No object is made for a series or a point: rows of the database become arrays, and stay arrays."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import and_, bindparam, func, select
from sqlalchemy.orm import Session

from app.db.tables import DatasetRow, RevisionRow, SegmentRow, SeriesRow
from app.services import segments
from app.services.contexts import State
from app.services.painting import Pieces, lay, shifted, trim
from app.services.segments import BATCH, TARGET, batched
from app.services.series import Span, read_series, series_rows, unknown
from models import Ends

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LOCKS = 16  # datasets that are read at the same time
ROW = 400  # bytes of a series beside its values: its key, its place
SHARE = 4  # a question about less than one in so many series of a dataset reads those alone


@dataclass(frozen=True)
class Whole:
    """The ends of a dataset's series at a state of it, `asked` steps each where there are as many; `ids` (series,)."""

    state: State
    asked: int
    ids: Ints
    ends: Ends

    @cached_property
    def places(self) -> dict[str, int]:
        return {key: place for place, key in enumerate(self.ends.keys)}

    @property
    def size(self) -> int:
        return size(len(self.ids), self.asked)


def size(series: int, steps: int) -> int:
    """The bytes that the ends of so many series take."""
    return series * (steps * 8 + ROW)


class KeptEnds:
    """The datasets asked for last, within a number of bytes. Safe to use from several threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[int, Whole] = OrderedDict()
        self._lock = threading.Lock()  # held for a moment
        self._reading = [threading.Lock() for _ in range(LOCKS)]  # two questions never read one dataset twice

    def read(
        self,
        session: Session,
        found: tuple[DatasetRow, RevisionRow],
        keys: Sequence[str] | None,
        last: int,
    ) -> Ends | None:
        """The last steps of the series of these keys (None: all) at a dataset's head, as this session sees it. None
        where they are not to be kept: too many, too few, or of another revision. Raises NotFound for keys that are not
        there."""
        dataset, revision = found
        if revision.number != dataset.head or not self.fits(revision.series, last):
            return None
        known = self._kept.get(dataset.id)
        if known is None and keys is not None and len(keys) * SHARE < revision.series:
            return None
        whole = self._at(session, dataset, revision, last)
        if whole is None or keys is None:
            return whole and whole.ends
        places = [whole.places.get(key, -1) for key in keys]
        if missing := [key for key, place in zip(keys, places, strict=True) if place < 0]:
            raise unknown(dataset, missing, revision.number)
        return whole.ends.rows(np.array(places, np.int64))

    def fits(self, series: int, last: int) -> bool:
        """Whether so many ends may be kept."""
        return size(series, last) <= self._limit

    def __len__(self) -> int:
        return len(self._kept)

    # -------------------------------------------------------- inside

    def _at(self, session: Session, dataset: DatasetRow, revision: RevisionRow, last: int) -> Whole | None:
        state = State(dataset.id, dataset.head, revision.id, revision.digest, revision.series, revision.points)
        with self._reading[dataset.id % LOCKS]:
            known = self._kept.get(dataset.id)
            if known is not None and known.state.head > state.head:  # this session began before the newest commit
                return None
            if known is None or known.asked < last:
                whole = _read(session, state, max(last, 0 if known is None else known.asked))
            elif known.state == state:
                whole = known
            else:
                whole = continued(session, known, state) or _read(session, state, known.asked)
            self._keep(whole)
        return whole

    def _keep(self, whole: Whole) -> None:
        with self._lock:
            self._kept[whole.state.id] = whole
            self._kept.move_to_end(whole.state.id)
            while len(self._kept) > 1 and sum(each.size for each in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)


# ---------------------------------------------------------------- read


def read_span(session: Session, dataset: DatasetRow, revision: int, keys: Span, last: int) -> Ends:
    """The last steps of the series of these keys at a revision, in key order."""
    return _read_rows(session, dataset, revision, list(series_rows(session, dataset.id, keys)), last)[1]


def _read(session: Session, state: State, last: int) -> Whole:
    """All series of a dataset at its head, in key order."""
    dataset = session.get_one(DatasetRow, state.id)
    rows = list(series_rows(session, state.id, None))
    return Whole(state, last, *_read_rows(session, dataset, state.head, rows, last))


def _read_rows(
    session: Session, dataset: DatasetRow, revision: int, rows: Sequence[Any], last: int
) -> tuple[Ints, Ends]:
    """The last steps of the series of these rows that are part of the dataset, and their ids."""
    ids, phases = (np.array([row[at] for row in rows], np.int64) for at in (0, 2))
    keys: list[str] = [row.key for row in rows]
    values, origins = np.full((len(rows), last), np.nan), np.zeros(len(rows), np.int64)
    there = np.zeros(len(rows), np.bool_)
    short: list[int] = []
    for at in range(0, len(rows), BATCH):
        part = slice(at, at + BATCH)
        painted = _painted(session, ids[part], revision, last)
        values[part], origins[part], there[part] = painted.values, painted.stops - 1, painted.there
        short += (at + np.flatnonzero(painted.there & ~painted.whole)).tolist()
    if short:  # their last steps hold no value, so that the origin lies before what was read
        found = read_series(session, dataset, revision, [keys[at] for at in short], last, beside=())
        for place, one in zip(short, found, strict=True):
            values[place], origins[place] = np.nan, one.origin
            values[place, last - len(one.target) :] = one.target
    kept = np.flatnonzero(there)
    if len(kept) < len(rows):  # some are no part of the dataset at this revision
        keys = [keys[place] for place in kept.tolist()]
        ids, values, origins, phases = ids[kept], values[kept], origins[kept], phases[kept]
    return ids, Ends(keys, values, origins, phases)


@dataclass(frozen=True)
class Painted:
    """The ends of some series: `values` (series, steps) before the steps `stops` (series,); which of them are `there`;
    and whether no value that belongs to the steps is missing (`whole`)."""

    values: Floats
    stops: Ints
    there: NDArray[np.bool_]
    whole: NDArray[np.bool_]


def _painted(session: Session, ids: Ints, revision: int, last: int) -> Painted:
    """The last steps of the targets of the series, in the order of `ids`."""
    order = np.argsort(ids)
    count = len(ids)
    firsts, stops, there = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, bool)
    asked = session.connection()
    given = segments.bound(asked.dialect.name, ids.tolist(), revision, [TARGET]) | {"last": last}
    rows = asked.execute(_last_segments(asked.dialect.name), given).all()
    values = np.full((count, last), np.nan)
    if rows:
        owners, first, stop, starts, lengths, codecs, payloads = zip(*rows, strict=True)
        places = order[np.searchsorted(ids[order], np.array(owners, np.int64))]
        firsts[places], stops[places], there[places] = first, stop, True
        pieces = Pieces(places, np.array(starts, np.int64), np.array(lengths, np.int64), codecs, payloads)
        lay(values, stops, pieces)
    moved = trim(values, stops)
    return Painted(values, stops - moved, there, (moved == 0) | (firsts >= stops - last))


@lru_cache(maxsize=2)
def _last_segments(dialect: str) -> Any:
    """(series, first step, step after the last, start, length, codec, payload) of each segment of the target since the
    newest base that reaches into the `last` steps, oldest first."""
    ends = segments.reaching(dialect, True).cte("ends")
    row = SegmentRow.__table__.c
    near = row.length > 0, row.start_step + row.length > ends.c.stop - bindparam("last")
    held = segments.since(dialect, ends, *near).c
    wanted = select(held.series_id, held.start, held.stop, held.start_step, held.length, held.codec, held.payload)
    return wanted.order_by(held.series_id, held.revision, held.id)


# ---------------------------------------------------------------- continue


def continued(session: Session, known: Whole, state: State) -> Whole | None:
    """What is kept of a dataset, brought to a newer state of it; None where it must be read anew: a series came or
    went, or lost all of its end."""
    rows = _newer(session, known, state)
    if not rows:
        return None if rows is None else replace(known, state=state)
    owners, bases, starts, lengths, codecs, payloads = zip(*rows, strict=True)
    order = np.argsort(known.ids)
    ids, owner = known.ids[order], np.array(owners, np.int64)
    at = np.minimum(np.searchsorted(ids, owner), len(ids) - 1)
    if not np.array_equal(ids[at], owner):
        return None
    pieces = Pieces(order[at], np.array(starts, np.int64), np.array(lengths, np.int64), codecs, payloads)
    based = np.array(bases, np.bool_) | (pieces.lengths == 0)
    ends, anew = extended(known.ends, pieces, pieces.places[based])
    for some in batched(anew.tolist(), BATCH):
        painted = _painted(session, known.ids[some], state.head, known.asked)
        if not (painted.there & painted.whole).all():
            return None
        ends.values[some], ends.origins[some] = painted.values, painted.stops - 1
    return Whole(state, known.asked, known.ids, ends)


def _newer(session: Session, known: Whole, state: State) -> Sequence[Any] | None:
    """(series, base, start, length, codec, payload) of each segment of the target that came after what is kept, oldest
    first; None where that is no continuation, or more than to read all of it."""
    count = select(func.count()).where(SeriesRow.dataset_id == state.id)
    if state.head <= known.state.head or not _descends(session, known.state):
        return None
    newer = and_(
        SegmentRow.series_id == SeriesRow.id,
        SegmentRow.column == TARGET,
        SegmentRow.revision > known.state.head,
        SegmentRow.revision <= state.head,
    )
    steps = select(func.sum(SegmentRow.length)).join(SeriesRow, newer).where(SeriesRow.dataset_id == state.id)
    most = len(known.ids) * known.asked + BATCH
    if session.scalar(count) != len(known.ids) or (session.scalar(steps) or 0) > most:
        return None
    columns = (SegmentRow.base, SegmentRow.start_step, SegmentRow.length, SegmentRow.codec, SegmentRow.payload)
    wanted = select(SegmentRow.series_id, *columns).join(SeriesRow, newer).where(SeriesRow.dataset_id == state.id)
    return session.connection().execute(wanted.order_by(SegmentRow.revision, SegmentRow.id)).all()


def _descends(session: Session, before: State) -> bool:
    """Whether the revision that was read is still what it was: nothing of it has been erased since."""
    row = session.execute(
        select(RevisionRow.digest, RevisionRow.series, RevisionRow.points).where(RevisionRow.id == before.revision)
    ).one_or_none()
    return row is not None and tuple(row) == (before.digest, before.series, before.points)


def extended(ends: Ends, pieces: Pieces, based: Ints) -> tuple[Ends, Ints]:
    """The ends with pieces painted over them, oldest first; and which series must be read anew: those with a fresh base
    (`based`), those that had no end, and those of which values farther back are wanted now."""
    stops = ends.origins + 1
    after = stops.copy()
    np.maximum.at(after, pieces.places, pieces.starts + pieces.lengths)
    values = shifted(ends.values, after - stops)
    lay(values, after, pieces)
    nulls = np.flatnonzero(np.isnan(values[:, -1]) & ~np.isnan(ends.values[:, -1]))
    if len(nulls):  # the newest of what has come is missing: painted again, up to the last value
        after[nulls] -= trim(values[nulls], after[nulls])
        values[nulls] = shifted(ends.values[nulls], np.maximum(after - stops, 0)[nulls])
        lay(values, after, pieces.among(nulls))
    anew = after < stops
    anew[pieces.places[np.isnan(ends.values[pieces.places, -1])]] = True
    anew[based] = True
    return Ends(ends.keys, values, after - 1, ends.phases), np.flatnonzero(anew)
