"""Forecast jobs that are cut into shards, their steps and shards carried out in this process one at a time, as workers
would: the file is that of a job that is not cut, whatever happens on the way."""

import datetime as dt
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from app import store
from app.api.schemas.jobs import JobIn, ask_of
from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import JobRow, ShardRow, WorkerRow
from app.main import create_app
from app.services import attempts, firing, forecast_jobs, jobs
from app.services.attempts import Report
from app.services.firing import Around
from app.services.forecasts import Shape
from app.services.jobs import Engine
from app.worker.child import obey

ASK: dict[str, Any] = {"kind": "forecast", "dataset": "gasoline", "model": "fuel", "horizon": 5, "format": "csv"}
MANY = 300  # parts of 128, 128 and 44
SERIES = {f"s{n:04d}": [float((step * (n + 3)) % 11) for step in range(20 + n % 5)] for n in range(MANY)}


@pytest.fixture(autouse=True)
def in_place(publish: Callable[..., int], stored: Callable[..., int]) -> None:
    publish("fuel")
    stored("gasoline", SERIES)


class Bench:
    """One worker with one slot, in this process."""

    def __init__(self, app: FastAPI, client: TestClient, database: Database, settings: Settings) -> None:
        self.app, self.client, self.database, self.settings = app, client, database, settings

    def ask(self, parts: int | None = 1, **changes: Any) -> str:
        """A job whose shards have at least so many parts; None: as many as usual."""
        asked = JobIn.model_validate(ASK | changes).root
        around = Around(self.settings, self.app.state.engine, self.app.state.versions)
        with self.database.write("default") as session:
            new = firing.plan(session, ask_of(asked, asked.dataset), around)
            spec = new.spec if parts is None else new.spec | {"shard_parts": parts}
            return jobs.submit(session, around.engine, replace(new, spec=spec), 1000)[0].id

    def begin(self, job: str, most: int | None = None) -> dict[str, Any] | None:
        """The order for the job's latest queueing, as a parent gives it."""
        with self.database.write(EVERY_WORKSPACE) as session:
            row = session.scalars(select(JobRow).where(JobRow.id == job)).one()
            number = attempts.begin(session, job, row.enqueued, "worker", "cpu", most=most)
        return None if number is None else {"job": job, "attempt": number, "device": "cpu"}

    def work(self, job: str, settings: Settings | None = None) -> dict[str, Any]:
        order = self.begin(job)
        assert order is not None
        assert obey(settings or self.settings, order) == 0
        return self.show(job)

    def show(self, job: str) -> dict[str, Any]:
        return self.client.get(f"/v1/jobs/{job}").json()

    def shards(self, job: str) -> list[tuple[str | None, str | None]]:
        """Job and state of each."""
        with self.database.read("default") as session:
            query = select(ShardRow.job_id, JobRow.state).outerjoin(JobRow, JobRow.id == ShardRow.job_id)
            found = session.execute(query.where(ShardRow.forecast_id == job).order_by(ShardRow.number)).all()
        return [(row.job_id, row.state) for row in found]

    def open(self, job: str) -> list[str]:
        return [one for one, state in self.shards(job) if one and state in ("pending", "running")]

    def until_last(self, job: str) -> None:
        """The first step, and all shards."""
        self.work(job)
        while found := self.open(job):
            self.work(found[0])

    def to_the_end(self, job: str) -> dict[str, Any]:
        self.until_last(job)
        shown = self.work(job)
        assert shown["state"] == "succeeded", shown["error"]
        return shown

    def file(self, job: str) -> bytes:
        return self.client.get(f"/v1/jobs/{job}/result").content

    def slots(self, count: int) -> None:
        with self.database.write(EVERY_WORKSPACE) as session:
            jobs.beat(session, "host.1-1-a", [], [f"cpu#{number}" for number in range(count)])
            later = jobs.clock(session) + dt.timedelta(days=1)  # however slow this machine is, that worker lives
            session.get_one(WorkerRow, "host.1-1-a").beat_at = later

    def priorities(self, *found: str) -> list[int]:
        with self.database.read("default") as session:
            return [session.get_one(JobRow, job).priority for job in found]


@pytest.fixture
def bench(app: FastAPI, client: TestClient, database: Database, settings: Settings) -> Bench:
    return Bench(app, client, database, settings)


@pytest.mark.parametrize("more", [{}, {"format": "parquet"}, {"series": [*sorted(SERIES, reverse=True)[:200]]}])
def test_the_file_is_that_of_a_job_that_is_not_cut(bench: Bench, settings: Settings, more: dict[str, Any]) -> None:
    whole, cut = bench.ask(None, **more), bench.ask(**more)
    assert bench.work(whole)["state"] == "succeeded"
    assert bench.shards(whole) == []
    said, expected = bench.to_the_end(cut), bench.show(whole)
    assert bench.file(cut) == bench.file(whole)
    names = ("digest", "rows", "series", "size_bytes", "warnings")
    assert [said["result"][name] for name in names] == [expected["result"][name] for name in names]
    assert said["progress"]["fraction"] == 1.0
    assert "shard_parts" not in said["spec"]
    assert [state for _, state in bench.shards(cut)] == ["succeeded"] * (2 if "series" in more else 3)
    assert list(settings.checkpoints.iterdir()) == []


def test_shards_are_of_whole_parts_and_not_too_many(bench: Bench, database: Database) -> None:
    few, many = bench.ask(2), bench.ask(1, horizon=10_000, quantiles=[round(0.01 * n, 2) for n in range(1, 100)])
    bench.work(few)
    assert bench.shards(few) == []  # three parts are less than two shards of two
    bench.work(many)
    with database.read("default") as session:
        rows = session.scalars(select(ShardRow).where(ShardRow.forecast_id == many).order_by(ShardRow.number)).all()
    assert [row.series for row in rows] == [6] * 50  # of 150 parts of two series
    assert [row.first for row in rows] == list(range(0, MANY, 6))
    assert [row.after for row in rows[1:]] == [row.until for row in rows[:-1]]
    assert (rows[0].after, rows[-1].until) == (None, None)


@pytest.mark.parametrize(
    ("shape", "series"), [(Shape(12), 8192), (Shape(2000, tuple(n / 100 for n in range(99))), 160)]
)
def test_a_shard_is_some_seconds_work(shape: Shape, series: int) -> None:
    """Many series, or few whose forecasts are long."""
    assert forecast_jobs.part_size(shape) * forecast_jobs.shard_parts(shape) == series


def test_between_steps_a_forecast_runs_and_no_worker_has_it(bench: Bench, database: Database) -> None:
    job = bench.ask()
    shown = bench.work(job)
    assert (shown["state"], shown["worker"], shown["progress"]["total"]) == ("running", None, MANY)
    [shard] = bench.open(job)
    assert (bench.show(shard)["kind"], bench.show(shard)["spec"]["forecast"]) == ("shard", job)
    assert [one["id"] for one in bench.client.get("/v1/jobs").json()["jobs"]] == [job]
    assert [one["id"] for one in bench.client.get("/v1/jobs?kind=shard").json()["jobs"]] == [shard]
    assert bench.client.get(f"/v1/jobs/{shard}/result").status_code == 404
    with database.write(EVERY_WORKSPACE) as session:
        assert attempts.lose(session, job, 1, "its process ended with status 0") is False
        assert set(attempts.active(session, jobs.clock(session))) == {shard}


def test_what_shards_say_is_the_forecasts_progress(bench: Bench, database: Database) -> None:
    bench.slots(2)
    job = bench.ask()
    bench.work(job)
    first, second = bench.open(job)
    for shard, step, pace in ((first, 90, 100.0), (second, 60, 50.0)):
        bench.begin(shard)
        said = {
            "step": step,
            "total": 128,
            "fraction": 0.5,
            "eta_s": 1.0,
            "steps_per_s": pace,
            "message": "forecasting",
        }
        with database.write(EVERY_WORKSPACE) as session:
            attempts.report(session, shard, 1, Report(said, {}, step, True))
    shown = bench.show(job)["progress"]
    assert (shown["step"], shown["total"], shown["rate"], shown["unit"]) == (150, MANY, 150.0, "series")
    assert shown["eta_s"] == (MANY - 150) / 150.0
    assert "2 at work" in shown["message"]
    with database.read("default") as session:
        told = [row.data["step"] for row in jobs.events(session, job, 0)[0] if row.kind == "progress"]
    assert told == [0, 90, 150]


def test_a_series_that_came_later_has_no_part_in_it(bench: Bench, stored: Callable[..., int]) -> None:
    whole, job = bench.ask(None), bench.ask()
    bench.work(whole)
    bench.work(job)
    stored("gasoline", {f"s00{n:02d}-later": [1.0, 2.0] for n in range(40)})
    while found := bench.open(job):
        bench.work(found[0])
    assert bench.work(job)["result"]["digest"] == bench.show(whole)["result"]["digest"]


# ---------------------------------------------------------------- turns


def test_as_many_shards_as_slots_and_who_came_meanwhile_first(bench: Bench) -> None:
    bench.slots(2)
    job = bench.ask()
    bench.work(job)
    first, second = bench.open(job)
    small = bench.ask(None, series=["s0001"])
    bench.work(first)
    assert bench.open(job)[0] == second
    third = bench.open(job)[1]
    before, after = bench.priorities(small, third)
    assert before < after
    bench.work(small)
    bench.work(third)
    bench.work(second)
    assert bench.open(job) == []
    assert bench.work(job)["state"] == "succeeded"


def test_a_forecast_that_waits_takes_no_room_from_its_shards(bench: Bench, database: Database) -> None:
    bench.slots(2)
    job = bench.ask()
    assert obey(bench.settings, bench.begin(job, most=1) or {}) == 0
    first, second = bench.open(job)
    order = bench.begin(first, most=1)
    assert order is not None
    assert bench.begin(second, most=1) is None  # put aside
    assert obey(bench.settings, order) == 0
    engine = Engine(database.url)
    with database.write(EVERY_WORKSPACE) as session:
        assert attempts.release(session, engine, "default", 1) == [second]
    engine.close()
    while found := bench.open(job):
        with database.write(EVERY_WORKSPACE) as session:
            attempts.release(session, bench.app.state.engine, "default", 1)
        assert obey(bench.settings, bench.begin(found[0], most=1) or {}) == 0
    assert obey(bench.settings, bench.begin(job, most=1) or {}) == 0
    assert bench.show(job)["state"] == "succeeded"


def test_a_full_queue_refuses_no_shard(bench: Bench, database: Database) -> None:
    job = bench.ask()
    with database.write("default") as session, pytest.raises(Exception, match="jobs are waiting"):
        jobs.submit(session, bench.app.state.engine, jobs.NewJob("train", {}), 1)
    bench.to_the_end(job)


# ---------------------------------------------------------------- what goes wrong


def test_a_failed_shard_fails_the_job_and_a_retry_keeps_what_is_done(bench: Bench, settings: Settings) -> None:
    """The process of the second shard dies each time."""
    bench.slots(2)
    whole, job = bench.ask(None), bench.ask()
    bench.work(whole)
    bench.work(job)
    first, second = bench.open(job)
    bench.work(first)
    third = bench.open(job)[1]
    kept = settings.checkpoints / job / "0001" / "part-000001.parquet"
    written = kept.stat().st_mtime_ns
    for _ in range(attempts.MAX_TRIES):
        order = bench.begin(second)
        assert order is not None
        with bench.database.write(EVERY_WORKSPACE) as session:
            attempts.lose(session, second, order["attempt"], "it was killed")
    shown = bench.show(job)
    assert (shown["state"], shown["error"]["instance"]) == ("failed", job)
    assert shown["error"]["type"] == "/docs/errors#attempts-exhausted"
    assert "it was killed" in shown["error"]["detail"]
    assert [state for _, state in bench.shards(job)] == ["succeeded", "failed", "cancelled"]
    assert bench.begin(third) is None
    assert bench.client.post(f"/v1/jobs/{job}/retry").status_code == 202
    bench.until_last(job)
    assert bench.shards(job)[0] == (first, "succeeded")
    assert bench.show(second)["status"] == 404  # its place has another
    assert kept.stat().st_mtime_ns == written
    assert bench.work(job)["result"]["digest"] == bench.show(whole)["result"]["digest"]


def test_what_a_shard_refuses_is_the_jobs_reason(bench: Bench, database: Database) -> None:
    job = bench.ask(series=sorted(SERIES))
    bench.work(job)
    assert bench.client.delete("/v1/datasets/gasoline/series/s0002").status_code == 204
    bench.work(bench.open(job)[0])
    shown = bench.show(job)
    assert shown["state"] == "failed"
    assert "'s0002'" in shown["error"]["detail"]
    with database.read("default") as session:
        assert [row.kind for row in jobs.events(session, job, 0)[0]].count("done") == 1


def test_cancel_ends_the_shards_and_retry_goes_on(bench: Bench) -> None:
    bench.slots(2)
    whole, job = bench.ask(None), bench.ask()
    bench.work(whole)
    bench.work(job)
    first, second = bench.open(job)
    order = bench.begin(first)
    for way in ("cancel", "retry"):
        assert bench.client.post(f"/v1/jobs/{second}/{way}").status_code == 409
    assert bench.client.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert [state for _, state in bench.shards(job)] == ["cancelled", "cancelled", None]
    with bench.database.read(EVERY_WORKSPACE) as session:
        assert attempts.strays(session, [(first, 1)]) == [(first, 1)]
    assert obey(bench.settings, order or {}) == 0  # an attempt that notices late ends nothing
    assert bench.begin(second) is None
    assert bench.client.post(f"/v1/jobs/{job}/retry").status_code == 202
    assert bench.to_the_end(job)["result"]["digest"] == bench.show(whole)["result"]["digest"]


def test_deleting_a_job_deletes_its_shards(bench: Bench, settings: Settings, database: Database) -> None:
    job = bench.ask()
    bench.work(job)
    bench.work(bench.open(job)[0])
    [second] = bench.open(job)
    assert bench.client.delete(f"/v1/jobs/{second}").status_code == 409
    assert bench.client.delete(f"/v1/jobs/{job}").status_code == 409
    bench.client.post(f"/v1/jobs/{job}/cancel")
    assert bench.client.delete(f"/v1/jobs/{job}").status_code == 204
    with database.read(EVERY_WORKSPACE) as session:
        assert list(session.scalars(select(JobRow.id))) == []
        assert list(session.scalars(select(ShardRow.number))) == []
    assert list(settings.checkpoints.iterdir()) == []


def test_parts_that_are_lost_or_damaged_are_made_anew(bench: Bench, settings: Settings) -> None:
    """A folder gone, an end cut off, and, which only shows as the file is written, bytes in the middle gone wrong."""
    whole, job = bench.ask(None), bench.ask()
    bench.work(whole)
    bench.until_last(job)
    folder = settings.checkpoints / job
    shutil.rmtree(folder / "0001")
    second, third = (folder / name / "part-000001.parquet" for name in ("0002", "0003"))
    second.write_bytes(second.read_bytes()[:-100])
    content = bytearray(third.read_bytes())
    content[100:400] = bytes(300)
    third.write_bytes(content)
    assert bench.work(job)["result"]["digest"] == bench.show(whole)["result"]["digest"]


def test_a_step_that_dies_is_taken_again(bench: Bench, database: Database, settings: Settings) -> None:
    """Before it has cut, and before it has put together; the late one of two changes nothing."""
    whole, job = bench.ask(None), bench.ask()
    bench.work(whole)
    late = bench.begin(job)
    assert late is not None
    with database.write(EVERY_WORKSPACE) as session:
        assert attempts.lose(session, job, late["attempt"], "it was killed") is True
    bench.work(job)
    assert obey(bench.settings, late) == 0
    assert len(bench.open(job)) == 1
    while found := bench.open(job):
        bench.work(found[0])
    last = bench.begin(job)
    assert last is not None
    with database.write(EVERY_WORKSPACE) as session:
        assert attempts.lose(session, job, last["attempt"], "it was killed") is True
    said = bench.work(job)["result"]
    assert obey(bench.settings, last) == 0
    assert (bench.show(job)["result"], said["digest"]) == (said, bench.show(whole)["result"]["digest"])
    files = sorted(path.name for path in (settings.data / "results").iterdir())
    assert files == sorted([said["file"], bench.show(whole)["result"]["file"]])


def test_a_forecast_that_the_queue_has_lost_is_queued_again(bench: Bench, database: Database) -> None:
    job = bench.ask()
    bench.until_last(job)
    engine = Engine(database.url)
    with database.read(EVERY_WORKSPACE) as session:
        queued = session.get_one(JobRow, job).enqueued
    engine.forget(jobs.workflow_id(job, queued))
    with database.write(EVERY_WORKSPACE) as session:
        assert engine.lost(attempts.active(session, jobs.clock(session))) == {job: queued}
        assert attempts.requeue(session, engine, job, queued)
    engine.close()
    assert bench.work(job)["state"] == "succeeded"


def test_a_dataset_that_went_away_fails_the_job(bench: Bench) -> None:
    job = bench.ask()
    bench.work(job)
    bench.client.delete("/v1/datasets/gasoline?force=true")
    bench.work(bench.open(job)[0])
    assert bench.show(job)["state"] == "failed"
    assert "gasoline" in bench.show(job)["error"]["detail"]


# ---------------------------------------------------------------- over machines


def test_shards_of_several_machines_meet_in_the_object_store(
    object_store: Any, settings: Settings, database: Database, tmp_path: Path
) -> None:
    shared = {
        "store_url": object_store.url,
        "database_url": settings.database_url or f"sqlite:///{settings.data}/gatecast.db",
    }
    machines = [Settings(data=tmp_path / name, **shared) for name in ("one", "two", "three", "four")]
    source = next(settings.store.iterdir())
    reserved = store.reserve(machines[0].store, source.name)
    for file in source.iterdir():
        shutil.copyfile(file, reserved / file.name)
    store.publish(machines[0].store, reserved, source.name)

    def listed(folder: str) -> list[str]:
        return [name for name in object_store.listed() if name.startswith(folder)]

    app = create_app(machines[0])
    with TestClient(app) as client:
        bench = Bench(app, client, database, machines[0])
        whole, job, dropped = bench.ask(None), bench.ask(), bench.ask()
        assert bench.work(whole)["state"] == "succeeded"
        bench.work(job)
        for machine in machines[:3]:
            bench.work(bench.open(job)[0], machine)
            assert list(machine.checkpoints.rglob("*.parquet")) == []
        assert listed(".parts") == [f".parts/{job}/{number}/part-000001.parquet" for number in (1, 2, 3)]
        object_store.delete(f".parts/{job}/2/part-000001.parquet")
        assert bench.work(job, machines[3])["state"] == "succeeded"
        assert bench.file(job) == bench.file(whole)
        assert listed(".parts") == []
        assert list(machines[3].checkpoints.iterdir()) == []

        bench.work(dropped)
        bench.work(bench.open(dropped)[0], machines[1])
        assert len(listed(".parts")) == 1
        client.post(f"/v1/jobs/{dropped}/cancel")
        assert client.delete(f"/v1/jobs/{dropped}").status_code == 204
        assert listed(".parts") == []
