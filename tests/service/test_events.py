"""`/v1/jobs/{id}/events`: the stream, where it ends, and how it goes on."""

import json
import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.db.session import EVERY_WORKSPACE, Database
from app.errors import Invalid
from app.services import attempts, jobs
from app.services.attempts import Report
from app.services.jobs import Engine, NewJob


@pytest.fixture
def job(database: Database) -> str:
    engine = Engine(database.url)
    with database.write("default") as session:
        made = jobs.submit(session, engine, NewJob("train", {}), 10)[0].id
    engine.close()
    return made


def work(database: Database, job: str, end: bool = True) -> None:
    """An attempt in short: begins, reports once, ends badly."""
    progress = {"step": 5, "total": 10, "fraction": 0.5, "eta_s": 1.0, "message": "half"}
    with database.write(EVERY_WORKSPACE) as session:
        number = attempts.begin(session, job, 1, "w", "cpu")
        assert number is not None
        attempts.report(session, job, number, Report(progress, {"train_loss": 0.5}, 0, True, True))
        if end:
            attempts.fail(session, job, number, Invalid("too short", code="unfit-data"))


def read(client: TestClient, job: str, last: int | None = None) -> list[tuple[int, str, dict[str, Any]]]:
    """The whole stream, until the server closes it."""
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    found = []
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        for block in answer.read().decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "id" in fields:  # a job's place in the queue comes without one
                found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def test_the_stream_tells_everything_and_ends_with_done(client: TestClient, database: Database, job: str) -> None:
    work(database, job)
    events = read(client, job)
    assert [seq for seq, _, _ in events] == [1, 2, 3, 4, 5]
    assert [kind for _, kind, _ in events] == ["log", "log", "progress", "metric", "done"]
    assert events[2][2]["fraction"] == 0.5
    assert events[3][2] == {"step": 5, "train_loss": 0.5}
    assert events[4][2]["state"] == "failed"
    assert events[4][2]["error"]["detail"] == "too short"


def test_it_goes_on_after_the_last_event_received(client: TestClient, database: Database, job: str) -> None:
    work(database, job)
    whole = read(client, job)
    assert read(client, job, last=2) == whole[2:]
    assert read(client, job, last=5) == []


def test_it_waits_for_what_comes(client: TestClient, database: Database, job: str) -> None:
    """The job ends while the stream is open: nothing is missed and the stream closes."""
    writer = threading.Timer(0.5, work, args=(database, job))
    writer.start()
    assert [kind for _, kind, _ in read(client, job)] == ["log", "log", "progress", "metric", "done"]
    writer.join()


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "99999999999999999999"])
def test_an_id_that_was_never_sent_is_refused(client: TestClient, job: str, last: str) -> None:
    assert client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": last}).status_code == 422


def test_long_histories_come_in_batches(client: TestClient, database: Database, job: str) -> None:
    with database.write(EVERY_WORKSPACE) as session:
        number = attempts.begin(session, job, 1, "w", "cpu")
        assert number is not None
        attempts.log(session, job, number, [f"line {n}" for n in range(1200)])
        attempts.finish(session, job, number, {})
    events = read(client, job)
    assert len(events) == 1203
    assert events[-1][1] == "done"


def test_a_job_tried_again_has_one_done_and_it_is_the_last_event(
    client: TestClient, database: Database, job: str
) -> None:
    """A client that stops at the first `done` would take the end of the attempt before for the end of the job."""
    work(database, job)
    answer = client.post(f"/v1/jobs/{job}/retry").json()
    assert (answer["state"], answer["position"], answer["progress"]["step"]) == ("pending", 1, 0)
    client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    kinds = [kind for _, kind, _ in read(client, job)]
    assert (kinds.count("done"), kinds[-1]) == (1, "done")


def test_a_job_deleted_in_mid_stream_ends_it(client: TestClient, job: str) -> None:
    def gone() -> None:
        client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
        client.delete(f"/v1/jobs/{job}").raise_for_status()

    deletion = threading.Timer(0.4, gone)
    deletion.start()
    assert read(client, job)[0][1] == "log"
    deletion.join()


def test_a_job_that_waits_tells_its_place_as_it_moves_on(client: TestClient, database: Database, job: str) -> None:
    """Places are not kept: they come without an id, and a client that comes again goes on after the last event."""
    engine = Engine(database.url)
    with database.write("default") as session:
        second = jobs.submit(session, engine, NewJob("train", {}), 10)[0].id
    begin = threading.Timer(0.3, lambda: work(database, job))
    end = threading.Timer(2.8, lambda: work(database, second))
    begin.start()
    end.start()
    with client.stream("GET", f"/v1/jobs/{second}/events") as answer:
        blocks = [block.splitlines() for block in answer.read().decode().split("\n\n")]
    events = [dict(line.split(": ", 1) for line in block if not line.startswith(":")) for block in blocks]
    places = [json.loads(event["data"]) for event in events if event and "id" not in event]
    assert (places[0]["position"], places[0]["message"]) == (2, "2nd in the queue, 0 running")
    assert [place["position"] for place in places[1:]] in ([], [1])  # it may begin before the next look
    assert [event["event"] for event in events if event][-1] == "done"
    begin.join()
    end.join()
    engine.close()
