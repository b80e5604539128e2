"""Forecasts as jobs, too big to wait for: `plan` pins version and revision, `run` writes the result in a worker's child
part by part, `result` finds the file.

Memory does not grow with the number of series: a part of them is read, forecast and written at a time. A part that is
whole is never computed again, so an attempt goes on where the one before was killed, and the file is the same.
"""

import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import store
from app.config import Bucket, Settings
from app.db.tables import DatasetRow, SeriesRow
from app.errors import FULL, Conflict, NotFound, Unavailable, disk_full
from app.services import attempts, datasets, forecast_answers, forecast_parts, forecasts, jobs
from app.services.attempts import Attempt
from app.services.datasets import Span
from app.services.forecast_inputs import Columns, Reading, check_future, known_columns
from app.services.forecast_parts import Reach
from app.services.forecasts import PART, Chosen, Read, Shape, Stored
from app.services.opened import OpenVersions
from app.services.series import unknown
from models import Progress, Stopped, open_artifact

MEDIA = {"parquet": "application/vnd.apache.parquet", "csv": "text/csv"}
PART_VALUES = 2_000_000  # numbers in a part: 16 MB, a few times that while they are computed
ASKED = 500  # keys looked up in one query


@dataclass(frozen=True)
class ForecastAsk:
    """What a client asked for. `series` None: all of the dataset's; `horizon` None: what the version was
    trained for."""

    dataset: str
    model: str
    revision: int | None
    series: tuple[str, ...] | None
    horizon: int | None
    quantiles: tuple[float, ...]
    format: str
    samples: int = 0
    future: Mapping[str, Columns] = field(default_factory=dict[str, Columns])  # of series: what is not uploaded


@dataclass(frozen=True)
class ResultFile:
    """A finished job's file: where it lies (None: in the object store), its size and media type, the name to keep it
    under, its digest (`sha256:…`)."""

    path: Path | None
    size: int
    media: str
    name: str
    digest: str


def plan(session: Session, ask: ForecastAsk, versions: OpenVersions, max_horizon: int) -> dict[str, Any]:
    """The job's spec, version and revision pinned. Raises NotFound for the dataset, the version and series that are not
    there, Conflict for an empty dataset, Invalid for the revision, a horizon that is too long and what is wrong with
    future covariates."""
    dataset, revision = forecasts.locate(session, Stored(ask.dataset, revision=ask.revision))
    meant = forecasts.look_up(session, ask.model)
    opened = forecasts.take(versions, meant).opened
    horizon = ask.horizon or forecasts.take(versions, meant).on(datasets.calendar_of(dataset)).horizon
    forecasts.check(Shape(horizon, ask.quantiles), max_horizon)
    if ask.series is not None:
        _refuse_unknown(session, dataset, revision.number, ask.series)
    if ask.future and not opened.any_frequency:
        known = Reading(opened.design.columns).known(known_columns(session, dataset.id))
        check_future(ask.future, ask.series or _there(session, dataset, revision.number, ask.future), known, horizon)
    more = {"samples": ask.samples} if ask.samples else {}
    more |= {"future_covariates": dict(ask.future)} if ask.future else {}
    return {
        "dataset": dataset.name,
        "dataset_id": dataset.id,
        "revision": revision.number,
        "digest": revision.digest,
        "model": meant.model,
        "version": meant.version,
        "series": None if ask.series is None else list(ask.series),
        "horizon": horizon,
        "quantiles": list(ask.quantiles),
        "format": ask.format,
        **more,
    }


def run(attempt: Attempt) -> None:
    """Forecast all series, and end the job together with its file's name. Raises AppError (Unavailable when the disk is
    full), Stopped (the parts are kept) and Fenced."""
    attempt.on_progress(Progress(0, 0, "opening the version"))
    with attempt.database.read(attempt.workspace) as session:
        meant = forecasts.look_up(session, f"{attempt.spec['model']}/{attempt.spec['version']}")
        dataset = attempts.pinned_dataset(session, attempt.spec)
        named = attempt.spec["series"]
        total = len(named) if named else datasets.revision_of(session, dataset, attempt.spec["revision"]).series
    path = store.verified(attempt.settings.store, meant.folder, meant.digest, store.PATIENCE)
    chosen = Chosen(**vars(meant), opened=open_artifact(path))
    folder = attempt.settings.checkpoints / attempt.job
    if not folder.exists():
        attempts.persist(attempt.database, lambda session: attempts.restart(session, attempt.job, attempt.number))
    with _disk():
        folder.mkdir(parents=True, exist_ok=True)
        parts = forecast_parts.whole(folder)
        at = forecast_parts.reach(parts[-1]) if parts else Reach()
    while True:
        so_far = Progress(at.done, max(total, at.done), "forecasting", checkpoint=at.done, unit="series")
        attempt.on_progress(so_far)
        if attempt.should_stop():
            raise Stopped
        found = _next(attempt, chosen, at)
        if found is None:
            break
        table, at = found
        with _disk():
            parts.append(forecast_parts.write(folder, len(parts) + 1, table, at, attempt.number))
    if not parts:
        raise Conflict(f"Dataset {dataset.name!r} has no series at revision {attempt.spec['revision']}.")
    attempt.on_progress(Progress(at.done, at.done, "writing the file", checkpoint=at.done))
    with _disk():
        result = _publish(attempt, parts) | {"series": at.done, "warnings": _warnings(parts)}
    attempts.persist(attempt.database, lambda session: attempts.finish(session, attempt.job, attempt.number, result))
    shutil.rmtree(folder, ignore_errors=True)


def result(session: Session, settings: Settings, job_id: str) -> ResultFile:
    """The file that a forecast job has made. Raises NotFound while there is none, and for a job of another kind, saying
    where to look instead; Unavailable when the file is neither in the object store nor in this server's data folder."""
    job = jobs.get(session, job_id)
    if job.kind != "forecast":
        where = f"; what it made is at {job.result['href']}" if job.result else ""
        raise NotFound(f"Job {job_id!r} is of kind {job.kind}, which makes no file{where}.", code="no-result")
    if job.result is None:
        raise NotFound(f"Job {job_id!r} has no result: it is {job.state}.", code="no-result")
    name, size = job.result["file"], job.result["size_bytes"]
    here = _results(settings) / name
    path = here if here.is_file() and here.stat().st_size == size else None
    if path is None:
        where = "this server's data folder"
        if isinstance(settings.store, Bucket):
            where = f"the object store or {where}"
        if not isinstance(settings.store, Bucket) or not store.has_result(settings.store, job_id, name, size):
            raise Unavailable(
                f"The result of job {job_id!r} is not in {where} as it was written: "
                "bring the file back, or ask for the forecast anew.",
                code="result-lost",
            )
    return ResultFile(path, size, MEDIA[job.spec["format"]], name, job.result["digest"])


def read(settings: Settings, job_id: str, file: ResultFile, span: tuple[int, int]) -> Iterator[bytes]:
    """The bytes of a file in the object store, from the first to before the second of `span`. Raises StoreAway."""
    assert isinstance(settings.store, Bucket)
    return store.read_result(settings.store, job_id, file.name, span)


def _next(attempt: Attempt, chosen: Chosen, at: Reach) -> tuple[Any, Reach] | None:
    """The next part as a table and how far it reaches; None after the last series."""
    spec = attempt.spec
    shape = Shape(spec["horizon"], tuple(spec["quantiles"]), spec.get("samples", 0))
    size = max(1, min(PART, PART_VALUES // (shape.horizon * (1 + len(shape.levels) + shape.samples))))
    with attempt.database.read(attempt.workspace) as session:
        dataset = attempts.pinned_dataset(session, spec)
        found = _read(session, dataset, chosen, (spec["revision"], spec["series"], size), at)
        if found is None:
            return None
        read, last = found
        future: Mapping[str, Columns] = spec.get("future_covariates") or {}
        if not chosen.opened.any_frequency:  # else all of it is named as ignored, by each part
            future = {one.key: future[one.key] for one in read.series if one.key in future}
        read = forecasts.with_future(session, dataset.id, chosen, read, future, horizon=shape.horizon)
    answer = forecasts.answer(chosen, read, shape)
    told = Reach(at.done + len(read.series), last, forecast_answers.warnings(answer))
    return forecast_answers.table(answer), told


def _read(
    session: Session, dataset: DatasetRow, chosen: Chosen, wanted: tuple[int, Sequence[str] | None, int], at: Reach
) -> tuple[Read, str] | None:
    """The next series and the last key looked at; `wanted` is the revision, the keys (None: all) and how many."""
    revision, named, size = wanted
    if named is not None:
        keys = named[at.done : at.done + size]
        return (forecasts.read_last(session, dataset, revision, keys, chosen), keys[-1]) if keys else None
    after = at.last
    while keys := datasets.next_keys(session, dataset.id, after, size):
        read = forecasts.read_last(session, dataset, revision, Span(after, keys[-1]), chosen)
        if read.series:  # else these came later, or were replaced by others
            return read, keys[-1]
        after = keys[-1]
    return None


def _publish(attempt: Attempt, parts: Sequence[Path]) -> dict[str, Any]:
    """The whole file under the attempt's name, and what the row says of it. Until the row does, it is rubbish, which
    the next attempt drops."""
    folder, name = _results(attempt.settings), f"{attempt.name}.{attempt.spec['format']}"
    folder.mkdir(parents=True, exist_ok=True)
    with attempt.database.read(attempt.workspace) as session:
        attempts.load(session, attempt.job, attempt.number)  # only the job's holder may drop what is there
    _drop(attempt.settings, attempt.job, store.PATIENCE)
    rows = forecast_parts.join(parts, path := folder / name, attempt.should_stop)
    about = {"format": attempt.spec["format"], "media_type": MEDIA[attempt.spec["format"]]}
    measured = {"rows": rows, "size_bytes": path.stat().st_size, "digest": forecast_parts.digest(path)}
    if isinstance(attempt.settings.store, Bucket):
        store.keep_result(attempt.settings.store, attempt.job, path, store.PATIENCE)
        path.unlink()
    return {"href": f"/v1/jobs/{attempt.job}/result", "file": name, **about, **measured}


def _warnings(parts: Sequence[Path]) -> list[dict[str, Any]]:
    """The warnings of all parts, each once, with how many series it is about and the first of them."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for part in parts:
        for said in forecast_parts.reach(part).warnings:
            mine = found.setdefault((said["code"], said["message"]), {**said, "series": [], "series_count": 0})
            mine["series_count"] += said.get("series_count", 0)
            mine["series"] = (mine["series"] + said.get("series", []))[: forecast_answers.LISTED]
    return [
        said if said["series_count"] else {"code": said["code"], "message": said["message"]} for said in found.values()
    ]


def _refuse_unknown(session: Session, dataset: DatasetRow, revision: int, keys: Sequence[str]) -> None:
    there = _there(session, dataset, revision, keys)
    if missing := [key for key in keys if key not in there]:
        raise unknown(dataset, missing, revision)


def _there(session: Session, dataset: DatasetRow, revision: int, keys: Iterable[str]) -> set[str]:
    """Those of the keys that the revision has."""
    asked = [key for key in dict.fromkeys(keys) if "\0" not in key]  # which PostgreSQL does not take in a text
    there: set[str] = set()
    wanted = select(SeriesRow.key).where(SeriesRow.dataset_id == dataset.id, SeriesRow.revision <= revision)
    for place in range(0, len(asked), ASKED):
        there.update(session.scalars(wanted.where(SeriesRow.key.in_(asked[place : place + ASKED]))))
    return there


def drop_files(settings: Settings, job_id: str) -> None:
    """Delete what a job keeps in this data folder and in the object store: its file, its parts, its checkpoints.
    Raises StoreAway."""
    _drop(settings, job_id, 0.0)
    drop_checkpoints(settings, job_id)


def drop_checkpoints(settings: Settings, job_id: str) -> None:
    """Delete what a job that makes no file keeps in this data folder."""
    shutil.rmtree(settings.checkpoints / job_id, ignore_errors=True)


def _drop(settings: Settings, job_id: str, patience: float) -> None:
    if isinstance(settings.store, Bucket):
        store.drop_results(settings.store, job_id, patience)
    for left in (*_results(settings).glob(f"{job_id}-*"), *_results(settings).glob(f".{job_id}-*")):
        left.unlink(missing_ok=True)


def _results(settings: Settings) -> Path:
    """Folder of the finished jobs' files."""
    return settings.data / "results"


@contextmanager
def _disk() -> Generator[None]:
    """Says what keeps a file from being written. Raises Unavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full("the forecasts cannot be written") from error
        raise Unavailable(
            f"The forecasts cannot be written to the data folder ({error.strerror or error}). Make room, or make it "
            "writable, and retry the job: it goes on from its last part."
        ) from error
