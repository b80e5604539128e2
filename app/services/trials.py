"""Trials: what a tune consists of. Each is a job of kind `trial`, and a row that says which values it tries.

While trials run, their tune is running and no worker has it. The end of a trial, its line in the tune's events and
the queueing of the tune's next step are one transaction. A step that is queued twice is one step: only its latest
queueing may begin, and whoever begins takes it from the one before.
"""

import datetime as dt
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session, aliased

from app.db.tables import JobRow, TrialRow, utc_now
from app.errors import AppError, Conflict, NotFound
from app.services import jobs, leftovers, queueing
from app.services.jobs import ACTIVE, Engine, append_event, engine_of, workflow_id
from app.services.queueing import BATCH

TUNE, TRIAL = "tune", "trial"
COMPLETED, PRUNED, CANCELLED = "completed", "pruned", "cancelled"
AGAIN = "again"  # failed or cancelled, and to be tried again as soon as there is room
BOTH = select(TrialRow, JobRow).join(JobRow, JobRow.id == TrialRow.job_id)


@dataclass(frozen=True)
class Trial:
    """One trial as it is now. `state` is its job's, but for `succeeded`, which is `completed` or `pruned`, and for what
    is to be tried again, which is pending although its job is not."""

    row: TrialRow
    job: JobRow

    @property
    def state(self) -> str:
        if self.row.outcome == AGAIN:
            return "pending"
        return self.row.outcome or COMPLETED if self.job.state == "succeeded" else self.job.state

    @property
    def open(self) -> bool:
        return self.job.state in ACTIVE

    @property
    def counts(self) -> bool:
        """Whether it uses up one of the trials that were asked for."""
        return self.state != CANCELLED

    @property
    def seconds(self) -> float | None:
        """From its first attempt to its end."""
        if self.job.started_at is None or self.job.finished_at is None:
            return None
        return max(0.0, (self.job.finished_at - self.job.started_at).total_seconds())


@dataclass(frozen=True)
class NewTrial:
    """A trial to queue; with `refusal`, one that cannot be tried, which ends as it is written down."""

    number: int
    params: dict[str, Any]
    spec: dict[str, Any]
    refusal: AppError | None = None


def of(session: Session, tune_id: str, after: int = -1, size: int | None = None) -> list[Trial]:
    """The trials of a tune by their numbers, those after `after`."""
    query = BOTH.where(TrialRow.tune_id == tune_id, TrialRow.number > after).order_by(TrialRow.number)
    return [Trial(row, job) for row, job in session.execute(query if size is None else query.limit(size))]


def find(session: Session, job_id: str) -> Trial | None:
    """The trial whose job this is; None when it is another kind of job."""
    found = session.execute(BOTH.where(TrialRow.job_id == job_id)).first()
    return None if found is None else Trial(found[0], found[1])


def of_tune(session: Session, tune_id: str, after: int, size: int | None) -> list[Trial]:
    """As `of`, for a client. Raises NotFound for a job that is none, or of another kind."""
    job = jobs.get(session, tune_id)
    if job.kind != TUNE:
        raise NotFound(f"Job {tune_id!r} is of kind {job.kind}; only a tune has trials.", code="no-trials")
    return of(session, tune_id, after, size)


def best(found: Sequence[Trial]) -> Trial | None:
    """The completed trial with the lowest value, the earlier of equal ones."""
    completed = [one for one in found if one.row.value is not None and one.state == COMPLETED]
    return min(completed, key=lambda one: (one.row.value, one.row.number), default=None)


def counted(found: Sequence[Trial]) -> dict[str, int]:
    """How many ended in which way."""
    ended = Counter(one.state for one in found if one.state not in ACTIVE)
    return {state: ended[state] for state in (COMPLETED, PRUNED, "failed", CANCELLED)}


# ---------------------------------------------------------------- from one step to the next


def add(session: Session, tune: JobRow, new: NewTrial) -> JobRow:
    """Write a trial down and queue it, in the transaction of its tune's step."""
    turn = queueing.number(session, tune.workspace, BATCH)  # after all that somebody waits for
    job = JobRow(id=jobs.new_id(), kind=TRIAL, workspace=tune.workspace, spec=new.spec, priority=turn, enqueued=1)
    if new.refusal is not None:
        now = utc_now()
        job.state, job.error, job.finished_at = "failed", new.refusal.document(job.id), now
    session.add(job)
    session.flush()
    session.add(TrialRow(job_id=job.id, tune_id=tune.id, number=new.number, params=new.params, scores=[]))
    session.flush()
    told = ", ".join(f"{name} {_shown(value)}" for name, value in new.params.items()) or "the preset's own choice"
    append_event(session, job.id, "log", _line(f"trial {new.number} of {tune.id}: {told}"))
    append_event(session, tune.id, "log", _line(f"trial {new.number}: {told}"))
    if new.refusal is not None:
        append_event(session, job.id, "done", {"state": "failed", "error": job.error})
        append_event(session, tune.id, "log", _line(f"trial {new.number} failed: {new.refusal.detail}", "warning"))
    else:
        engine_of(session).enqueue(session, job)
    return job


def again(session: Session, trial: Trial) -> None:
    """Queue a trial that was kept for it, in the transaction of its tune's step."""
    trial.row.outcome = None
    session.flush()
    jobs.retry(session, engine_of(session), trial.job.id, None)  # its tune was let in


def hold(session: Session, job_id: str) -> None:
    """Lock the tune whose trial this job is, if it is one, until the commit. Tune first, trial after it: who cancels
    both comes the same way."""
    mine = select(TrialRow.tune_id).where(TrialRow.job_id == job_id).scalar_subquery()
    session.execute(select(JobRow.id).where(JobRow.id == mine).with_for_update())


def ended(session: Session, job_id: str) -> None:
    """Tell the tune whose trial has just ended, if it is one, and queue its next step."""
    trial = find(session, job_id)
    if trial is None:
        return
    tune = session.scalars(
        update(JobRow)
        .where(JobRow.id == trial.row.tune_id, JobRow.state.in_(ACTIVE))
        # A step that is at work now is overtaken, which is no failure of its own.
        .values(enqueued=JobRow.enqueued + 1, tries=0)
        .returning(JobRow)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if tune is not None:
        append_event(session, tune.id, "log", _line(_outcome(trial), "warning" if trial.state == "failed" else "info"))
        engine_of(session).enqueue(session, tune)


def waits() -> Any:
    """Condition on a job: it is a tune that no step of has anything to do, since trials of it are still open."""
    trial_job = aliased(JobRow)
    is_open = exists().where(
        TrialRow.tune_id == JobRow.id, trial_job.id == TrialRow.job_id, trial_job.state.in_(ACTIVE)
    )
    return (JobRow.kind == TUNE) & JobRow.worker.is_(None) & (JobRow.state == "running") & is_open


def overdue(session: Session, now: dt.datetime) -> list[tuple[str, int]]:
    """Tunes whose minutes are used up while trials of theirs wait in the queue, so that no end of one would tell them:
    id and number of the latest queueing. One without any completed trial waits on."""
    waiting, done = aliased(JobRow), aliased(TrialRow)
    query = select(JobRow).where(
        queueing.RUNNING,
        JobRow.kind == TUNE,
        JobRow.worker.is_(None),
        exists().where(TrialRow.tune_id == JobRow.id, waiting.id == TrialRow.job_id, waiting.state == "pending"),
        exists().where(done.tune_id == JobRow.id, done.outcome == COMPLETED),
    )
    return [(row.id, row.enqueued) for row in session.scalars(query) if out_of_time(row, now)]


def wake(session: Session, engine: Engine, tune_id: str, enqueued: int) -> bool:
    """Queue a step of a tune that waits for its trials. False when something else has done so."""
    tune = session.scalars(
        update(JobRow)
        .where(JobRow.id == tune_id, JobRow.enqueued == enqueued, JobRow.state == "running", JobRow.worker.is_(None))
        .values(enqueued=enqueued + 1)
        .returning(JobRow)
    ).one_or_none()
    if tune is not None:
        engine.enqueue(session, tune)
    return tune is not None


def out_of_time(tune: JobRow, now: dt.datetime) -> bool:
    """Whether a tune's minutes are used up."""
    minutes: float | None = tune.spec["minutes"]
    if not minutes or tune.started_at is None:
        return False
    return (now - tune.started_at).total_seconds() >= 60.0 * minutes


def keep_best(session: Session, job_id: str, folder: str, made: dict[str, Any]) -> list[str]:
    """Name the folder of a trial that has just completed, unless one before it was better; gives the folders that
    nobody needs any more. `hold` has been called in this transaction, so trials come one after another."""
    row = session.scalars(select(TrialRow).where(TrialRow.job_id == job_id)).one()
    before = session.scalars(
        select(TrialRow)
        .where(TrialRow.tune_id == row.tune_id, TrialRow.folder.is_not(None), TrialRow.job_id != job_id)
        .execution_options(populate_existing=True)
    ).all()
    mine = (row.value, row.number)
    if any((other.value, other.number) < mine for other in before):
        return [folder]
    dropped = [other.folder for other in before if other.folder is not None]
    for other in before:
        other.folder = other.made = None
    row.folder, row.made = folder, made
    session.flush()
    return dropped


# ---------------------------------------------------------------- what a client may do


def cancel(session: Session, job_id: str) -> tuple[JobRow, list[str]]:
    """Cancel a job, and with a tune its open trials; a trial alone counts no more and is not tried again. Gives the job
    and the engine's names of what no worker has. Raises as `jobs.cancel`."""
    hold(session, job_id)
    row = jobs.cancel(session, job_id)
    cancelled = [row]
    if row.kind == TUNE:
        cancelled += stop(session, job_id)
    elif (trial := find(session, job_id)) is not None and trial.row.outcome in (None, AGAIN):
        trial.row.outcome = CANCELLED
        session.flush()
        ended(session, job_id)
    queued = [workflow_id(one.id, one.enqueued) for one in cancelled if one.worker is None]
    return jobs.get(session, job_id), queued


def drop_waiting(session: Session, found: Sequence[Trial]) -> None:
    """Cancel those of a tune's trials that no worker has begun: its time is over. Called by the tune's own step."""
    for one in found:
        if one.job.state == "pending":
            jobs.cancel(session, one.job.id)
            one.row.outcome = CANCELLED
    session.flush()


def stop(session: Session, job_id: str) -> list[JobRow]:
    """Cancel the open trials of a tune that has ended and give them; of another kind of job there are none. Those that
    were to be tried again are what they were before."""
    stopped: list[JobRow] = []
    for one in of(session, job_id):
        if one.open:
            stopped.append(jobs.cancel(session, one.job.id))
        elif one.row.outcome == AGAIN:
            one.row.outcome = None
    session.flush()
    return stopped


def retry(session: Session, engine: Engine, job_id: str, max_queue: int) -> JobRow:
    """Try a job again, and with a tune those of its trials that failed or were cancelled with it, as many at once as it
    would begin; it then goes on with what it has, and its minutes begin anew. Raises as `jobs.retry`, and Conflict for
    a trial."""
    if (trial := find(session, job_id)) is not None:
        raise Conflict(
            f"Job {job_id!r} is a trial of tune {trial.row.tune_id!r}: retry that, which tries again what failed."
        )
    row = jobs.retry(session, engine, job_id, max_queue)
    for one in of(session, job_id):
        refused = one.state == "failed" and one.job.attempt == 0  # and would be so again
        if (one.state == "failed" and not refused) or (one.state == CANCELLED and one.row.outcome is None):
            one.row.outcome = AGAIN
    session.flush()
    return row


def removable(session: Session, job_id: str) -> list[str]:
    """The job and, of a tune, its trials. Raises NotFound, and Conflict for a job that waits or runs, or is a trial."""
    jobs.ended(session, job_id)
    if (trial := find(session, job_id)) is not None:
        raise Conflict(f"Job {job_id!r} is a trial of tune {trial.row.tune_id!r}, and is deleted with it.")
    found = of(session, job_id)
    if running := sum(one.open for one in found):
        raise Conflict(f"Of tune {job_id!r} {running} trials have not ended yet: try again in a few seconds.")
    return [job_id, *(one.job.id for one in found)]


def remove(session: Session, job_id: str) -> list[str]:
    """Delete a job that has ended, and with a tune its trials; gives the folders of the store that no version names, to
    be dropped after the commit, or swept. Raises as `removable`."""
    gone = removable(session, job_id)
    folders = [one.row.folder for one in of(session, job_id) if one.row.folder]
    for folder in folders:
        leftovers.announce(session, folder)  # the sweep knows it when no job's row does
    for one in gone:
        jobs.remove(session, one)
    return folders


# ---------------------------------------------------------------- words


def _line(message: str, level: str = "info") -> dict[str, Any]:
    return {"level": level, "message": message}


def _outcome(trial: Trial) -> str:
    """What came of a trial, in a line."""
    name, spec = f"trial {trial.row.number}", trial.job.spec
    match trial.state:
        case "completed":
            said = f"{name}: {spec['metric'].upper()} {trial.row.value:.4g}"
            return f"{said}, best so far" if trial.row.folder is not None else said
        case "pruned":
            return f"{name} was stopped early: {(trial.job.result or {}).get('why', '')}"
        case "failed":
            return f"{name} failed: {(trial.job.error or {}).get('detail', '')}"
        case state:
            return f"{name} was {state}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "open" if value is None else str(value)


def reasons(found: Collection[Trial]) -> list[str]:
    """Why trials failed, the most common reason first."""
    told = Counter((one.job.error or {}).get("detail", "") for one in found if one.state == "failed")
    return [reason for reason, _ in told.most_common()]
