"""What names stood for is remembered until somebody commits something, in this process or another."""

import re
import sqlite3
from pathlib import Path

import pytest

from app.config import Settings
from app.db.session import Database
from app.services import datasets
from app.services.opened import KEPT, Remembered


class Counting:
    """Says how often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> int:
        self.times += 1
        return self.times


@pytest.fixture
def kept(database: Database) -> Remembered[int]:
    if not database.is_sqlite:
        pytest.skip("PostgreSQL tells of the commits of all its databases, those of other tests too")
    return Remembered[int](database)


def test_nothing_is_looked_up_twice_between_two_commits(kept: Remembered[int]) -> None:
    look = Counting()
    assert [kept.get("default", "fuel", look) for _ in range(3)] == [1, 1, 1]
    assert kept.get("another", "fuel", look) == 2
    assert kept.get("default", "base", look) == 3
    assert kept.get("default", "fuel", look) == 1


def test_a_commit_of_this_process_is_seen(kept: Remembered[int], database: Database) -> None:
    look = Counting()
    kept.get("default", "fuel", look)
    with database.write("default") as session:
        datasets.create(session, "days", ("D", "UTC"), {})
    assert [kept.get("default", "fuel", look) for _ in range(2)] == [2, 2]


def test_a_commit_of_another_process_is_seen(kept: Remembered[int], settings: Settings) -> None:
    """Another connection that knows nothing of ours is as good as another process."""
    look = Counting()
    kept.get("default", "fuel", look)
    other = sqlite3.connect(settings.data / "gatecast.db")
    other.execute("create table strange (x)")
    other.commit()
    other.close()
    assert kept.get("default", "fuel", look) == 2


def test_what_changes_while_it_is_looked_up_is_not_kept(kept: Remembered[int], database: Database) -> None:
    look = Counting()

    def overtaken() -> int:
        found = look()
        with database.write("default") as session:
            datasets.create(session, f"days-{found}", ("D", "UTC"), {})
        return found

    assert [kept.get("default", "fuel", overtaken) for _ in range(3)] == [1, 2, 3]


def test_a_refusal_is_not_kept(kept: Remembered[int]) -> None:
    def refuse() -> int:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        kept.get("default", "fuel", refuse)
    assert kept.get("default", "fuel", Counting()) == 1


def test_names_are_kept_within_bounds(kept: Remembered[int]) -> None:
    look = Counting()
    for number in range(3 * KEPT):
        kept.get("default", f"m{number}", look)
    kept.get("default", "m0", look)
    assert look.times == 3 * KEPT + 1  # m0 had been let go of


def test_a_database_that_cannot_tell_is_asked_each_time(tmp_path: Path) -> None:
    (tmp_path / "no.db").mkdir()  # a folder: it cannot be opened
    look = Counting()
    kept = Remembered[int](Database(f"sqlite:///{tmp_path / 'no.db'}"))
    assert [kept.get("default", "fuel", look) for _ in range(2)] == [1, 2]


def test_a_stamp_asked_for_in_vain_is_not_asked_for_again(kept: Remembered[int]) -> None:
    look = Counting()
    assert [kept.get("default", "fuel", look, None) for _ in range(2)] == [1, 2]
    assert [kept.get("default", "fuel", look) for _ in range(2)] == [3, 3]


def test_a_lost_line_tells_nothing_and_is_replaced(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("a file has no line to it")
    assert re.fullmatch(r"\d+:\d+:[\d,]*", str(database.stamp()))
    line = database._look
    assert line is not None
    with database.engine.connect() as other:
        number = line.connection.driver_connection.info.backend_pid
        assert other.exec_driver_sql(f"select pg_terminate_backend({number}, 5000)").scalar()
    assert database.stamp() is None
    assert database.stamp() is None  # for some seconds nobody waits for it
    database._silent_until = 0.0
    assert database.stamp() is not None
