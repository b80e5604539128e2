"""A disk without room: what could not be written is said in words, nothing is there by half, and the server lives.

A limit on the size of a file stands for the full disk: the system answers a write past it as it does one without room.
"""

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.config import Settings
from app.db.session import Database
from app.db.tables import VersionRow

TINY = {"horizon": 12, "context": 48, "segment": 12, "layers": 1, "batch": 8, "scaling": "std"}
TOLD = "/docs/errors#disk-full"


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file may grow past this size, in this process and those it starts."""
    before, handled = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handled)


def test_a_job_without_room_fails_in_words_and_goes_on_when_there_is_some(
    jobs: Any, start_worker: Callable[[], Any], settings: Settings, database: Database
) -> None:
    """What training writes does not fit; SQLite's files, which the limit holds for too, do."""
    with room(6_000_000):
        worker = start_worker()
    config = TINY | {"hidden": 512, "steps": 1, "pretrained": False}
    asked = {"kind": "train", "dataset": jobs.dataset, "model": "load", "config": config}
    job = jobs.client.post("/v1/jobs", json=asked).json()["id"]
    ended = jobs.wait(job, "failed", "succeeded")
    assert (ended["state"], ended["error"]["type"]) == ("failed", TOLD)
    assert "Make room" in ended["error"]["detail"]
    assert ended["attempt"] == 1
    assert [path for path in (settings.data / "models").iterdir() if path.name.lstrip(".").startswith("reserved")] == []
    assert jobs.versions() == []
    assert worker.stop() == 0
    start_worker()
    assert jobs.client.post(f"/v1/jobs/{job}/retry").status_code == 202
    assert jobs.wait(job, "failed", "succeeded")["state"] == "succeeded"
    with database.read("default") as session:
        assert session.scalar(select(func.count()).select_from(VersionRow)) == 1


def test_an_upload_without_room_is_refused_whole(client: TestClient, settings: Settings) -> None:
    rows = "".join(f"a,2026-01-{day:02}T00:00:00Z,{day}\n" for day in range(1, 29))
    body = ("unique_id,ds,y\n" + rows).encode()
    filler = b"unique_id,ds,y\n" + b"".join(b"s%d,2026-01-01T00:00:00Z,1\n" % number for number in range(120_000))
    with room(1_000_000):
        refused = client.post("/v1/datasets/full/revisions", content=filler, headers={"Content-Type": "text/csv"})
    assert (refused.status_code, refused.json()["type"]) == (503, TOLD)
    assert list(settings.spool.iterdir()) == []
    assert client.get("/v1/datasets/full").status_code == 404
    kept = client.post("/v1/datasets/full/revisions", content=body, headers={"Content-Type": "text/csv"})
    assert kept.status_code == 201, kept.text


def test_a_database_without_room_changes_nothing(client: TestClient, database: Database, hourly: str) -> None:
    if not database.is_sqlite:
        pytest.skip("the files of PostgreSQL are its server's")
    body = {"kind": "train", "dataset": hourly, "model": "m", "config": {"steps": 1, "horizon": 12}}
    with room(4096):
        refused = client.post("/v1/jobs", json=body)
        assert client.get("/healthz").status_code == 200
        assert client.get(f"/v1/datasets/{hourly}").status_code == 200
    assert refused.status_code == 503, refused.text
    assert client.get("/v1/jobs").json()["jobs"] == []
    assert client.post("/v1/jobs", json=body).status_code == 202
