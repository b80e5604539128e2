"""Whose turn it is: the number by which the queue serves a job, the smallest first, and who has to wait although it is
theirs.

Numbers are start tags of fair queueing (Goyal, Vin and Cheng, 1996) for jobs of one size. A workspace's jobs count up,
so that among themselves they are served as they came; the first of a workspace that has none waiting takes the number
that is served just now. So hundreds of jobs of one workspace let the first of another pass, then alternate with its
others. Interactive work and batch work count apart, all of the first before all of the second.

Whose turn it is concerns all workspaces, so this asks the table itself: the session would add its own to each query.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, cast

from sqlalchemy import ColumnElement, Select, Table, func, literal_column, select, text, tuple_, update
from sqlalchemy.orm import Session

from app.db.tables import JobRow

Priority = Literal["interactive", "batch"]
INTERACTIVE: Priority = "interactive"  # somebody waits for it
BATCH: Priority = "batch"  # nobody does: a schedule's jobs, the trials of a search
FIRST: dict[Priority, int] = {INTERACTIVE: 100, BATCH: 1 << 30}
LAST: dict[Priority, int] = {INTERACTIVE: (1 << 30) - 1, BATCH: (1 << 31) - 1}
WAITS_FOR_OTHERS = ("tune",)  # kinds that take no room: they would keep their own children from it
LOCK = 7_241_002  # with a workspace's name: serialises who may begin there, on PostgreSQL

JOBS = cast(Table, JobRow.__table__)
# As literals, not parameters: a planner has to see them to know that a partial index will do.
PENDING = JOBS.c.state == literal_column("'pending'")
RUNNING = JOBS.c.state == literal_column("'running'")
PARKED = JOBS.c.parked == literal_column("true")
AT_WORK = select(func.count()).select_from(JOBS).where(RUNNING)


@dataclass(frozen=True)
class Standing:
    """Where a pending job stands: its place among all that wait, 1 is next; how many run; whether its workspace has as
    many running as it may."""

    place: int
    running: int
    parked: bool

    @property
    def message(self) -> str:
        said = f"{_ordinal(self.place)} in the queue, {self.running} running"
        return f"{said}; waits until one of its workspace ends" if self.parked else said


def class_of(number: int) -> Priority:
    """What a number says of its job."""
    return BATCH if number >= FIRST[BATCH] else INTERACTIVE


def number(session: Session, workspace: str, priority: Priority) -> int:
    """The number of a job that this workspace asks for now."""
    of_class = PENDING & JOBS.c.priority.between(FIRST[priority], LAST[priority])
    # Not `max`: while PostgreSQL has no statistics it would read all that wait, 2 ms for 10,000.
    mine = select(JOBS.c.priority).where(of_class, JOBS.c.workspace == workspace)
    last = session.scalar(mine.order_by(JOBS.c.priority.desc()).limit(1))
    if last is not None:
        return min(last + 1, LAST[priority])
    # Those that are parked were passed long ago: a newcomer with their number would overtake everybody else. Where
    # nobody else waits, one with a lower number would pass them again and again, as soon as they are released.
    lowest = select(func.min(JOBS.c.priority))
    served = session.scalar(lowest.where(of_class, ~PARKED)) or session.scalar(lowest.where(of_class))
    return FIRST[priority] if served is None else served


def waiting(session: Session, workspace: str) -> int:
    """How many jobs of a workspace wait."""
    mine = select(func.count()).select_from(JOBS).where(PENDING, JOBS.c.workspace == workspace)
    return session.scalar(mine) or 0


def standings(session: Session, jobs: Collection[JobRow]) -> dict[str, Standing]:
    """Where each of these jobs stands; those that do not wait are left out."""
    pending = {job.id: job for job in jobs if job.state == "pending"}
    if not pending:
        return {}
    running = session.scalar(AT_WORK) or 0
    if len(pending) == 1:
        job = next(iter(pending.values()))
        before = select(func.count()).select_from(JOBS).where(PENDING, _up_to(job))
        places = {job.id: session.scalar(before) or 1}
    else:
        order = func.row_number().over(order_by=(JOBS.c.priority, JOBS.c.id)).label("place")
        numbered = select(JOBS.c.id, order).where(PENDING).subquery()
        found = session.execute(select(numbered.c.id, numbered.c.place).where(numbered.c.id.in_(pending)))
        places = {row.id: row.place for row in found}
    return {job.id: Standing(places[job.id], running, job.parked) for job in pending.values() if job.id in places}


def stood(session: Session, job: JobRow) -> tuple[Standing, int]:
    """Where a job that was written just now stands, and how many of its workspace wait, itself among them. All that
    waits is gone through once for both: that is what asking for a job costs where ten thousand wait."""
    mine, before = (func.count().filter(which) for which in (JOBS.c.workspace == job.workspace, _up_to(job)))
    row = session.execute(select(mine, before, AT_WORK.scalar_subquery()).where(PENDING)).one()
    return Standing(row[1], row[2], job.parked), row[0]


def _up_to(job: JobRow) -> ColumnElement[bool]:
    return tuple_(JOBS.c.priority, JOBS.c.id) <= (job.priority, job.id)


# ---------------------------------------------------------------- how many of a workspace run at once


def park(session: Session, job_id: str, enqueued: int, most: int) -> bool:
    """Put a job aside that is about to begin while `most` of its workspace run, or wait before it for one to end; True
    if so. It keeps its number. Needs a write session."""
    mine = select(JOBS).where(JOBS.c.id == job_id, JOBS.c.enqueued == enqueued, PENDING)
    job = session.execute(mine).first()
    if job is None or job.kind in WAITS_FOR_OTHERS:  # one that runs goes on: it has its room
        return False
    _alone(session, job.workspace)
    earlier = tuple_(JOBS.c.priority, JOBS.c.id) < (job.priority, job.id)
    before = select(func.count()).select_from(JOBS)
    aside = session.scalar(before.where(PENDING, PARKED, JOBS.c.workspace == job.workspace, earlier)) or 0
    if _running(session, job.workspace) + aside < most:
        return False
    session.execute(update(JOBS).where(JOBS.c.id == job_id, PENDING).values(parked=True))
    session.expire_all()
    return True


def allowed(session: Session, workspace: str, most: int | None) -> list[str]:
    """The jobs of a workspace that were put aside and may begin now, in their order. Needs a write session."""
    _alone(session, workspace)
    aside = _aside(workspace).order_by(JOBS.c.priority, JOBS.c.id)
    if most is not None:
        aside = aside.limit(max(0, most - _running(session, workspace)))
    return [row.id for row in session.execute(aside)]


def workspaces_parked(session: Session) -> list[str]:
    """The workspaces that have jobs put aside."""
    return list(session.scalars(select(JOBS.c.workspace).where(PENDING, PARKED).distinct()))


def _aside(workspace: str) -> Select[tuple[str]]:
    return select(JOBS.c.id).where(PENDING, PARKED, JOBS.c.workspace == workspace)


def _running(session: Session, workspace: str) -> int:
    # A forecast without a worker waits for its shards, which need the room.
    mine = RUNNING & (JOBS.c.workspace == workspace) & JOBS.c.kind.not_in(WAITS_FOR_OTHERS) & JOBS.c.worker.is_not(None)
    return session.scalar(select(func.count()).select_from(JOBS).where(mine)) or 0


def _alone(session: Session, workspace: str) -> None:
    """Wait for others that count this workspace's jobs. On SQLite whoever writes is alone anyway."""
    if session.get_bind().dialect.name == "postgresql":
        key = {"lock": LOCK, "name": workspace}
        session.execute(text("select pg_advisory_xact_lock(:lock, hashtext(:name))"), key)


def _ordinal(place: int) -> str:
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"
