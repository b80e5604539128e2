"""Forecast jobs in a worker's child: `run` writes the file of a whole job, or, of one with very many series, cuts it
into shards and later puts together what they have made; `run_shard` is one of those.

Memory does not grow with the number of series: a part of them is read, forecast and written at a time. A part that is
whole is never computed again, so an attempt goes on where the one before was killed, and the file is the same: whoever
makes a part, it holds the same series.
"""

import logging
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app import store
from app.config import Bucket
from app.db.tables import DatasetRow, ShardRow
from app.errors import FULL, Conflict, StoreAway, Unavailable, disk_full
from app.services import attempts, datasets, forecast_answers, forecast_jobs, forecast_parts, forecasts, jobs, shards
from app.services.attempts import Attempt, Fenced
from app.services.datasets import Span
from app.services.forecast_inputs import Columns
from app.services.forecast_jobs import MEDIA
from app.services.forecast_parts import Damaged, Reach
from app.services.forecasts import Chosen, Read, Shape
from app.services.shards import Cut
from models import Progress, Stopped, open_artifact

log = logging.getLogger("gatecast.worker")

MOST_SHARDS = 64  # of one job: each costs a process
MOST_MENDED = 3  # times that an attempt makes a damaged part anew


@dataclass(frozen=True)
class Work:
    """Series to forecast, all of a job's or a shard's: the job's spec, where the parts go, which series they are, and
    what the progress counts beside them."""

    spec: Mapping[str, Any]
    folder: Path
    cut: Cut
    before: int = 0
    total: int | None = None  # None: those of the cut

    @property
    def shape(self) -> Shape:
        return Shape(self.spec["horizon"], tuple(self.spec["quantiles"]), self.spec.get("samples", 0))

    @property
    def size(self) -> int:
        """Series in a part."""
        return forecast_jobs.part_size(self.shape)

    def told(self, at: Reach) -> Progress:
        done = self.before + at.done
        total = self.cut.series if self.total is None else self.total
        return Progress(done, max(total, done), "forecasting", checkpoint=done, unit="series")


def run(attempt: Attempt) -> None:
    """Forecast all series, and end the job together with its file's name; or leave it to its shards for now. Raises
    AppError (Unavailable when the disk is full), Stopped (the parts are kept) and Fenced."""
    with attempt.database.read(attempt.workspace) as session:
        found = shards.of(session, attempt.job)
        cuts = [] if found else _cuts(session, attempt)
        if found or cuts:
            jobs.engine_of(session)  # loaded now, not in the transaction that needs it
    if not found and not cuts:
        work = _whole(attempt)
        _conclude(attempt, lambda: [_make(attempt, work)])
        return
    if not attempts.persist(attempt.database, lambda session: _leave(session, attempt, cuts)):
        with attempt.database.read(attempt.workspace) as session:
            found = shards.of(session, attempt.job)
            made = [jobs.get(session, one.job_id).result or {} for one in found if one.job_id]
        total = sum(one.series for one in found)
        attempt.on_progress(Progress(total, total, "putting the shards together", unit="series"))
        _conclude(attempt, lambda: [_made(attempt, *each, total) for each in zip(found, made, strict=True)])


def run_shard(attempt: Attempt) -> None:
    """Make the parts of one shard, leave them where the forecast's last step finds them, and end the shard's job.
    Raises as `run`."""
    with attempt.database.read(attempt.workspace) as session:
        jobs.engine_of(session)
        row = shards.find(session, attempt.job)
        if row is None:
            raise Fenced(attempt.job)
        work = _work(attempt, row, jobs.get(session, row.forecast_id).spec)
    parts = _make(attempt, work)
    place = attempt.settings.store
    if isinstance(place, Bucket):
        for part in parts:
            store.keep_part(place, row.forecast_id, row.number, part, store.PATIENCE)
    done = forecast_parts.reach(parts[-1]).done if parts else 0
    told = {"href": f"/v1/jobs/{row.forecast_id}", "parts": len(parts), "series": done}
    attempts.persist(attempt.database, lambda session: attempts.finish(session, attempt.job, attempt.number, told))
    if isinstance(place, Bucket):
        shutil.rmtree(work.folder, ignore_errors=True)


# ---------------------------------------------------------------- the whole and its shards


def _whole(attempt: Attempt) -> Work:
    with attempt.database.read(attempt.workspace) as session:
        total = _total(session, attempt.spec)
    return Work(attempt.spec, attempt.settings.checkpoints / attempt.job, Cut(0, total))


def _total(session: Session, spec: Mapping[str, Any]) -> int:
    dataset = attempts.pinned_dataset(session, spec)
    named = spec["series"]
    return len(named) if named else datasets.revision_of(session, dataset, spec["revision"]).series


def _cuts(session: Session, attempt: Attempt) -> list[Cut]:
    """What to cut the job into: nothing where it would be less than two shards. Each but the last has the same number
    of whole parts, so that all parts are those of a job that is not cut."""
    spec = attempt.spec
    least: int | None = spec.get("shard_parts")
    total = _total(session, spec)
    work = Work(spec, Path(), Cut(0, total))
    parts = ceil(total / work.size)
    if least is None or parts < 2 * least:
        return []
    each = work.size * ceil(parts / min(MOST_SHARDS, parts // least))
    if spec["series"] is not None:
        return [Cut(first, min(each, total - first)) for first in range(0, total, each)]
    dataset = attempts.pinned_dataset(session, spec)
    ends = datasets.keys_at(session, dataset.id, spec["revision"], each)
    ends = ends[: (total - 1) // each]  # the last one has no end: more keys may be there than the revision has series
    spans = zip((None, *ends), (*ends, None), strict=True)
    return [Cut(n * each, min(each, total - n * each), after, until) for n, (after, until) in enumerate(spans)]


def _leave(session: Session, attempt: Attempt, cuts: Sequence[Cut]) -> bool:
    """Leave the job to its shards; False when all of them are done."""
    lines = [f"cut into {len(cuts)} shards of {cuts[0].series:,} series, which any worker may take"] if cuts else []
    attempts.log(session, attempt.job, attempt.number, lines)  # the fence first, and the row's lock
    if cuts:
        shards.cut(session, attempt.job, cuts)
    if not shards.ask(session, attempts.load(session, attempt.job, attempt.number)):
        return False
    attempts.wait(session, attempt.job, attempt.number, shards.progress(session, attempt.job), {})
    return True


def _work(attempt: Attempt, row: ShardRow, spec: Mapping[str, Any], total: int | None = None) -> Work:
    folder = attempt.settings.checkpoints / row.forecast_id / f"{row.number:04d}"
    before = 0 if total is None else row.first
    return Work(spec, folder, Cut(row.first, row.series, row.after, row.until), before, total)


def _made(attempt: Attempt, row: ShardRow, made: Mapping[str, Any], total: int) -> list[Path]:
    """The parts of a shard that has succeeded. What is not there any more is computed here."""
    work = _work(attempt, row, attempt.spec, total)
    if attempt.should_stop():
        raise Stopped
    parts = forecast_parts.whole(work.folder)
    if len(parts) != made["parts"] and isinstance(attempt.settings.store, Bucket):
        shutil.rmtree(work.folder, ignore_errors=True)
        with _disk():
            work.folder.mkdir(parents=True)
            store.fetch_parts(attempt.settings.store, row.forecast_id, row.number, work.folder, store.PATIENCE)
        parts = forecast_parts.whole(work.folder)
    if len(parts) == made["parts"]:
        return parts
    log.warning("job %s: shard %d lacks parts, which are made anew", attempt.job, row.number)
    return _make(attempt, work)


# ---------------------------------------------------------------- parts


def _make(attempt: Attempt, work: Work) -> list[Path]:
    """All parts of the work, of which those that are whole already are kept."""
    attempt.on_progress(Progress(0, 0, "opening the version"))
    with attempt.database.read(attempt.workspace) as session:
        meant = forecasts.look_up(session, f"{work.spec['model']}/{work.spec['version']}")
    path = store.verified(attempt.settings.store, meant.folder, meant.digest, store.PATIENCE)
    chosen = Chosen(**vars(meant), opened=open_artifact(path))
    if not work.folder.exists():
        attempts.persist(attempt.database, lambda session: attempts.restart(session, attempt.job, attempt.number))
    with _disk():
        work.folder.mkdir(parents=True, exist_ok=True)
        parts = forecast_parts.whole(work.folder)
    at = forecast_parts.reach(parts[-1]) if parts else Reach()
    while True:
        attempt.on_progress(work.told(at))
        if attempt.should_stop():
            raise Stopped
        found = _next(attempt, work, chosen, at)
        if found is None:
            return parts
        table, at = found
        with _disk():
            parts.append(forecast_parts.write(work.folder, len(parts) + 1, table, at, attempt.name))


def _next(attempt: Attempt, work: Work, chosen: Chosen, at: Reach) -> tuple[Any, Reach] | None:
    """The next part as a table and how far it reaches; None after the last series."""
    with attempt.database.read(attempt.workspace) as session:
        dataset = attempts.pinned_dataset(session, work.spec)
        found = _read(session, dataset, work, chosen, at)
        if found is None:
            return None
        read, last = found
        future: Mapping[str, Columns] = work.spec.get("future_covariates") or {}
        if not chosen.opened.any_frequency:  # else all of it is named as ignored, by each part
            future = {one.key: future[one.key] for one in read.series if one.key in future}
        read = forecasts.with_future(session, dataset.id, chosen, read, future, horizon=work.shape.horizon)
    answer = forecasts.answer(chosen, read, work.shape)
    told = Reach(at.done + len(read.series), last, forecast_answers.warnings(answer))
    return forecast_answers.table(answer), told


def _read(session: Session, dataset: DatasetRow, work: Work, chosen: Chosen, at: Reach) -> tuple[Read, str] | None:
    """The next series and the last key looked at."""
    revision, named, cut = work.spec["revision"], work.spec["series"], work.cut
    if named is not None:
        keys = named[cut.first : cut.first + cut.series][at.done : at.done + work.size]
        return (forecasts.read_last(session, dataset, revision, keys, chosen), keys[-1]) if keys else None
    after = cut.after if at.last is None else at.last
    while keys := datasets.keys_within(session, dataset.id, revision, (after, cut.until), work.size):
        read = forecasts.read_last(session, dataset, revision, Span(after, keys[-1]), chosen)
        if read.series:  # else these had been replaced by others
            return read, keys[-1]
        after = keys[-1]
    return None


# ---------------------------------------------------------------- the file


def _conclude(attempt: Attempt, gather: Callable[[], list[list[Path]]]) -> None:
    """Join the parts, those of each shard from its first to its last, and end the job with the file."""
    mended = 0
    while True:
        groups = gather()
        try:
            result = _file(attempt, groups)
            break
        except Damaged as error:
            log.warning("job %s: %s cannot be read and is made anew", attempt.job, error)
            mended += 1
            if mended > MOST_MENDED:
                raise Unavailable("Parts of the forecast cannot be read again as they were written.") from error
    attempts.persist(attempt.database, lambda session: attempts.finish(session, attempt.job, attempt.number, result))
    shutil.rmtree(attempt.settings.checkpoints / attempt.job, ignore_errors=True)
    if len(groups) > 1 and isinstance(attempt.settings.store, Bucket):
        try:
            store.drop_parts(attempt.settings.store, attempt.job, 0.0)
        except StoreAway as error:
            log.warning("job %s: its parts are still in the store, until it is deleted: %s", attempt.job, error)


def _file(attempt: Attempt, groups: Sequence[Sequence[Path]]) -> dict[str, Any]:
    """Make the file; gives the job's result. Raises Conflict when there is nothing in it, Damaged."""
    parts = [part for group in groups for part in group]
    if not parts:
        name, revision = attempt.spec["dataset"], attempt.spec["revision"]
        raise Conflict(f"Dataset {name!r} has no series at revision {revision}.")
    done = sum(forecast_parts.reach(group[-1]).done for group in groups if group)
    said = forecast_answers.gathered(forecast_parts.reach(part).warnings for part in parts)
    attempt.on_progress(Progress(done, done, "writing the file", checkpoint=done))
    with _disk():
        return _publish(attempt, parts) | {"series": done, "warnings": said}


def _publish(attempt: Attempt, parts: Sequence[Path]) -> dict[str, Any]:
    """The whole file under the attempt's name, and what the row says of it. Until the row does, it is rubbish, which
    the next attempt drops."""
    folder, name = forecast_jobs.results(attempt.settings), f"{attempt.name}.{attempt.spec['format']}"
    folder.mkdir(parents=True, exist_ok=True)
    with attempt.database.read(attempt.workspace) as session:
        attempts.load(session, attempt.job, attempt.number)  # only the job's holder may drop what is there
    forecast_jobs.drop_results(attempt.settings, attempt.job, store.PATIENCE)
    rows = forecast_parts.join(parts, path := folder / name, attempt.should_stop)
    about = {"format": attempt.spec["format"], "media_type": MEDIA[attempt.spec["format"]]}
    measured = {"rows": rows, "size_bytes": path.stat().st_size, "digest": forecast_parts.digest(path)}
    if isinstance(attempt.settings.store, Bucket):
        store.keep_result(attempt.settings.store, attempt.job, path, store.PATIENCE)
        path.unlink()
    return {"href": f"/v1/jobs/{attempt.job}/result", "file": name, **about, **measured}


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
