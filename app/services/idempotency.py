"""`Idempotency-Key`: a POST that creates runs once for each key; its answer is kept for a day beside what it made."""

import datetime as dt
from typing import Any

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db.tables import IdempotencyRow, utc_now
from app.errors import Complaint, Invalid

KEPT = dt.timedelta(hours=24)


def claim(session: Session, key: str, route: str, digest: str) -> IdempotencyRow | None:
    """None when this request is the first with its key, which the open transaction now holds; else the stored answer.

    On PostgreSQL a second request waits here until the first commits (then it gets the answer) or rolls back (then the
    key is its own). Raises Invalid when the key was used for another body.
    """
    workspace = session.info["workspace"]
    session.execute(delete(IdempotencyRow).where(*_named(key, route), IdempotencyRow.created_at < utc_now() - KEPT))
    make = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[session.get_bind().dialect.name]
    claimed = session.execute(
        make(IdempotencyRow)
        .values(
            workspace=workspace,
            key=key,
            route=route,
            body_digest=digest,
            status=0,
            headers={},
            created_at=utc_now(),
        )
        .on_conflict_do_nothing(index_elements=["workspace", "key", "route"])
        .returning(IdempotencyRow.id)
    ).scalar_one_or_none()
    return None if claimed is not None else find(session, key, route, digest)


def find(session: Session, key: str, route: str, digest: str) -> IdempotencyRow | None:
    """The stored answer under this key, or None. Raises Invalid when the key was used for another body."""
    row = session.scalars(
        select(IdempotencyRow).where(*_named(key, route), IdempotencyRow.created_at >= utc_now() - KEPT)
    ).one_or_none()
    if row is not None and row.body_digest != digest:
        hint = "Send a new key with a new request, the same key only to repeat one."
        complaint = Complaint(
            "key-reused", "Used before with another body", pointer="header/idempotency-key", hint=hint
        )
        raise Invalid(
            "Idempotency-Key: expected the body it was first sent with, got another.",
            code="idempotency-key-reused",
            errors=[complaint],
        )
    return row


def keep(session: Session, key: str, route: str, answer: tuple[int, dict[str, str], dict[str, Any] | None]) -> None:
    """Store the answer of the request that claimed the key, in the same transaction."""
    status, headers, body = answer
    session.execute(update(IdempotencyRow).where(*_named(key, route)).values(status=status, headers=headers, body=body))


def purge(session: Session) -> None:
    """Forget answers older than a day."""
    session.execute(delete(IdempotencyRow).where(IdempotencyRow.created_at < utc_now() - KEPT))


def _named(key: str, route: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return IdempotencyRow.key == key, IdempotencyRow.route == route
