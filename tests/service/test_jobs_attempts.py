"""The worker's writes: what an attempt may do to its job, and what one that has been overtaken may not."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import JobEventRow, JobRow
from app.errors import AppError
from app.services import attempts, jobs
from app.services.attempts import KILLED, LOST, MAX_TRIES, WORN_OUT, Fenced, Report
from app.services.jobs import Engine, NewJob


@pytest.fixture
def job(database: Database) -> str:
    engine = Engine(database.url)
    with database.write("default") as session:
        made = jobs.submit(session, engine, NewJob("train", {}), 10)[0].id
    engine.close()
    return made


def do(database: Database, act: Callable[[Session], Any]) -> Any:
    with database.write(EVERY_WORKSPACE) as session:
        return act(session)


def begin(database: Database, job: str, enqueued: int = 1) -> int | None:
    return do(database, lambda session: attempts.begin(session, job, enqueued, "worker", "cpu"))


def at(step: int, checkpoint: int = 0, **metrics: float) -> Report:
    progress = {"step": step, "total": 100, "fraction": step / 100, "eta_s": None, "message": ""}
    return Report(progress, metrics, checkpoint, as_events=True, new_metrics=bool(metrics))


def row(database: Database, job: str) -> JobRow:
    with database.read("default") as session:
        return session.scalars(select(JobRow).where(JobRow.id == job)).one()


def kinds(database: Database, job: str) -> list[str]:
    with database.read("default") as session:
        return list(session.scalars(select(JobEventRow.kind).filter_by(job_id=job).order_by(JobEventRow.seq)))


def test_an_attempt_takes_reports_and_ends(database: Database, job: str) -> None:
    assert begin(database, job) == 1
    do(database, lambda session: attempts.report(session, job, 1, at(40, loss=0.5)))
    assert (row(database, job).state, row(database, job).worker) == ("running", "worker")
    assert row(database, job).metrics == {"loss": 0.5}
    do(database, lambda session: attempts.finish(session, job, 1, {"href": "/x"}, {"mase": 0.9}))
    ended = row(database, job)
    assert (ended.state, ended.result, ended.metrics) == ("succeeded", {"href": "/x"}, {"loss": 0.5, "mase": 0.9})
    assert ended.progress is not None
    assert ended.progress["fraction"] == 1.0
    assert kinds(database, job) == ["log", "log", "progress", "metric", "metric", "done"]


def test_an_overtaken_attempt_changes_nothing(database: Database, job: str) -> None:
    begin(database, job)
    assert begin(database, job) == 2
    late: list[Callable[[Session], Any]] = [
        lambda session: attempts.report(session, job, 1, at(1)),
        lambda session: attempts.finish(session, job, 1, {}),
        lambda session: attempts.fail(session, job, 1, AppError("x")),
        lambda session: attempts.hand_back(session, job, 1),
        lambda session: attempts.log(session, job, 1, ["x"]),
        lambda session: attempts.load(session, job, 1),
    ]
    before = kinds(database, job)
    for act in late:
        with pytest.raises(Fenced):
            do(database, act)
    assert do(database, lambda session: attempts.lose(session, job, 1, "x")) is False
    assert kinds(database, job) == before
    assert (row(database, job).state, row(database, job).attempt) == ("running", 2)


def test_a_cancelled_job_is_fenced_and_not_begun(database: Database, job: str) -> None:
    begin(database, job)
    do(database, lambda session: jobs.cancel(session, job))
    with pytest.raises(Fenced):
        do(database, lambda session: attempts.report(session, job, 1, at(1)))
    assert do(database, lambda session: attempts.strays(session, [(job, 1)])) == [(job, 1)]
    assert begin(database, job) is None
    assert kinds(database, job).count("done") == 1


def test_an_older_queueing_does_not_begin(database: Database, job: str) -> None:
    engine = Engine(database.url)
    do(database, lambda session: jobs.cancel(session, job))
    do(database, lambda session: jobs.retry(session, engine, job, 10))
    engine.close()
    assert begin(database, job, enqueued=1) is None
    assert begin(database, job, enqueued=2) == 1


def test_five_attempts_without_a_checkpoint_fail_the_job(database: Database, job: str) -> None:
    for number in range(1, MAX_TRIES + 1):
        assert begin(database, job) == number
        again = do(database, lambda session, n=number: attempts.lose(session, job, n, "it was killed"))
        assert again is (number < MAX_TRIES)
    failed = row(database, job)
    assert failed.state == "failed"
    assert failed.error is not None
    assert "it was killed" in failed.error["detail"]
    assert failed.error["type"] == "/docs/errors#attempts-exhausted"
    assert begin(database, job) is None


def test_workers_that_die_with_the_job_count_too(database: Database, job: str) -> None:
    most = WORN_OUT // LOST
    for number in range(1, most + 1):
        assert begin(database, job) == number  # and the worker is gone: nobody says `lose`
    assert begin(database, job) is None
    assert row(database, job).state == "failed"
    assert most == 2 * MAX_TRIES  # a worker may be lost without the job's fault


def test_who_is_killed_by_somebody_is_patient(database: Database, job: str) -> None:
    for number in range(1, 4 * MAX_TRIES):
        assert begin(database, job) == number
        assert do(database, lambda session, n=number: attempts.lose(session, job, n, "it was killed", KILLED)) is True
    assert begin(database, job) == 4 * MAX_TRIES
    assert do(database, lambda session: attempts.lose(session, job, 4 * MAX_TRIES, "again", KILLED)) is False
    assert row(database, job).state == "failed"


def test_a_new_checkpoint_forgives_the_tries_before_it(database: Database, job: str) -> None:
    for number in range(1, 3 * MAX_TRIES):
        assert begin(database, job) == number
        do(database, lambda session, n=number: attempts.report(session, job, n, at(10 * n, checkpoint=10 * n)))
        assert do(database, lambda session, n=number: attempts.lose(session, job, n, "it was killed")) is True
    assert row(database, job).checkpoint_step == 10 * (3 * MAX_TRIES - 1)


def test_the_same_checkpoint_again_forgives_nothing(database: Database, job: str) -> None:
    for number in range(1, MAX_TRIES + 2):
        begin(database, job)
        do(database, lambda session, n=number: attempts.report(session, job, n, at(10, checkpoint=10)))
        again = do(database, lambda session, n=number: attempts.lose(session, job, n, "it was killed"))
    assert again is False
    assert row(database, job).state == "failed"


def test_a_lost_checkpoint_starts_the_count_anew(database: Database, job: str) -> None:
    begin(database, job)
    do(database, lambda session: attempts.report(session, job, 1, at(50, checkpoint=50)))
    begin(database, job)
    do(database, lambda session: attempts.restart(session, job, 2))
    do(database, lambda session: attempts.report(session, job, 2, at(10, checkpoint=10)))
    assert (row(database, job).checkpoint_step, row(database, job).tries) == (10, 0)


def test_handing_back_is_no_try(database: Database, job: str) -> None:
    for number in range(1, 3 * MAX_TRIES):
        assert begin(database, job) == number
        do(database, lambda session, n=number: attempts.hand_back(session, job, n))
        assert (row(database, job).state, row(database, job).worker) == ("pending", None)


def test_events_end_at_the_limit_with_room_for_the_end(
    database: Database, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_EVENTS", 130)
    begin(database, job)
    for step in range(60):
        do(database, lambda session, s=step: attempts.report(session, job, 1, at(s, loss=1.0)))
    assert len(kinds(database, job)) == 30
    do(database, lambda session: attempts.log(session, job, 1, ["x"] * 200))
    do(database, lambda session: attempts.finish(session, job, 1, {}))
    assert len(kinds(database, job)) == 121
    assert kinds(database, job)[-1] == "done"


def test_what_the_engine_lost_is_queued_again_once(database: Database, job: str) -> None:
    engine = Engine(database.url)
    assert engine.lost({job: 1}) == {}
    engine.forget(jobs.workflow_id(job, 1))
    assert engine.lost({job: 1}) == {job: 1}
    assert do(database, lambda session: attempts.requeue(session, engine, job, 1)) is True
    assert do(database, lambda session: attempts.requeue(session, engine, job, 1)) is False
    assert engine.lost({job: 2}) == {}
    assert begin(database, job, enqueued=1) is None
    assert begin(database, job, enqueued=2) == 1
    engine.close()


def test_events_count_up_over_attempts(database: Database, job: str) -> None:
    for number in (1, 2):
        begin(database, job)
        do(database, lambda session, n=number: attempts.report(session, job, n, at(1)))
    with database.read("default") as session:
        seqs = list(session.scalars(select(JobEventRow.seq).filter_by(job_id=job).order_by(JobEventRow.seq)))
        assert seqs == list(range(1, len(seqs) + 1))
        assert session.scalar(select(func.count()).select_from(JobEventRow)) == 5
