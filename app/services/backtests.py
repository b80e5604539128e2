"""Backtests as jobs: `plan` pins the version and the revision, `run` scores them in a worker's child; then pages of
what was found. A score is written once, with the origins it was taken over, and never changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session, defer, undefer

from app import store
from app.db.tables import BacktestRow, JobRow
from app.errors import Complaint, Conflict, Invalid, NotFound
from app.services import attempts, datasets, registry
from app.services.attempts import Attempt
from app.services.forecast_inputs import ignored
from app.services.opened import OpenVersions
from app.services.registry import ANY
from models import BacktestPlan, BacktestResult, Calendar, Progress, Series, backtest, open_artifact

VERSION = "version"  # what the core calls the forecaster itself among its baselines
HEAVY = (BacktestRow.by_horizon, BacktestRow.by_series, BacktestRow.origins)


@dataclass(frozen=True)
class BacktestAsk:
    """What a client asked for. `horizon` None: what the version was trained for; `step` None: the horizon."""

    dataset: str
    model: str
    revision: int | None
    origins: int
    horizon: int | None
    step: int | None
    baselines: tuple[str, ...]


def plan(session: Session, ask: BacktestAsk, versions: OpenVersions, max_horizon: int) -> dict[str, Any]:
    """The job's spec, version and revision pinned. Raises NotFound, Conflict for an empty dataset, Invalid when version
    and dataset have different steps."""
    dataset = datasets.get(session, ask.dataset)
    if dataset.head == 0:
        raise Conflict(f"Dataset {ask.dataset!r} is empty: upload something first.", code="dataset-empty")
    revision = datasets.revision_of(session, dataset, ask.revision)
    found = registry.resolve(session, ask.model)
    version = found.version
    if version.frequency not in (dataset.frequency, ANY):
        raise Invalid(
            f"model: expected a version trained on steps of {dataset.frequency}, as the dataset's; "
            f"{found.model.name}/{version.number} was trained on {version.frequency}.",
            errors=[Complaint("other-frequency", "Trained on other steps than the dataset's", pointer="/model")],
        )
    horizon = ask.horizon or version.config["horizon"]
    if horizon is None:  # a version for any frequency was trained for as many steps as theirs asks for
        opened = versions.get(version.folder, version.digest)
        horizon = opened.at(datasets.calendar_of(dataset)).horizon
    if horizon > max_horizon:
        complaint = Complaint("too-long", f"Expected at most {max_horizon}", pointer="/horizon")
        raise Invalid(f"horizon: expected at most {max_horizon}, got {horizon}.", errors=[complaint])
    return {
        "dataset": dataset.name,
        "dataset_id": dataset.id,
        "revision": revision.number,
        "digest": revision.digest,
        "model": found.model.name,
        "version": version.number,
        "origins": ask.origins,
        "horizon": horizon,
        "step": ask.step or horizon,
        "baselines": list(ask.baselines),
    }


def run(attempt: Attempt) -> None:
    """Score, and end the job together with the backtest's row. Raises ValueError, AppError (Conflict where a baseline's
    extra is not installed), Stopped and Fenced."""
    spec = attempt.spec
    attempt.on_progress(Progress(0, 0, "reading the series"))
    with attempt.database.read(attempt.workspace) as session:
        dataset = attempts.pinned_dataset(session, spec)
        calendar = datasets.calendar_of(dataset)
        series = datasets.read_series(session, dataset, revision=spec["revision"])
        columns = datasets.read_columns(session, dataset, spec["revision"])
        version = registry.resolve(session, f"{spec['model']}/{spec['version']}").version
        folder, digest = version.folder, version.digest
    path = store.verified(attempt.settings.store, folder, digest, store.PATIENCE)
    opened = replace(open_artifact(path).at(calendar), calendar=calendar)  # the clock on which the series lie
    series = opened.recoded(series, columns)
    asked = BacktestPlan(spec["origins"], spec["horizon"], spec["step"], tuple(spec["baselines"]))
    try:
        result = backtest(opened, series, asked, attempt.on_progress, attempt.should_stop)
    except ModuleNotFoundError as error:
        raise Conflict(f"{error}.", code="extra-missing") from error
    row, notes = _row(attempt, calendar, series, result), list(result.notes)
    if opened.any_frequency:
        notes += [note.message for note in ignored(one.name for one in columns)]
    if notes:
        attempts.persist(attempt.database, lambda session: attempts.log(session, attempt.job, attempt.number, notes))
    attempts.persist(
        attempt.database, lambda session: _conclude(session, attempt, row, notes), workspace=attempt.workspace
    )


def _conclude(session: Session, attempt: Attempt, row: dict[str, Any], notes: Sequence[str]) -> None:
    attempts.load(session, attempt.job, attempt.number)
    session.add(BacktestRow(**row))
    session.flush()
    own = {score["metric"]: score["value"] for score in row["scores"] if score["baseline"] is None}
    result: dict[str, Any] = {"href": f"/v1/backtests/{attempt.job}"}
    if notes:
        result["notes"] = list(notes)
    attempts.finish(session, attempt.job, attempt.number, result, own)


def _row(attempt: Attempt, calendar: Calendar, series: Sequence[Series], result: BacktestResult) -> dict[str, Any]:
    """The backtest's row: scores named by baseline, those of a series together, origins as times."""
    phases = {one.key: one.phase for one in series}
    span = np.array([[row["first"], row["last"]] for row in result.origins], np.int64).reshape(-1, 2)  # (series, 2)
    phase = np.array([phases[row["series"]] for row in result.origins], np.int64)
    first, last = (calendar.stamps(calendar.times(span[:, place], phase)) for place in (0, 1))
    by_series: dict[str, dict[str, Any]] = {
        row["series"]: {"key": row["series"], "first": first[place], "last": last[place], "scores": []}
        for place, row in enumerate(result.origins)
    }
    for row in result.by_series:
        by_series[row["key"]]["scores"].append(_score(row))
    counted: dict[tuple[Any, Any], int] = {}
    for pair in zip(first, last, strict=True):
        counted[pair] = counted.get(pair, 0) + 1
    return {
        "id": attempt.job,
        "workspace": attempt.workspace,
        **{name: attempt.spec[name] for name in ("dataset", "revision", "model", "version", "horizon", "step")},
        "scores": [_score(row) for row in result.scores],
        "by_horizon": [{"horizon": row["horizon"], **_score(row)} for row in result.by_horizon],
        "by_series": list(by_series.values()),
        "origins": [{"first": a, "last": b, "series": count} for (a, b), count in sorted(counted.items())],
    }


def _score(row: dict[str, Any]) -> dict[str, Any]:
    baseline = None if row["forecaster"] == VERSION else row["forecaster"]
    return {"metric": row["metric"], "value": row["value"], "baseline": baseline}


# ---------------------------------------------------------------- what was found


def list_page(session: Session, before: str | None, limit: int) -> Sequence[BacktestRow]:
    """Backtests, newest first, those before the id `before`; scores only, the long lists are left in the database."""
    query = select(BacktestRow).order_by(BacktestRow.id.desc()).limit(limit)
    query = query.options(*(defer(column, raiseload=True) for column in HEAVY))
    return session.scalars(query if before is None else query.where(BacktestRow.id < before)).all()


def get(session: Session, backtest_id: str, by_series: bool = False) -> BacktestRow:
    """One backtest, with its scores by series only when asked. Raises NotFound, saying so when its job is not done."""
    load = undefer if by_series else defer
    row = session.scalar(select(BacktestRow).where(BacktestRow.id == backtest_id).options(load(BacktestRow.by_series)))
    if row is not None:
        return row
    state = session.scalar(select(JobRow.state).where(JobRow.id == backtest_id, JobRow.kind == "backtest"))
    if state is None:
        raise NotFound(f"There is no backtest {backtest_id!r}.")
    raise NotFound(f"Backtest {backtest_id!r} has no scores: its job is {state}.", code="backtest-not-done")
