"""Series of a dataset: read as the core takes them, listed, erased."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app.db.tables import ColumnRow, DatasetRow, RevisionRow, SegmentRow, SeriesRow
from app.errors import MAX_LISTED, Complaint, NotFound
from app.services import segments
from app.services.changes import STATIC, live, statics_at
from app.services.codecs import Floats, decode
from app.services.revisions import counted, locked, revision_of
from app.services.segments import TARGET, Painted
from app.services.sums import moment
from models import Calendar, Column, Series

ASKED = 1000  # keys in one query
FAR = 2**62  # later than any step


@dataclass(frozen=True)
class Span:
    """The keys after `after` (None: from the first) up to `last`, both as they sort."""

    after: str | None
    last: str


# ---------------------------------------------------------------- series as the core takes them


def read_series(
    session: Session,
    dataset: DatasetRow,
    revision: int | None = None,
    keys: Sequence[str] | Span | None = None,
    last: int | None = None,
    *,
    beside: Collection[str] | None = None,
) -> list[Series]:
    """The dataset's series at a revision (the head, left out), in key order or in the order of `keys`; of a span of
    keys those that are there.

    Each target ends with its last value, the origin, and begins with its first, or the first of the `last` steps;
    future covariates run on after it. All series have all covariate columns, or those of `beside` that there are.
    Raises NotFound for keys that are not there, Invalid for a revision that does not exist.
    """
    at = revision_of(session, dataset, revision)
    columns = {} if beside is not None and not beside else columns_at(session, at)
    columns = {name: column for name, column in columns.items() if beside is None or name in beside}
    wanted = None if beside is None else [TARGET, *columns]
    found: dict[str, Series] = {}
    for rows in segments.batched(series_rows(session, dataset.id, keys), segments.BATCH):
        painted = painted_columns(session, [row.id for row in rows], at.number, last, wanted)
        statics = statics_at(session, [row.id for row in rows], at.number) if columns else {}
        for row in rows:
            if row.id in painted:
                found[row.key] = _series(row, painted[row.id], statics.get(row.id, {}), columns, last)
    if keys is None or isinstance(keys, Span):
        return list(found.values())
    if missing := [key for key in keys if key not in found]:
        raise unknown(dataset, missing, at.number)
    return [found[key] for key in keys]


def read_tails(
    session: Session, dataset_id: int, revision: int, keys: Sequence[str], last: int
) -> Iterator[tuple[int, Series]]:
    """Row and last steps of each of these series that the dataset has at a revision, without covariates."""
    rows = list(series_rows(session, dataset_id, keys))
    painted = painted_columns(session, [row.id for row in rows], revision, last, [TARGET])
    for row in rows:
        if row.id in painted:
            yield row.id, _series(row, painted[row.id], {}, {}, last)


def read_columns(session: Session, dataset: DatasetRow, revision: int | None = None) -> list[Column]:
    """The covariate columns that `read_series` gives. Raises Invalid for a revision that does not exist."""
    columns = columns_at(session, revision_of(session, dataset, revision)).values()
    return [Column(one.name, one.role, one.kind, tuple(map(str, one.categories))) for one in columns]


def unknown(dataset: DatasetRow, keys: Sequence[str], revision: int) -> NotFound:
    """The refusal of keys that the dataset does not have."""
    more = f" and {len(keys) - 5:,} more" if len(keys) > 5 else ""
    return NotFound(
        f"Dataset {dataset.name!r} has no series {', '.join(map(repr, keys[:5]))}{more} at revision {revision}.",
        code="no-such-series",
        errors=[Complaint("no-such-series", f"There is no series {key!r}") for key in keys[:MAX_LISTED]],
        error_count=len(keys),
    )


def columns_at(session: Session, revision: RevisionRow) -> dict[str, ColumnRow]:
    """The covariate columns of a dataset at a revision, by name."""
    wanted = select(ColumnRow).where(ColumnRow.dataset_id == revision.dataset_id, ColumnRow.name.in_(live(revision)))
    return {column.name: column for column in session.scalars(wanted.order_by(ColumnRow.name))}


def next_keys(session: Session, dataset_id: int, after: str | None, size: int) -> list[str]:
    """The `size` keys that follow `after` in a dataset (None: its first ones), at whatever revision they came."""
    wanted = select(SeriesRow.key).where(SeriesRow.dataset_id == dataset_id).order_by(SeriesRow.key).limit(size)
    return list(session.scalars(wanted if after is None else wanted.where(SeriesRow.key > after)))


def keys_within(
    session: Session, dataset_id: int, revision: int, span: tuple[str | None, str | None], size: int
) -> list[str]:
    """The first `size` keys after the first of `span` and up to the second (None: no end there), of those that had come
    by a revision: the same ones whatever comes later."""
    after, until = span
    wanted = select(SeriesRow.key).where(SeriesRow.dataset_id == dataset_id, SeriesRow.revision <= revision)
    wanted = wanted if after is None else wanted.where(SeriesRow.key > after)
    wanted = wanted if until is None else wanted.where(SeriesRow.key <= until)
    return list(session.scalars(wanted.order_by(SeriesRow.key).limit(size)))


def keys_at(session: Session, dataset_id: int, revision: int, each: int) -> list[str]:
    """The keys in places `each`, twice that, three times, … among those that had come by a revision."""
    place = func.row_number().over(order_by=SeriesRow.key).label("place")
    wanted = select(SeriesRow.key, place).where(SeriesRow.dataset_id == dataset_id, SeriesRow.revision <= revision)
    numbered = wanted.subquery()
    found = select(numbered.c.key).where(numbered.c.place % each == 0).order_by(numbered.c.place)
    return list(session.scalars(found))


def series_rows(session: Session, dataset_id: int, keys: Sequence[str] | Span | None) -> Iterator[Any]:
    """(id, key, phase) of the dataset's series by key, or of those named."""
    wanted = select(SeriesRow.id, SeriesRow.key, SeriesRow.phase).where(SeriesRow.dataset_id == dataset_id)
    if isinstance(keys, Span):
        wanted = wanted.where(SeriesRow.key <= keys.last)
        wanted = wanted if keys.after is None else wanted.where(SeriesRow.key > keys.after)
    if keys is None or isinstance(keys, Span):
        yield from session.execute(wanted.order_by(SeriesRow.key)).all()
        return
    # No stored key holds a control character, and PostgreSQL does not take the first of them in a text.
    for some in segments.batched((key for key in dict.fromkeys(keys) if "\0" not in key), ASKED):
        yield from session.execute(wanted.where(SeriesRow.key.in_(some))).all()


def painted_columns(
    session: Session,
    series_ids: Sequence[int],
    revision: int,
    last: int | None = None,
    columns: Sequence[str] | None = None,
) -> dict[int, dict[str, Painted]]:
    """The columns of each series that is part of its dataset at `revision`; with `last`, at least so many steps."""
    window: tuple[int, int] | None = None
    starts: dict[int, int] = {}
    if last is not None:
        extents = segments.extents(session, series_ids, revision, [TARGET])
        here = {series_id: extent for (series_id, _), extent in extents.items() if extent.stop > extent.start}
        starts = {series_id: extent.start for series_id, extent in here.items()}
        window = (min((extent.stop for extent in here.values()), default=0) - last, FAR)
    found: dict[int, dict[str, Painted]] = {}
    pieces = segments.fetch(session, series_ids, revision, columns, window)
    for series_id, column, painted in segments.paint_all(pieces, window):
        if len(painted.values):
            found.setdefault(series_id, {})[column] = painted
    found = {series_id: mine for series_id, mine in found.items() if TARGET in mine}
    if last is not None and window is not None:
        # A target that ends in missing values: its origin lies before the steps read.
        cut = [series_id for series_id, start in starts.items() if start < window[0]]
        short = [series_id for series_id in cut if _steps_to_origin(found[series_id][TARGET]) < last]
        found.update(painted_columns(session, short, revision, columns=columns))
    return found


def _steps_to_origin(target: Painted) -> int:
    present = np.flatnonzero(~np.isnan(target.values))
    return int(present[-1]) + 1 if len(present) else 0


def _series(
    row: Any,
    painted: Mapping[str, Painted],
    statics: Mapping[str, float],
    columns: Mapping[str, ColumnRow],
    last: int | None,
) -> Series:
    target = painted[TARGET]
    present = np.flatnonzero(~np.isnan(target.values))
    stop = int(present[-1]) + 1 if len(present) else 0
    if last is not None:
        present = present[present >= stop - last]
    first = int(present[0]) if len(present) else 0
    start = target.start + first
    past: dict[str, Floats] = {}
    future: dict[str, Floats] = {}
    static: dict[str, float] = {}
    for name, column in columns.items():
        missing = 0.0 if column.kind == "category" else np.nan
        if column.role == STATIC:
            static[name] = statics.get(name, missing)
            continue
        mine = painted.get(name, Painted(start, np.empty(0)))
        end = target.start + stop
        if column.role == "future":
            end = max(end, mine.start + len(mine.values))
        (future if column.role == "future" else past)[name] = spread(mine, start, end, missing)
    return Series(row.key, target.values[first:stop], start, row.phase, past, future, static)


def spread(painted: Painted, start: int, stop: int, missing: float = np.nan) -> Floats:
    """What is painted on the steps [start, stop), `missing` where nothing is."""
    if start == painted.start and stop - start == len(painted.values) and np.isnan(missing):
        return painted.values
    values = np.full(max(stop - start, 0), missing)
    low, high = max(start, painted.start), min(stop, painted.start + len(painted.values))
    if low < high:
        part = painted.values[low - painted.start : high - painted.start]
        values[low - start : high - start] = np.where(np.isnan(part), missing, part)
    return values


# ---------------------------------------------------------------- listed


@dataclass(frozen=True)
class Summary:
    """A series in a list: the time of its first and last value (µs, or integers), its values, the gaps between them."""

    key: str
    start: int | None
    end: int | None
    points: int
    missing: int


def list_page(
    session: Session, dataset: DatasetRow, after: str | None, size: int, search: str | None = None
) -> tuple[list[Summary], str | None]:
    """The head's series by key, those after `after` whose key holds `search` (A to Z in either case); and the key to go
    on from, None on the last page."""
    if not dataset.head:
        return [], None
    calendar = Calendar.of(dataset.frequency or "D", dataset.time_zone)
    wanted = select(SeriesRow.id, SeriesRow.key, SeriesRow.phase).where(SeriesRow.dataset_id == dataset.id)
    if search:
        wanted = wanted.where(SeriesRow.key.icontains(search, autoescape=True))
    found: list[Summary] = []
    while len(found) <= size:
        page = wanted if after is None else wanted.where(SeriesRow.key > after)
        rows = session.execute(page.order_by(SeriesRow.key).limit(size + 1)).all()
        painted = painted_columns(session, [row.id for row in rows], dataset.head, columns=[TARGET])
        found += [_summary(row, painted[row.id][TARGET], calendar) for row in rows if row.id in painted]
        if len(rows) <= size:
            break
        after = rows[-1].key
    return found[:size], found[size - 1].key if len(found) > size else None


def _summary(row: Any, target: Painted, calendar: Calendar) -> Summary:
    present = np.flatnonzero(~np.isnan(target.values))
    if not len(present):
        return Summary(row.key, None, None, 0, 0)
    start, end = calendar.times(target.start + present[[0, -1]], row.phase).tolist()
    return Summary(row.key, start, end, len(present), int(present[-1] - present[0]) + 1 - len(present))


# ---------------------------------------------------------------- erased


def erase(session: Session, dataset: DatasetRow, key: str) -> None:
    """Erase a series from every revision, and take it out of their totals; needs a write session. Raises NotFound.

    Digests stay: they say what was uploaded then.
    """
    dataset = locked(session, dataset)
    row = next(iter(series_rows(session, dataset.id, [key])), None)
    if row is None:
        raise unknown(dataset, [key], dataset.head)
    calendar = Calendar.of(dataset.frequency or "D", dataset.time_zone)
    spells = list(_spells(session, row.id))
    for spell, until in zip(spells, [*(spell.revision for spell in spells[1:]), dataset.head + 1], strict=True):
        span = (RevisionRow.dataset_id == dataset.id, RevisionRow.number >= spell.revision, RevisionRow.number < until)
        shrunk = {"points": RevisionRow.points - spell.points, "series": RevisionRow.series - spell.here}
        session.execute(update(RevisionRow).where(*span).values(shrunk))
        if spell.points:
            # Where the series had the outermost value nobody knows the next one: counted anew when it is asked for.
            first, last = (moment(int(time)) for time in calendar.times(np.array(spell.ends), row.phase))
            outer = (RevisionRow.start == first) | (RevisionRow.end == last)
            session.execute(update(RevisionRow).where(*span, outer).values(start=None, end=None))
    session.execute(delete(SeriesRow).where(SeriesRow.id == row.id))
    head = revision_of(session, dataset)
    session.refresh(head)
    if head.points and head.start is None:
        total = counted(session, dataset, calendar, dataset.head)
        head.start, head.end = moment(total.start), moment(total.end)


@dataclass(frozen=True)
class Spell:
    """What a series was from `revision` on, until something changed: whether it was part of the dataset, its values,
    and the steps of the first and last."""

    revision: int
    here: int
    points: int
    ends: tuple[int, int]


def _spells(session: Session, series_id: int) -> Iterator[Spell]:
    rows = session.execute(
        select(SegmentRow)
        .where(SegmentRow.series_id == series_id, SegmentRow.column == TARGET)
        .order_by(SegmentRow.revision, SegmentRow.id)
    )
    pieces = [row for (row,) in rows]
    filled = [piece for piece in pieces if piece.length]
    start = min((piece.start_step for piece in filled), default=0)
    canvas = np.full(max((piece.start_step + piece.length for piece in filled), default=0) - start, np.nan)
    here = 0
    for revision, mine in groupby(pieces, key=lambda piece: piece.revision):
        some = list(mine)
        if some[0].base:
            canvas[:], here = np.nan, 0
        for piece in some:
            at = piece.start_step - start
            if piece.length:
                canvas[at : at + piece.length] = decode(piece.codec, piece.payload, piece.length)
                here = 1
        present = np.flatnonzero(~np.isnan(canvas))
        ends = (start + int(present[0]), start + int(present[-1])) if len(present) else (0, 0)
        yield Spell(revision, here, len(present), ends)
