"""Whose turn it is in the queue: classes, workspaces, and how many of one run at once. No worker runs here; the
engine's own table says in which order it would hand out what waits."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text, update

from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import JobRow
from app.services import attempts, jobs, queueing
from app.services.jobs import Engine, NewJob
from app.services.queueing import BATCH, INTERACTIVE, Priority

TRAIN = {"kind": "train", "dataset": "hourly", "model": "load", "config": {"horizon": 12}}


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    made = Engine(database.url)
    yield made
    made.close()


class Queue:
    """Jobs of several workspaces, each known by a name of the test's own."""

    def __init__(self, database: Database, engine: Engine) -> None:
        self.database, self.engine = database, engine
        self.names: dict[str, str] = {}

    def ask(self, workspace: str, *names: str, priority: Priority = INTERACTIVE) -> None:
        for name in names:
            with self.database.write(workspace) as session:
                row, _ = jobs.submit(session, self.engine, NewJob("train", {}, priority=priority), 10_000)
                self.names[row.id] = name

    def order(self) -> list[str]:
        """The names in the order in which the engine hands them out."""
        table = "workflow_status" if self.database.is_sqlite else "dbos.workflow_status"
        query = (
            f"select workflow_uuid from {table} where status = 'ENQUEUED' order by priority, created_at, workflow_uuid"
        )
        with self.database.engine.connect() as connection:
            return [self.names[found.partition(":")[0]] for found in connection.scalars(text(query))]

    def id(self, name: str) -> str:
        return next(job for job, mine in self.names.items() if mine == name)

    def take(self, name: str, most: int | None = None) -> int | None:
        """Take a job from the engine and begin it, as a worker does."""
        job = self.id(name)
        with self.database.write(EVERY_WORKSPACE) as session:
            queued = session.scalars(select(JobRow.enqueued).where(JobRow.id == job)).one()
            number = attempts.begin(session, job, queued, "worker", "cpu#0", most=most)
        self.engine.forget(jobs.workflow_id(job, queued))
        return number

    def end(self, name: str) -> None:
        with self.database.write(EVERY_WORKSPACE) as session:
            attempts.finish(session, self.id(name), 1, {})

    def release(self, workspace: str, most: int | None) -> list[str]:
        with self.database.write(EVERY_WORKSPACE) as session:
            return [self.names[job] for job in attempts.release(session, self.engine, workspace, most)]


@pytest.fixture
def queue(database: Database, engine: Engine) -> Queue:
    return Queue(database, engine)


def test_interactive_work_comes_before_batch_work(queue: Queue) -> None:
    queue.ask("a", "night 1", "night 2", priority=BATCH)
    queue.ask("a", "now 1", "now 2")
    queue.ask("b", "b now")
    queue.ask("b", "b night", priority=BATCH)
    assert queue.order() == ["now 1", "b now", "now 2", "night 1", "b night", "night 2"]


def test_hundreds_of_one_workspace_let_the_first_of_another_pass(queue: Queue) -> None:
    mine = [f"a{number:03d}" for number in range(200)]
    queue.ask("a", *mine)
    queue.ask("b", "b0", "b1", "b2")
    assert queue.order()[:6] == ["a000", "b0", "a001", "b1", "a002", "b2"]
    assert [name for name in queue.order() if name[0] == "a"] == mine


def test_a_newcomer_begins_where_the_queue_is_and_not_where_it_began(queue: Queue) -> None:
    """Else one that comes after hundreds were served would be served alone until it had caught up."""
    queue.ask("a", *(f"a{number}" for number in range(20)))
    for number in range(15):
        queue.take(f"a{number}")
    queue.ask("b", *(f"b{number}" for number in range(5)))
    assert queue.order() == ["a15", "b0", "a16", "b1", "a17", "b2", "a18", "b3", "a19", "b4"]
    queue.ask("a", "a20")  # behind its own, although fewer of them wait than their numbers say
    assert queue.order()[-1] == "a20"


def test_a_job_tried_again_takes_its_turn_anew(queue: Queue) -> None:
    queue.ask("a", "first", priority=BATCH)
    queue.take("first")
    with queue.database.write("a") as session:
        jobs.cancel(session, queue.id("first"))
    queue.ask("a", "second", priority=BATCH)
    with queue.database.write("a") as session:
        jobs.retry(session, queue.engine, queue.id("first"), 10)
    assert queue.order() == ["second", "first"]
    with queue.database.read("a") as session:
        assert queueing.class_of(jobs.get(session, queue.id("first")).priority) == BATCH


def test_what_an_older_release_queued_is_served_first(queue: Queue) -> None:
    queue.ask("a", "old 1", "old 2")
    with queue.database.engine.begin() as connection:
        connection.execute(update(JobRow).values(priority=100))
    queue.ask("a", "new")
    queue.ask("b", "other")
    with queue.database.read(EVERY_WORKSPACE) as session:
        rows = session.scalars(select(JobRow)).all()
        places = {queue.names[job]: standing.place for job, standing in queueing.standings(session, rows).items()}
    assert places == {"old 1": 1, "old 2": 2, "other": 3, "new": 4}


# ---------------------------------------------------------------- how many of a workspace run at once


def test_a_workspace_at_its_limit_waits_without_a_try_and_others_pass(queue: Queue) -> None:
    queue.ask("a", "a1", "a2", "a3")
    queue.ask("b", "b1")
    assert queue.take("a1", most=1) == 1
    assert queue.take("a2", most=1) is None
    assert queue.take("b1", most=1) == 1
    assert queue.order() == ["a3"]
    with queue.database.read("a") as session:
        aside = jobs.get(session, queue.id("a2"))
        assert (aside.state, aside.attempt, aside.tries, aside.parked) == ("pending", 0, 0, True)
        standing = queueing.standings(session, [aside])[aside.id]
        assert (standing.place, standing.running, standing.parked) == (1, 2, True)
        assert "waits until one of its workspace ends" in standing.message
    assert queue.release("a", 1) == []
    queue.end("a1")
    assert queue.release("b", 1) == []
    assert queue.release("a", 1) == ["a2"]
    assert queue.order() == ["a2", "a3"]
    assert queue.take("a2", most=1) == 1


def test_none_passes_an_earlier_one_of_its_workspace_that_was_put_aside(queue: Queue) -> None:
    """A worker may come by after one ended and before the next was queued: what it takes would else run first, and
    the one put aside could wait for ever."""
    queue.ask("a", "a1", "a2", "a3")
    queue.take("a1", most=1)
    assert queue.take("a2", most=1) is None
    queue.end("a1")
    assert queue.take("a3", most=1) is None
    assert queue.release("a", 1) == ["a2"]
    assert queue.take("a2", most=1) == 1
    queue.end("a2")
    assert queue.release("a", 1) == ["a3"]


def test_a_newcomer_does_not_pass_those_put_aside_again_and_again(queue: Queue) -> None:
    """Nothing waits but what was put aside: the newcomer begins where that is, and not where the queue began."""
    queue.ask("a", *(f"a{number}" for number in range(8)))
    for number in range(5):
        queue.take(f"a{number}")
    for number in range(5, 8):
        assert queue.take(f"a{number}", most=1) is None
    queue.ask("b", "b0", "b1", "b2")
    assert queue.order() == ["b0", "b1", "b2"]
    queue.release("a", None)
    served = queue.order()
    assert [set(served[at : at + 2]) for at in (0, 2, 4)] == [{"a5", "b0"}, {"a6", "b1"}, {"a7", "b2"}]


def test_without_the_limit_all_that_were_put_aside_come_back(queue: Queue) -> None:
    queue.ask("a", *(f"a{number}" for number in range(5)))
    queue.take("a0", most=1)
    assert [queue.take(f"a{number}", most=1) for number in range(1, 5)] == [None] * 4
    with queue.database.read(EVERY_WORKSPACE) as session:
        assert queueing.workspaces_parked(session) == ["a"]
    assert queue.release("a", 3) == ["a1", "a2"]
    assert queue.release("a", None) == ["a3", "a4"]


def test_a_job_whose_worker_died_keeps_its_room(queue: Queue) -> None:
    queue.ask("a", "a1")
    assert queue.take("a1", most=1) == 1
    assert queue.take("a1", most=1) == 2


def test_a_job_put_aside_can_be_cancelled_and_tried_again(queue: Queue) -> None:
    queue.ask("a", "a1", "a2")
    queue.take("a1", most=1)
    queue.take("a2", most=1)
    with queue.database.write("a") as session:
        jobs.cancel(session, queue.id("a2"))
    queue.end("a1")
    assert queue.release("a", 1) == []
    with queue.database.write("a") as session:
        jobs.retry(session, queue.engine, queue.id("a2"), 10)
    assert queue.order() == ["a2"]
    assert queue.take("a2", most=1) == 1


def test_what_was_put_aside_is_not_taken_for_lost(queue: Queue, database: Database) -> None:
    queue.ask("a", "a1", "a2")
    queue.take("a1", most=1)
    queue.take("a2", most=1)
    with database.read(EVERY_WORKSPACE) as session:
        assert list(attempts.active(session, jobs.utc_now())) == [queue.id("a1")]


# ---------------------------------------------------------------- over HTTP


@pytest.mark.usefixtures("hourly")
def test_a_client_says_how_urgent_a_job_is_and_sees_its_place(client: TestClient, database: Database) -> None:
    def ask(**more: Any) -> dict[str, Any]:
        answer = client.post("/v1/jobs", json=TRAIN | more)
        assert answer.status_code == 202, answer.text
        return answer.json()

    batch, first, second = ask(priority="batch"), ask(), ask(priority="interactive")
    assert [job["priority"] for job in (batch, first, second)] == ["batch", "interactive", "interactive"]
    assert [job["position"] for job in (batch, first, second)] == [1, 1, 2]
    assert [client.get(f"/v1/jobs/{job['id']}").json()["position"] for job in (batch, first, second)] == [3, 1, 2]
    with database.write(EVERY_WORKSPACE) as session:
        attempts.begin(session, first["id"], 1, "worker", "cpu#0")
    listed = {job["id"]: job for job in client.get("/v1/jobs").json()["jobs"]}
    assert [listed[job["id"]]["position"] for job in (batch, first, second)] == [2, None, 1]
    assert listed[batch["id"]]["progress"]["message"] == "2nd in the queue, 1 running"
    assert client.post("/v1/jobs", json=TRAIN | {"priority": "urgent"}).status_code == 422


@pytest.mark.parametrize(
    ("place", "said"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (112, "112th"), (121, "121st")]
)
def test_places_in_words(place: int, said: str) -> None:
    assert queueing.Standing(place, 0, False).message == f"{said} in the queue, 0 running"
