"""Versions in a bucket of an S3-compatible object store. The names are those of a store folder, so that one can be
copied into the other:

    {prefix}/{name}/weights.safetensors, forward.onnx, manifest.json
    {prefix}/.gatecast            says that a server may write here
    {prefix}/.results/{job}/…     the file that a forecast job has made; a version is not called so
    {prefix}/.parts/{job}/{n}/…   what its shard n has made of it, until the file is

The manifest is written last and deleted first: a name without one is not a version. Endpoint and credentials are the
usual AWS_* variables; the client library reads them, nothing here does.
"""

import functools
import logging
import re
import shutil
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from app.config import Bucket
from app.errors import Complaint, StoreAway, Unavailable
from app.store import cache
from app.store.folder import GRAPH, MANIFEST, WEIGHTS, checked, damaged, is_name, require

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import S3Store

log = logging.getLogger("gatecast")

MARKER = ".gatecast"
RESULTS, PARTS = ".results", ".parts"
IN_PARTS = 64 * 1024 * 1024  # larger files are sent in parts, whose remains a kill leaves hidden in the bucket
CHUNK = 1024 * 1024
PAUSE = 1.0  # seconds between two tries of somebody who is patient
EXTRA = "Install the extra: pip install 'gatecast[s3]'."
CHECK = "Check GATECAST_STORE_URL, AWS_ENDPOINT_URL, AWS_REGION and the credentials, and that the bucket exists."
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")

T = TypeVar("T")


def greet(bucket: Bucket) -> None:
    """Write the marker. Raises StoreAway when the bucket cannot be reached or written, or the extra is missing."""
    with _asking():
        import obstore

        obstore.put(_client(bucket), MARKER, b"Gatecast keeps versions of models here.\n")
    bucket.cache.mkdir(parents=True, exist_ok=True)


def missing(bucket: Bucket) -> str | None:
    """What keeps the bucket from being used, or None: a cheap question, asked often."""
    try:
        if not _exists(bucket, MARKER):
            return "The object store lacks the marker that a starting server writes: restart one"
    except StoreAway as error:
        return error.detail.rstrip(".")
    return None


def publish(bucket: Bucket, reserved: Path, name: str, patience: float) -> Path:
    """Send a filled folder, the manifest last; what is left here of it is its copy. Raises as `store.publish`."""
    key = f"{checked(name)}/{MANIFEST}"
    require(reserved, name)
    if _patiently(lambda: _exists(bucket, key), patience):
        raise FileExistsError(f"version folder {name} is published already")
    _patiently(lambda: _send(bucket, reserved, name), patience)
    copies = cache.at(bucket.cache, bucket.limit)
    copies.forget(name)
    return copies.add(reserved, name) or local(bucket, name, patience)


def local(bucket: Bucket, name: str, patience: float) -> Path:
    """The copy of a version on this machine, fetched where there is none; nothing has been checked yet. Raises
    Unavailable `artifact-damaged` when the bucket lacks one of its files, StoreAway."""
    copies = cache.at(bucket.cache, bucket.limit)
    path = copies.find(checked(name))
    while path is None:
        path = copies.add(_patiently(lambda: _fetch(bucket, name, copies), patience), name)
    return path


def forget(bucket: Bucket, name: str) -> None:
    """Delete this machine's copy of a version."""
    cache.at(bucket.cache, bucket.limit).forget(checked(name))


def remove(bucket: Bucket, name: str) -> None:
    """Delete a version, here and in the bucket. Raises StoreAway."""
    forget(bucket, name)
    with _asking():
        import obstore

        client = _client(bucket)
        for file in (MANIFEST, WEIGHTS, GRAPH):  # no manifest, no version
            obstore.delete(client, f"{name}/{file}")
        if rest := [found["path"] for found in _listed(bucket, name)]:
            obstore.delete(client, rest)


def names(bucket: Bucket) -> list[str]:
    """The names under which the bucket has anything. Raises StoreAway."""
    with _asking():
        import obstore

        listed = obstore.list_with_delimiter(_client(bucket), return_arrow=False)  # pyright: ignore[reportUnknownMemberType]
        found = listed["common_prefixes"]
    return sorted(name for name in (prefix.rstrip("/") for prefix in found) if is_name(name))


def sweep(bucket: Bucket, rubbish: Collection[str], now: float, grace_s: float) -> list[str]:
    """Delete what is stored under these names, unless it was written to lately; see `store.sweep`."""
    swept: list[str] = []
    for name in sorted(rubbish):
        with _asking():
            found = _listed(bucket, checked(name))
        newest = max((file["last_modified"].timestamp() for file in found), default=now)
        if now - newest >= grace_s and found:
            remove(bucket, name)
            swept.append(name)
    return swept


# ---------------------------------------------------------------- the files of forecast jobs


def keep_result(bucket: Bucket, job: str, path: Path, patience: float) -> None:
    """Send a job's file, under its own name. Raises StoreAway."""
    _keep(bucket, f"{RESULTS}/{job}", path, patience)


def _keep(bucket: Bucket, folder: str, path: Path, patience: float) -> None:
    def send() -> None:
        with _asking():
            import obstore

            in_parts = path.stat().st_size > IN_PARTS
            obstore.put(_client(bucket), f"{folder}/{path.name}", path, use_multipart=in_parts)

    _patiently(send, patience)


def has_result(bucket: Bucket, job: str, name: str, size: int) -> bool:
    """Whether the file is there, with its size. Raises StoreAway."""
    with _asking():
        import obstore

        try:
            return obstore.head(_client(bucket), f"{RESULTS}/{job}/{name}")["size"] == size
        except FileNotFoundError:
            return False


def read_result(bucket: Bucket, job: str, name: str, span: tuple[int, int]) -> Iterator[bytes]:
    """Its bytes from the first to before the second of `span`, as they arrive. Raises StoreAway, before the first."""
    with _asking():
        import obstore

        found = obstore.get(_client(bucket), f"{RESULTS}/{job}/{name}", options={"range": span})
    return (bytes(chunk) for chunk in found.stream(min_chunk_size=CHUNK))


def drop_results(bucket: Bucket, job: str, patience: float) -> None:
    """Delete every file of a job. Raises StoreAway."""
    _drop(bucket, f"{RESULTS}/{job}", patience)


def _drop(bucket: Bucket, folder: str, patience: float) -> None:
    def drop() -> None:
        with _asking():
            import obstore

            if left := [found["path"] for found in _listed(bucket, folder)]:
                obstore.delete(_client(bucket), left)

    _patiently(drop, patience)


def keep_part(bucket: Bucket, job: str, shard: int, path: Path, patience: float) -> None:
    """Send a part that a shard of a job has made, under its own name. Raises StoreAway."""
    _keep(bucket, f"{PARTS}/{job}/{shard}", path, patience)


def fetch_parts(bucket: Bucket, job: str, shard: int, folder: Path, patience: float) -> None:
    """Fetch into an empty folder what a shard has sent; a part is whole or not there. Raises StoreAway, OSError."""

    def fetch() -> None:
        with _asking():
            for found in _listed(bucket, f"{PARTS}/{job}/{shard}"):
                path = folder / found["path"].rpartition("/")[2]
                _download(bucket, found["path"], draft := path.with_name(f".{path.name}"))
                draft.rename(path)

    _patiently(fetch, patience)


def drop_parts(bucket: Bucket, job: str, patience: float) -> None:
    """Delete what the shards of a job have sent. Raises StoreAway."""
    _drop(bucket, f"{PARTS}/{job}", patience)


# ---------------------------------------------------------------- one try


def _listed(bucket: Bucket, prefix: str) -> "list[ObjectMeta]":
    """The objects below a prefix."""
    import obstore

    pages = obstore.list(_client(bucket), prefix, return_arrow=False)  # pyright: ignore[reportUnknownMemberType]
    return [found for page in pages for found in page]


def _send(bucket: Bucket, reserved: Path, name: str) -> None:
    import obstore

    client = _client(bucket)
    with _asking():
        for file in (WEIGHTS, GRAPH):
            in_parts = (reserved / file).stat().st_size > IN_PARTS
            obstore.put(client, f"{name}/{file}", reserved / file, use_multipart=in_parts)
        manifest = (reserved / MANIFEST).read_bytes()
        try:
            obstore.put(client, f"{name}/{MANIFEST}", manifest, mode="create")
        except obstore.exceptions.AlreadyExistsError:
            # Most likely ours: an earlier try arrived, and its answer was lost.
            if obstore.get(client, f"{name}/{MANIFEST}").bytes() != manifest:
                raise FileExistsError(f"version folder {name} is published already") from None


def _fetch(bucket: Bucket, name: str, copies: cache.Cache) -> Path:
    """A folder with the version's files, not yet its copy."""
    folder = _made(copies, name)
    file = MANIFEST
    try:
        for file in (MANIFEST, WEIGHTS, GRAPH):
            with _asking():
                _download(bucket, f"{name}/{file}", folder / file)
    except FileNotFoundError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise damaged(name, f"{file} is not in the object store") from error
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise _unwritable(error) from error
    except StoreAway:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _made(copies: cache.Cache, name: str) -> Path:
    try:
        return copies.fresh(name)
    except OSError as error:
        raise _unwritable(error) from error


def _download(bucket: Bucket, key: str, path: Path) -> None:
    import obstore

    with path.open("wb") as file:
        for chunk in obstore.get(_client(bucket), key).stream(min_chunk_size=CHUNK):
            file.write(chunk)


def _exists(bucket: Bucket, key: str) -> bool:
    with _asking():
        import obstore

        try:
            obstore.head(_client(bucket), key)
        except FileNotFoundError:
            return False
    return True


# ---------------------------------------------------------------- the client


@functools.cache
def _client(bucket: Bucket) -> "S3Store":
    from obstore.store import S3Store

    # Few retries: who wants to wait longer does so with `_patiently`, and a request is not held for minutes.
    return S3Store.from_url(
        bucket.url,
        client_options={"allow_http": True, "connect_timeout": "5s", "timeout": "120s"},
        retry_config={
            "max_retries": 3,
            "retry_timeout": timedelta(seconds=10),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        },
    )


@contextmanager
def _asking() -> Generator[None]:
    """Raises StoreAway for whatever the client library complains about, but for a file that is not there."""
    try:
        from obstore.exceptions import BaseError
    except ModuleNotFoundError as error:
        raise _away("the package obstore is not installed", EXTRA) from error
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise _away(_cause(error), CHECK) from None
        raise
    except BaseError as error:
        # Not the error itself, which tells the endpoint, and sometimes the key's id.
        raise _away(_cause(error), CHECK) from None


def _cause(error: Exception) -> str:
    """In a few words, without the endpoint or anything of the credentials."""
    text = str(error)
    if code := _CODE.search(text):
        return code[1]
    for sign, meaning in (("error sending request", "no connection"), ("timed out", "no answer in time")):
        if sign in text:
            return meaning
    return type(error).__name__.removesuffix("Error")


def _away(cause: str, hint: str) -> StoreAway:
    text = f"The object store cannot be used ({cause})"
    complaint = Complaint("store", text, hint=hint)
    return StoreAway(f"{text}.", code="store-away", errors=[complaint], headers={"Retry-After": "5"})


def _unwritable(error: OSError) -> Unavailable:
    text = f"The copies of the object store's versions cannot be written ({error.strerror})"
    hint = "Make the data folder writable for this user, or free some space."
    return Unavailable(f"{text}.", code="not-ready", errors=[Complaint("store", text, hint=hint)])


def _patiently(act: Callable[[], T], patience: float) -> T:
    """What `act` gives, tried again while the store is away, for `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return act()
        except StoreAway as error:
            if time.monotonic() >= deadline:
                raise
            log.warning("%s It is tried again.", error.detail)
            time.sleep(PAUSE)
