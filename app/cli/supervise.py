"""A child process kept alive: started again when it dies, with growing pauses, and stopped gracefully at the end."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

log = logging.getLogger("gatecast.serve")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
HEALTHY_S = 60.0  # a child that lived so long starts with the first pause again
GRACE_S = 15.0  # to write its checkpoints and hand its jobs back


class Supervised:
    """One `gatecast` command as a child with a pipe as its standard input: when this process dies, however it dies, the
    child sees end-of-file there and stops."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.name = arguments[0]
        # -P: the current folder may hold a package `app` of somebody else's.
        self.command = [sys.executable, "-P", "-m", "app", *arguments, "--until-eof"]
        self.stopping = threading.Event()
        self.process: subprocess.Popen[bytes] | None = None
        self.thread = threading.Thread(target=self._keep_alive, name="supervise", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop_soon(self) -> None:
        """Ask the child to stop; does not wait, so a signal handler may call it."""
        self.stopping.set()
        process = self.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Ask the child to stop and wait until it has; after the grace it is killed."""
        self.stop_soon()
        self.thread.join(GRACE_S)
        if self.thread.is_alive() and self.process is not None:
            log.warning("the %s did not stop in %.0f s and is killed", self.name, GRACE_S)
            self.process.kill()
            self.thread.join()

    def _keep_alive(self) -> None:
        pause = FIRST_PAUSE_S
        while not self.stopping.is_set():
            started = time.monotonic()
            # A session of its own: Ctrl-C at the terminal reaches only the parent, which stops the child once.
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, start_new_session=True)
            if self.stopping.is_set():  # between the loop's check and the start
                self.process.send_signal(signal.SIGTERM)
            status = self.process.wait()
            if self.stopping.is_set():
                return
            if time.monotonic() - started >= HEALTHY_S:
                pause = FIRST_PAUSE_S
            log.warning("the %s ended with status %d; it starts again in %.0f s", self.name, status, pause)
            self.stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def stop_at_eof() -> None:
    """Send this process SIGTERM when its standard input ends, which is when the process that started it is gone."""

    def wait() -> None:
        # Not sys.stdin: a daemon thread inside its buffer at exit would abort the interpreter.
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="until-eof", daemon=True).start()
