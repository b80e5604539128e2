"""A tune whose trials run on machines that share nothing but the database and an object store."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app import store
from app.config import Bucket, Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import JobRow
from app.main import create_app
from app.services import attempts
from app.worker.child import obey

CONFIG = {"horizon": 12, "context": 48, "segment": 12, "layers": 1, "batch": 8, "steps": 3, "scaling": "std"}
TUNE = {
    "kind": "tune",
    "dataset": "hourly",
    "model": "load",
    "config": CONFIG,
    "trials": 3,
    "space": {"hidden": [4, 8]},
}


@pytest.mark.usefixtures("hourly")
def test_trials_of_several_machines_leave_one_version_in_the_bucket(
    settings: Settings, database: Database, object_store: Any, tmp_path: Path
) -> None:
    shared = {
        "store_url": object_store.url,
        "database_url": settings.database_url or f"sqlite:///{settings.data}/gatecast.db",
    }
    machines = [Settings(data=tmp_path / name, **shared) for name in ("one", "two", "three")]

    def work(job: str, machine: Settings) -> None:
        with database.write(EVERY_WORKSPACE) as session:
            row = session.get_one(JobRow, job)
            number = attempts.begin(session, job, row.enqueued, "worker", "cpu")
        assert obey(machine, {"job": job, "attempt": number, "device": "cpu"}) == 0

    with TestClient(create_app(machines[0])) as client:
        tune = client.post("/v1/jobs", json=TUNE).json()["id"]
        for machine in machines:
            work(tune, machines[2])
            [trial] = [
                one["job"]
                for one in client.get(f"/v1/jobs/{tune}/trials").json()["trials"]
                if one["state"] == "pending"
            ]
            work(trial, machine)
        work(tune, machines[1])
        shown = client.get(f"/v1/jobs/{tune}").json()
        assert (shown["state"], shown["result"]["trials"]["completed"]) == ("succeeded", 3), shown["error"]
        version = client.get(shown["result"]["href"]).json()
        folder = f"{shown['result']['best']['job']}-1"
        assert object_store.listed() == sorted(f"{folder}/{file}" for file in store.FILES)
        place = machines[2].store
        assert isinstance(place, Bucket)
        store.verify(store.verified(place, folder, version["digest"]), version["digest"])
        asked = {"model": "load", "dataset": "hourly", "series": ["s0"], "horizon": 12}
        assert len(client.post("/v1/forecasts", json=asked).json()["forecasts"][0]["mean"]) == 12
