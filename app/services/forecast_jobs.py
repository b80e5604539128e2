"""Forecasts as jobs, too big to wait for: `plan` pins version and revision, `result` finds the file that
`services.forecast_runs` has written in a worker's child."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import store
from app.config import Bucket, Settings
from app.db.tables import DatasetRow, SeriesRow
from app.errors import NotFound, Unavailable
from app.services import datasets, forecasts, jobs
from app.services.forecast_inputs import Columns, Reading, check_future, known_columns
from app.services.forecasts import PART, Shape, Stored
from app.services.opened import OpenVersions
from app.services.series import unknown

MEDIA = {"parquet": "application/vnd.apache.parquet", "csv": "text/csv"}
PART_VALUES = 2_000_000  # numbers in a part: 16 MB, a few times that while they are computed
SHARD, SHARD_VALUES = 8192, 16 * PART_VALUES  # series and numbers in a shard: some seconds' work, worth a process
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
        "shard_parts": shard_parts(Shape(horizon, ask.quantiles, ask.samples)),
        **more,
    }


def part_size(shape: Shape) -> int:
    """Series in a part."""
    return max(1, min(PART, PART_VALUES // _numbers(shape)))


def shard_parts(shape: Shape) -> int:
    """Parts in a shard, at least."""
    return max(1, min(SHARD, SHARD_VALUES // _numbers(shape)) // part_size(shape))


def _numbers(shape: Shape) -> int:
    """Of the forecast of one series."""
    return shape.horizon * (1 + len(shape.levels) + shape.samples)


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
    here = results(settings) / name
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
    if isinstance(settings.store, Bucket):
        store.drop_parts(settings.store, job_id, 0.0)
    drop_results(settings, job_id, 0.0)
    drop_checkpoints(settings, job_id)


def drop_checkpoints(settings: Settings, job_id: str) -> None:
    """Delete what a job that makes no file keeps in this data folder."""
    shutil.rmtree(settings.checkpoints / job_id, ignore_errors=True)


def drop_results(settings: Settings, job_id: str, patience: float) -> None:
    """Delete the files that attempts at a job have made. Raises StoreAway."""
    if isinstance(settings.store, Bucket):
        store.drop_results(settings.store, job_id, patience)
    for left in (*results(settings).glob(f"{job_id}-*"), *results(settings).glob(f".{job_id}-*")):
        left.unlink(missing_ok=True)


def results(settings: Settings) -> Path:
    """The folder of the finished jobs' files."""
    return settings.data / "results"
