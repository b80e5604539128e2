"""A worker, its children and the jobs they run: trained to the end, killed, cancelled, refused."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from app.config import Settings

ENDLESS = 1_000_000  # steps: hours


def until(found: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 240
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_workers_of_other_sizes_keep_their_own_slots(jobs: Any, start_worker: Callable[..., Any]) -> None:
    """The one that starts last has one slot, the first has two: three jobs run at once."""
    for slots in (2, 1):
        there = len(jobs.client.get("/v1/system").json()["workers"])
        start_worker(slots=slots)
        until(lambda there=there: len(jobs.client.get("/v1/system").json()["workers"]) > there)
    table = "queues" if jobs.database.is_sqlite else "dbos.queues"
    query = text(f"select worker_concurrency from {table} where name = 'work'")
    with jobs.database.engine.connect() as connection:  # the engine keeps one number for all workers: the last one's
        until(lambda: connection.execute(query).scalar() == 1 or connection.rollback())
    started = [jobs.train(ENDLESS) for _ in range(3)]
    until(lambda: jobs.client.get("/v1/system").json()["queue"]["running"] == 3)
    workers = [jobs.show(job)["worker"] for job in started]
    assert sorted(workers.count(worker) for worker in set(workers)) == [1, 2]


def test_one_slot_trains_survives_a_kill_and_makes_way_for_the_next(
    jobs: Any, start_worker: Callable[[], Any], settings: Settings
) -> None:
    """The first job runs to its end; the child of the second is killed past a checkpoint, goes on from there, and is
    cancelled in mid-training; then the third runs."""
    first, second, third = jobs.train(30), jobs.train(ENDLESS), jobs.train(5)
    worker = start_worker()
    ended = jobs.wait(first, "succeeded", "failed")
    assert (ended["state"], ended["attempt"], ended["device"]) == ("succeeded", 1, "cpu")
    assert ended["progress"]["fraction"] == 1.0
    assert ended["metrics"]["mase"] > 0
    assert jobs.kinds(first)[-1] == "done"
    assert set(jobs.kinds(first)) == {"log", "progress", "metric", "done"}
    assert jobs.client.get(ended["result"]["href"]).json()["aliases"] == ["champion"]

    saved = jobs.wait_for_checkpoint(settings, second)
    system = jobs.client.get("/v1/system").json()
    assert system["devices"][-1]["kind"] == "cpu"
    assert [one["id"] for one in system["workers"]] == [jobs.show(second)["worker"]]
    assert system["queue"] == {"pending": 1, "running": 1}
    os.kill(worker.until_at_work(), signal.SIGKILL)
    assert jobs.begun_at(second, attempt=2) >= saved
    assert any("SIGKILL" in line and "somebody" in line for line in jobs.lines(second))

    assert jobs.client.post(f"/v1/jobs/{second}/cancel").json()["state"] == "cancelled"
    assert jobs.wait(third, "succeeded")["attempt"] == 1
    assert jobs.show(second)["state"] == "cancelled"
    assert jobs.kinds(second).count("done") == 1
    assert jobs.versions() == [third, first]
    assert worker.stop() == 0
    assert jobs.client.get("/v1/system").json()["workers"] == []
