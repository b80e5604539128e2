"""`/v1/jobs`: asking, showing, paging, cancelling, trying again. No worker runs here."""

import datetime as dt
import uuid
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text, update

from app.config import Settings
from app.db.session import Database
from app.db.tables import JobRow
from app.main import create_app
from app.services import jobs

TRAIN = {"kind": "train", "dataset": "hourly", "model": "load", "config": {"horizon": 12}}

pytestmark = pytest.mark.usefixtures("hourly")


def submit(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json=TRAIN | changes)
    assert answer.status_code == 202, answer.text
    return answer.json()


def queued(database: Database) -> dict[str, str]:
    """What the engine has: workflow id -> status."""
    table = "workflow_status" if database.is_sqlite else "dbos.workflow_status"
    with database.engine.connect() as connection:
        return dict(connection.execute(text(f"select workflow_uuid, status from {table}")).all())


def end(database: Database, job: str, state: str) -> None:
    with database.write("default") as session:
        session.execute(update(JobRow).where(JobRow.id == job).values(state=state))


def test_a_job_is_accepted_shown_and_queued(client: TestClient, database: Database) -> None:
    answer = client.post("/v1/jobs", json=TRAIN)
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) >= 1
    assert (job["state"], job["attempt"], job["result"], job["error"]) == ("pending", 0, None, None)
    waiting = {"step": 0, "total": 0, "fraction": 0.0, "eta_s": None, "message": "1st in the queue, 0 running"}
    assert job["progress"] == waiting | {"steps_per_s": None, "rate": None, "unit": None}
    assert job["spec"]["revision"] == 1
    assert job["spec"]["config"]["horizon"] == 12
    assert client.get(f"/v1/jobs/{job['id']}").json() == job
    assert queued(database) == {f"{job['id']}:1": "ENQUEUED"}


def test_ids_are_uuids_of_version_7_in_order_of_birth() -> None:
    made = [jobs.new_id() for _ in range(200)]
    assert all(uuid.UUID(one.removeprefix("job_")).version == 7 for one in made)
    assert all(uuid.UUID(one.removeprefix("job_")).variant == uuid.RFC_4122 for one in made)
    born = uuid.UUID(made[0].removeprefix("job_")).int >> 80
    assert abs(born / 1000 - dt.datetime.now(dt.UTC).timestamp()) < 60
    assert [one[:22] for one in made] == sorted(one[:22] for one in made)


def test_a_refused_job_leaves_neither_row_nor_queue_entry(client: TestClient, database: Database) -> None:
    answer = client.post("/v1/jobs", json=TRAIN | {"dataset": "nothing"})
    assert answer.status_code == 404
    with database.read("default") as session:
        assert session.scalar(select(func.count()).select_from(JobRow)) == 0
    assert queued(database) == {}


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"kind": "trial"}, ""),
        ({"modle": "x"}, "/modle"),
        ({"config": {"hiden": 4}}, "/config/hiden"),
        ({"config": {"hidden": 3}}, "/config/hidden"),
        ({"config": {"hidden": "many"}}, "/config/hidden"),
        ({"config": {"quantiles": [0.5, 0.1]}}, "/config/quantiles"),
        ({"config": {"horizon": 10_001}}, "/config/horizon"),
        ({"config": {"context": 50, "segment": 7}}, "/config/context"),
        ({"preset": "slow"}, "/preset"),
        ({"model": "a b"}, "/model"),
        ({"model": "load/3"}, "/model"),
        ({"promote": "maybe"}, "/promote"),
        ({"config": {"unfrozen": "head"}}, "/config/unfrozen"),
        ({"revision": 0}, "/revision"),
    ],
)
def test_what_is_wrong_is_pointed_at(client: TestClient, changes: dict[str, Any], pointer: str) -> None:
    answer = client.post("/v1/jobs", json=TRAIN | changes)
    assert answer.status_code == 422
    assert [complaint["pointer"] for complaint in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize("body", ["", "[]", "null", '"train"', "{", '{"kind": null}', '{"kind": ["train"]}'])
def test_bodies_that_are_no_job_are_refused(client: TestClient, body: str) -> None:
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


def test_the_dataset_bounds_go_into_the_config(client: TestClient, database: Database) -> None:
    with database.write("default") as session:
        session.execute(text("update datasets set bounds = '{\"min\": 0.0}'"))
    config = submit(client)["spec"]["config"]
    assert (config["minimum"], config["maximum"]) == (0.0, None)
    assert submit(client, config={"minimum": 2.0})["spec"]["config"]["minimum"] == 2.0
    answer = client.post("/v1/jobs", json=TRAIN | {"config": {"maximum": -1.0}})
    assert answer.status_code == 422


def test_an_empty_dataset_cannot_be_trained_on(client: TestClient, database: Database) -> None:
    with database.write("default") as session:
        session.execute(text("update datasets set head = 0"))
    answer = client.post("/v1/jobs", json=TRAIN)
    assert (answer.status_code, answer.json()["type"]) == (409, "/docs/errors#dataset-empty")


def test_a_preset_beside_the_config_wins(client: TestClient) -> None:
    assert submit(client, preset="thorough")["spec"]["config"]["preset"] == "thorough"
    assert submit(client, config={"preset": "balanced"})["spec"]["config"]["preset"] == "balanced"


def test_the_same_key_makes_one_job(client: TestClient, database: Database) -> None:
    first, second = (client.post("/v1/jobs", json=TRAIN, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["location"] == first.headers["location"]
    assert len(queued(database)) == 1
    other = client.post("/v1/jobs", json=TRAIN | {"model": "other"}, headers={"Idempotency-Key": "k"})
    assert other.status_code == 422


def test_a_full_queue_refuses_with_a_time_to_come_back(settings: Settings) -> None:
    small = Settings(data=settings.data, database_url=settings.database_url, max_queue=2)
    with TestClient(create_app(small)) as client:
        first = submit(client)
        submit(client)
        answer = client.post("/v1/jobs", json=TRAIN)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        client.post(f"/v1/jobs/{first['id']}/cancel")
        submit(client)
        assert client.post(f"/v1/jobs/{first['id']}/retry").status_code == 429


def test_pages_are_newest_first_and_can_be_filtered(client: TestClient) -> None:
    made = [submit(client)["id"] for _ in range(5)]
    client.post(f"/v1/jobs/{made[2]}/cancel")
    seen, token = [], None
    while True:
        query = {"page_size": 2} | ({"page_token": token} if token else {})
        answer = client.get("/v1/jobs", params=query)
        seen += [job["id"] for job in answer.json()["jobs"]]
        token = answer.json()["next_page_token"]
        assert ("link" in answer.headers) is (token is not None)
        if token is None:
            break
    assert seen == made[::-1]
    only = client.get("/v1/jobs", params={"state": "cancelled"}).json()["jobs"]
    assert [job["id"] for job in only] == [made[2]]
    assert client.get("/v1/jobs", params={"kind": "backtest"}).json()["jobs"] == []
    assert client.get("/v1/jobs", params={"state": "asleep"}).status_code == 422
    assert client.get("/v1/jobs", params={"page_token": "WzFd"}).status_code == 422


def test_unknown_jobs_are_not_found(client: TestClient) -> None:
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")):
        assert client.request(method, f"/v1/jobs/job_x{path}").status_code == 404


def test_cancelling_is_idempotent_and_empties_the_queue(client: TestClient, database: Database) -> None:
    job = submit(client)["id"]
    first, second = (client.post(f"/v1/jobs/{job}/cancel") for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert first.json()["state"] == "cancelled"
    assert first.json()["finished_at"] is not None
    assert queued(database) == {f"{job}:1": "CANCELLED"}


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_an_ended_job_cannot_be_cancelled(client: TestClient, database: Database, state: str) -> None:
    job = submit(client)["id"]
    end(database, job, state)
    answer = client.post(f"/v1/jobs/{job}/cancel")
    assert answer.status_code == 409
    assert state in answer.json()["detail"]


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_retry_keeps_the_id_and_queues_anew(client: TestClient, database: Database, state: str) -> None:
    job = submit(client)["id"]
    end(database, job, state)
    answer = client.post(f"/v1/jobs/{job}/retry")
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job}"
    assert (answer.json()["id"], answer.json()["state"], answer.json()["error"]) == (job, "pending", None)
    assert f"{job}:2" in queued(database)


@pytest.mark.parametrize("state", ["pending", "running", "succeeded"])
def test_only_failed_and_cancelled_jobs_are_tried_again(client: TestClient, database: Database, state: str) -> None:
    job = submit(client)["id"]
    end(database, job, state)
    assert client.post(f"/v1/jobs/{job}/retry").status_code == 409
    assert list(queued(database)) == [f"{job}:1"]


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_an_ended_job_is_deleted_with_all_it_left(
    client: TestClient, database: Database, settings: Settings, state: str
) -> None:
    job, other = submit(client)["id"], submit(client)["id"]
    end(database, job, state)
    results = settings.data / "results"
    results.mkdir()
    mine = [results / f"{job}-1.csv", results / f".{job}-2.csv", settings.checkpoints / job / "part-000001.parquet"]
    others = [results / f"{other}-1.csv", settings.checkpoints / other / "part-000001.parquet"]
    for path in (*mine, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert [path for path in (*mine, *others) if path.exists()] == others
    assert client.get(f"/v1/jobs/{job}").status_code == 404
    assert client.delete(f"/v1/jobs/{job}").status_code == 404
    with database.engine.connect() as connection:
        counted = text("select count(*) from job_events where job_id = :job")
        assert [connection.scalar(counted, {"job": one}) for one in (job, other)] == [0, 1]


@pytest.mark.parametrize("state", ["pending", "running"])
def test_a_job_at_work_is_not_deleted(client: TestClient, database: Database, state: str) -> None:
    job = submit(client)["id"]
    end(database, job, state)
    answer = client.delete(f"/v1/jobs/{job}")
    assert (answer.status_code, "cancel it first" in answer.json()["detail"]) == (409, True)
    assert client.get(f"/v1/jobs/{job}").status_code == 200
