"""Tunes, their steps and trials carried out in this process one at a time, as workers would: what was asked, how it
goes on, what ends it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app import store
from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import JobRow, TrialRow
from app.errors import AppError
from app.main import sweep_store
from app.services import attempts, jobs, trials
from app.services.jobs import Engine
from app.worker.child import obey

FIXED = {"horizon": 12, "context": 48, "segment": 12, "layers": 1, "batch": 8, "steps": 3, "scaling": "std"}
TUNE = {"kind": "tune", "dataset": "hourly", "model": "load", "config": FIXED, "trials": 3}
SPACE = {"hidden": [4, 8, 16], "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}}

pytestmark = pytest.mark.usefixtures("hourly")


class Bench:
    """One worker with one slot, in this process."""

    def __init__(self, client: TestClient, database: Database, settings: Settings) -> None:
        self.client, self.database, self.settings = client, database, settings

    def ask(self, **changes: Any) -> str:
        answer = self.client.post("/v1/jobs", json=TUNE | {"space": SPACE} | changes)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def begin(self, job: str) -> dict[str, Any] | None:
        """The order for the job's latest queueing, as a parent gives it."""
        with self.database.write(EVERY_WORKSPACE) as session:
            row = session.scalars(select(JobRow).where(JobRow.id == job)).one()
            number = attempts.begin(session, job, row.enqueued, "worker", "cpu")
        return None if number is None else {"job": job, "attempt": number, "device": "cpu"}

    def work(self, job: str) -> dict[str, Any]:
        order = self.begin(job)
        assert order is not None
        assert obey(self.settings, order) == 0
        return self.show(job)

    def show(self, job: str) -> dict[str, Any]:
        return self.client.get(f"/v1/jobs/{job}").json()

    def trials(self, tune: str) -> list[dict[str, Any]]:
        return self.client.get(f"/v1/jobs/{tune}/trials").json()["trials"]

    def open(self, tune: str) -> list[str]:
        return [one["job"] for one in self.trials(tune) if one["state"] in ("pending", "running")]

    def give_up(self, tune: str) -> None:
        """Cancel the one open trial, alone: the cheapest end of one."""
        [job] = self.open(tune)
        assert self.client.post(f"/v1/jobs/{job}/cancel").status_code == 200

    def to_the_end(self, tune: str) -> dict[str, Any]:
        """Step and trials in turn until the tune has ended."""
        for _ in range(50):
            shown = self.work(tune)
            if shown["state"] not in ("pending", "running"):
                return shown
            for job in self.open(tune):
                if self.show(job)["state"] == "pending":  # else it is yet to be tried again
                    self.work(job)
        pytest.fail("the tune does not end")

    def lines(self, job: str) -> list[str]:
        with self.database.read("default") as session:
            rows = jobs.events(session, job, 0, 10_000)[0]
            return [row.data["message"] for row in rows if row.kind == "log"]


@pytest.fixture
def bench(client: TestClient, database: Database, settings: Settings) -> Bench:
    return Bench(client, database, settings)


def folders(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.store.iterdir())


def test_a_tune_ends_with_the_best_trials_version(bench: Bench, settings: Settings) -> None:
    tune = bench.ask(trials=4)
    shown = bench.to_the_end(tune)
    assert shown["state"] == "succeeded", shown["error"]
    found = bench.trials(tune)
    assert [(one["number"], one["state"]) for one in found] == [(n, "completed") for n in range(4)]
    assert found[0]["params"] == {}
    assert all(set(one["params"]) == set(SPACE) for one in found[1:])
    best = min(found, key=lambda one: one["value"])
    assert [one["job"] for one in found if one["best"]] == [best["job"]]
    assert shown["result"]["best"] == {
        "trial": best["number"],
        "job": best["job"],
        "params": best["params"],
        "metric": "mase",
        "value": best["value"],
    }
    assert shown["result"]["trials"] == {"completed": 4, "pruned": 0, "failed": 0, "cancelled": 0}
    version = bench.client.get(shown["result"]["href"]).json()
    assert (version["job"], version["version"], version["aliases"]) == (tune, 1, ["champion"])
    assert version["metrics"]["mase"] == best["value"]
    assert {name: version["config"][name] for name in best["params"]} == best["params"]
    [kept] = folders(settings)
    store.verify(store.local(settings.store, kept), version["digest"])
    assert list(settings.checkpoints.iterdir()) == []
    lines = bench.lines(tune)
    assert any("best so far" in line for line in lines)
    assert sum(line.startswith("trial 2:") for line in lines) == 2  # that it begins, and what came of it


def test_trials_stand_apart_from_other_jobs(bench: Bench) -> None:
    tune = bench.ask()
    bench.work(tune)
    [trial] = bench.open(tune)
    assert [job["id"] for job in bench.client.get("/v1/jobs").json()["jobs"]] == [tune]
    assert [job["id"] for job in bench.client.get("/v1/jobs?kind=trial").json()["jobs"]] == [trial]
    assert bench.show(trial)["spec"]["tune"] == tune
    assert bench.client.get(f"/v1/jobs/{trial}/trials").status_code == 404
    page = bench.client.get(f"/v1/jobs/{tune}/trials", headers={"Accept": "text/csv"})
    header, first = page.text.splitlines()[:2]
    assert header == "number,state,value,steps,duration_s,reason,job"
    assert first.startswith("0,pending,,0,,,job_")


def test_pages_of_trials(bench: Bench) -> None:
    tune = bench.ask(trials=3)
    for _ in range(3):
        bench.work(tune)
        bench.give_up(tune)
    first = bench.client.get(f"/v1/jobs/{tune}/trials?page_size=2").json()
    token = first["next_page_token"]
    second = bench.client.get(f"/v1/jobs/{tune}/trials?page_size=2&page_token={token}").json()
    assert [one["number"] for one in first["trials"] + second["trials"]] == [0, 1, 2]
    assert second["next_page_token"] is None
    assert bench.client.get(f"/v1/jobs/{tune}/trials?page_token=WyJ4Il0").status_code == 422
    rows = bench.client.get(f"/v1/jobs/{tune}/trials", headers={"Accept": "text/csv"}).text.splitlines()
    assert rows[0] == "number,state,value,hidden,learning_rate,steps,duration_s,reason,job"
    assert len(rows) == 4


def test_between_steps_a_tune_runs_and_no_worker_has_it(bench: Bench, database: Database) -> None:
    tune = bench.ask()
    order = bench.begin(tune)
    assert order is not None
    assert obey(bench.settings, order) == 0
    shown = bench.show(tune)
    assert (shown["state"], shown["worker"]) == ("running", None)
    assert shown["progress"]["total"] == 3
    with database.write(EVERY_WORKSPACE) as session:
        # The parent, which sees the child end, and the census, which finds no queueing, leave it as it is.
        assert attempts.lose(session, tune, order["attempt"], "its process ended with status 0") is False
        assert set(attempts.active(session, jobs.clock(session))) == set(bench.open(tune))


def test_the_end_of_a_trial_queues_one_step_however_it_ends(bench: Bench, database: Database) -> None:
    tune = bench.ask(trials=10)
    for end in ("completed", "failed", "cancelled"):
        before = enqueued(database, tune)
        bench.work(tune)
        [job] = bench.open(tune)
        if end == "completed":
            bench.work(job)
        elif end == "cancelled":
            assert bench.client.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
        else:
            for _ in range(attempts.MAX_TRIES):
                order = bench.begin(job)
                assert order is not None
                with database.write(EVERY_WORKSPACE) as session:
                    attempts.lose(session, job, order["attempt"], "it was killed")
        assert enqueued(database, tune) == before + 1
        engine = Engine(database.url)
        assert engine.lost({tune: before + 1}) == {}
        engine.close()
    assert [one["state"] for one in bench.trials(tune)] == ["completed", "failed", "cancelled"]


def enqueued(database: Database, job: str) -> int:
    with database.read("default") as session:
        return session.scalars(select(JobRow.enqueued).where(JobRow.id == job)).one()


def test_the_end_of_a_trial_overtakes_the_step_at_work(bench: Bench, database: Database) -> None:
    """Two steps of one tune at once: the older one writes nothing, and nothing counts against the tune."""
    tune = bench.ask(trials=20)
    bench.work(tune)
    for _ in range(attempts.MAX_TRIES + 2):
        order = bench.begin(tune)  # a step that is slow
        bench.give_up(tune)
        bench.work(tune)
        assert order is not None
        assert obey(bench.settings, order) == 0
        assert len(bench.open(tune)) == 1
    assert bench.show(tune)["state"] == "running"


def test_a_step_that_dies_before_its_commit_is_taken_again(bench: Bench, database: Database) -> None:
    tune = bench.ask()
    first = bench.begin(tune)
    assert first is not None
    with database.write(EVERY_WORKSPACE) as session:
        assert attempts.lose(session, tune, first["attempt"], "it was killed") is True
    bench.work(tune)
    assert len(bench.open(tune)) == 1


def test_a_tune_that_the_queue_has_lost_is_queued_again(bench: Bench, database: Database) -> None:
    tune = bench.ask(trials=1)
    bench.work(tune)
    bench.give_up(tune)
    n = enqueued(database, tune)
    engine = Engine(database.url)
    engine.forget(jobs.workflow_id(tune, n))
    with database.write(EVERY_WORKSPACE) as session:
        active = attempts.active(session, jobs.clock(session))
        assert engine.lost(active) == {tune: n}
        assert attempts.requeue(session, engine, tune, n)
    engine.close()
    assert bench.to_the_end(tune)["state"] == "succeeded"


def test_cancel_ends_the_open_trials_and_retry_goes_on_with_them(bench: Bench, settings: Settings) -> None:
    tune = bench.ask(trials=3)
    bench.work(tune)
    bench.work(bench.open(tune)[0])
    bench.work(tune)
    [second] = bench.open(tune)
    assert bench.client.post(f"/v1/jobs/{tune}/cancel").json()["state"] == "cancelled"
    assert [one["state"] for one in bench.trials(tune)] == ["completed", "cancelled"]
    assert bench.begin(tune) is None
    assert bench.client.post(f"/v1/jobs/{second}/retry").status_code == 409
    assert bench.client.post(f"/v1/jobs/{tune}/retry").status_code == 202
    assert bench.open(tune) == [second]
    shown = bench.to_the_end(tune)
    assert shown["state"] == "succeeded", shown["error"]
    assert [one["state"] for one in bench.trials(tune)] == ["completed"] * 3
    assert len(folders(settings)) == 1


def test_deleting_a_tune_deletes_its_trials(bench: Bench, settings: Settings, database: Database) -> None:
    tune = bench.ask()
    bench.work(tune)
    [first] = bench.open(tune)
    bench.work(first)
    assert len(folders(settings)) == 1
    assert bench.client.delete(f"/v1/jobs/{first}").status_code == 409
    assert bench.client.delete(f"/v1/jobs/{tune}").status_code == 409
    bench.client.post(f"/v1/jobs/{tune}/cancel")
    assert bench.client.delete(f"/v1/jobs/{tune}").status_code == 204
    with database.read(EVERY_WORKSPACE) as session:
        assert list(session.scalars(select(JobRow.id))) == []
        assert list(session.scalars(select(TrialRow.job_id))) == []
    assert folders(settings) == []


def test_the_store_is_swept_of_all_but_the_best(bench: Bench, settings: Settings, database: Database) -> None:
    tune = bench.ask(trials=6)
    bench.work(tune)
    bench.work(bench.open(tune)[0])
    [best] = folders(settings)
    assert bench.client.post(f"/v1/jobs/{tune}/cancel").status_code == 200
    sweep_store(settings, database, 4e9)
    assert folders(settings) == [best]  # what a retry goes on with
    left = bench.trials(tune)[0]["job"]
    reserved = store.reserve(settings.store, f"{left}-9")
    for name in store.FILES:
        (reserved / name).write_bytes(b"")
    store.publish(settings.store, reserved, f"{left}-9")  # an attempt that died before its commit
    sweep_store(settings, database, 4e9)
    assert folders(settings) == [best]


def test_a_config_that_is_none_fails_its_trial_and_the_tune_goes_on(bench: Bench) -> None:
    fixed = {name: value for name, value in FIXED.items() if name not in ("context", "segment")}
    space = {"context": [48, 49, 50], "segment": [12]}
    tune = bench.ask(config=fixed | {"hidden": 4}, space=space, trials=20)
    shown = bench.to_the_end(tune)
    assert shown["state"] == "succeeded", shown["error"]
    found = bench.trials(tune)
    assert len(found) == 4  # all there is to try, each once, after the preset's own
    assert {one["params"]["context"] for one in found if one["state"] == "failed"} == {49, 50}
    assert all("multiple of segment" in one["reason"] for one in found if one["state"] == "failed")


def test_when_all_trials_fail_the_tune_says_why_and_a_retry_tries_them_one_after_the_other(
    bench: Bench, database: Database, settings: Settings
) -> None:
    tune = bench.ask(trials=3)
    for _ in range(3):
        bench.work(tune)
        order = bench.begin(bench.open(tune)[0])
        assert order is not None
        with database.write(EVERY_WORKSPACE) as session:
            attempts.fail(session, order["job"], order["attempt"], AppError("the moon is full", code="job-crashed"))
    shown = bench.work(tune)
    assert (shown["state"], shown["error"]["type"]) == ("failed", "/docs/errors#no-trial-completed")
    assert "the moon is full" in shown["error"]["detail"]

    def queue() -> int:
        return bench.client.get("/v1/system").json()["queue"]["pending"]

    retried = bench.client.post(f"/v1/jobs/{tune}/retry").json()
    assert (retried["state"], retried["started_at"]) == ("pending", None)
    assert [one["state"] for one in bench.trials(tune)] == ["pending"] * 3
    assert queue() == 1  # the tune alone: there is one slot, so one trial at a time
    first, *others = bench.open(tune)
    bench.work(tune)
    assert queue() == 1
    assert bench.show(first)["state"] == "pending"
    assert [bench.show(job)["state"] for job in others] == ["failed", "failed"]
    bench.work(first)
    bench.work(tune)
    assert bench.client.post(f"/v1/jobs/{tune}/cancel").json()["state"] == "cancelled"
    assert [one["state"] for one in bench.trials(tune)] == ["completed", "cancelled", "failed"]
    assert bench.client.post(f"/v1/jobs/{tune}/retry").status_code == 202
    assert [one["state"] for one in bench.trials(tune)] == ["completed", "pending", "pending"]
    assert bench.to_the_end(tune)["result"]["trials"]["completed"] == 3


def test_a_dataset_deleted_in_mid_tune_leaves_the_best_so_far(bench: Bench, settings: Settings) -> None:
    tune = bench.ask(trials=20)
    bench.work(tune)
    bench.work(bench.open(tune)[0])
    bench.work(tune)
    bench.client.delete("/v1/datasets/hourly")
    [late] = bench.open(tune)
    assert bench.work(late)["state"] == "failed"
    shown = bench.work(tune)
    assert (shown["state"], len(bench.trials(tune))) == ("succeeded", 2), shown["error"]
    version = bench.client.get(shown["result"]["href"]).json()
    assert (version["dataset"], version["frequency"], version["aliases"]) == ("hourly", "h", ["champion"])
    store.verify(store.local(settings.store, folders(settings)[0]), version["digest"])


def test_without_its_dataset_a_tune_begins_no_trial(bench: Bench) -> None:
    tune = bench.ask()
    bench.client.delete("/v1/datasets/hourly")
    shown = bench.work(tune)
    assert (shown["state"], bench.trials(tune)) == ("failed", [])
    assert "'hourly'" in shown["error"]["detail"]


def begun_long_ago(database: Database, tune: str) -> None:
    with database.write("default") as session:
        earlier = jobs.clock(session).replace(year=2020)
        session.execute(update(JobRow).where(JobRow.id == tune).values(started_at=earlier))


def test_the_time_ends_a_tune_too(bench: Bench, database: Database) -> None:
    tune = bench.ask(trials=None, minutes=5)
    assert bench.show(tune)["spec"]["trials"] == 1000
    bench.work(tune)
    bench.work(bench.open(tune)[0])
    begun_long_ago(database, tune)
    assert bench.work(tune)["state"] == "succeeded"
    assert len(bench.trials(tune)) == 1


def test_a_completed_trial_that_is_not_the_best_keeps_nothing(bench: Bench, database: Database) -> None:
    """Two that end together have both published; only the better one is named, whichever commits first."""
    tune = bench.ask(trials=6)
    bench.work(tune)
    bench.work(bench.open(tune)[0])
    bench.work(tune)
    bench.work(bench.open(tune)[0])
    with database.write(EVERY_WORKSPACE) as session:
        rows = list(session.scalars(select(TrialRow).order_by(TrialRow.number)))
        session.execute(update(TrialRow).values(folder=None, made=None))
        for row in rows:
            row.value = float(row.number)
        session.flush()
        assert trials.keep_best(session, rows[1].job_id, "second", {"folder": "second"}) == []
        assert trials.keep_best(session, rows[0].job_id, "first", {"folder": "first"}) == ["second"]
        assert trials.keep_best(session, rows[1].job_id, "second", {"folder": "second"}) == ["second"]
        session.expire_all()
        assert [row.folder for row in rows] == ["first", None]


def test_a_tune_may_be_scheduled(bench: Bench) -> None:
    job = {name: value for name, value in TUNE.items() if name != "dataset"} | {"space": SPACE}
    body = {"name": "weekly", "cron": "0 3 * * 1", "dataset": "hourly", "job": job}
    assert bench.client.post("/v1/schedules", json=body).status_code == 201
    made = bench.client.post("/v1/schedules/weekly/run").json()
    assert (made["kind"], made["spec"]["space"]["hidden"]) == ("tune", [4, 8, 16])
    assert made["spec"]["config"]["context"] == 48


@pytest.fixture
def refused(bench: Bench) -> Callable[..., list[str]]:
    def ask(**changes: Any) -> list[str]:
        answer = bench.client.post("/v1/jobs", json=TUNE | changes)
        assert answer.status_code == 422, answer.text
        return [complaint["pointer"] for complaint in answer.json()["errors"]]

    return ask


@pytest.mark.parametrize(
    ("space", "pointer"),
    [
        ({"hiden": [4]}, "/space/hiden"),
        ({}, "/space"),
        ({"hidden": []}, "/space/hidden"),
        ({"hidden": [8, 3]}, "/space/hidden/1"),
        ({"hidden": [8, "16"]}, "/space/hidden/1"),
        ({"hidden": [8, 16.0]}, "/space/hidden/1"),
        ({"hidden": [8, True]}, "/space/hidden/1"),
        ({"hidden": [8, 8]}, "/space/hidden/1"),
        ({"hidden": [8, [16]]}, "/space/hidden/1"),
        ({"hidden": 8}, "/space/hidden"),
        ({"cell": ["gru", "gro"]}, "/space/cell/1"),
        ({"cell": {"low": 1, "high": 2}}, "/space/cell"),
        ({"bidirectional": {"low": 0, "high": 1}}, "/space/bidirectional"),
        ({"activation": [None]}, "/space/activation/0"),
        ({"hidden": {"low": 64, "high": 32}}, "/space/hidden/low"),
        ({"hidden": {"low": 2, "high": 32}}, "/space/hidden/low"),
        ({"hidden": {"low": 8, "high": 4096}}, "/space/hidden/high"),
        ({"hidden": {"low": 8.5, "high": 64}}, "/space/hidden/low"),
        ({"hidden": {"low": 8, "high": 64, "step": 0}}, "/space/hidden/step"),
        ({"hidden": {"low": 8, "high": 64, "step": 8, "log": True}}, "/space/hidden/step"),
        ({"aligned": {"low": 0, "high": 1, "log": True}}, "/space/aligned/low"),
        ({"horizon": [12, 24]}, "/space/horizon"),
        ({"seed": [1, 2]}, "/space/seed"),
        ({"context": [48, 50]}, "/space/context"),  # config fixes it
        ({"read": [12, 50]}, "/space/read/1"),  # no multiple of config's segment
        ({"head": ["negative_binomial"], "scaling": ["log"]}, "/space/scaling"),
    ],
)
def test_what_is_wrong_with_a_space_is_pointed_at(
    refused: Callable[..., list[str]], space: dict[str, Any], pointer: str
) -> None:
    assert pointer in refused(space=space)


@pytest.mark.parametrize(
    ("space", "pointer"),
    [
        ({"learning_rate": {"low": 0.001, "high": 0.01, "step": 1e-12}}, "/space/learning_rate/step"),
        ({"clip": {"low": 1, "high": 10, "step": 1e-320}}, "/space/clip/step"),
        ({"hidden": {"low": 4, "high": 64, "step": 0.5}}, "/space/hidden/step"),
        ({"clip": {"low": 1, "high": 10, "step": 10**400}}, "/space/clip/step"),
        ({"cell": [[[["gru"]]]]}, "/space/cell/0"),
        ({"cell": [{"gru": 1}]}, "/space/cell/0"),
        ({f"field {n}": [1] for n in range(17)}, "/space"),
        ({"a/b~": [1]}, "/space/a~1b~0"),
    ],
)
def test_a_hostile_space_is_refused_at_once(
    refused: Callable[..., list[str]], space: dict[str, Any], pointer: str
) -> None:
    assert refused(space=space) == [pointer]


def test_half_a_character_is_no_choice(bench: Bench) -> None:
    body = json.dumps(TUNE | {"space": {"cell": ["gru", "\ud800"]}})
    answer = bench.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/space/cell/1")


def test_of_equal_trials_the_earlier_is_kept_whichever_ends_first(bench: Bench, database: Database) -> None:
    """No learning at all: every trial is worth the same."""
    with database.write(EVERY_WORKSPACE) as session:
        jobs.beat(session, "here.0-1-1-x", [{"name": "cpu", "kind": "cpu"}], ["cpu#0", "cpu#1"])
    tune = bench.ask(trials=2, config=FIXED | {"steps": 0, "hidden": 4}, space={"learning_rate": [1e-3, 2e-3]})
    bench.work(tune)
    first, second = bench.open(tune)
    bench.work(second)
    bench.work(first)
    shown = bench.work(tune)
    assert shown["state"] == "succeeded", shown["error"]
    values = [one["value"] for one in bench.trials(tune)]
    assert values[0] == values[1]
    assert shown["result"]["best"]["trial"] == 0
    assert (shown["metrics"]["completed"], shown["metrics"]["best"]) == (2.0, values[0])


def test_a_tune_that_fails_takes_its_trials_along(bench: Bench, database: Database, settings: Settings) -> None:
    tune = bench.ask()
    bench.work(tune)
    [open_trial] = bench.open(tune)
    running = bench.begin(open_trial)
    assert running is not None
    order = bench.begin(tune)
    assert order is not None
    with database.write(EVERY_WORKSPACE) as session:
        attempts.fail(session, tune, order["attempt"], AppError("it could not plan", code="job-crashed"))
        assert attempts.strays(session, [(open_trial, running["attempt"])]) == [(open_trial, running["attempt"])]
    assert bench.show(open_trial)["state"] == "cancelled"
    assert bench.client.delete(f"/v1/jobs/{tune}").status_code == 204


def test_trials_that_wait_when_the_time_is_over_are_dropped(bench: Bench, database: Database) -> None:
    with database.write(EVERY_WORKSPACE) as session:
        jobs.beat(session, "here.0-1-1-x", [{"name": "cpu", "kind": "cpu"}], ["cpu#0", "cpu#1"])
    tune = bench.ask(trials=None, minutes=5)
    bench.work(tune)
    bench.work(bench.open(tune)[0])
    begun_long_ago(database, tune)
    assert bench.work(tune)["state"] == "succeeded"
    assert [one["state"] for one in bench.trials(tune)] == ["completed", "cancelled"]


def test_the_end_of_the_time_is_told_to_a_tune_whose_trials_all_wait(bench: Bench, database: Database) -> None:
    tune = bench.ask(trials=None, minutes=5)
    bench.work(tune)
    bench.work(bench.open(tune)[0])
    bench.work(tune)
    with database.read(EVERY_WORKSPACE) as session:
        now = jobs.clock(session)
        assert trials.overdue(session, now) == []
        overdue = trials.overdue(session, now.replace(year=2100))
    engine = Engine(database.url)
    with database.write(EVERY_WORKSPACE) as session:
        assert overdue == [(tune, n := enqueued(database, tune))]
        assert trials.wake(session, engine, tune, n)
        assert not trials.wake(session, engine, tune, n)
        assert trials.overdue(session, now.replace(year=2100)) == [(tune, n + 1)]
        session.execute(update(JobRow).where(JobRow.id == tune).values(started_at=now.replace(year=2020)))
    engine.close()
    assert bench.work(tune)["state"] == "succeeded"
    assert [one["state"] for one in bench.trials(tune)] == ["completed", "cancelled"]


def test_what_a_deleted_tune_leaves_in_the_store_is_swept(bench: Bench, settings: Settings, database: Database) -> None:
    tune = bench.ask()
    bench.work(tune)
    bench.work(bench.open(tune)[0])
    [kept] = folders(settings)
    bench.client.post(f"/v1/jobs/{tune}/cancel")
    with database.write("default") as session:  # all of the deletion but its end, as a crash leaves it
        assert trials.remove(session, tune) == [kept]
    assert folders(settings) == [kept]
    sweep_store(settings, database, 4e9)
    assert folders(settings) == []


def test_a_space_without_any_config_is_refused(bench: Bench) -> None:
    config = {"horizon": 12}
    space = {"head": ["negative_binomial"], "scaling": ["log"]}
    answer = bench.client.post("/v1/jobs", json=TUNE | {"config": config, "space": space})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/space")
    assert bench.client.post(
        "/v1/jobs", json=TUNE | {"config": config, "space": space | {"scaling": ["log", "std"]}}
    ).is_success


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"trials": 0}, "/trials"),
        ({"trials": 1001}, "/trials"),
        ({"minutes": 0}, "/minutes"),
        ({"metric": "accuracy"}, "/metric"),
        ({"config": {"hidden": 3}}, "/config/hidden"),
        ({"warm_start_from": "load"}, "/warm_start_from"),
        ({"config": {"hidden": 8, "cell": "gru", "learning_rate": 0.01, **FIXED}}, "/space"),
    ],
)
def test_what_is_wrong_with_a_tune_is_pointed_at(
    refused: Callable[..., list[str]], changes: dict[str, Any], pointer: str
) -> None:
    assert refused(**changes) == [pointer]


def test_left_out_a_space_is_the_usual_one(bench: Bench) -> None:
    made = bench.client.post("/v1/jobs", json={**TUNE, "trials": None}).json()
    assert set(made["spec"]["space"]) == {"cell", "hidden", "learning_rate"}
    assert (made["spec"]["trials"], made["spec"]["minutes"], made["spec"]["metric"]) == (20, None, "mase")
