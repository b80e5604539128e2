"""Learning on from the base that comes with the program."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app import store
from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.services import attempts, training
from app.services.attempts import Attempt

from .conftest import wave


@pytest.fixture
def body(base: None, stored: Callable[..., int]) -> dict[str, Any]:
    stored("days", {f"s{level}": wave(60, 100.0 + level) for level in range(2)})
    config = {"steps": 5, "horizon": 4}
    return {"kind": "train", "dataset": "days", "model": "fuel", "warm_start_from": "base", "config": config}


def test_a_version_may_start_from_the_base(
    client: TestClient, settings: Settings, database: Database, body: dict[str, Any]
) -> None:
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert job["spec"]["warm_start_from"] == "base/1"
    with database.write(EVERY_WORKSPACE) as session:
        number = attempts.begin(session, job["id"], 1, "worker", "cpu")
        assert number is not None
        row = attempts.load(session, job["id"], number)
        attempt = Attempt(database, settings, row.id, number, row.kind, row.workspace, row.spec, "cpu")
    training.run(attempt)
    ended = client.get(f"/v1/jobs/{job['id']}").json()
    assert (ended["state"], ended["error"]) == ("succeeded", None)
    version = client.get(ended["result"]["href"]).json()
    assert (version["version"], version["parent"], version["config"]["pretrained"]) == (1, "base/1", True)
    manifest = json.loads((store.local(settings.store, attempt.name) / "manifest.json").read_bytes())
    assert manifest["judged"]["version"] <= manifest["judged"]["base"]
    assert "base/1 as it is" in client.get(f"/v1/jobs/{job['id']}/events").text


def test_a_network_of_ones_own_is_refused_at_its_field(client: TestClient, body: dict[str, Any]) -> None:
    answer = client.post("/v1/jobs", json=body | {"config": {"hidden": 32}})
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == ["/config/hidden"]
    assert "expected none with the base alone, got 32" in answer.json()["errors"][0]["message"]


def test_the_base_alone_takes_no_network_before_any_worker_looks(client: TestClient, body: dict[str, Any]) -> None:
    plain = {name: value for name, value in body.items() if name != "warm_start_from"}
    answer = client.post("/v1/jobs", json=plain | {"config": {"pretrained": True, "cell": "lstm"}})
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == ["/config/cell"]
