"""Connections to PostgreSQL that wait for nobody for ever: a server that is cut off, frozen or behind a proxy that lost
it is given up after seconds, with an error like that of one that was stopped.

The system's own means see a machine that is gone (keepalives, `tcp_user_timeout`), but not one that takes bytes and
does not answer, as a frozen server or a proxy does; so each wait has an end of its own, too.
"""

import select
import time
from typing import Any

import psycopg
from psycopg import pq
from psycopg.errors import _WaitTimeout  # pyright: ignore[reportPrivateUsage] -- what `wait` raises; nothing else tells
from sqlalchemy import Connection, Engine, create_engine, event

Error = psycopg.Error
CONNECT_S = 5  # for a new connection
FIRST_S = 5.0  # for the answer to the ping that a connection is asked when it is taken from the pool
ANSWER_S = 60.0  # for any later one: a statement of a large upload or a delete may take its time
KEPT_OPEN, MOST = 5, 30  # connections of a pool: that stay, and at once
IDLE_MS = 60_000  # a transaction without a statement: a frozen process must not hold its row locks for ever


class Line(psycopg.Connection[Any]):
    """A connection that is closed when an answer does not come in time."""

    patience: float | None = FIRST_S

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is not None or self.patience is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.patience)
        except _WaitTimeout:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer from the database in {self.patience:.0f} s") from None


def engine(url: str, patience: float, kept: int = KEPT_OPEN) -> Engine:
    """An engine whose connections are `Line`s, which wait for a lock of somebody else for `patience` seconds; `kept` of
    them stay open, and more are opened while they are wanted."""
    held = f"-c idle_in_transaction_session_timeout={IDLE_MS} -c lock_timeout={patience * 1000:.0f}"
    line = {
        # Compiled by the server, a read of ten columns of 10,000 series takes a third longer.
        "options": f"{held} -c timezone=UTC -c jit=off",
        "connect_timeout": CONNECT_S,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    made = create_engine(
        url, pool_pre_ping=True, pool_timeout=10.0, pool_size=kept, max_overflow=MOST - kept, connect_args=line
    )
    event.listen(made, "do_connect", _connect)
    event.listen(made, "checkin", _be_wary)
    event.listen(made, "checkout", _be_patient)
    return made


def hold_briefly(engine: Engine, seconds: float) -> None:
    """Let the server end the transactions of this engine that write and then are silent for so long: whoever stands
    still holds a job's row, and the next worker could not take it."""

    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("gatecast_write", False):
            connection.exec_driver_sql(f"set local idle_in_transaction_session_timeout = {seconds * 1000:.0f}")

    event.listen(engine, "begin", begin)


def unhurried(connection: Any) -> None:
    """Let the statements of this connection of a pool take as long as they take, until it is put back."""
    line = connection.connection.driver_connection
    if isinstance(line, Line):
        line.patience = None


def snapshot(connection: Connection) -> str:
    """What a statement sees now: asked before every forecast, and so past the drivers' layers, whose work takes longer
    than the answer. Raises psycopg.OperationalError where that takes longer than one to a ping; then the connection is
    closed."""
    asked: Any = connection.connection.driver_connection
    line: pq.abc.PGconn = asked.pgconn
    try:
        line.send_query(b"select pg_current_snapshot()::text")
        line.flush()
        until, heard = time.monotonic() + FIRST_S, select.poll()
        heard.register(line.socket, select.POLLIN)
        while line.is_busy():
            if not heard.poll(max(0.0, 1000 * (until - time.monotonic()))):
                raise psycopg.OperationalError(f"no answer from the database in {FIRST_S:.0f} s")
            line.consume_input()
        said = line.get_result()
        value = said.get_value(0, 0) if said is not None and said.status == pq.ExecStatus.TUPLES_OK else None
        if value is None or line.get_result() is not None:
            raise psycopg.OperationalError("the database did not tell its snapshot")
    except psycopg.Error:
        line.finish()
        raise
    return value.decode()


def refresh_statistics(engine: Engine) -> None:
    """Let the server look at the tables that uploads fill, where they have doubled since it looked last. It does so by
    itself every minute or so; until then it takes a table of a million rows for the empty one that it was, and compares
    each with each where a thousand series are read: seconds instead of milliseconds."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for (table,) in connection.exec_driver_sql(_OUTGROWN).all():
            # Not the owner, or somebody else at it: it is left as it is.
            connection.exec_driver_sql(f"ANALYZE (SKIP_LOCKED) {table}")


_OUTGROWN = """select relname from pg_class where oid in ('segments'::regclass, 'series'::regclass)
and pg_relation_size(oid) > 2 * greatest(relpages, 32) * current_setting('block_size')::bigint"""


def _connect(_dialect: object, _record: object, arguments: list[Any], named: dict[str, Any]) -> Line:
    return Line.connect(*arguments, **named)


def _be_wary(connection: object, _record: object) -> None:
    if isinstance(connection, Line):
        connection.patience = FIRST_S


def _be_patient(connection: object, _record: object, _held: object) -> None:
    """After the ping."""
    if isinstance(connection, Line):
        connection.patience = ANSWER_S
