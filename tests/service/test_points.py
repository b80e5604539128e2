"""Points: read back in every format and range, uploaded again, appended one by one."""

import io
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from app.db.session import Database
from app.errors import AppError, Conflict, Invalid, NotFound
from app.http.formats import STREAMS
from app.services import datasets, points

HOURS = (
    "unique_id,ds,y,price,value\n"
    "x,2025-10-26T00:30:00Z,1.5,9,a\n"
    "x,2025-10-26T01:30:00Z,2,,b\n"
    "x,2025-10-26T03:30:00Z,4,8,\n"
    "x,2025-10-26T04:30:00Z,,7,a\n"
)
STAMPS = [
    "2025-10-26T02:30:00+02:00",
    "2025-10-26T02:30:00+01:00",
    "2025-10-26T03:30:00+01:00",
    "2025-10-26T04:30:00+01:00",
    "2025-10-26T05:30:00+01:00",
]


def upload(client: TestClient, body: bytes | str, name: str = "d", media: str = "text/csv", **query: Any) -> Any:
    headers = {"Content-Type": media}
    answer = client.post(f"/v1/datasets/{name}/revisions", content=body, params=query, headers=headers)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def read(client: TestClient, key: str = "x", name: str = "d", accept: str = "application/json", **query: Any) -> Any:
    answer = client.get(f"/v1/datasets/{name}/series/{key}/points", params=query, headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].partition(";")[0] == accept
    return answer.json() if accept == "application/json" else answer.content


@pytest.fixture
def hours(client: TestClient) -> TestClient:
    upload(client, HOURS, time_zone="Europe/Berlin", frequency="h", future_columns="price")
    return client


def test_a_row_for_every_step_with_names_that_no_covariate_has(hours: TestClient) -> None:
    assert read(hours) == {
        "unique_id": ["x"] * 5,
        "ds": STAMPS,
        "y": [1.5, 2.0, None, 4.0, None],
        "price": [9.0, None, None, 8.0, 7.0],
        "value": ["a", "b", None, None, "a"],
    }


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ({"start": "2025-10-26T02:30:00+01:00"}, [1, 2, 3, 4]),
        ({"start": "2025-10-26T02:30:00 01:00"}, [1, 2, 3, 4]),  # a `+` that was not encoded
        ({"start": "2025-10-26T02:30:00"}, [0, 1, 2, 3, 4]),  # of a local time shown twice, the first
        ({"start": "2025-10-26", "end": "2025-10-26 03:30"}, [0, 1, 2]),
        ({"end": "2025-10-26T01:29:59Z"}, [0]),
        ({"end": "2025-10-25"}, []),
        ({"start": "2025-10-27"}, []),
        ({"start": "2025-10-26T04:00", "end": "2025-10-26T03:00"}, []),
        ({"limit": 2}, [0, 1]),
        ({"start": "2025-10-26T01:30:00Z", "limit": 1}, [1]),
    ],
)
def test_a_range_includes_both_ends(hours: TestClient, query: dict[str, Any], rows: list[int]) -> None:
    found = read(hours, **query)
    assert found["ds"] == [STAMPS[row] for row in rows]
    assert found["price"] == [[9.0, None, None, 8.0, 7.0][row] for row in rows]


@pytest.mark.parametrize(
    "query",
    [{"start": "yesterday"}, {"end": "2025-13-01"}, {"start": "5"}, {"limit": 0}, {"revision": 2}, {"start": ""}],
)
def test_a_wrong_range_is_refused(hours: TestClient, query: dict[str, Any]) -> None:
    refused = hours.get("/v1/datasets/d/series/x/points", params=query)
    assert refused.status_code == 422


MEDIA = (
    "application/json",
    "text/csv",
    "application/vnd.apache.parquet",
    "application/vnd.apache.arrow.stream",
    "application/x-ndjson",
    "application/jsonl",
)


@pytest.mark.parametrize("media", MEDIA)
def test_what_is_handed_out_can_be_uploaded_again(hours: TestClient, media: str) -> None:
    handed = read(hours, accept=media)
    body = orjson.dumps(handed) if isinstance(handed, dict) else handed
    assert upload(hours, body, media=media, mode="replace")["revision"] == 1  # nothing changes
    query = {"time_zone": "Europe/Berlin", "frequency": "h", "future_columns": "price"}
    again = upload(hours, body, "e", media, **query)
    assert again["digest"] == hours.get("/v1/datasets/d/revisions/1").json()["digest"]
    assert read(hours, name="e") == read(hours)


def test_binary_formats_keep_the_zone_and_the_types(hours: TestClient) -> None:
    table = pq.read_table(io.BytesIO(read(hours, accept=MEDIA[2])))
    stream = pa.ipc.open_stream(read(hours, accept=MEDIA[3])).read_all()
    assert table.column("ds").type == stream.column("ds").type == pa.timestamp("us", "Europe/Berlin")
    assert stream.column("y").to_pylist() == [1.5, 2.0, None, 4.0, None]


def test_a_format_that_is_not_written_is_406(hours: TestClient) -> None:
    refused = hours.get("/v1/datasets/d/series/x/points", headers={"Accept": "image/png"})
    assert (refused.status_code, "text/csv" in refused.json()["detail"]) == (406, True)


def test_integer_steps_come_and_go_as_integers(client: TestClient) -> None:
    answer = upload(client, "key,t,value\nx,-3,1\nx,-1,2\nx,1,4\n", time_column="t", frequency="step")
    assert answer["frequency"] == "step"
    assert read(client) == {"key": ["x"] * 5, "timestamp": [-3, -2, -1, 0, 1], "value": [1, None, 2, None, 4]}
    assert read(client, start="-2", limit=2)["timestamp"] == [-2, -1]
    assert read(client, end="-3")["timestamp"] == [-3]
    assert client.get("/v1/datasets/d/series/x/points?start=2026-01-01").status_code == 422
    shown = client.get("/v1/datasets/d").json()
    assert (shown["start"], shown["end"]) == (-3, 1)
    listed = client.get("/v1/datasets/d/series").json()["series"]
    assert listed == [{"key": "x", "start": -3, "end": 1, "points": 3, "missing": 2}]
    assert upload(client, read(client, accept="text/csv"))["revision"] == 1


@pytest.mark.parametrize("key", ["a/b", "a/points", "/a", "ä 100%", "a?b#c", "points", "a//b", "…", "1"])
def test_keys_of_any_kind_have_a_url(client: TestClient, key: str) -> None:
    upload(client, orjson.dumps([{"key": key, "timestamp": "2026-01-01", "value": 1}]), media=MEDIA[0], frequency="D")
    for escaped in {quote(key, safe=""), quote(key, safe="/")}:
        assert read(client, escaped)["key"] == [key]
    assert client.delete(f"/v1/datasets/d/series/{quote(key, safe='')}").status_code == 204
    assert client.get(f"/v1/datasets/d/series/{quote(key, safe='')}/points").status_code == 404


@pytest.mark.parametrize("key", ["b", "%00", "x%00", "%FF", "x" * 256])
def test_a_key_that_is_not_there_is_refused(hours: TestClient, key: str) -> None:
    for method, path in (("GET", "/points"), ("DELETE", "")):
        assert hours.request(method, f"/v1/datasets/d/series/{key}{path}").status_code in (404, 422)


# ---------------------------------------------------------------- appended one by one


DAY = 86_400_000_000
NEW_YEAR = 20_454 * DAY  # 2026-01-01


def test_points_are_appended_as_one_revision(client: TestClient, database: Database) -> None:
    upload(client, "key,timestamp,value\na,2026-01-01,1\nb,2026-01-01T06:00,2\nb,2026-01-02T06:00,2\n", frequency="D")
    arrived = [("b", NEW_YEAR + 2 * DAY + DAY // 4, 3.0), ("c", NEW_YEAR, 7.0), ("a", NEW_YEAR + DAY, None)]
    with database.write("default") as session:
        outcome = datasets.append_points(session, datasets.get(session, "d"), arrived)
        assert (outcome.revision.number, outcome.inserted, outcome.unchanged) == (2, 2, 1)
    with database.read("default") as session:
        series = datasets.read_series(session, datasets.get(session, "d"), keys=["c", "b"])
    assert [(one.key, one.target.tolist()) for one in series] == [("c", [7.0]), ("b", [2.0, 2.0, 3.0])]


@pytest.mark.parametrize(
    ("points", "kind", "pointer"),
    [
        ([("a", NEW_YEAR, 2.0)], Conflict, None),
        ([("a", NEW_YEAR + DAY, 2.0), ("a", NEW_YEAR + DAY + 1, 2.0)], Invalid, "/points/1/timestamp"),
        ([("a", NEW_YEAR + DAY, 2.0), ("b", NEW_YEAR, 1.0), ("a", NEW_YEAR + DAY, 3.0)], Invalid, "/points/2/value"),
        ([("a", NEW_YEAR + DAY, np.inf)], Invalid, "/points/0/value"),
        ([("", NEW_YEAR, 1.0)], Invalid, "/points/0/key"),
        ([("a\0", NEW_YEAR, 1.0)], Invalid, "/points/0/key"),
        ([], Invalid, "/points"),
    ],
)
def test_points_that_do_not_fit_are_refused(
    client: TestClient,
    database: Database,
    points: list[tuple[str, int, float]],
    kind: type[AppError],
    pointer: str | None,
) -> None:
    upload(client, "key,timestamp,value\na,2026-01-01,1\n", frequency="D")
    with pytest.raises(kind) as refused, database.write("default") as session:
        datasets.append_points(session, datasets.get(session, "d"), points)
    assert refused.value.errors[0].pointer == pointer
    assert client.get("/v1/datasets/d").json()["revision"] == 1


def test_points_equal_to_stored_ones_change_nothing(client: TestClient, database: Database) -> None:
    upload(client, "key,timestamp,value\na,2026-01-01,1\n", frequency="D")
    with database.write("default") as session:
        outcome = datasets.append_points(session, datasets.get(session, "d"), [("a", NEW_YEAR, 1.0)] * 2)
        assert (outcome.created, outcome.revision.number, outcome.unchanged) == (False, 1, 1)


def test_a_point_far_away_is_refused_before_anything_is_allocated(client: TestClient, database: Database) -> None:
    upload(client, "key,timestamp,value\na,2026-01-01T00:00:00Z,1\na,2026-01-01T00:00:01Z,1\n", frequency="s")
    with pytest.raises(Invalid, match="reach over"), database.write("default") as session:
        datasets.append_points(session, datasets.get(session, "d"), [("a", NEW_YEAR + 4000 * DAY, 1.0)])
    with pytest.raises(Invalid, match=r"may over 10,300"), database.write("default") as session:
        datasets.append_points(session, datasets.get(session, "d"), [("a", NEW_YEAR + DAY, 1.0)])
    with database.write("default") as session:
        datasets.append_points(session, datasets.get(session, "d"), [("a", NEW_YEAR + 10_000_000_000, 1.0)])


# ---------------------------------------------------------------- a whole dataset

MANY = "key,timestamp,value,promo,size\n" + "".join(
    f"{key},2026-03-{day:02},{'' if day == 4 else day / 4},{day % 2},{key.upper()}\n"
    for key in ("b", "a/1")
    for day in range(1, 9 if key == "b" else 6)
)


@pytest.mark.parametrize("media", ["text/csv", "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"])
def test_a_whole_dataset_is_its_series_end_to_end_and_goes_up_again(client: TestClient, media: str) -> None:
    upload(client, MANY, future_columns="promo", static_columns="size")
    each = b"".join(read(client, quote(key, safe=""), accept="application/x-ndjson") for key in ("a/1", "b"))
    answer = client.get("/v1/datasets/d/points", headers={"Accept": "application/x-ndjson"})
    assert answer.content == each
    answer = client.get("/v1/datasets/d/points", headers={"Accept": media})
    assert answer.status_code == 200
    assert upload(client, answer.content, media=media) == upload(client, MANY, future_columns="promo")
    assert upload(client, answer.content, "e", media)["points"] == 11


@pytest.mark.parametrize("media", MEDIA[2:4])
def test_a_covariate_that_is_missing_is_null(client: TestClient, media: str) -> None:
    rows = MANY.replace("2026-03-03,0.75,1,", "2026-03-03,0.75,,")
    upload(client, rows, future_columns="promo")
    content = client.get("/v1/datasets/d/points", headers={"Accept": media}).content
    found = pa.ipc.open_stream(content).read_all() if media == MEDIA[3] else pq.read_table(io.BytesIO(content))
    promo = found.column("promo")
    assert promo.null_count == 2
    assert np.isfinite(promo.drop_null().to_numpy()).all()


def test_a_dataset_that_becomes_another_ends_the_stream(client: TestClient, database: Database) -> None:
    """Its name may come back with other rows, which must not go on where the first one's end."""
    upload(client, "key,timestamp,value\n" + "".join(f"k{place},2026-03-01,1\n" for place in range(4)), frequency="D")
    with database.read("default") as session:
        pages = points.pages(database, datasets.get(session, "d"), 1, 2)
    assert next(pages).column("key").to_pylist() == ["k0", "k1"]
    assert client.delete("/v1/datasets/d").status_code == 204
    upload(client, "key,timestamp,value\n" + "".join(f"k{place},2026-03-01,2\n" for place in range(4)), frequency="D")
    with pytest.raises(NotFound, match="deleted"):
        next(pages)


@pytest.mark.parametrize("media", [*STREAMS])
def test_a_whole_dataset_without_a_point_is_an_answer(client: TestClient, media: str) -> None:
    upload(client, "key,timestamp,value\na,2026-03-01,1\n", frequency="D")
    assert client.delete("/v1/datasets/d/series/a").status_code == 204
    answer = client.get("/v1/datasets/d/points", headers={"Accept": media})
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, media)


def test_a_whole_dataset_as_of_a_revision(client: TestClient) -> None:
    upload(client, "key,timestamp,value\na,2026-03-01,1\na,2026-03-02,2\n")
    upload(client, "key,timestamp,value\na,2026-03-03,3\nb,2026-03-01,9\n", mode="upsert")
    upload(client, "key,timestamp,value\nb,2026-03-01,7\n", mode="replace")
    texts = [client.get("/v1/datasets/d/points", params={"revision": n}).text for n in (1, 2, 3)]
    assert [text.count("\n") - 1 for text in texts] == [2, 4, 1]
    assert texts[2].splitlines()[1].startswith("b,2026-03-01")
    assert texts[2].endswith(",7\n")
    assert client.get("/v1/datasets/d/points", params={"revision": 4}).status_code == 422
    assert client.get("/v1/datasets/no/points").status_code == 404
    assert client.get("/v1/datasets/d/points", headers={"Accept": "image/png"}).status_code == 406


def test_pages_of_a_dataset_are_the_whole_of_it(client: TestClient, database: Database) -> None:
    rows = "".join(f"k{place},2026-03-{day:02},{place * day}\n" for place in range(7) for day in range(1, 4 + place))
    upload(client, "key,timestamp,value\n" + rows)
    found: list[Any] = []
    after: str | None = None
    with database.read("default") as session:
        while True:
            table, after = points.page(session, datasets.get(session, "d"), 1, after, 3)
            found += table.to_pylist()
            if after is None:
                break
    assert [(row["key"], row["value"]) for row in found] == [
        (f"k{place}", float(place * day)) for place in range(7) for day in range(1, 4 + place)
    ]
