"""Copies of a bucket's versions on this machine's disk, shared by its processes: the last used ones, up to a number of
bytes. A version never changes, so a copy never grows old.

    {cache}/{name}/              a copy; the folder's time is that of its last use
    {cache}/.reserved-{name}…/   being written
    {cache}/.removed-{name}…/    being deleted

A process holds a shared lock on the copies that it was given last, so that nobody deletes what is being read; locks go
with the process.
"""

import errno
import fcntl
import functools
import os
import shutil
import threading
import time
from collections import OrderedDict
from pathlib import Path
from uuid import uuid4

from app.store.folder import GRACE_S, REMOVED, RESERVED, size, touched

HELD = 8  # copies that a process keeps from being deleted
LOCK = ".lock"


class Cache:
    """The copies in one folder, as one process sees them. Safe to use from several threads."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self._limit = folder, limit
        self._held: OrderedDict[str, int] = OrderedDict()  # name -> handle with a shared lock, the last used one last
        self._lock = threading.Lock()

    def find(self, name: str) -> Path | None:
        """The copy of a version, held from now on; None when there is none."""
        path = self.folder / name
        with self._lock:
            self._release(name)
            try:
                handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                return None
            fcntl.flock(handle, fcntl.LOCK_SH)
            if not _is_at(handle, path):  # deleted between the two lines
                os.close(handle)
                return None
            os.utime(handle)
            self._held[name] = handle
            while len(self._held) > HELD:
                self._release(next(iter(self._held)))
        return path

    def fresh(self, name: str) -> Path:
        """An empty folder to write a copy into, this call's alone."""
        folder = self.folder / f"{RESERVED}{name}.{uuid4().hex[:12]}"
        folder.mkdir(parents=True)
        return folder

    def add(self, filled: Path, name: str) -> Path | None:
        """Take a filled folder in as the copy of `name`, unless another process was quicker; what was used longest ago
        goes where there are too many bytes. Gives the copy, held; None when another process has forgotten it since."""
        try:
            filled.rename(self.folder / name)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(filled, ignore_errors=True)
        path = self.find(name)
        self.trim()
        return path

    def forget(self, name: str) -> None:
        """Delete the copy, even where it is held."""
        with self._lock:
            self._release(name)
        self._delete(self.folder / name)

    def trim(self) -> None:
        """Delete the copies used longest ago until the rest keeps to the limit, those held by a process left out, and
        what processes that died left behind."""
        guard = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._trim()
        except BlockingIOError:
            pass  # somebody is at it
        finally:
            os.close(guard)

    def _trim(self) -> None:
        copies: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            try:
                if path.name.startswith((RESERVED, REMOVED)):
                    if time.time() - touched(path) >= GRACE_S:
                        shutil.rmtree(path, ignore_errors=True)
                elif path.is_dir():
                    copies.append((path.stat().st_mtime, size(path), path))
            except FileNotFoundError:  # forgotten meanwhile
                continue
        total = sum(taken for _, taken, _ in copies)
        for _, taken, path in sorted(copies):
            if total <= self._limit:
                return
            if self._delete_unless_held(path):
                total -= taken

    def _delete_unless_held(self, path: Path) -> bool:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._delete(path)
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(handle)

    def _delete(self, path: Path) -> None:
        doomed = self.folder / f"{REMOVED}{path.name}.{uuid4().hex[:12]}"
        try:
            path.rename(doomed)  # whole or gone, never half a version under its own name
        except FileNotFoundError:
            return
        shutil.rmtree(doomed, ignore_errors=True)

    def _release(self, name: str) -> None:
        if (handle := self._held.pop(name, None)) is not None:
            os.close(handle)


@functools.cache
def at(folder: Path, limit: int) -> Cache:
    """This process' view of the copies in a folder."""
    return Cache(folder, limit)


def _is_at(handle: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
