"""Jobs: ask for background work, follow it, cancel it, try it again."""

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import BackgroundTasks, Body, Depends, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app import store
from app.api.schemas.common import JobPath
from app.api.schemas.jobs import JobIn, JobOut, JobsOut, Kind, State, TrialOut, TrialsOut, ask_of
from app.db.session import Database
from app.db.tables import JobRow
from app.errors import NoSuchRange, NotFound, StoreAway
from app.http import routers
from app.http.etags import is_known
from app.http.formats import CSV, JSON, negotiate, table_response
from app.http.idempotency import IDEMPOTENT, idempotent
from app.http.pages import DEFAULT_SIZE, PageSize, PageToken, bad_token, decode_token, encode_token, next_link
from app.http.problems import problems
from app.http.sessions import AppSettings, JobEngine, ReadSession, WriteSession, database, workspace
from app.services import children, firing, forecast_jobs, jobs, queueing, trial_tables, trials
from app.services.firing import Around
from app.services.queueing import Standing

router = routers.router("Jobs", "/v1/jobs")

LOOK_EVERY = 0.25  # seconds between two looks for events; they are written at most twice a second
LOOK_AT_QUEUE_EVERY = 2.0  # and between two at a waiting job's place
SHOWN = "key,timestamp,mean,q0.1,q0.5,q0.9\nus_gasoline,2020-01-03T00:00:00+00:00,8933.1,8655.4,8934.6,9207.9\n"
TRIALS_SHOWN = "number,state,value,hidden,steps,duration_s,reason,job\n1,completed,0.83,64,500,12.4,,job_019a8c5e\n"
RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
LAST_SEQ = 2**31 - 1
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "Accepted. `Location` leads to the job; look there again after `Retry-After` seconds.",
        "headers": {
            "Location": {"description": "The job.", "schema": {"type": "string"}},
            "Retry-After": {"description": "Seconds.", "schema": {"type": "string"}},
        },
    }
}
EXAMPLES: Any = {
    "train": {
        "summary": "Train a version",
        "value": {
            "kind": "train",
            "dataset": "gasoline",
            "model": "fuel",
            "preset": "fast",
            "config": {"cell": "gru", "horizon": 12},
        },
    },
    "tune": {
        "summary": "Search for better settings",
        "value": {
            "kind": "tune",
            "dataset": "gasoline",
            "model": "fuel",
            "config": {"horizon": 12},
            "space": {"hidden": [32, 64, 128], "learning_rate": {"low": 0.001, "high": 0.02, "log": True}},
            "trials": 20,
        },
    },
    "backtest": {
        "summary": "Backtest a version",
        "value": {"kind": "backtest", "dataset": "gasoline", "model": "fuel", "origins": 8, "horizon": 12},
    },
    "forecast": {
        "summary": "Forecast all series into a file",
        "value": {"kind": "forecast", "dataset": "gasoline", "model": "fuel", "horizon": 12, "format": "csv"},
    },
}


@router.post(
    "",
    status_code=202,
    summary="Start a job",
    response_model=JobOut,
    responses=ACCEPTED | problems(404, 409, 429, 503),
    dependencies=[IDEMPOTENT],
)
def create_job(
    *,
    wanted: Annotated[JobIn, Body(openapi_examples=EXAMPLES)],
    request: Request,
    session: WriteSession,
    settings: AppSettings,
    engine: JobEngine,
) -> Response:
    """Starts training (`train`), a search for better settings (`tune`), a backtest (`backtest`) or a forecast of many
    series into a file (`forecast`) in the background. Follow it at `/v1/jobs/{id}`, or live at
    `/v1/jobs/{id}/events`. It survives a restart of the server and of the worker. Send an `Idempotency-Key` if you may
    have to repeat the request."""
    ask, around = wanted.root, Around(settings, engine, request.app.state.versions)

    def make() -> tuple[int, dict[str, str], dict[str, Any]]:
        return accepted(*firing.submit(session, ask_of(ask, ask.dataset), around, ask.priority))

    digest = hashlib.sha256(ask.model_dump_json().encode()).hexdigest()
    return idempotent(request, session, digest, make)


@router.get("", summary="List jobs", responses=problems())
def list_jobs(
    *,
    request: Request,
    response: Response,
    session: ReadSession,
    state: Annotated[State | None, Query(description="Only jobs in this state.")] = None,
    kind: Annotated[Kind | None, Query(description="Only jobs of this kind.")] = None,
    page_size: PageSize = DEFAULT_SIZE,
    page_token: PageToken = None,
) -> JobsOut:
    """All jobs, newest first. The trials of a tune are left out unless `kind=trial` asks for them; they are listed at
    `/v1/jobs/{id}/trials`. So are the shards of a large forecast (`kind=shard`), whose progress the forecast shows."""
    rows, before = jobs.list_page(session, state, kind, _before(request, page_token), page_size)
    token = encode_token(request, [before]) if before else None
    response.headers.update(next_link(request, token))
    standings = queueing.standings(session, rows)
    return JobsOut(jobs=[JobOut.of(row, standings.get(row.id)) for row in rows], next_page_token=token)


@router.get("/{job}", summary="Show a job", responses=problems(404))
def show_job(job: JobPath, session: ReadSession) -> JobOut:
    """Where a job is: state, place in the queue, progress, latest figures; its
    result when it succeeded, the reason when it failed."""
    return shown(session, jobs.get(session, job))


def _after(
    job: JobPath,
    session: ReadSession,
    last_event_id: Annotated[
        int | None,
        Header(description="`id` of the last event received: the stream goes on after it.", ge=0, le=LAST_SEQ),
    ] = None,
) -> int:
    """The event to start after, once the job is known to exist: after the stream's first byte it is too late to refuse.
    The session is closed before that byte."""
    jobs.get(session, job)
    return last_event_id or 0


@router.get(
    "/{job}/events",
    summary="Follow a job live",
    response_class=EventSourceResponse,
    response_description="Events `progress`, `metric`, `log` and, at the end, `done`; a comment every 15 s when idle.",
    responses=problems(404),
)
async def follow_job(
    job: JobPath, request: Request, after: Annotated[int, Depends(_after)]
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events, from the beginning or after `Last-Event-ID`, until the job has ended. `data` is JSON:
    `progress` is as in the job; while it waits it has its `position` too and comes without an id, for it is not kept;
    `metric` has a step and figures; `log` a level and a message; `done` the state, with result or error."""
    db, space = database(request), workspace(request)
    told: dict[str, Any] | None = None
    next_look = 0.0
    while True:
        events, ended = await run_in_threadpool(_batch, db, space, job, after)
        for seq, kind, data in events:
            yield ServerSentEvent(id=str(seq), event=kind, data=data)
            after = seq
        if not ended and time.monotonic() >= next_look:
            next_look = time.monotonic() + LOOK_AT_QUEUE_EVERY
            place = await run_in_threadpool(_place, db, space, job)
            if place is not None and place != told:
                yield ServerSentEvent(event="progress", data=place)
            told = place
        if ended or request.app.state.stopping:  # a stopping server ends the stream; the client asks for the rest later
            return
        await asyncio.sleep(LOOK_EVERY)


@router.delete("/{job}", status_code=204, summary="Delete a job", responses=problems(404, 409, 503))
def delete_job(job: JobPath, request: Request, settings: AppSettings) -> None:
    """Deletes a job that has ended, with its events, its checkpoints, and the file or the backtest that it made. A
    version that it made stays; the trials of a tune go with it. What lies in the data folder of another machine is not
    reached from here."""
    with database(request).read(workspace(request)) as session:
        gone = children.removable(session, job)
    forecast_jobs.drop_files(settings, job)  # first: while its row is there, it can be asked for again
    for part in gone[1:]:
        forecast_jobs.drop_checkpoints(settings, part)
    with database(request).write(workspace(request)) as session:
        folders = children.remove(session, job)
    for folder in folders:
        with suppress(StoreAway):  # it is swept later
            store.remove(settings.store, folder)


@router.post("/{job}/cancel", summary="Cancel a job", responses=problems(404, 409))
def cancel_job(job: JobPath, request: Request, engine: JobEngine, afterwards: BackgroundTasks) -> JobOut:
    """Ends a pending or running job. A running one stops within seconds and keeps its last checkpoint, from which
    `retry` goes on. With a tune its trials end. Cancelling twice is no error; a job that has ended otherwise is."""
    with database(request).write(workspace(request)) as session:
        row, queued = children.cancel(session, job)
        answer = JobOut.of(row)
    for name in queued:  # what a worker has it ends by itself
        # After the commit, for the engine writes over a connection of its own, and after the answer, for it may wait.
        afterwards.add_task(engine.forget, name)
    return answer


@router.post(
    "/{job}/retry",
    status_code=202,
    summary="Try a job again",
    response_model=JobOut,
    responses=ACCEPTED | problems(404, 409, 429),
    dependencies=[IDEMPOTENT],
)
def retry_job(
    job: JobPath, request: Request, session: WriteSession, settings: AppSettings, engine: JobEngine
) -> Response:
    """Queues a failed or cancelled job again. It keeps its id, events and last checkpoint; `attempt` goes on. A tune
    keeps its trials, tries again those that failed or were cancelled with it, and its `minutes` begin anew."""

    def make() -> tuple[int, dict[str, str], dict[str, Any]]:
        row = children.retry(session, engine, job, settings.max_queue)
        return accepted(row, queueing.standings(session, [row]).get(row.id))

    return idempotent(request, session, "", make)


@router.get(
    "/{job}/trials",
    summary="List a tune's trials",
    response_model=TrialsOut,
    responses=problems(404, 406)
    | {
        200: {
            "description": "A page as JSON, or all of them as CSV, with a column for each field that is searched.",
            "content": {"text/csv": {"schema": {"type": "string"}, "example": TRIALS_SHOWN}},
        }
    },
)
def list_trials(
    job: JobPath,
    request: Request,
    session: ReadSession,
    page_size: PageSize = DEFAULT_SIZE,
    page_token: PageToken = None,
) -> Response:
    """What a tune has tried so far, in order: values, state, what came of it, how long it took."""
    headers = {"Vary": "Accept"}
    if negotiate(request, (JSON, CSV)) == CSV:
        found = trials.of_tune(session, job, -1, None)
        return table_response(trial_tables.table(found), CSV, headers)
    found = trials.of_tune(session, job, _number(request, page_token), page_size + 1)
    best = trials.best(trials.of(session, job))
    page = [TrialOut.of(one, best is not None and one.job.id == best.job.id) for one in found[:page_size]]
    token = encode_token(request, [page[-1].number]) if len(found) > page_size else None
    body = TrialsOut(trials=page, next_page_token=token).model_dump_json()
    return Response(body, media_type=JSON, headers=headers | next_link(request, token))


@router.head("/{job}/result", include_in_schema=False)
@router.get(
    "/{job}/result",
    summary="Download a job's file",
    response_class=FileResponse,
    responses=problems(404, 416, 503)
    | {
        200: {
            "description": "The file, long form: `key,timestamp,mean,q0.1,…`, a row for each series and step.",
            "content": {
                "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
                "text/csv": {"schema": {"type": "string"}, "example": SHOWN},
            },
        },
        206: {"description": "The bytes asked for in `Range`."},
        304: {"description": "Not changed since the tag in `If-None-Match`."},
    },
)
def download_result(job: JobPath, request: Request, session: ReadSession, settings: AppSettings) -> Response:
    """What a job of kind `forecast` has made, as it was asked for. It never changes: `ETag` and `Repr-Digest` carry its
    sha256, and a download that broke off goes on with `Range`."""
    file = forecast_jobs.result(session, settings, job)
    sha256 = file.digest.removeprefix("sha256:")
    headers = {
        "ETag": f'"{sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:",
    }
    if is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    span = _check_range(request, file.size)
    if file.path is not None:
        return FileResponse(file.path, headers=headers, media_type=file.media, filename=file.name)
    if request.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
        span = None
    first, end = span or (0, file.size)
    headers |= {"Accept-Ranges": "bytes", "Content-Length": str(end - first)}
    headers["Content-Disposition"] = f'attachment; filename="{file.name}"'
    if span is not None:
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{file.size}"
    content = iter(()) if request.method == "HEAD" else forecast_jobs.read(settings, job, file, (first, end))
    return StreamingResponse(content, 206 if span else 200, headers, file.media)


def _check_range(request: Request, size: int) -> tuple[int, int] | None:
    """The bytes asked for, the first and the one after the last; None: all. A `Range` of no known form, or of several
    parts, is dropped, which RFC 9110 (14.2) lets a server do. Raises NoSuchRange when it lies beyond the file."""
    asked = RANGE.fullmatch(request.headers.get("range", "").strip())
    first, last = asked.groups() if asked else ("", "")
    if (first and last and int(first) > int(last)) or not (first or last):
        request.scope["headers"] = [pair for pair in request.scope["headers"] if pair[0] != b"range"]
    elif int(first or 0) >= size or (not first and int(last) == 0):
        detail = f"Range: expected bytes 0 to {size - 1}, got {asked.group() if asked else ''}."
        raise NoSuchRange(detail, headers={"Content-Range": f"bytes */{size}"})
    elif not first:
        return max(0, size - int(last)), size
    else:
        return int(first), min(size, int(last) + 1) if last else size
    return None


def shown(session: ReadSession, row: JobRow) -> JobOut:
    """A job with its place in the queue."""
    return JobOut.of(row, queueing.standings(session, [row]).get(row.id))


def accepted(row: JobRow, standing: Standing | None) -> tuple[int, dict[str, str], dict[str, Any]]:
    """The answer to a job that was asked for: status, headers, body."""
    headers = {"Location": f"/v1/jobs/{row.id}", "Retry-After": "1"}
    return 202, headers, JobOut.of(row, standing).model_dump(mode="json")


def _batch(db: Database, space: str, job: str, after: int) -> tuple[list[tuple[int, str, dict[str, Any]]], bool]:
    with db.read(space) as session:
        rows, ended = jobs.events(session, job, after)
        return [(row.seq, row.kind, row.data) for row in rows], ended


def _place(db: Database, space: str, job: str) -> dict[str, Any] | None:
    """The progress of a job that waits, with its place in the queue; None for any other, and for one deleted just
    now."""
    with db.read(space) as session, suppress(NotFound):
        answer = shown(session, jobs.get(session, job))
        return None if answer.position is None else answer.progress.model_dump() | {"position": answer.position}
    return None


def _number(request: Request, token: str | None) -> int:
    if token is None:
        return -1
    match decode_token(request, token):
        case [int(value)] if 0 <= value < LAST_SEQ:
            return value
        case _:
            raise bad_token()


def _before(request: Request, token: str | None) -> str | None:
    if token is None:
        return None
    match decode_token(request, token):
        case [str(value)] if len(value) <= 64:
            return value
        case _:
            raise bad_token()
