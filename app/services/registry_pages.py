"""What the registry shows: pages of models, versions and moves, newest first, and their documents."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.tables import AliasRow, ModelRow, MoveRow, VersionRow
from app.services.registry import find_alias


def list_models(session: Session, after: str | None, limit: int) -> Sequence[ModelRow]:
    """Models by name, those after `after`."""
    query = select(ModelRow).order_by(ModelRow.name).limit(limit)
    return session.scalars(query if after is None else query.where(ModelRow.name > after)).all()


def list_versions(session: Session, model: ModelRow, before: int | None, limit: int) -> Sequence[VersionRow]:
    """A model's versions, newest first, those before number `before`."""
    query = select(VersionRow).filter_by(model_id=model.id).order_by(VersionRow.number.desc()).limit(limit)
    return session.scalars(query if before is None else query.where(VersionRow.number < before)).all()


def list_moves(session: Session, model: ModelRow, alias: str, before: int | None, limit: int) -> Sequence[MoveRow]:
    """An alias' moves, newest first, those before `before`; also of an alias that was removed. Raises NotFound."""
    query = select(MoveRow).filter_by(model_id=model.id, alias=alias).order_by(MoveRow.seq.desc()).limit(limit)
    rows = session.scalars(query if before is None else query.where(MoveRow.seq < before)).all()
    if not rows:
        find_alias(session, model, alias)
    return rows


def model_documents(session: Session, models: Sequence[ModelRow]) -> list[dict[str, Any]]:
    """Each model with how many versions it has and where its aliases point."""
    ids = [model.id for model in models]
    count = select(VersionRow.model_id, func.count()).where(VersionRow.model_id.in_(ids)).group_by(VersionRow.model_id)
    counts: dict[int, int] = dict(session.execute(count).all())
    aliases: dict[int, dict[str, int]] = {}
    for alias in session.scalars(select(AliasRow).where(AliasRow.model_id.in_(ids)).order_by(AliasRow.name)):
        aliases.setdefault(alias.model_id, {})[alias.name] = alias.version
    return [
        {
            "name": model.name,
            "versions": counts.get(model.id, 0),
            "last_version": model.last_version,
            "aliases": aliases.get(model.id, {}),
            "created_at": model.created_at,
        }
        for model in models
    ]


def version_documents(session: Session, model: ModelRow, rows: Sequence[VersionRow]) -> list[dict[str, Any]]:
    """Each version's record, with the aliases that point to it now."""
    aliases: dict[int, list[str]] = {}
    for alias in session.scalars(select(AliasRow).filter_by(model_id=model.id).order_by(AliasRow.name)):
        aliases.setdefault(alias.version, []).append(alias.name)
    same = ("created_at", "dataset", "revision", "data_digest", "frequency", "time_zone", "config", "metrics")
    same += ("baselines", "parameters", "size_bytes", "digest", "device", "train_seconds", "parent", "origin")
    return [
        {"model": model.name, "version": row.number, "job": row.job_id, "aliases": aliases.get(row.number, [])}
        | {name: getattr(row, name) for name in same}
        for row in rows
    ]


def card(document: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """A version's card in Markdown: what its manifest says in words, or else what its record (a document of
    `version_documents`) knows: what it learned from, how it was made, its scores beside the naive ones."""
    if isinstance(text := manifest.get("card"), str):
        return text
    lines = [f"# {document['model']}, version {document['version']}", ""]
    learned = f"revision {document['revision']} of dataset {document['dataset']}" if document["dataset"] else "–"
    facts = {
        "Learned from": f"{learned} (steps of {document['frequency']}, {document['time_zone']})",
        "Made": f"{document['created_at']:%Y-%m-%d}, in {document['train_seconds']:.1f} s on {document['device']}",
        "Started from": document["parent"] or "nothing",
        "Came from": _origin(document["origin"]),
        "Parameters": f"{document['parameters']:,}",
        "Digest": document["digest"],
    }
    lines += [f"- {name}: {value}" for name, value in facts.items() if value is not None]
    names = list(document["baselines"])
    lines += ["", "Scores over held-out origins, lower is better but for coverage:", ""]
    lines += [f"| metric | this version | {' | '.join(names)} |", "|" + "---|" * (2 + len(names))]
    for metric, value in document["metrics"].items():
        beside = [document["baselines"][name].get(metric) for name in names]
        cells = ["–" if one is None else f"{one:.4g}" for one in (value, *beside)]
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _origin(origin: Mapping[str, Any] | None) -> str | None:
    if origin is None:
        return None
    learned = f" from revision {origin['revision']} of {origin['dataset']}" if origin["dataset"] else ""
    return f"another server, made there as {origin['model']}/{origin['version']}{learned}"


def move_document(move: MoveRow) -> dict[str, Any]:
    """One move of an alias as it is shown."""
    return {
        "from": move.from_version,
        "to": move.to_version,
        "actor": move.actor,
        "reason": move.reason,
        "at": move.created_at,
        "gate": move.gate,
    }
