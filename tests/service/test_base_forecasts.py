"""Forecasts and backtests by the model that comes with the program: any frequency, any history, no training."""

import math
import shutil
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.main import create_app
from app.services import attempts, backtests
from app.services.attempts import Attempt

from .conftest import wave

pytestmark = pytest.mark.usefixtures("base")

URL = "/v1/forecasts"
FREQUENCIES = ["s", "15min", "h", "D", "2D", "B", "W-FRI", "MS", "ME", "QS", "YS", "PT30M", "P1M", "step"]
SAWTOOTH = [100.0 + 10 * (step % 12) for step in range(72)]


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post(URL, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def sent(target: list[Any], **more: Any) -> list[dict[str, Any]]:
    return [{"key": "a", "target": target, **more}]


def codes(answer: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in answer["warnings"]]


def values(answer: dict[str, Any]) -> list[list[float | None]]:
    (row,) = answer["forecasts"]
    return [row["mean"], *row["quantiles"].values()]


# ---------------------------------------------------------------- history in the request


def test_no_model_needs_to_be_named(client: TestClient) -> None:
    answer = ask(client, inputs=sent(SAWTOOTH, start="2020-01-01"), frequency="MS", horizon=12)
    assert answer["model"] == {"name": "base", "version": 1, "alias": "champion"}
    assert (answer["dataset"], answer["revision"], answer["frequency"]) == (None, None, "MS")
    (row,) = answer["forecasts"]
    assert (row["origin"], row["start"]) == ("2025-12-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00")
    assert len(row["mean"]) == 12
    assert (
        row
        == ask(client, model="base", inputs=sent(SAWTOOTH, start="2020-01-01"), frequency="MS", horizon=12)[
            "forecasts"
        ][0]
    )


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_any_frequency(client: TestClient, frequency: str) -> None:
    start = {"step": 5, "W-FRI": "2021-01-01", "ME": "2021-01-31"}.get(frequency, "2021-01-01")
    answer = ask(client, inputs=sent(SAWTOOTH, start=start), frequency=frequency, horizon=30)
    (row,) = answer["forecasts"]
    assert len(row["timestamps"]) == len(set(row["timestamps"])) == 30
    assert all(value is not None and math.isfinite(value) for line in values(answer) for value in line)
    assert set(codes(answer)) <= {"short_history", "horizon_beyond_trained"}


def test_without_a_frequency_values_are_steps(client: TestClient) -> None:
    answer = ask(client, inputs=sent(SAWTOOTH), horizon=2)
    assert answer["frequency"] == "step"
    assert answer["forecasts"][0]["timestamps"] is None
    assert "no_frequency" in codes(answer)
    numbered = ask(client, inputs=sent(SAWTOOTH, start=100), horizon=2)
    assert numbered["forecasts"][0]["timestamps"] == [172, 173]
    assert numbered["forecasts"][0]["mean"] == answer["forecasts"][0]["mean"]
    assert "no_frequency" not in codes(ask(client, inputs=sent(SAWTOOTH), frequency="step"))


def test_a_start_wants_a_frequency(client: TestClient) -> None:
    answer = client.post(URL, json={"inputs": sent(SAWTOOTH, start="2020-01-01")})
    assert answer.status_code == 422
    (complaint,) = answer.json()["errors"]
    assert complaint["pointer"] == "/frequency"
    assert "W-FRI" in complaint["message"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"inputs": sent([1.0]), "frequency": "fortnight"}, "/frequency"),
        ({"inputs": sent([1.0], start="2020-01-01"), "frequency": "D", "time_zone": "Mars"}, "/time_zone"),
        ({"inputs": sent([1.0], start="soon"), "frequency": "D"}, "/inputs/0/start"),
        ({"inputs": sent([1.0], start="2020-01-04"), "frequency": "B"}, "/inputs/0/start"),
        ({"inputs": sent([1.0]), "horizon": 10_001}, "/horizon"),
    ],
)
def test_what_cannot_be_understood_is_refused(client: TestClient, body: dict[str, Any], pointer: str) -> None:
    answer = client.post(URL, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_an_unknown_model_is_told_of_it(client: TestClient) -> None:
    answer = client.post(URL, json={"model": "nope", "inputs": sent([1.0])})
    assert answer.status_code == 404
    assert "'base' forecasts untrained" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("target", "low"),
    [
        ([5.0], 0.0),
        ([5.0] * 40, 0.0),
        ([0.0] * 40, 0.0),
        ([0.0, 0.0, 3.0, 0.0, 1.0] * 10, 0.0),
        ([None, None, 4.0, None, 6.0, 5.0, None, 7.0], 0.0),
        ([-5.0 + step % 3 for step in range(40)], -math.inf),
        ([1e-9 * (1 + step % 3) for step in range(40)], 0.0),
        ([1e12 + step for step in range(40)], 0.0),
    ],
)
def test_any_history(client: TestClient, target: list[float | None], low: float) -> None:
    """One point, constants, zeros, counts, gaps, negative, tiny and huge values; not below 0 where the history is
    not."""
    answer = ask(client, inputs=sent(target), frequency="D", horizon=20, quantiles=[0.01, 0.5, 0.99], samples=3)
    for line in (*values(answer), *answer["forecasts"][0]["samples"]):
        assert all(value is not None and value >= low for value in line), line
    lowest, middle, highest = (np.array(line, np.float64) for line in values(answer)[1:])
    assert (lowest <= middle).all()
    assert (middle <= highest).all()


@pytest.mark.parametrize("target", [[], [None, None]])
def test_no_history_is_answered_with_nulls(client: TestClient, target: list[None]) -> None:
    answer = ask(client, inputs=[{"key": "b", "target": [1.0, 2.0]}, *sent(list(target))], frequency="D", horizon=2)
    assert answer["forecasts"][1]["mean"] == [None, None]
    assert None not in answer["forecasts"][0]["mean"]
    (warning,) = [one for one in answer["warnings"] if one["code"] == "no_history"]
    assert warning["series"] == ["a"]


def test_of_a_long_history_the_newest_steps_count(client: TestClient) -> None:
    """A million points answer as their end does."""
    steps = np.arange(1_000_000)
    target: list[float] = np.round(100 + 10 * np.sin(2 * np.pi * steps / 7), 3).tolist()
    long = ask(client, inputs=sent(target), frequency="D", horizon=3)
    end = ask(client, inputs=sent(target[-100_000:]), frequency="D", horizon=3)
    assert long["forecasts"][0]["mean"] == pytest.approx(end["forecasts"][0]["mean"], rel=1e-6)


def test_any_horizon_and_any_levels(client: TestClient) -> None:
    levels = [0.005, 0.1, 0.333, 0.5, 0.975]
    answer = ask(client, inputs=sent(SAWTOOTH), frequency="MS", horizon=700, quantiles=levels)
    assert [len(line) for line in values(answer)] == [700] * 6
    assert "horizon_beyond_trained" in codes(answer)
    found = np.array(values(answer)[1:], np.float64)
    assert (np.diff(found, axis=0) >= 0).all()


def test_many_are_answered_as_each_alone(client: TestClient) -> None:
    inputs = [
        {"key": f"s{place}", "target": [float(place % 50 + step % 12) for step in range(30)]} for place in range(600)
    ]
    empty = [{"key": "none", "target": []}]
    answer = ask(client, inputs=inputs + empty, frequency="MS", horizon=100, samples=1)
    rows = answer["forecasts"]
    assert [row["key"] for row in rows] == [one["key"] for one in inputs + empty]
    told = {one["code"]: (one.get("series"), one.get("series_count")) for one in answer["warnings"]}
    assert told == {"horizon_beyond_trained": (None, None), "no_history": (["none"], 1)}
    for place in (0, 299, 511, 512, 599):
        (alone,) = ask(client, inputs=[inputs[place]], frequency="MS", horizon=100, samples=1)["forecasts"]
        assert alone["mean"] == pytest.approx(rows[place]["mean"], rel=1e-4, abs=1e-4)
        assert alone["samples"][0] == pytest.approx(rows[place]["samples"][0], rel=1e-4, abs=1e-4)


def test_covariates_are_ignored_with_a_warning(client: TestClient) -> None:
    plain = ask(client, inputs=sent(SAWTOOTH), frequency="MS", horizon=3)
    beside = {
        "past_covariates": {"price": [1.0]},
        "future_covariates": {"promo": ["yes"]},
        "static_covariates": {"shop": "north"},
    }
    answer = ask(client, inputs=sent(SAWTOOTH, **beside), frequency="MS", horizon=3)
    assert answer["forecasts"] == plain["forecasts"]
    (warning,) = [one for one in answer["warnings"] if one["code"] == "covariates_ignored"]
    assert "'price', 'promo', 'shop'" in warning["message"]


def test_every_format(client: TestClient) -> None:
    body = {"inputs": sent(SAWTOOTH, start="2020-01-01"), "frequency": "MS", "horizon": 2}
    answer = client.post(URL, json=body, headers={"Accept": "text/csv"})
    assert answer.headers["gatecast-model"] == "base/1"
    assert answer.text.splitlines()[0] == "key,timestamp,mean,q0.1,q0.5,q0.9"
    assert len(answer.text.splitlines()) == 3


# ---------------------------------------------------------------- stored series


@pytest.fixture
def shop(client: TestClient) -> None:
    """Daily sales of two shops from 5 January 2026 on, with a price."""
    days = np.arange(60) + np.datetime64("2026-01-05")
    series = {"a": wave(60), "b": wave(40, 300.0)}
    rows = [
        f"{key},{day},{value},{place % 5}"
        for key, values in series.items()
        for place, (day, value) in enumerate(zip(days, values, strict=False))
    ]
    answer = client.post(
        "/v1/datasets/shop/revisions",
        content="\n".join(["key,timestamp,value,price", *rows]),
        headers={"Content-Type": "text/csv"},
        params={"future_columns": "price"},
    )
    assert answer.status_code == 201, answer.text


@pytest.mark.usefixtures("shop")
def test_stored_series_of_any_dataset(client: TestClient) -> None:
    answer = ask(client, dataset="shop", horizon=3)
    assert (answer["dataset"], answer["revision"], answer["frequency"]) == ("shop", 1, "D")
    assert [row["key"] for row in answer["forecasts"]] == ["a", "b"]
    assert "covariates_ignored" in codes(answer)
    same = ask(client, inputs=sent(wave(60), start="2026-01-05"), frequency="D", horizon=3)
    assert same["forecasts"][0]["mean"] == pytest.approx(answer["forecasts"][0]["mean"], rel=1e-6)
    assert same["forecasts"][0]["timestamps"] == answer["forecasts"][0]["timestamps"]
    more = ask(client, dataset="shop", horizon=3, future_covariates={"a": {"rain": [1]}})
    assert "'price', 'rain'" in next(one["message"] for one in more["warnings"] if one["code"] == "covariates_ignored")
    assert more["forecasts"] == answer["forecasts"]


@pytest.mark.usefixtures("shop")
def test_the_next_step_as_points_arrive(client: TestClient) -> None:
    point = {"key": "a", "timestamp": "2026-03-06", "value": 104.5}
    answer = client.post("/v1/models/base/next", json={"dataset": "shop", "points": [point], "horizon": 2})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["model"]["name"], found["revision"]) == ("base", 2)
    assert found["forecasts"][0]["timestamps"] == ["2026-03-07T00:00:00+00:00", "2026-03-08T00:00:00+00:00"]
    assert "covariates_ignored" in codes(found)
    (again,) = ask(client, dataset="shop", series=["a"], horizon=2)["forecasts"]
    assert again["mean"] == pytest.approx(found["forecasts"][0]["mean"], rel=1e-9)


@pytest.mark.usefixtures("shop")
def test_the_same_question_is_answered_once(client: TestClient) -> None:
    body = {"dataset": "shop", "horizon": 3}
    first = client.post(URL, json=body)
    assert client.post(URL, json=body, headers={"If-None-Match": first.headers["etag"]}).status_code == 304


def test_a_started_server_has_it_open(app: FastAPI, client: TestClient) -> None:
    """Before its first request, and without torch (see the rules)."""
    assert len(app.state.versions) == 1


def test_a_server_whose_store_lost_it_starts_all_the_same(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    (folder,) = settings.store.iterdir()
    shutil.rmtree(folder)
    with TestClient(create_app(settings)) as opened:
        assert opened.get("/readyz").status_code == 200
        answer = opened.post(URL, json={"inputs": sent([1.0]), "frequency": "D"})
        assert (answer.status_code, answer.json()["type"]) == (503, "/docs/errors#artifact-damaged")
    assert "no forecasts without a model of one's own" in caplog.text


def test_a_server_with_a_key_has_it_open_too(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"api_key": SecretStr("correct-horse-battery")}))
    with TestClient(app):
        assert len(app.state.versions) == 1


# ---------------------------------------------------------------- backtests


def backtested(client: TestClient, database: Database, settings: Settings, **ask: Any) -> dict[str, Any]:
    """Ask for a backtest over the API, do it here, and give the job."""
    answer = client.post("/v1/jobs", json={"kind": "backtest", "model": "base", **ask})
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    with database.write(EVERY_WORKSPACE) as session:
        number = attempts.begin(session, job, 1, "worker", "cpu")
        assert number is not None
        row = attempts.load(session, job, number)
        attempt = Attempt(database, settings, job, number, row.kind, row.workspace, row.spec, "cpu")
    backtests.run(attempt)
    return client.get(f"/v1/jobs/{job}").json()


def test_a_backtest_beside_the_naive_forecasts(
    client: TestClient, database: Database, settings: Settings, hourly: str
) -> None:
    job = backtested(client, database, settings, dataset=hourly, origins=2, horizon=6)
    found = client.get(job["result"]["href"]).json()
    assert (found["model"], found["version"], found["horizon"]) == ("base", 1, 6)
    mase = {score["baseline"]: score["value"] for score in found["scores"] if score["metric"] == "mase"}
    assert set(mase) == {None, "naive", "seasonal_naive", "naive2"}
    # Each hour of the day is what it was the day before, but for a little: whoever knows the season is far ahead.
    assert mase["seasonal_naive"] < mase["naive"] / 3
    assert mase[None] < mase["naive"] / 3


@pytest.mark.usefixtures("shop")
def test_a_backtest_without_a_horizon_takes_the_trained_one(
    client: TestClient, database: Database, settings: Settings
) -> None:
    job = backtested(client, database, settings, dataset="shop")
    assert job["spec"]["horizon"] >= 7
    assert any("'price'" in note for note in job["result"]["notes"])
