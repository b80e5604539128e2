"""Many rows or values at once by the drivers' own ways, for compiling a statement takes longer than running it."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson
from sqlalchemy import ColumnElement, TableValuedAlias, Text, any_, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute, Session

ROWS = 5000  # bound at a time on SQLite


def among(
    session: Session, column: InstrumentedAttribute[Any], values: Sequence[int] | Sequence[str]
) -> ColumnElement[bool]:
    """Whether the column is one of the values, which travel as one."""
    if session.get_bind().dialect.name == "postgresql":
        return column == any_(bindparam(None, list(values), type_=ARRAY(column.type)))
    each = func.json_each(orjson.dumps(values).decode()).table_valued("value")
    return column.in_(select(each.c.value))


def listed(dialect: str, column: Any, name: str) -> ColumnElement[bool]:
    """The same of the parameter `name`, which `packed` makes: for a statement that is built once."""
    if dialect == "postgresql":
        return column == any_(bindparam(name, type_=ARRAY(column.type)))
    each = func.json_each(bindparam(name, type_=Text())).table_valued("value")
    return column.in_(select(each.c.value))


def each(dialect: str, of: Any, name: str) -> TableValuedAlias:
    """The values of the parameter `name`, which `packed` makes, as rows: one column `value`, of the type of `of`."""
    value = column("value", of.type)
    if dialect == "postgresql":
        return func.unnest(bindparam(name, type_=ARRAY(of.type))).table_valued(value, name=name).render_derived()
    return func.json_each(bindparam(name, type_=Text())).table_valued(value, name=name)


def packed(dialect: str, values: Sequence[int] | Sequence[str]) -> Any:
    return list(values) if dialect == "postgresql" else orjson.dumps(values).decode()


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
