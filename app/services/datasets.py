"""Datasets: made, changed, deleted and listed; and their series read as the core takes them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.tables import AliasRow, ColumnRow, DatasetRow, ModelRow, RevisionRow, SeriesRow, VersionRow
from app.errors import MAX_LISTED, Complaint, Conflict, Invalid, NotFound
from app.services import segments
from app.services.changes import STATIC, live, statics_at
from app.services.ingest.upload import Audit, Known, Upload
from app.services.revisions import LIMITS, Outcome, draft, find, revision_of, store
from app.services.segments import TARGET, Floats, Painted
from app.services.sheets import same
from models import Calendar, Series

__all__ = ["LIMITS", "Outcome", "draft", "find", "revision_of", "store"]

ASKED = 1000  # keys in one query
FAR = 2**62  # later than any step


# ---------------------------------------------------------------- the noun


def get(session: Session, name: str) -> DatasetRow:
    """The dataset of this name. Raises NotFound."""
    row = find(session, name)
    if row is None:
        raise NotFound(f"There is no dataset {name!r}.", code="no-such-dataset")
    return row


def calendar_of(dataset: DatasetRow) -> Calendar:
    """The dataset's calendar. Raises Invalid while no upload has decided its frequency."""
    if dataset.frequency is None:
        raise Invalid(f"Dataset {dataset.name!r} has no frequency yet: its first upload decides it.", code="no-data")
    return Calendar.of(dataset.frequency, dataset.time_zone)


@dataclass(frozen=True)
class Facts:
    """A dataset with what is told about it: its newest revision, and the covariate columns of that one."""

    dataset: DatasetRow
    head: RevisionRow | None
    covariates: list[ColumnRow]


def facts(session: Session, rows: Sequence[DatasetRow]) -> list[Facts]:
    """The facts of each dataset, in two queries."""
    ids = [row.id for row in rows]
    newest = select(RevisionRow).join(
        DatasetRow, (DatasetRow.id == RevisionRow.dataset_id) & (DatasetRow.head == RevisionRow.number)
    )
    heads = {row.dataset_id: row for row in session.scalars(newest.where(DatasetRow.id.in_(ids)))}
    columns = select(ColumnRow).where(ColumnRow.dataset_id.in_(ids)).order_by(ColumnRow.name)
    covariates: dict[int, list[ColumnRow]] = {}
    for column in session.scalars(columns):
        if column.name in live(heads.get(column.dataset_id)):
            covariates.setdefault(column.dataset_id, []).append(column)
    return [Facts(row, heads.get(row.id), covariates.get(row.id, [])) for row in rows]


def create(session: Session, name: str, calendar: tuple[str | None, str], about: Mapping[str, Any]) -> DatasetRow:
    """A dataset without data. `calendar` is (frequency or None, time zone), `about` its bounds and description.

    Raises Conflict when the name is taken, Invalid on a frequency or zone that does not exist.
    """
    frequency, time_zone = calendar
    try:
        known = Calendar.of(frequency or "D", time_zone)
    except ValueError as error:
        place = "time_zone" if str(error).startswith("time_zone") else "frequency"
        raise Invalid(f"{error}.", errors=[Complaint("calendar", str(error), pointer=f"/{place}")]) from error
    row = DatasetRow(
        name=name,
        frequency=known.frequency.name if frequency else None,
        time_zone=time_zone,
        bounds=about.get("bounds"),
        description=about.get("description") or "",
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise Conflict(f"There is a dataset {name!r} already.", code="dataset-exists") from error
    return row


def list_page(session: Session, after: str | None, size: int) -> tuple[list[DatasetRow], str | None]:
    """Datasets by name, those after `after`; and the name to go on from, None on the last page."""
    wanted = select(DatasetRow).order_by(DatasetRow.name).limit(size + 1)
    if after is not None:
        wanted = wanted.where(DatasetRow.name > after)
    rows = list(session.scalars(wanted))
    return rows[:size], rows[size - 1].name if len(rows) > size else None


def remove(session: Session, dataset: DatasetRow, force: bool = False) -> None:
    """Delete the dataset with all its revisions. Raises Conflict while an alias points to a version trained on it,
    unless `force`; such a version stays and keeps the dataset's name."""
    used = session.execute(
        select(ModelRow.name, AliasRow.name)
        .join(AliasRow, AliasRow.model_id == ModelRow.id)
        .join(VersionRow, (VersionRow.model_id == ModelRow.id) & (VersionRow.number == AliasRow.version))
        .where(VersionRow.dataset_id == dataset.id)
        .order_by(ModelRow.name, AliasRow.name)
    ).all()
    if used and not force:
        names = ", ".join(f"{model}@{alias}" for model, alias in used)
        raise Conflict(
            f"Dataset {dataset.name!r} trained what {names} point to; force=true deletes it all the same.",
            code="dataset-in-use",
        )
    session.execute(delete(DatasetRow).where(DatasetRow.id == dataset.id))


def known(session: Session, name: str, time_zone: str | None) -> Known:
    """What an upload's reader must know of its dataset. Raises Invalid when `time_zone` is not the dataset's."""
    dataset = find(session, name)
    if dataset is None:
        return Known(time_zone=time_zone or "UTC")
    if time_zone is not None and time_zone != dataset.time_zone:
        detail = f"time_zone: dataset {name!r} has {dataset.time_zone}, got {time_zone}."
        raise Invalid(detail, code="calendar-differs")
    phases = session.execute(select(SeriesRow.key, SeriesRow.phase).where(SeriesRow.dataset_id == dataset.id))
    columns = session.scalars(select(ColumnRow).where(ColumnRow.dataset_id == dataset.id))
    return Known(
        frequency=dataset.frequency,
        time_zone=dataset.time_zone,
        phases={row.key: row.phase for row in phases},
        columns={column.name: (column.role, column.kind) for column in columns},
    )


# ---------------------------------------------------------------- points that arrive one by one


def append_points(session: Session, dataset: DatasetRow, points: Sequence[tuple[str, int, float | None]]) -> Outcome:
    """Append (key, time in µs or integer, value) points as one revision; None or NaN says that a value is missing.

    Raises Conflict when a point is stored with another value, Invalid for a time off its series' grid, an infinite
    value or two values for one time.
    """
    calendar = calendar_of(dataset)
    if not points:
        raise Invalid("points: expected at least one.", errors=[Complaint("empty", "No points", pointer="/points")])
    keys = sorted({key for key, _, _ in points})
    place_of = {key: place for place, key in enumerate(keys)}
    codes = np.array([place_of[key] for key, _, _ in points])
    steps, row_phases = calendar.locate(np.array([time for _, time, _ in points], dtype=np.int64))
    values = np.array([np.nan if value is None else value for _, _, value in points], dtype=np.float64)
    phases = calendar.settle(codes, row_phases, steps)
    for row in _series_rows(session, dataset.id, keys):
        phases[place_of[row.key]] = row.phase
    off = np.flatnonzero(~calendar.on_grid(steps, row_phases, phases[codes]))
    _refuse(off, "off-grid", f"does not continue the steps of {calendar.frequency.name} of its series", "timestamp")
    _refuse(np.flatnonzero(np.isinf(values)), "infinite", "is not finite", "value")
    order = np.lexsort((steps, codes))
    codes, steps, values = codes[order], steps[order], values[order]
    twice = np.append(False, (np.diff(codes) == 0) & (np.diff(steps) == 0))
    differs = np.append(False, ~same(values[1:], values[:-1]))
    _refuse(order[twice & differs], "conflicting-duplicate", "is there twice with different values", "value")
    codes, steps, values = codes[~twice], steps[~twice], values[~twice]
    offsets = np.searchsorted(codes, np.arange(len(keys) + 1))
    columns = {"layout": "long", "id": "key", "time": "timestamp", "target": "value"}
    upload = Upload(calendar, keys, phases, offsets, steps, values, {}, {}, columns, Audit())
    return store(session, dataset.name, upload, "append")


def _refuse(rows: Any, code: str, says: str, field: str) -> None:
    listed = rows[:MAX_LISTED].tolist()
    found = [Complaint(code, f"This point {says}", pointer=f"/points/{row}/{field}") for row in listed]
    if found:
        raise Invalid(f"{len(rows)} point(s): {field} {says}.", code=code, errors=found, error_count=len(rows))


# ---------------------------------------------------------------- series as the core takes them


def read_series(
    session: Session,
    dataset: DatasetRow,
    revision: int | None = None,
    keys: Sequence[str] | None = None,
    last: int | None = None,
) -> list[Series]:
    """The dataset's series at a revision (the head, left out), in key order or in the order of `keys`.

    Each target ends with its last value, the origin, and begins with its first, or the first of the `last` steps;
    future covariates run on after it. All series have all covariate columns. Raises NotFound for keys that are not
    there, Invalid for a revision that does not exist.
    """
    at = revision_of(session, dataset, revision)
    names = live(at)
    wanted = select(ColumnRow).where(ColumnRow.dataset_id == dataset.id, ColumnRow.name.in_(names))
    columns = {column.name: column for column in session.scalars(wanted)}
    found: dict[str, Series] = {}
    for rows in segments.batched(_series_rows(session, dataset.id, keys), segments.BATCH):
        painted = _painted(session, [row.id for row in rows], at.number, last)
        statics = statics_at(session, [row.id for row in rows], at.number) if columns else {}
        for row in rows:
            if row.id in painted:
                found[row.key] = _series(row, painted[row.id], statics.get(row.id, {}), columns, last)
    if keys is None:
        return list(found.values())
    if missing := [key for key in keys if key not in found]:
        raise NotFound(
            f"Dataset {dataset.name!r} has no series {', '.join(map(repr, missing[:5]))}"
            f"{' …' if len(missing) > 5 else ''} at revision {at.number}.",
            code="no-such-series",
            errors=[Complaint("no-such-series", f"There is no series {key!r}") for key in missing[:MAX_LISTED]],
            error_count=len(missing),
        )
    return [found[key] for key in keys]


def _series_rows(session: Session, dataset_id: int, keys: Sequence[str] | None) -> Iterator[Any]:
    """(id, key, phase) of the dataset's series by key, or of those named."""
    wanted = select(SeriesRow.id, SeriesRow.key, SeriesRow.phase).where(SeriesRow.dataset_id == dataset_id)
    if keys is None:
        yield from session.execute(wanted.order_by(SeriesRow.key)).all()
        return
    for some in segments.batched(dict.fromkeys(keys), ASKED):
        yield from session.execute(wanted.where(SeriesRow.key.in_(some))).all()


def _painted(
    session: Session, series_ids: Sequence[int], revision: int, last: int | None = None
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
    pieces = segments.fetch(session, series_ids, revision, window=window)
    for (series_id, column), mine in groupby(pieces, key=lambda segment: (segment.series_id, segment.column)):
        painted = segments.paint(mine, window)
        if len(painted.values):
            found.setdefault(series_id, {})[column] = painted
    found = {series_id: mine for series_id, mine in found.items() if TARGET in mine}
    if last is not None and window is not None:
        # A target that ends in missing values: its origin lies before the steps read.
        cut = [series_id for series_id, start in starts.items() if start < window[0]]
        short = [series_id for series_id in cut if _steps_to_origin(found[series_id][TARGET]) < last]
        found.update(_painted(session, short, revision))
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
        (future if column.role == "future" else past)[name] = _spread(mine, start, end, missing)
    return Series(row.key, target.values[first:stop], start, row.phase, past, future, static)


def _spread(painted: Painted, start: int, stop: int, missing: float) -> Floats:
    """What is painted on the steps [start, stop), `missing` where nothing is."""
    values = np.full(max(stop - start, 0), missing)
    low, high = max(start, painted.start), min(stop, painted.start + len(painted.values))
    if low < high:
        part = painted.values[low - painted.start : high - painted.start]
        values[low - start : high - start] = np.where(np.isnan(part), missing, part)
    return values
