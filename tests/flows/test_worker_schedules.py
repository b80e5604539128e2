"""A schedule that several workers see, and whose time passed while none ran."""

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import update

from app.db.session import Database
from app.db.tables import ScheduleRow, utc_now


def test_a_run_missed_while_all_were_down_happens_once(
    jobs: Any, start_worker: Callable[[], Any], database: Database
) -> None:
    config = {"horizon": 12, "context": 48, "segment": 12, "hidden": 8, "layers": 1, "batch": 8, "steps": 3}
    job = {"kind": "train", "model": "load", "config": config | {"scaling": "std"}}
    body = {"name": "hourly", "cron": "0 0 1 1 *", "dataset": jobs.dataset, "job": job}
    made = jobs.client.post("/v1/schedules", json=body)
    assert made.status_code == 201, made.text
    with database.write("default") as session:
        session.execute(update(ScheduleRow).values(next_at=utc_now() - dt.timedelta(days=800)))
    workers = [start_worker(), start_worker()]
    deadline = time.monotonic() + 120
    while (job_id := jobs.client.get("/v1/schedules/hourly").json()["last_job"]) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ended = jobs.wait(job_id, "succeeded", "failed")
    assert ended["state"] == "succeeded", ended["error"]
    shown = jobs.client.get("/v1/schedules/hourly").json()
    assert (shown["last_job"], shown["next_at"], shown["last_error"]) == (ended["id"], made.json()["next_at"], None)
    assert [worker.stop() for worker in workers] == [0, 0]
    assert [one["id"] for one in jobs.client.get("/v1/jobs").json()["jobs"]] == [ended["id"]]
    assert jobs.versions() == [ended["id"]]
