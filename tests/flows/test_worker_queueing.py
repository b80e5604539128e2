"""Two workspaces and two workers: the limit holds, nobody's jobs keep the other's waiting, and all of them end."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import JobRow
from app.services import datasets, firing, jobs
from app.services.firing import Around
from app.services.jobs import Engine
from app.services.opened import OpenVersions
from app.services.training import TrainAsk
from models import TrainConfig

FIRST = int(np.datetime64("2026-01-01", "us").astype(np.int64))
TINY = {"horizon": 6, "context": 24, "segment": 6, "hidden": 4, "layers": 1, "batch": 8, "scaling": "std", "steps": 20}


@pytest.fixture
def around(settings: Settings) -> Iterator[Around]:
    engine = Engine(settings.url)
    yield Around(settings, engine, OpenVersions(settings.store, 1))
    engine.close()


def ask(database: Database, around: Around, workspace: str, count: int) -> list[str]:
    """The ids of so many small trainings that a workspace asks for."""
    with database.write(workspace) as session:
        if datasets.find(session, "hourly") is None:
            row = datasets.create(session, "hourly", ("h", "UTC"), {})
            points = [("s", FIRST + hour * 3_600_000_000, float(hour % 24)) for hour in range(200)]
            datasets.append_points(session, row, points)
    made: list[str] = []
    for _ in range(count):
        with database.write(workspace) as session:
            made.append(firing.submit(session, TrainAsk("hourly", "load", TrainConfig.parse(TINY)), around)[0].id)
    return made


def test_one_of_a_workspace_at_a_time_while_another_passes(
    database: Database, around: Around, start_worker: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATECAST_MAX_RUNNING", "1")
    many, one = ask(database, around, "a", 3), ask(database, around, "b", 1)
    start_worker()
    start_worker()
    together: dict[str, int] = {"a": 0, "b": 0}
    running = select(JobRow.workspace, func.count()).where(JobRow.state == "running").group_by(JobRow.workspace)
    done = select(JobRow.id).where(JobRow.state.in_(jobs.ENDED)).order_by(JobRow.finished_at)
    pause = threading.Event()
    for _ in range(6000):
        with database.read(EVERY_WORKSPACE) as session:
            for workspace, count in session.execute(running):
                together[workspace] = max(together[workspace], count)
            ended = list(session.scalars(done))
        if len(ended) == 4:
            break
        pause.wait(0.02)
    assert len(ended) == 4
    assert together == {"a": 1, "b": 1}
    assert [job for job in ended if job in many] == many
    assert ended.index(one[0]) < 3
    with database.read(EVERY_WORKSPACE) as session:
        rows = session.scalars(select(JobRow)).all()
        assert {(row.state, row.attempt, row.parked) for row in rows} == {("succeeded", 1, False)}
