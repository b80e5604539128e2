"""Attempts: the worker's side of a job. Starting an attempt counts `attempt` up, and every later write names its
attempt and finds the row running, or changes nothing: a worker thought dead cannot disturb the one that took over.

Every function below takes a write session of any workspace (`EVERY_WORKSPACE`) and changes the job's row before it adds
events, which keeps `seq` in order.
"""

import datetime as dt
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, case, select, update
from sqlalchemy.orm import Session

from app.config import Settings
from app.db.session import AWAY, EVERY_WORKSPACE, Database
from app.db.tables import DatasetRow, JobRow, utc_now
from app.errors import AppError, Conflict
from app.services import children, datasets, queueing, shards
from app.services.jobs import ACTIVE, Engine, append_event

MAX_TRIES = 5  # attempts in a row that end without a new checkpoint and by the job's own fault
# What an attempt counts in the row's `tries`, by how it ended: by itself; with its worker, which a job may have taken
# along; killed by somebody while there was memory, which says nothing of the job. At WORN_OUT the job has failed.
OWN, LOST, KILLED = 4, 2, 1
WORN_OUT = MAX_TRIES * OWN
PATIENCE = 60.0  # seconds to wait for it before the attempt is given up

T = TypeVar("T")


class Fenced(Exception):
    """The job is no longer this attempt's: cancelled, or taken over. Nothing was written; the attempt has to stop."""


@dataclass(frozen=True)
class Attempt:
    """One try at a job, as the function that does the work sees it. `on_progress` takes a `models.Progress`."""

    database: Database
    settings: Settings
    job: str
    number: int
    kind: str
    workspace: str
    spec: Mapping[str, Any]
    device: str
    on_progress: Callable[[Any], None] = lambda _: None
    should_stop: Callable[[], bool] = lambda: False

    @property
    def name(self) -> str:
        """Names the version folder this attempt may publish."""
        return f"{self.job}-{self.number}"


@dataclass(frozen=True)
class Report:
    """Where an attempt is: `progress` and `metrics` of the row, the step of its newest checkpoint; whether to tell."""

    progress: dict[str, Any]
    metrics: dict[str, Any]
    checkpoint: int
    as_events: bool
    new_metrics: bool = False


def persist(
    database: Database,
    act: Callable[[Session], T],
    *,
    patience: float | None = PATIENCE,
    workspace: str = EVERY_WORKSPACE,
) -> T:
    """Do `act` in one write transaction, again and again while the database is away, for `patience` seconds (None: for
    ever). `act` may run although an earlier commit of it had arrived: it is fenced, or does no harm twice."""
    deadline = time.monotonic() + (float("inf") if patience is None else patience)
    while True:
        try:
            with database.write(workspace) as session:
                return act(session)
        except AWAY:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def begin(
    session: Session, job_id: str, enqueued: int, worker: str, slot: str, *, most: int | None = None
) -> int | None:
    """Take the job for a new attempt and return its number; None when there is nothing to do: the job has ended, this
    queueing is not its latest, `most` of its workspace run (then it is put aside for `release`), or it has used up its
    tries (then it fails here). `slot` is a device, or one of its slots, `cuda:0#1`."""
    if most is not None and queueing.park(session, job_id, enqueued, most):
        _log(session, job_id, "info", f"waits: of its workspace {most} run at once, not more")
        return None
    children.hold(session, job_id)  # for `fail` below: the row of the whole before that of a part, as everywhere
    device = slot.partition("#")[0]
    row = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.enqueued == enqueued, JobRow.state.in_(ACTIVE))
        .values(
            state="running",
            attempt=JobRow.attempt + 1,
            tries=JobRow.tries + LOST,
            worker=worker,
            device=device,
            slot=slot,
            parked=False,
            started_at=case((JobRow.started_at.is_(None), utc_now()), else_=JobRow.started_at),
        )
        .returning(JobRow.attempt, JobRow.tries, JobRow.kind)
    ).first()
    if row is None:
        return None
    number, tries, kind = row
    if tries - LOST >= WORN_OUT:
        fail(session, job_id, number, _worn_out("The worker was lost each time."))
        return None
    if kind not in children.STEPS:
        _log(session, job_id, "info", f"attempt {number} on {device}")
    return number


def load(session: Session, job_id: str, number: int) -> JobRow:
    """The job of this attempt. Raises Fenced when it is no longer this attempt's."""
    job = session.scalar(select(JobRow).where(*_fence(job_id, number)))
    if job is None:
        raise Fenced(f"{job_id} attempt {number}")
    return job


def kind_of(session: Session, job_id: str) -> str | None:
    """What kind of job it is; None when there is none."""
    return session.scalar(select(JobRow.kind).where(JobRow.id == job_id))


def pinned_dataset(session: Session, spec: Mapping[str, Any]) -> DatasetRow:
    """The dataset the job was asked for. Raises NotFound when it is gone, Conflict when another has its name by now."""
    dataset = datasets.get(session, spec["dataset"])
    if dataset.id != spec["dataset_id"]:
        raise Conflict(f"Dataset {spec['dataset']!r} was deleted and made anew after the job was asked for.")
    return dataset


def restart(session: Session, job_id: str, number: int) -> None:
    """Note that no checkpoint was found here: those of other machines or a lost folder do not count. Raises Fenced."""
    _write(session, job_id, number, checkpoint_step=0)


def report(session: Session, job_id: str, number: int, what: Report) -> int:
    """Write where the attempt is; returns the newest event's `seq` (0: none added). A new checkpoint forgives the tries
    before it. A shard's forecast shows it too. Raises Fenced."""
    shards.hold(session, job_id)
    # Later, not another: an attempt passes the checkpoints of finished parts again, and may die where the last one did.
    newer = JobRow.checkpoint_step < what.checkpoint
    values: dict[str, Any] = {
        "progress": what.progress,
        "checkpoint_step": case((newer, what.checkpoint), else_=JobRow.checkpoint_step),
        "tries": case((newer, 0), else_=JobRow.tries),
    }
    if what.new_metrics:
        values["metrics"] = what.metrics
    _write(session, job_id, number, **values)
    shards.told(session, job_id, what.progress)
    seq = 0
    if what.as_events:
        seq = append_event(session, job_id, "progress", what.progress)
        if what.new_metrics:
            seq = append_event(session, job_id, "metric", {"step": what.progress["step"], **what.metrics}) or seq
    return seq


def log(session: Session, job_id: str, number: int, messages: Sequence[str]) -> None:
    """Add lines to the job's events. Raises Fenced."""
    _write(session, job_id, number, attempt=JobRow.attempt)
    for message in messages:
        _log(session, job_id, "info", message)


def finish(
    session: Session, job_id: str, number: int, result: dict[str, Any], metrics: Mapping[str, float] | None = None
) -> None:
    """End the job well, with its last metrics. Raises Fenced; the caller's other writes in this transaction then fall
    with it."""
    children.hold(session, job_id)
    job = load(session, job_id, number)
    step = job.progress["step"] if job.progress else 0
    _write(
        session,
        job_id,
        number,
        state="succeeded",
        result=result,
        metrics={**(job.metrics or {}), **(metrics or {})},
        progress={"step": step, "total": step, "fraction": 1.0, "eta_s": 0.0, "message": "done"},
        finished_at=utc_now(),
    )
    if metrics:
        append_event(session, job_id, "metric", {"step": step, **metrics})
    append_event(session, job_id, "done", {"state": "succeeded", "result": result})
    children.ended(session, job_id)


def fail(session: Session, job_id: str, number: int, error: AppError) -> None:
    """End the job badly, with the problem document of `error`. Raises Fenced."""
    children.hold(session, job_id)
    document = error.document(job_id)
    _write(session, job_id, number, state="failed", error=document, finished_at=utc_now())
    append_event(session, job_id, "done", {"state": "failed", "error": document})
    children.stop(session, job_id)
    children.ended(session, job_id)


def wait(session: Session, job_id: str, number: int, progress: dict[str, Any], metrics: Mapping[str, Any]) -> None:
    """Leave a job running with no worker, until the end of one of its parts queues it again. Raises Fenced."""
    values = {"progress": progress, "metrics": dict(metrics), "tries": 0}
    _write(session, job_id, number, worker=None, device=None, **values)
    append_event(session, job_id, "progress", progress)


def hand_back(session: Session, job_id: str, number: int) -> None:
    """Return the job to the queue because its worker goes away; this attempt does not count as a try. Raises Fenced."""
    _write(session, job_id, number, state="pending", tries=_counting(0), worker=None, device=None)
    _log(session, job_id, "info", f"attempt {number} handed back: the worker stops")


def lose(session: Session, job_id: str, number: int, reason: str, counts: int = OWN) -> bool:
    """Note that the attempt's process ended without a word, which `counts` so much. True when another attempt may
    follow; when the tries are used up the job fails with the reason. False also when the job is no longer this
    attempt's."""
    children.hold(session, job_id)
    try:
        _write(session, job_id, number, tries=_counting(counts))
    except Fenced:
        return False
    _log(session, job_id, "warning", f"attempt {number} ended early: {reason}")
    if load(session, job_id, number).tries >= WORN_OUT:
        fail(session, job_id, number, _worn_out(f"The last one: {reason}."))
        return False
    return True


def _counting(ended: int) -> ColumnElement[int]:
    """The row's `tries` with what this attempt counts, instead of what it was begun with: a worker's loss. Where it has
    written a new checkpoint they are 0, and stay so."""
    return case((JobRow.tries > 0, JobRow.tries - LOST + ended), else_=0)


def strays(session: Session, running: Collection[tuple[str, int]]) -> list[tuple[str, int]]:
    """Which of these attempts (job, number) no longer hold their job: cancelled or taken over."""
    if not running:
        return []
    query = select(JobRow.id, JobRow.attempt).where(JobRow.id.in_({job_id for job_id, _ in running}))
    held = {(job_id, number) for job_id, number in session.execute(query.where(JobRow.state == "running"))}
    return [attempt for attempt in running if attempt not in held]


def active(session: Session, before: dt.datetime) -> dict[str, int]:
    """Jobs that the rows say are in the queue or running, created before this time: id -> number of the latest
    queueing. Those whose parts run are in no queue."""
    query = select(JobRow.id, JobRow.enqueued).where(
        JobRow.state.in_(ACTIVE), JobRow.parked.is_(False), JobRow.created_at < before, ~children.waits()
    )
    return dict(session.execute(query).all())


def requeue(session: Session, engine: Engine, job_id: str, enqueued: int) -> bool:
    """Queue a job again that the engine has dropped while its row says otherwise. False when the row has moved on."""
    changed = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.enqueued == enqueued, JobRow.state.in_(ACTIVE))
        .values(state="pending", parked=False, enqueued=enqueued + 1, worker=None, device=None)
        .returning(JobRow.id)
    ).first()
    if changed is None:
        return False
    session.expire_all()
    _log(session, job_id, "warning", "the queue had lost this job; queued again")
    engine.enqueue(session, session.scalars(select(JobRow).where(JobRow.id == job_id)).one())
    return True


def release(session: Session, engine: Engine, workspace: str, most: int | None) -> list[str]:
    """Queue the jobs of a workspace that were put aside and may begin now that others have ended; gives their ids. Each
    keeps its number, so it is served before those that came later."""
    found = queueing.allowed(session, workspace, most)
    for job_id in found:
        job = session.scalars(
            update(JobRow)
            .where(JobRow.id == job_id, JobRow.state == "pending", JobRow.parked)
            .values(parked=False, enqueued=JobRow.enqueued + 1)
            .returning(JobRow)
        ).one_or_none()
        if job is not None:  # else it has just been cancelled
            engine.enqueue(session, job)
    return found


def workspace_of(session: Session, job_id: str) -> str | None:
    """Whose job it is; None when there is none."""
    return session.scalar(select(JobRow.workspace).where(JobRow.id == job_id))


def _fence(job_id: str, number: int) -> tuple[ColumnElement[bool], ...]:
    # A job that waits for its parts has no worker, nor any attempt at work.
    return JobRow.id == job_id, JobRow.attempt == number, JobRow.state == "running", JobRow.worker.is_not(None)


def _write(session: Session, job_id: str, number: int, **values: Any) -> None:
    statement = update(JobRow).where(*_fence(job_id, number)).values(**values).returning(JobRow.id)
    if session.execute(statement).first() is None:
        raise Fenced(f"{job_id} attempt {number}")
    session.expire_all()


def _log(session: Session, job_id: str, level: str, message: str) -> None:
    append_event(session, job_id, "log", {"level": level, "message": message})


def _worn_out(reason: str) -> AppError:
    return AppError(
        f"{MAX_TRIES} attempts in a row or more ended without a new checkpoint. {reason} "
        "Retry the job once the cause is gone.",
        code="attempts-exhausted",
    )
