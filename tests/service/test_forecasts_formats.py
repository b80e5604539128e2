"""One forecast in five formats: the same numbers, the same times, never NaN."""

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

URL = "/v1/forecasts"
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"
COLUMNS = ["key", "timestamp", "mean", "q0.025", "q0.5"]
ASK: dict[str, Any] = {"model": "fuel", "dataset": "gasoline", "horizon": 9, "quantiles": [0.5, 0.025]}


@pytest.fixture(autouse=True)
def in_place(publish: Callable[..., int], stored: Callable[..., int]) -> None:
    publish("fuel")
    series = {
        "a": [float(step % 7) for step in range(30)],
        'b,"ö"': [float(step % 5) for step in range(40)],
        "no": [None],
    }
    stored("gasoline", series, time_zone="Europe/Berlin")


def long_form(answer: dict[str, Any]) -> list[list[Any]]:
    """The JSON answer as rows (key, timestamp, mean, q0.025, q0.5)."""
    rows = []
    for row in answer["forecasts"]:
        for step in range(len(row["mean"])):
            time = row["timestamps"][step] if row["timestamps"] else None
            quantiles = [row["quantiles"][level][step] for level in ("0.025", "0.5")]
            rows.append([row["key"], time, row["mean"][step], *quantiles])
    return rows


def test_every_format_says_the_same(client: TestClient) -> None:
    expected = long_form(client.post(URL, json=ASK).json())
    assert len(expected) == 27
    assert expected[-1] == ["no", None, None, None, None]

    def get(media: str) -> Any:
        answer = client.post(URL, json=ASK, headers={"Accept": media})
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] == media
        assert "Accept" in answer.headers["vary"]
        return answer

    lines = list(csv.reader(io.StringIO(get("text/csv").text)))
    assert lines[0] == COLUMNS
    assert [[*row[:2], *map(number, row[2:])] for row in lines[1:]] == [
        [row[0], row[1] or "", *row[2:]] for row in expected
    ]
    for media in ("application/x-ndjson", "application/jsonl"):
        found = [orjson.loads(line) for line in get(media).content.splitlines()]
        assert [list(row) for row in found] == [COLUMNS] * 27
        assert [list(row.values()) for row in found] == expected
    for media in (PARQUET, ARROW):
        content = get(media).content
        table = pq.read_table(io.BytesIO(content)) if media == PARQUET else pa.ipc.open_stream(content).read_all()
        assert table.column_names == COLUMNS
        assert table.schema.field("timestamp").type == pa.timestamp("us", "Europe/Berlin")
        columns = [table.column(name).to_pylist() for name in COLUMNS]
        times = [time.isoformat() if time else None for time in columns[1]]
        assert [list(row) for row in zip(columns[0], times, *columns[2:], strict=True)] == expected


def number(text: str) -> float | None:
    return float(text) if text else None


def test_what_a_table_has_no_room_for_is_in_its_headers(client: TestClient) -> None:
    answer = client.post(URL, json=ASK, headers={"Accept": "text/csv"})
    assert answer.headers["gatecast-model"] == "fuel/1"
    assert answer.headers["gatecast-revision"] == "1"
    warned = set(answer.headers["gatecast-warnings"].split(", "))
    assert {"horizon_beyond_trained", "no_history"} <= warned
    assert "write;dur=" in ", ".join(answer.headers.get_list("server-timing"))
    known = client.post(URL, json=ASK, headers={"Accept": "text/csv", "If-None-Match": answer.headers["etag"]})
    assert known.status_code == 304


def test_samples_are_columns_of_a_table(client: TestClient) -> None:
    body = ASK | {"samples": 3, "series": ["a"]}
    expected = np.array(client.post(URL, json=body).json()["forecasts"][0]["samples"])
    table = pa.ipc.open_stream(client.post(URL, json=body, headers={"Accept": ARROW}).content).read_all()
    assert table.column_names == [*COLUMNS, "sample1", "sample2", "sample3"]
    for place in range(3):
        assert table.column(f"sample{place + 1}").to_numpy() == pytest.approx(expected[place])


def test_integer_steps_are_integers_in_every_format(client: TestClient) -> None:
    body = {"model": "fuel", "inputs": [{"key": "a", "start": 5, "target": [1.0] * 20}], "frequency": "step"}
    rows = client.post(URL, json=body, headers={"Accept": "text/csv"}).text.splitlines()
    assert rows[1].split(",")[:2] == ["a", "25"]
    table = pa.ipc.open_stream(client.post(URL, json=body, headers={"Accept": ARROW}).content).read_all()
    assert table.column("timestamp").to_pylist() == [25]
