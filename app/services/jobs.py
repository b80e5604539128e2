"""Jobs: a row is the truth about a piece of work, the engine behind it decides when a worker runs it.

The engine (DBOS) is seen here and in `app.worker` only. Row and queue entry are one transaction. The engine's workflow
id is `{job}:{n}`: a retry, or a repair, takes the next `n`.
"""

import datetime as dt
import functools
import logging
import os
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db.session import REQUEST_WAITS_S, Database
from app.db.tables import JobEventRow, JobRow, WorkerRow, utc_now
from app.errors import Conflict, NotFound, QueueFull
from app.services import queueing
from app.services.queueing import INTERACTIVE, Priority, Standing

log = logging.getLogger("gatecast.jobs")

APPLICATION = "gatecast"  # owner of our workflows inside the engine's tables
QUEUE = "work"
WORKFLOW = "run_job"
STILL_OPEN = ("ENQUEUED", "DELAYED", "PENDING")  # the engine's words for work that is not over
ENDED = ("succeeded", "failed", "cancelled")
ACTIVE = ("pending", "running")
DEAD_AFTER = 15.0  # seconds without a beat after which a worker counts as dead
MAX_EVENTS = 10_000  # of one job
KEPT_FREE = 100  # of those, for log lines and `done`
ASKED = 1000  # names in one question; a database takes only so many
RETRY_AFTER = {"Retry-After": "10"}


class Engine:
    """The API's side of the job engine. Opens no connection before it is used; safe to share between threads."""

    def __init__(self, url: str, beside: Database | None = None) -> None:
        """On PostgreSQL it shares the connections of the database `beside`, or has its own."""
        self._own = None if beside or url.startswith("sqlite") else Database(url, REQUEST_WAITS_S)
        self._url, self._shared = url, beside or self._own

    @functools.cached_property
    def client(self) -> Any:
        """Made on first use: it takes 8 MB and a tenth of a second, which a server that only forecasts can spare."""
        from dbos import DBOSClient, DBOSPortableJSONSerializer

        # The engine's own default serialiser is pickle: whoever could write the database could run code in the workers.
        return DBOSClient(
            system_database_url=self._url,
            system_database_engine=None if self._shared is None or self._shared.is_sqlite else self._shared.engine,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,
        )

    def enqueue(self, session: Session, job: JobRow) -> None:
        """Queue the job inside the session's transaction: row and queue entry are kept or dropped together."""
        self.client.enqueue_in_transaction(
            session.connection(),
            {
                "workflow_name": WORKFLOW,
                "queue_name": QUEUE,
                "workflow_id": workflow_id(job.id, job.enqueued),
                "priority": job.priority,
            },
            job.id,
            job.enqueued,
        )

    def forget(self, name: str) -> None:
        """Take an ended job out of the queue by its `workflow_id`, after the commit that ended it. Best effort: a
        worker that finds the row ended drops the job anyway, but only one at each poll."""
        try:
            self.client.cancel_workflow(name)
        except SQLAlchemyError:
            log.warning("%s is cancelled but still queued; a worker will drop it", name)

    def hand_on(self, living: Collection[str]) -> list[str]:
        """Put the work of workers that are not among the living back into the queue; returns its names. Only one worker
        may do this at a time: whatever it thinks dead is started again."""
        found = self.client.list_workflows(status="PENDING", name=WORKFLOW, load_input=False, load_output=False)
        orphans = [one.workflow_id for one in found if one.executor_id not in living]
        for name in orphans:
            self.client.resume_workflow(name, queue_name=QUEUE)
        return orphans

    def take_up(self, name: str, at_work: Collection[str], idle: Collection[str]) -> set[str]:
        """What the engine says the worker `name` is at, though it is not: the claim was committed and the answer lost.
        Gives those not `at_work`; the ones that were `idle` at the last look too are put back into the queue."""
        found = self.client.list_workflows(
            status="PENDING", executor_id=name, name=WORKFLOW, load_input=False, load_output=False
        )
        seen = {one.workflow_id for one in found} - set(at_work)
        for one in seen.intersection(idle):
            self.client.resume_workflow(one, queue_name=QUEUE)
        return seen.difference(idle)

    def lost(self, active: Mapping[str, int]) -> dict[str, int]:
        """Which of these queueings (job -> n) the engine does not know or counts as ended."""
        names, lost = {workflow_id(job_id, n): job_id for job_id, n in active.items()}, dict(active)
        for place in range(0, len(names), ASKED):
            asked = list(names)[place : place + ASKED]
            found = self.client.list_workflows(workflow_ids=asked, load_input=False, load_output=False)
            for one in found:
                if one.status in STILL_OPEN:
                    lost.pop(names[one.workflow_id], None)
        return lost

    def tidy(self, before: dt.datetime) -> int:
        """Drop the engine's records of work that ended before this time, which it would keep for ever; gives their
        number. The jobs' rows stay."""
        dropped = 0
        while True:
            found = self.client.list_workflows(
                name=WORKFLOW, completed_before=before.isoformat(), limit=1000, load_input=False, load_output=False
            )
            ended = [one.workflow_id for one in found if one.status not in STILL_OPEN]
            if ended:
                self.client.delete_workflows(ended)
            dropped += len(ended)
            if not ended or len(found) < 1000:
                return dropped

    def close(self) -> None:
        if "client" in vars(self):
            self.client.destroy()
        if self._own is not None:
            self._own.close()


def engine_of(session: Session) -> Engine:
    """The engine beside the session's database: for those who queue a job that they were not handed the engine for."""
    bind = session.get_bind()
    return _engine_at(bind.engine.url.render_as_string(hide_password=False))


@functools.cache
def _engine_at(url: str) -> Engine:
    engine = Engine(url)
    assert engine.client is not None  # made now: mostly nobody is in a transaction yet
    return engine


def workflow_id(job_id: str, n: int) -> str:
    """The engine's name of the n-th queueing of a job."""
    return f"{job_id}:{n}"


def new_id() -> str:
    """`job_` and a UUIDv7 (RFC 9562, section 5.7; the 12 bits after the version hold the fraction of the millisecond,
    section 6.2 method 3), so that ids sort by their time of birth."""
    nanoseconds = time.time_ns()
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 7 << 76
    value |= (rest * 4096 // 1_000_000) << 64
    value |= 2 << 62
    value |= secrets.randbits(62)
    digits = f"{value:032x}"
    return f"job_{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


# ---------------------------------------------------------------- what a client may do


@dataclass(frozen=True)
class NewJob:
    """A piece of work to queue. `spec` is JSON-ready and complete: names resolved, revision and version pinned. What
    nobody waits for is `queueing.BATCH`."""

    kind: str
    spec: dict[str, Any]
    message: str = "waiting for a worker"
    priority: Priority = INTERACTIVE


def submit(session: Session, engine: Engine, new: NewJob, max_queue: int) -> tuple[JobRow, Standing]:
    """Write and queue a job in the session's transaction; gives its place in the queue, too. Raises QueueFull when
    `max_queue` jobs wait already: the session is not to be committed then."""
    number = queueing.number(session, session.info["workspace"], new.priority)
    job = JobRow(id=new_id(), kind=new.kind, spec=new.spec, priority=number, enqueued=1)
    session.add(job)
    session.flush()
    standing, waiting = queueing.stood(session, job)
    _refuse_when_full(waiting - 1, max_queue)
    session.add(JobEventRow(job_id=job.id, seq=1, kind="log", data={"level": "info", "message": new.message}))
    session.flush()
    engine.enqueue(session, job)
    return job, standing


def get(session: Session, job_id: str) -> JobRow:
    """Raises NotFound."""
    job = session.scalar(select(JobRow).where(JobRow.id == job_id))
    if job is None:
        raise NotFound(f"There is no job {job_id!r}.")
    return job


def list_page(
    session: Session, state: str | None, kind: str | None, before: str | None, size: int
) -> tuple[Sequence[JobRow], str | None]:
    """One page of jobs, newest first, and the id to go on before (None: this was the last page). What other jobs
    consist of is left out unless its kind is asked for."""
    query = select(JobRow).order_by(JobRow.id.desc()).limit(size + 1)
    if state is not None:
        query = query.where(JobRow.state == state)
    query = query.where(JobRow.kind.not_in(("trial", "shard")) if kind is None else JobRow.kind == kind)
    if before is not None:
        query = query.where(JobRow.id < before)
    rows = session.scalars(query).all()
    return rows[:size], rows[size - 1].id if len(rows) > size else None


def cancel(session: Session, job_id: str) -> JobRow:
    """End a pending or running job; its worker stops at its next write. A job cancelled before is answered as it is.
    Raises NotFound, and Conflict when the job ended otherwise. The caller takes a job that no worker
    has out of the queue by `Engine.forget`, after the commit."""
    changed = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state.in_(ACTIVE))
        .values(state="cancelled", finished_at=utc_now())
        .returning(JobRow.id)
    ).first()
    session.expire_all()
    job = get(session, job_id)
    if changed:
        append_event(session, job.id, "done", {"state": "cancelled"})
    elif job.state != "cancelled":
        raise Conflict(f"Job {job_id!r} has already {job.state}; only a pending or running job can be cancelled.")
    return job


def ended(session: Session, job_id: str) -> JobRow:
    """A job that has ended. Raises NotFound, and Conflict while it waits or runs."""
    job = get(session, job_id)
    if job.state not in ENDED:
        raise Conflict(f"Job {job_id!r} is {job.state}: cancel it first, or wait for its end.")
    return job


def remove(session: Session, job_id: str) -> None:
    """Delete a job that has ended, with its events and the backtest it was; a version that it made stays. Raises
    NotFound, and Conflict while it waits or runs."""
    job = ended(session, job_id)
    gone = delete(JobRow).where(JobRow.id == job_id, JobRow.state.in_(ENDED)).returning(JobRow.id)
    if session.execute(gone).first() is None:
        raise Conflict(f"Job {job.id!r} is tried again just now.")


def retry(session: Session, engine: Engine, job_id: str, max_queue: int | None) -> JobRow:
    """Queue a failed or cancelled job again under its own id; it goes on from its last checkpoint. `max_queue` None:
    however many wait. Raises NotFound, Conflict from any other state, QueueFull."""
    if max_queue is not None:
        _refuse_when_full(queueing.waiting(session, session.info["workspace"]), max_queue)
    before = get(session, job_id)
    changed = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state.in_(("failed", "cancelled")))
        .values(
            state="pending",
            priority=queueing.number(session, before.workspace, queueing.class_of(before.priority)),
            parked=False,
            enqueued=JobRow.enqueued + 1,
            tries=0,
            progress=None,
            error=None,
            started_at=None,
            finished_at=None,
            worker=None,
            device=None,
        )
        .returning(JobRow.id)
    ).first()
    session.expire_all()
    job = get(session, job_id)
    if not changed:
        raise Conflict(f"Job {job_id!r} is {job.state}; only a failed or cancelled job can be tried again.")
    # `done` is the last event of a stream; the one of the attempt before is so no more.
    session.execute(
        update(JobEventRow)
        .where(JobEventRow.job_id == job_id, JobEventRow.kind == "done")
        .values(kind="log", data={"level": "info", "message": "had ended before"})
    )
    append_event(session, job.id, "log", {"level": "info", "message": "asked to try again"})
    engine.enqueue(session, job)
    return job


def _refuse_when_full(waiting: int, max_queue: int) -> None:
    if waiting >= max_queue:
        raise QueueFull(
            f"{waiting} jobs are waiting and this server lets {max_queue} wait; try again when some have ended.",
            headers=RETRY_AFTER,
        )


# ---------------------------------------------------------------- events


def append_event(session: Session, job_id: str, kind: str, data: dict[str, Any]) -> int:
    """Add an event and return its `seq`; 0 when the job has as many as it may have (`progress` and `metric` leave room
    for the others). The caller has written the job's row in this transaction, so nobody else takes the same `seq`."""
    last = session.scalar(select(func.max(JobEventRow.seq)).where(JobEventRow.job_id == job_id)) or 0
    room = MAX_EVENTS - {"progress": KEPT_FREE, "metric": KEPT_FREE, "log": 10}.get(kind, 0)
    if last >= room:
        return 0
    session.add(JobEventRow(job_id=job_id, seq=last + 1, kind=kind, data=data))
    session.flush()
    return last + 1


def events(session: Session, job_id: str, after: int, size: int = 500) -> tuple[Sequence[JobEventRow], bool]:
    """The next events of a job after `seq` `after`, and whether these were the last ones of a job that has ended."""
    # State first: the commit that ends a job also writes its last event.
    ended = session.scalar(select(JobRow.state).where(JobRow.id == job_id)) in (*ENDED, None)
    rows = session.scalars(
        select(JobEventRow)
        .where(JobEventRow.job_id == job_id, JobEventRow.seq > after)
        .order_by(JobEventRow.seq)
        .limit(size)
    ).all()
    return rows, ended and len(rows) < size


# ---------------------------------------------------------------- workers, and what `/v1/system` shows


def clock(session: Session) -> dt.datetime:
    """Now, by the database's clock where several machines share it."""
    if session.get_bind().dialect.name == "postgresql":
        return session.scalar(text("select clock_timestamp()")) or utc_now()
    return utc_now()


def beat(session: Session, name: str, devices: list[dict[str, Any]], slots: list[str]) -> None:
    """Say that a worker is alive; its row is written when there is none."""
    now = clock(session)
    values = {"beat_at": now, "devices": devices, "slots": slots}
    changed = session.execute(update(WorkerRow).where(WorkerRow.id == name).values(values).returning(WorkerRow.id))
    if changed.first() is None:
        host = name.split("-", maxsplit=1)[0].rpartition(".")[0]
        session.add(WorkerRow(id=name, host=host, pid=os.getpid(), started_at=now, **values))


def ages(session: Session) -> dict[str, float]:
    """Seconds since each worker's last beat."""
    now = clock(session)
    return {row.id: (now - row.beat_at).total_seconds() for row in session.scalars(select(WorkerRow))}


def bury(session: Session, names: Collection[str]) -> None:
    """Delete the rows of workers that are gone."""
    session.execute(delete(WorkerRow).where(WorkerRow.id.in_(names)))


def workers(session: Session) -> list[dict[str, Any]]:
    """The living workers, oldest first: id, host, devices (name, kind, memory), slots, start and last beat, and which
    of the workspace's jobs run in which slot."""
    earliest = clock(session) - dt.timedelta(seconds=DEAD_AFTER)
    rows = session.scalars(select(WorkerRow).where(WorkerRow.beat_at > earliest).order_by(WorkerRow.started_at))
    running: dict[str | None, list[dict[str, Any]]] = {}
    at_work = select(JobRow.worker, JobRow.slot, JobRow.id, JobRow.kind).where(queueing.RUNNING).order_by(JobRow.slot)
    for worker, slot, job, kind in session.execute(at_work):
        running.setdefault(worker, []).append({"slot": slot, "job": job, "kind": kind})
    return [
        {
            "id": row.id,
            "running": running.get(row.id, []),
            "host": row.host,
            "devices": row.devices,
            "slots": row.slots,
            "started_at": row.started_at,
            "beat_at": row.beat_at,
        }
        for row in rows
    ]


def places(session: Session) -> int:
    """How many jobs can run at once: the slots of the living workers, whatever else they have to do; one at least."""
    return max(1, sum(len(worker["slots"]) for worker in workers(session)))


def queue_counts(session: Session) -> dict[str, int]:
    """How many jobs are pending and running."""
    query = select(JobRow.state, func.count()).where(JobRow.state.in_(ACTIVE)).group_by(JobRow.state)
    counts: dict[str, int] = dict.fromkeys(ACTIVE, 0)
    for state, count in session.execute(query):
        counts[state] = count
    return counts
