"""A body read in a process of its own: started here, answered through files in a folder."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

from app.errors import Unavailable
from app.services.ingest.transfer import pack_question, read_answer
from app.services.ingest.upload import Ask, Known, Upload

OWN_PROCESS_BYTES = 1 << 20


# Each may need several times its file in memory: more at once than there are processors would only be slower.
_seats = threading.BoundedSemaphore(os.cpu_count() or 1)


def parse_apart(path: Path, folder: Path, ask: Ask, known: Known) -> Upload:
    """`parse_here` in a process of its own, which answers through `folder`. Unavailable when it was killed."""
    with _seats:
        code = _run(folder, pack_question(path.absolute(), ask, known))
    upload = read_answer(folder)
    if upload is None:
        how = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
        raise Unavailable(
            f"the process that read the file was {how}, perhaps for want of memory; nothing was stored. "
            "Send the file again, or in smaller parts.",
            code="reader-ended",
        )
    return upload


def _run(folder: Path, question: bytes) -> int:
    """Ask one process one question; its exit status. A Ctrl-C passes it by, so that a server may end what it began."""
    # The child needs none of the server's secrets.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATECAST_")}
    command = [sys.executable, "-m", "app.services.ingest.process", str(folder.absolute())]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    assert child.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(question + b"\n")
            child.stdin.flush()
        return child.wait()
    finally:
        child.kill()
        child.wait()
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
