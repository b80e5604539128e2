"""Versions on their way from server to server, each as one file (see `store/parcel`). What comes in is looked at in a
process of its own and becomes a version like any other, with where it was made beside it; what goes out is the same to
the byte on whatever server it goes out from."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import store
from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import DatasetRow, ModelRow, RevisionRow, VersionRow
from app.errors import Complaint, Invalid, TooLarge, Unavailable
from app.services import leftovers, registry
from app.services.inspection import ANSWER, Origin
from app.services.registry import ANY, CHAMPION, NewVersion, Promote, Why

PATIENCE = 300.0  # seconds that looking at one file may take
WAIT = 5.0  # seconds that a file may wait for others to be looked at
HINT = "Export the version anew with `gatecast export`, and send the file as it is."
# Each may need a processor and much memory.
_seats = threading.BoundedSemaphore(os.cpu_count() or 1)


@dataclass(frozen=True)
class Parcel:
    """A version as a file to be sent: its length and its bytes, read as they are asked for, checked beforehand."""

    name: str
    size: int
    pieces: Iterator[bytes]


@dataclass(frozen=True)
class Received:
    """A version that was looked at and may be one here: its files, and what is known of it."""

    folder: Path
    facts: dict[str, Any]

    size: int  # bytes

    @property
    def digest(self) -> str:
        return self.facts["digest"]


@dataclass(frozen=True)
class Arrival:
    """What a client asked for: the model, whether the version shall be its champion, and who asks."""

    model: str
    promote: Promote
    actor: str
    workspace: str


def about(model: ModelRow, row: VersionRow) -> bytes:
    """The version's `version.json`. It names the digest, so it stands for the whole file."""
    made: dict[str, Any] = dict(row.origin) if row.origin else _made(model, row)
    said = {"format": 1, **made, "digest": row.digest, "data_digest": row.data_digest}
    said |= {"metrics": row.metrics, "baselines": row.baselines}
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)


def parcel(place: store.Place, model: ModelRow, row: VersionRow) -> Parcel:
    """The version as a file. Raises Unavailable `artifact-damaged` when its files are not the recorded ones, StoreAway,
    TooLarge."""
    with contextlib.ExitStack() as opened:
        sources: list[tuple[str, Any]] = [(store.ABOUT, io.BytesIO(about(model, row)))]
        for name in (store.MANIFEST, store.WEIGHTS, store.GRAPH):
            file = store.open_file(place, row.folder, name, row.digest)[0]
            sources.append((name, opened.enter_context(file)))
        try:
            size, pieces = store.packed(sources)
        except ValueError as error:
            raise TooLarge(f"The version is too large for one file: {error}.") from error
        opened.pop_all()  # who reads the pieces closes them
    return Parcel(f"{model.name}-{row.number}.zip", size, pieces)


def _made(model: ModelRow, row: VersionRow) -> dict[str, Any]:
    """Where a version of this server was made: here."""
    origin = Origin(
        model=model.name,
        version=row.number,
        created_at=row.created_at,
        job=row.job_id,
        dataset=row.dataset,
        revision=row.revision,
        parent=row.parent,
    )
    return origin.model_dump(mode="json")


@contextmanager
def received(settings: Settings, archive: Path) -> Generator[Received]:
    """The version in a file, looked at in a process of its own; its files are gone when the block ends. Raises Invalid
    naming what is wrong with it, Unavailable when the looking could not be done."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="parcel-", dir=settings.spool)
    except OSError as error:
        raise Unavailable(f"The file could not be kept: {error.strerror}.") from error
    with folder as name:
        with _seat():
            ended = _looked(archive, Path(name), settings)
        try:
            answer: dict[str, Any] = orjson.loads((Path(name) / ANSWER).read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            answer = {"refusal": f"the process that opened it {ended}, for want of time or memory, or by what it holds"}
        if failure := answer.get("failure"):
            raise Unavailable(f"{failure[:1].upper()}{failure[1:]}; nothing was stored.", code="reader-ended")
        if refusal := answer.get("refusal"):
            complaint = Complaint("invalid-version", refusal, pointer="", hint=HINT)
            raise Invalid(
                f"The file is not a version that can be used here: {refusal}. Nothing was stored.",
                code="invalid-version",
                errors=[complaint],
            )
        files = [Path(name) / file for file in store.FILES]
        yield Received(Path(name), answer["facts"], sum(file.stat().st_size for file in files))


@contextmanager
def _seat() -> Generator[None]:
    """One of the seats for the time of the block. Raises Unavailable where all stay taken: who waits holds a thread of
    those that answer all requests."""
    if not _seats.acquire(timeout=WAIT):
        text = "Other versions are being looked at, as many as this machine can at once; nothing was stored."
        raise Unavailable(text, headers={"Retry-After": "5"})
    try:
        yield
    finally:
        _seats.release()


def _looked(archive: Path, folder: Path, settings: Settings) -> str:
    """Have a process look at the file, which answers in the folder; how it ended."""
    limits = {"json": settings.max_json_bytes, "file": settings.max_body_bytes}
    limits |= {"context": settings.max_span, "horizon": settings.max_horizon}
    command = [sys.executable, "-m", "app.services.inspection", str(archive.absolute()), str(folder.absolute())]
    # The child needs none of the server's secrets.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GATECAST_", "AWS_"))}
    child = subprocess.Popen(
        [*command, json.dumps(limits)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # the runtime names what it found there, in the file's own words
        env=environment,
        start_new_session=True,
    )
    try:
        status = child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        return f"had not ended after {PATIENCE:.0f} s"
    finally:
        child.kill()
        child.wait()
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()  # type: ignore[union-attr]
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


def publish(settings: Settings, database: Database, found: Received) -> str:
    """The files in the store, under a name of their own, which is announced first: until a version's row has it, it is
    rubbish to be swept. Raises StoreAway, Unavailable."""
    folder = f"import-{uuid4().hex}"
    with database.write(EVERY_WORKSPACE) as session:
        leftovers.announce(session, folder)
    try:
        reserved = store.reserve(settings.store, folder)
        for name in store.FILES:
            shutil.move(found.folder / name, reserved / name)
        store.publish(settings.store, reserved, folder)
    except OSError as error:
        text = f"The version could not be put into the store: {error.strerror}."
        raise Unavailable(text, code="not-ready") from error
    return folder


def held(session: Session, model: str, digest: str) -> VersionRow | None:
    """The model's version that has these very bytes, if there is one: the oldest."""
    query = select(VersionRow).join(ModelRow, ModelRow.id == VersionRow.model_id).order_by(VersionRow.number)
    return session.scalars(query.where(ModelRow.name == model, VersionRow.digest == digest).limit(1)).first()


def record(session: Session, found: Received, folder: str | None, ask: Arrival) -> tuple[VersionRow, bool]:
    """The version's row, and whether it is new: where the model has these bytes already, that version stays the only
    one. `folder` is None when it was seen to have them before. Raises Conflict for a model that comes with the program,
    Unavailable when what was seen has been deleted meanwhile."""
    registry.refuse_shipped(session, ask.model)
    origin: dict[str, Any] = found.facts["origin"]
    reason = f"imported, made as {origin['model']}/{origin['version']}"
    if (row := held(session, ask.model, found.digest)) is not None:
        if ask.promote == "always":
            registry.move(session, ask.model, CHAMPION, row.number, Why(ask.actor, reason))
        return row, False
    if folder is None:
        raise Unavailable("The version with these bytes was deleted while they arrived: send the file again.")
    facts = {name: value for name, value in found.facts.items() if name != "frequency"}
    new = NewVersion(
        model=ask.model,
        folder=folder,
        frequency=found.facts["frequency"] or ANY,
        size_bytes=found.size,
        promote=ask.promote,
        actor=ask.actor,
        reason=reason,
        workspace=ask.workspace,
        **facts | _home(session, found.facts["data_digest"]),
    )
    row = registry.add_version(session, new)
    leftovers.arrived(session, folder)
    return row, True


def _home(session: Session, digest: str | None) -> dict[str, Any]:
    """The dataset and revision here that hold the data a version was trained on, told by their digest; nothing where
    there are none."""
    if digest is None:
        return {}
    query = select(DatasetRow.id, DatasetRow.name, RevisionRow.number)
    query = query.join(RevisionRow, RevisionRow.dataset_id == DatasetRow.id).where(RevisionRow.digest == digest)
    row = session.execute(query.order_by(DatasetRow.name, RevisionRow.number).limit(1)).first()
    return {} if row is None else {"dataset_id": row[0], "dataset": row[1], "revision": row[2]}
