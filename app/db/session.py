"""The engine, and the two ways to open a session: `read` and `write`. One request or one job step is one transaction.

On SQLite a transaction that reads first and writes later fails at once when another process wrote in between,
whatever the busy timeout; so writers say BEGIN IMMEDIATE and wait their turn. `synchronous=FULL`: a promise given
survives a power cut.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Executable, create_engine, event, or_
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from sqlalchemy.sql.base import ExecutableOption

from app.db.columns import InWorkspace

# A database that restarts, is full, locked for too long, or out of reach: what was tried may be tried again.
AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeout)
Stamp = int | str | None  # what `Database.stamp` gives
EVERY_WORKSPACE = "*"  # what a worker's session names, which serves all of them, and a row that all of them see
WORK_WAITS_S = 30.0  # for a lock that another process holds: whoever works in the background
REQUEST_WAITS_S = 10.0  # a request; then its client is asked to come again
WORK_HOLDS_S = 5.0  # locks, while it does not say a word: a worker's machine that stands still loses its transaction
LOOK_WAITS_S = 1.0  # for another thread's look at the stamp
SILENT_S = 5.0  # after a look that got no answer: none is taken, so that not every request waits for one


class Database:
    """One engine for the process. `read()` and `write()` give a session bound to a workspace and end its
    transaction."""

    def __init__(
        self, url: str, patience: float = WORK_WAITS_S, holds: float | None = None, kept: int | None = None
    ) -> None:
        """Who writes waits `patience` seconds for a lock of somebody else. On PostgreSQL it loses its own after `holds`
        seconds in mid-transaction without a statement (None: after a minute), and `kept` connections stay open (None:
        as many as are usual)."""
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self._patience = patience
        self._file = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        # A connection that never writes: SQLite tells it of everybody's commits, one's own process included.
        self._watch: sqlite3.Connection | None = None
        self._look: Connection | None = None  # PostgreSQL's
        self._watching = threading.Lock()
        self._silent_until = 0.0
        if self.is_sqlite:
            self.engine: Engine = create_engine(url, pool_timeout=patience, max_overflow=35)  # a thread never waits
            event.listen(self.engine, "connect", self._configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            from app.db import postgres  # its driver takes 5 MB that a server on SQLite need not have

            self.engine = postgres.engine(url, patience, kept or postgres.KEPT_OPEN)
            if holds is not None:
                postgres.hold_briefly(self.engine, holds)
        self._writer = self.engine.execution_options(gatecast_write=True)

    @contextmanager
    def read(self, workspace: str) -> Generator[Session]:
        """A session that only reads; nothing it changes is kept."""
        with Session(self.engine, info={"workspace": workspace}) as session:
            yield session

    @contextmanager
    def write(self, workspace: str) -> Generator[Session]:
        """A session whose transaction is committed when the block ends and rolled back when it raises."""
        with Session(self._writer, info={"workspace": workspace}) as session, session.begin():
            yield session

    def stamp(self) -> Stamp:
        """Something that is another as soon as anybody, in any process, has committed anything. SQLite: the number it
        keeps of that, a few microseconds. PostgreSQL: the snapshot that a statement sees, one round trip. None where
        the database does not answer."""
        if self._file is None:
            return self._snapshot()
        try:
            with self._watching:
                if self._watch is None:
                    self._watch = sqlite3.connect(self._file, check_same_thread=False, isolation_level=None)
                return int(self._watch.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:  # the transaction that follows says what is wrong
            return None

    def refresh_statistics(self) -> None:
        """After an upload: let PostgreSQL plan by what is there now. Nothing that is done here can fail."""
        if not self.is_sqlite:
            from app.db import postgres

            with suppress(SQLAlchemyError):
                postgres.refresh_statistics(self.engine)

    def writer(self) -> "Writer":
        """For a thread that writes often."""
        return Writer(self)

    def _configure_sqlite(self, connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's begin event says BEGIN, not the driver
        waits = f"busy_timeout={self._patience * 1000:.0f}"
        for pragma in (waits, "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    def _snapshot(self) -> Stamp:
        """Two equal snapshots see the same rows: every transaction that writes has an id, and begins or ends one."""
        from app.db import postgres

        if time.monotonic() < self._silent_until or not self._watching.acquire(timeout=LOOK_WAITS_S):
            return None
        try:
            if time.monotonic() < self._silent_until:
                return None
            if self._look is None:
                self._look = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            return postgres.snapshot(self._look)
        except (SQLAlchemyError, postgres.Error):
            self._silent_until = time.monotonic() + SILENT_S
            lost, self._look = self._look, None
            if lost is not None:
                with suppress(SQLAlchemyError):
                    lost.invalidate()
                    lost.close()
            return None
        finally:
            self._watching.release()

    def close(self) -> None:
        with self._watching:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
            if self._look is not None:
                self._look.close()
                self._look = None
        self.engine.dispose()


@dataclass
class Written:
    """A transaction under way. `stamp` is another one as soon as anybody but this writer has committed anything.
    `alone` is called after the commit with the database's stamps before and after it, where
    nothing else was committed between these two."""

    session: Session
    stamp: Stamp
    alone: Callable[[Stamp, Stamp], None] | None = None


class Writer:
    """The write transactions of one thread, which is told of everybody's commits but its own: on SQLite by a connection
    that it keeps, on PostgreSQL by the numbers of transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._line: Connection | None = None
        # SQLite: connections so far, for each counts for itself; PostgreSQL: how often others may have written.
        self._counted = 0
        self._last: int | None = None  # PostgreSQL: this writer's last transaction, if nobody else's was under way
        # Held from before a commit shows in the stamp until all is said about it.
        self.ending = threading.Lock()

    def write(
        self, workspace: str, lock: Executable, bound: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[Written]:
        """A transaction, committed when the block ends and rolled back when it raises. PostgreSQL is told `lock` first,
        with the parameters `bound`: what the block is about has to stay as it is from the moment on for which `stamp`
        stands. SQLite's one lock is for everything."""
        return self._on_sqlite(workspace) if self._database.is_sqlite else self._on_postgres(workspace, lock, bound)

    @contextmanager
    def _on_sqlite(self, workspace: str) -> Generator[Written]:
        if self._line is None:
            self._line, self._counted = self._database.engine.connect(), self._counted + 1
            self._line = self._line.execution_options(gatecast_write=True)
        try:
            with Session(self._line, info={"workspace": workspace}) as session:
                session.connection()  # begins: from here on nobody else commits
                number = _commits_of_others(self._line)
                written = Written(session, f"{self._counted}/{number}")
                yield written
                session.flush()
                self._commit(session, written, self._line, number)
        except SQLAlchemyError:
            self.close()  # in what state it is now, nobody knows
            raise

    def _commit(self, session: Session, written: Written, line: Connection, number: int) -> None:
        if written.alone is None:
            session.commit()
            return
        with self.ending:
            before = self._database.stamp()
            session.commit()
            with suppress(sqlite3.Error):  # it is committed, whatever else cannot be told
                after = self._database.stamp()
                # Looked at last: whoever committed before the second stamp was read is counted here.
                if None not in (before, after) and _commits_of_others(line) == number:
                    written.alone(before, after)

    @contextmanager
    def _on_postgres(self, workspace: str, lock: Executable, bound: Mapping[str, Any] | None) -> Generator[Written]:
        with self._database.write(workspace) as session:
            session.execute(lock, bound)
            number, snapshot = session.connection().exec_driver_sql(_NUMBER).one()
            newest = snapshot == _seen_by(number)  # all before it have ended, and none after it
            if not newest or self._last != number - 1:
                self._counted += 1
            self._last = number if newest else None
            written = Written(session, str(self._counted))
            yield written
            if written.alone is None or not newest:
                return
            session.flush()
            with self.ending:
                session.commit()
                written.alone(snapshot, _seen_by(number + 1))

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


# A transaction's number, given with its first lock, and what it sees, itself left out (PostgreSQL 13, functions).
_NUMBER = "select pg_current_xact_id()::text::bigint, pg_current_snapshot()::text"


def _seen_by(number: int) -> str:
    """The snapshot in which every transaction before this one has ended, and nobody knows of it or of a later one: the
    stamp until it commits, for whoever else looks. The next one's is the stamp from then on."""
    return f"{number}:{number}:"


def _commits_of_others(line: Connection) -> int:
    """Past SQLAlchemy, which would begin a transaction for the question."""
    connection = line.connection.driver_connection
    assert isinstance(connection, sqlite3.Connection)
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("gatecast_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@event.listens_for(Session, "do_orm_execute")
def _stay_in_workspace(state: ORMExecuteState) -> None:
    """Put the session's workspace into every query, so that no service can forget it."""
    workspace = state.session.info.get("workspace")
    if workspace is None:
        raise RuntimeError("a session without a workspace: open it with Database.read or Database.write")
    if workspace != EVERY_WORKSPACE and not state.is_column_load and not state.is_relationship_load:
        state.statement = state.statement.options(_within(workspace))


@lru_cache(maxsize=256)
def _within(workspace: str) -> ExecutableOption:
    """The condition on every row that has a workspace; made once, for that takes longer than a short query."""
    return with_loader_criteria(
        InWorkspace,
        lambda cls: or_(cls.workspace == workspace, cls.workspace == EVERY_WORKSPACE),
        include_aliases=True,
    )


@event.listens_for(Session, "before_flush")
def _stamp_workspace(session: Session, _context: object, _instances: object) -> None:
    """A new row belongs to the session's workspace unless a worker, which serves all, names another."""
    workspace = session.info["workspace"]
    for row in session.new:
        if isinstance(row, InWorkspace) and workspace != EVERY_WORKSPACE:
            row.workspace = workspace
