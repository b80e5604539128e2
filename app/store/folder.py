"""Version folders on local disk: written once under a reserved name, published by rename, checked against their digest
before use.

    {store}/.reserved-{name}/   being written by an attempt
    {store}/{name}/             published: weights.safetensors, forward.onnx, manifest.json
    {store}/.removed-{name}/    being deleted

A published folder whose attempt died before the commit is rubbish and is swept; a row without a folder cannot be,
because files, folder and parent are synced to disk before the row is committed.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection
from io import BufferedReader
from pathlib import Path
from typing import Any

from app.errors import NotFound, Unavailable

WEIGHTS, GRAPH, MANIFEST = "weights.safetensors", "forward.onnx", "manifest.json"
FILES = (WEIGHTS, GRAPH, MANIFEST)
RESERVED, REMOVED = ".reserved-", ".removed-"
DAMAGED = "artifact-damaged"
GRACE_S = 3600.0  # longest time between a publish and the commit that names the folder, generously
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def reserve(store: Path, name: str) -> Path:
    """An empty folder inside the store, to be filled, then published as `name`. What an earlier try left is dropped."""
    folder = store / f"{RESERVED}{checked(name)}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def publish(store: Path, reserved: Path, name: str) -> Path:
    """Make a filled folder visible as `name`, whole or not at all, on disk before this returns.

    Raises ValueError when one of the three files is missing, FileExistsError when `name` is published already.
    """
    published = store / checked(name)
    require(reserved, name)
    if published.exists():
        raise FileExistsError(f"version folder {name} is published already")
    for file in sorted(reserved.rglob("*")):
        _sync(file)
    _sync(reserved)
    reserved.rename(published)
    _sync(store)
    return published


def require(reserved: Path, name: str) -> None:
    """Raises ValueError when one of the three files is missing in a folder to be published as `name`."""
    if lacking := [file for file in FILES if not (reserved / file).is_file()]:
        raise ValueError(f"{name}: expected {', '.join(FILES)} in the folder, missing {', '.join(lacking)}")


def digest(folder: Path) -> str:
    """`sha256:…` over the manifest, which holds the digest of every other file: it stands for the whole folder."""
    with (folder / MANIFEST).open("rb") as file:
        return _sha256(file)


def size(folder: Path) -> int:
    """Bytes of the folder's files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def verify(folder: Path, expected: str) -> None:
    """Hash every file of a version and compare. Raises Unavailable `artifact-damaged` naming the file that differs."""
    entries = _entries(folder, expected)
    for name in (WEIGHTS, GRAPH):
        _check(folder, name, entries[name])


def manifest(folder: Path, expected: str) -> dict[str, Any]:
    """The manifest of a version, checked against the version's digest `expected`; its other files are not. Raises
    Unavailable `artifact-damaged`."""
    _check(folder, MANIFEST, expected)
    try:
        return json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(folder.name, f"{MANIFEST} cannot be read") from error


def local(store: Path, name: str) -> Path:
    """The folder of a published version, to read from; nothing has been checked yet."""
    return store / checked(name)


def known(file: str) -> None:
    """Raises NotFound for anything but the three files of a version."""
    if file not in FILES:
        raise NotFound(f"There is no file {file[:80]!r}: expected one of {', '.join(FILES)}.")


def open_file(folder: Path, file: str, expected: str) -> tuple[BufferedReader, str]:
    """One of the three files of a version, open for reading, and its `sha256:…`, checked against the version's digest
    `expected`. Raises Unavailable `artifact-damaged` when the bytes are not the published ones."""
    wanted = (_entries(folder, expected) | {MANIFEST: expected})[file]
    try:
        opened = (folder / file).open("rb")
    except OSError as error:
        raise damaged(folder.name, f"{file} cannot be read ({error.strerror})") from error
    if _sha256(opened) != wanted:
        opened.close()
        raise damaged(folder.name, f"{file} has other bytes than its digest says")
    opened.seek(0)
    return opened, wanted


def remove(store: Path, name: str) -> None:
    """Delete a version's folder; nothing happens when it is gone already."""
    folder, doomed = store / checked(name), store / f"{REMOVED}{name}"
    shutil.rmtree(doomed, ignore_errors=True)
    try:
        folder.rename(doomed)  # whole or gone, never half a version under its own name
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)


def names(store: Path) -> list[str]:
    """The names of all folders, published or reserved."""
    folders = [folder.name for folder in store.iterdir() if folder.is_dir()] if store.is_dir() else []
    return sorted({name.removeprefix(RESERVED) for name in folders if not name.startswith(REMOVED)})


def sweep(store: Path, rubbish: Collection[str], now: float, grace_s: float = GRACE_S) -> list[str]:
    """Delete the folders of these names, published or reserved, and what a removal left half done, unless somebody
    wrote to them in the last `grace_s` seconds before `now` (seconds since 1970). Returns the folders deleted.

    What is rubbish only the database can say, and by what it knows, not by what it does not know: a store may outlive
    the database it was filled by.
    """
    swept: list[str] = []
    for folder in sorted(store.iterdir()) if store.is_dir() else []:
        ours = folder.name.startswith(REMOVED) or folder.name.removeprefix(RESERVED) in rubbish
        if ours and folder.is_dir() and now - touched(folder) >= grace_s:
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(folder.name)
    return swept


def is_name(name: str) -> bool:
    """Whether a version folder may be called so."""
    return _NAME.fullmatch(name) is not None


def checked(name: str) -> str:
    """The name itself. Raises ValueError when a version folder may not be called so."""
    if not is_name(name):
        raise ValueError(f"version folder: expected letters, digits, dots, dashes and underscores, got {name[:80]!r}")
    return name


def touched(folder: Path) -> float:
    """When the folder or a file in it was last written; a file that vanishes meanwhile counts as just written."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:
        return float("inf")


def damaged(name: str, what: str) -> Unavailable:
    """What to say of a version whose files are not as they were published."""
    return Unavailable(
        f"The stored version {name} is not what was published: {what}. Restore its files, or move the alias.",
        code=DAMAGED,
    )


def missing(store: Path) -> str | None:
    """What keeps the folder from taking files, or None."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=store) as file:
            file.write(b"ready?")
            file.flush()
    except OSError as error:
        return f"The model store cannot be written ({error.strerror})"
    return None


def _entries(folder: Path, expected: str) -> dict[str, str]:
    """File name -> `sha256:…` as the manifest has it, after the manifest itself has been checked."""
    _check(folder, MANIFEST, expected)
    try:
        files: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())["files"]
        return {name: "sha256:" + str(files[name]["sha256"]).removeprefix("sha256:") for name in (WEIGHTS, GRAPH)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(folder.name, f"{MANIFEST} does not name the other files' digests") from error


def _check(folder: Path, name: str, expected: str) -> None:
    try:
        with (folder / name).open("rb") as file:
            found = _sha256(file)
    except OSError as error:
        raise damaged(folder.name, f"{name} cannot be read ({error.strerror})") from error
    if found != expected:
        raise damaged(folder.name, f"{name} has other bytes than its digest says")


def _sha256(file: BufferedReader) -> str:
    return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """fsync of a file or of a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
