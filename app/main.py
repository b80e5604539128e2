"""create_app: the ASGI application, from settings alone."""

import asyncio
import datetime as dt
import logging
import os
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import Message

from app import store
from app.api import (
    backtests,
    datasets,
    forecasts,
    jobs,
    parcels,
    points,
    registry,
    revisions,
    schedules,
    series,
    system,
)
from app.api.plain import PlainForecasts
from app.config import Settings
from app.db.session import EVERY_WORKSPACE, REQUEST_WAITS_S, Database
from app.http.chores import attempt
from app.http.docs import install_docs
from app.http.encodings import Encodings
from app.http.heads import Heads
from app.http.idempotency import tidy
from app.http.keys import Keys
from app.http.limits import BodyLimit
from app.http.openapi import install_openapi
from app.http.problems import install_problems
from app.http.requests import UNSEEN, Requests
from app.http.routers import operation_id
from app.services import leftovers
from app.services.arrivals import Arrivals
from app.services.contexts import MIB, Contexts
from app.services.ends import KeptEnds
from app.services.forecasts import Meant
from app.services.jobs import Engine
from app.services.opened import OpenVersions, Remembered
from app.services.turns import Turns

log = logging.getLogger("gatecast")

ROOMS = (datasets, revisions, series, points, jobs, schedules, registry, parcels, forecasts, backtests, system)
EXAMPLES = Path(__file__).parent / "api" / "examples.json"

LEFTOVER_S = 6 * 3600.0  # a file in the spool that nobody has written to for so long belongs to a request that died
TIDY_EVERY_S = 3600.0
# What a page of another origin may read of an answer's headers, beside the few that it always may.
EXPOSED = [
    *("ETag", "Link", "Location", "Retry-After", "Server-Timing", "X-Request-Id", "Repr-Digest", "Idempotent-Replayed"),
    *("Gatecast-Model", "Gatecast-Revision", "Gatecast-Warnings"),
]


def create_app(settings: Settings) -> FastAPI:
    """The application over one database and one data folder. Opens no connection and starts no thread of its own."""
    traced = _is_traced()
    app = FastAPI(
        title="Gatecast",
        version=system.VERSION,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        generate_unique_id_function=operation_id,
        routes=[route for module in ROOMS for route in module.router.routes],
        telemetry={"tracing": traced, "metrics": traced, "logs": traced},
    )
    app.state.settings = settings
    app.state.stopping = False  # set when the process was told to stop: endless answers end then
    app.state.database = Database(settings.url, REQUEST_WAITS_S)
    app.state.engine = Engine(settings.url)
    app.state.versions = OpenVersions(settings.store, settings.max_versions_loaded)
    app.state.meant = Remembered[Meant](app.state.database)
    contexts = Contexts(settings.max_versions_loaded * MIB)
    app.state.ends = KeptEnds(settings.max_versions_loaded * MIB)
    app.state.arrivals = Arrivals(
        app.state.database, app.state.versions, Contexts(settings.max_versions_loaded * MIB // 4)
    )
    app.state.turns = Turns(app.state.database, app.state.versions, app.state.meant, contexts, app.state.arrivals.moves)
    install_problems(app)
    install_openapi(app, EXAMPLES)
    install_docs(app)
    # The last one added is the outermost.
    app.add_middleware(Encodings, settings=settings)
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(PlainForecasts, turns=app.state.turns, arrivals=app.state.arrivals, settings=settings)
    app.add_middleware(Keys, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
            max_age=600,
        )
    app.add_middleware(Heads)
    app.add_middleware(Requests, root_path=settings.root_path)
    return app


def _is_traced() -> bool:
    """Whether this process was started with OpenTelemetry's settings. The framework would look for them in each request
    anew, which takes a fifth of what a forecast takes."""
    return any(name.startswith("OTEL_") for name in os.environ)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    settings: Settings = app.state.settings
    for folder in (store.here(settings.store), settings.spool, settings.checkpoints):
        folder.mkdir(parents=True, exist_ok=True)
    sweep_spool(settings, time.time())
    await warm(app)
    tidying = asyncio.create_task(_tidy_every_hour(app))
    yield
    tidying.cancel()
    app.state.turns.close()
    app.state.arrivals.close()
    app.state.engine.close()
    app.state.database.close()


async def warm(app: FastAPI) -> None:
    """Ask what the first client would ask, without a connection, so that whatever loads on first use is there before
    the server says that it is ready. It starts without the model that answers, too."""
    key = app.state.settings.api_key
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    headers += [(b"x-api-key", key.get_secret_value().encode())] if key else []
    said: list[Message] = []

    async def finish(message: Message) -> None:
        said.append(message)

    for question in forecasts.FIRST:
        body: list[Message] = [{"type": "http.request", "body": orjson.dumps(question)}]

        async def receive(body: list[Message] = body) -> Message:
            return body.pop() if body else await asyncio.Future[Message]()

        scope = {"type": "http", "method": "POST", "path": "/v1/forecasts", "headers": headers, "query_string": b""}
        await app({**scope, UNSEEN: True}, receive, finish)
    if any(message.get("status", 200) != 200 for message in said):
        detail = orjson.loads(said[-1]["body"])["detail"]
        log.warning("no forecasts without a model of one's own: %s", detail)


async def _tidy_every_hour(app: FastAPI) -> None:
    while True:
        await asyncio.sleep(TIDY_EVERY_S)
        settings, database, now = app.state.settings, app.state.database, time.time()
        await asyncio.to_thread(sweep_spool, settings, now)
        await asyncio.to_thread(attempt, tidy, database)
        await asyncio.to_thread(attempt, sweep_store, settings, database, now)


def sweep_spool(settings: Settings, now: float) -> None:
    """Drop the spooled bodies of requests that died, and the folders of their parsers; those alive write to theirs."""
    for left in settings.spool.iterdir():
        try:
            if now - max(path.stat().st_mtime for path in (left, *left.rglob("*"))) < LEFTOVER_S:
                continue
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
            log.info("dropped %s from the spool: the request that wrote it is gone", left.name)
        except OSError:  # another process was quicker
            continue


def sweep_store(settings: Settings, database: Database, now: float) -> None:
    """Drop the version folders of attempts and imports that died before their version was recorded."""
    known = store.names(settings.store)  # before anything is asked of the database
    with database.read(EVERY_WORKSPACE) as session:
        left = leftovers.rubbish(session, known)
    swept = store.sweep(settings.store, left, now)
    for name in swept:
        log.info("dropped %s from the model store: what wrote it died before it was recorded", name)
    with database.write(EVERY_WORKSPACE) as session:
        leftovers.forget(session, swept, dt.datetime.fromtimestamp(now, dt.UTC))
