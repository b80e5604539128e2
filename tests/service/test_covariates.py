"""Covariates from the upload to the answer: a version learns from them, and the next question's future moves it."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.services import attempts, backtests, forecast_runs, training, whole
from app.services.attempts import Attempt
from app.services.forecasts import Read, read_last

LENGTH, AHEAD = 120, 6
CONFIG = {
    "horizon": AHEAD, "context": 28, "segment": 7, "hidden": 16, "layers": 1, "batch": 32, "steps": 100,
    "scaling": "std", "learning_rate": 5e-3, "base": "mix", "aligned": 0.0, "members": 1, "calendar": False,
}  # fmt: skip
LEVELS = {"a": 40.0, "b": 80.0, "c": 20.0, "d": 60.0}


def sales(regions: dict[str, str]) -> tuple[str, dict[str, list[float]], dict[str, list[str]]]:
    """A CSV of daily sales that a promotion, known ahead, doubles, with a static region; sales and promotions."""
    random = np.random.default_rng(0)
    rows, values, promos = ["key,timestamp,value,promo,region"], {}, {}
    for key, level in LEVELS.items():
        promo = ["big" if flag else "plain" for flag in random.random(LENGTH + AHEAD) < 0.25]
        noise = random.normal(1, 0.02, LENGTH)
        values[key] = [round(level * (1 + (p == "big")) * n, 3) for p, n in zip(promo, noise, strict=False)]
        promos[key] = promo
        for step, flag in enumerate(promo):
            day = date(2025, 1, 6) + timedelta(days=step)
            value = values[key][step] if step < LENGTH else ""
            rows.append(f"{key},{day},{value},{flag},{regions[key]}")
    return "\n".join(rows), values, promos


@pytest.fixture
def work(client: TestClient, database: Database, settings: Settings) -> Callable[..., dict[str, Any]]:
    """Ask for a job over the API, do its work here, and give the job as it is shown then."""

    def run(do: Callable[[Attempt], None], **body: Any) -> dict[str, Any]:
        answer = client.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        job = answer.json()["id"]
        with database.write(EVERY_WORKSPACE) as session:
            number = attempts.begin(session, job, 1, "worker", "cpu")
            assert number is not None
            row = attempts.load(session, job, number)
            attempt = Attempt(database, settings, job, number, row.kind, row.workspace, row.spec, "cpu")
        do(attempt)
        return client.get(f"/v1/jobs/{job}").json()

    return run


def upload(client: TestClient, name: str, body: str) -> None:
    answer = client.post(f"/v1/datasets/{name}/revisions", content=body, headers={"Content-Type": "text/csv"})
    assert answer.status_code in (200, 201), answer.text


def ask(client: TestClient, **body: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Mean by key and message by code of a forecast."""
    answer = client.post("/v1/forecasts", json={"model": "sales", "horizon": AHEAD, **body})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    means = {one["key"]: np.array(one["mean"]) for one in found["forecasts"]}
    return means, {note["code"]: note["message"] for note in found["warnings"]}


def test_covariates_from_the_upload_to_the_answer(client: TestClient, work: Callable[..., dict[str, Any]]) -> None:
    body, values, promos = sales({"a": "south", "b": "north", "c": "south", "d": "north"})
    upload(client, "shop", body)
    job = work(training.run, kind="train", dataset="shop", model="sales", config=CONFIG)
    assert job["state"] == "succeeded", job
    version = client.get(job["result"]["href"]).json()
    assert version["config"]["covariates"] is True

    # Stored series: the future rows that were uploaded are used, and a request may know better.
    means, notes = ask(client, dataset="shop")
    assert notes == {}
    expected = {key: LEVELS[key] * np.array([1 + (flag == "big") for flag in promos[key][LENGTH:]]) for key in LEVELS}
    for key, own in expected.items():
        np.testing.assert_allclose(means[key] / own, 1, atol=0.45)
    asked = {"a": {"promo": ["big"] * AHEAD}, "b": {"promo": ["plain"] * AHEAD}, "c": {"promo": [None] * AHEAD}}
    other, notes = ask(client, dataset="shop", future_covariates=asked)
    assert notes == {}
    np.testing.assert_allclose(other["a"] / LEVELS["a"], 2, atol=0.5)
    np.testing.assert_allclose(other["b"] / LEVELS["b"], 1, atol=0.5)
    np.testing.assert_array_equal(other["c"], means["c"])  # nothing new is known
    np.testing.assert_array_equal(other["d"], means["d"])
    same_ask = {"kind": "forecast", "model": "sales", "dataset": "shop", "horizon": AHEAD, "format": "csv"}
    made = work(forecast_runs.run, **same_ask, future_covariates=asked)["result"]
    assert made["warnings"] == []
    rows = [line.split(",") for line in client.get(made["href"]).text.splitlines()[1:]]
    for key, own in other.items():
        np.testing.assert_allclose([float(row[2]) for row in rows if row[0] == key], own, rtol=1e-5)

    # History in the request is the same series.
    def sent(key: str, **more: Any) -> dict[str, Any]:
        own = {"key": key, "start": "2025-01-06", "target": values[key]}
        past, future = promos[key][:LENGTH], promos[key][LENGTH:]
        return own | {"past_covariates": {"promo": past}, "future_covariates": {"promo": future}} | more

    region = {"static_covariates": {"region": "south"}}
    same, notes = ask(client, inputs=[sent("a", **region)])
    assert notes == {}
    np.testing.assert_allclose(same["a"], means["a"], rtol=1e-6)
    strange, notes = ask(client, inputs=[sent("a", static_covariates={"region": "mars"})])
    assert set(notes) == {"unknown_category"}
    assert "'mars'" in notes["unknown_category"]
    assert np.isfinite(strange["a"]).all()
    _, notes = ask(client, inputs=[sent("a", **region, future_covariates={})])
    assert set(notes) == {"missing_covariates"}
    assert "'promo'" in notes["missing_covariates"]
    _, notes = ask(client, dataset="shop", horizon=AHEAD + 1)
    assert set(notes) == {"missing_covariates", "horizon_beyond_trained"}

    # Another dataset has codes of its own: texts count.
    upload(client, "other", body.replace(",plain,", ",a fair,").replace(",big,", ",plain,").replace("a fair", "big"))
    swapped, notes = ask(client, dataset="other", series=["a"])
    assert notes == {}
    assert np.abs(swapped["a"] - means["a"]).max() > 10

    # A backtest knows what was known ahead at each origin.
    mase = version["metrics"]["mase"]
    assert mase < 0.5 * min(one["mase"] for one in version["baselines"].values())
    scored = work(backtests.run, kind="backtest", dataset="shop", model="sales", origins=1, horizon=AHEAD)
    assert scored["metrics"]["mase"] == pytest.approx(mase, rel=1e-6)


@pytest.mark.parametrize("named", [None, ["d", "a", "c", "b"]])
def test_many_series_are_read_in_parts_with_their_covariates(
    client: TestClient,
    work: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    named: list[str] | None,
) -> None:
    """And each part's categories are those of the version, whichever of them are in it."""
    body, _, _ = sales({"a": "south", "b": "north", "c": "south", "d": "north"})
    upload(client, "shop", body)
    job = work(training.run, kind="train", dataset="shop", model="sales", config=CONFIG | {"steps": 10})
    assert job["state"] == "succeeded", job
    upload(client, "other", body.replace(",plain,", ",a fair,").replace(",big,", ",plain,").replace("a fair", "big"))
    sizes: list[int] = []

    def read(*asked: Any) -> Read:
        found = read_last(*asked)
        sizes.append(len(found.series))
        return found

    together = [ask(client, dataset=dataset, series=named) for dataset in ("shop", "other")]
    monkeypatch.setattr(whole, "read_last", read)
    monkeypatch.setattr(whole, "MANY", 3)
    apart = [ask(client, dataset=dataset, series=named) for dataset in ("shop", "other")]
    assert sizes == [3, 1] * 2
    for (means, notes), (expected, said) in zip(apart, together, strict=True):
        assert notes == said == {}
        assert list(means) == list(expected)
        for key, mean in expected.items():
            np.testing.assert_allclose(means[key], mean, rtol=1e-6)
