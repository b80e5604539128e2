"""POST /v1/models/{model}/next: points in, the next step out, in one transaction."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.config import Settings

URL = "/v1/models/fuel/next"
HISTORY = [float(100 + step % 7) for step in range(30)]  # 2026-01-05 to 2026-02-03
DAY = "2026-02-04"  # the one after


@pytest.fixture(autouse=True)
def in_place(publish: Callable[..., int], stored: Callable[..., int]) -> None:
    publish("fuel")
    stored("gasoline", {"a": HISTORY, "b": HISTORY, "c": HISTORY}, time_zone="Europe/Berlin")


def body(*points: tuple[str, Any, Any], **more: Any) -> dict[str, Any]:
    rows = [{"key": key, "timestamp": time, "value": value} for key, time, value in points]
    return {"dataset": "gasoline", "points": rows, **more}


def forecast(client: TestClient, **ask: Any) -> dict[str, Any]:
    answer = client.post("/v1/forecasts", json={"model": "fuel", "dataset": "gasoline", **ask})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_answer_is_the_forecast_after_the_points(client: TestClient) -> None:
    sent = body(("b", DAY, 104.5), ("a", "2026-02-03T23:00:00Z", 99.0), horizon=3, quantiles=[0.1, 0.9])
    answer = client.post(URL, json=sent)
    assert answer.status_code == 200
    found = answer.json()
    assert found["model"] == {"name": "fuel", "version": 1, "alias": "champion"}
    assert (found["dataset"], found["revision"], found["frequency"]) == ("gasoline", 2, "D")
    assert [row["key"] for row in found["forecasts"]] == ["b", "a"]  # only those named, as first named
    assert {row["origin"] for row in found["forecasts"]} == {"2026-02-04T00:00:00+01:00"}
    asked = forecast(client, series=["b", "a"], horizon=3, quantiles=[0.1, 0.9])
    assert asked["revision"] == 2
    assert asked["forecasts"] == found["forecasts"]
    (still,) = forecast(client, series=["c"])["forecasts"]
    assert still["origin"] == "2026-02-03T00:00:00+01:00"


def test_point_after_point(client: TestClient) -> None:
    for step in range(3):
        found = client.post(URL, json=body(("a", f"2026-02-{4 + step:02}", 100.0 + step))).json()
        assert found["revision"] == 2 + step
        assert found["forecasts"][0]["start"] == f"2026-02-{5 + step:02}T00:00:00+01:00"


def test_several_points_of_one_series_are_one_revision(client: TestClient) -> None:
    found = client.post(URL, json=body(("a", "2026-02-05", 2.0), ("a", DAY, 1.0))).json()
    assert found["revision"] == 2
    assert [row["origin"] for row in found["forecasts"]] == ["2026-02-05T00:00:00+01:00"]


def test_a_point_that_is_there_already(client: TestClient) -> None:
    same = client.post(URL, json=body(("a", "2026-02-03", HISTORY[-1])))
    assert (same.status_code, same.json()["revision"]) == (200, 1)
    other = client.post(URL, json=body(("b", DAY, 1.0), ("a", "2026-02-03", HISTORY[-1] + 1)))
    assert other.status_code == 409
    assert forecast(client, series=["b"])["revision"] == 1  # the good point of the refused request is not kept


def test_a_gap_and_a_missing_value(client: TestClient) -> None:
    found = client.post(URL, json=body(("a", "2026-02-08", 5.0))).json()
    assert [warning["code"] for warning in found["warnings"]] == ["missing_history"]
    found = client.post(URL, json=body(("b", DAY, None))).json()
    assert found["forecasts"][0]["origin"] == "2026-02-03T00:00:00+01:00"  # a missing value moves no origin
    assert client.post(URL, json=body(("b", DAY, "NaN"))).json()["revision"] == found["revision"]


def test_a_new_key_is_a_new_series(client: TestClient) -> None:
    found = client.post(URL, json=body(("new/1", DAY, 7.0))).json()
    assert [warning["code"] for warning in found["warnings"]] == ["short_history"]
    assert "new/1" in [row["key"] for row in forecast(client)["forecasts"]]


def test_what_is_refused_appends_nothing(client: TestClient, settings: Settings) -> None:
    for url, sent, status in (
        ("/v1/models/nope/next", body(("a", DAY, 1.0)), 404),
        ("/v1/models/fuel@nope/next", body(("a", DAY, 1.0)), 404),
        (URL, body(("a", DAY, 1.0)) | {"dataset": "nope"}, 404),
        (URL, body(("a", "2026-02-04T12:00:00", 1.0)), 422),  # off the grid
        (URL, body(("a", "tomorrow", 1.0)), 422),
        (URL, body(("a", 5, 1.0)), 422),
        (URL, body(("a", DAY, 1.0), ("a", DAY, 2.0)), 422),
        (URL, body(("a", DAY, 1.0), horizon=settings.max_horizon + 1), 422),
        (URL, body(*((f"k{n}", DAY, 1.0) for n in range(2001)), horizon=10_000, quantiles=[]), 413),
    ):
        answer = client.post(url, json=sent)
        assert answer.status_code == status, (sent, answer.text)
        assert answer.json()["status"] == status
    assert forecast(client)["revision"] == 1


def test_a_damaged_version_appends_nothing(client: TestClient, settings: Settings) -> None:
    (folder,) = settings.store.iterdir()
    (folder / "forward.onnx").write_bytes(b"rubbish")
    assert client.post(URL, json=body(("a", DAY, 1.0))).status_code == 503
    assert client.get("/v1/models/fuel").status_code == 200
    (folder / "forward.onnx").unlink()
    answer = client.post("/v1/forecasts", json={"model": "fuel", "dataset": "gasoline"})
    assert answer.status_code == 503


def test_sent_again_with_its_key_it_appends_once(client: TestClient) -> None:
    key = {"Idempotency-Key": "point-1"}
    first = client.post(URL, json=body(("a", DAY, 1.0)), headers=key)
    again = client.post(URL, json=body(("a", DAY, 1.0)), headers=key)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert client.post(URL, json=body(("a", DAY, 2.0)), headers=key).status_code == 422
    assert forecast(client)["revision"] == 2


def test_an_alias_answers(client: TestClient, publish: Callable[..., int]) -> None:
    publish("fuel", promote="never")
    client.put("/v1/models/fuel/aliases/challenger", json={"version": 2})
    found = client.post("/v1/models/fuel@challenger/next", json=body(("a", DAY, 1.0))).json()
    assert found["model"] == {"name": "fuel", "version": 2, "alias": "challenger"}
