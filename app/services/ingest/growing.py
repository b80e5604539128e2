"""A file that another process is still writing, read as if all of it were there: who reads past its end, waits."""

import io
import time
from pathlib import Path

PAUSE_S = 0.002


def wait_for(path: Path, size: int) -> None:
    """Return when the file has so many bytes. Whoever writes it sees to it that nobody waits in vain."""
    while path.stat().st_size < size:
        time.sleep(PAUSE_S)


class Growing(io.RawIOBase):
    """The file at `path` from its beginning to byte `length`, which it may not have yet."""

    def __init__(self, path: Path, length: int) -> None:
        self._path, self._file = path, path.open("rb", buffering=0)
        self._length, self._place = length, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes, fewer at the end alone."""
        left = self._length - self._place
        size = left if size < 0 else min(size, left)
        wait_for(self._path, self._place + size)
        found = self._file.read(size)
        self._place += len(found)
        return found

    def close(self) -> None:
        self._file.close()
        super().close()
