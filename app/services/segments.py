"""Segments: what series are painted from. One holds the final values of one column of one series over a span of steps.

A series at revision n is its newest base at or below n with every later segment up to n painted over it, in order. A
base is one or more segments of one revision marked `base`; one of length 0 says that there is nothing. Missing values
are NaN. A series is part of its dataset where its target has a segment of any length, be it of NaNs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby, islice
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import CTE, ColumnElement, Select, Subquery, bindparam, func, select, text, true
from sqlalchemy.orm import Session

from app.db import bulk
from app.db.tables import SegmentRow
from app.services.codecs import Floats, Ints, decode, decode_all, encode_all

T = TypeVar("T")

MOST = 64  # segments of a column since its base; one more and it gets a fresh base
LONGEST = 16_384  # steps in one segment: a read of a series' end decodes only its last
GAP = 256  # steps without a row inside one segment; more and a new one begins, for NaNs too must be decoded
TARGET = ""  # the target's column name
BATCH = 1000  # series asked for in one query
# As the index of bases has it: that `base = 1`, the ORM's way, is the same, SQLite does not see. That it may take the
# index does not say that it does: see `_bases`.
IS_BASE = text("segments.base")
TOGETHER = 1 << 17  # values decoded together
STORED = {
    "series_id": "int8",
    "column": "varchar",
    "revision": "int4",
    "base": "bool",
    "start_step": "int8",
    "length": "int4",
    "codec": "int4",
    "payload": "bytea",
}


class Segment(NamedTuple):
    """One stored segment, as `fetch` gives it."""

    series_id: int
    column: str
    start: int
    length: int
    codec: int
    payload: bytes

    @property
    def stop(self) -> int:
        return self.start + self.length


class Span(NamedTuple):
    """Values to be packed and stored as one segment of series number `owner` (the caller's count)."""

    owner: int
    column: str
    base: bool
    start: int
    values: Floats


class Piece(NamedTuple):
    """A span, packed."""

    owner: int
    column: str
    base: bool
    start: int
    length: int
    codec: int
    payload: bytes


class Painted(NamedTuple):
    """One column of one series: `values` (time,), `values[0]` at absolute step `start`, NaN = missing."""

    start: int
    values: Floats


@dataclass(frozen=True)
class Extent:
    """What is stored of a column since its newest base: how many segments beside the base, and the steps they reach."""

    segments: int
    start: int
    stop: int  # start == stop: the column is empty


# ---------------------------------------------------------------- paint and cut


def paint(segments: Iterable[Segment], window: tuple[int, int] | None = None) -> Painted:
    """The segments of one column, oldest first, laid over each other; only the steps [start, stop) of `window`."""
    kept = _touching(segments, window)
    return _laid(kept, (decode(segment.codec, segment.payload, segment.length) for segment in kept), window)


def paint_all(segments: Iterable[Segment], window: tuple[int, int] | None = None) -> Iterator[tuple[int, str, Painted]]:
    """(series, column, painted) of segments as `fetch` gives them. So many are decoded together, which takes a third of
    the time that it takes one by one."""
    waiting: list[tuple[int, str, list[Segment]]] = []
    count = 0
    for (series_id, column), mine in groupby(segments, key=lambda segment: (segment.series_id, segment.column)):
        kept = _touching(mine, window)
        length = sum(segment.length for segment in kept)
        if count + length > TOGETHER:
            yield from _painted(waiting, window)
            waiting, count = [], 0
        if length > TOGETHER:
            yield series_id, column, paint(kept, window)
        else:
            waiting.append((series_id, column, kept))
            count += length
    yield from _painted(waiting, window)


def _painted(
    columns: Sequence[tuple[int, str, list[Segment]]], window: tuple[int, int] | None
) -> Iterator[tuple[int, str, Painted]]:
    together = [segment for _, _, mine in columns for segment in mine]
    lengths = [segment.length for segment in together]
    values = decode_all([segment.codec for segment in together], [segment.payload for segment in together], lengths)
    # Copies, so that who keeps one series does not keep them all.
    parts = (values[stop - length : stop].copy() for stop, length in zip(accumulate(lengths), lengths, strict=True))
    for series_id, column, mine in columns:
        yield series_id, column, _laid(mine, islice(parts, len(mine)), window)


def _touching(segments: Iterable[Segment], window: tuple[int, int] | None) -> list[Segment]:
    kept = [segment for segment in segments if segment.length]
    if window is None:
        return kept
    return [segment for segment in kept if segment.start < window[1] and segment.stop > window[0]]


def _laid(segments: Sequence[Segment], parts: Iterator[Floats], window: tuple[int, int] | None) -> Painted:
    """Segments of one column, and the values of each, laid over each other."""
    if not segments:
        return Painted(window[0] if window else 0, np.empty(0))
    start, stop = min(s.start for s in segments), max(s.stop for s in segments)
    if len(segments) == 1:
        values = next(parts)
    else:
        values = np.full(stop - start, np.nan)
        for segment, part in zip(segments, parts, strict=True):
            values[segment.start - start : segment.stop - start] = part
    if window is None:
        return Painted(start, values)
    low = max(window[0], start)
    return Painted(low, values[low - start : window[1] - start])


def runs(steps: Ints, breaks: NDArray[np.bool_] | None = None) -> tuple[Ints, Ints]:
    """First and last row of each run of ascending steps: it ends before a gap and before a row marked in `breaks`."""
    starts = np.empty(len(steps), dtype=bool)
    starts[:1] = True
    starts[1:] = np.diff(steps) > GAP
    if breaks is not None:
        starts |= breaks
    first = np.flatnonzero(starts)
    return first, np.append(first[1:], len(steps))[: len(first)] - 1


def cut(owner: int, column: str, base: bool, painted: Painted) -> Iterator[Span]:
    """Values as spans of at most LONGEST steps."""
    for place in range(0, len(painted.values), LONGEST):
        yield Span(owner, column, base, painted.start + place, painted.values[place : place + LONGEST])


def fresh_base(owner: int, column: str, painted: Painted) -> Iterator[Span]:
    """A whole column as base: its present values with the small gaps between them.

    Without any it is of length 0; but a target keeps one missing step, so that the series stays part of its dataset.
    """
    present = np.flatnonzero(~np.isnan(painted.values))
    if not len(present):
        if column == TARGET and len(painted.values):
            yield from cut(owner, column, True, Painted(painted.start, painted.values[:1]))
        else:
            yield empty_base(owner, column)
        return
    for first, last in zip(*(present[rows] for rows in runs(present)), strict=True):
        yield from cut(owner, column, True, Painted(painted.start + int(first), painted.values[first : last + 1]))


def empty_base(owner: int, column: str) -> Span:
    return Span(owner, column, True, 0, np.empty(0))


def packed(spans: Sequence[Span], first: int = 0) -> list[Piece]:
    """The spans as they are stored, their owners counted from `first`."""
    coded = encode_all([span.values for span in spans])
    return [
        Piece(first + owner, column, base, start, len(values), codec, payload)
        for (owner, column, base, start, values), (codec, payload) in zip(spans, coded, strict=True)
    ]


class Packing:
    """Spans packed by other threads while the next ones are worked out: packing lets go of the interpreter. At most
    one lot waits, so that the values of no more than two are held."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2, "packing")
        self._waiting: tuple[Future[list[Piece]], Future[None]] | None = None
        self._pieces: list[Piece] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def add(self, spans: Sequence[Span], first: int, beside: Callable[[], None]) -> None:
        """Pack these, too, owners counted from `first`, and do what is to be done `beside`, in the order of calls."""
        self.pieces()
        self._waiting = self._threads.submit(packed, spans, first), self._threads.submit(beside)

    def pieces(self) -> list[Piece]:
        """All that was added, packed."""
        if self._waiting is not None:
            pieces, beside = self._waiting
            self._pieces += pieces.result()
            beside.result()
            self._waiting = None
        return self._pieces


# ---------------------------------------------------------------- the table


def fetch(
    session: Session,
    series_ids: Sequence[int],
    revision: int,
    columns: Sequence[str] | None = None,
    window: tuple[int, int] | None = None,
) -> Iterator[Segment]:
    """What the series are painted from at `revision`, by series, column and age; only segments that touch `window`."""
    if not series_ids:  # a transaction would be begun to ask nothing
        return
    asked = session.connection()
    for ids in batched(series_ids, BATCH):
        wanted = _fetching(asked.dialect.name, columns is not None, window is not None)
        given = bound(asked.dialect.name, ids, revision, columns)
        if window is not None:
            given |= {"first": window[0], "stop": window[1]}
        # A few rows at a time: the payloads of a thousand series may be more than should be held at once.
        for row in asked.execute(wanted, given, execution_options={"yield_per": 512}):
            yield Segment(*row)


def extents(
    session: Session, series_ids: Sequence[int], revision: int, columns: Sequence[str] | None = None
) -> dict[tuple[int, str], Extent]:
    """What is stored of each (series, column) at `revision`; one that has no base is not there. Reads no payload."""
    found: dict[tuple[int, str], Extent] = {}
    asked = session.connection()
    for ids in batched(series_ids, 10 * BATCH):
        wanted = reaching(asked.dialect.name, columns is not None)
        for series_id, column, _, count, start, stop in asked.execute(
            wanted, bound(asked.dialect.name, ids, revision, columns)
        ):
            found[series_id, column] = Extent(count, start or 0, stop or 0)
    return found


# Of the table, not of the class, and built once: with a few series to read, making the statement took most of the time.
_S = SegmentRow.__table__.c


@lru_cache(maxsize=16)
def _fetching(dialect: str, some: bool, within: bool) -> Select[*tuple[Any, ...]]:
    """The statement of `fetch`: of `some` columns, `within` a window."""
    window = _S.start_step < bindparam("stop"), _S.start_step + _S.length > bindparam("first")
    held = since(dialect, _bases(dialect, some), *window if within else ()).c
    wanted = select(held.series_id, held.column, held.start_step, held.length, held.codec, held.payload)
    return wanted.order_by(held.series_id, held.column, held.revision, held.id)


@lru_cache(maxsize=4)
def reaching(dialect: str, some: bool) -> Select[*tuple[Any, ...]]:
    """The statement of `extents`, of `some` columns: their newest base beside what is in an `Extent`."""
    held = since(dialect, _bases(dialect, some)).c
    filled = held.length > 0
    return select(
        held.series_id,
        held.column,
        func.min(held.revision).label("revision"),
        func.count().filter(held.revision > held.newest).label("segments"),
        func.min(held.start_step).filter(filled).label("start"),
        func.max(held.start_step + held.length).filter(filled).label("stop"),
    ).group_by(held.series_id, held.column)


def _bases(dialect: str, some: bool) -> CTE:
    """The revision of the newest base of each (series, column) at a revision: one row of the index of bases is looked
    at for each of `some` columns, however long a series has been appended to; all bases there are where the columns are
    not known. Null where there is none."""
    at_most = _S.revision <= bindparam("revision")
    if not some:
        newest = select(_S.series_id, _S.column, func.max(_S.revision).label("revision"))
        mine = bulk.listed(dialect, _S.series_id, "ids")
        return newest.where(IS_BASE, at_most, mine).group_by(_S.series_id, _S.column).cte("bases")
    series, column = bulk.each(dialect, _S.series_id, "ids"), bulk.each(dialect, _S.column, "columns")
    mine = _S.series_id == series.c.value, _S.column == column.c.value
    # By id, too: SQLite takes the first of two indexes that serve as well, and only that of bases is in this order.
    order = (_S.revision.desc(),) if dialect == "postgresql" else (_S.revision.desc(), _S.id.desc())
    newest = select(_S.revision).where(IS_BASE, at_most, *mine).order_by(*order).limit(1).scalar_subquery()
    asked = select(series.c.value.label("series_id"), column.c.value.label("column"), newest.label("revision"))
    # No condition is moved past an offset: each is looked up once.
    return asked.select_from(series.join(column, true())).offset(0).cte("bases")


def since(dialect: str, base: CTE, *within: ColumnElement[bool]) -> Subquery:
    """The segments of each (series, column) of `base` from its revision on, those `within`; that revision is `newest`
    there, and what else is known of a base stands beside its segments."""
    beside = [known for known in base.c if known.key not in _S]
    wanted = select(*_S, base.c.revision.label("newest"), *beside).where(
        _S.series_id == base.c.series_id,
        _S.column == base.c.column,
        _S.revision >= base.c.revision,
        _S.revision <= bindparam("revision"),
        *within,
    )
    if dialect != "postgresql":
        return wanted.subquery("held")
    # It does not know how few these are: of series with thousands of segments it would read all, to sort or hash them.
    # Past the offset it cannot but look for those of each.
    mine = wanted.correlate(base).offset(0).lateral("mine")
    return select(mine).select_from(base.join(mine, true())).subquery("held")


def bound(dialect: str, ids: Sequence[int], revision: int, columns: Sequence[str] | None) -> dict[str, Any]:
    """The parameters of the statements here. What is named twice is read once."""
    given = {"ids": bulk.packed(dialect, list(dict.fromkeys(ids))), "revision": revision}
    return given if columns is None else given | {"columns": bulk.packed(dialect, list(dict.fromkeys(columns)))}


def keep(session: Session, revision: int, pieces: Iterable[Piece], series_ids: Sequence[int]) -> None:
    """Store the pieces at `revision`; piece `owner` i belongs to `series_ids[i]`."""
    rows = (
        (series_ids[owner], column, revision, base, start, length, codec, payload)
        for owner, column, base, start, length, codec, payload in pieces
    )
    bulk.insert(session, "segments", STORED, rows)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most `size` (itertools.batched came with Python 3.12)."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
