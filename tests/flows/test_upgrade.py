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
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LEFT = ROOT / "tests" / "fixtures" / "first_schema"
PATIENCE = 240.0

pytestmark = pytest.mark.skipif("TEST_DATABASE_URL" in os.environ, reason="the fixture is a SQLite database")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder that the old release left, checkpoints apart."""
    folder = tmp_path / "data"
    with tarfile.open(LEFT / "models.tar.gz") as models:
        models.extractall(folder / "models", filter="data")
    connection = sqlite3.connect(folder / "gatecast.db")
    connection.executescript((LEFT / "gatecast.sql").read_text(encoding="utf-8"))
    assert connection.execute("select version_num from alembic_version").fetchall() == [("0001",)]
    states = connection.execute("select state from jobs order by id").fetchall()
    connection.close()
    assert [state for (state,) in states] == ["succeeded", "running", "pending"]
    return folder


@pytest.fixture
def url(data: Path, tmp_path: Path) -> Iterator[str]:
    """The address of today's server, with a worker, over that folder after `gatecast migrate`."""
    environment = {**os.environ, "GATECAST_DATA": str(data)}
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
    assert newest["model"]["version"] == 3
