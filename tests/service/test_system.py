"""/healthz, /readyz, /v1/system."""

import datetime as dt
import os
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.db.session import Database
from app.db.tables import JobRow, WorkerRow, utc_now
from app.main import create_app


def test_alive_and_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_alive_but_not_ready_before_the_migration(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(data=tmp_path / "fresh"))) as client:
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["type"] == "/docs/errors#not-ready"
    assert [error["code"] for error in answer.json()["errors"]] == ["migrations"]
    assert "gatecast migrate" in answer.json()["errors"][0]["hint"]


def test_not_ready_without_database_or_store(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with TestClient(create_app(Settings(data=data, database_url="postgresql://u:p4ss@127.0.0.1:1/x"))) as client:  # type: ignore[arg-type]
        (data / "models").rmdir()
        (data / "models").write_text("in the way")
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert [error["code"] for error in answer.json()["errors"]] == ["database", "store"]
    assert "p4ss" not in answer.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_not_ready_when_the_store_is_read_only(client: TestClient, settings: Settings) -> None:
    settings.store.chmod(0o500)
    assert [error["code"] for error in client.get("/readyz").json()["errors"]] == ["store"]


def test_what_the_server_has(client: TestClient, database: Database) -> None:
    assert client.get("/v1/system").json()["workers"] == []
    device = {"name": "cpu", "kind": "cpu"}
    with database.write("default") as session:
        session.add(WorkerRow(id="w1", host="here", pid=1, devices=[device], slots=[]))
        gone = utc_now() - dt.timedelta(minutes=5)
        session.add(WorkerRow(id="w0", host="there", pid=1, devices=[device], slots=[], beat_at=gone))
        for n, state in enumerate(("pending", "pending", "running", "failed")):
            session.add(JobRow(id=f"job_{n}", kind="train", state=state, spec={}, worker="w1", slot="cpu#0"))
    with database.write("b") as session:
        session.add(JobRow(id="job_x", kind="train", state="running", spec={}, worker="w1", slot="cpu#1"))
    said = client.get("/v1/system").json()
    assert said["devices"] == [device]
    assert [worker["id"] for worker in said["workers"]] == ["w1"]
    assert said["workers"][0]["running"] == [{"slot": "cpu#0", "job": "job_2", "kind": "train"}]
    assert said["queue"] == {"pending": 2, "running": 1}
    assert said["version"].count(".") == 2
