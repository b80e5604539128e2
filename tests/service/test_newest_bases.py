"""Reading a series that points arrived at one by one takes the same work, however many came before its newest base."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from app.db.session import Database
from app.db.tables import DatasetRow, SeriesRow
from app.services import ends, segments
from app.services.segments import TARGET, Extent
from app.services.series import Span

SERIES = 20  # of either kind
LATER = 4  # segments after the newest base
HEAD = 10 * (segments.MOST + 1) + 1 + LATER
ALL_BASES = 4  # times the work, at most, where the columns are not named: ten bases more, of 655 segments

Ask = Callable[[Session, DatasetRow, list[int], str], Any]
ASKS: dict[str, Ask] = {
    "fetch": lambda session, _, ids, __: list(segments.fetch(session, ids, HEAD, [TARGET])),
    "window": lambda session, _, ids, __: list(segments.fetch(session, ids, HEAD, [TARGET], (HEAD - 9, HEAD + 9))),
    "every column": lambda session, _, ids, __: list(segments.fetch(session, ids, HEAD)),
    "extents": lambda session, _, ids, __: segments.extents(session, ids, HEAD, [TARGET]),
    "every extent": lambda session, _, ids, __: segments.extents(session, ids, HEAD),
    "ends": lambda session, dataset, _, kind: ends.read_span(session, dataset, HEAD, Span(f"{kind}", f"{kind}z"), 3),
}


def _pieces(kind: str) -> Iterator[tuple[int, list[segments.Piece]]]:
    """The segments of each revision: at the head all hold the same."""
    newest = HEAD - LATER
    for revision in range(1, HEAD + 1):
        if kind == "old" or revision >= newest:
            base = (newest - revision) % (segments.MOST + 1) == 0
            values = np.arange(revision, dtype=float) if base else np.array([float(revision - 1)])
            start = 0 if base else revision - 1
            spans = [segments.Span(owner, TARGET, base, start, values) for owner in range(SERIES)]
            yield revision, segments.packed(spans)


@pytest.fixture
def dataset(database: Database) -> DatasetRow:
    """Series with a long past, named `old`, and with hardly any, named `new`."""
    with database.write("default") as session:
        dataset = DatasetRow(name="d", frequency="h", head=HEAD)
        session.add(dataset)
        session.flush()
        for kind in ("old", "new"):
            rows = [SeriesRow(dataset_id=dataset.id, key=f"{kind}{at:02}", revision=1) for at in range(SERIES)]
            session.add_all(rows)
            session.flush()
            for revision, pieces in _pieces(kind):
                segments.keep(session, revision, pieces, [row.id for row in rows])
        session.expunge(dataset)
    if not database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("analyze segments")
    return dataset


def _steps(session: Session, ask: Callable[[], Any]) -> int:
    """Of SQLite's machine."""
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    line: Any = session.connection().connection.driver_connection
    line.set_progress_handler(count, 1)
    try:
        ask()
    finally:
        line.set_progress_handler(None, 0)
    return steps[0]


def _rows(session: Session, ask: Callable[[], Any]) -> int:
    """Of the table or its indexes that PostgreSQL looks at."""
    said: list[tuple[str, Any]] = []

    def hear(*told: Any) -> None:
        said.append(told[2:4])

    connection = session.connection()
    event.listen(connection, "before_cursor_execute", hear)
    ask()
    event.remove(connection, "before_cursor_execute", hear)
    asked = [each for each in said if "segments" in each[0]]
    plans = [
        connection.exec_driver_sql(f"explain (analyze, format json) {statement}", parameters).scalar_one()
        for statement, parameters in asked
    ]
    return sum(_looked_at(plan[0]["Plan"]) for plan in plans)


def _looked_at(node: dict[str, Any]) -> int:
    rows = 0
    if node.get("Relation Name") == "segments":
        dropped = (value for name, value in node.items() if name.startswith("Rows Removed"))
        rows = node["Actual Loops"] * (node["Actual Rows"] + sum(dropped))
    return rows + sum(_looked_at(below) for below in node.get("Plans", ()))


@pytest.mark.parametrize("name", ASKS)
def test_what_came_before_the_newest_base_is_not_looked_at(database: Database, dataset: DatasetRow, name: str) -> None:
    work = _steps if database.is_sqlite else _rows
    with database.read("default") as session:
        took: dict[str, int] = {}
        for kind in ("new", "old"):
            keys = [f"{kind}{at:02}" for at in range(SERIES)]
            ids = [row.id for row in session.query(SeriesRow).where(SeriesRow.key.in_(keys))]
            ASKS[name](session, dataset, ids, kind)  # compiled, the dataset's own row read
            took[kind] = work(session, lambda kind=kind, ids=ids: ASKS[name](session, dataset, ids, kind))
    assert took["new"] > 0
    assert took["old"] <= took["new"] * (ALL_BASES if name.startswith("every") else 1.1), took


def test_what_is_there_is_found(database: Database, dataset: DatasetRow) -> None:
    """At the head, and before the newest base; what is named twice once."""
    with database.read("default") as session:
        ids = {row.key: row.id for row in session.query(SeriesRow)}
        old, new = ids["old00"], ids["new00"]
        for columns in ([TARGET], [TARGET, "other", TARGET], None):
            found = segments.extents(session, [old, new, old], HEAD, columns)
            assert found == {(old, TARGET): Extent(LATER, 0, HEAD), (new, TARGET): Extent(LATER, 0, HEAD)}
            assert len(list(segments.fetch(session, [old, new, old], HEAD, columns))) == 2 * (1 + LATER)
            before = segments.extents(session, [old, new], HEAD - LATER - 1, columns)
            assert before == {(old, TARGET): Extent(segments.MOST, 0, HEAD - LATER - 1)}
        read = ends.read_span(session, dataset, HEAD, Span("old", "oldz"), 3)
    np.testing.assert_array_equal(read.values, np.tile([HEAD - 3.0, HEAD - 2.0, HEAD - 1.0], (SERIES, 1)))
    assert set(read.origins.tolist()) == {HEAD - 1}
