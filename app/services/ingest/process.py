"""The process that reads bodies, one after another: `python -m app.services.ingest.process`, a question a line on
standard input."""

import contextlib
import os
import re
import resource
import sys
import threading
from pathlib import Path
from queue import SimpleQueue

from app.errors import FULL, AppError, TooLarge, Unavailable, disk_full
from app.services.ingest.arrow import load
from app.services.ingest.reading import parse_here
from app.services.ingest.transfer import WAITS, unpack_question, write_refusal, write_upload

MEMORY = 1.5  # times what it takes to begin with: what took more memory ends with its answer, for all of it to go back


class Questions:
    """The lines of standard input. When it ends, the server has gone away, and so does this process."""

    def __init__(self) -> None:
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self) -> bytes:
        """The next one, as soon as there is one."""
        return self._lines.get()

    def _listen(self) -> None:
        with open(0, "rb", closefd=False) as lines:  # not sys.stdin: its lock would be held when the interpreter ends
            for line in lines:
                self._lines.put(line)
        os._exit(1)


def main() -> None:
    """Answer questions while that takes little memory."""
    _be_killed_first()
    questions = Questions()
    load()  # while the body arrives, or nobody asks yet
    usual = _most()
    while True:
        _answer(questions.next())
        if _most() > MEMORY * usual:
            return
        _tell(WAITS)


def _answer(question: bytes) -> None:
    path, folder, ask, known = unpack_question(question)
    try:
        write_upload(parse_here(path, folder, ask, known, tell=_tell), folder)
    except AppError as error:
        write_refusal(error, folder)
    except MemoryError:
        write_refusal(TooLarge("the file needs more memory than this machine has; send it in parts"), folder)
    except OSError as error:
        full = disk_full("the file could not be read, and nothing of it was stored")
        other = Unavailable(f"the file could not be read: {error.strerror}; nothing was stored")
        write_refusal(full if error.errno in FULL else other, folder)


def _most() -> int:
    """The most memory that this process has taken so far, in units of the system's own. What Linux gives for its usage
    has in it what the server held that started it."""
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text()):
            return int(found[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _tell(letter: str) -> None:
    os.write(1, letter.encode())


def _be_killed_first() -> None:
    """When memory runs out, Linux shall end this process and not the server."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)  # taking Arrow apart in order lasts a tenth of a second, for which the answer would wait
