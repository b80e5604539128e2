"""A database that is there and does not answer: locked by another process, or behind a line that is frozen."""

import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url, text
from sqlalchemy.exc import InternalError, OperationalError

from app.config import Settings
from app.db.session import EVERY_WORKSPACE, SILENT_S, Database


class Line:
    """A way to the tests' PostgreSQL that can be frozen: what is sent then is taken, and arrives when it is thawed."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        host, port = parsed.query.get("host", parsed.host), int(str(parsed.query.get("port", parsed.port or 5432)))
        self._target = f"{host}/.s.PGSQL.{port}" if str(host).startswith("/") else (str(host), port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.flows = threading.Event()
        self.flows.set()
        query = {name: value for name, value in parsed.query.items() if name not in ("host", "port")}
        near = parsed.set(host="127.0.0.1", port=self._listening.getsockname()[1], query=query)
        self.url = near.render_as_string(hide_password=False)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.flows.set()
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self.flows.wait()
        far = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
        far.connect(self._target)
        back = threading.Thread(target=self._pass, args=(far, near), daemon=True)
        back.start()
        self._pass(near, far)
        back.join()
        near.close()
        far.close()

    def _pass(self, here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while part := here.recv(65536):
                self.flows.wait()
                there.sendall(part)
        with suppress(OSError):
            there.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def line(settings: Settings) -> Iterator[Line]:
    if settings.database_url is None:
        pytest.skip("a file has no line to it")
    made = Line(settings.url)
    yield made
    made.close()


def test_a_write_behind_somebody_elses_lock_is_asked_to_come_again(client: TestClient, settings: Settings) -> None:
    if settings.database_url is not None:
        pytest.skip("one lock for all writers is SQLite's")
    client.post("/v1/datasets", json={"name": "first"}).raise_for_status()
    other = sqlite3.connect(settings.data / "gatecast.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refused = client.post("/v1/datasets", json={"name": "second"})
    assert (refused.status_code, refused.json()["type"]) == (503, "/docs/errors#unavailable")
    assert refused.headers["retry-after"]
    assert client.get("/v1/datasets/first").status_code == 200  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    assert client.post("/v1/datasets", json={"name": "second"}).status_code == 201


def test_a_frozen_line_is_given_up_and_found_again(line: Line) -> None:
    database = Database(line.url)
    for _ in range(2):
        with database.write(EVERY_WORKSPACE) as session:
            assert session.scalar(text("select 1")) == 1
        line.flows.clear()
        with pytest.raises(OperationalError), database.read(EVERY_WORKSPACE) as session:
            session.scalar(text("select 1"))
        line.flows.set()
    with database.read(EVERY_WORKSPACE) as session:
        assert session.scalar(text("select 1")) == 1
    database.close()


def test_a_look_behind_a_frozen_line_is_not_taken_by_one_after_the_other(line: Line) -> None:
    database = Database(line.url)
    assert database.stamp() is not None
    line.flows.clear()
    assert database.stamp() is None
    line.flows.set()
    assert database.stamp() is None  # it is not tried again at once
    threading.Event().wait(SILENT_S)
    assert database.stamp() is not None
    database.close()


def test_who_stands_still_in_a_transaction_holds_nobody_up(settings: Settings) -> None:
    """A worker's machine stops between two statements; the job's row is locked then, and another has to take it."""
    if settings.database_url is None:
        pytest.skip("on one machine the process that is gone takes its lock along")
    still, other = Database(settings.url, holds=0.5), Database(settings.url)
    claim = text("update alembic_version set version_num = version_num")
    with pytest.raises((OperationalError, InternalError)), still.write(EVERY_WORKSPACE) as session:  # noqa: PT012
        session.execute(claim)
        with other.write(EVERY_WORKSPACE) as second:  # waits until the server has ended the first
            second.execute(claim)
    still.close()
    other.close()


def test_a_worker_behind_a_frozen_line_goes_on_when_it_is_back(
    jobs: Any, start_worker: Callable[..., Any], line: Line
) -> None:
    worker = start_worker(line.url)
    first, second = jobs.train(100), jobs.train(3)
    jobs.wait_for_step(first, 1)
    line.flows.clear()
    threading.Event().wait(8)
    line.flows.set()
    assert [jobs.wait(job, "succeeded", "failed")["state"] for job in (first, second)] == ["succeeded"] * 2
    assert jobs.versions() == [second, first]
    assert [jobs.kinds(job).count("done") for job in (first, second)] == [1, 1]
    assert worker.stop() == 0
