"""Jobs that consist of others: a tune of its trials, a forecast of its shards. What is done to one is done to all of
them, and whatever ends one of them tells the whole, in the same transaction."""

from typing import Any

from sqlalchemy.orm import Session

from app.db.tables import JobRow
from app.services import jobs, shards, trials
from app.services.jobs import Engine, workflow_id

STEPS = (trials.TUNE,)  # kinds of jobs whose attempts are many and short


def hold(session: Session, job_id: str) -> None:
    """Lock the job that this one is a part of, if it is one, until the commit. The whole first, the part after it:
    who cancels both comes the same way."""
    trials.hold(session, job_id)
    shards.hold(session, job_id)


def ended(session: Session, job_id: str) -> None:
    """Tell the job whose part has just ended, if it is one. `hold` has been called."""
    trials.ended(session, job_id)
    shards.ended(session, job_id)


def stop(session: Session, job_id: str) -> list[JobRow]:
    """Cancel what is open of the parts of a job that has ended, and give them."""
    return trials.stop(session, job_id) + shards.stop(session, job_id)


def waits() -> Any:
    """Condition on a job: it has nothing to do itself, since parts of it are still open."""
    return trials.waits() | shards.waits()


def cancel(session: Session, job_id: str) -> tuple[JobRow, list[str]]:
    """Cancel a job with its parts; gives it, and the engine's names of what no worker has. Raises as `trials.cancel`,
    and Conflict for a shard."""
    shards.refuse(session, job_id)
    row, queued = trials.cancel(session, job_id)
    stopped = shards.stop(session, job_id)
    queued += [workflow_id(one.id, one.enqueued) for one in stopped if one.worker is None]
    return jobs.get(session, row.id), queued


def retry(session: Session, engine: Engine, job_id: str, max_queue: int) -> JobRow:
    """Try a job again; it keeps those of its parts that have succeeded. Raises as `trials.retry`, and Conflict for a
    shard."""
    shards.refuse(session, job_id)
    return trials.retry(session, engine, job_id, max_queue)


def removable(session: Session, job_id: str) -> list[str]:
    """The job and its parts. Raises NotFound, and Conflict for a job that waits or runs, or is a part itself."""
    shards.refuse(session, job_id)
    return trials.removable(session, job_id) + shards.removable(session, job_id)


def remove(session: Session, job_id: str) -> list[str]:
    """Delete a job that has ended, and its parts; gives the folders of the store that no version names any more. Raises
    as `removable`."""
    shards.refuse(session, job_id)
    parts = shards.removable(session, job_id)
    folders = trials.remove(session, job_id)
    for one in parts:
        jobs.remove(session, one)
    return folders
