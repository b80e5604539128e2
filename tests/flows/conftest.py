"""Real worker processes over the test's own database and data folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.db.session import Database
from app.services.jobs import events

PATIENCE = 120.0  # seconds to wait for what has to come; nothing is concluded from how long it took
ROOT = Path(__file__).parents[2]
TINY = {"horizon": 12, "context": 48, "segment": 12, "hidden": 8, "layers": 1, "batch": 8, "scaling": "std"}


class Worker:
    """A worker process of its own session, so that the test can end it, or it and its children."""

    def __init__(self, settings: Settings, url: str | None = None, slots: int = 1) -> None:
        environment = {**os.environ, "GATECAST_DATA": str(settings.data), "GATECAST_SLOTS": str(slots)}
        if settings.database_url is not None:
            environment["GATECAST_DATABASE_URL"] = url or settings.database_url.get_secret_value()
        command = [sys.executable, "-m", "app", "worker"]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)

    @property
    def pid(self) -> int:
        return self.process.pid

    def at_work(self) -> list[int]:
        """Process ids of the children that have been given a job: they have made themselves nice, the spare has not."""
        command = ["ps", "-o", "pid=,ni=", "--ppid", str(self.pid)]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        return [int(pid) for pid, nice in zip(found[::2], found[1::2], strict=True) if int(nice) > os.nice(0)]

    def until_at_work(self) -> int:
        """Process id of a child at work, as soon as there is one."""
        return until(self.at_work)[0]

    def kill(self) -> None:
        """kill -9 of the parent alone; its children have to notice."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@pytest.fixture
def start_worker(settings: Settings) -> Iterator[Callable[..., Worker]]:
    """Start a worker, which may reach a PostgreSQL database by another URL; those left are killed at the end."""
    started: list[Worker] = []

    def start(url: str | None = None, slots: int = 1) -> Worker:
        started.append(Worker(settings, url, slots))
        return started[-1]

    yield start
    for worker in started:
        if worker.process.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.process.wait()


def until(found: Callable[[], Any]) -> Any:
    """What `found` gives once it is truthy. Fails after two minutes."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.1)
    pytest.fail("waited two minutes in vain")


@pytest.fixture
def jobs(client: TestClient, database: Database, hourly: str) -> "Jobs":
    return Jobs(client, database, hourly)


class Jobs:
    """Train jobs over the API."""

    def __init__(self, client: TestClient, database: Database, dataset: str) -> None:
        self.client, self.database, self.dataset = client, database, dataset

    def train(self, steps: int) -> str:
        config = TINY | {"patience": 10_000, "steps": steps}
        body = {"kind": "train", "dataset": self.dataset, "model": "load", "config": config}
        answer = self.client.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def show(self, job: str) -> dict[str, Any]:
        return self.client.get(f"/v1/jobs/{job}").json()

    def wait(self, job: str, *states: str) -> dict[str, Any]:
        """The job once it is in one of the states."""
        return until(lambda: shown if (shown := self.show(job))["state"] in states else None)

    def wait_for_step(self, job: str, least: int) -> dict[str, Any]:
        """The job once it runs and has come so far."""
        return until(lambda: shown if (shown := self.show(job))["progress"]["step"] >= least else None)

    def wait_for_checkpoint(self, settings: Settings, job: str) -> int:
        """The step at which the job was seen, once a checkpoint of it is on disk."""
        until(lambda: list((settings.checkpoints / job).rglob("*.safetensors")))
        return self.show(job)["progress"]["step"]

    def events(self, job: str) -> list[tuple[str, dict[str, Any]]]:
        """All events so far: kind and data."""
        with self.database.read("default") as session:
            return [(row.kind, row.data) for row in events(session, job, 0, 10_000)[0]]

    def kinds(self, job: str) -> list[str]:
        return [kind for kind, _ in self.events(job)]

    def lines(self, job: str) -> list[str]:
        """The log lines among the events."""
        return [data["message"] for kind, data in self.events(job) if kind == "log"]

    def begun_at(self, job: str, attempt: int) -> int:
        """The first training step that an attempt tells, once it has."""

        def told() -> int | None:
            found = self.events(job)
            begins = (n for n, (_, data) in enumerate(found) if data.get("message") == f"attempt {attempt} on cpu")
            after = found[next(begins, len(found)) :]
            return next((data["step"] for kind, data in after if kind == "progress" and data["total"]), None)

        return until(told)

    def versions(self) -> list[str]:
        """The jobs that made the model's versions, newest first."""
        rows = self.client.get("/v1/models/load/versions").json().get("versions", [])
        return [row["job"] for row in rows]
