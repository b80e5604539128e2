"""The engine inside a worker: one queue, and none of the loops that serve what we do not use.

Left to itself an idle engine asks ten times a second for schedules, delays, timeouts, queues and messages of its own
that there never are. What follows keeps to its public settings where there are any; the rest is here, in the one place
where something private of the engine is touched, so its version is pinned. `bench/chaos.py --only idle` shows what
comes of it.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from dbos import DBOS, DBOSPortableJSONSerializer

from app.db.session import Database
from app.services import jobs
from app.worker.rooms import Rooms

# The engine would take a hash of the code: after any change of it, interrupted jobs would never be picked up again.
APPLICATION_VERSION = "1"
POLL = 0.5  # seconds between two looks into the queue
LOOK_ANYWAY = 5.0  # seconds, after which the queue is asked although nothing seems to have been written
NEVER = 7 * 24 * 3600.0  # for loops that have nothing to do here


def launch(database: Database, name: str, rooms: Rooms, work: Callable[[str, int], None]) -> None:
    """Take jobs from the queue from now on, as many as there are rooms, and call `work` with each (job, number of its
    queueing) in a thread of the engine's."""
    slots = rooms.slots
    engine = DBOS(
        config={
            "name": jobs.APPLICATION,
            "system_database_url": database.url,
            "system_database_engine": None if database.is_sqlite else database.engine,
            "executor_id": name,
            "application_version": APPLICATION_VERSION,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            "run_migrations": False,
            # A worker that stood still and was taken over waits in a thread for each job it then had, until that ends.
            "max_executor_threads": slots + 64,
            # Of messages and schedules of the engine's own, which nobody here sends or makes.
            "use_listen_notify": False,
            "notification_listener_polling_interval_sec": NEVER,
            "scheduler_polling_interval_sec": NEVER,
        }
    )
    engine_log = logging.getLogger("dbos")
    engine_log.handlers.clear()
    engine_log.propagate = True

    @DBOS.workflow(name=jobs.WORKFLOW, max_recovery_attempts=None)
    def _run_job(job_id: str, enqueued: int) -> None:  # pyright: ignore[reportUnusedFunction]
        work(job_id, enqueued)

    DBOS.listen_queues([])  # until all below is in its place: it would ask as the worker that started before did
    internal = engine._registry.get_internal_queue()  # pyright: ignore[reportPrivateUsage]
    internal._polling_interval_sec = NEVER  # pyright: ignore[reportPrivateUsage]
    DBOS.launch()
    engine._background_jobs_stop_event.set()  # pyright: ignore[reportPrivateUsage] -- of delays and timeouts
    queue = DBOS.register_queue(
        jobs.QUEUE, worker_concurrency=slots, polling_interval_sec=POLL, on_conflict="always_update"
    )
    claims = Claims(engine._sys_db.start_queued_workflows, database.stamp, rooms)  # pyright: ignore[reportPrivateUsage]
    _settle(engine._sys_db, queue, claims)  # pyright: ignore[reportPrivateUsage]
    engine._listening_queues = [jobs.QUEUE]  # pyright: ignore[reportPrivateUsage]


def _settle(asked: Any, queue: Any, claims: "Claims") -> None:
    """Answer what the engine asks the database about its queues again and again."""
    # At each poll it reads how many jobs a worker may run from the queue's row, which all share: the number of the one
    # that started last would hold for all. There is no public way to have one's own.
    read = asked.get_queue

    def get_queue(name: str, **named: Any) -> Any:
        return queue if name == queue.name else read(name, **named)

    def list_queues(**_named: Any) -> list[Any]:
        return [queue]

    asked.get_queue, asked.list_queues = get_queue, list_queues
    asked.start_queued_workflows = claims


class Claims:
    """The engine's question for work, asked only where the answer can be another than the last one: after an empty
    answer, once anybody has written anything (see `Database.stamp`), or after some seconds all the same. No more is
    asked for than there is room for."""

    def __init__(self, ask: Callable[..., Any], stamp: Callable[[], Any], rooms: Rooms) -> None:
        self._ask, self._stamp, self._rooms = ask, stamp, rooms
        self._empty_at: Any = None
        self._ask_at = 0.0

    def __call__(
        self, queue: Any, executor: str, version: str, partition: str | None, running: int = 0, *more: Any, **named: Any
    ) -> Any:
        if queue.name != jobs.QUEUE:
            return self._ask(queue, executor, version, partition, running, *more, **named)
        now = self._stamp()  # before the question: what comes in between is another stamp the next time
        if now is not None and now == self._empty_at and time.monotonic() < self._ask_at:
            return [], None
        self._empty_at = None
        running = max(running, self._rooms.slots - self._rooms.open())
        found, stopped = self._ask(queue, executor, version, partition, running, *more, **named)
        self._rooms.promise(len(found))
        if not found and stopped is None:
            self._empty_at, self._ask_at = now, time.monotonic() + LOOK_ANYWAY
        return found, stopped
