"""What a child makes of its order, run in this process: whatever happens, the job's row says so, in words."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import select, text

from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import JobRow
from app.services import attempts, jobs
from app.services.jobs import Engine, NewJob
from app.worker.child import obey
from app.worker.reporter import Reporter
from app.worker.slots import environment, is_gone, new_name, slots_of
from models import Progress

SPEC = {"dataset": "hourly", "revision": 1, "digest": "sha256:0", "model": "load", "promote": "if_better"} | {
    "config": {"horizon": 12, "context": 48, "segment": 12, "hidden": 8, "layers": 1, "batch": 8, "steps": 2}
}


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def order(database: Database) -> Any:
    """Begin a job with this spec and give the order a parent would."""

    def begin(spec: dict[str, Any]) -> dict[str, Any]:
        engine = Engine(database.url)
        with database.write("default") as session:
            job = jobs.submit(session, engine, NewJob("train", spec), 10)[0].id
        engine.close()
        with database.write(EVERY_WORKSPACE) as session:
            number = attempts.begin(session, job, 1, "worker", "cpu")
        return {"job": job, "attempt": number, "device": "cpu"}

    return begin


def row(database: Database) -> JobRow:
    with database.read("default") as session:
        return session.scalars(select(JobRow)).one()


@pytest.mark.usefixtures("hourly")
def test_an_order_is_carried_out(settings: Settings, database: Database, order: Any) -> None:
    assert obey(settings, order(SPEC | {"dataset_id": 1})) == 0
    assert row(database).state == "succeeded"


@pytest.mark.usefixtures("hourly")
def test_unfit_data_are_the_clients_affair(settings: Settings, database: Database, order: Any) -> None:
    with database.write("default") as session:
        session.execute(text("delete from segments"))
    assert obey(settings, order(SPEC | {"dataset_id": 1})) == 0
    error = row(database).error
    assert error is not None
    assert (row(database).state, error["status"], error["type"]) == ("failed", 422, "/docs/errors#unfit-data")


def test_a_dataset_that_is_gone_is_named(settings: Settings, database: Database, order: Any) -> None:
    assert obey(settings, order(SPEC | {"dataset_id": 1})) == 0
    error = row(database).error
    assert error is not None
    assert (error["status"], "hourly" in error["detail"]) == (404, True)


def test_what_nobody_foresaw_is_told_by_its_kind_alone(
    settings: Settings, database: Database, order: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A spec no release ever wrote: the row names the exception's type, the log holds the rest."""
    assert obey(settings, order({"secret": "hunter2"})) == 0
    error = row(database).error
    assert error is not None
    assert (error["status"], error["type"]) == (500, "/docs/errors#job-crashed")
    assert "KeyError" in error["detail"]
    assert "hunter2" not in str(error)
    assert "Traceback" in caplog.text


def test_an_order_that_came_too_late_changes_nothing(settings: Settings, database: Database, order: Any) -> None:
    given = order(SPEC)
    with database.write("default") as session:
        jobs.cancel(session, given["job"])
    assert obey(settings, given) == 0
    assert row(database).state == "cancelled"


def test_a_reporter_writes_the_latest_and_sees_the_fence(database: Database, order: Any) -> None:
    given = order(SPEC)
    with Reporter(database, given["job"], given["attempt"]) as reporter:
        reporter.on_progress(Progress(4, 10, "learning", {"loss": 0.5, "undefined": math.nan}, checkpoint=3))
        until(lambda: row(database).progress)
        assert row(database).metrics == {"loss": 0.5}
        assert (row(database).checkpoint_step, row(database).tries) == (3, 0)
        reporter.on_progress(Progress(8, 10, "learning", checkpoint=3, unit="windows", each=16))
        until(lambda: (row(database).progress or {})["rate"])
        told = row(database).progress or {}
        assert (told["unit"], told["rate"]) == ("windows", pytest.approx(16 * told["steps_per_s"], abs=0.01))
        reporter.on_progress(Progress(0, 0, "comparing"))  # news without a step of its own
        until(lambda: (row(database).progress or {})["message"] == "comparing")
        assert (row(database).progress or {})["step"] == 8
        assert not reporter.should_stop()
        with database.write("default") as session:
            jobs.cancel(session, given["job"])
        reporter.on_progress(Progress(5, 10, "learning"))
        until(reporter.should_stop)
    assert (row(database).progress or {})["step"] == 8


def test_a_reporter_ends_whether_it_has_told_its_news_or_not(database: Database, order: Any) -> None:
    given = order(SPEC)
    for step in range(1, 11):
        with Reporter(database, given["job"], given["attempt"]) as reporter:
            reporter.on_progress(Progress(step, 10, "learning"))
            if step % 5 == 0:
                until(lambda step=step: (row(database).progress or {}).get("step") == step)


def until(found: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---------------------------------------------------------------- names, slots, environments


def test_names_tell_the_living_from_the_gone() -> None:
    me = new_name()
    assert not is_gone(me)
    place, pid, started, random = me.rsplit("-", 3)
    assert is_gone(f"{place}-{pid}-1-{random}")  # the same pid, another process
    assert is_gone(f"{place}-4194999-{started}-{random}")
    assert not is_gone(f"elsewhere.f0-4194999-{started}-{random}")
    assert new_name() != me


@pytest.mark.parametrize(
    ("wanted", "each", "names"),
    [
        ("auto", 1, ["cuda:0#0", "cuda:1#0"]),
        ("auto", 2, ["cuda:0#0", "cuda:1#0", "cuda:0#1", "cuda:1#1"]),
        ("cpu", 2, ["cpu#0", "cpu#1"]),
    ],
)
def test_each_device_of_the_wanted_kind_has_slots(wanted: str, each: int, names: list[str]) -> None:
    devices = [{"name": name, "kind": name.partition(":")[0]} for name in ("cuda:0", "cuda:1", "cpu")]
    assert [slot.name for slot in slots_of(devices, wanted, each)] == names


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="cuda"):
        slots_of([{"name": "cpu", "kind": "cpu"}], "cuda", 1)


def test_a_child_gets_the_settings_in_force(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    asked = Settings(data=settings.data, slots=3, cors_origins=("https://a.example",), log_format="json")
    made = environment(asked, threads=4)
    assert made["OMP_NUM_THREADS"] == "4"
    for name, value in made.items():
        if name.startswith("GATECAST_"):
            monkeypatch.setenv(name, value)
    assert Settings() == asked.model_copy(update={"data": settings.data.absolute()})
