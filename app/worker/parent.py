"""The parent: takes jobs from the queue, gives each attempt a slot and a child, beats, takes over from dead workers.

It never imports torch and never computes: the engine runs jobs in threads, and a busy interpreter would miss its beats.
"""

import logging
import os
import signal
import subprocess
import threading
import time
from types import FrameType
from typing import NoReturn

from app.config import Settings
from app.db.session import AWAY, EVERY_WORKSPACE, WORK_HOLDS_S, Database
from app.services import attempts, jobs, schedules, shards, trials
from app.worker import census, engine
from app.worker.rooms import Meter, Rooms
from app.worker.slots import Slot, Spares, cores, end, new_name, slots_of, starved

log = logging.getLogger("gatecast.worker")

TICK = 0.2
LIGHT = (trials.TUNE, shards.FORECAST, shards.SHARD)  # kinds of jobs that need no torch
CONNECTIONS = 2  # kept open between two questions; a busy moment takes more
WATCH_EVERY = 1.0  # seconds between two looks for cancelled jobs among those running here
FIRE_EVERY = 3.0  # for schedules that are due
STOP_WITHIN = 18.0  # seconds until a worker that was told to stop is gone, whatever it waits for
STRAY_GRACE = 3.0  # seconds for the child of a cancelled job, whose slot is wanted; its last checkpoint is kept
GRACE = 8.0  # seconds for a child to write its checkpoint; container runtimes wait ten before they kill


class Parent:
    """One worker process. Its threads are the engine's (one for each job running here) and the main one (beats)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = new_name()
        self.database = Database(settings.url, holds=WORK_HOLDS_S, kept=CONNECTIONS)
        self.engine = jobs.Engine(settings.url, self.database)
        self.spares = Spares(settings)
        self.children: dict[tuple[str, int], subprocess.Popen[bytes]] = {}  # (job, attempt) -> process
        self.stopping: set[tuple[str, int]] = set()
        self.at_work: set[str] = set()
        self.draining = threading.Event()
        self._signalled = False

    def run(self) -> NoReturn:
        """Work until a signal says stop."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            devices = self.spares.report()
            slots = slots_of(devices, self.settings.device, self.settings.slots)
        except (RuntimeError, ValueError) as error:
            log.error("the worker cannot start: %s", error)
            raise SystemExit(1) from None
        self.spares.threads = max(1, cores() // len(slots))
        self.rooms = Rooms(slots, Meter(devices))
        said = census.Self(self.name, devices, [slot.name for slot in slots], self.at_work)
        me = census.Member(self.database, self.engine, said, most=self.settings.max_running)
        me.beat()  # before the launch: work claimed by a worker without a row would be taken from it at once
        engine.launch(self.database, self.name, self.rooms, self.work)
        log.info("worker %s: %s", self.name, ", ".join(slot.name for slot in slots))
        self._watch(me)
        self._drain(me)

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self._signalled = True  # no lock in here: the main thread may hold it

    # ------------------------------------------------------------ one job, in a thread of the engine's

    def work(self, job_id: str, enqueued: int) -> None:
        """Try the job until its row says that it has ended, or is no longer ours. Runs again from the top on another
        worker when this one dies, so it keeps nothing but the row."""
        name = jobs.workflow_id(job_id, enqueued)
        self.at_work.add(name)
        slot = self.rooms.take()
        try:
            while self._attempt(job_id, enqueued, slot):
                pass
        finally:
            self.rooms.give(slot)
            self.at_work.discard(name)
        if self.settings.max_running is not None:
            self._let_next_begin(job_id)

    def _attempt(self, job_id: str, enqueued: int, slot: Slot) -> bool:
        """One attempt in one child. True: it was lost, and another may follow."""
        self._stand_still_when_draining()
        number = attempts.persist(
            self.database,
            lambda session: attempts.begin(
                session, job_id, enqueued, self.name, slot.name, most=self.settings.max_running
            ),
            patience=None,
        )
        if number is None:
            return False
        order, before = {"job": job_id, "attempt": number, "device": slot.device}, starved()
        child = self.spares.light(order) if self._is_light(job_id) else self.spares.take(order)
        self.children[job_id, number] = child
        try:
            status = child.wait()
        finally:
            end(child, 0.0)
            if not self.draining.is_set():
                del self.children[job_id, number]
        killed = status == -signal.SIGKILL and before is not None and starved() == before
        self._stand_still_when_draining()
        reason, counts = _reason(status, killed), attempts.KILLED if killed else attempts.OWN
        again = attempts.persist(
            self.database, lambda session: attempts.lose(session, job_id, number, reason, counts), patience=None
        )
        if again:
            log.warning("job %s attempt %d: %s", job_id, number, reason)
        return again

    def _let_next_begin(self, job_id: str) -> None:
        """Queue what waited for this job to end. Whatever is missed here, the first of the workers does (`census`)."""
        most = self.settings.max_running
        try:
            with self.database.write(EVERY_WORKSPACE) as session:
                if (workspace := attempts.workspace_of(session, job_id)) is not None:
                    attempts.release(session, self.engine, workspace, most)
        except AWAY as error:
            log.warning("the database is away: %s", error)

    def _is_light(self, job_id: str) -> bool:
        """Whether the job needs no torch: a step of a tune plans, and forecasts come from a version's graph."""
        try:
            with self.database.read(EVERY_WORKSPACE) as session:
                return attempts.kind_of(session, job_id) in LIGHT
        except AWAY:
            return False  # any child can take it

    def _stand_still_when_draining(self) -> None:
        """Keep the engine's record of this job open, so that another worker takes it; this process is about to exit."""
        if self.draining.is_set():
            threading.Event().wait()

    # ------------------------------------------------------------ all jobs, in the main thread

    def _watch(self, me: census.Member) -> None:
        next_watch = next_fire = 0.0
        while not self._signalled:
            time.sleep(TICK)
            if time.monotonic() < next_watch:
                continue
            next_watch = time.monotonic() + WATCH_EVERY
            try:
                self.spares.refill()
                self._stop_strays()
                me.serve()
                if time.monotonic() >= next_fire:
                    next_fire = time.monotonic() + FIRE_EVERY
                    self._fire_schedules()
            except AWAY as error:
                log.warning("the database is away: %s", error)
            except Exception:  # without beats this worker would be taken for dead while its children work
                log.exception("looking after the workers failed; it is tried again")

    def _stop_strays(self) -> None:
        """Stop the children whose job was cancelled or taken over."""
        running = list(self.children)
        if not running:
            return
        with self.database.read(EVERY_WORKSPACE) as session:
            strays = attempts.strays(session, running)
        for attempt in strays:
            if attempt not in self.stopping and (child := self.children.get(attempt)) is not None:
                self.stopping.add(attempt)
                threading.Thread(target=end, args=(child, STRAY_GRACE), daemon=True).start()

    def _fire_schedules(self) -> None:
        """Ask for the jobs of schedules whose time has come; several workers may try, one of them does each."""
        with self.database.read(EVERY_WORKSPACE) as session:
            if not schedules.due(session):
                return
        from app.services import firing  # what plans jobs: a second and 40 MB that most workers never need
        from app.services.opened import OpenVersions

        around = firing.Around(self.settings, self.engine, OpenVersions(self.settings.store, 1))
        firing.fire(self.database, around)

    def _drain(self, me: census.Member) -> NoReturn:
        """Let the children write their checkpoints and hand back; hand back for those that do not; leave."""
        log.info("worker %s stops", self.name)
        self.draining.set()
        at_last = threading.Timer(STOP_WITHIN, os._exit, [0])  # a database that does not answer holds nobody up
        at_last.daemon = True
        at_last.start()
        threads = [
            threading.Thread(target=end, args=(child, GRACE), daemon=True) for child in list(self.children.values())
        ]
        for thread in threads:
            thread.start()
        self.spares.close()
        for thread in threads:
            thread.join(GRACE + 1.0)
        try:
            for job_id, number in list(self.children):
                self._hand_back(job_id, number)
            me.leave()
        except AWAY as error:
            log.warning("the database is away: %s; the others will see that this worker is gone", error)
        logging.shutdown()
        os._exit(0)  # the engine's threads stand still on purpose

    def _hand_back(self, job_id: str, number: int) -> None:
        try:
            with self.database.write(EVERY_WORKSPACE) as session:
                attempts.hand_back(session, job_id, number)
        except attempts.Fenced:
            pass  # the child has done it, or the job has ended


def _reason(status: int, killed: bool) -> str:
    """How a child ended, in words; `killed`: not by the kernel for want of memory."""
    if status >= 0:
        return f"its process ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    said = f"its process was ended by {name}"
    if killed:
        return f"{said}, though the kernel ended nobody for want of memory: somebody or something else did"
    return f"{said}, often the system's answer to too little memory" if name == "SIGKILL" else said
