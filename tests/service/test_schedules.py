"""Schedules: each firing asks for one job, whoever looks and however late."""

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import JobRow
from app.services import firing, schedules
from app.services.firing import Around
from app.services.jobs import Engine
from app.services.opened import OpenVersions

TRAIN = {"kind": "train", "model": "load", "preset": "fast", "config": {"hidden": 8, "horizon": 7}}
NIGHTLY: dict[str, Any] = {"name": "nightly", "cron": "0 3 * * *", "dataset": "gasoline", "job": TRAIN}
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def in_place(stored: Callable[..., int], publish: Callable[..., int]) -> None:
    stored("gasoline", {"a": [1.0, 2.0, 3.0]}, time_zone="Asia/Kolkata")
    publish("fuel")


@pytest.fixture
def around(settings: Settings, database: Database) -> Iterator[Around]:
    engine = Engine(database.url)
    yield Around(settings, engine, OpenVersions(settings.store, 1))
    engine.close()


def create(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/schedules", json=NIGHTLY | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()


def due_at(client: TestClient, name: str = "nightly") -> dt.datetime:
    return dt.datetime.fromisoformat(client.get(f"/v1/schedules/{name}").json()["next_at"])


def jobs_of(database: Database) -> list[JobRow]:
    with database.read("default") as session:
        return list(session.scalars(select(JobRow).order_by(JobRow.id)))


def test_it_is_kept_as_it_was_asked_for(client: TestClient) -> None:
    made = create(client)
    assert client.get("/v1/schedules/nightly").json() == made
    assert (made["time_zone"], made["paused"], made["last_fired"], made["last_job"]) == (
        "Asia/Kolkata",
        False,
        None,
        None,
    )
    assert made["job"]["config"]["hidden"] == 8
    assert (made["job"]["kind"], made["job"]["config"]["preset"]) == ("train", "fast")
    next_at = dt.datetime.fromisoformat(made["next_at"])
    assert (next_at.astimezone(dt.UTC).hour, next_at.minute) == (21, 30)  # 03:00 in India
    assert dt.timedelta() < next_at - dt.datetime.fromisoformat(made["created_at"]) <= DAY


def test_the_list_is_by_name_and_in_pages(client: TestClient) -> None:
    for name in ("c", "a", "b"):
        create(client, name=name)
    first = client.get("/v1/schedules", params={"page_size": 2}).json()
    second = client.get("/v1/schedules", params={"page_size": 2, "page_token": first["next_page_token"]}).json()
    assert [row["name"] for row in first["schedules"] + second["schedules"]] == ["a", "b", "c"]
    assert second["next_page_token"] is None
    assert client.get("/v1/schedules", params={"page_token": "WzFd"}).status_code == 422


def test_a_firing_asks_for_the_job_once(client: TestClient, database: Database, around: Around) -> None:
    create(client)
    due = due_at(client)
    assert firing.fire(database, around, due - dt.timedelta(seconds=1)) == []
    fired = firing.fire(database, around, due)
    assert len(fired) == 1
    assert firing.fire(database, around, due) == []
    shown = client.get("/v1/schedules/nightly").json()
    assert (shown["last_job"], dt.datetime.fromisoformat(shown["last_fired"])) == (fired[0], due)
    assert due_at(client) == due + DAY
    job = client.get(f"/v1/jobs/{fired[0]}").json()
    assert (job["state"], job["kind"], job["spec"]["dataset"], job["spec"]["model"]) == (
        "pending",
        "train",
        "gasoline",
        "load",
    )
    direct = client.post("/v1/jobs", json={**TRAIN, "dataset": "gasoline"}).json()
    assert direct["spec"] == job["spec"]


def test_what_was_missed_is_made_up_for_once(client: TestClient, database: Database, around: Around) -> None:
    create(client, cron="0 * * * *")
    due = due_at(client)
    late = due + 10 * DAY + dt.timedelta(minutes=5)
    assert len(firing.fire(database, around, late)) == 1
    assert due_at(client) == due + 10 * DAY + HOUR
    assert firing.fire(database, around, late) == []


def test_of_many_that_look_at_once_one_fires(client: TestClient, database: Database, around: Around) -> None:
    """Eight workers' worth of threads, over four times that a schedule is due."""
    create(client)
    for _ in range(4):
        due, gate, made = due_at(client), threading.Barrier(8), list[str]()

        def look(due: dt.datetime = due, gate: threading.Barrier = gate, made: list[str] = made) -> None:
            gate.wait()
            made.extend(firing.fire(database, around, due))

        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 1
    assert len(jobs_of(database)) == 4


def test_backtests_and_forecasts_are_asked_for_with_what_is_newest(
    client: TestClient, database: Database, around: Around, stored: Callable[..., int], publish: Callable[..., int]
) -> None:
    create(client, name="scores", job={"kind": "backtest", "model": "fuel", "origins": 2, "baselines": ["naive"]})
    create(client, name="numbers", job={"kind": "forecast", "model": "fuel", "series": ["a"], "quantiles": [0.9, 0.1]})
    stored("gasoline", {"a": [1.0, 2.0, 3.0, 4.0]}, time_zone="Asia/Kolkata")
    publish("fuel", promote="always")
    assert len(firing.fire(database, around, max(due_at(client, "scores"), due_at(client, "numbers")))) == 2
    specs = {row.kind: row.spec for row in jobs_of(database)}
    assert {(spec["revision"], spec["version"]) for spec in specs.values()} == {(2, 2)}
    assert (specs["backtest"]["origins"], specs["backtest"]["baselines"]) == (2, ["naive"])
    assert (specs["forecast"]["series"], specs["forecast"]["quantiles"]) == (["a"], [0.1, 0.9])


def test_a_paused_one_rests_and_makes_up_for_nothing(client: TestClient, database: Database, around: Around) -> None:
    create(client)
    due = due_at(client)
    paused = client.patch("/v1/schedules/nightly", json={"paused": True}).json()
    assert (paused["paused"], paused["next_at"]) == (True, None)
    assert firing.fire(database, around, due + 3 * DAY) == []
    assert client.patch("/v1/schedules/nightly", json={"cron": "30 4 * * *"}).json()["paused"] is True
    with database.write("default") as session:  # five days later
        row, _ = schedules.change(session, "nightly", False, None, now=due + 5 * DAY)
        assert row.next_at == due + 5 * DAY + dt.timedelta(hours=1, minutes=30)
    assert firing.fire(database, around, due + 5 * DAY + HOUR) == []
    assert client.patch("/v1/schedules/nightly", json={"paused": False}).json()["next_at"] is not None


def test_run_now_leaves_the_next_time_as_it_is(client: TestClient, database: Database) -> None:
    create(client)
    client.patch("/v1/schedules/nightly", json={"paused": True})
    keyed = {"Idempotency-Key": "once"}
    first, again = (client.post("/v1/schedules/nightly/run", headers=keyed) for _ in range(2))
    assert (first.status_code, first.headers["location"]) == (202, f"/v1/jobs/{first.json()['id']}")
    assert again.json()["id"] == first.json()["id"]
    shown = client.get("/v1/schedules/nightly").json()
    assert (shown["last_job"], shown["next_at"]) == (first.json()["id"], None)
    assert len(jobs_of(database)) == 1


def test_one_that_cannot_have_its_job_says_why_and_goes_on(
    client: TestClient, database: Database, around: Around
) -> None:
    job = {"kind": "backtest", "model": "fuel"}
    create(client, job=job)
    create(client, name="other")
    due = due_at(client)
    with database.write("default") as session:
        row, _ = schedules.get(session, "nightly")
        row.job = {**row.job, "model": "fuel/9"}
    assert len(firing.fire(database, around, due)) == 1
    shown = client.get("/v1/schedules/nightly").json()
    assert (shown["last_error"]["status"], shown["last_job"]) == (404, None)
    assert due_at(client) == due + DAY
    assert client.post("/v1/schedules/nightly/run").status_code == 404


def test_a_full_queue_makes_it_wait(client: TestClient, database: Database, around: Around, settings: Settings) -> None:
    create(client)
    due = due_at(client)
    waiting = client.post("/v1/schedules/nightly/run").json()["id"]
    full = Around(settings.model_copy(update={"max_queue": 1}), around.engine, around.versions)
    assert firing.fire(database, full, due) == []
    assert due_at(client) == due
    client.post(f"/v1/jobs/{waiting}/cancel")
    assert len(firing.fire(database, full, due + HOUR)) == 1


def test_it_goes_with_its_dataset_and_its_jobs_stay(client: TestClient, database: Database) -> None:
    create(client)
    create(client, name="other")
    client.post("/v1/schedules/nightly/run")
    assert client.delete("/v1/schedules/nightly").status_code == 204
    assert client.get("/v1/schedules/nightly").status_code == 404
    assert len(jobs_of(database)) == 1
    assert client.delete("/v1/datasets/gasoline").status_code == 204
    assert client.get("/v1/schedules").json()["schedules"] == []
    with database.read(EVERY_WORKSPACE) as session:
        assert schedules.due(session, dt.datetime(2100, 1, 1, tzinfo=dt.UTC)) == []


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"cron": "0 3 * *"}, 422, "/cron"),
        ({"cron": "0 0 31 2 *"}, 422, "/cron"),
        ({"name": "a b"}, 422, "/name"),
        ({"dataset": "nothing"}, 404, "nothing"),
        ({"job": {"kind": "trial"}}, 422, "/job"),
        ({"job": {**TRAIN, "dataset": "gasoline"}}, 422, "dataset"),
        ({"job": {**TRAIN, "config": {"hiden": 3}}}, 422, "hiden"),
        ({"job": {"kind": "backtest", "model": "nobody"}}, 404, "nobody"),
        ({"job": {"kind": "forecast", "model": "fuel", "series": ["zz"]}}, 404, "zz"),
        ({"every": "day"}, 422, "/every"),
    ],
)
def test_what_is_no_schedule_is_refused(client: TestClient, changes: dict[str, Any], status: int, says: str) -> None:
    answer = client.post("/v1/schedules", json=NIGHTLY | changes)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    assert client.get("/v1/schedules").json()["schedules"] == []


def test_a_name_is_taken_once_and_changes_are_checked(client: TestClient) -> None:
    create(client)
    assert client.post("/v1/schedules", json=NIGHTLY).status_code == 409
    assert client.patch("/v1/schedules/nightly", json={}).status_code == 422
    assert client.patch("/v1/schedules/nightly", json={"cron": "soon"}).status_code == 422
    for method, path in (("GET", "x"), ("PATCH", "x"), ("DELETE", "x"), ("POST", "x/run")):
        body = {"paused": True} if method == "PATCH" else None
        assert client.request(method, f"/v1/schedules/{path}", json=body).status_code == 404
