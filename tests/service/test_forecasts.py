"""POST /v1/forecasts: stored series and history in the request, against the real version and database."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.config import Settings
from app.main import create_app
from models import Series, TrainResult, open_artifact

URL = "/v1/forecasts"
DAY = "2026-01-05"  # where stored series begin


def wave(length: int, level: float = 100.0) -> list[float]:
    return [level + 7 * (step % 7) + step % 3 for step in range(length)]


@pytest.fixture(autouse=True)
def in_place(publish: Callable[..., int], stored: Callable[..., int]) -> None:
    publish("fuel")
    stored("gasoline", {"a": wave(30), "b/ä": wave(40, 200.0), "c": wave(5)})


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post(URL, json={"model": "fuel", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def codes(answer: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in answer["warnings"]]


# ---------------------------------------------------------------- stored series


def test_the_next_step_of_one_stored_series(client: TestClient, tiny_version: TrainResult) -> None:
    answer = ask(client, dataset="gasoline", series=["a"])
    assert answer["model"] == {"name": "fuel", "version": 1, "alias": "champion"}
    assert (answer["dataset"], answer["revision"], answer["frequency"]) == ("gasoline", 1, "D")
    assert answer["warnings"] == []
    (row,) = answer["forecasts"]
    assert row["key"] == "a"
    assert (row["origin"], row["start"]) == ("2026-02-03T00:00:00+00:00", "2026-02-04T00:00:00+00:00")
    assert row["timestamps"] == ["2026-02-04T00:00:00+00:00"]
    core = open_artifact(tiny_version.artifact).forecast([Series("a", np.array(wave(30)))], 1, (0.1, 0.5, 0.9))
    assert row["mean"] == pytest.approx(core.mean[0])
    for place, level in enumerate(("0.1", "0.5", "0.9")):
        assert row["quantiles"][level] == pytest.approx(core.quantiles[0, :, place])


def test_some_or_all_in_the_order_asked_or_by_key(client: TestClient) -> None:
    assert [row["key"] for row in ask(client, dataset="gasoline")["forecasts"]] == ["a", "b/ä", "c"]
    assert [row["key"] for row in ask(client, dataset="gasoline", series=None)["forecasts"]] == ["a", "b/ä", "c"]
    some = ask(client, dataset="gasoline", series=["c", "a"])["forecasts"]
    assert [row["key"] for row in some] == ["c", "a"]


def test_one_by_one_is_as_all_at_once(client: TestClient) -> None:
    together = ask(client, dataset="gasoline", horizon=5)["forecasts"]
    for row in together:
        (alone,) = ask(client, dataset="gasoline", series=[row["key"]], horizon=5)["forecasts"]
        assert alone["timestamps"] == row["timestamps"]
        assert alone["mean"] == pytest.approx(row["mean"], rel=1e-6)


def test_stored_and_sent_agree(client: TestClient) -> None:
    """Two routes to one answer."""
    (stored,) = ask(client, dataset="gasoline", series=["a"], horizon=10)["forecasts"]
    (sent,) = ask(client, inputs=[{"key": "a", "start": DAY, "target": wave(30)}], horizon=10)["forecasts"]
    assert sent == stored


def test_an_earlier_revision(client: TestClient, stored: Callable[..., int]) -> None:
    before = ask(client, dataset="gasoline", series=["a"])
    assert stored("gasoline", {"a": [*wave(30), 999.0]}) == 2
    now = ask(client, dataset="gasoline", series=["a"])
    assert (now["revision"], now["forecasts"][0]["origin"]) == (2, "2026-02-04T00:00:00+00:00")
    then = ask(client, dataset="gasoline", series=["a"], revision=1)
    assert then["forecasts"] == before["forecasts"]
    assert client.post(URL, json={"model": "fuel", "dataset": "gasoline", "revision": 3}).status_code == 422


def test_what_is_not_there(client: TestClient) -> None:
    for body, told in (
        ({"model": "nope", "dataset": "gasoline"}, "nope"),
        ({"model": "fuel/9", "dataset": "gasoline"}, "9"),
        ({"model": "fuel@nope", "dataset": "gasoline"}, "nope"),
        ({"model": "fuel", "dataset": "nope"}, "nope"),
        ({"model": "fuel", "dataset": "gasoline", "series": ["a", "x", "y"]}, "'x', 'y'"),
    ):
        answer = client.post(URL, json=body)
        assert answer.status_code == 404, body
        assert answer.headers["content-type"] == "application/problem+json"
        assert told in answer.json()["detail"]


def test_an_empty_dataset_is_a_conflict(client: TestClient, database: Any) -> None:
    from app.services import datasets

    with database.write("default") as session:
        datasets.create(session, "empty", (None, "UTC"), {})
    assert client.post(URL, json={"model": "fuel", "dataset": "empty"}).status_code == 409


def test_a_dataset_whose_series_were_all_erased(client: TestClient) -> None:
    for key in ("a", "b/ä", "c"):
        assert client.delete(f"/v1/datasets/gasoline/series/{key}").status_code == 204
    answer = ask(client, dataset="gasoline", horizon=9, samples=1)
    assert answer["forecasts"] == []
    for accept in ("text/csv", "application/vnd.apache.parquet", "application/x-ndjson"):
        body = {"model": "fuel", "dataset": "gasoline"}
        assert client.post(URL, json=body, headers={"Accept": accept}).status_code == 200
    assert client.post(URL, json={"model": "fuel", "dataset": "gasoline", "series": ["a"]}).status_code == 404


def test_an_erased_series_is_not_answered_from_a_cache(client: TestClient) -> None:
    body = {"model": "fuel", "dataset": "gasoline"}
    tag = client.post(URL, json=body).headers["etag"]
    assert client.delete("/v1/datasets/gasoline/series/a").status_code == 204
    answer = client.post(URL, json=body, headers={"If-None-Match": tag})
    assert answer.status_code == 200
    assert [row["key"] for row in answer.json()["forecasts"]] == ["b/ä", "c"]


def test_local_days_keep_their_clock(client: TestClient, stored: Callable[..., int]) -> None:
    """Through a change of the clock: midnight stays midnight, the offset moves."""
    stored("berlin", {"a": wave(83)}, time_zone="Europe/Berlin")
    (row,) = ask(client, dataset="berlin", horizon=2)["forecasts"]
    assert row["origin"] == "2026-03-28T00:00:00+01:00"
    assert row["timestamps"] == ["2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"]


def test_series_without_a_known_value_are_answered_with_nulls(client: TestClient, stored: Callable[..., int]) -> None:
    stored("silent", {"no": [None, None, None], "yes": wave(20)})
    answer = ask(client, dataset="silent", horizon=9, samples=2)
    assert "no_history" in codes(answer)
    (warning,) = [warning for warning in answer["warnings"] if warning["code"] == "no_history"]
    assert (warning["series"], warning["series_count"]) == (["no"], 1)
    no, yes = answer["forecasts"]
    assert (no["origin"], no["start"], no["timestamps"]) == (None, None, None)
    assert no["mean"] == [None] * 9
    assert no["quantiles"]["0.5"] == [None] * 9
    assert no["samples"] == [[None] * 9] * 2
    assert all(isinstance(value, float) for value in yes["mean"])


# ---------------------------------------------------------------- history in the request


def test_ids_never_seen_are_fine(client: TestClient) -> None:
    answer = ask(client, inputs=[{"key": "zz/9", "start": DAY, "target": wave(20)}], horizon=3)
    assert (answer["dataset"], answer["revision"]) == (None, None)
    assert answer["warnings"] == []
    assert answer["forecasts"][0]["timestamps"][0] == "2026-01-25T00:00:00+00:00"


def test_short_and_gappy_histories_are_answered_with_warnings(client: TestClient) -> None:
    inputs = [
        {"key": "short", "target": [1.0]},
        {"key": "gappy", "target": [None if step % 4 == 1 else float(step) for step in range(20)]},
        {"key": "NaN", "target": [*wave(20), "NaN", 5]},
        {"key": "open", "start": DAY, "target": [1.0, 2.0, None, None]},
        {"key": "empty", "target": []},
    ]
    answer = ask(client, inputs=inputs, horizon=2)
    told = {warning["code"]: warning.get("series") for warning in answer["warnings"]}
    assert told["short_history"] == ["short", "open"]
    assert set(told["missing_history"]) == {"gappy", "NaN"}
    assert told["missing_at_end"] == ["open"]
    assert told["no_history"] == ["empty"]
    rows = {row["key"]: row for row in answer["forecasts"]}
    # As in an upload, the origin is the last value that is there.
    assert rows["open"]["origin"] == "2026-01-06T00:00:00+00:00"
    assert rows["short"]["mean"] != [None, None]


def test_without_a_start_there_are_no_times(client: TestClient) -> None:
    dated, undated = ask(
        client, inputs=[{"key": "d", "start": DAY, "target": wave(20)}, {"key": "u", "target": wave(20)}], horizon=2
    )["forecasts"]
    assert (undated["origin"], undated["start"], undated["timestamps"]) == (None, None, None)
    assert undated["mean"] == pytest.approx(dated["mean"], rel=1e-9)


@pytest.mark.parametrize(
    ("start", "zone", "origin"),
    [
        ("2026-01-05", None, "2026-01-05T00:00:00+00:00"),
        ("2026-01-05T10:30:00", None, "2026-01-05T10:30:00+00:00"),
        ("2026-01-05T00:00:00+01:00", None, "2026-01-04T23:00:00+00:00"),
        ("2026-01-05T00:00:00+01:00", "Europe/Berlin", "2026-01-05T00:00:00+01:00"),
        ("2026-01-05", "Europe/Berlin", "2026-01-05T00:00:00+01:00"),
        ("2026-01-05T00:00:00Z", "America/New_York", "2026-01-04T19:00:00-05:00"),
        ("0001-01-01", None, "0001-01-01T00:00:00+00:00"),
    ],
)
def test_starts(client: TestClient, start: str, zone: str | None, origin: str) -> None:
    answer = ask(client, inputs=[{"key": "a", "start": start, "target": [1.0]}], time_zone=zone)
    assert answer["forecasts"][0]["origin"] == origin


def test_local_starts_that_the_clock_shows_twice_or_never(client: TestClient) -> None:
    inputs = [
        {"key": "twice", "start": "2026-10-25T02:30:00", "target": [1.0]},
        {"key": "never", "start": "2026-03-29T02:30:00", "target": [1.0]},
    ]
    answer = ask(client, inputs=inputs, time_zone="Europe/Berlin", frequency="h")
    assert {"ambiguous_time", "missing_time", "frequency_differs"} <= set(codes(answer))
    assert [row["origin"] for row in answer["forecasts"]] == ["2026-10-25T02:30:00+02:00", "2026-03-29T03:30:00+02:00"]


def test_a_frequency_the_version_was_not_trained_on(client: TestClient) -> None:
    answer = ask(client, inputs=[{"key": "a", "start": "2026-01-31", "target": wave(20)}], frequency="M", horizon=2)
    assert answer["frequency"] == "ME"
    assert codes(answer) == ["frequency_differs"]
    assert answer["forecasts"][0]["timestamps"] == ["2027-09-30T00:00:00+00:00", "2027-10-31T00:00:00+00:00"]


def test_integer_steps(client: TestClient, stored: Callable[..., int]) -> None:
    answer = ask(client, inputs=[{"key": "a", "start": 100, "target": wave(20)}], frequency="step", horizon=2)
    assert answer["forecasts"][0]["timestamps"] == [120, 121]
    stored("steps", {"a": wave(20)}, frequency="step")
    answer = ask(client, dataset="steps", horizon=2)
    assert (answer["frequency"], answer["forecasts"][0]["origin"]) == ("step", 19)
    assert answer["forecasts"][0]["timestamps"] == [20, 21]


# ---------------------------------------------------------------- how much is asked


def test_any_levels_named_by_their_shortest_decimal(client: TestClient) -> None:
    levels = [0.99, 0.5, 0.00001, 0.025, 0.1, 0.58]
    answer = ask(client, dataset="gasoline", series=["a"], horizon=12, quantiles=levels)
    found = answer["forecasts"][0]["quantiles"]
    assert list(found) == ["0.00001", "0.025", "0.1", "0.5", "0.58", "0.99"]
    values = np.array(list(found.values()))
    assert (np.diff(values, axis=0) >= 0).all()  # never crossing
    assert {"level_beyond_trained", "horizon_beyond_trained"} == set(codes(answer))
    assert ask(client, dataset="gasoline", series=["a"], quantiles=[])["forecasts"][0]["quantiles"] == {}


def test_a_long_horizon_begins_with_the_short_one(client: TestClient) -> None:
    (short,) = ask(client, dataset="gasoline", series=["a"], horizon=7)["forecasts"]
    (long,) = ask(client, dataset="gasoline", series=["a"], horizon=50)["forecasts"]
    assert long["mean"][:7] == pytest.approx(short["mean"])
    assert len(long["mean"]) == len(long["timestamps"]) == 50


def test_samples_are_the_same_each_time(client: TestClient) -> None:
    (first,) = ask(client, dataset="gasoline", series=["a"], horizon=4, samples=50)["forecasts"]
    (again,) = ask(client, dataset="gasoline", series=["a"], horizon=4, samples=50)["forecasts"]
    assert np.array(first["samples"]).shape == (50, 4)
    assert first["samples"] == again["samples"]
    assert "samples" not in ask(client, dataset="gasoline", series=["a"])["forecasts"][0]


def test_times_may_be_left_out(client: TestClient) -> None:
    (row,) = ask(client, dataset="gasoline", series=["a"], horizon=3, timestamps=False)["forecasts"]
    assert "timestamps" not in row
    assert row["start"] == "2026-02-04T00:00:00+00:00"


def test_too_much(client: TestClient, settings: Settings) -> None:
    many = [{"key": f"s{place}", "target": [1.0]} for place in range(60)]
    for body, status, pointer in (
        ({"horizon": settings.max_horizon + 1}, 422, "/horizon"),
        ({"inputs": many, "dataset": None, "horizon": 10_000, "samples": 1000}, 413, None),
        ({"inputs": [{"key": "a", "target": [1.0]}] * 2, "dataset": None}, 422, ""),
    ):
        answer = client.post(URL, json={"model": "fuel", "dataset": "gasoline", **body})
        assert answer.status_code == status, body
        if pointer is not None:
            assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(("start", "frequency"), [("9999-12-30", "D"), ("2026-01-01", "100YS"), ("9990-01-01", "W")])
def test_times_end_with_the_year_9999(client: TestClient, start: str, frequency: str) -> None:
    inputs = [{"key": "a", "start": start, "target": [1.0]}]
    body = {"model": "fuel", "inputs": inputs, "frequency": frequency, "horizon": 10_000, "quantiles": [0.5]}
    for accept in ("application/json", "text/csv"):
        answer = client.post(URL, json=body, headers={"Accept": accept})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/horizon"


def test_history_that_is_not_on_a_calendar(client: TestClient) -> None:
    def refused(pointer: str, start: Any = None, **body: Any) -> None:
        inputs = [{"key": "ok", "target": [1.0]}, {"key": "a", "target": [1.0], "start": start}]
        answer = client.post(URL, json={"model": "fuel", "inputs": inputs, **body})
        assert answer.status_code == 422, (start, body)
        assert answer.json()["errors"][0]["pointer"] == pointer

    for start in ("yesterday", "", 5, "2026-13-01", "10000-01-01", "2026-01-01T00:00:00+25:00"):
        refused("/inputs/1/start", start)
    refused("/inputs/1/start", DAY, frequency="step")
    refused("/frequency", frequency="fortnight")
    refused("/time_zone", time_zone="Mars/Base")


def test_huge_values_never_leave_as_nan(client: TestClient) -> None:
    inputs = [{"key": "a", "target": [1.7e308, -1.7e308] * 10}, {"key": "b", "target": [5e-324] * 20}]
    answer = client.post(URL, json={"model": "fuel", "inputs": inputs, "horizon": 9})
    assert answer.status_code == 200
    assert "NaN" not in answer.text
    assert "Infinity" not in answer.text
    (warning,) = [warning for warning in answer.json()["warnings"] if warning["code"] == "not_finite"]
    assert warning["series"] == ["a"]
    assert None not in answer.json()["forecasts"][1]["mean"]


# ---------------------------------------------------------------- which version


def test_a_moved_alias_is_seen_by_the_next_request_of_another_process(
    client: TestClient, settings: Settings, publish: Callable[..., int]
) -> None:
    publish("fuel", promote="never")
    with TestClient(create_app(settings)) as other:
        for version in (1, 2, 1, 2):
            assert client.put("/v1/models/fuel/aliases/champion", json={"version": version}).status_code == 200
            assert ask(other, dataset="gasoline", series=["a"])["model"]["version"] == version


def test_references(client: TestClient, publish: Callable[..., int]) -> None:
    publish("fuel", promote="never")
    client.put("/v1/models/fuel/aliases/challenger", json={"version": 2})
    for reference, version, alias in (
        ("fuel", 1, "champion"),
        ("fuel@challenger", 2, "challenger"),
        ("fuel/2", 2, None),
    ):
        found = ask(client, model=reference, dataset="gasoline", series=["a"])["model"]
        assert found == {"name": "fuel", "version": version, "alias": alias}


@pytest.mark.parametrize("name", ["weights.safetensors", "forward.onnx", "manifest.json"])
def test_a_damaged_version_never_answers(client: TestClient, settings: Settings, name: str) -> None:
    (folder,) = settings.store.iterdir()
    damage(folder / name)
    answer = client.post(URL, json={"model": "fuel", "dataset": "gasoline"})
    assert answer.status_code == 503
    assert answer.json()["type"] == "/docs/errors#artifact-damaged"
    assert name in answer.json()["detail"]


def test_a_missing_version_folder_is_said(client: TestClient, settings: Settings) -> None:
    (folder,) = settings.store.iterdir()
    folder.rename(folder.with_name("elsewhere"))
    assert client.post(URL, json={"model": "fuel", "dataset": "gasoline"}).status_code == 503


def test_a_deleted_version_answers_no_more(client: TestClient, app: FastAPI, publish: Callable[..., int]) -> None:
    publish("fuel", promote="never")
    ask(client, model="fuel/2", dataset="gasoline")
    before = len(app.state.versions)
    assert client.delete("/v1/models/fuel/versions/2").status_code == 204
    assert client.post(URL, json={"model": "fuel/2", "dataset": "gasoline"}).status_code == 404
    assert len(app.state.versions) == before - 1


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# ---------------------------------------------------------------- what the answer says about itself


def test_where_the_time_went_and_which_request_it_was(client: TestClient) -> None:
    answer = client.post(URL, json={"model": "fuel", "dataset": "gasoline"}, headers={"X-Request-Id": "mine-1"})
    assert answer.json()["request_id"] == "mine-1"
    timing = ", ".join(answer.headers.get_list("server-timing"))
    for part in ("load", "read", "model", "write"):
        assert f"{part};dur=" in timing


def test_the_same_question_to_the_same_data_is_known(
    client: TestClient, stored: Callable[..., int], publish: Callable[..., int]
) -> None:
    body = {"model": "fuel", "dataset": "gasoline"}
    tag = client.post(URL, json=body).headers["etag"]
    known = client.post(URL, json=body, headers={"If-None-Match": tag})
    assert (known.status_code, known.content) == (304, b"")
    for other in (
        client.post(URL, json=body | {"horizon": 2}, headers={"If-None-Match": tag}),
        client.post(URL, json=body, headers={"If-None-Match": tag, "Accept": "text/csv"}),
    ):
        assert other.status_code == 200
    stored("gasoline", {"a": [*wave(30), 1.0]})
    assert client.post(URL, json=body, headers={"If-None-Match": tag}).status_code == 200
    tag = client.post(URL, json=body).headers["etag"]
    publish("fuel", promote="always")
    assert client.post(URL, json=body, headers={"If-None-Match": tag}).status_code == 200
