"""A database of the first schema, left by a release that was killed in mid-work, brought up to date: what was there
answers, and what was asked for is done. How it was made: `tests/fixtures/first_schema/README.md`."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

ROOT = Path(__file__).parents[2]
LEFT = ROOT / "tests" / "fixtures" / "first_schema"
PATIENCE = 240.0


@pytest.fixture
def left(tmp_path: Path, empty: str | None) -> dict[str, str]:
    """What the old release left, checkpoints apart, as the settings that lead there."""
    folder = tmp_path / "data"
    with tarfile.open(LEFT / ("models-postgresql.tar.gz" if empty else "models.tar.gz")) as models:
        models.extractall(folder / "models", filter="data")
    script = (LEFT / ("postgresql.sql" if empty else "gatecast.sql")).read_text(encoding="utf-8")
    if empty:
        with psycopg.connect(empty) as filled:
            filled.execute(script.encode())
    else:
        with closing(sqlite3.connect(folder / "gatecast.db")) as made:
            made.executescript(script)
    connection = psycopg.connect(empty) if empty else sqlite3.connect(folder / "gatecast.db")
    with closing(connection) as there:
        assert there.execute("select version_num from alembic_version").fetchall() == [("0001",)]
        states = there.execute("select state from jobs order by created_at").fetchall()
    assert [state for (state,) in states] == ["succeeded", "running", "pending"]
    return {"GATECAST_DATA": str(folder)} | ({"GATECAST_DATABASE_URL": empty} if empty else {})


@pytest.fixture
def url(left: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The address of today's server, with a worker, over that after `gatecast migrate`."""
    environment = {**os.environ, **left}
    command = [sys.executable, "-P", "-m", "app"]
    subprocess.run([*command, "migrate"], cwd=ROOT, env=environment, check=True)
    address = tmp_path / "address"
    serve = [*command, "serve", "--port", "0", "--announce", str(address)]
    process = subprocess.Popen(serve, cwd=ROOT, env=environment, start_new_session=True)
    deadline = time.monotonic() + PATIENCE
    while not address.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield address.read_text()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ask(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_what_the_first_schema_left_is_there_and_is_finished(url: str) -> None:
    forecast = {"model": "load/1", "dataset": "daily", "horizon": 7}
    old = ask(url, "/v1/forecasts", forecast)
    assert (old["model"]["version"], len(old["forecasts"][0]["mean"])) == (1, 7)
    deadline = time.monotonic() + PATIENCE
    found = ask(url, "/v1/jobs")["jobs"]
    while {job["state"] for job in found} & {"pending", "running"}:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
        found = ask(url, "/v1/jobs")["jobs"]
    assert [(job["state"], job["error"]) for job in found] == [("succeeded", None)] * 3
    pending, running, done = found
    assert (done["attempt"], running["attempt"], pending["attempt"]) == (1, 2, 1)
    versions = ask(url, "/v1/models/load/versions")["versions"]
    assert sorted(version["job"] for version in versions) == sorted(job["id"] for job in found)
    assert ask(url, "/v1/forecasts", forecast)["forecasts"] == old["forecasts"]
    newest = ask(url, "/v1/forecasts", forecast | {"model": "load"})
    assert newest["model"]["version"] in (2, 3)  # as the gate decides
