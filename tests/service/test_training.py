"""A train job's work, run in this process: a version appears with the job's end, and the gate picks the champion."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text

from app import store
from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import JobRow, VersionRow
from app.errors import Conflict
from app.services import attempts, gates, jobs, training
from app.services.attempts import Attempt, Fenced
from models import Progress, Stopped

TINY = {"horizon": 12, "context": 48, "segment": 12, "hidden": 8, "layers": 1, "batch": 8, "steps": 4, "scaling": "std"}

pytestmark = pytest.mark.usefixtures("hourly")


@pytest.fixture
def start(client: TestClient, database: Database, settings: Settings) -> Callable[..., Attempt]:
    """Ask for a train job over the API and begin its next attempt, as a worker would."""

    def begin(config: dict[str, Any] | None = None, **ask: Any) -> Attempt:
        body = {"kind": "train", "dataset": "hourly", "model": "load", "config": TINY | (config or {})} | ask
        answer = client.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return again(answer.json()["id"])

    def again(job: str) -> Attempt:
        with database.write(EVERY_WORKSPACE) as session:
            number = attempts.begin(session, job, 1, "worker", "cpu")
            assert number is not None
            row = attempts.load(session, job, number)
            return Attempt(database, settings, job, number, row.kind, row.workspace, row.spec, "cpu")

    begin.again = again  # type: ignore[attr-defined]
    return begin


def shown(client: TestClient, attempt: Attempt) -> dict[str, Any]:
    return client.get(f"/v1/jobs/{attempt.job}").json()


def champion(client: TestClient) -> int:
    return client.get("/v1/models/load/aliases/champion").json()["version"]


def test_a_version_appears_with_the_end_of_its_job(
    client: TestClient, settings: Settings, start: Callable[..., Attempt]
) -> None:
    attempt = start()
    training.run(attempt)
    job = shown(client, attempt)
    assert (job["state"], job["error"]) == ("succeeded", None)
    version = client.get(job["result"]["href"]).json()
    assert (version["job"], version["version"], version["aliases"]) == (attempt.job, 1, ["champion"])
    assert (version["dataset"], version["revision"]) == ("hourly", 1)
    assert version["config"]["horizon"] == 12
    assert version["metrics"]["mase"] == pytest.approx(job["metrics"]["mase"])
    assert {"naive", "seasonal_naive"} <= set(version["baselines"])
    assert not (settings.checkpoints / attempt.job).exists()
    store.verify(store.local(settings.store, attempt.name), version["digest"])


def test_the_better_version_becomes_champion_and_the_worse_does_not(
    client: TestClient, start: Callable[..., Attempt]
) -> None:
    training.run(start({"base": "none", "steps": 1}))  # an untrained network with nothing below it
    training.run(second := start())
    gate = shown(client, second)["result"]["gate"]
    assert gate["value"] < gate["champion_value"]
    assert (gate["champion"], gate["passed"], champion(client)) == (1, True, 2)
    move = client.get("/v1/models/load/aliases/champion/moves").json()["moves"][0]
    assert move["gate"]["champion_value"] == pytest.approx(gate["champion_value"])
    training.run(third := start({"base": "none", "steps": 1}))
    result = shown(client, third)["result"]
    assert (result["promoted"], result["gate"]["passed"], champion(client)) == (False, False, 2)


def test_the_gate_scores_the_champion_as_it_scored_itself(client: TestClient, start: Callable[..., Attempt]) -> None:
    """The same data and config: the champion's figure on the new held-out origins is the one it was published with."""
    training.run(start())
    own = client.get("/v1/models/load/versions/1").json()["metrics"]["mase"]
    training.run(second := start({"seed": 1}))
    assert shown(client, second)["result"]["gate"]["champion_value"] == pytest.approx(own, rel=1e-6)


def test_a_version_for_a_silly_horizon_is_compared_over_the_champions(
    client: TestClient, start: Callable[..., Attempt]
) -> None:
    """200 of 300 steps: over those the champion, trained for 12, would have to answer what nobody can."""
    training.run(start())
    training.run(second := start({"horizon": 200, "base": "none", "steps": 1}))
    gate = shown(client, second)["result"]["gate"]
    assert (gate["horizon"], gate["passed"], champion(client)) == (12, False, 1)
    own = client.get("/v1/models/load/versions/1").json()["metrics"]["mase"]
    assert gate["champion_value"] == pytest.approx(own, rel=1e-6)


def test_a_next_step_version_can_be_replaced(client: TestClient, start: Callable[..., Attempt]) -> None:
    """One step of four series is four values, too few to compare by: earlier origins are added."""
    training.run(start({"horizon": 1, "segment": 1, "context": 24, "base": "none", "steps": 1}))
    training.run(second := start({"horizon": 1, "segment": 1, "context": 24}))
    gate = shown(client, second)["result"]["gate"]
    assert (gate["horizon"], gate.get("refusal"), gate["passed"], champion(client)) == (1, None, True, 2)


def test_the_figures_alone_do_not_decide() -> None:
    good = gates.Scores({"mase": 0.8}, {"naive": {"mase": 2.0}, "seasonal_naive": {"mase": 0.9}})
    poor = gates.Scores({"mase": 1.0}, {"naive": {"mase": 2.0}, "seasonal_naive": {"mase": 0.9}})
    unknown = gates.Scores({}, {"naive": {"mase": None}})
    assert "seasonal_naive beats it" in (gates.beaten(poor, good) or "")
    assert {gates.beaten(*pair) for pair in ((good, good), (good, poor), (poor, poor), (poor, unknown))} == {None}
    assert gates.beaten(unknown, good) is None
    assert gates.shorter((2, 12), 0.9, 0.9) is None
    assert "for 2 steps it is worse over the champion's 12: mase 0.91 " in (gates.shorter((2, 12), 0.91, 0.9) or "")
    assert (gates.few(6), gates.few(5)) == (None, "5 values to compare over are too few, 6 are needed")


@pytest.mark.parametrize(("promote", "then"), [("never", 1), ("always", 2)])
def test_promote_never_and_always_ask_no_gate(
    client: TestClient, start: Callable[..., Attempt], promote: str, then: int
) -> None:
    training.run(start())
    training.run(second := start({"base": "none", "steps": 1}, promote=promote))
    assert "gate" not in shown(client, second)["result"]
    assert champion(client) == then


def test_a_champion_that_cannot_be_scored_stays(
    client: TestClient, settings: Settings, start: Callable[..., Attempt]
) -> None:
    training.run(first := start())
    (store.local(settings.store, first.name) / "forward.onnx").write_bytes(b"rot")
    training.run(second := start({"seed": 1}))
    result = shown(client, second)["result"]
    assert (result["promoted"], result["gate"]["champion_value"], champion(client)) == (False, None, 1)
    assert "forward.onnx" in result["gate"]["champion_error"]


def test_a_champion_that_moves_meanwhile_is_scored_anew(
    client: TestClient, database: Database, start: Callable[..., Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    training.run(start())
    training.run(start({"seed": 1}, promote="never"))
    late = start({"seed": 2})
    compare, moves = gates.compare, iter([2])

    def gate_then_move(*given: Any) -> Any:
        found = compare(*given)
        for version in moves:
            client.put("/v1/models/load/aliases/champion", json={"version": version})
        return found

    monkeypatch.setattr(gates, "compare", gate_then_move)
    training.run(late)
    assert shown(client, late)["result"]["gate"]["champion"] == 2


def test_a_cancelled_job_leaves_no_version(
    client: TestClient, database: Database, settings: Settings, start: Callable[..., Attempt]
) -> None:
    """Cancelled after training, before the commit: the folder is rubbish, the row does not exist."""
    attempt = start()

    def cancel_at_the_end(progress: Progress) -> None:
        if progress.step == progress.total > 0:
            client.post(f"/v1/jobs/{attempt.job}/cancel")

    with pytest.raises(Fenced):
        training.run(replace(attempt, on_progress=cancel_at_the_end))
    with database.read("default") as session:
        assert session.scalars(select(VersionRow)).all() == []
    assert shown(client, attempt)["state"] == "cancelled"


def test_an_attempt_overtaken_in_mid_training_publishes_nothing_the_next_one_does(
    client: TestClient, database: Database, start: Callable[..., Attempt]
) -> None:
    first = start()
    second = start.again(first.job)  # type: ignore[attr-defined]
    with pytest.raises(Fenced):
        training.run(first)
    training.run(second)
    with database.read("default") as session:
        assert [row.folder for row in session.scalars(select(VersionRow))] == [second.name]


def test_a_stopped_run_goes_on_from_its_checkpoint(
    client: TestClient, settings: Settings, database: Database, start: Callable[..., Attempt]
) -> None:
    attempt = start({"steps": 30})
    seen: list[int] = []
    with pytest.raises(Stopped):
        training.run(replace(attempt, should_stop=lambda: True))
    assert list((settings.checkpoints / attempt.job).iterdir())
    with database.write(EVERY_WORKSPACE) as session:
        attempts.hand_back(session, attempt.job, attempt.number)
    second = start.again(attempt.job)  # type: ignore[attr-defined]
    training.run(replace(second, on_progress=lambda progress: seen.append(progress.step)))
    assert shown(client, attempt)["state"] == "succeeded"
    assert shown(client, attempt)["attempt"] == 2


def test_a_dataset_deleted_meanwhile_is_named_but_not_linked(
    client: TestClient, database: Database, start: Callable[..., Attempt]
) -> None:
    attempt = start()

    def delete(progress: Progress) -> None:
        if progress.step == progress.total > 0:
            with database.write("default") as session:
                session.execute(text("delete from datasets"))

    training.run(replace(attempt, on_progress=delete))
    version = client.get(shown(client, attempt)["result"]["href"]).json()
    assert version["dataset"] == "hourly"


def test_another_dataset_of_the_same_name_is_not_trained_on(database: Database, start: Callable[..., Attempt]) -> None:
    attempt = start()
    with pytest.raises(Conflict):
        training.run(replace(attempt, spec=dict(attempt.spec) | {"dataset_id": 999}))


def test_data_that_cannot_be_learned_from_say_so(
    database: Database, start: Callable[..., Attempt], tmp_path: Path
) -> None:
    attempt = start()
    with database.write("default") as session:
        session.execute(text("delete from segments"))
    with pytest.raises(ValueError, match="series"):
        training.run(attempt)


def test_jobs_are_told_apart_by_queueing(database: Database, start: Callable[..., Attempt]) -> None:
    attempt = start()
    with database.read("default") as session:
        row = session.scalars(select(JobRow)).one()
        assert jobs.workflow_id(row.id, row.enqueued) == f"{attempt.job}:1"
