"""`gatecast migrate`: our tables by Alembic, then the job engine's own, in that order, one process at a time."""

import functools
import re
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

import migrations
from app.db.session import Database
from app.db.tables import Base

if TYPE_CHECKING:
    from alembic.config import Config

LOCK = 7_241_001  # any constant: names the advisory lock that serialises migrations on PostgreSQL


class NoSuchRevision(Exception):
    """The revision that was asked for, or that the database is at, is none of this program's."""


# Alembic takes 11 MB and a while to load, the job engine 8: a server whose tables are new enough does without.


def config(connection: Connection | None = None) -> "Config":
    """Alembic's configuration: the migrations that ship inside the package, over a connection that the caller owns."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(Path(migrations.__file__).parent))
    made.set_main_option("file_template", "%%(year)d_%%(month).2d_%%(day).2d_%%(slug)s")
    made.attributes["connection"] = connection
    return made


@contextmanager
def _alone(database: Database) -> Generator[Connection]:
    """A connection in a write transaction that no other migrating process can hold at the same time."""
    with database.engine.execution_options(gatecast_write=True).begin() as connection:
        if not database.is_sqlite:
            from app.db import postgres

            postgres.unhurried(connection)
            connection.execute(text("set local lock_timeout = 0"))
            connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": LOCK})
        yield connection


def migrate(database: Database, revision: str = "head") -> None:
    """Bring the database to `revision` ("head": the newest; "base": empty), then the engine's tables to its newest.
    Raises NoSuchRevision."""
    with _alone(database) as connection:
        if revision != "head" or current(connection) != newest():
            _move(connection, revision)
        if revision == "base" or (database.is_sqlite and _engine_seen(connection) == _engine()):
            return
    from dbos import run_dbos_database_migrations

    run_dbos_database_migrations(database.url)
    if database.is_sqlite:
        with _alone(database) as connection:
            connection.exec_driver_sql(f"PRAGMA user_version = {_engine()}")


def _engine() -> int:
    """A number for the installed release of the job engine."""
    return zlib.crc32(version("dbos").encode()) & 0x7FFF_FFFF


def _engine_seen(connection: Connection) -> int | None:
    """The number of the release that a SQLite file's engine tables were made for: kept in the file's header, so that a
    server that starts need not load the engine to ask it."""
    return connection.exec_driver_sql("PRAGMA user_version").scalar()


def _move(connection: Connection, revision: str) -> None:
    from alembic import command
    from alembic.util import CommandError

    down = revision == "base" or (revision != "head" and revision < (current(connection) or ""))
    try:
        (command.downgrade if down else command.upgrade)(config(connection), revision)
    except CommandError as error:
        raise NoSuchRevision(str(error)) from error


def current(connection: Connection) -> str | None:
    """The Alembic revision the database is at; None when it has never been migrated."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(text("select version_num from alembic_version"))


@functools.cache
def newest() -> str:
    """The newest of the migrations that ship inside the package: the one that no other comes after."""
    files = (Path(migrations.__file__).parent / "versions").glob("[0-9]*.py")
    said = [file.read_text(encoding="utf-8") for file in files]
    names, before = (
        {found[1] for one in said if (found := re.search(rf"^{word} = \"(\w+)\"$", one, re.M))}
        for word in ("revision", "down_revision")
    )
    (head,) = names - before
    return head


def is_current(database: Database) -> bool:
    """Whether the database is at this program's newest revision."""
    with database.engine.connect() as connection:
        return current(connection) == newest()


def _is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """The engine's own tables live in the same database and are none of ours."""
    return kind != "table" or name in Base.metadata.tables


def drift(connection: Connection) -> list[object]:
    """What autogenerate would change: empty when migrations and tables agree."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "include_name": _is_ours,
        },
    )
    return list(compare_metadata(context, Base.metadata))
