"""Sheets: the rows of an upload laid beside what the head of their dataset holds, a column at a time. Only reads.

A row says all of its columns: a null in it overwrites, a row that is not there never does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import bulk
from app.db.tables import DatasetRow, SeriesRow
from app.errors import Complaint, Conflict, Invalid
from app.services import segments
from app.services.codecs import Floats, Ints, decode
from app.services.ingest.upload import Upload
from app.services.segments import TARGET, Extent, Painted, Span

Mode = Literal["replace", "append", "upsert"]
Bools = NDArray[np.bool_]
Number = TypeVar("Number", int, Ints)

STEPS = 4_000_000  # laid at a time, over as many series as that is: 32 MB a column


@dataclass(frozen=True)
class Limits:
    """Most series in a dataset, and most steps from a series' first point to its last."""

    series: int = 1_000_000
    span: int = 10_000_000


class Stored(NamedTuple):
    """Of each series, (k,) each: segments since the newest base, -1 without one, and the steps they reach."""

    segments: Ints
    start: Ints
    stop: Ints


NOTHING = Extent(-1, 0, 0)


@dataclass(frozen=True)
class Sheet:
    """An upload's rows beside what is stored of their series at `head`. Series are counted as in `upload.keys`.

    `ids` (k,) are their rows in the database, -1 for new ones; `here` (k,) tells which are part of the dataset. The
    rows fall into runs without large gaps: `first` and `last` (r,) row of each, `place` (n + 1,) of the rows when all
    runs are put end to end with their small gaps.
    """

    upload: Upload
    mode: Mode
    head: int
    ids: Ints
    here: Bools
    extents: Mapping[tuple[int, str], Extent]
    first: Ints
    last: Ints
    place: Ints
    _stored: dict[str, Stored] = field(default_factory=dict[str, Stored], repr=False)

    @cached_property
    def owners(self) -> Ints:
        """The series of each row, (n,)."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.upload.offsets))

    def owners_of(self, rows: Ints) -> Ints:
        """The series of some rows, as many as there are series: of all rows is not worked out for them."""
        return np.searchsorted(self.upload.offsets, rows, side="right") - 1

    @property
    def is_fresh(self) -> bool:
        """Whether nothing is stored of any of these series: so it is of most large uploads, and there is a shorter way
        for each pass over their rows."""
        return not self.extents

    def stored(self, column: str) -> "Stored":
        """What the head has of one column of each series."""
        if column not in self._stored and self.is_fresh:
            nothing = np.zeros(len(self.ids), np.int64)
            self._stored[column] = Stored(nothing - 1, nothing, nothing)
        if column not in self._stored:
            found = [self.extents.get((series_id, column), NOTHING) for series_id in self.ids.tolist()]
            facts = [(one.segments, one.start, one.stop) for one in found]
            self._stored[column] = Stored(*np.array(facts, np.int64).reshape(-1, 3).T)
        return self._stored[column]

    def rows(self, series: int) -> slice:
        return slice(int(self.upload.offsets[series]), int(self.upload.offsets[series + 1]))

    def batches(self) -> Iterator[tuple[int, int]]:
        """Ranges of series whose runs together are at most STEPS long, or one series."""
        ends: Ints = self.place[self.upload.offsets]
        start = 0
        while start < len(self.ids):
            stop = int(np.searchsorted(ends, int(ends[start]) + STEPS, side="right")) - 1
            stop = max(stop, start + 1)
            yield start, stop
            start = stop


@dataclass(frozen=True)
class Laid:
    """One column of an upload against the head: `sent` and `stored` (n,) values of the rows, which of them changed, the
    steps of stored values that a `replace` leaves out by series, and what is to be written."""

    column: str
    sent: Floats
    stored: Floats
    changed: Bools
    dropped: dict[int, Ints] = field(default_factory=dict[int, Ints])
    spans: list[Span] = field(default_factory=list[Span])


# ---------------------------------------------------------------- the sheet


def sheet_of(session: Session, dataset: DatasetRow, upload: Upload, mode: Mode, limits: Limits) -> Sheet:
    """The upload beside the series it names. Raises Conflict when a stored series has another phase, Invalid when one
    would reach over more steps than are allowed."""
    ids = np.full(len(upload.keys), -1, dtype=np.int64)
    here = np.zeros(len(ids), dtype=bool)
    extents: dict[tuple[int, str], Extent] = {}
    if dataset.head:
        _find_ids(session, dataset.id, upload, ids)
        extents = segments.extents(session, ids[ids >= 0].tolist(), dataset.head)
        here[:] = [_reaches(extents.get((series, TARGET))) for series in ids.tolist()]
    first, last = upload.offsets[:-1], upload.offsets[1:] - 1
    if (upload.steps[last] - upload.steps[first] == last - first).all():  # no gaps: no need to look for them
        place = np.arange(len(upload.steps) + 1)
    else:
        begins = np.zeros(len(upload.steps), dtype=bool)
        begins[first] = True
        first, last = segments.runs(upload.steps, begins)
        starts = np.concatenate(([0], np.cumsum(upload.steps[last] - upload.steps[first] + 1)))
        run = np.repeat(np.arange(len(first)), last - first + 1)
        place = np.append(starts[run] + upload.steps - upload.steps[first[run]], starts[-1])
    sheet = Sheet(upload, mode, dataset.head, ids, here, extents, first, last, place)
    if mode != "replace":
        _check_spans(session, sheet, limits.span)
    return sheet


def _find_ids(session: Session, dataset_id: int, upload: Upload, ids: Ints) -> None:
    """Put the rows of the series that there are into `ids` (k,)."""
    places = {key: place for place, key in enumerate(upload.keys)}
    phases: list[int] = upload.phases.tolist()
    for keys in segments.batched(upload.keys, 5000):
        found = session.execute(
            select(SeriesRow.id, SeriesRow.key, SeriesRow.phase).where(
                SeriesRow.dataset_id == dataset_id, bulk.among(session, SeriesRow.key, keys)
            )
        )
        for series_id, key, phase in found:
            place = places[key]
            ids[place] = series_id
            if phase != phases[place]:
                detail = f"Series {key!r} lies elsewhere inside its steps: its times do not continue those stored."
                raise Conflict(detail, code="series-off-grid")


def _reaches(extent: Extent | None) -> bool:
    return extent is not None and extent.stop > extent.start


def _check_spans(session: Session, sheet: Sheet, most: int) -> None:
    """Refuse series that would be nearly all gap: they are painted whole, gaps too, whenever they are read.

    A series may reach over 100 steps a point and 10,000 more. Only where an upload stretches one by more than its own
    rows allow are the stored points counted.
    """
    steps, offsets = sheet.upload.steps, sheet.upload.offsets
    stored = sheet.stored(TARGET)
    spans = np.maximum(stored.stop, steps[offsets[1:] - 1] + 1) - np.minimum(stored.start, steps[offsets[:-1]])
    counts = np.diff(offsets)
    far = sheet.here & (spans > most)
    if far.any():
        series = int(far.argmax())
        _refuse_span(sheet, int(sheet.ids[series]), int(spans[series]), most)
    doubtful = sheet.here & (spans - (stored.stop - stored.start) > 100 * counts) & (spans > 100 * counts + 10_000)
    reach: dict[int, tuple[int, int]] = {  # series id: its steps afterwards, its rows
        int(sheet.ids[series]): (int(spans[series]), int(counts[series])) for series in np.flatnonzero(doubtful)
    }
    for series_id, painted in painted_whole(session, sorted(reach), sheet.head, TARGET):
        span, count = reach[series_id]
        allowed = 100 * (int(np.count_nonzero(~np.isnan(painted.values))) + count) + 10_000
        if span > allowed:
            _refuse_span(sheet, series_id, span, allowed)


def _refuse_span(sheet: Sheet, series_id: int, span: int, allowed: int) -> None:
    key = sheet.upload.keys[int(np.flatnonzero(sheet.ids == series_id)[0])]
    detail = f"Series {key!r} would reach over {span:,} steps; with its points it may over {allowed:,}."
    hint = "Check the times of the rows that lie far from the stored ones."
    raise Invalid(detail, code="span", errors=[Complaint("span", detail, hint=hint)])


# ---------------------------------------------------------------- one column


def lay(session: Session, sheet: Sheet, column: str, sent: Floats) -> Laid:
    """One column of the upload, `sent` (n,) with NaN for null, against the head."""
    if sheet.mode == "replace":
        return _lay_whole(session, sheet, column, sent)
    # Where nothing is stored one NaN stands for all rows, in no memory.
    stored = np.broadcast_to(np.nan, len(sent)) if sheet.is_fresh else np.full(len(sent), np.nan)
    changed = np.zeros(len(sent), dtype=bool)
    laid = Laid(column, sent, stored, changed)
    spans: list[Span] = []
    for start, stop in sheet.batches():
        spans += _lay_batch(session, sheet, laid, start, stop)
    return replace(laid, spans=list(_thinned(session, sheet, laid, spans)))


def _lay_batch(session: Session, sheet: Sheet, laid: Laid, start: int, stop: int) -> Iterator[Span]:
    """The same for the series [start, stop): what changed comes out, to be stored."""
    head = sheet.stored(laid.column)
    rows = slice(int(sheet.upload.offsets[start]), int(sheet.upload.offsets[stop]))
    canvas = _canvas(session, sheet, laid, (start, stop))
    if laid.changed[rows].all():
        low, high = np.searchsorted(sheet.first, (rows.start, rows.stop))
        first, last = sheet.first[low:high], sheet.last[low:high]
    else:
        changed = rows.start + np.flatnonzero(laid.changed[rows])
        first, last = (changed[ends] for ends in _runs(sheet.owners[changed], sheet.upload.steps[changed]))
    owners, origin = sheet.owners_of(first), int(sheet.place[rows.start])
    begins, ends = sheet.place[first] - origin, sheet.place[last] + 1 - origin
    found = (owners, head.segments[owners] < 0, sheet.upload.steps[first], begins, ends)
    for owner, base, step, low, high in zip(*(each.tolist() for each in found), strict=True):
        if high - low <= segments.LONGEST:
            yield Span(owner, laid.column, base, step, canvas[low:high])
        else:
            yield from segments.cut(owner, laid.column, base, Painted(step, canvas[low:high]))
    if laid.column == TARGET:
        silent = ~sheet.here[start:stop]
        silent[owners - start] = False
        for owner in (start + np.flatnonzero(silent)).tolist():  # new, with nulls alone
            nothing = Painted(int(sheet.upload.steps[sheet.rows(owner).start]), np.array([np.nan]))
            yield from segments.cut(owner, TARGET, bool(head.segments[owner] < 0), nothing)


def _canvas(session: Session, sheet: Sheet, laid: Laid, series: tuple[int, int]) -> Floats:
    """The runs of the series end to end: what the head has of them, under the rows that are sent. Notes what was stored
    and what changed."""
    rows = slice(int(sheet.upload.offsets[series[0]]), int(sheet.upload.offsets[series[1]]))
    origin, end = int(sheet.place[rows.start]), int(sheet.place[rows.stop])
    sent = laid.sent[rows]
    if sheet.is_fresh:
        np.isnan(sent, out=laid.changed[rows])
        np.logical_not(laid.changed[rows], out=laid.changed[rows])
        if end - origin == len(sent):
            return sent
    canvas = np.full(end - origin, np.nan)
    at = sheet.place[rows] - origin
    if not sheet.is_fresh:
        _underpaint(session, sheet, laid.column, series, canvas)
        laid.stored[rows] = canvas[at]
        laid.changed[rows] = ~same(sent, laid.stored[rows])
    canvas[at] = sent
    return canvas


def _underpaint(session: Session, sheet: Sheet, column: str, series: tuple[int, int], canvas: Floats) -> None:
    """Paint what the head holds under the runs of the series onto `canvas`, where these lie end to end."""
    steps, offsets, head = sheet.upload.steps, sheet.upload.offsets, sheet.stored(column)
    some = slice(*series)
    low, high = steps[offsets[:-1][some]], steps[offsets[1:][some] - 1]
    meets = (head.segments[some] >= 0) & (head.start[some] <= high) & (head.stop[some] > low)
    owners = series[0] + np.flatnonzero(meets)
    if not len(owners):
        return
    owner_of: dict[int, int] = dict(zip(sheet.ids[owners].tolist(), owners.tolist(), strict=True))
    rows = slice(offsets[series[0]], offsets[series[1]])
    window = int(steps[rows].min()), int(steps[rows].max()) + 1
    origin = int(sheet.place[rows.start])
    for segment in segments.fetch(session, sorted(owner_of), sheet.head, [column], window):
        mine = sheet.rows(owner_of[segment.series_id])
        run, end = np.searchsorted(sheet.first, (mine.start, mine.stop))
        run += np.searchsorted(steps[sheet.last[run:end]], segment.start)
        values = None
        while run < end and (begin := int(steps[sheet.first[run]])) < segment.stop:
            low, high = max(begin, segment.start), min(int(steps[sheet.last[run]]) + 1, segment.stop)
            if values is None:
                values = decode(segment.codec, segment.payload, segment.length)
            at = int(sheet.place[sheet.first[run]]) - origin - begin
            canvas[at + low : at + high] = values[low - segment.start : high - segment.start]
            run += 1


def _runs(owners: Ints, steps: Ints) -> tuple[Ints, Ints]:
    begins = np.zeros(len(steps), dtype=bool)
    begins[1:] = np.diff(owners) != 0
    return segments.runs(steps, begins)


def _thinned(session: Session, sheet: Sheet, laid: Laid, spans: Sequence[Span]) -> Iterator[Span]:
    """The spans, where those of a series that would have too many are replaced by a fresh base."""
    if sheet.is_fresh:
        yield from spans
        return
    head = sheet.stored(laid.column)
    owners = np.array([span.owner for span in spans], np.int64)
    most = most_segments(sheet.ids)
    many = (head.segments >= 0) & (head.segments + np.bincount(owners, minlength=len(sheet.ids)) > most)
    if not many[owners].any():
        yield from spans
        return
    yield from (span for span, left in zip(spans, (~many[owners]).tolist(), strict=True) if left)
    crowded = {int(sheet.ids[owner]): owner for owner in np.unique(owners[many[owners]]).tolist()}
    for series_id, painted in painted_whole(session, list(crowded), sheet.head, laid.column):
        rows = sheet.rows(crowded[series_id])
        changed = laid.changed[rows]
        whole = overlay(painted, sheet.upload.steps[rows][changed], laid.sent[rows][changed])
        yield from segments.fresh_base(crowded[series_id], laid.column, whole)


def most_segments(series_id: Number) -> Number:
    """How many segments a series may have since its base. Those that grow together must not all get theirs at once."""
    return segments.MOST - series_id % (segments.MOST // 2)


def painted_whole(
    session: Session, series_ids: Sequence[int], revision: int, column: str
) -> Iterator[tuple[int, Painted]]:
    """One column of each series that has it at `revision`, painted whole."""
    for series_id, _, painted in segments.paint_all(segments.fetch(session, series_ids, revision, [column])):
        yield series_id, painted


def overlay(painted: Painted, steps: Ints, values: Floats) -> Painted:
    """The values laid over what is painted, at ascending absolute `steps`."""
    if not len(steps):
        return painted
    start, stop = int(steps[0]), int(steps[-1]) + 1
    if not len(painted.values) and stop - start == len(steps):
        return Painted(start, values)
    if len(painted.values):
        start, stop = min(start, painted.start), max(stop, painted.start + len(painted.values))
    whole = np.full(stop - start, np.nan)
    whole[painted.start - start :][: len(painted.values)] = painted.values
    whole[steps - start] = values
    return Painted(start, whole)


def same(one: Floats, other: Floats) -> Bools:
    """Where both hold the same value or both are missing."""
    return (one == other) | (np.isnan(one) & np.isnan(other))


# ---------------------------------------------------------------- one column, as the whole new content


def _lay_whole(session: Session, sheet: Sheet, column: str, sent: Floats) -> Laid:
    """One column of a `replace`: each series where something changes or is left out gets a base of what was sent."""
    stored = np.full(len(sent), np.nan)
    dropped: dict[int, Ints] = {}
    owner_of = {int(i): owner for owner, i in enumerate(sheet.ids) if _reaches(sheet.extents.get((int(i), column)))}
    for series_id, painted in painted_whole(session, sorted(owner_of), sheet.head, column):
        owner = owner_of[series_id]
        rows = sheet.rows(owner)
        at = sheet.upload.steps[rows] - painted.start
        inside = (at >= 0) & (at < len(painted.values))
        stored[rows][inside] = painted.values[at[inside]]
        left = ~np.isnan(painted.values)
        left[at[inside]] = False
        if left.any():
            dropped[owner] = painted.start + np.flatnonzero(left)
    changed = ~same(sent, stored)
    laid = Laid(column, sent, stored, changed, dropped)
    touched = set(np.unique(sheet.owners[changed]).tolist()) | set(dropped)
    if column == TARGET:
        touched |= set(np.flatnonzero(~sheet.here).tolist())
    spans = [span for owner in sorted(touched) for span in _sent_base(sheet, owner, column, sent)]
    return replace(laid, spans=spans)


def _sent_base(sheet: Sheet, owner: int, column: str, sent: Floats) -> Iterator[Span]:
    """A base of all that was sent of one column of one series."""
    rows = sheet.rows(owner)
    present = ~np.isnan(sent[rows])
    steps, values = sheet.upload.steps[rows][present], sent[rows][present]
    if not len(steps):
        nothing = Painted(int(sheet.upload.steps[rows.start]), np.array([np.nan]))
        yield from segments.fresh_base(owner, column, nothing)
    for first, last in zip(*segments.runs(steps), strict=True):
        run = slice(int(first), int(last) + 1)
        yield from segments.cut(owner, column, True, overlay(Painted(0, np.empty(0)), steps[run], values[run]))
