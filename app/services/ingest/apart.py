"""A body read in a process of its own, also while it is still arriving: started here, answered through files in a
folder."""

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from app.errors import Unavailable
from app.services.ingest.coming import Coming
from app.services.ingest.transfer import WAITS, pack_question, read_answer
from app.services.ingest.upload import Ask, Known, Upload

OWN_PROCESS_BYTES = 1 << 20
# For glibc: the pages of an array that is gone are used for the next one, which else takes each of them anew from the
# system. All of it goes back when the process ends.
KEEPS_PAGES = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
SOON_S, KEPT_S = 0.5, 60.0  # after a long body: until a process is made for the next one, and until it is ended
NO_ALGEBRA = {"OPENBLAS_NUM_THREADS": "1"}  # threads that numpy would start for nothing


# Each may need several times its file in memory: more at once than there are processors would only be slower.
_seats = threading.BoundedSemaphore(os.cpu_count() or 1)


# One body more may be read while it arrives: a slow sender must not keep another's from being read at all.
_ahead = threading.BoundedSemaphore(1)


def parse_apart(path: Path, folder: Path, ask: Ask, known: Known) -> Upload:
    """`parse_here` in a process of its own, which answers through `folder`. Unavailable when it was killed."""
    with _seats:
        reader = _Reader(path, folder, ask, known)
        try:
            return reader.answer()
        finally:
            reader.close()


class Ahead:
    """A body that is being read while it arrives at `path`, `length` bytes in the end."""

    def __init__(self, path: Path, length: int, ask: Ask, known: Known) -> None:
        self._ask, self._known = ask, known
        with contextlib.ExitStack() as begun:
            begun.callback(_ahead.release)
            folder = Path(tempfile.mkdtemp(dir=path.parent, prefix="ingest-"))
            begun.callback(shutil.rmtree, folder, ignore_errors=True)
            self._folder = folder
            self._reader = _Reader(path, folder, replace(ask, length=length), known)
            begun.callback(self._reader.close)
            self._begun = begun.pop_all()

    @classmethod
    def begin(cls, path: Path, length: int, ask: Ask, known: Known) -> "Ahead | None":
        """Read it; None where another body is read ahead already."""
        return cls(path, length, ask, known) if _ahead.acquire(blocking=False) else None

    def fits(self, ask: Ask, known: Known) -> bool:
        """Whether it is read for this question, and the dataset is still what it was."""
        return (ask, known) == (self._ask, self._known)

    def answer(self) -> Upload:
        """The Upload, once all of the body is there. Raises as `parse`."""
        return self._reader.answer()

    def coming(self) -> Coming:
        """The same, a part after the other."""
        return Coming(self._folder, self._reader.told(), self._reader.answer)

    def close(self) -> None:
        """End it, and drop what it has made."""
        self._begun.close()
        spare.renew()


def _started() -> subprocess.Popen[bytes]:
    """A process that waits for its question. A Ctrl-C passes it by, so that a server may end what it began."""
    # It needs none of the server's secrets.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATECAST_")}
    environment = KEEPS_PAGES | NO_ALGEBRA | environment
    command = [sys.executable, "-m", "app.services.ingest.process"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True, bufsize=0
    )


class Spare:
    """A process that is there before its question. Its start takes a quarter of a second, which a body of Parquet would
    wait for, the shortest most of all; it holds 40 MB. So one stays that has read a short body, and one is made soon
    after a long one, for a minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._timer: threading.Timer | None = None

    def take(self) -> subprocess.Popen[bytes] | None:
        """The process, for good; None where there is none."""
        with self._lock:
            child, self._child = self._child, None
            self._in(None)
        if child is None or child.poll() is None:
            return child
        _end(child)
        return None

    def give(self, child: subprocess.Popen[bytes]) -> None:
        """One that waits for its next question; where there is one already, it is ended."""
        with self._lock:
            spared = self._child is None
            if spared:
                self._child = child
                self._in(KEPT_S, self.drop)
        if not spared:
            _end(child)

    def renew(self) -> None:
        """Soon there shall be one."""
        with self._lock:
            if self._child is None:
                self._in(SOON_S, self._start)

    def _start(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._child is None:
                self._child = _started()
                self._in(KEPT_S, self.drop)

    def drop(self) -> None:
        """Have none."""
        if (child := self.take()) is not None:
            _end(child)

    def _in(self, seconds: float | None, what: Callable[[], None] | None = None) -> None:
        """Do `what` in so many seconds, and nothing else; with the lock held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None and what is not None:
            self._timer = threading.Timer(seconds, what)
            self._timer.daemon = True
            self._timer.start()


spare = Spare()
atexit.register(spare.drop)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdout, child.stdin):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class _Reader:
    """A process asked one question."""

    def __init__(self, path: Path, folder: Path, ask: Ask, known: Known) -> None:
        self._folder = folder
        question = pack_question(path.absolute(), folder.absolute(), ask, known)
        self._child = spare.take() or _started()
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._questions, self._told = self._child.stdin, self._child.stdout
        self._waits = False  # it has answered, and may be asked again
        with contextlib.suppress(BrokenPipeError):
            self._questions.write(question + b"\n")
            self._questions.flush()

    def told(self) -> Iterator[str]:
        """The letters it says, until it has answered or ends."""
        while not self._waits and (said := self._told.read(4096)):
            letters = said.decode("latin-1")
            self._waits = letters.endswith(WAITS)
            yield from letters.removesuffix(WAITS)

    def answer(self) -> Upload:
        """What it answers. Unavailable when it was killed."""
        for _ in self.told():  # or it would wait for somebody to listen
            pass
        upload = read_answer(self._folder)
        if upload is None:
            code = self._child.wait()
            how = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
            raise Unavailable(
                f"the process that read the file was {how}, perhaps for want of memory; nothing was stored. "
                "Send the file again, or in smaller parts.",
                code="reader-ended",
            )
        return upload

    def close(self) -> None:
        """End it, unless it may be asked again."""
        if self._waits:
            spare.give(self._child)
        else:
            _end(self._child)
