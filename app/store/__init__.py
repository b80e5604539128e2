"""The model store: one folder a version, in a folder of this machine or in a bucket of an object store, behind the same
few functions. Written once under a reserved name, published whole or not at all, checked against its digest before use.

A published version whose attempt died before the commit is rubbish and is swept; a row without its files cannot be,
because they are on disk, or in the bucket, before the row is committed.
"""

from collections.abc import Callable, Collection
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from app.config import Bucket
from app.errors import Unavailable
from app.store import folder, objects
from app.store.folder import DAMAGED, FILES, GRACE_S, GRAPH, MANIFEST, WEIGHTS, digest, manifest, size, verify
from app.store.objects import drop_parts, drop_results, fetch_parts, has_result, keep_part, keep_result, read_result
from app.store.parcel import ABOUT, packed, unpack

__all__ = [
    "ABOUT",
    "DAMAGED",
    "FILES",
    "GRACE_S",
    "GRAPH",
    "MANIFEST",
    "PATIENCE",
    "WEIGHTS",
    "Place",
    "digest",
    "greet",
    "here",
    "local",
]
__all__ += [
    "manifest",
    "missing",
    "names",
    "open_file",
    "packed",
    "publish",
    "read_manifest",
    "remove",
    "reserve",
    "size",
]
__all__ += ["sweep", "unpack", "verified", "verify"]
__all__ += ["drop_parts", "drop_results", "fetch_parts", "has_result", "keep_part", "keep_result", "read_result"]

Place = Path | Bucket
PATIENCE = 60.0  # seconds that a job waits for an object store that does not answer; a request does not

T = TypeVar("T")


def here(place: Place) -> Path:
    """The folder of this machine that stands for the store: the store itself, or where a bucket's versions are kept."""
    return place if isinstance(place, Path) else place.cache


def greet(place: Place) -> None:
    """Make a bucket ready for a process that starts. Raises StoreAway when it cannot be written, with a hint."""
    if isinstance(place, Bucket):
        objects.greet(place)


def missing(place: Place) -> str | None:
    """What keeps the store from taking files, or None."""
    return objects.missing(place) if isinstance(place, Bucket) else folder.missing(place)


def reserve(place: Place, name: str) -> Path:
    """An empty folder of this machine, to be filled, then published as `name`. What an earlier try left is dropped."""
    return folder.reserve(here(place), name)


def publish(place: Place, reserved: Path, name: str) -> Path:
    """Make a filled folder visible as `name`, whole or not at all, and lasting before this returns; gives the folder to
    read it from.

    Raises ValueError when one of the three files is missing, FileExistsError when `name` is published already,
    StoreAway when a bucket has not answered for `PATIENCE` seconds.
    """
    if isinstance(place, Bucket):
        return objects.publish(place, reserved, name, PATIENCE)
    return folder.publish(place, reserved, name)


def local(place: Place, name: str) -> Path:
    """The folder of a published version, to read from; nothing has been checked yet. A bucket's is fetched first.
    Raises as `verified`."""
    return objects.local(place, name, 0.0) if isinstance(place, Bucket) else folder.local(place, name)


def verified(place: Place, name: str, expected: str, patience: float = 0.0) -> Path:
    """The folder of a version, every file of it checked against the version's digest `expected`.

    Raises Unavailable `artifact-damaged` naming the file that differs, StoreAway when a bucket has not answered for
    `patience` seconds.
    """

    def check(path: Path) -> Path:
        verify(path, expected)
        return path

    return _use(place, name, check, patience)


def read_manifest(place: Place, name: str, expected: str) -> dict[str, Any]:
    """The manifest of a version, checked against the version's digest `expected`. Raises as `verified`."""
    return _use(place, name, lambda path: manifest(path, expected))


def open_file(place: Place, name: str, file: str, expected: str) -> tuple[BufferedReader, str]:
    """One file of a version, open for reading, and its `sha256:…`, checked against the version's digest `expected`.

    Raises NotFound for anything but the three known files, and as `verified`.
    """
    folder.known(file)
    return _use(place, name, lambda path: folder.open_file(path, file, expected))


def remove(place: Place, name: str) -> None:
    """Delete a version; nothing happens when it is gone already. Raises StoreAway."""
    if isinstance(place, Bucket):
        objects.remove(place, name)
    else:
        folder.remove(place, name)


def names(place: Place) -> list[str]:
    """The names of all versions, published or reserved. Raises StoreAway."""
    return objects.names(place) if isinstance(place, Bucket) else folder.names(place)


def sweep(place: Place, rubbish: Collection[str], now: float, grace_s: float = GRACE_S) -> list[str]:
    """Delete what is stored under these names, published or reserved, and what a removal left half done, unless
    somebody wrote to it in the last `grace_s` seconds before `now` (seconds since 1970). Returns what was deleted.
    Raises StoreAway.

    What is rubbish only the database can say, and by what it knows, not by what it does not know: a store may outlive
    the database it was filled by.
    """
    if isinstance(place, Bucket):
        return objects.sweep(place, rubbish, now, grace_s)
    return folder.sweep(place, rubbish, now, grace_s)


def _use(place: Place, name: str, act: Callable[[Path], T], patience: float = 0.0) -> T:
    """What `act` makes of the version's folder. A copy of a bucket's version that is damaged here is fetched anew."""
    if isinstance(place, Path):
        return act(folder.local(place, name))
    try:
        return act(objects.local(place, name, patience))
    except Unavailable as error:
        if error.code != DAMAGED:
            raise
    objects.forget(place, name)
    return act(objects.local(place, name, patience))
