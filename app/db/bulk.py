"""Many rows at once by the drivers' own ways: through the statement compiler ten thousand take twice as long."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from sqlalchemy.orm import Session

ROWS = 5000  # bound at a time on SQLite


def insert(session: Session, table: str, columns: Mapping[str, str], rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert rows of the `columns`, each named with its type in PostgreSQL. Names are ours, never a client's."""
    names = ", ".join(f'"{name}"' for name in columns)
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        cursor: Any = connection.connection.cursor()
        with cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(tuple(columns.values()))
            for row in rows:
                copy.write_row(row)
        return
    statement = f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
    rest = iter(rows)
    while some := list(islice(rest, ROWS)):
        connection.exec_driver_sql(statement, some)
