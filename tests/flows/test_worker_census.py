"""Who is alive, by beats and by a clock that the test turns: whose work is handed on, and by whom."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select, text, update

from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import JobRow, WorkerRow, utc_now
from app.services import jobs
from app.services.jobs import Engine, NewJob
from app.worker.census import Member, Self
from app.worker.slots import new_name, place

ELSEWHERE = "aaa.f0-7-123-abcdef"  # a worker of another machine, whose name sorts first


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    opened = Engine(database.url)
    yield opened
    opened.close()


@pytest.fixture
def member(database: Database, engine: Engine, clock: Clock) -> Member:
    return Member(database, engine, Self(new_name(), [], ["cpu#0"]), clock)


def other(database: Database, name: str, age: float) -> None:
    """The row of another worker, its last beat `age` seconds ago."""
    with database.write(EVERY_WORKSPACE) as session:
        jobs.beat(session, name, [], ["cpu#0"])
        beat = utc_now() - dt.timedelta(seconds=age)
        session.execute(update(WorkerRow).where(WorkerRow.id == name).values(beat_at=beat))


def claimed(database: Database, engine: Engine, by: str) -> str:
    """A job that this worker has taken from the queue."""
    with database.write("default") as session:
        job = jobs.submit(session, engine, NewJob("train", {}), 10)[0].id
    set_status(database, job, "PENDING", by)
    return job


def set_status(database: Database, job: str, status: str, by: str | None = None) -> None:
    with database.engine.begin() as connection:
        table = "workflow_status" if database.is_sqlite else "dbos.workflow_status"
        query = f"update {table} set status = :status, executor_id = :by where workflow_uuid like :job"
        connection.execute(text(query), {"status": status, "by": by, "job": f"{job}:%"})


def status(database: Database, job: str) -> dict[str, str]:
    with database.engine.connect() as connection:
        table = "workflow_status" if database.is_sqlite else "dbos.workflow_status"
        query = f"select workflow_uuid, status from {table} where workflow_uuid like :job"
        return dict(connection.execute(text(query), {"job": f"{job}:%"}).all())


def pass_time(member: Member, clock: Clock, seconds: float) -> None:
    """Time goes by while this worker beats."""
    for _ in range(int(seconds / 3)):
        clock.now += 3.0
        member.serve()


def names(database: Database) -> list[str]:
    with database.read(EVERY_WORKSPACE) as session:
        return list(session.scalars(select(WorkerRow.id)))


def test_a_worker_without_beats_is_dead_after_fifteen_seconds(
    database: Database, engine: Engine, member: Member, clock: Clock
) -> None:
    other(database, ELSEWHERE, age=20)
    job = claimed(database, engine, ELSEWHERE)
    pass_time(member, clock, 18)
    assert status(database, job) == {f"{job}:1": "ENQUEUED"}
    assert ELSEWHERE not in names(database)


def test_the_work_of_the_living_is_left_alone(database: Database, engine: Engine, member: Member, clock: Clock) -> None:
    other(database, "zzz.f0-7-123-abcdef", age=1)  # sorts last: we are the first of the living, and may act
    job = claimed(database, engine, "zzz.f0-7-123-abcdef")
    pass_time(member, clock, 18)
    assert status(database, job) == {f"{job}:1": "PENDING"}


def test_only_the_first_of_the_living_acts(database: Database, engine: Engine, member: Member, clock: Clock) -> None:
    other(database, ELSEWHERE, age=1)
    job = claimed(database, engine, "zzz.f0-9-1-gone")
    pass_time(member, clock, 18)
    assert status(database, job) == {f"{job}:1": "PENDING"}


def test_a_process_that_is_gone_from_this_host_is_seen_at_once(
    database: Database, engine: Engine, member: Member, clock: Clock
) -> None:
    gone = f"{place()}-4194999-1-abcdef"
    other(database, gone, age=0)
    job = claimed(database, engine, gone)
    member.serve()
    assert status(database, job) == {f"{job}:1": "ENQUEUED"}
    assert gone not in names(database)


def test_what_was_claimed_and_never_begun_is_queued_again(database: Database, engine: Engine, clock: Clock) -> None:
    """The commit of a claim arrived, its answer did not: nobody else may take the job."""
    at_work: set[str] = set()
    member = Member(database, engine, Self(me := new_name(), [], ["cpu#0"], at_work), clock)
    lost, begun = claimed(database, engine, me), claimed(database, engine, me)
    at_work.add(f"{begun}:1")
    pass_time(member, clock, 6)
    assert status(database, lost) == {f"{lost}:1": "ENQUEUED"}
    assert status(database, begun) == {f"{begun}:1": "PENDING"}


def test_who_has_slept_does_not_judge(database: Database, engine: Engine, member: Member, clock: Clock) -> None:
    """After an outage every beat looks old: only a worker whose own beats are unbroken may call others dead."""
    pass_time(member, clock, 30)
    other(database, ELSEWHERE, age=20)
    job = claimed(database, engine, ELSEWHERE)
    clock.now += 60.0
    member.serve()
    assert status(database, job) == {f"{job}:1": "PENDING"}
    pass_time(member, clock, 18)
    assert status(database, job) == {f"{job}:1": "ENQUEUED"}


def test_a_job_the_engine_has_ended_is_queued_again(
    database: Database, engine: Engine, member: Member, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "ASKED", 1)  # so few are asked about in one question
    job = claimed(database, engine, "x")
    set_status(database, job, "ERROR")
    young = claimed(database, engine, "x")
    set_status(database, young, "ERROR")
    with database.write(EVERY_WORKSPACE) as session:
        born = utc_now() - dt.timedelta(minutes=5)
        session.execute(update(JobRow).where(JobRow.id == job).values(created_at=born))
    pass_time(member, clock, 36)
    assert status(database, job) == {f"{job}:1": "ERROR", f"{job}:2": "ENQUEUED"}
    assert status(database, young) == {f"{young}:1": "ERROR"}


def test_records_of_ended_work_are_dropped_after_a_while(database: Database, engine: Engine) -> None:
    ended, waiting = claimed(database, engine, "x"), claimed(database, engine, "x")
    engine.forget(jobs.workflow_id(ended, 1))
    assert engine.tidy(utc_now() - dt.timedelta(days=1)) == 0
    assert engine.tidy(utc_now() + dt.timedelta(days=1)) == 1
    assert (status(database, ended), list(status(database, waiting))) == ({}, [f"{waiting}:1"])


def test_a_worker_that_leaves_is_gone(database: Database, member: Member) -> None:
    member.beat()
    with database.read(EVERY_WORKSPACE) as session:
        shown: list[dict[str, Any]] = jobs.workers(session)
    assert [one["slots"] for one in shown] == [["cpu#0"]]
    assert "." not in shown[0]["host"] or shown[0]["host"] == place().rpartition(".")[0]
    member.leave()
    assert names(database) == []
