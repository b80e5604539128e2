"""The process that reads one body: `python -m app.services.ingest.process`, the question on standard input."""

import contextlib
import os
import sys
import threading
from pathlib import Path

from app.errors import FULL, AppError, TooLarge, Unavailable, disk_full
from app.services.ingest.arrow import load
from app.services.ingest.reading import parse_here
from app.services.ingest.transfer import unpack_question, write_refusal, write_upload


def main() -> None:
    """Answer one question. When the server goes away, standard input ends, and so does this process."""
    _be_killed_first()
    load()  # while the body arrives, or nobody asks yet
    line = sys.stdin.buffer.readline()
    if not line:
        return
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    path, folder, ask, known = unpack_question(line)
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


def _tell(letter: str) -> None:
    os.write(1, letter.encode())


def _end_with_the_server() -> None:
    while os.read(0, 4096):  # not through sys.stdin: its lock would be held when the interpreter ends
        pass
    os._exit(1)


def _be_killed_first() -> None:
    """When memory runs out, Linux shall end this process and not the server."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)  # taking Arrow apart in order lasts a tenth of a second, for which the answer would wait
