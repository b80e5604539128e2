"""The child: one process, one attempt. It loads torch, waits for its order (a line of JSON on standard input), does the
work and exits. What went wrong is in the job's row, for people; the stack trace is in the log.

A child must not outlive its parent, which would lose its slot and its fence: end of file on standard input ends it.
"""

import faulthandler
import json
import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from app.config import Settings
from app.db.session import AWAY, EVERY_WORKSPACE, WORK_HOLDS_S, Database
from app.errors import FULL, AppError, Invalid, disk_full
from app.http import logs
from app.services import attempts, backtests, forecast_runs, training, trying, tuning
from app.services.attempts import Attempt, Fenced
from app.worker.reporter import Reporter

log = logging.getLogger("gatecast.worker")

WORK = {
    "train": training.run,
    "tune": tuning.run,
    "trial": trying.run,
    "backtest": backtests.run,
    "forecast": forecast_runs.run,
    "shard": forecast_runs.run_shard,
}
NICE = 2  # on a shared CPU the server answers first
UNKNOWN_END = 70  # exit status: the row could not be written; the parent tries again


def main() -> None:
    """Load, report the devices when asked, wait for the order, obey it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    faulthandler.enable()
    settings = Settings()  # pyright: ignore[reportCallIssue] -- every field has a default
    logs.configure(settings.log_level, settings.log_format)
    if "--light" not in sys.argv:
        from models import train  # loads torch

        assert train
    if "--report" in sys.argv:
        from models import devices

        sys.stdout.write(json.dumps(devices()) + "\n")
        sys.stdout.flush()
        os.dup2(2, 1)  # the parent reads no further
    line = _read_line()
    if not line:
        return
    threading.Thread(target=_die_with_parent, daemon=True).start()
    order = json.loads(line)
    if order["device"] == "cpu" and hasattr(os, "nice"):
        os.nice(NICE)
    status = obey(settings, order)
    logging.shutdown()
    os._exit(status)  # taking torch apart in order lasts most of a second, for which the slot's next job would wait


def obey(settings: Settings, order: dict[str, Any]) -> int:
    """Run the attempt named in the order; the exit status is 0 when the job's row tells how it went."""
    database = Database(settings.url, holds=WORK_HOLDS_S)
    job_id, number = order["job"], order["attempt"]
    reporter = Reporter(database, job_id, number)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        reporter.stop()

    signal.signal(signal.SIGTERM, stop)
    try:
        with database.read(EVERY_WORKSPACE) as session:
            row = attempts.load(session, job_id, number)
            attempt = Attempt(
                database=database,
                settings=settings,
                job=job_id,
                number=number,
                kind=row.kind,
                workspace=row.workspace,
                spec=row.spec,
                device=order["device"],
                on_progress=reporter.on_progress,
                should_stop=reporter.should_stop,
            )
        with reporter:
            refusal = _run(attempt)
        if refusal is not None:
            attempts.persist(database, lambda session: attempts.fail(session, job_id, number, refusal))
    except Fenced:
        log.info("job %s attempt %d: no longer ours", job_id, number)
    except AWAY:
        log.exception("job %s attempt %d: the database is away", job_id, number)
        return UNKNOWN_END
    finally:
        database.close()
    return 0


def _run(attempt: Attempt) -> AppError | None:
    """Do the work. Returns why it cannot be done, or None when it has been done or handed back."""
    from models import Stopped

    try:
        WORK[attempt.kind](attempt)
    except Stopped:
        attempts.persist(attempt.database, lambda session: attempts.hand_back(session, attempt.job, attempt.number))
    except (Fenced, *AWAY):
        raise
    except AppError as error:
        return error
    except ValueError as error:
        return Invalid(f"{error}".rstrip(".") + ".", code="unfit-data")
    except Exception as error:  # the last line of defence: whatever it was, the job's row has to say so
        log.exception("job %s attempt %d failed", attempt.job, attempt.number)
        if isinstance(error, OSError) and error.errno in FULL:
            return disk_full(f"the job could not write its files ({error.strerror}). It made no version")
        if _wants_memory(error):
            return AppError(
                "The job needed more memory than its worker has. Ask for less at once (a smaller `hidden`, `layers`, "
                "`batch` or `context`), or give the worker more, then retry the job.",
                code="out-of-memory",
            )
        return AppError(
            f"The job stopped at an error of the server's own ({type(error).__name__}); the worker's log has the "
            f"details under {attempt.job}.",
            code="job-crashed",
        )
    return None


def _wants_memory(error: Exception) -> bool:
    """Whether memory could not be had, as Python, torch on the CPU and torch on a GPU say it."""
    said = "memory" in str(error) and "alloc" in str(error)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or said


def _read_line() -> bytes:
    """One line from standard input, or less at its end. Unbuffered: the rest of the pipe is for `_die_with_parent`."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line if line.endswith(b"\n") else b""


def _die_with_parent() -> None:
    while os.read(0, 1):  # `sys.stdin.read` in a daemon thread would abort the interpreter at its exit
        pass
    os._exit(UNKNOWN_END)


if __name__ == "__main__":
    main()
