"""Machines that share a database and an object store, nothing else: each process here has a data folder of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.main import create_app

ROOT = Path(__file__).parents[2]
SECRETS = ("AKIANOTTOBETOLD", "not-to-be-told-7f3a")
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(settings: Settings, object_store: Any, tmp_path: Path) -> Iterator[Start]:
    """Start `gatecast …` on a machine of this name."""
    started: list[subprocess.Popen[bytes]] = []

    def run(machine: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        folder = tmp_path / machine
        folder.mkdir(exist_ok=True)
        shared = {"GATECAST_DATABASE_URL": settings.url, "GATECAST_STORE_URL": object_store.url}
        log = (folder / "log").open("wb")
        with log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "app", *command, "--data", str(folder)],
                    cwd=ROOT,
                    env=os.environ | object_store.environment() | shared | environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def client(settings: Settings, object_store: Any, tmp_path: Path) -> Iterator[TestClient]:
    """The API of the machine `here`."""
    here = Settings(data=tmp_path / "here", database_url=settings.url, store_url=object_store.url)
    with TestClient(create_app(here)) as opened:
        yield opened


def test_a_version_of_one_machine_answers_on_the_others(
    start: Start, client: TestClient, jobs: Any, object_store: Any, tmp_path: Path
) -> None:
    start("worker", "worker")
    first, second = jobs.train(2), jobs.train(3)
    assert {jobs.wait(job, "succeeded", "failed")["state"] for job in (first, second)} == {"succeeded"}
    server = start("there", "serve", "--no-worker", "--port", "0", "--announce", str(tmp_path / "address"))
    while not (tmp_path / "address").exists():  # the test's own time limit ends it
        assert server.poll() is None, (tmp_path / "there" / "log").read_text()
        time.sleep(0.1)
    address = (tmp_path / "address").read_text()
    ask = {"model": "load", "dataset": jobs.dataset, "horizon": 12}
    with httpx.Client(base_url=address, timeout=60) as there:
        for number in (1, 2, 1):  # a moved alias reaches every process at its next request
            moved = client.put("/v1/models/load/aliases/champion", json={"version": number, "reason": "by hand"})
            assert moved.status_code in (200, 201), moved.text
            answers = [one.post("/v1/forecasts", json=ask).json() for one in (client, there)]
            assert [answer["model"]["version"] for answer in answers] == [number, number]
            assert answers[0]["forecasts"] == answers[1]["forecasts"]
        # Only what was asked for is copied, and the bytes are those that were published.
        names = sorted({path.parent.name for path in (tmp_path / "here" / "copies").glob("*/manifest.json")})
        assert [name for name in names if name.startswith("job_")] == sorted([f"{first}-1", f"{second}-1"])
        key = f"{first}-1/forward.onnx"
        assert there.get("/v1/models/load/versions/1/files/forward.onnx").content == object_store.read(key)
        assert there.get("/readyz").status_code == 200
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
    object_store.write(key, b"rot")
    fresh = Settings(data=tmp_path / "new", database_url=client.app.state.settings.url, store_url=object_store.url)  # type: ignore[attr-defined]
    with TestClient(create_app(fresh)) as late:
        refused = late.post("/v1/forecasts", json=ask)
    assert (refused.status_code, refused.json()["type"]) == (503, "/docs/errors#artifact-damaged")
    assert "forward.onnx" in refused.json()["detail"]
    said = "".join(path.read_text() for path in tmp_path.glob("*/log"))
    assert said
    assert not [secret for secret in SECRETS if secret in said]


@pytest.mark.parametrize("command", [("serve", "--no-worker", "--port", "0"), ("worker",), ("migrate",)])
def test_a_process_does_not_start_without_its_store(start: Start, tmp_path: Path, command: tuple[str, ...]) -> None:
    process = start("lost", *command, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert process.wait(60) == 1
    said = " ".join((tmp_path / "lost" / "log").read_text().split())
    assert "The object store cannot be used (no connection)." in said
    assert "Check GATECAST_STORE_URL" in said
    assert "Traceback" not in said
    assert not [secret for secret in SECRETS if secret in said]


def test_a_process_without_the_extra_says_what_to_install(settings: Settings, object_store: Any) -> None:
    without = (
        "import sys; sys.modules['obstore'] = None; from app.__main__ import main; sys.argv[1:] = ['worker']; main()"
    )
    environment = {"GATECAST_DATABASE_URL": settings.url, "GATECAST_STORE_URL": object_store.url}
    environment |= {"GATECAST_DATA": str(settings.data)}
    command = [sys.executable, "-c", without]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "pip install 'gatecast[s3]'" in " ".join((ended.stdout + ended.stderr).split())
