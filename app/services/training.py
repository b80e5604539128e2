"""Training as a job: `plan` pins down what was asked, `run` does it in a worker's child, from series to version."""

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import store
from app.config import Settings
from app.db.tables import DatasetRow
from app.errors import Complaint, Conflict, Invalid, NotFound
from app.services import attempts, datasets, gates, registry
from app.services.attempts import Attempt
from app.services.registry import CHAMPION, Gate, NewVersion, Promote
from models import Column, Frequency, Progress, Run, Series, TrainConfig, TrainResult, continued

log = logging.getLogger("gatecast.worker")

SCORINGS = 3  # times the gate is computed anew because the champion moved meanwhile


@dataclass(frozen=True)
class TrainAsk:
    """What a client asked for."""

    dataset: str
    model: str
    config: TrainConfig
    revision: int | None = None
    promote: Promote = "if_better"
    warm_start_from: str | None = None


def _nothing(_session: Session) -> None:
    pass


@dataclass(frozen=True)
class Ending:
    """What else belongs to a job's end: further parts of its result, and writes of the same transaction."""

    result: Mapping[str, Any] = field(default_factory=dict[str, Any])
    beside: Callable[[Session], None] = _nothing


class _ChampionMoved(Exception):
    """The gate was computed against a version that is no longer champion."""


def plan(session: Session, ask: TrainAsk, settings: Settings) -> dict[str, Any]:
    """The job's spec: revision and the version to start from pinned, bounds of the dataset put into the config where it
    has none. Raises NotFound for the dataset and the version, Conflict when the dataset is empty, the model comes with
    the program or the version is of another release, Invalid when the config does not fit the version, Unavailable when
    its files are damaged."""
    registry.refuse_shipped(session, ask.model)
    dataset = datasets.get(session, ask.dataset)
    if dataset.head == 0:
        raise Conflict(f"Dataset {ask.dataset!r} is empty: upload something first.", code="dataset-empty")
    revision = datasets.revision_of(session, dataset, ask.revision)
    config, start = _bounded(ask.config, dataset), None
    horizon = config.horizon
    if ask.warm_start_from is not None:
        found = registry.resolve(session, ask.warm_start_from)
        start = f"{found.model.name}/{found.version.number}"
        manifest = store.read_manifest(settings.store, found.version.folder, found.version.digest)
        horizon = _going_on(config, manifest, dataset).horizon
    elif config.unfrozen != "all":
        raise _refuse("/config/unfrozen", "unfit", f"unfrozen: expected warm_start_from beside {config.unfrozen!r}")
    else:
        _going_on(config, None, dataset)
    if horizon is not None and horizon > settings.max_horizon:
        message = f"horizon: expected at most {settings.max_horizon}, got {horizon}"
        raise _refuse("/config/horizon", "too-long", message)
    return {
        "dataset": dataset.name,
        "dataset_id": dataset.id,
        "revision": revision.number,
        "digest": revision.digest,
        "model": ask.model,
        "config": config.document(),
        "warm_start_from": start,
        "promote": ask.promote,
    }


@dataclass(frozen=True)
class Learned:
    """What a training has read and made."""

    dataset: DatasetRow
    series: Sequence[Series]
    columns: Sequence[Column]
    result: TrainResult


def run(attempt: Attempt) -> None:
    """Train, publish, and end the job together with its version's row. Raises ValueError (unfit data), AppError,
    Stopped (checkpoint kept) and Fenced."""
    learned = learn(attempt)
    attempts.persist(
        attempt.database, lambda session: attempts.log(session, attempt.job, attempt.number, learned.result.reasons)
    )
    published = publish(attempt, learned.result.artifact)
    settle(attempt, learned, version(attempt, learned, published))
    shutil.rmtree(folder_of(attempt), ignore_errors=True)


def folder_of(attempt: Attempt) -> Path:
    """The folder of the job's checkpoints."""
    return attempt.settings.checkpoints / attempt.job


def read(attempt: Attempt, session: Session) -> tuple[DatasetRow, Sequence[Series], Sequence[Column]]:
    """The dataset that the job was asked for, its series and their covariates. Raises as `attempts.pinned_dataset`."""
    dataset = attempts.pinned_dataset(session, attempt.spec)
    series = datasets.read_series(session, dataset, revision=attempt.spec["revision"])
    return dataset, series, datasets.read_columns(session, dataset, attempt.spec["revision"])


def learn(attempt: Attempt) -> Learned:
    """Train on what the job was asked for, going on from the checkpoint there is. Raises as `run`."""
    from models import train  # loads torch: in a worker's child only

    spec = attempt.spec
    attempt.on_progress(Progress(0, 0, "reading the series"))
    with attempt.database.read(attempt.workspace) as session:
        dataset, series, columns = read(attempt, session)
        calendar = datasets.calendar_of(dataset)
        start = _start(session, spec.get("warm_start_from"), attempt.settings)
    folder = folder_of(attempt)
    if not folder.exists():
        attempts.persist(attempt.database, lambda session: attempts.restart(session, attempt.job, attempt.number))
        folder.mkdir(parents=True)
    lineage = {name: spec[name] for name in ("dataset", "revision", "digest", "model")} | {"job": attempt.job}
    if start is not None:
        lineage["warm_start_from"] = spec["warm_start_from"]
    surroundings = Run(folder, attempt.device, attempt.on_progress, attempt.should_stop, start=start, lineage=lineage)
    return Learned(
        dataset, series, columns, train(series, calendar, TrainConfig.parse(spec["config"]), surroundings, columns)
    )


def settle(attempt: Attempt, learned: Learned, new: NewVersion, ending: Ending | None = None) -> None:
    """Compare a published version with the champion, and end the job together with the version's row."""
    for _ in range(SCORINGS):
        gate = gates.compare(attempt, learned.series, learned.columns, learned.result)
        try:
            attempts.persist(
                attempt.database,
                lambda session, gate=gate: _conclude(session, attempt, new, gate, ending or Ending()),
                workspace=attempt.workspace,
            )
            return
        except _ChampionMoved:
            continue
    raise Conflict("The champion moved each time the new version was compared with it. Retry the job.")


def _start(session: Session, reference: str | None, settings: Settings) -> Path | None:
    """The checked folder of the version that the job starts from, by its number. Raises NotFound when it has been
    deleted since, Unavailable when its files are damaged."""
    if reference is None:
        return None
    version = registry.resolve(session, reference).version
    return store.verified(settings.store, version.folder, version.digest, store.PATIENCE)


def publish(attempt: Attempt, artifact: Path) -> Path:
    """The artifact in the store, under the attempt's name. Until a row names it, it is rubbish to be swept."""
    reserved = store.reserve(attempt.settings.store, attempt.name)
    try:
        for name in store.FILES:
            shutil.copyfile(artifact / name, reserved / name)
        return store.publish(attempt.settings.store, reserved, attempt.name)
    except OSError:
        shutil.rmtree(reserved, ignore_errors=True)  # a full disk has no room for it until somebody sweeps
        raise


def version(attempt: Attempt, learned: Learned, published: Path, folder: str | None = None) -> NewVersion:
    """What the registry is to record of a version published as `folder`, the attempt's own name unless it is given."""
    dataset, result = learned.dataset, learned.result
    return NewVersion(
        model=attempt.spec["model"],
        folder=folder or attempt.name,
        digest=store.digest(published),
        frequency=dataset.frequency or "",
        time_zone=dataset.time_zone,
        config=result.config.document(),
        metrics=result.metrics,
        baselines=result.baselines,
        parameters=result.parameters,
        size_bytes=store.size(published),
        device=result.device,
        train_seconds=result.seconds,
        job_id=attempt.job,
        dataset_id=dataset.id,
        dataset=dataset.name,
        revision=attempt.spec["revision"],
        data_digest=attempt.spec["digest"],
        parent=attempt.spec.get("warm_start_from"),
        promote=attempt.spec["promote"],
        workspace=attempt.workspace,
    )


def _conclude(session: Session, attempt: Attempt, new: NewVersion, gate: Gate | None, ending: Ending) -> None:
    """The version's row, the champion's move and the job's end, in the session's transaction."""
    attempts.load(session, attempt.job, attempt.number)  # an earlier commit of this very thing may have arrived
    if new.promote == "if_better" and _champion(session, new.model) != (gate.champion if gate else None):
        raise _ChampionMoved
    if session.scalar(select(DatasetRow.id).where(DatasetRow.id == new.dataset_id)) is None:
        new = replace(new, dataset_id=None)  # deleted while its data were learned from
    row = registry.add_version(session, replace(new, gate=gate))
    promoted = _champion(session, new.model) == row.number
    result: dict[str, Any] = {"href": f"/v1/models/{new.model}/versions/{row.number}", "promoted": promoted}
    result |= ending.result
    ending.beside(session)
    if gate is not None:
        value = gate.value if math.isfinite(gate.value) else None
        compared = {"champion": gate.champion, "champion_value": gate.champion_value}
        result["gate"] = {"metric": gate.metric, "value": value, **compared, "passed": promoted}
        result["gate"]["horizon"] = gate.origins.get("horizon")
        if gate.refusal is not None:
            result["gate"]["refusal"] = gate.refusal
        if why_not := gate.origins.get("champion_error"):
            result["gate"]["champion_error"] = why_not
    figures = {name: figure for name, figure in new.metrics.items() if math.isfinite(figure)}
    attempts.finish(session, attempt.job, attempt.number, result, figures)


def _champion(session: Session, model: str) -> int | None:
    try:
        return registry.resolve(session, f"{model}@{CHAMPION}").version.number
    except NotFound:
        return None


def _bounded(config: TrainConfig, dataset: DatasetRow) -> TrainConfig:
    """The config with the dataset's bounds where it has none of its own. Raises Invalid when they contradict."""
    bounds = dataset.bounds or {}
    try:
        return config.replace(
            minimum=config.minimum if config.minimum is not None else bounds.get("min"),
            maximum=config.maximum if config.maximum is not None else bounds.get("max"),
        )
    except ValueError as error:
        raise _refuse("/config", "bounds", f"With the dataset's bounds: {error}") from error


def _going_on(config: TrainConfig, manifest: dict[str, Any] | None, dataset: DatasetRow) -> TrainConfig:
    """The config of a training that starts from the version of `manifest`, or from none. Raises Conflict and Invalid
    when it cannot."""
    try:
        return continued(config, manifest, Frequency.parse(dataset.frequency or ""))
    except ValueError as error:
        name = str(error).partition(":")[0]
        if name in ("format", "config"):
            raise Conflict(f"warm_start_from: {error}.", code="other-format") from error
        if name == "frequency":
            raise _refuse("/warm_start_from", "other-frequency", f"warm_start_from: {error}") from error
        raise _refuse(f"/config/{name}", "unfit", str(error)) from error


def _refuse(pointer: str, code: str, message: str) -> Invalid:
    return Invalid(message + ".", errors=[Complaint(code, message, pointer=pointer)])
