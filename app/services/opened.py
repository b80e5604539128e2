"""Versions kept open in memory: checked against their digest once, then shared by every request of the process."""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from app import store
from app.db.session import Database, Stamp
from app.errors import Unavailable
from models import OpenArtifact, open_artifact


class OpenVersions:
    """The `limit` versions asked for last. Which version a name stands for is never kept here: that is read from the
    database each time, so a moved alias is seen by the next request. Safe to use from several threads."""

    def __init__(self, place: store.Place, limit: int) -> None:
        self._store, self._limit = place, limit
        self._open: OrderedDict[tuple[str, str], OpenArtifact] = OrderedDict()
        self._lock = threading.Lock()  # held for a moment
        self._loading = threading.Lock()  # held while a version is read: two requests never load it twice

    def get(self, folder: str, digest: str) -> OpenArtifact:
        """The version in this folder of the store, ready to answer.

        Raises Unavailable `artifact-damaged` when the files are not the published ones or cannot be read, StoreAway.
        """
        if found := self._find((folder, digest)):
            return found
        with self._loading:
            if found := self._find((folder, digest)):
                return found
            path = store.verified(self._store, folder, digest)
            try:
                opened = open_artifact(path)
            except (ValueError, KeyError, json.JSONDecodeError) as error:
                said = str(error).replace(f"{path}/", "")  # where the store lies is nobody's business outside
                detail = f"The stored version {folder} cannot be opened by this release: {said}."
                raise Unavailable(detail, code="artifact-damaged") from error
            with self._lock:
                self._open[folder, digest] = opened
                while len(self._open) > self._limit:
                    self._open.popitem(last=False)
            return opened

    def here(self, folder: str, digest: str) -> OpenArtifact | None:
        """The version, if it is in memory: for whoever may not wait until it has been read."""
        return self._find((folder, digest))

    def drop(self, folder: str) -> None:
        """Let go of a version that has been deleted."""
        with self._lock:
            for key in [key for key in self._open if key[0] == folder]:
                del self._open[key]

    def __len__(self) -> int:
        return len(self._open)

    def _find(self, key: tuple[str, str]) -> OpenArtifact | None:
        with self._lock:
            if found := self._open.get(key):
                self._open.move_to_end(key)
            return found


Found = TypeVar("Found")
KEPT = 256  # names
ASK: Stamp = ""  # no stamp of a database: it is asked for one


class Remembered(Generic[Found]):
    """What names stood for, as long as nobody has committed anything since: looking that up takes longer than all else
    around a small forecast. Where the database does not tell, nothing is. Safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._stamp: Stamp = None
        self._found: dict[tuple[str, str], Found] = {}

    def get(self, workspace: str, name: str, look: Callable[[], Found], stamp: Stamp = ASK) -> Found:
        """What `look` finds for the name in the workspace, or has found after the last commit there was. `stamp` is the
        database's, where the caller has asked already, be it in vain (None)."""
        stamp = self._database.stamp() if stamp == ASK else stamp
        if stamp is None:
            return look()
        if (found := self.known(workspace, name, stamp)) is not None:
            return found
        found = look()  # not before the stamp was read: it may be newer than that, never older
        with self._lock:
            if stamp != self._stamp or len(self._found) >= KEPT:
                self._stamp, self._found = stamp, {}
            self._found[workspace, name] = found
        return found

    def move(self, before: Stamp, after: Stamp) -> None:
        """What names stood for did not change between these two stamps."""
        with self._lock:
            if self._stamp == before:
                self._stamp = after

    def known(self, workspace: str, name: str, stamp: Stamp) -> Found | None:
        """What was found for the name at this stamp, if it was looked up."""
        with self._lock:
            return self._found.get((workspace, name)) if stamp is not None and stamp == self._stamp else None
