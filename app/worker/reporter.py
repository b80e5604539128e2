"""What an attempt tells while it works, written from a thread of its own: a slow database does not slow training."""

import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

from app.db.session import AWAY, EVERY_WORKSPACE, Database
from app.services import attempts
from app.services.attempts import Fenced, Report
from models import Progress

log = logging.getLogger("gatecast.worker")

PAUSE = 0.5  # seconds between two writes
DOUBLED_EVERY = 1000  # events: after each so many, events come half as often, so that 10,000 last for days


class Reporter:
    """Takes every `Progress` of the core, writes the latest at most twice a second, and knows when to stop the work."""

    def __init__(self, database: Database, job_id: str, number: int) -> None:
        self._database = database
        self._job_id = job_id
        self._number = number
        self._latest: Progress | None = None
        self._metrics: Mapping[str, float] = {}
        self._new_metrics = False
        self._counted = Progress(0, 0, "")  # the latest with a total
        self._first: tuple[int, float] | None = None  # step and time where its run began, in this attempt
        self._seq = 0
        self._next_event = 0.0
        self._stop = threading.Event()
        self._closed = threading.Event()
        self._news = threading.Event()  # something to write, or nothing more to wait for
        self._thread = threading.Thread(target=self._write_on, name="reporter", daemon=True)

    def __enter__(self) -> "Reporter":
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._closed.set()
        self._news.set()
        self._thread.join()

    def on_progress(self, progress: Progress) -> None:
        """Called at every step of the work: only notes it. Without a total it is news, but no step."""
        if progress.metrics:
            self._metrics, self._new_metrics = progress.metrics, True
        if not progress.total:
            progress = replace(self._counted, message=progress.message, metrics={})
        elif self._first is None or progress.step < self._counted.step:
            self._first = progress.step, time.monotonic()
        self._counted = self._latest = progress
        self._news.set()

    def should_stop(self) -> bool:
        """Whether the worker is stopping, or the job is no longer this attempt's."""
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()

    def _write_on(self) -> None:
        while self._news.wait():
            self._news.clear()  # before the looks: what comes in between is news again
            if self._closed.is_set():
                return
            self._write()
            self._closed.wait(PAUSE)

    def _write(self) -> None:
        latest, self._latest = self._latest, None
        if latest is None:
            return
        told, self._new_metrics = self._new_metrics, False
        now = time.monotonic()
        as_events = now >= self._next_event
        metrics = {name: value for name, value in self._metrics.items() if math.isfinite(value)}
        what = Report(self._document(latest, now), metrics, latest.checkpoint, as_events, told)
        try:
            with self._database.write(EVERY_WORKSPACE) as session:
                seq = attempts.report(session, self._job_id, self._number, what)
        except Fenced:
            self._stop.set()
            return
        except AWAY as error:
            log.warning("job %s: progress not written: %s", self._job_id, error)
            return
        except Exception:  # telling is not worth the work's life
            log.exception("job %s: progress not written", self._job_id)
            return
        if as_events:
            self._seq = max(seq, self._seq)
            self._next_event = now + PAUSE * (2 ** (self._seq / DOUBLED_EVERY) - 0.5)
        elif told:
            self._new_metrics = True  # they are in the row; their event is still to come

    def _document(self, at: Progress, now: float) -> dict[str, Any]:
        eta: float | None = None
        pace: float | None = None  # steps a second, since the run began
        if self._first is not None and at.step > self._first[0] and now > self._first[1]:
            pace = (at.step - self._first[0]) / (now - self._first[1])
            eta = round(max(0, at.total - at.step) / pace, 1)
        return {
            "step": at.step,
            "total": at.total,
            "fraction": round(at.step / at.total, 4) if at.total else 0.0,
            "eta_s": eta,
            "steps_per_s": None if pace is None else round(pace, 3),
            "rate": None if pace is None or not at.unit else round(pace * at.each, 3),
            "unit": at.unit or None,
            "message": at.message,
        }
