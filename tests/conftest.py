"""The house every test lives in: a real database built by the migrations (SQLite, or PostgreSQL when
TEST_DATABASE_URL names a server), a real data folder, the real application. Nothing of ours is patched; the
environment is scrubbed first."""

import math
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, make_url, text

from app.config import Settings
from app.db.migrate import migrate
from app.db.session import Database
from app.main import create_app
from app.services import datasets

for name in [name for name in os.environ if name.startswith("GATECAST_")]:
    del os.environ[name]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several test processes on few cores would wait for each other

POSTGRES = os.environ.get("TEST_DATABASE_URL")


def _admin(statement: str) -> None:
    engine = create_engine(Settings(database_url=POSTGRES).url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _named(database: str) -> str:
    return make_url(Settings(database_url=POSTGRES).url).set(database=database).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated, empty database to copy for each test: a file's path, or the name of a template on the server."""
    if POSTGRES:
        name = f"gatecast_template_{uuid.uuid4().hex[:12]}"
        _admin(f"create database {name}")
        database = Database(_named(name))
        migrate(database)
        database.close()
        yield name
        _admin(f"drop database {name} with (force)")
        return
    path = tmp_path_factory.mktemp("migrated") / "gatecast.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()
    yield str(path)


@pytest.fixture
def settings(tmp_path: Path, migrated: str) -> Iterator[Settings]:
    """Settings over a data folder and a migrated database of the test's own."""
    data = tmp_path / "data"
    for folder in (data, data / "models", data / "spool", data / "checkpoints"):
        folder.mkdir()
    if POSTGRES:
        name = f"gatecast_test_{uuid.uuid4().hex[:12]}"
        _admin(f"create database {name} template {migrated}")
        yield Settings(data=data, database_url=_named(name))
        _admin(f"drop database {name} with (force)")
        return
    shutil.copy(migrated, data / "gatecast.db")
    yield Settings(data=data)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    opened = Database(settings.url)
    yield opened
    opened.close()


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """The real application in this process; a server error is raised in the test instead of answered."""
    with TestClient(app) as opened:
        yield opened


@pytest.fixture
def hourly(database: Database) -> str:
    """The name of a stored dataset: four hourly series of 300 points from 1 January 2026, with a daily season."""
    first = int(np.datetime64("2026-01-01", "us").astype(np.int64))
    points = [
        (f"s{number}", first + hour * 3_600_000_000, round(10 + number + wave, 4))
        for number in range(4)
        for hour in range(300)
        for wave in [math.sin(hour * math.tau / 24) + 0.1 * math.sin(hour * (7 + number))]
    ]
    with database.write("default") as session:
        row = datasets.create(session, "hourly", ("h", "UTC"), {})
        datasets.append_points(session, row, points)
    return "hourly"
