"""Alembic's environment. The engine's own tables live in the same database and are none of ours: `_is_ours` leaves
them out."""

from alembic import context

from app.db.columns import UtcTime
from app.db.tables import Base


def _is_ours(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or name in Base.metadata.tables


def _render(kind: str, item: object, _context: object) -> str | bool:
    """A migration names plain types: it must still run when the classes of `app` have moved on."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcTime) else False


def _migrate(connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_name=_is_ours,
        render_as_batch=True,
        compare_type=True,
        render_item=_render,
    )
    with context.begin_transaction():
        context.run_migrations()


_migrate(context.config.attributes["connection"])  # given by app.db.migrate, which owns its transaction
