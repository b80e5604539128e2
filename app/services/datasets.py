"""Datasets: made, changed, deleted and listed; and the front door to their revisions and series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.tables import AliasRow, ColumnRow, DatasetRow, ModelRow, RevisionRow, SeriesRow, VersionRow
from app.errors import MAX_LISTED, Complaint, Conflict, Invalid, NotFound
from app.services import growth
from app.services.changes import Change, live
from app.services.ingest.keys import key_problem
from app.services.ingest.stamps import MAX_STEP
from app.services.ingest.upload import Audit, Known, Upload
from app.services.revisions import Outcome, draft, find, revision_of, store
from app.services.series import Span, keys_at, keys_within, next_keys, read_columns, read_series, series_rows
from app.services.sheets import Limits, same
from models import Calendar

__all__ = [
    "Change",
    "Limits",
    "Outcome",
    "Span",
    "draft",
    "find",
    "keys_at",
    "keys_within",
    "next_keys",
    "read_columns",
    "read_series",
    "revision_of",
    "store",
]


# ---------------------------------------------------------------- the noun


def get(session: Session, name: str) -> DatasetRow:
    """The dataset of this name. Raises NotFound."""
    row = find(session, name)
    if row is None:
        raise NotFound(f"There is no dataset {name!r}.", code="no-such-dataset")
    return row


def calendar_of(dataset: DatasetRow) -> Calendar:
    """The dataset's calendar. Raises Conflict while no upload has decided its frequency."""
    if dataset.frequency is None:
        raise Conflict(
            f"Dataset {dataset.name!r} has no frequency yet: its first upload decides it.", code="dataset-empty"
        )
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
        try:
            Calendar.of("D", time_zone or "UTC")
        except ValueError as error:
            complaint = Complaint("time-zone", str(error), pointer="query/time_zone")
            raise Invalid(f"{error}.", errors=[complaint]) from error
        return Known(time_zone=time_zone or "UTC", takes_zone=time_zone is None)
    if time_zone is not None and time_zone != dataset.time_zone:
        detail = f"time_zone: dataset {name!r} has {dataset.time_zone}, got {time_zone}."
        raise Invalid(detail, errors=[Complaint("time-zone", detail, pointer="query/time_zone")])
    # Not by the classes: of ten thousand series it takes twice as long.
    series = SeriesRow.__table__.c
    phases = session.connection().execute(select(series.key, series.phase).where(series.dataset_id == dataset.id))
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
    wrong = np.flatnonzero([key_problem(key) is not None for key, _, _ in points])
    _refuse(wrong, "bad-key", "is empty, over 255 bytes or holds control characters", "key")
    if calendar.frequency.is_integer:
        far = np.flatnonzero([abs(time) > MAX_STEP for _, time, _ in points])
        _refuse(far, "out-of-range", f"is not between -{MAX_STEP} and {MAX_STEP}", "timestamp")
    steps, row_phases = calendar.locate(np.array([time for _, time, _ in points], dtype=np.int64))
    values = np.array([np.nan if value is None else value for _, _, value in points], dtype=np.float64)
    phases = calendar.settle(codes, row_phases, steps)
    for row in series_rows(session, dataset.id, keys):
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
    upload = Upload(calendar, keys, phases, offsets, steps, values, {}, {}, growth.COLUMNS, Audit())
    return store(session, dataset.name, upload, "append")


def _refuse(rows: Any, code: str, says: str, field: str) -> None:
    listed = rows[:MAX_LISTED].tolist()
    found = [Complaint(code, f"This point {says}", pointer=f"/points/{row}/{field}") for row in listed]
    if found:
        raise Invalid(f"{len(rows)} point(s): {field} {says}.", errors=found, error_count=len(rows))
