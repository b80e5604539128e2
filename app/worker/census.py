"""Who is alive: each worker renews its row; the living one with the smallest name hands on the work of the dead, queues
again what the engine has lost, and keeps the house clean."""

import datetime as dt
import logging
import time
from typing import Any

from app.db.session import EVERY_WORKSPACE, Database
from app.services import attempts, jobs
from app.services.jobs import DEAD_AFTER, Engine
from app.worker.slots import is_gone

log = logging.getLogger("gatecast.worker")

BEAT_EVERY = 3.0
RECONCILE_EVERY = 30.0
SETTLED = dt.timedelta(seconds=30)  # a job younger than this is not looked at: its queueing may be under way


class Member:
    """This worker among the others. `serve` is called about once a second and does what is due."""

    def __init__(
        self, database: Database, engine: Engine, name: str, devices: list[dict[str, Any]], slots: list[str]
    ) -> None:
        self._database = database
        self._engine = engine
        self._name = name
        self._devices = devices
        self._slots = slots
        self._unbroken_since = _now()
        self._last_beat = _now()
        self._next_beat = 0.0
        self._next_reconcile = time.monotonic() + RECONCILE_EVERY

    def serve(self) -> None:
        if time.monotonic() < self._next_beat:
            return
        self._next_beat = time.monotonic() + BEAT_EVERY
        self.beat()
        living = self._living()
        if living is None:
            return
        self._hand_on(living)
        if time.monotonic() >= self._next_reconcile:
            self._next_reconcile = time.monotonic() + RECONCILE_EVERY
            self._reconcile()

    def beat(self) -> None:
        with self._database.write(EVERY_WORKSPACE) as session:
            jobs.beat(session, self._name, self._devices, self._slots)
        now = _now()
        if now - self._last_beat > DEAD_AFTER / 2:
            self._unbroken_since = now  # the database was away, or this process slept: others may seem dead and live
        self._last_beat = now

    def leave(self) -> None:
        with self._database.write(EVERY_WORKSPACE) as session:
            jobs.bury(session, [self._name])

    def _living(self) -> set[str] | None:
        """The names of the living workers when this one is the first of them; the rows of the dead are deleted."""
        may_judge = _now() - self._unbroken_since > DEAD_AFTER
        with self._database.write(EVERY_WORKSPACE) as session:
            ages = jobs.ages(session)
            dead = {name for name, age in ages.items() if is_gone(name) or (may_judge and age > DEAD_AFTER)}
            living = set(ages) - dead
            if self._name != min(living, default=""):
                return None
            jobs.bury(session, dead)
        for name in dead:
            log.warning("worker %s is gone; its jobs are handed on", name)
        return living

    def _hand_on(self, living: set[str]) -> None:
        for name in self._engine.hand_on(living):
            log.info("%s is handed on", name)

    def _reconcile(self) -> None:
        """Queue again the jobs that the engine has ended or never known while their row says pending or running: what
        is left when the database failed between the engine's commit and ours."""
        with self._database.read(EVERY_WORKSPACE) as session:
            active = attempts.active(session, jobs.clock(session) - SETTLED)
        if not active:
            return
        for job_id, n in self._engine.lost(active).items():
            with self._database.write(EVERY_WORKSPACE) as session:
                if attempts.requeue(session, self._engine, job_id, n):
                    log.warning("job %s was lost by the queue and is queued again", job_id)


def _now() -> float:
    """Seconds since some moment, counting those the machine slept, which the monotonic clock of Linux does not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()
