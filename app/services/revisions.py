"""Revisions: the one write transaction that turns an upload into the next immutable content of a dataset."""

from dataclasses import dataclass

import numpy as np
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from app.db import bulk
from app.db.tables import ColumnRow, DatasetRow, RevisionRow, SeriesRow, StaticRow, utc_now
from app.errors import Complaint, Conflict, Invalid, NotFound
from app.services import segments
from app.services.changes import Change, change_of, head_of, live, stored_series
from app.services.growth import Head, ends_of, growth_by, keep
from app.services.ingest.coming import Coming
from app.services.ingest.upload import Upload
from app.services.segments import TARGET
from app.services.sheets import Limits, Mode
from app.services.sums import Total, moment, total_of
from models import Calendar

LIMITS = Limits()
FEW = 1000  # rows of an upload that is worked out while nobody else can write: a draft of it would take as long again
NEW_SERIES = {"dataset_id": "int8", "key": "varchar", "phase": "int8", "revision": "int4"}
# Built once: for one row, building a statement takes half as long as asking it.
_NAMED = select(DatasetRow).where(DatasetRow.name == bindparam("name"))
_LOCKED = _NAMED.with_for_update()
_SERIES = SeriesRow.__table__.c
_MADE = select(_SERIES.key, _SERIES.id).where(
    _SERIES.dataset_id == bindparam("dataset"), _SERIES.revision == bindparam("revision")
)
AFRESH = {"populate_existing": True}  # what the session already holds may be from before the lock


@dataclass(frozen=True)
class Outcome:
    """What became of an upload: its dataset, its revision (the head, when it changed nothing: `created` is False) and
    row counts."""

    dataset: DatasetRow
    revision: RevisionRow
    created: bool
    inserted: int
    updated: int
    unchanged: int


def find(session: Session, name: str) -> DatasetRow | None:
    """The dataset of this name, or None."""
    return session.scalars(_NAMED, {"name": name}).one_or_none()


def revision_of(session: Session, dataset: DatasetRow, number: int | None = None) -> RevisionRow:
    """Revision `number` of a dataset, or its head. Raises Conflict when it is empty, Invalid on an unknown number."""
    wanted = dataset.head if number is None else number
    row = session.scalars(
        select(RevisionRow).where(RevisionRow.dataset_id == dataset.id, RevisionRow.number == wanted)
    ).one_or_none()
    if row is None:
        if not dataset.head:
            raise Conflict(f"Dataset {dataset.name!r} is empty: upload something first.", code="dataset-empty")
        raise Invalid(
            f"revision: dataset {dataset.name!r} has 1 to {dataset.head}, got {wanted}.",
            code="no-such-revision",
            errors=[Complaint("no-such-revision", f"There is no revision {wanted}", pointer="/revision")],
        )
    return row


def draft(session: Session, name: str, upload: Upload | Coming, mode: Mode, limits: Limits = LIMITS) -> Change | None:
    """What the upload would change now, worked out and compressed with no lock held; of one that is still read, a part
    after the other.

    `store` takes it over when nothing has happened in between. None for few rows, which need none. Raises as `store`,
    and as `upload.parts`.
    """
    if isinstance(upload, Upload) and mode != "replace" and len(upload.steps) <= FEW:
        return None
    dataset = find(session, name) or DatasetRow(id=0, name=name, head=0)  # one that is still to be made
    return change_of(session, dataset, upload, mode, limits)


def store(
    session: Session, name: str, upload: Upload, mode: Mode, *, draft: Change | None = None, limits: Limits = LIMITS
) -> Outcome:
    """Make the upload the dataset's next revision, and the dataset when there is none; needs a write session.

    Raises Conflict when the dataset has another calendar, when `append` would change a stored value or when a column
    or phase is not what it was; Invalid when a series would be nearly all gap; TooLarge past `limits.series`.
    """
    dataset = _claimed(session, name, upload.calendar)
    _check_calendar(dataset, upload.calendar)
    if draft is None and mode == "append" and (outcome := _grown(session, dataset, upload, limits)) is not None:
        return outcome
    if draft is None or not _holds(session, dataset, draft):
        draft = change_of(session, dataset, upload, mode, limits)
    counts = (draft.inserted, draft.updated, draft.unchanged)
    if draft.is_empty:
        return Outcome(dataset, revision_of(session, dataset), False, *counts)
    number = dataset.head + 1
    ids = _series_ids(session, dataset, upload, draft, number)
    segments.keep(session, number, draft.pieces, ids)
    gone = [segments.empty_base(place, column) for place, (_, column) in enumerate(draft.gone)]
    segments.keep(session, number, segments.packed(gone), [series_id for series_id, _ in draft.gone])
    _keep_columns(session, dataset.id, draft)
    _keep_statics(session, draft, ids, number)
    total = draft.total
    if not total.is_exact:
        total = counted(session, dataset, upload.calendar, number)
    row = RevisionRow(
        dataset_id=dataset.id,
        number=number,
        mode=mode,
        digest=draft.digest,
        series=total.series,
        points=total.points,
        start=moment(total.start),
        end=moment(total.end),
        inserted=draft.inserted,
        updated=draft.updated,
        unchanged=draft.unchanged,
        columns={**upload.columns, "live": draft.live},
        audit=upload.audit.document(),
    )
    session.add(row)
    dataset.frequency, dataset.head = upload.calendar.frequency.name, number
    session.flush()
    return Outcome(dataset, row, True, *counts)


def _grown(session: Session, dataset: DatasetRow, upload: Upload, limits: Limits) -> Outcome | None:
    """The same on the short way of points that go on where series end; None where it is too short."""
    at = head_of(session, dataset) if len(upload.steps) <= FEW else None
    if at is None:
        return None
    head = Head(dataset.id, dataset.head, at.digest, total_of(at), live(at), upload.calendar)
    growth = growth_by(session, head, ends_of(session, dataset.id, head.number, upload.keys), upload, limits)
    if growth is None:
        return None
    row = RevisionRow(**keep(session, head, growth, upload.columns, upload.audit))
    set_committed_value(dataset, "head", row.number)
    return Outcome(dataset, row, True, growth.points, 0, 0)


def locked(session: Session, dataset: DatasetRow) -> DatasetRow:
    """The dataset as it is now; nobody else changes it until this transaction ends. Raises NotFound when it is gone."""
    wanted = select(DatasetRow).where(DatasetRow.id == dataset.id).with_for_update()
    row = session.scalars(wanted, execution_options=AFRESH).one_or_none()
    if row is None:
        raise NotFound(f"There is no dataset {dataset.name!r} any more.", code="no-such-dataset")
    return row


def _claimed(session: Session, name: str, calendar: Calendar) -> DatasetRow:
    """The dataset's row, made when missing, locked."""
    make = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[session.get_bind().dialect.name]
    while (row := session.scalars(_LOCKED, {"name": name}, execution_options=AFRESH).one_or_none()) is None:
        values = {
            "workspace": session.info["workspace"],
            "name": name,
            "frequency": calendar.frequency.name,
            "time_zone": calendar.time_zone,
            "head": 0,
            "description": "",
            "created_at": utc_now(),
        }
        # Another upload may be making the same dataset: then this waits until it is there.
        session.execute(make(DatasetRow).values(values).on_conflict_do_nothing(index_elements=["workspace", "name"]))
    return row


def _check_calendar(dataset: DatasetRow, calendar: Calendar) -> None:
    here, sent = (dataset.frequency, dataset.time_zone), (calendar.frequency.name, calendar.time_zone)
    if here[1] != sent[1] or here[0] not in (None, sent[0]):
        raise Conflict(
            f"Dataset {dataset.name!r} has frequency {here[0] or 'to be decided'} in {here[1]}; the upload was read as "
            f"{sent[0]} in {sent[1]}.",
            code="calendar-differs",
        )


def _holds(session: Session, dataset: DatasetRow, draft: Change) -> bool:
    """Whether the dataset is as the draft found it: the head moves with every upload, the count with an erasure."""
    if draft.head != dataset.head or (dataset.head and draft.dataset_id != dataset.id):
        return False
    return draft.stored == stored_series(session, dataset.id)


def _series_ids(session: Session, dataset: DatasetRow, upload: Upload, draft: Change, number: int) -> list[int]:
    """The row ids of the upload's series; rows are made for new ones."""
    ids: list[int] = draft.ids.tolist()
    new = [place for place, series_id in enumerate(ids) if series_id < 0]
    if new:
        phases: list[int] = upload.phases.tolist()
        owner, keys = dataset.id, upload.keys
        rows = ((owner, keys[place], phases[place], number) for place in new)
        bulk.insert(session, "series", NEW_SERIES, rows)
        # Past the session, which takes longer over ten thousand rows than inserting them does.
        made = session.connection().execute(_MADE, {"dataset": dataset.id, "revision": number})
        id_of: dict[str, int] = {}
        for key, series_id in made:
            id_of[key] = series_id
        for place in new:
            ids[place] = id_of[keys[place]]
    return ids


def _keep_columns(session: Session, dataset_id: int, draft: Change) -> None:
    for column in draft.columns.values():
        if column.is_new:
            made = ColumnRow(
                dataset_id=dataset_id,
                name=column.name,
                role=column.role,
                kind=column.kind,
                categories=list(column.categories),
            )
            session.add(made)
        elif column.added:
            session.execute(
                update(ColumnRow)
                .where(ColumnRow.dataset_id == dataset_id, ColumnRow.name == column.name)
                .values(categories=list(column.categories))
            )


def _keep_statics(session: Session, draft: Change, ids: list[int], number: int) -> None:
    values = [(ids[series], column, value) for series, column, value in draft.statics]
    values += [(series_id, column, None) for series_id, column in draft.gone_statics]
    rows = [
        {"series_id": series_id, "column": column, "revision": number, "value": value}
        for series_id, column, value in values
    ]
    if rows:
        session.execute(insert(StaticRow), rows)


# ---------------------------------------------------------------- count anew


def counted(session: Session, dataset: DatasetRow, calendar: Calendar, number: int) -> Total:
    """The total of a dataset at a revision by reading all of it: only after an outermost value went away."""
    series = points = 0
    firsts: list[tuple[int, int]] = []  # step, phase
    lasts: list[tuple[int, int]] = []
    rows = session.execute(
        select(SeriesRow.id, SeriesRow.phase).where(SeriesRow.dataset_id == dataset.id).order_by(SeriesRow.id)
    ).all()
    phases = {row.id: row.phase for row in rows}
    found = segments.fetch(session, list(phases), number, [TARGET])
    for series_id, _, painted in segments.paint_all(found):
        series += bool(len(painted.values))
        present = np.flatnonzero(~np.isnan(painted.values))
        if len(present):
            points += len(present)
            firsts.append((painted.start + int(present[0]), phases[series_id]))
            lasts.append((painted.start + int(present[-1]), phases[series_id]))
    if not points:
        return Total(series)
    first, last = (calendar.times(*np.array(ends, dtype=np.int64).T) for ends in (firsts, lasts))
    return Total(series, points, int(first.min()), int(last.max()))
