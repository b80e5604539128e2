"""Shards: what a forecast job of very many series consists of. Each is a range of the series, fixed when the job was
cut, and, once it is asked for, a job of kind `shard` that makes the parts of that range.

While shards run, their forecast is running and no worker has it. As many are asked for as there are slots, the next one
when one has ended: each takes its turn as a job that is asked for just then, so that those who came meanwhile are
served first. The end of a shard, and of the last one the queueing of the forecast's last step, are one transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session, aliased

from app.db.tables import JobRow, ShardRow, utc_now
from app.errors import Conflict
from app.services import jobs, queueing
from app.services.jobs import ACTIVE, append_event, engine_of

FORECAST, SHARD = "forecast", "shard"
EVENTS = 200  # progress events of a forecast in shards, at most


@dataclass(frozen=True)
class Cut:
    """A range of a forecast's series: how many come before it and how many it has; the keys from the one after `after`
    to `until` (None: no end there), but of a forecast of named series those in these places."""

    first: int
    series: int
    after: str | None = None
    until: str | None = None


def of(session: Session, forecast_id: str) -> Sequence[ShardRow]:
    """The shards of a forecast by their numbers; none: it is not cut."""
    query = select(ShardRow).where(ShardRow.forecast_id == forecast_id).order_by(ShardRow.number)
    return session.scalars(query.execution_options(populate_existing=True)).all()


def find(session: Session, job_id: str) -> ShardRow | None:
    """The shard whose job this is; None when it is another kind of job."""
    return session.scalars(select(ShardRow).where(ShardRow.job_id == job_id)).one_or_none()


# ---------------------------------------------------------------- from one shard to the next


def cut(session: Session, forecast_id: str, cuts: Sequence[Cut]) -> None:
    """Write down what a forecast is cut into."""
    for number, one in enumerate(cuts, 1):
        session.add(ShardRow(forecast_id=forecast_id, number=number, done=0, **vars(one)))
    session.flush()


def ask(session: Session, forecast: JobRow) -> int:
    """Ask for as many of the shards that have not succeeded as there is room for; gives how many are open then."""
    found = session.execute(
        select(ShardRow, JobRow.state)
        .outerjoin(JobRow, JobRow.id == ShardRow.job_id)
        .where(ShardRow.forecast_id == forecast.id)
        .order_by(ShardRow.number)
    ).all()
    are_open = sum(state in ACTIVE for _, state in found)
    left = [row for row, state in found if state not in (*ACTIVE, "succeeded")]
    new = left[: max(0, jobs.places(session) - are_open)]
    for row in new:
        _ask(session, forecast, row)
    return are_open + len(new)


def _ask(session: Session, forecast: JobRow, row: ShardRow) -> None:
    before = row.job_id  # failed or cancelled; what it has made of the parts stays
    turn = queueing.number(session, forecast.workspace, queueing.class_of(forecast.priority))
    spec = {"forecast": forecast.id, "number": row.number, "series": row.series}
    job = JobRow(id=jobs.new_id(), kind=SHARD, workspace=forecast.workspace, spec=spec, priority=turn, enqueued=1)
    session.add(job)
    session.flush()
    row.job_id = job.id
    session.flush()
    if before is not None:
        session.execute(delete(JobRow).where(JobRow.id == before))
    append_event(session, job.id, "log", _line(f"shard {row.number} of {forecast.id}: {row.series:,} series"))
    engine_of(session).enqueue(session, job)


def hold(session: Session, job_id: str) -> None:
    """Lock the forecast whose shard this job is, if it is one, until the commit: as `trials.hold`."""
    mine = select(ShardRow.forecast_id).where(ShardRow.job_id == job_id).scalar_subquery()
    session.execute(select(JobRow.id).where(JobRow.id == mine).with_for_update())


def told(session: Session, job_id: str, progress: dict[str, Any]) -> None:
    """Put what a shard has just said of itself into the progress of its forecast. `hold` has been called."""
    row = find(session, job_id)
    if row is not None and progress["total"]:  # else it has yet to see how far it came before
        row.done = progress["step"]
        session.flush()
        _show(session, row.forecast_id)


def ended(session: Session, job_id: str) -> None:
    """Tell the forecast whose shard has just ended, if it is one. It fails with a shard that failed; otherwise the next
    one is asked for, or the forecast's last step. `hold` has been called."""
    row = find(session, job_id)
    if row is None:
        return
    job = jobs.get(session, job_id)
    if job.state == "failed":
        _fail(session, row, job)
        return
    assert job.result is not None
    row.series = row.done = job.result["series"]
    session.flush()
    _show(session, row.forecast_id)
    forecast = _active(session, row.forecast_id)
    if forecast is not None and not ask(session, forecast):
        forecast = session.scalars(
            update(JobRow)
            .where(JobRow.id == forecast.id)
            .values(enqueued=JobRow.enqueued + 1, tries=0)
            .returning(JobRow)
            .execution_options(populate_existing=True)
        ).one()
        engine_of(session).enqueue(session, forecast)


def _fail(session: Session, row: ShardRow, job: JobRow) -> None:
    forecast = _active(session, row.forecast_id)
    if forecast is None:
        return
    error = {**(job.error or {}), "instance": forecast.id}
    done = update(JobRow).where(JobRow.id == forecast.id).values(state="failed", error=error, finished_at=utc_now())
    session.execute(done)
    session.expire_all()
    append_event(session, forecast.id, "log", _line(f"shard {row.number} failed", "error"))
    append_event(session, forecast.id, "done", {"state": "failed", "error": error})
    stop(session, forecast.id)


def _active(session: Session, forecast_id: str) -> JobRow | None:
    query = select(JobRow).where(JobRow.id == forecast_id, JobRow.state.in_(ACTIVE))
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def waits() -> Any:
    """Condition on a job: it is a forecast that has nothing to do itself, since shards of it are still open."""
    shard_job = aliased(JobRow)
    is_open = exists().where(
        ShardRow.forecast_id == JobRow.id, shard_job.id == ShardRow.job_id, shard_job.state.in_(ACTIVE)
    )
    return (JobRow.kind == FORECAST) & JobRow.worker.is_(None) & (JobRow.state == "running") & is_open


# ---------------------------------------------------------------- how far all of them are


def progress(session: Session, forecast_id: str) -> dict[str, Any]:
    """A forecast's progress: steps are series, of all its shards; their pace is that of those at work."""
    found = session.execute(
        select(ShardRow.done, ShardRow.series, JobRow.state, JobRow.progress)
        .outerjoin(JobRow, JobRow.id == ShardRow.job_id)
        .where(ShardRow.forecast_id == forecast_id)
    ).all()
    done, total = sum(row.done for row in found), sum(row.series for row in found)
    running: list[dict[str, Any]] = [row.progress or {} for row in found if row.state == "running"]
    paces: list[float] = [said.get("steps_per_s") or 0.0 for said in running]
    pace = sum(paces)
    ready = sum(row.state == "succeeded" for row in found)
    return {
        "step": done,
        "total": total,
        "fraction": round(done / total, 4) if total else 0.0,
        "eta_s": round((total - done) / pace, 1) if pace else None,
        "steps_per_s": round(pace, 3) or None,
        "rate": round(pace, 3) or None,
        "unit": "series",
        "message": f"forecasting: {ready} of {len(found)} shards done, {len(running)} at work",
    }


def _show(session: Session, forecast_id: str) -> None:
    """Write a forecast's progress, and an event where it has moved on by more than a little."""
    said = progress(session, forecast_id)
    before = session.scalar(select(JobRow.progress).where(JobRow.id == forecast_id)) or {}
    waiting = (JobRow.id == forecast_id, JobRow.state == "running", JobRow.worker.is_(None))
    changed = session.execute(update(JobRow).where(*waiting).values(progress=said).returning(JobRow.id)).first()
    session.expire_all()
    if changed and int(said["fraction"] * EVENTS) > int(before.get("fraction", 0.0) * EVENTS):
        append_event(session, forecast_id, "progress", said)


# ---------------------------------------------------------------- what a client may do


def stop(session: Session, forecast_id: str) -> list[JobRow]:
    """Cancel the open shards of a forecast that has ended and give them; of another kind of job there are none."""
    return [jobs.cancel(session, job.id) for job in _jobs(session, forecast_id) if job.state in ACTIVE]


def refuse(session: Session, job_id: str) -> None:
    """Raises Conflict for the job of a shard: what is done to it is done to its forecast."""
    if (row := find(session, job_id)) is not None:
        raise Conflict(f"Job {job_id!r} is a shard of forecast {row.forecast_id!r}: do that to the forecast.")


def removable(session: Session, forecast_id: str) -> list[str]:
    """The jobs of a forecast's shards. Raises Conflict while one waits or runs."""
    found = _jobs(session, forecast_id)
    if running := sum(job.state in ACTIVE for job in found):
        raise Conflict(f"Of forecast {forecast_id!r} {running} shards have not ended yet: try again in a few seconds.")
    return [job.id for job in found]


def _jobs(session: Session, forecast_id: str) -> Sequence[JobRow]:
    query = select(JobRow).join(ShardRow, ShardRow.job_id == JobRow.id).where(ShardRow.forecast_id == forecast_id)
    return session.scalars(query.execution_options(populate_existing=True)).all()


def _line(message: str, level: str = "info") -> dict[str, Any]:
    return {"level": level, "message": message}
