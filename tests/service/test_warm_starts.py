"""Learning on from a version: what is pinned when it is asked for, what is refused, and what the new version says."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app import store
from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import VersionRow
from app.errors import Invalid, NotFound, Unavailable
from app.services import attempts, training
from app.services.attempts import Attempt
from app.services.training import TrainAsk
from models import TrainConfig

from .conftest import wave

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(client: TestClient, publish: Callable[..., int], stored: Callable[..., int]) -> Ask:
    """Ask for a train job that goes on from the tiny version: the job, or with `status` the refusal."""
    publish("fuel")
    stored("days", {f"s{level}": wave(90, 100.0 + level) for level in range(3)})

    def posted(reference: str = "fuel", *, status: int = 202, **config: Any) -> dict[str, Any]:
        body = {"kind": "train", "dataset": "days", "model": "fuel", "warm_start_from": reference, "config": config}
        answer = client.post("/v1/jobs", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    return posted


@pytest.fixture
def at_work(database: Database, settings: Settings) -> Callable[[dict[str, Any]], Attempt]:
    """The first attempt at a job, as a worker begins it."""

    def begin(job: dict[str, Any]) -> Attempt:
        with database.write(EVERY_WORKSPACE) as session:
            number = attempts.begin(session, job["id"], 1, "worker", "cpu")
            assert number is not None
            row = attempts.load(session, job["id"], number)
            return Attempt(database, settings, row.id, number, row.kind, row.workspace, row.spec, "cpu")

    return begin


def folder_of(database: Database, settings: Settings) -> Any:
    with database.read("default") as session:
        return store.local(settings.store, session.scalars(select(VersionRow)).one().folder)


def test_the_new_version_names_its_parent_and_is_like_it(
    client: TestClient, settings: Settings, ask: Ask, at_work: Callable[..., Attempt]
) -> None:
    job = ask("fuel@champion", steps=3, unfrozen="head")
    assert job["spec"]["warm_start_from"] == "fuel/1"
    training.run(attempt := at_work(job))
    ended = client.get(f"/v1/jobs/{job['id']}").json()
    assert (ended["state"], ended["error"]) == ("succeeded", None)
    version = client.get(ended["result"]["href"]).json()
    old = client.get("/v1/models/fuel/versions/1").json()
    assert (version["version"], version["parent"]) == (2, "fuel/1")
    for name in ("cell", "hidden", "context", "horizon", "segment", "scaling", "quantiles"):
        assert version["config"][name] == old["config"][name]
    assert (version["config"]["steps"], version["config"]["unfrozen"]) == (3, "head")
    manifest = json.loads((store.local(settings.store, attempt.name) / "manifest.json").read_bytes())
    assert manifest["lineage"]["warm_start_from"] == "fuel/1"
    assert "warm start: from fuel/1" in client.get(f"/v1/jobs/{job['id']}/events").text


def test_the_version_is_pinned_when_it_is_asked_for(
    client: TestClient, publish: Callable[..., int], ask: Ask, at_work: Callable[..., Attempt]
) -> None:
    job = ask("fuel", steps=1)
    publish("fuel", promote="always")
    training.run(at_work(job))
    assert client.get("/v1/models/fuel/versions/3").json()["parent"] == "fuel/1"


@pytest.mark.parametrize("reference", ["nothing", "fuel@none", "fuel/9"])
def test_a_version_that_is_not_there_is_not_found(ask: Ask, reference: str) -> None:
    assert ask(reference, status=404)["type"] == "/docs/errors#not-found"


@pytest.mark.parametrize(
    ("config", "detail"),
    [
        ({"hidden": 32}, "hidden: expected 8 as in the version to start from, or none, got 32."),
        ({"cell": "lstm"}, "cell: expected 'gru' as in the version to start from, or none, got 'lstm'."),
        ({"horizon": 14}, "horizon: expected 7 as in the version to start from, or none, got 14."),
    ],
)
def test_another_network_than_the_versions_is_refused(ask: Ask, config: dict[str, Any], detail: str) -> None:
    problem = ask(status=422, **config)
    assert problem["detail"] == detail
    assert [one["pointer"] for one in problem["errors"]] == [f"/config/{next(iter(config))}"]


def test_steps_of_another_length_are_refused(client: TestClient, ask: Ask, hourly: str) -> None:
    body = {"kind": "train", "dataset": hourly, "model": "fuel", "warm_start_from": "fuel"}
    problem = client.post("/v1/jobs", json=body).json()
    assert problem["status"] == 422
    assert [(one["code"], one["pointer"]) for one in problem["errors"]] == [("other-frequency", "/warm_start_from")]
    assert "expected steps as long as the version's, D, got h" in problem["detail"]


def test_a_version_of_another_format_is_a_conflict(database: Database, settings: Settings, ask: Ask) -> None:
    path = folder_of(database, settings) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"format": 1}))
    with database.write("default") as session:
        session.execute(update(VersionRow).values(digest=store.digest(path.parent)))
    problem = ask(status=409)
    assert problem["type"] == "/docs/errors#other-format"
    assert "got 1" in problem["detail"]


def test_a_damaged_version_is_named_when_asked_for_or_when_started_from(
    database: Database, settings: Settings, ask: Ask, at_work: Callable[..., Attempt]
) -> None:
    attempt = at_work(ask())
    (folder_of(database, settings) / "weights.safetensors").write_bytes(b"rot")
    with pytest.raises(Unavailable, match=r"weights\.safetensors has other bytes"):
        training.run(attempt)
    (folder_of(database, settings) / "manifest.json").write_bytes(b"{}")
    assert ask(status=503)["type"] == "/docs/errors#artifact-damaged"


def test_a_version_deleted_meanwhile_is_named(
    client: TestClient, publish: Callable[..., int], ask: Ask, at_work: Callable[..., Attempt]
) -> None:
    attempt = at_work(ask("fuel/1"))
    publish("fuel", promote="always")
    assert client.delete("/v1/models/fuel/versions/1").status_code == 204
    with pytest.raises(NotFound, match="no version 1"):
        training.run(attempt)


@pytest.mark.usefixtures("ask")
def test_the_versions_horizon_obeys_the_servers_limit(settings: Settings, database: Database) -> None:
    low = settings.model_copy(update={"max_horizon": 5})
    wanted = TrainAsk("days", "fuel", TrainConfig(), warm_start_from="fuel")
    with database.read("default") as session, pytest.raises(Invalid, match="horizon: expected at most 5, got 7"):
        training.plan(session, wanted, low)
