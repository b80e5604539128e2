"""One trial of a tune as a job: a training that is stopped early where it is not worth its time, and publishes only
what beats the trials before it."""

import logging
import math
import shutil
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import store
from app.db.tables import TrialRow
from app.errors import Invalid, StoreAway
from app.services import attempts, jobs, training, trials
from app.services.attempts import Attempt, Fenced
from app.services.pruning import Watch
from app.services.registry import without_nan
from app.services.training import Learned
from app.services.trials import COMPLETED, PRUNED
from models import Progress, Stopped, TrainResult

log = logging.getLogger("gatecast.worker")

LEFT_OUT = ("artifact", "config", "reasons")  # of a TrainResult: what a trial's row need not tell


def run(attempt: Attempt) -> None:
    """Train with the trial's values and end the job with what came of it. Raises as `training.run`, and Invalid when
    the metric that decides has no value."""
    with attempt.database.read(attempt.workspace) as session:
        jobs.engine_of(session)  # loaded now, not in the transaction that needs it
        mine = trials.find(session, attempt.job)
    if mine is None:
        raise Fenced(attempt.job)
    watch = Watch(attempt, mine.row.scores)
    try:
        with watch:
            watched = replace(attempt, on_progress=watch.on_progress, should_stop=watch.should_stop)
            learned = training.learn(watched)
    except Stopped:
        if watch.verdict is None:
            raise
        verdict = watch.verdict
        attempts.persist(attempt.database, lambda session: _prune(session, attempt, watch, verdict))
    else:
        _complete(attempt, learned, watch)
    shutil.rmtree(training.folder_of(attempt), ignore_errors=True)


def made_of(result: TrainResult, folder: str, digest: str, size: int) -> dict[str, Any]:
    """What a version of the trial is to be recorded with, as JSON."""
    kept = {name: value for name, value in asdict(result).items() if name not in LEFT_OUT}
    measured = {"folder": folder, "digest": digest, "size_bytes": size}
    return without_nan({**kept, "config": result.config.document(), **measured})


def _complete(attempt: Attempt, learned: Learned, watch: Watch) -> None:
    metric = attempt.spec["metric"]
    value = learned.result.metrics.get(metric, math.nan)
    if not math.isfinite(value):
        raise Invalid(f"The held-out steps give no {metric}, so this trial cannot be compared.", code="unfit-data")
    with attempt.database.read(attempt.workspace) as session:
        before = trials.best(trials.of(session, attempt.spec["tune"]))
    made: dict[str, Any] | None = None
    # As `trials.best` ranks them: of equal values the earlier trial's is kept, whichever ends first.
    if before is None or (value, attempt.spec["number"]) < (before.row.value, before.row.number):
        attempt.on_progress(Progress(0, 0, "keeping the version, the best so far"))
        published = training.publish(attempt, learned.result.artifact)
        made = made_of(learned.result, attempt.name, store.digest(published), store.size(published))
    dropped = attempts.persist(
        attempt.database, lambda session: _end(session, attempt, watch, (value, learned.result), made)
    )
    _drop(attempt, dropped)


def _end(
    session: Session, attempt: Attempt, watch: Watch, found: tuple[float, TrainResult], made: dict[str, Any] | None
) -> list[str]:
    """The trial's value and the job's end, in the session's transaction; gives the folders that nobody needs now."""
    trials.hold(session, attempt.job)
    attempts.load(session, attempt.job, attempt.number)
    value, result = found
    row = _row(session, attempt)
    row.value, row.outcome, row.scores = value, COMPLETED, watch.scores
    session.flush()
    dropped = [] if made is None else trials.keep_best(session, attempt.job, attempt.name, made)
    told = {"outcome": COMPLETED, "metric": attempt.spec["metric"], "value": value, "seconds": result.seconds}
    figures = {name: figure for name, figure in result.metrics.items() if math.isfinite(figure)}
    attempts.finish(session, attempt.job, attempt.number, _at(attempt) | told, figures)
    return dropped


def _prune(session: Session, attempt: Attempt, watch: Watch, why: str) -> None:
    trials.hold(session, attempt.job)
    attempts.load(session, attempt.job, attempt.number)
    row = _row(session, attempt)
    row.outcome, row.scores = PRUNED, watch.scores
    session.flush()
    attempts.finish(session, attempt.job, attempt.number, _at(attempt) | {"outcome": PRUNED, "why": why})


def _row(session: Session, attempt: Attempt) -> TrialRow:
    return session.scalars(select(TrialRow).where(TrialRow.job_id == attempt.job)).one()


def _at(attempt: Attempt) -> dict[str, Any]:
    return {"href": f"/v1/jobs/{attempt.spec['tune']}/trials"}


def _drop(attempt: Attempt, folders: list[str]) -> None:
    """Delete versions that have been beaten. What stays for any reason is rubbish, to be swept later."""
    for folder in folders:
        try:
            store.remove(attempt.settings.store, folder)
        except (StoreAway, OSError) as error:
            log.warning("%s is not needed any more and is still in the store: %s", folder, error)
