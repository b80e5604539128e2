"""Models, their versions and aliases. A version is written once and numbered; an alias is the only thing that moves,
and every move leaves a row: from, to, who, why, and the gate's figures when a gate decided."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.session import EVERY_WORKSPACE
from app.db.tables import AliasRow, ModelRow, MoveRow, VersionRow
from app.errors import Complaint, Conflict, NotFound, PreconditionFailed

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
CHAMPION = "champion"
BASE = "base"  # the model that comes with the program; its row belongs to every workspace
ANY = "any"  # its frequency
Promote = Literal["never", "if_better", "always"]
_REFERENCE = re.compile(rf"(?P<model>{NAME})(?:@(?P<alias>{NAME})|/(?P<number>[1-9][0-9]{{0,8}}))?")


@dataclass(frozen=True)
class Gate:
    """A new version's figure beside the champion's, both over steps that the new version was held from and trained for;
    lower is better. `refusal` says why the figures alone do not decide (see `gates`)."""

    metric: str
    value: float
    champion: int  # the version it was compared with
    champion_value: float | None  # None: the champion could not be scored on these origins
    origins: Mapping[str, Any] = field(default_factory=dict[str, Any])
    refusal: str | None = None

    def passes(self, champion: int) -> bool:
        """Whether the new version beats `champion`, the version that holds the alias now."""
        if self.champion != champion or self.champion_value is None or self.refusal is not None:
            return False
        return self.value < self.champion_value


@dataclass(frozen=True)
class NewVersion:
    """What a finished train job hands to the registry; `folder` is published and synced before this is committed."""

    model: str
    folder: str
    digest: str
    frequency: str
    time_zone: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    baselines: Mapping[str, Any]
    parameters: int
    size_bytes: int
    device: str
    train_seconds: float
    job_id: str | None = None
    dataset_id: int | None = None
    dataset: str | None = None
    revision: int | None = None
    data_digest: str | None = None
    parent: str | None = None
    origin: Mapping[str, Any] | None = None  # of a version that was imported: what it is where it was made
    promote: Promote = "if_better"
    gate: Gate | None = None
    actor: str = "worker"
    reason: str = ""  # of the champion's move; left empty, the gate's
    workspace: str = "default"


@dataclass(frozen=True)
class Reference:
    """What a reference named: the model, the version, and the alias that led there (None for `name/3`)."""

    model: ModelRow
    version: VersionRow
    alias: str | None


@dataclass(frozen=True)
class Why:
    """Who moves an alias and for what reason; kept with the move."""

    actor: str
    reason: str = ""
    gate: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Condition:
    """What must hold before an alias moves: tags as in `If-Match` and `If-None-Match`; `*` stands for any."""

    match: frozenset[str] | None = None
    none_match: frozenset[str] = frozenset()

    def check(self, tag: str | None) -> None:
        """Raises PreconditionFailed unless `tag`, the alias as it is now (None: there is none), is as expected."""
        known = {tag, "*"} if tag else set[str | None]()
        if self.match is not None and not known & self.match:
            raise PreconditionFailed(
                f"If-Match: expected {' or '.join(sorted(self.match)) or 'a tag'}, the alias is at {tag or 'nothing'}."
            )
        if known & self.none_match:
            raise PreconditionFailed(f"If-None-Match: expected no alias of this name, it is there at {tag}.")


# ---------------------------------------------------------------- models and versions


def find_model(session: Session, name: str) -> ModelRow:
    """The model of this name. Raises NotFound."""
    if row := session.scalar(select(ModelRow).where(ModelRow.name == name)):
        return row
    raise NotFound(f"There is no model {name[:80]!r}.")


def resolve(session: Session, reference: str) -> Reference:
    """What `name` (its champion), `name@alias` or `name/3` stands for now. Raises as `resolved`."""
    (model, version), alias = resolved(session, reference, ModelRow, VersionRow)
    return Reference(model, version, alias)


def resolved(session: Session, reference: str, *wanted: Any) -> tuple[Any, str | None]:
    """What is wanted of a reference's model and version, rows or columns, and the alias that led there, in one query.
    Raises NotFound, which names the model that answers on every server."""
    parts = _REFERENCE.fullmatch(reference)
    if parts is None:
        raise NotFound(f"There is no model {reference[:80]!r}: expected name, name@alias or name/number.")
    alias = None if parts["number"] else parts["alias"] or CHAMPION
    query = select(*wanted).join_from(ModelRow, VersionRow, VersionRow.model_id == ModelRow.id)
    if alias is None:
        query = query.where(VersionRow.number == int(parts["number"]))
    else:
        query = query.join(AliasRow, AliasRow.model_id == ModelRow.id)
        query = query.where(AliasRow.name == alias, AliasRow.version == VersionRow.number)
    if found := session.execute(query.where(ModelRow.name == parts["model"])).first():
        return found, alias
    model = _known(session, parts["model"])
    if alias is None:
        raise NotFound(f"Model {model.name!r} has no version {parts['number']}.")
    aliases = sorted(session.scalars(select(AliasRow.name).where(AliasRow.model_id == model.id)))
    hint = f"it has {', '.join(aliases)}" if aliases else f"name a version, {model.name}/{model.last_version}"
    raise NotFound(f"Model {model.name!r} has no alias {alias!r}; {hint}.")


def _known(session: Session, name: str) -> ModelRow:
    try:
        return find_model(session, name)
    except NotFound as error:
        way_out = "run `gatecast migrate`, which installs it" if name == BASE else f"{BASE!r} forecasts untrained"
        raise NotFound(f"{error.detail.rstrip('.')}; {way_out}.") from None


def model_of(session: Session, reference: str) -> ModelRow:
    """The model that `name` or `name@alias` names in a path; an alias must exist, a model alone needs no champion."""
    return resolve(session, reference).model if "@" in reference else find_model(session, reference)


def add_version(session: Session, new: NewVersion) -> VersionRow:
    """Number and record a published version, and move the champion to it where `promote` and the gate say so.

    The first version becomes champion unless `promote` is "never"; "if_better" needs a lower figure than the version
    that is champion now. Part of the transaction that ends the job; on return the row has its number.
    """
    model = _lock_model(session, new.model, new.workspace)
    model.last_version += 1
    taken = ("folder", "digest", "frequency", "time_zone", "parameters", "size_bytes", "device", "train_seconds")
    taken += ("job_id", "dataset_id", "dataset", "revision", "data_digest", "parent", "origin")
    row = VersionRow(
        model_id=model.id,
        number=model.last_version,
        config=without_nan(new.config),
        metrics=without_nan(new.metrics),
        baselines=without_nan(new.baselines),
        **{name: getattr(new, name) for name in taken},
    )
    session.add(row)
    session.flush()
    champion = _alias(session, model, CHAMPION)
    passed = champion is not None and new.gate is not None and new.gate.passes(champion.version)
    if new.promote == "always" or (new.promote == "if_better" and (champion is None or passed)):
        reason = new.reason or ("promote: always" if new.promote == "always" else "better than the champion")
        gate = without_nan(asdict(new.gate)) | {"passed": passed} if new.gate else None
        why = Why(new.actor, "first version" if champion is None and not new.reason else reason, gate)
        _set(session, model, CHAMPION, row.number, why)
    return row


def ship(session: Session, new: NewVersion) -> VersionRow:
    """Record the version of a model that comes with the program, where no version has its digest yet, and point the
    champion at it, as a move. The session is one of every workspace."""
    model = _lock_model(session, new.model, EVERY_WORKSPACE)
    row = session.scalar(select(VersionRow).filter_by(model_id=model.id, digest=new.digest))
    if row is None:
        return add_version(session, replace(new, promote="always", workspace=EVERY_WORKSPACE))
    champion = _alias(session, model, CHAMPION)
    if champion is None or champion.version != row.number:
        _set(session, model, CHAMPION, row.number, Why(new.actor, new.reason))
    return row


def own(name: str) -> tuple[ColumnElement[bool], ...]:
    """Which models of this name are somebody's own: one a workspace at most."""
    return ModelRow.name == name, ModelRow.workspace != EVERY_WORKSPACE


def refuse_shipped(session: Session, name: str) -> None:
    """Raises Conflict when versions of this name come with the program, so that nobody may train one. A model of that
    name which is older than that goes on as it is."""
    if name == BASE and session.scalar(select(ModelRow.id).where(*own(name))) is None:
        raise _read_only(name)


def find_version(session: Session, model: ModelRow, number: int) -> VersionRow:
    """The model's version of this number. Raises NotFound."""
    query = select(VersionRow).where(VersionRow.model_id == model.id, VersionRow.number == number)
    if row := session.scalar(query):
        return row
    raise NotFound(f"Model {model.name!r} has no version {number}.")


def delete_version(session: Session, reference: str, number: int) -> str:
    """Forget a version; its number is never used again. Returns its folder, to be removed after the commit.

    Raises Conflict while an alias points to it.
    """
    model = _lock_model(session, model_of(session, reference).name)
    row = find_version(session, model, number)
    query = select(AliasRow.name).filter_by(model_id=model.id, version=number).order_by(AliasRow.name)
    if names := session.scalars(query).all():
        raise Conflict(
            f"Version {number} of {model.name!r} is in use, {', '.join(names)} points to it: move the alias first.",
            code="version-in-use",
        )
    session.delete(row)
    session.flush()
    return row.folder


# ---------------------------------------------------------------- aliases


def find_alias(session: Session, model: ModelRow, name: str) -> AliasRow:
    """The model's alias of this name. Raises NotFound."""
    if row := _alias(session, model, name):
        return row
    raise NotFound(f"Model {model.name!r} has no alias {name[:80]!r}.")


def tag(alias: AliasRow) -> str:
    """The alias' entity tag: the number of its last move, which goes on when the alias is removed and set again."""
    return f'"{alias.moves}"'


def move(
    session: Session, reference: str, name: str, version: int, why: Why, *, condition: Condition = Condition()
) -> tuple[AliasRow, bool]:
    """Point an alias at a version; gives the alias and whether it is new. Pointing where it points already is no move.

    Raises NotFound for a version that does not exist, PreconditionFailed when somebody else moved it first.
    """
    model = _lock_model(session, model_of(session, reference).name)
    alias = _alias(session, model, name)
    condition.check(tag(alias) if alias else None)
    if session.scalar(select(VersionRow.id).filter_by(model_id=model.id, number=version)) is None:
        detail = f"Model {model.name!r} has no version {version}."
        raise NotFound(detail, errors=[Complaint("not-found", detail, pointer="/version")])
    if alias is not None and alias.version == version:
        return alias, False
    return _set(session, model, name, version, why), alias is None


def rollback(session: Session, reference: str, name: str, why: Why, *, condition: Condition = Condition()) -> AliasRow:
    """Move an alias back to where its last move came from; done twice, it is where it was.

    Raises Conflict when there is nothing to go back to: it was set only once, or that version has been deleted.
    """
    model = _lock_model(session, model_of(session, reference).name)
    alias = find_alias(session, model, name)
    condition.check(tag(alias))
    query = select(MoveRow.from_version).filter_by(model_id=model.id, alias=name, seq=alias.moves)
    back = session.scalar(query)
    if back is None:
        raise Conflict(f"Alias {name!r} of {model.name!r} was set only once: there is nothing to roll back to.")
    if session.scalar(select(VersionRow.id).filter_by(model_id=model.id, number=back)) is None:
        raise Conflict(f"Alias {name!r} of {model.name!r} came from version {back}, which has been deleted.")
    return _set(session, model, name, back, why)


def delete_alias(session: Session, reference: str, name: str, why: Why, *, condition: Condition = Condition()) -> None:
    """Remove an alias; its moves stay. Raises Conflict for `champion`, which a model keeps."""
    model = _lock_model(session, model_of(session, reference).name)
    alias = find_alias(session, model, name)
    condition.check(tag(alias))
    if name == CHAMPION:
        raise Conflict("The champion cannot be removed, only moved: it answers for the model's bare name.")
    _record(session, alias, alias.version, None, why)
    session.delete(alias)
    session.flush()


# ---------------------------------------------------------------- inside


def _read_only(name: str) -> Conflict:
    return Conflict(
        f"Model {name!r} comes with the program and is read-only. Train a model of another name; "
        f"`warm_start_from: {name}` starts from this one.",
        code="model-read-only",
    )


def _lock_model(session: Session, name: str, workspace: str | None = None) -> ModelRow:
    """The model's row, locked until the commit, so that numbers and moves come one after another. With `workspace`, a
    model that does not exist yet is made; a race for its first version is decided by the unique name. Without, raises
    Conflict for a model that comes with the program."""
    query = select(ModelRow).where(ModelRow.name == name).with_for_update()
    query = query.execution_options(populate_existing=True)
    if workspace is None:
        row = session.scalars(query).one()
        if row.workspace == EVERY_WORKSPACE:
            raise _read_only(name)
        return row
    if workspace != EVERY_WORKSPACE:
        refuse_shipped(session, name)  # the job may be older than the model
    query = query.where(ModelRow.workspace == workspace)
    if row := session.scalar(query):
        return row
    try:
        with session.begin_nested():
            session.add(ModelRow(name=name, workspace=workspace, last_version=0))
    except IntegrityError:  # another job made it between the two statements
        pass
    return session.scalars(query).one()


def _alias(session: Session, model: ModelRow, name: str) -> AliasRow | None:
    query = select(AliasRow).where(AliasRow.model_id == model.id, AliasRow.name == name)
    return session.scalar(query.execution_options(populate_existing=True))


def _set(session: Session, model: ModelRow, name: str, version: int, why: Why) -> AliasRow:
    """Point the alias at `version` and record the move. The model's row is locked, so `seq` cannot be taken twice."""
    alias = _alias(session, model, name)
    before = alias.version if alias else None
    if alias is None:
        last = session.scalar(select(func.max(MoveRow.seq)).filter_by(model_id=model.id, alias=name)) or 0
        alias = AliasRow(model_id=model.id, name=name, version=version, moves=last)
        session.add(alias)
    alias.version = version
    _record(session, alias, before, version, why)
    session.flush()
    return alias


def _record(session: Session, alias: AliasRow, before: int | None, after: int | None, why: Why) -> None:
    alias.moves += 1
    session.add(
        MoveRow(
            model_id=alias.model_id,
            alias=alias.name,
            seq=alias.moves,
            from_version=before,
            to_version=after,
            actor=why.actor,
            reason=why.reason,
            gate=dict(why.gate) if why.gate else None,
        )
    )


def without_nan(value: Any) -> Any:
    """JSON-ready values: NaN and infinities, which JSON does not have, become None."""
    if isinstance(value, Mapping):
        return {str(name): without_nan(item) for name, item in cast(Mapping[object, object], value).items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in cast(Sequence[object], value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
