"""The migrations make exactly the tables that the code names, and every one of them can be taken back."""

import subprocess
import sys
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from app.config import Settings
from app.db.migrate import config, drift, is_current, migrate, newest
from app.db.session import Database
from app.db.tables import Base

ROOT = Path(__file__).parents[2]


def names(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) & set(Base.metadata.tables)


def test_migrations_equal_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        assert drift(connection) == []


def test_down_to_nothing_and_up_again(database: Database) -> None:
    assert names(database) == set(Base.metadata.tables)
    migrate(database, "base")
    assert names(database) == set()
    assert not is_current(database)
    migrate(database)
    assert names(database) == set(Base.metadata.tables)
    assert is_current(database)
    with database.engine.connect() as connection:
        assert drift(connection) == []


def test_the_newest_is_alembics_head() -> None:
    """Told without Alembic, which a server whose tables are new enough does not load."""
    assert newest() == ScriptDirectory.from_config(config()).get_current_head()


def test_migrating_twice_changes_nothing(database: Database) -> None:
    migrate(database)
    assert is_current(database)


def test_a_file_made_by_another_release_of_the_engine_is_brought_up_to_date(tmp_path: Path) -> None:
    """A server asks the file's header alone, without loading the engine."""
    file = Database(f"sqlite:///{tmp_path / 'gatecast.db'}")
    migrate(file)
    with file.engine.begin() as connection:
        seen = connection.exec_driver_sql("PRAGMA user_version").scalar()
        connection.exec_driver_sql("DROP TABLE workflow_input")  # as a release would leave it that had no such table
        connection.exec_driver_sql("DELETE FROM dbos_migrations")
    migrate(file)  # nothing to do, says the header
    assert "workflow_input" not in inspect(file.engine).get_table_names()
    with file.engine.begin() as connection:
        for name in set(inspect(connection).get_table_names()) - set(Base.metadata.tables) - {"alembic_version"}:
            connection.exec_driver_sql(f"DROP TABLE {name}")
        connection.exec_driver_sql("PRAGMA user_version = 1")
    migrate(file)
    assert "workflow_input" in inspect(file.engine).get_table_names()
    with file.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA user_version").scalar() == seen
    file.close()


def test_many_may_migrate_at_once(settings: Settings) -> None:
    """Replicas that start together on an empty database: each waits its turn, and all find it done."""
    emptied = Database(settings.url)
    migrate(emptied, "base")
    emptied.close()
    code = (
        "import sys; from app.db.session import Database; from app.db.migrate import migrate; "
        "migrate(Database(sys.argv[1]))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, settings.url], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in started:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    database = Database(settings.url)
    assert is_current(database)
    database.close()
