"""Points that go on where stored series end: what they change, worked out from what is known of the dataset's head.

An upload of any kind is worked out by `changes`, which asks the database a dozen questions. Here stands the short way
of the most frequent one, points one by one: where it answers, it finds what the long one would, to the digest; where
anything is unusual it finds nothing."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Select, bindparam, insert, select, update
from sqlalchemy.orm import Session

from app.db import bulk
from app.db.tables import DatasetRow, RevisionRow, SeriesRow, utc_now
from app.services import segments
from app.services.codecs import Floats, Ints
from app.services.ingest.upload import Audit, Upload
from app.services.segments import GAP, LONGEST, TARGET, Extent, Painted, Piece, Span
from app.services.sheets import Limits, most_segments, overlay, painted_whole
from app.services.sums import Total, chained, hash_cells, moment
from models import Calendar

LIMITS = Limits()
COLUMNS = {"layout": "long", "id": "key", "time": "timestamp", "target": "value"}  # what points one by one are called
NOTHING = Painted(0, np.empty(0))
SPREAD = 100  # steps that a series may grow by for each of its points: beyond, all of its points would be counted

# Of the tables, not of the classes: half of what an ORM statement costs is finding out which rows it is about.
_REVISION = insert(RevisionRow.__table__)  # pyright: ignore[reportArgumentType]
_HEAD = (
    update(DatasetRow.__table__)  # pyright: ignore[reportArgumentType]
    .where(DatasetRow.__table__.c.id == bindparam("dataset"))
    .values(head=bindparam("number"))
)


class Head(NamedTuple):
    """A dataset at its newest revision: `live` are the covariate columns it has there."""

    dataset_id: int
    number: int
    digest: str
    total: Total
    live: Sequence[str]
    calendar: Calendar


class End(NamedTuple):
    """A stored series, and what is stored of its target at the head."""

    series_id: int
    phase: int
    extent: Extent


@dataclass(frozen=True)
class Growth:
    """What points change: `pieces` to store, whose owners are places in `keys` and `ids`, and the head after that.
    `extents` are those of the series then, by key."""

    keys: Sequence[str]
    ids: list[int]
    pieces: list[Piece]
    extents: dict[str, Extent]
    points: int
    digest: str
    total: Total


@dataclass(frozen=True)
class _Rows:
    """Points by series and step: `offsets` (k + 1,) of each series' own."""

    keys: Sequence[str]
    offsets: list[int]
    steps: Ints
    values: Floats


def ends_of(session: Session, dataset_id: int, revision: int, keys: Sequence[str]) -> dict[str, End]:
    """The ends of those of the series that there are, by key."""
    asked = session.connection()
    bound = {"dataset": dataset_id, "keys": bulk.packed(asked.dialect.name, keys)}
    rows = asked.execute(_named(asked.dialect.name), bound).all()
    found = segments.extents(session, [row[0] for row in rows], revision, [TARGET])
    return {key: End(number, phase, found.get((number, TARGET), Extent(0, 0, 0))) for number, key, phase in rows}


@lru_cache(maxsize=2)
def _named(dialect: str) -> Select[*tuple[Any, ...]]:
    columns = SeriesRow.__table__.c
    wanted = select(columns.id, columns.key, columns.phase).where(columns.dataset_id == bindparam("dataset"))
    return wanted.where(bulk.listed(dialect, columns.key, "keys"))


def growth_of(
    session: Session, head: Head, ends: Mapping[str, End], points: Sequence[tuple[str, int, float]]
) -> Growth | None:
    """What (key, time in µs, value) points change, whose series are all in `ends`; None where that takes more than what
    is known: a point that is not after its series' end, two for one time, a time off the grid, a gap too large."""
    if head.calendar.frequency.is_integer:
        return None
    rows = _in_order(head.calendar, ends, points)
    return None if rows is None else _grown(session, head, ends, rows, LIMITS)


def growth_by(session: Session, head: Head, ends: Mapping[str, End], upload: Upload, limits: Limits) -> Growth | None:
    """The same of an upload on the dataset's own calendar."""
    if upload.covariates or upload.statics or any(key not in ends for key in upload.keys):
        return None
    phases = [ends[key].phase for key in upload.keys]
    if phases != upload.phases.tolist() or (np.diff(upload.offsets) == 0).any():
        return None
    rows = _Rows(upload.keys, upload.offsets.tolist(), upload.steps, upload.values)
    return _grown(session, head, ends, rows, limits)


def keep(
    session: Session, head: Head, growth: Growth, columns: Mapping[str, str] = COLUMNS, audit: Audit | None = None
) -> dict[str, Any]:
    """Write it as the revision after the head, which nobody else may have moved since. Gives the revision's row, by
    column: to make an object of it costs as much as to write it."""
    number = head.number + 1
    segments.keep(session, number, growth.pieces, growth.ids)
    values: dict[str, Any] = {
        "dataset_id": head.dataset_id,
        "number": number,
        "mode": "append",
        "digest": growth.digest,
        "series": growth.total.series,
        "points": growth.total.points,
        "start": moment(growth.total.start),
        "end": moment(growth.total.end),
        "inserted": growth.points,
        "updated": 0,
        "unchanged": 0,
        "columns": {**columns, "live": sorted(head.live)},
        "audit": (audit or Audit()).document(),
        "created_at": utc_now(),
    }
    connection = session.connection()
    made = connection.execute(_REVISION, values).inserted_primary_key
    assert made is not None
    connection.execute(_HEAD, {"dataset": head.dataset_id, "number": number})
    return {"id": made[0], **values}


# ---------------------------------------------------------------- worked out


def _grown(session: Session, head: Head, ends: Mapping[str, End], rows: _Rows, limits: Limits) -> Growth | None:
    exact = not head.total.points or head.total.start is not None
    mine = [ends[key] for key in rows.keys]
    if not exact or head.total.series > limits.series or not _fits(rows, [end.extent for end in mine], limits):
        return None
    pieces, extents = _packed(session, head, rows, ends)
    cells = hashlib.sha256()
    spans = [slice(start, stop) for start, stop in pairwise(rows.offsets)]
    values = rows.values + 0.0  # one zero
    hash_cells(cells, ((key, rows.steps[some], values[some]) for key, some in zip(rows.keys, spans, strict=True)))
    facts: dict[str, object] = {
        "calendar": [head.calendar.frequency.name, head.calendar.time_zone],
        "columns": [],
        "live": sorted(head.live),
        "arrived": [],
        "gone": [],
        "statics": [],
    }
    digest = chained(head.digest, facts, {TARGET: cells})
    total = _total(head, rows, [end.phase for end in mine])
    return Growth(rows.keys, [end.series_id for end in mine], pieces, extents, len(rows.steps), digest, total)


def _in_order(calendar: Calendar, ends: Mapping[str, End], points: Sequence[tuple[str, int, float]]) -> _Rows | None:
    """The points by series and step; None where one is off its series' grid."""
    keys = sorted({key for key, _, _ in points})
    place_of = {key: place for place, key in enumerate(keys)}
    codes = np.array([place_of[key] for key, _, _ in points], np.int64)
    phases = np.array([ends[key].phase for key in keys], np.int64)
    values = np.array([value for _, _, value in points], np.float64)
    steps, found = calendar.locate(np.array([time for _, time, _ in points], np.int64))
    if not calendar.on_grid(steps, found, phases[codes]).all():
        return None
    if len(points) > 1:
        order = np.lexsort((steps, codes))
        codes, steps, values = codes[order], steps[order], values[order]
    return _Rows(keys, np.searchsorted(codes, np.arange(len(keys) + 1)).tolist(), steps, values)


def _fits(rows: _Rows, extents: Sequence[Extent], limits: Limits) -> bool:
    """Whether all points are numbers, one for a time, that come after what is stored of their series, and not so far
    that more would have to be known."""
    if not np.isfinite(rows.values).all():
        return False
    offsets = np.array(rows.offsets)
    first, stop = rows.steps[offsets[:-1]], rows.steps[offsets[1:] - 1] + 1
    start, end = np.array([(extent.start, extent.stop) for extent in extents], np.int64).T
    if ((start >= end) | (first < end) | (stop - first > LONGEST)).any():
        return False
    if ((stop - end > SPREAD * np.diff(offsets)) | (stop - start > limits.span)).any():
        return False
    between = np.diff(rows.steps)
    odd = (between < 1) | (between > GAP)
    odd[offsets[1:-1] - 1] = False  # from one series to the next
    return not odd.any()


def _packed(
    session: Session, head: Head, rows: _Rows, ends: Mapping[str, End]
) -> tuple[list[Piece], dict[str, Extent]]:
    """The points as they are stored: a segment for each series, or a fresh base where it would have too many."""
    spans: list[Span] = []
    extents: dict[str, Extent] = {}
    crowded: dict[int, int] = {}
    for place, key in enumerate(rows.keys):
        series_id, _, extent = ends[key]
        if extent.segments + 1 > most_segments(series_id):
            crowded[series_id] = place
            continue
        mine = slice(rows.offsets[place], rows.offsets[place + 1])
        run = overlay(NOTHING, rows.steps[mine], rows.values[mine])
        spans.append(Span(place, TARGET, False, run.start, run.values))
        extents[key] = Extent(extent.segments + 1, extent.start, run.start + len(run.values))
    if crowded:
        for series_id, painted in painted_whole(session, list(crowded), head.number, TARGET):
            place = crowded[series_id]
            mine = slice(rows.offsets[place], rows.offsets[place + 1])
            whole = overlay(painted, rows.steps[mine], rows.values[mine])
            base = list(segments.fresh_base(place, TARGET, whole))
            spans += base
            extents[rows.keys[place]] = Extent(0, base[0].start, base[-1].start + len(base[-1].values))
    return segments.packed(spans), extents


def _total(head: Head, rows: _Rows, phases: Sequence[int]) -> Total:
    starts, stops = rows.offsets[:-1], [offset - 1 for offset in rows.offsets[1:]]
    at = np.array(phases, np.int64)
    first = int(head.calendar.times(rows.steps[starts], at).min())
    last = int(head.calendar.times(rows.steps[stops], at).max())
    before = head.total
    start = first if before.start is None else min(first, before.start)
    end = last if before.end is None else max(last, before.end)
    return Total(before.series, before.points + len(rows.steps), start, end)
