"""Tuning as a job: `plan` pins down what was asked; `run`, a short step in a worker's child, looks at the trials there
are, asks for the next ones, and leaves. The end of each trial queues the next step. The last one records the best
trial's version.

Between steps a tune is its row and its trials' rows, nothing else: no process has to live for it, and none that dies
can take it along.
"""

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import update
from sqlalchemy.orm import Session

from app import store
from app.config import Settings
from app.db.tables import DatasetRow, JobRow, TrialRow
from app.errors import AppError, Conflict, Invalid, NotFound
from app.services import attempts, jobs, proposing, spaces, training, trials
from app.services.attempts import Attempt
from app.services.registry import Promote
from app.services.training import Ending, Learned, TrainAsk
from app.services.trials import AGAIN, NewTrial, Trial
from models import Progress, TrainConfig, TrainResult

log = logging.getLogger("gatecast.worker")

Metric = Literal["mase", "wql", "smape", "mae", "rmse"]
USUAL_TRIALS, MOST_TRIALS = 20, 1000
MOST_MINUTES = 7 * 24 * 60


@dataclass(frozen=True)
class TuneAsk:
    """What a client asked for. `space` None: the usual one; `trials` None: the usual number, or, where there are
    `minutes`, as many as they take."""

    dataset: str
    model: str
    config: TrainConfig
    space: Mapping[str, Any] | None = None
    trials: int | None = None
    minutes: float | None = None
    metric: Metric = "mase"
    revision: int | None = None
    promote: Promote = "if_better"


def plan(session: Session, ask: TuneAsk, settings: Settings) -> dict[str, Any]:
    """The job's spec: as a training's, with the space, the budget and the metric. Raises as `training.plan`, and
    Invalid for a space that cannot be searched."""
    same = TrainAsk(ask.dataset, ask.model, ask.config, ask.revision, ask.promote)
    spec = training.plan(session, same, settings)
    del spec["warm_start_from"]
    space = dict(spaces.usual(ask.config) if ask.space is None else ask.space)
    spaces.check(space, TrainConfig.parse(spec["config"]))
    count = ask.trials or (USUAL_TRIALS if ask.minutes is None else MOST_TRIALS)
    return {**spec, "space": space, "trials": count, "minutes": ask.minutes, "metric": ask.metric}


def run(attempt: Attempt) -> None:
    """One step: ask for as many trials as there is room for and leave, or conclude. Raises AppError when no trial has
    completed, what `training.settle` raises, and Fenced, also when the end of a trial has overtaken this step."""
    with attempt.database.read(attempt.workspace) as session:
        jobs.engine_of(session)  # loaded now, not in the transaction that needs it
    while True:
        at = _at(attempt)
        new = _next(attempt, at)
        if not new and not at.open and not at.again:
            break
        if attempts.persist(
            attempt.database, lambda session, new=new: _go_on(session, attempt, new), workspace=attempt.workspace
        ):
            return
    _conclude(attempt, at)


@dataclass(frozen=True)
class Stand:
    """Where a tune is."""

    trials: Sequence[Trial]
    places: int
    late: bool  # its minutes are used up
    gone: str | None  # why there is nothing to learn from any more
    seconds: float = 0.0  # since it began

    @property
    def open(self) -> Sequence[Trial]:
        return [one for one in self.trials if one.open]

    @property
    def over(self) -> bool:
        """Whether no more trials are to begin."""
        return self.late or self.gone is not None

    @property
    def again(self) -> Sequence[Trial]:
        """The trials to be tried again that there is room for now."""
        kept = [] if self.over else [one for one in self.trials if one.row.outcome == AGAIN]
        return kept[: max(0, self.places - len(self.open))]


def _at(attempt: Attempt) -> Stand:
    with attempt.database.read(attempt.workspace) as session:
        row = attempts.load(session, attempt.job, attempt.number)
        return _stand(session, row)


def _stand(session: Session, row: JobRow) -> Stand:
    found, now = trials.of(session, row.id), jobs.clock(session)
    began = row.started_at or now
    try:
        attempts.pinned_dataset(session, row.spec)
        gone = None
    except (NotFound, Conflict) as error:
        gone = error.detail
    seconds = max(0.0, (now - began) / dt.timedelta(seconds=1))
    return Stand(found, jobs.places(session), trials.out_of_time(row, now), gone, seconds)


def _next(attempt: Attempt, at: Stand) -> list[NewTrial]:
    """The trials to ask for now; those whose config is refused come beside as many others."""
    spec = attempt.spec
    left = spec["trials"] - sum(one.counts for one in at.trials)
    room = min(left, at.places - len(at.open) - len(at.again))
    if at.over or room <= 0:
        return []
    config, number = TrainConfig.parse(spec["config"]), max((one.row.number for one in at.trials), default=-1) + 1
    made: list[NewTrial] = []
    if number == 0:
        made.append(_trial(attempt, 0, {}, config))
    for params in proposing.propose(spec["space"], at.trials, spec["trials"], config.seed):
        if sum(one.refusal is None for one in made) >= room or len(made) >= left:
            break
        made.append(_trial(attempt, number + len(made), params, config))
    return made


def _trial(attempt: Attempt, number: int, params: dict[str, Any], config: TrainConfig) -> NewTrial:
    taken = ("dataset", "dataset_id", "revision", "digest", "model", "metric")
    spec = {"tune": attempt.job, "number": number, "params": params} | {name: attempt.spec[name] for name in taken}
    try:
        document, refusal = config.replace(**params).document(), None
    except ValueError as error:
        document, refusal = {**config.document(), **params}, Invalid(f"{error}.", code="unfit-config")
    return NewTrial(number, params, {**spec, "config": document, "promote": "never"}, refusal)


def _go_on(session: Session, attempt: Attempt, new: Sequence[NewTrial]) -> bool:
    """Queue the new trials and leave the tune to its trials; False when none is open, so that nobody would call
    again."""
    attempts.log(session, attempt.job, attempt.number, [])  # the fence first, and the row's lock
    row = attempts.load(session, attempt.job, attempt.number)
    for kept in _stand(session, row).again:
        trials.again(session, kept)
    for one in new:
        trials.add(session, row, one)
    at = _stand(session, attempts.load(session, attempt.job, attempt.number))
    if at.gone or (at.late and trials.best(at.trials) is not None):
        trials.drop_waiting(session, at.open)
        at = _stand(session, attempts.load(session, attempt.job, attempt.number))
    if not at.open:
        return False
    progress, metrics = _progress(attempt.spec, at)
    attempts.wait(session, attempt.job, attempt.number, progress, metrics)
    return True


def _progress(spec: Mapping[str, Any], at: Stand) -> tuple[dict[str, Any], dict[str, Any]]:
    """A tune's progress and metrics: steps are trials that have ended."""
    best, counted = trials.best(at.trials), trials.counted(at.trials)
    done, total = sum(counted.values()) - counted["cancelled"], spec["trials"]
    took = [one.seconds for one in at.trials if one.seconds is not None and one.job.attempt]
    eta = sum(took) / len(took) * (total - done) / at.places if took else None
    share = done / total
    if spec["minutes"]:
        left = max(0.0, spec["minutes"] * 60.0 - at.seconds)
        eta, share = left if eta is None else min(eta, left), max(share, 1.0 - left / (spec["minutes"] * 60.0))
    message = f"{done} of {total} trials, {len(at.open)} open"
    metrics: dict[str, Any] = {name: float(count) for name, count in counted.items()}
    if best is not None:
        message += f"; best {spec['metric'].upper()} {best.row.value:.4g}, trial {best.row.number}"
        metrics["best"] = best.row.value
    told = None if eta is None else round(eta, 1)
    return {
        "step": done,
        "total": total,
        "fraction": round(min(share, 1.0), 4),
        "eta_s": told,
        "message": message,
    }, metrics


def _conclude(attempt: Attempt, at: Stand) -> None:
    """Record the best trial's version and end the tune. Raises AppError when there is none."""
    best = trials.best(at.trials)
    if best is None or best.row.made is None:
        raise _fruitless(at)
    made, counted = best.row.made, trials.counted(at.trials)
    done = sum(counted.values()) - counted["cancelled"]
    attempt.on_progress(Progress(done, done, "fetching the best trial's version"))
    path = store.verified(attempt.settings.store, made["folder"], made["digest"], store.PATIENCE)
    learned = _learned(attempt, made, path)
    new = training.version(attempt, learned, path, made["folder"])
    told = {"trial": best.row.number, "job": best.job.id, "params": best.row.params}
    told |= {"metric": attempt.spec["metric"], "value": best.row.value}
    figures = _progress(attempt.spec, at)[1]
    ending = Ending({"best": told, "trials": counted}, lambda session: _let_go(session, attempt.job, figures))
    training.settle(attempt, learned, new, ending)


def _learned(attempt: Attempt, made: Mapping[str, Any], path: Path) -> Learned:
    """What the best trial has learned and from what; from nothing that is still there when its dataset was deleted, as
    a training does that ends after its dataset: the version stays, and no gate can compare it."""
    try:
        with attempt.database.read(attempt.workspace) as session:
            dataset, series, columns = training.read(attempt, session)
    except (NotFound, Conflict):
        calendar = store.read_manifest(attempt.settings.store, made["folder"], made["digest"])["calendar"]
        dataset = DatasetRow(id=attempt.spec["dataset_id"], name=attempt.spec["dataset"], **calendar)
        return Learned(dataset, (), (), result_of(made, path))
    return Learned(dataset, series, columns, result_of(made, path))


def result_of(made: Mapping[str, Any], artifact: Path) -> TrainResult:
    """What a trial's training made, from its row."""
    kept = {name: value for name, value in made.items() if name not in ("folder", "digest", "size_bytes", "config")}
    kept["metrics"] = {name: value for name, value in made["metrics"].items() if value is not None}
    return TrainResult(artifact=artifact, config=TrainConfig.parse(made["config"]), reasons=(), **kept)


def _let_go(session: Session, tune_id: str, figures: Mapping[str, Any]) -> None:
    """From now on the version names the folder. The tune's metrics are those of all trials, the last one included."""
    session.execute(update(TrialRow).where(TrialRow.tune_id == tune_id).values(folder=None, made=None))
    session.execute(update(JobRow).where(JobRow.id == tune_id).values(metrics=dict(figures)))
    trials.stop(session, tune_id)
    session.expire_all()


def _fruitless(at: Stand) -> AppError:
    failed = trials.reasons(at.trials)
    if at.gone:
        return AppError(f"No trial was completed: {at.gone}", code="no-trial-completed")
    if not failed:
        why = "the minutes were used up before one had ended; allow more" if at.late else "each was cancelled"
        return AppError(f"No trial was completed: {why}. Retry the tune.", code="no-trial-completed")
    count = sum(one.state == "failed" for one in at.trials)
    said = f"None of the {count} trials that ended was completed; the most common reason: {failed[0]}"
    return AppError(said, code="no-trial-completed")
