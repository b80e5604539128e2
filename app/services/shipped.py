"""The model that comes with the program. It is in the registry and in the store like any other and belongs to every
workspace; a release with other weights adds a version, and nobody may change it (see `registry`)."""

import re
import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import store
from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import AliasRow, ModelRow, VersionRow
from app.errors import Conflict, Invalid, NotFound, Unavailable
from app.services.registry import ANY, BASE, CHAMPION, NAME, NewVersion, own, ship
from models import base_folder

ACTOR = "gatecast"
TAKEN = (
    f"the model {BASE!r} is one of your own, so the one that comes with the program is not installed: "
    "`gatecast migrate --own-base NAME` gives yours another name"
)


def install(settings: Settings, database: Database) -> str | None:
    """Put the base into store and registry, unless it is there whole; its version becomes the champion. Where that
    cannot be, the reason, and nothing has changed: this copy of the program has none, or a model of somebody's own has
    its name.

    Files come first and one commit last, under a lock: what a crash leaves behind is used or replaced by the next call.
    Raises Unavailable when the store cannot be written."""
    source = base_folder()
    if not (source / store.MANIFEST).is_file():
        return f"this copy of the program lacks its model {BASE!r}: install it anew, or make one with `make base`"
    digest = store.digest(source)
    with database.read(EVERY_WORKSPACE) as session:
        if _is_in_place(session, settings.store, digest):
            return None
    with database.write(EVERY_WORKSPACE) as session:
        if session.scalar(select(func.count()).select_from(ModelRow).where(*own(BASE))):
            return TAKEN
        row = ship(session, _version(source, digest))
        try:
            _publish(settings.store, source, row.folder, row.digest)
        except OSError as error:
            text = f"The model {BASE!r} cannot be put into the store ({error.strerror}): make the data folder writable."
            raise Unavailable(text, code="not-ready") from error
    return None


def rename_own(database: Database, new: str) -> None:
    """Give the model of somebody's own that is called as the base another name, in its workspace. Raises NotFound,
    Conflict when that name is taken, Invalid when it cannot be one."""
    if not re.fullmatch(NAME, new) or new == BASE:
        raise Invalid(f"{new[:80]!r}: expected another name, of letters, digits, dots, dashes and underscores.")
    with database.write(EVERY_WORKSPACE) as session:
        rows = session.scalars(select(ModelRow).where(*own(BASE))).all()
        if not rows:
            raise NotFound(f"There is no model {BASE!r} of your own.")
        if session.scalar(select(ModelRow.id).where(ModelRow.name == new)) is not None:
            raise Conflict(f"There is a model {new!r} already.")
        for row in rows:
            row.name = new


def _is_in_place(session: Session, place: store.Place, digest: str) -> bool:
    query = select(VersionRow.folder).join(ModelRow, ModelRow.id == VersionRow.model_id)
    query = query.join(AliasRow, (AliasRow.model_id == ModelRow.id) & (AliasRow.version == VersionRow.number))
    query = query.where(ModelRow.name == BASE, ModelRow.workspace == EVERY_WORKSPACE)
    found = session.scalar(query.where(AliasRow.name == CHAMPION, VersionRow.digest == digest))
    return found is not None and _is_whole(place, found, digest)


def _is_whole(place: store.Place, name: str, digest: str) -> bool:
    try:
        store.verified(place, name, digest)
    except Unavailable as error:
        if error.code != store.DAMAGED:  # it may well be whole
            raise
        return False
    return True


def _publish(place: store.Place, source: Path, name: str, digest: str) -> None:
    """The package's files in the store, unless they are there: from a try that died before its commit, say."""
    if _is_whole(place, name, digest):
        return
    store.remove(place, name)
    reserved = store.reserve(place, name)
    for file in store.FILES:
        shutil.copyfile(source / file, reserved / file)
    store.publish(place, reserved, name)


def _version(source: Path, digest: str) -> NewVersion:
    manifest = store.manifest(source, digest)
    figures: dict[str, Any] = {name: manifest.get(name, {}) for name in ("metrics", "baselines")}
    return NewVersion(
        model=BASE,
        folder=f"{BASE}-{digest.removeprefix('sha256:')[:16]}",
        digest=digest,
        frequency=ANY,
        time_zone="UTC",
        config=manifest["config"],
        parameters=int(manifest["network"]["parameters"]),
        size_bytes=store.size(source),
        device=str(manifest.get("device", "cpu")),
        train_seconds=float(manifest.get("train_seconds", 0.0)),
        actor=ACTOR,
        reason="came with the program",
        **figures,
    )
