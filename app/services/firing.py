"""What asks for a job, a client or a schedule, and the way from there to the queue."""

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from sqlalchemy.orm import Session

from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import JobRow, ScheduleRow
from app.errors import AppError, QueueFull
from app.services import backtests, forecast_jobs, jobs, schedules, training, tuning
from app.services.backtests import BacktestAsk
from app.services.forecast_jobs import ForecastAsk
from app.services.jobs import Engine, NewJob
from app.services.opened import OpenVersions
from app.services.queueing import BATCH, INTERACTIVE, Priority, Standing
from app.services.training import TrainAsk
from app.services.tuning import TuneAsk
from models import TrainConfig

log = logging.getLogger("gatecast.worker")

Ask = TrainAsk | TuneAsk | BacktestAsk | ForecastAsk
KINDS: dict[type[Ask], str] = {TrainAsk: "train", TuneAsk: "tune", BacktestAsk: "backtest", ForecastAsk: "forecast"}


@dataclass(frozen=True)
class Around:
    """What planning a job needs beside the database."""

    settings: Settings
    engine: Engine
    versions: OpenVersions


def submit(session: Session, ask: Ask, around: Around, priority: Priority = INTERACTIVE) -> tuple[JobRow, Standing]:
    """Plan and queue a job; with its place in the queue. Raises what its `plan` raises, and QueueFull."""
    new = replace(plan(session, ask, around), priority=priority)
    return jobs.submit(session, around.engine, new, around.settings.max_queue)


def plan(session: Session, ask: Ask, around: Around) -> NewJob:
    """The job that would be queued. Raises what the `plan` of its kind raises."""
    settings, versions = around.settings, around.versions
    if isinstance(ask, TrainAsk):
        return NewJob("train", training.plan(session, ask, settings))
    if isinstance(ask, TuneAsk):
        return NewJob("tune", tuning.plan(session, ask, settings))
    if isinstance(ask, BacktestAsk):
        return NewJob("backtest", backtests.plan(session, ask, versions, settings.max_horizon))
    return NewJob("forecast", forecast_jobs.plan(session, ask, versions, settings.max_horizon))


def document(ask: Ask) -> dict[str, Any]:
    """An ask as a schedule keeps it: JSON, with its kind and without its dataset."""
    kept: dict[str, Any] = {name: _listed(value) for name, value in vars(ask).items()}
    if isinstance(ask, TrainAsk | TuneAsk):
        kept["config"] = ask.config.document()
    del kept["dataset"]
    return {"kind": KINDS[type(ask)], **kept}


def ask_of(dataset: str, kept: Mapping[str, Any]) -> Ask:
    """The ask that `document` has made a document of, for a dataset."""
    fields: dict[str, Any] = {name: _tupled(value) for name, value in kept.items()}
    kind = fields.pop("kind")
    if "config" in fields:
        fields["config"] = TrainConfig.parse(fields["config"])
    made: type[Any] | None = next((made for made, name in KINDS.items() if name == kind), None)
    if made is None:
        raise ValueError(f"kind: expected one of {', '.join(KINDS.values())}, got {kind!r}")
    return made(**fields, dataset=dataset)


def _listed(value: Any) -> Any:
    return list(cast(tuple[Any, ...], value)) if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(cast(list[Any], value)) if isinstance(value, list) else value


def run_now(session: Session, name: str, around: Around) -> tuple[JobRow, Standing]:
    """Ask for a schedule's job at once; when it is due next stays as it is. Raises NotFound, what planning raises, and
    QueueFull."""
    row, dataset = schedules.get(session, name)
    job, standing = submit(session, ask_of(dataset.name, row.job), around)
    row.last_job, row.last_error = job.id, None
    return job, standing


def fire(database: Database, around: Around, now: dt.datetime | None = None) -> list[str]:
    """Ask for the jobs of all schedules whose time has come, each in a transaction of its own; gives the jobs' ids.

    A schedule that cannot have its job says why in `last_error` and waits for its next time; one that meets a full
    queue stays due."""
    with database.read(EVERY_WORKSPACE) as session:
        found = schedules.due(session, now)
    fired: list[str] = []
    for schedule_id, workspace in found:
        try:
            with database.write(workspace) as session:
                job = _fire(session, schedule_id, around, now or jobs.clock(session))
        except QueueFull as error:
            log.info("a schedule waits: %s", error)
            continue
        if job is not None:
            fired.append(job)
    return fired


def _fire(session: Session, schedule_id: int, around: Around, now: dt.datetime) -> str | None:
    claimed = schedules.claim(session, schedule_id, now)
    if claimed is None:
        return None
    row, dataset = claimed
    try:
        job, _ = submit(session, ask_of(dataset.name, row.job), around, BATCH)
    except QueueFull:
        raise
    except (AppError, ValueError, TypeError) as error:  # the latter two: a job that this release does not know
        _refused(row, error if isinstance(error, AppError) else AppError(str(error)))
        return None
    row.last_job, row.last_error = job.id, None
    log.info("schedule %s has asked for %s", row.name, job.id)
    return job.id


def _refused(row: ScheduleRow, error: AppError) -> None:
    row.last_error = error.document(row.name)
    log.warning("schedule %s could not ask for its job: %s", row.name, error.detail)
