"""Answers too long to hold, made and sent in parts: the same as in one piece, in memory that does not grow."""

import gc
import io
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.db.session import Database
from app.errors import NotFound
from app.services import datasets, forecast_answers, forecasts, texts, whole
from app.services.ends import KeptEnds
from app.services.forecasts import Chosen, Shape, Stored
from app.services.opened import OpenVersions

URL = "/v1/forecasts"
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"
MEDIA = ("application/json", "text/csv", "application/x-ndjson", ARROW, PARQUET)
SERIES: dict[str, list[Any]] = {
    f"s{place}": [float(place + day % 5) for day in range(3 + 5 * place)] for place in range(7)
} | {"s3": [None, None]}
# With a revision, so that a plain question of a few does not go the short way.
ASK: dict[str, Any] = {"model": "fuel", "dataset": "many", "revision": 1, "horizon": 9, "quantiles": [0.5, 0.025]}


@pytest.fixture
def in_parts(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes all answers long ones, of parts of at most two series; `read`: those that are stored are read so, too."""

    def make(read: bool = True) -> None:
        monkeypatch.setattr(whole, "SHORT", 0)
        monkeypatch.setattr(whole, "PART", 2 * 9 * 3)
        if read:
            monkeypatch.setattr(whole, "MANY", 3)
            app.state.ends = KeptEnds(0)

    return make


def said(media: str, content: bytes) -> tuple[list[Any], np.ndarray[Any, Any]]:
    """What an answer says: all that is no number, and its numbers."""
    if media == "application/json":
        answer = orjson.loads(content)
        rows = [[row.pop("mean"), *row.pop("quantiles").values()] for row in answer["forecasts"]]
        answer["warnings"].sort(key=lambda one: one["code"])
        return [answer.pop("request_id"), answer][1:], np.array(rows, np.float64)
    if media == "application/x-ndjson":
        table = pa.Table.from_pylist([orjson.loads(line) for line in content.splitlines()])
    elif media == "text/csv":
        table = pa.csv.read_csv(io.BytesIO(content))
    else:
        table = pq.read_table(io.BytesIO(content)) if media == PARQUET else pa.ipc.open_stream(content).read_all()
    columns = [np.array(table.column(name).to_pylist(), np.float64) for name in table.column_names[2:]]
    return [table.column_names, *(table.column(place).to_pylist() for place in (0, 1))], np.array(columns)


@pytest.fixture
def in_place(publish: Callable[..., int], stored: Callable[..., int]) -> None:
    publish("fuel")
    stored("many", SERIES, time_zone="Europe/Berlin")


@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("named", [None, ["s6", "s3", "s0", "s5", "s1"]])
def test_they_say_what_they_say_in_one_piece(
    client: TestClient, in_parts: Callable[..., None], *, media: str, read: bool, named: list[str] | None
) -> None:
    body = ASK | {"series": named}
    together = client.post(URL, json=body, headers={"Accept": media})
    in_parts(read)
    apart = client.post(URL, json=body, headers={"Accept": media})
    assert apart.status_code == 200, apart.text
    for name in ("etag", "content-type", "gatecast-model", "gatecast-revision", "cache-control"):
        assert apart.headers.get(name) == together.headers.get(name)
    assert "Accept" in apart.headers["vary"]
    assert "content-length" not in apart.headers
    (found, numbers), (expected, others) = (said(media, answer.content) for answer in (apart, together))
    assert found == expected
    np.testing.assert_allclose(numbers, others)
    known = client.post(URL, json=body, headers={"Accept": media, "If-None-Match": apart.headers["etag"]})
    assert known.status_code == 304


def test_what_is_said_about_history_that_was_sent_names_the_same_series(
    client: TestClient, publish: Callable[..., int], in_parts: Callable[..., None]
) -> None:
    publish("fuel")
    values: list[float | None] = [float(day % 7) for day in range(20)]
    inputs = [{"key": f"k{place}", "target": values + [None] * (place % 3 == 1)} for place in range(8)]
    body = {"model": "fuel", "inputs": inputs, "horizon": 7, "quantiles": [0.5]}
    together = client.post(URL, json=body).json()["warnings"]
    in_parts()
    apart = client.post(URL, json=body).json()["warnings"]
    assert {"code": "missing_at_end", "series": ["k1", "k4", "k7"], "series_count": 3}.items() <= apart[0].items()
    assert apart == together


@pytest.mark.usefixtures("in_place")
def test_what_is_refused_is_refused_before_the_first_byte(client: TestClient, in_parts: Callable[..., None]) -> None:
    in_parts()
    for change, status, code in (
        ({"series": ["s1", "s2", "s4", "s5", "zz"]}, 404, "no-such-series"),
        ({"revision": 7}, 422, None),
        ({"model": "none"}, 404, None),
    ):
        answer = client.post(URL, json=ASK | change)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), change
        assert code is None or answer.json()["errors"][0]["code"] == code


# ---------------------------------------------------------------- what happens meanwhile


def chosen_version(app: FastAPI, database: Database) -> Chosen:
    versions: OpenVersions = app.state.versions
    with database.read("default") as session:
        return forecasts.take(versions, forecasts.look_up(session, "fuel"))


def asked(database: Database, chosen: Chosen, shape: Shape, keys: tuple[str, ...] | None = None) -> whole.Apart:
    with database.read("default") as session:
        ask = Stored("many", keys)
        found = whole.apart(session, chosen, ask, forecasts.locate(session, ask), shape, kept=KeptEnds(0))
    assert found is not None
    return found


@pytest.mark.usefixtures("in_place")
def test_they_hold_one_revision_whatever_comes_meanwhile(
    app: FastAPI, database: Database, stored: Callable[..., int], in_parts: Callable[..., None]
) -> None:
    in_parts()
    chosen, shape = chosen_version(app, database), Shape(2)
    before = list(whole.reads(database, "default", chosen, asked(database, chosen, shape), shape))
    reads = whole.reads(database, "default", chosen, asked(database, chosen, shape), shape)
    found = [next(reads)]
    after = {key: [*values, 99.0] for key, values in SERIES.items()} | {"s55": [1.0], "s9": [1.0]}
    stored("many", after, time_zone="Europe/Berlin")
    found += reads
    assert [len(part.series) for part in found] == [3, 3, 1]
    assert {part.revision for part in found} == {1}
    for mine, other in zip(found, before, strict=True):
        for one, expected in zip(mine.series, other.series, strict=True):
            assert (one.key, one.origin) == (expected.key, expected.origin)
            np.testing.assert_array_equal(one.target, expected.target)


@pytest.mark.usefixtures("in_place")
def test_they_end_when_the_dataset_is_deleted_though_another_has_its_name(
    app: FastAPI, database: Database, stored: Callable[..., int], in_parts: Callable[..., None]
) -> None:
    in_parts()
    chosen, shape = chosen_version(app, database), Shape(2)
    reads = whole.reads(database, "default", chosen, asked(database, chosen, shape), shape)
    next(reads)
    with database.write("default") as session:
        datasets.remove(session, datasets.get(session, "many"))
    stored("many", SERIES)
    with pytest.raises(NotFound, match="deleted while"):
        next(reads)


# ---------------------------------------------------------------- memory

FEW, MANY = 2_200, 8_800
LONG = Shape(7, tuple((place + 1) / 100 for place in range(99)))


@pytest.mark.parametrize("kind", ["json", "csv", "arrow", "parquet"])
def test_memory_does_not_grow_with_the_number_of_series(
    app: FastAPI, database: Database, publish: Callable[..., int], stored: Callable[..., int], kind: str
) -> None:
    """Eight million numbers instead of two take no more."""
    publish("fuel")
    stored("many", {f"s{place:05d}": [1.0, 2.0, float(place)] for place in range(MANY)})
    chosen = chosen_version(app, database)

    def peak(keys: tuple[str, ...] | None) -> tuple[int, int]:
        """The bytes of an answer, and the most that Python, numpy and Arrow held while it was made."""
        reads = whole.reads(database, "default", chosen, asked(database, chosen, LONG, keys), LONG)
        answers = whole.answers(chosen, reads, LONG)
        gc.collect()
        tracemalloc.start()
        size, arrow = 0, 0
        for piece in pieces(answers, kind):
            size += len(piece)
            arrow = max(arrow, pa.total_allocated_bytes())
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size, most + arrow

    few = tuple(f"s{place:05d}" for place in range(FEW))
    peak(few)  # what is loaded on first use
    (small, before), (large, after) = peak(few), peak(None)
    assert large > 3 * small
    assert after < 1.5 * before


def pieces(answers: Iterator[forecast_answers.Answer], kind: str) -> Iterator[bytes]:
    if kind == "json":
        return forecast_answers.json_pieces(answers, None, True)
    assert kind in ("csv", "arrow", "parquet")
    return texts.stream(map(forecast_answers.table, answers), kind)
