"""Backtest jobs, run in this process, and `/v1/backtests`."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.errors import Conflict
from app.services import attempts, backtests, training
from app.services.attempts import Attempt

TINY = {"horizon": 12, "context": 48, "segment": 12, "hidden": 8, "layers": 1, "batch": 8, "steps": 4, "scaling": "std"}
ASK = {"kind": "backtest", "dataset": "hourly", "model": "load", "origins": 3, "horizon": 6, "step": 24}

Work = Callable[[Attempt], None]


@pytest.fixture
def do(client: TestClient, database: Database, settings: Settings) -> Callable[..., dict[str, Any]]:
    """Ask for a job over the API, do its work here, and give the job as it is shown then."""

    def run(body: dict[str, Any], work: Work) -> dict[str, Any]:
        answer = client.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        job = answer.json()["id"]
        with database.write(EVERY_WORKSPACE) as session:
            number = attempts.begin(session, job, 1, "worker", "cpu")
            assert number is not None
            row = attempts.load(session, job, number)
            attempt = Attempt(database, settings, job, number, row.kind, row.workspace, row.spec, "cpu")
        work(attempt)
        return client.get(f"/v1/jobs/{job}").json()

    return run


@pytest.fixture
def trained(hourly: str, do: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return do({"kind": "train", "dataset": hourly, "model": "load", "config": TINY}, training.run)


@pytest.mark.usefixtures("trained")
def test_a_backtest_is_scored_beside_its_baselines(client: TestClient, do: Callable[..., dict[str, Any]]) -> None:
    job = do(ASK, backtests.run)
    assert job["state"] == "succeeded"
    assert job["result"] == {"href": f"/v1/backtests/{job['id']}"}
    found = client.get(job["result"]["href"]).json()
    assert (found["dataset"], found["revision"], found["model"], found["version"]) == ("hourly", 1, "load", 1)
    assert (found["horizon"], found["step"]) == (6, 24)
    mase = {score["baseline"]: score["value"] for score in found["scores"] if score["metric"] == "mase"}
    assert set(mase) == {None, "naive", "seasonal_naive", "naive2"}
    owa = {score["baseline"]: score["value"] for score in found["scores"] if score["metric"] == "owa"}
    assert owa["naive2"] == 1.0
    assert job["metrics"]["owa"] == owa[None]
    assert job["metrics"]["mase"] == mase[None]
    assert {row["horizon"] for row in found["by_horizon"]} == set(range(1, 7))
    # The last of 300 hours from 1 January is the 13th, 11:00; 6 hours are held out, and origins are a day apart.
    first, last = "2026-01-11T05:00:00+00:00", "2026-01-13T05:00:00+00:00"
    assert found["origins"] == [{"first": first, "last": last, "series": 4}]


@pytest.mark.usefixtures("trained")
def test_scores_by_series_come_in_pages(client: TestClient, do: Callable[..., dict[str, Any]]) -> None:
    href = client.get(do(ASK, backtests.run)["result"]["href"]).json()["by_series"]["href"]
    seen, token = [], None
    while True:
        query = {"page_size": 3} | ({"page_token": token} if token else {})
        page = client.get(href, params=query).json()
        seen += page["series"]
        token = page["next_page_token"]
        if token is None:
            break
    assert [entry["key"] for entry in seen] == ["s0", "s1", "s2", "s3"]
    assert {score["baseline"] for score in seen[0]["scores"]} == {None, "naive", "seasonal_naive", "naive2"}
    assert seen[0]["last"] == "2026-01-13T05:00:00+00:00"
    assert client.get(href, params={"page_token": "WyJhIl0"}).status_code == 422


@pytest.mark.usefixtures("trained")
def test_the_list_is_newest_first(client: TestClient, do: Callable[..., dict[str, Any]]) -> None:
    made = [do(ASK | {"origins": origins}, backtests.run)["id"] for origins in (1, 2, 3)]
    first = client.get("/v1/backtests", params={"page_size": 2}).json()
    second = client.get("/v1/backtests", params={"page_size": 2, "page_token": first["next_page_token"]}).json()
    assert [row["id"] for row in first["backtests"] + second["backtests"]] == made[::-1]
    assert second["next_page_token"] is None
    assert "by_horizon" not in first["backtests"][0]


@pytest.mark.usefixtures("trained")
def test_what_is_left_out_comes_from_the_version(client: TestClient) -> None:
    spec = client.post("/v1/jobs", json={"kind": "backtest", "dataset": "hourly", "model": "load@champion"}).json()[
        "spec"
    ]
    assert (spec["version"], spec["horizon"], spec["step"], spec["origins"]) == (1, 12, 12, 1)
    assert spec["baselines"] == ["naive", "seasonal_naive", "naive2"]


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"model": "load/9"}, 404),
        ({"model": "nobody"}, 404),
        ({"dataset": "nothing"}, 404),
        ({"model": "load//1"}, 422),
        ({"origins": 0}, 422),
        ({"horizon": 0}, 422),
        ({"baselines": ["oracle"]}, 422),
        ({"config": {}}, 422),
    ],
)
def test_what_cannot_be_scored_is_refused(client: TestClient, changes: dict[str, Any], status: int) -> None:
    assert client.post("/v1/jobs", json=ASK | changes).status_code == status


@pytest.mark.usefixtures("trained")
def test_a_statistical_baseline_is_scored_or_says_what_to_install(
    client: TestClient, do: Callable[..., dict[str, Any]]
) -> None:
    ask = ASK | {"origins": 1, "baselines": ["naive", "auto_theta"]}
    if find_spec("statsforecast") is None:
        with pytest.raises(Conflict, match=r"auto_theta.*pip install 'gatecast\[statistics\]'") as refused:
            do(ask, backtests.run)
        assert refused.value.code == "extra-missing"
        return
    found = client.get(do(ask, backtests.run)["result"]["href"]).json()
    assert {score["baseline"] for score in found["scores"]} == {None, "naive", "auto_theta"}


@pytest.mark.usefixtures("trained")
def test_no_scores_before_the_job_is_done(client: TestClient) -> None:
    job = client.post("/v1/jobs", json=ASK).json()["id"]
    answer = client.get(f"/v1/backtests/{job}")
    assert (answer.status_code, answer.json()["type"]) == (404, "/docs/errors#backtest-not-done")
    assert "pending" in answer.json()["detail"]
    assert client.get("/v1/backtests/job_x").status_code == 404
    assert client.get("/v1/backtests").json() == {"backtests": [], "next_page_token": None}
