"""Questions that cannot be understood: refused before anything is looked up, with a place and never a 500."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

URL = "/v1/forecasts"
NEXT = "/v1/models/fuel/next"
ONE = [{"key": "a", "target": [1.0]}]
STORED = {"model": "fuel", "dataset": "gasoline"}


def test_each_field_is_checked_and_named(client: TestClient) -> None:
    for body, pointer in [
        ({"model": "fuel"}, ""),
        (STORED | {"inputs": ONE}, ""),
        (STORED | {"frequency": "D"}, ""),
        ({"model": "fuel", "inputs": ONE, "series": ["a"]}, ""),
        ({"model": "fuel", "inputs": ONE * 2}, ""),
        (STORED | {"series": []}, "/series"),
        (STORED | {"series": ["a", "a"]}, ""),
        (STORED | {"series": ["nul\x00"]}, "/series/0"),
        (STORED | {"series": ["ä" * 200]}, "/series/0"),
        (STORED | {"quantiles": [0.1, 0.1]}, "/quantiles"),
        (STORED | {"quantiles": [0.1, 1.0]}, "/quantiles/1"),
        (STORED | {"horizon": 0}, "/horizon"),
        (STORED | {"horizon": 1.5}, "/horizon"),
        (STORED | {"horizon": 10**30}, "/horizon"),
        (STORED | {"samples": 1001}, "/samples"),
        (STORED | {"revision": 0}, "/revision"),
        (STORED | {"horizont": 3}, "/horizont"),
        (STORED | {"dataset": "../x"}, "/dataset"),
        (STORED | {"model": "a b"}, "/model"),
        ({"dataset": "gasoline", "model": None}, "/model"),
        ({}, ""),
        ({"model": "fuel", "inputs": []}, "/inputs"),
        ({"model": "fuel", "inputs": [{"target": [1.0]}]}, "/inputs/0/key"),
        ({"model": "fuel", "inputs": [{"key": "a", "target": [1.0, "1.0"]}]}, "/inputs/0/target/1"),
        ({"model": "fuel", "inputs": [{"key": "a", "target": [1.0, True]}]}, "/inputs/0/target/1"),
        ({"model": "fuel", "inputs": [{"key": "a", "target": [[1.0]]}]}, "/inputs/0/target/0"),
        ({"model": "fuel", "inputs": [*ONE, {"key": "b", "target": 1.0}]}, "/inputs/1/target"),
    ]:
        answer = client.post(URL, json=body)
        assert answer.status_code == 422, body
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["errors"][0]["pointer"] == pointer, body


def test_each_field_of_a_point_is_checked_and_named(client: TestClient) -> None:
    point = {"key": "a", "timestamp": "2026-01-01", "value": 1.0}
    for change, pointer in [
        ({"key": ""}, "/points/0/key"),
        ({"key": "a\nb"}, "/points/0/key"),
        ({"timestamp": None}, "/points/0/timestamp"),
        ({"timestamp": 1.5}, "/points/0/timestamp"),
        ({"value": "1"}, "/points/0/value"),
        ({"vale": 1}, "/points/0/vale"),
    ]:
        answer = client.post(NEXT, json={"dataset": "gasoline", "points": [point | change]})
        assert answer.status_code == 422, change
        assert answer.json()["errors"][0]["pointer"] == pointer, change
    assert client.post(NEXT, json={"dataset": "gasoline", "points": []}).status_code == 422
    assert client.post("/v1/models/a%20b/next", json={"dataset": "gasoline", "points": [point]}).status_code == 422


@pytest.mark.parametrize("url", [URL, NEXT])
def test_what_is_no_question_at_all(client: TestClient, url: str) -> None:
    for body in (b"", b"{", b"[]", b"null", b'{"model": NaN}', b"\xff", b'"x"', b"[" * 100_000, b'{"\\ud800": 1}'):
        answer = client.post(url, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, body[:20]
        assert answer.json()["status"] == 422


def test_text_that_is_not_utf8(client: TestClient) -> None:
    question = '{"model": "fuel", "dataset": "gasoline", "series": ["été"]}'
    points = '{"dataset": "gasoline", "points": [{"key": "été", "timestamp": "2026-01-01", "value": 1}]}'
    for url, text in ((URL, question), (NEXT, points)):
        answer = client.post(url, content=text.encode("latin-1"), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["status"]) == (422, 422)


@pytest.mark.parametrize("url", [URL, NEXT])
def test_bodies_that_are_not_plain_json(client: TestClient, url: str) -> None:
    said: list[dict[str, str]] = [{"Content-Type": "text/plain"}, {}]
    said.append({"Content-Type": "application/json", "Content-Encoding": "br"})
    for headers in said:
        assert client.post(url, content=b"{}", headers=headers).status_code == 415
    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert client.post(url, content=b"{}", headers=packed).status_code == 422  # it is not gzip at all


def test_numbers_that_json_does_not_have(client: TestClient) -> None:
    for literal in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
        body = b'{"model": "fuel", "inputs": [{"key": "a", "target": [1.0, ' + literal + b"]}]}"
        answer = client.post(URL, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/inputs/0/target/1"


def test_a_million_wrong_values_are_one_complaint(client: TestClient) -> None:
    """The refusal must not be larger than what it refuses."""
    answer = client.post(URL, json={"model": "fuel", "inputs": [{"key": "a", "target": ["x"] * 1_000_000}]})
    assert answer.status_code == 422
    assert answer.json()["error_count"] == 1


def test_an_answer_in_no_format_of_ours(client: TestClient) -> None:
    for url, accept in ((URL, "image/png"), (NEXT, "text/csv")):
        body: dict[str, Any] = STORED if url == URL else {}
        assert client.post(url, json=body, headers={"Accept": accept}).status_code == 406


def test_a_start_between_two_steps(client: TestClient, publish: Callable[..., int]) -> None:
    """A Saturday is no business day: to shift it in silence would date the whole forecast wrongly."""
    publish("fuel")
    starts = {"monday": "2025-03-03", "saturday": "2025-03-01"}
    inputs = [{"key": key, "start": start, "target": [1.0, 2.0, 3.0]} for key, start in starts.items()]
    answer = client.post(URL, json={"model": "fuel", "frequency": "B", "inputs": inputs})
    assert answer.status_code == 422
    assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [("/inputs/1/start", "off-grid")]
