"""A tune over two workers, one of which is killed with its child in the middle of a trial."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from app import store
from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import TrialRow

FIXED = {"horizon": 12, "context": 48, "segment": 12, "layers": 1, "batch": 8, "steps": 40, "scaling": "std"}
TRIALS = 6


@pytest.mark.timeout(900)  # seconds on a machine of one's own, minutes on a busy one
def test_a_tune_survives_a_worker(
    jobs: Any, start_worker: Callable[[], Any], settings: Settings, database: Database
) -> None:
    space = {"hidden": [4, 8, 16], "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}}
    body = {"kind": "tune", "dataset": jobs.dataset, "model": "load", "config": FIXED, "space": space, "trials": TRIALS}
    answer = jobs.client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    tune = answer.json()["id"]

    def table() -> list[dict[str, Any]]:
        return jobs.client.get(f"/v1/jobs/{tune}/trials").json()["trials"]

    workers = [start_worker(), start_worker()]
    by_name: dict[str, Any] = {}

    def at_a_trial() -> Any:
        """The worker that has a trial, once one does."""
        owners = [jobs.show(one["job"])["worker"] for one in table() if one["state"] == "running"]
        for worker in workers:
            by_name.update({name: worker for name in owners if name and f"-{worker.pid}-" in name})
        return next((by_name[name] for name in owners if name in by_name), None)

    deadline = time.monotonic() + 840
    while (victim := at_a_trial()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.process.wait()
    while (ended := jobs.show(tune))["state"] not in ("succeeded", "failed"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert ended["state"] == "succeeded", ended["error"]
    found = table()
    assert [one["number"] for one in found] == list(range(TRIALS))
    assert {one["state"] for one in found} <= {"completed", "pruned"}
    assert any(jobs.show(one["job"])["attempt"] == 2 for one in found)
    assert all(jobs.kinds(one["job"]).count("done") == 1 for one in found)
    completed = [one for one in found if one["state"] == "completed"]
    best = min(completed, key=lambda one: one["value"])
    assert (ended["result"]["best"]["job"], ended["result"]["best"]["value"]) == (best["job"], best["value"])
    version = jobs.client.get(ended["result"]["href"]).json()
    assert (version["job"], version["metrics"]["mase"]) == (tune, best["value"])
    [kept] = [path.name for path in settings.store.iterdir() if path.name.startswith(best["job"])]
    store.verify(store.local(settings.store, kept), version["digest"])
    with database.read(EVERY_WORKSPACE) as session:
        assert {row.folder for row in session.query(TrialRow)} == {None}
    assert jobs.versions() == [tune]
