"""The house every test lives in: a real database built by the migrations (SQLite, or PostgreSQL when
TEST_DATABASE_URL names a server), a real data folder, the real application. Nothing of ours is patched; the
environment is scrubbed first."""

import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
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
def empty() -> Iterator[str | None]:
    """The URL of a PostgreSQL database of the test's own without a table in it; None where the tests run on SQLite."""
    if not POSTGRES:
        yield None
        return
    name = f"gatecast_test_{uuid.uuid4().hex[:12]}"
    _admin(f"create database {name}")
    yield _named(name).replace("+psycopg", "")
    _admin(f"drop database {name} with (force)")


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


# ---------------------------------------------------------------- an object store

NEEDED = ("obstore", "moto", "flask", "flask_cors")
SECRET = "not-to-be-told-7f3a"


class ObjectStore:
    """One bucket of the server. Objects are read and written over plain HTTP, past the program."""

    def __init__(self, endpoint: str, bucket: str) -> None:
        self.endpoint, self.bucket = endpoint, bucket
        self.ask("PUT", "")

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/some/prefix"

    def environment(self, endpoint: str = "") -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIANOTTOBETOLD",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def listed(self) -> list[str]:
        """Every object below the prefix."""
        listing = self.ask("GET", "?list-type=2").decode()
        keys = [part.partition("</Key>")[0] for part in listing.split("<Key>")[1:]]
        return sorted(key.removeprefix("some/prefix/") for key in keys)

    def read(self, key: str) -> bytes:
        return self.ask("GET", f"/some/prefix/{key}")

    def write(self, key: str, content: bytes) -> None:
        self.ask("PUT", f"/some/prefix/{key}", content)

    def delete(self, key: str) -> None:
        self.ask("DELETE", f"/some/prefix/{key}")

    def ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        # The server asks who somebody is, and believes it.
        who = {"Authorization": "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request, Signature=any"}
        request = urllib.request.Request(f"{self.endpoint}/{self.bucket}{path}", content, who, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()


@pytest.fixture(scope="session")
def object_server() -> Iterator[str]:
    """The address of a server that lives as long as the tests."""
    if lacking := [name for name in NEEDED if find_spec(name) is None]:
        pytest.skip(f"the object store to test against needs {', '.join(lacking)}, as in the extra dev")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    for _ in range(600):
        assert process.poll() is None, "the object store to test against has ended"
        with suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(f"{endpoint}/moto-api/"):
            break
        time.sleep(0.1)
    yield endpoint
    process.kill()
    process.wait()


@pytest.fixture
def object_store(object_server: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An empty bucket, and the environment that leads to it."""
    store = ObjectStore(object_server, f"test-{uuid.uuid4().hex[:16]}")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    return store


class Line:
    """A way to the server that passes everything on, until it sees `word`: from then on nothing."""

    def __init__(self, endpoint: str, word: bytes, port: int = 0) -> None:
        self._port, self._word = int(endpoint.rpartition(":")[2]), word
        self.cut = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", port))
        self._open: list[socket.socket] = []
        self.endpoint = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in (self._listening, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._open += [near, far]
                for here, there in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(here, there), daemon=True).start()

    def _pass(self, here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while part := here.recv(65536):
                if self._word in part:
                    self.cut.set()
                if self.cut.is_set():
                    return
                there.sendall(part)
            there.shutdown(socket.SHUT_WR)


@pytest.fixture
def line_cut_at(object_store: ObjectStore) -> Iterator[Callable[..., Line]]:
    """Makes a line to the object store that is cut as soon as somebody begins to send this object."""
    lines: list[Line] = []

    def make(key: str, port: int = 0) -> Line:
        lines.append(Line(object_store.endpoint, f"PUT /{object_store.bucket}/some/prefix/{key}".encode(), port))
        return lines[-1]

    yield make
    for line in lines:
        line.close()
