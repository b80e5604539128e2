"""Schedules: rows that say which job is to be asked for, and when next. A row is fired by a worker (see `firing`): the
move of its `next_at` and the job are one transaction, so that however many look, one of them asks for the job."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.tables import DatasetRow, ScheduleRow
from app.errors import Conflict, NotFound
from app.services import cron
from app.services.jobs import clock

BOTH = select(ScheduleRow, DatasetRow).join(DatasetRow, DatasetRow.id == ScheduleRow.dataset_id)


def get(session: Session, name: str) -> tuple[ScheduleRow, DatasetRow]:
    """The schedule of this name, and its dataset. Raises NotFound."""
    found = session.execute(BOTH.where(ScheduleRow.name == name)).first()
    if found is None:
        raise NotFound(f"There is no schedule {name!r}.")
    return found[0], found[1]


def list_page(
    session: Session, after: str | None, size: int
) -> tuple[Sequence[tuple[ScheduleRow, DatasetRow]], str | None]:
    """Schedules by name, those after `after`; and the name to go on from, None on the last page."""
    wanted = BOTH.order_by(ScheduleRow.name).limit(size + 1)
    found = session.execute(wanted if after is None else wanted.where(ScheduleRow.name > after)).all()
    rows = [(row[0], row[1]) for row in found]
    return rows[:size], rows[size - 1][0].name if len(rows) > size else None


def create(
    session: Session,
    name: str,
    line: str,
    dataset: DatasetRow,
    job: Mapping[str, Any],
    *,
    now: dt.datetime | None = None,
) -> ScheduleRow:
    """A schedule for `job`, what a client would ask for without its dataset. Raises Invalid for a cron line that is
    none, Conflict when the name is taken."""
    cron.check(line)
    next_at = cron.following(line, dataset.time_zone, now or clock(session))
    row = ScheduleRow(name=name, cron=line, dataset_id=dataset.id, job=dict(job), next_at=next_at)
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise Conflict(f"There is a schedule {name!r} already.") from error
    return row


def change(
    session: Session, name: str, paused: bool | None, line: str | None, *, now: dt.datetime | None = None
) -> tuple[ScheduleRow, DatasetRow]:
    """Pause a schedule, let it go on, give it another cron line. What it missed while it was paused is not made up for.
    Raises NotFound, Invalid."""
    row, dataset = get(session, name)
    if line is not None:
        cron.check(line)
        row.cron = line
    rests = row.next_at is None if paused is None else paused
    if rests:
        row.next_at = None
    elif row.next_at is None or line is not None:
        row.next_at = cron.following(row.cron, dataset.time_zone, now or clock(session))
    session.flush()
    return row, dataset


def remove(session: Session, name: str) -> None:
    """Delete a schedule; jobs that it has asked for stay. Raises NotFound."""
    row, _ = get(session, name)
    session.execute(delete(ScheduleRow).where(ScheduleRow.id == row.id))


def due(session: Session, now: dt.datetime | None = None) -> list[tuple[int, str]]:
    """(id, workspace) of the schedules whose time has come, the longest due first. Takes a session of any workspace."""
    wanted = select(ScheduleRow.id, ScheduleRow.workspace).where(ScheduleRow.next_at <= (now or clock(session)))
    return [(row.id, row.workspace) for row in session.execute(wanted.order_by(ScheduleRow.next_at))]


def claim(session: Session, schedule_id: int, now: dt.datetime) -> tuple[ScheduleRow, DatasetRow] | None:
    """Move a due schedule on to its first time after `now`, however many it has missed; None when another worker has
    done so, or it is due no more. Needs a write session."""
    found = session.execute(BOTH.where(ScheduleRow.id == schedule_id, ScheduleRow.next_at <= now)).first()
    if found is None:
        return None
    row, dataset = found
    following = cron.following(row.cron, dataset.time_zone, now)
    moved = session.execute(
        update(ScheduleRow)
        .where(ScheduleRow.id == schedule_id, ScheduleRow.next_at == row.next_at, ScheduleRow.cron == row.cron)
        .values(next_at=following, last_fired=now)
        .returning(ScheduleRow.id)
    ).first()
    if moved is None:
        return None
    session.expire(row)
    return row, dataset
