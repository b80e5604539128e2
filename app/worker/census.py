"""Who is alive: each worker renews its row; the living one with the smallest name hands on the work of the dead, queues
again what the engine has lost, and keeps the house clean."""

import datetime as dt
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import utc_now
from app.services import attempts, jobs, queueing, trials
from app.services.jobs import DEAD_AFTER, Engine
from app.worker.slots import is_gone

log = logging.getLogger("gatecast.worker")

BEAT_EVERY = 3.0
RECONCILE_EVERY = 30.0
TIDY_EVERY = 3600.0
KEPT = dt.timedelta(days=7)  # the engine's record of work that has ended
SETTLED = dt.timedelta(seconds=30)  # a job younger than this is not looked at: its queueing may be under way


def awake() -> float:
    """Seconds since some moment, counting those the machine slept, which the monotonic clock of Linux does not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()


@dataclass(frozen=True)
class Self:
    """What a worker says of itself in its row."""

    name: str
    devices: list[dict[str, Any]]
    slots: list[str]
    at_work: Collection[str] = ()  # the engine's names of what it has begun and not ended; changes while it works


class Member:
    """This worker among the others. `serve` is called about once a second and does what is due."""

    def __init__(
        self,
        database: Database,
        engine: Engine,
        me: Self,
        clock: Callable[[], float] = awake,
        most: int | None = None,
    ) -> None:
        self._most = most  # jobs of one workspace that run at once
        self._database = database
        self._engine = engine
        self._me = me
        self._clock = clock
        self._unbroken_since = clock()
        self._last_beat = clock()
        self._next_beat = clock()
        self._next_reconcile = clock() + RECONCILE_EVERY
        self._next_tidy = clock() + RECONCILE_EVERY
        self._idle: set[str] = set()  # claimed by this worker, and not begun at the last look

    def serve(self) -> None:
        """Beat; and, as the first of the living, look after the others' work. Raises what the database raises."""
        if self._clock() < self._next_beat:
            return
        self._next_beat = self._clock() + BEAT_EVERY
        self.beat()
        before, self._idle = self._idle, set[str]()
        self._idle = self._engine.take_up(self._me.name, list(self._me.at_work), before)
        living = self._living()
        if living is None:
            return
        for name in self._engine.hand_on(living):
            log.info("%s is handed on", name)
        self._release()
        if self._clock() >= self._next_reconcile:
            self._next_reconcile = self._clock() + RECONCILE_EVERY
            self._reconcile()
        if self._clock() >= self._next_tidy:
            self._next_tidy = self._clock() + TIDY_EVERY
            self._engine.tidy(utc_now() - KEPT)

    def beat(self) -> None:
        """Renew this worker's row."""
        with self._database.write(EVERY_WORKSPACE) as session:
            jobs.beat(session, self._me.name, self._me.devices, self._me.slots)
        now = self._clock()
        if now - self._last_beat > DEAD_AFTER / 2:
            self._unbroken_since = now  # the database was away, or this process slept: others may seem dead and live
        self._last_beat = now

    def leave(self) -> None:
        """Delete this worker's row: what it leaves is handed on at once."""
        with self._database.write(EVERY_WORKSPACE) as session:
            jobs.bury(session, [self._me.name])

    def _living(self) -> set[str] | None:
        """The names of the living workers when this one is the first of them; the rows of the dead are deleted."""
        may_judge = self._clock() - self._unbroken_since > DEAD_AFTER
        with self._database.read(EVERY_WORKSPACE) as session:
            ages = jobs.ages(session)
        dead = {name for name, age in ages.items() if is_gone(name) or (may_judge and age > DEAD_AFTER)}
        living = set(ages) - dead
        if self._me.name != min(living, default=""):
            return None
        if dead:
            with self._database.write(EVERY_WORKSPACE) as session:
                jobs.bury(session, dead)
        for name in dead:
            log.warning("worker %s is gone", name)
        return living

    def _release(self) -> None:
        """Queue the jobs that were put aside and may begin: those that nobody else has, or that a limit kept which is
        gone; and the next step of tunes whose time is over while their trials wait."""
        with self._database.read(EVERY_WORKSPACE) as session:
            found = queueing.workspaces_parked(session)
            overdue = trials.overdue(session, jobs.clock(session))
        for tune, n in overdue:
            with self._database.write(EVERY_WORKSPACE) as session:
                trials.wake(session, self._engine, tune, n)
        for workspace in found:
            with self._database.write(EVERY_WORKSPACE) as session:
                attempts.release(session, self._engine, workspace, self._most)

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
