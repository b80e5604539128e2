"""A forecast job under real kills, whole or in shards: its file is the one of a job that nothing happened to."""

import io
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from app.config import Settings
from app.db.session import Database
from app.services import datasets, firing
from app.services import jobs as rows
from app.services.firing import Around
from app.services.forecast_jobs import ForecastAsk

# Each series takes 200,000 numbers, so that a part holds ten.
ASK = {"horizon": 2000, "quantiles": [round(0.01 * level, 2) for level in range(1, 100)]}
FIRST = int(np.datetime64("2026-01-01", "us").astype(np.int64))


@pytest.fixture
def many(database: Database) -> str:
    """The name of a stored dataset: 40 hourly series of 48 points."""
    points = [
        (f"s{number:02d}", FIRST + hour * 3_600_000_000, float((hour * (number + 3)) % 24))
        for number in range(40)
        for hour in range(48)
    ]
    with database.write("default") as session:
        datasets.append_points(session, datasets.create(session, "many", ("h", "UTC"), {}), points)
    return "many"


def until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 240
    while not (answer := found()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return answer


def test_a_killed_and_a_cancelled_job_end_with_the_same_file(
    jobs: Any, start_worker: Callable[[], Any], settings: Settings, many: str
) -> None:
    trained = jobs.train(3)
    worker = start_worker()
    jobs.wait(trained, "succeeded")

    def ask() -> str:
        body = {"kind": "forecast", "dataset": many, "model": "load", "format": "parquet", **ASK}
        answer = jobs.client.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def parts(job: str) -> list[str]:
        return sorted(path.name for path in (settings.checkpoints / job).glob("part-*"))

    killed, cancelled, whole = ask(), ask(), ask()
    until(lambda: parts(killed))
    before = {name: (settings.checkpoints / killed / name).stat().st_mtime_ns for name in parts(killed)}
    os.kill(worker.until_at_work(), signal.SIGKILL)
    until(lambda: jobs.show(killed)["attempt"] == 2)
    kept = {name: (settings.checkpoints / killed / name).stat().st_mtime_ns for name in before}
    assert kept == before
    ended = jobs.wait(killed, "succeeded", "failed")
    assert (ended["state"], ended["attempt"], ended["progress"]["fraction"]) == ("succeeded", 2, 1.0)
    assert any("SIGKILL" in line for line in jobs.lines(killed))
    assert jobs.begun_at(killed, attempt=2) >= 10

    until(lambda: parts(cancelled))
    assert jobs.client.post(f"/v1/jobs/{cancelled}/cancel").json()["state"] == "cancelled"
    until(lambda: jobs.show(whole)["state"] != "pending")  # the slot is free again
    assert parts(cancelled)
    assert jobs.client.post(f"/v1/jobs/{cancelled}/retry").status_code == 202

    results = [jobs.wait(job, "succeeded", "failed")["result"] for job in (killed, whole, cancelled)]
    assert len({result["digest"] for result in results}) == 1
    assert [result["rows"] for result in results] == [40 * 2000] * 3
    until(lambda: not any(parts(job) for job in (killed, cancelled, whole)))  # they go once the job's end is kept
    table = parquet.read_table(io.BytesIO(jobs.client.get(results[0]["href"]).content))
    assert table.column_names[:5] == ["key", "timestamp", "mean", "q0.01", "q0.02"]
    assert table["key"].unique().to_pylist() == [f"s{number:02d}" for number in range(40)]
    assert worker.stop() == 0


def test_a_job_in_shards_survives_a_worker(
    jobs: Any, start_worker: Callable[[], Any], settings: Settings, database: Database, many: str
) -> None:
    """Two workers, one of which is killed with its child in the middle of a shard."""
    trained = jobs.train(3)
    workers = [start_worker(), start_worker()]
    jobs.wait(trained, "succeeded")
    around = Around(settings, jobs.client.app.state.engine, jobs.client.app.state.versions)
    ask = ForecastAsk(many, "load", None, None, ASK["horizon"], tuple(ASK["quantiles"]), "parquet")

    def asked(**changes: Any) -> str:
        with database.write("default") as session:
            new = firing.plan(session, ask, around)
            return rows.submit(session, around.engine, replace(new, spec=new.spec | changes), 10)[0].id

    def at_work() -> Any:
        """The worker in the middle of a shard, and the shard's job."""
        for shard in jobs.client.get("/v1/jobs?kind=shard&state=running").json()["jobs"]:
            folder = settings.checkpoints / shard["spec"]["forecast"] / f"{shard['spec']['number']:04d}"
            if len(list(folder.glob("part-*"))) == 1:
                return next(one for one in workers if f"-{one.pid}-" in shard["worker"]), shard["id"]
        return None

    job = asked(shard_parts=2)  # of the four that there are
    victim, shard = until(at_work)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.process.wait()
    ended = until(lambda: shown if (shown := jobs.show(job))["state"] in ("succeeded", "failed") else None)
    assert ended["state"] == "succeeded", ended["error"]
    assert (jobs.show(shard)["state"], jobs.show(shard)["attempt"]) == ("succeeded", 2)
    [left] = [one for one in workers if one is not victim]
    shards = jobs.client.get("/v1/jobs?kind=shard").json()["jobs"]
    assert [one["state"] for one in shards] == ["succeeded"] * 2
    assert all(jobs.kinds(one["id"]).count("done") == 1 for one in (ended, *shards))
    steps = [data["step"] for kind, data in jobs.events(job) if kind == "progress"]
    assert (steps, steps[-1]) == (sorted(steps), 40)
    whole = jobs.wait(asked(), "succeeded", "failed")
    assert (whole["state"], len(jobs.client.get("/v1/jobs?kind=shard").json()["jobs"])) == ("succeeded", 2)
    assert ended["result"]["digest"] == whole["result"]["digest"]
    assert ended["result"]["rows"] == 40 * 2000
    until(lambda: not list(settings.checkpoints.iterdir()))
    assert left.stop() == 0
