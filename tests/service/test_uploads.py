"""Uploads over HTTP: every format to the same revision, what each mode does, what is refused; nothing stays behind."""

import gzip
import io
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fastapi.testclient import TestClient
from httpx2 import Response

from app.config import Settings
from app.db.session import Database
from app.services import datasets

ROWS = [
    ("a/1", "2026-01-05T00:00:00+01:00", 1.5, 20.0, "rain", "north"),
    ("a/1", "2026-01-06T00:00:00+01:00", None, 21.5, "sun", "north"),
    ("a/1", "2026-01-07T00:00:00+01:00", 3.0, None, "rain", "north"),
    ("a/1", "2026-01-08T00:00:00+01:00", None, 23.0, "snow", "north"),
    ("b", "2026-01-05T00:00:00+01:00", -7.25, 5.0, "sun", "south"),
    ("b", "2026-01-06T00:00:00+01:00", 0.0, 6.0, "", "south"),
]
NAMES = ("key", "timestamp", "value", "temperature", "weather", "region")
QUERY = {"time_zone": "Europe/Berlin", "future_columns": "weather, temperature", "static_columns": "region"}
MEDIA = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
    "ndjson": "application/x-ndjson",
    "jsonl": "application/jsonl",
    "records": "application/json",
    "columns": "application/json",
}


def written(form: str, rows: list[tuple[Any, ...]] = ROWS) -> bytes:
    """The rows as a file of one of the formats."""
    records = [dict(zip(NAMES, (cell or None if cell == "" else cell for cell in row), strict=True)) for row in rows]
    columns = {name: [record[name] for record in records] for name in NAMES}
    if form == "csv":
        lines = [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
        return "\n".join([",".join(NAMES), *lines]).encode()
    if form in ("ndjson", "jsonl"):
        return b"\n".join(orjson.dumps(record) for record in records)
    if form == "records":
        return orjson.dumps(records)
    if form == "columns":
        return orjson.dumps(columns)
    table = pa.table(columns)
    sink = io.BytesIO()
    if form == "parquet":
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


def send(client: TestClient, body: bytes | str, name: str = "d", media: str = "text/csv", **query: Any) -> Response:
    headers = {"Content-Type": media}
    return client.post(f"/v1/datasets/{name}/revisions", content=body, params=query, headers=headers)


def stored(client: TestClient, body: bytes | str, **query: Any) -> dict[str, Any]:
    answer = send(client, body, **query)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def points(client: TestClient, key: str, name: str = "d", **query: Any) -> dict[str, list[Any]]:
    answer = client.get(f"/v1/datasets/{name}/series/{key}/points", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(autouse=True)
def _spool_is_left_empty(settings: Settings) -> Any:
    yield
    assert list(settings.spool.iterdir()) == []


# ---------------------------------------------------------------- formats


def test_every_format_makes_the_same_revision(client: TestClient) -> None:
    digests = set()
    for form, media in MEDIA.items():
        name = f"d-{form}"
        made = send(client, written(form), name, media, **QUERY)
        assert made.status_code == 201, made.text
        answer = made.json()
        digests.add(answer["digest"])
        counts = {name: answer[name] for name in ("revision", "series", "points", "inserted", "updated", "unchanged")}
        assert counts == {"revision": 1, "series": 2, "points": 4, "inserted": 6, "updated": 0, "unchanged": 0}
        assert made.headers["location"] == f"/v1/datasets/{name}/revisions/1"
        assert client.get(made.headers["location"]).json() == answer
        assert points(client, "a/1", name) == {
            "key": ["a/1"] * 4,
            "timestamp": [f"2026-01-0{day}T00:00:00+01:00" for day in (5, 6, 7, 8)],
            "value": [1.5, None, 3.0, None],
            "region": ["north"] * 4,
            "temperature": [20.0, 21.5, None, 23.0],
            "weather": ["rain", "sun", "rain", "snow"],
        }
    assert len(digests) == 1
    assert client.get("/v1/datasets/d-csv").json()["covariates"] == [
        {"name": "region", "role": "static", "kind": "category"},
        {"name": "temperature", "role": "future", "kind": "number"},
        {"name": "weather", "role": "future", "kind": "category"},
    ]


def test_the_digest_says_the_content_and_its_history(client: TestClient) -> None:
    shuffled = stored(client, written("csv", ROWS[::-1]), name="d", **QUERY)["digest"]
    assert stored(client, written("csv"), name="e", mode="replace", **QUERY)["digest"] == shuffled
    assert stored(client, written("csv", ROWS[:-1]), name="f", **QUERY)["digest"] != shuffled
    assert stored(client, written("csv"), name="g", **(QUERY | {"time_zone": "UTC"}))["digest"] != shuffled
    second = stored(client, written("csv"), name="f", **QUERY)
    assert second["revision"] == 2
    assert second["digest"] != shuffled


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress), (None, gzip.compress)],
)
def test_packed_bodies_are_unpacked(client: TestClient, encoding: str | None, pack: Any) -> None:
    plain = stored(client, written("csv"), **QUERY)["digest"]
    headers = {"Content-Type": "text/csv"} | ({"Content-Encoding": encoding} if encoding else {})
    made = client.post("/v1/datasets/e/revisions", content=pack(written("csv")), params=QUERY, headers=headers)
    assert (made.status_code, made.json().get("digest")) == (201, plain)


@pytest.mark.parametrize(
    ("file_name", "media", "form"),
    [
        ("x.csv", "text/csv", "csv"),
        ("x.parquet", "application/octet-stream", "parquet"),
        ("x", "application/vnd.apache.arrow.stream", "arrow"),
        ("X.JSONL.GZ", "application/gzip", "jsonl"),
    ],
)
def test_a_form_with_one_file_is_the_file(client: TestClient, file_name: str, media: str, form: str) -> None:
    body = gzip.compress(written(form)) if file_name.endswith("GZ") else written(form)
    made = client.post("/v1/datasets/d/revisions", files={"file": (file_name, body, media)}, params=QUERY)
    assert made.status_code == 201, made.text
    assert made.json()["digest"] == stored(client, written("csv"), name="e", **QUERY)["digest"]


@pytest.mark.parametrize(
    ("content_type", "body", "status", "says"),
    [
        ("multipart/form-data", b"x", 422, "boundary"),
        ("multipart/form-data; boundary=q", b"", 422, "early"),
        ("multipart/form-data; boundary=q", b"rubbish", 422, "form"),
        ("multipart/form-data; boundary=q", b"--q--\r\n", 422, "form"),
        (
            "multipart/form-data; boundary=q",
            b'--q\r\nContent-Disposition: form-data; name="data"; filename="x.csv"\r\n\r\na\r\n--q--\r\n',
            422,
            "one part named `file`",
        ),
        (
            "multipart/form-data; boundary=q",
            b'--q\r\nContent-Disposition: form-data; name="file"; filename="x.csv"\r\n\r\nkey,timestamp,value\r\na,20',
            422,
            "early",
        ),
        (
            "multipart/form-data; boundary=q",
            b'--q\r\nContent-Disposition: form-data; name="file"; filename="x.exe"\r\n\r\nMZ\r\n--q--\r\n',
            415,
            "text/csv",
        ),
        ("multipart/form-data; boundary=q", b"--q\r\nX: " + b"y" * 20_000, 422, "header"),
        ("application/x-www-form-urlencoded", b"a=1", 415, "text/csv"),
        ("", b"a,b\n1,2", 415, "text/csv"),
    ],
)
def test_bodies_that_are_no_upload_are_refused(
    client: TestClient, content_type: str, body: bytes, status: int, says: str
) -> None:
    answer = client.post("/v1/datasets/d/revisions", content=body, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert says in answer.text
    assert client.get("/v1/datasets/d").status_code == 404


# ---------------------------------------------------------------- modes


DAYS = "key,timestamp,value\na,2026-01-01,1\na,2026-01-02,2\na,2026-01-03,3\nb,2026-01-01,5\n"
COUNTS = ("revision", "series", "points", "inserted", "updated", "unchanged")


def counts(answer: dict[str, Any]) -> tuple[int, ...]:
    return tuple(answer[name] for name in COUNTS)


def test_an_upload_that_changes_nothing_makes_no_revision(client: TestClient) -> None:
    first = stored(client, DAYS)
    for mode in ("append", "upsert", "replace"):
        again = send(client, DAYS, mode=mode)
        assert again.status_code == 200
        assert counts(again.json()) == (1, 2, 4, 0, 0, 4)
        assert again.json()["digest"] == first["digest"]
        assert again.headers["location"] == "/v1/datasets/d/revisions/1"


def test_append_adds_fills_gaps_and_never_changes(client: TestClient) -> None:
    stored(client, DAYS)
    more = "key,timestamp,value\na,2026-01-03,3\na,2026-01-06,6\nc,2026-01-02,9\n"
    assert counts(stored(client, more)) == (2, 3, 6, 2, 0, 1)
    assert points(client, "a")["value"] == [1, 2, 3, None, None, 6]
    assert counts(stored(client, "key,timestamp,value\na,2026-01-04,4\n")) == (3, 3, 7, 1, 0, 0)
    changing = "key,timestamp,value\na,2026-01-02,7\na,2026-01-03,\nb,2026-01-01,5\nb,2026-01-02,6\n"
    refused = send(client, changing)
    problem = refused.json()
    assert (refused.status_code, problem["type"], problem["error_count"]) == (409, "/docs/errors#value-changed", 2)
    assert [(error["column"], error["value_preview"]) for error in problem["errors"]] == [
        ("value", "7"),
        ("value", "null"),
    ]
    assert "'a' at 2026-01-02T00:00:00+00:00: 2 is stored, 7 was sent" in problem["errors"][0]["message"]
    assert client.get("/v1/datasets/d").json()["revision"] == 3
    assert points(client, "b")["value"] == [5]


def test_upsert_overwrites_and_an_explicit_null_too(client: TestClient) -> None:
    stored(client, DAYS)
    changing = "key,timestamp,value\na,2026-01-02,7\na,2026-01-03,\nb,2026-01-01,5\nb,2026-01-02,6\n"
    assert counts(stored(client, changing, mode="upsert")) == (2, 2, 4, 1, 2, 1)
    assert points(client, "a")["value"] == [1, 7]
    assert points(client, "a", revision=1)["value"] == [1, 2, 3]
    shown = client.get("/v1/datasets/d").json()
    assert (shown["start"], shown["end"]) == ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00")


def test_replace_is_the_whole_new_content(client: TestClient) -> None:
    stored(client, DAYS)
    new = "key,timestamp,value\nb,2026-01-01,5\nb,2026-02-01,6\nc,2026-01-15,1\n"
    assert counts(stored(client, new, mode="replace")) == (2, 2, 3, 2, 0, 1)
    listed = client.get("/v1/datasets/d/series").json()["series"]
    assert [(one["key"], one["points"]) for one in listed] == [("b", 2), ("c", 1)]
    assert client.get("/v1/datasets/d/series/a/points").status_code == 404
    assert points(client, "a", revision=1)["value"] == [1, 2, 3]
    assert counts(stored(client, "key,timestamp,value\na,2026-01-09,8\n")) == (3, 3, 4, 1, 0, 0)
    assert points(client, "a") == {"key": ["a"], "timestamp": ["2026-01-09T00:00:00+00:00"], "value": [8]}


def test_replace_drops_covariates_that_it_leaves_out(client: TestClient) -> None:
    stored(client, written("csv"), **QUERY)
    plain = "key,timestamp,value\nb,2026-01-05T00:00:00+01:00,-7.25\n"
    stored(client, plain, mode="replace")
    assert client.get("/v1/datasets/d").json()["covariates"] == []
    assert points(client, "b") == {"key": ["b"], "timestamp": ["2026-01-05T00:00:00+01:00"], "value": [-7.25]}
    assert points(client, "b", revision=1)["weather"] == ["sun", None]
    stored(client, written("csv"), mode="upsert", **QUERY)
    assert points(client, "b")["region"] == ["south", "south"]
    assert points(client, "b")["weather"] == ["sun", None]


def test_covariates_are_changed_by_upsert_alone(client: TestClient) -> None:
    stored(client, written("csv"), **QUERY)
    warmer = [(*row[:3], 30.0, "hail", "north") for row in ROWS[3:4]]
    refused = send(client, written("csv", warmer), **QUERY)
    problem = refused.json()
    assert (refused.status_code, problem["error_count"]) == (409, 2)
    assert [(error["column"], error["value_preview"]) for error in problem["errors"]] == [
        ("temperature", "30"),
        ("weather", "'hail'"),
    ]
    assert counts(stored(client, written("csv", warmer), mode="upsert", **QUERY)) == (2, 2, 4, 0, 1, 0)
    assert points(client, "a/1")["weather"] == ["rain", "sun", "rain", "hail"]
    moved = [(*row[:5], "east") for row in ROWS[4:]]
    assert send(client, written("csv", moved), **QUERY).status_code == 409
    assert stored(client, written("csv", moved), mode="upsert", **QUERY)["revision"] == 3
    assert points(client, "b")["region"] == ["east", "east"]
    assert points(client, "b", revision=2)["region"] == ["south", "south"]


def test_future_covariates_run_on_after_the_last_value(client: TestClient, database: Database) -> None:
    stored(client, written("csv"), **QUERY)
    with database.read("default") as session:
        one, _ = datasets.read_series(session, datasets.get(session, "d"))
    assert one.target.tolist()[::2] == [1.5, 3.0]
    assert len(one.target) == 3
    assert [round(value, 1) for value in one.future["temperature"][[0, 1, 3]]] == [20.0, 21.5, 23.0]
    assert one.future["weather"].tolist() == [1, 3, 1, 2]  # rain, snow, sun
    assert one.static == {"region": 1.0}
    arrived = [("a/1", "2026-01-08T00:00:00+01:00", 9.0, 23.0, "snow", "north")]
    assert counts(stored(client, written("csv", arrived), **QUERY)) == (2, 2, 5, 1, 0, 0)


# ---------------------------------------------------------------- refused, repeated


def test_a_wrong_file_stores_nothing_and_says_where(client: TestClient) -> None:
    refused = send(client, "key,timestamp,value\na,2026-01-01,1\na,2026-01-02,two\n")
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["row"] == 3
    assert client.get("/v1/datasets/d").status_code == 404
    stored(client, DAYS)
    assert send(client, "key,timestamp,value\na,2026-01-04,inf\n").status_code == 422
    assert client.get("/v1/datasets/d").json()["revision"] == 1


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"mode": "merge"}, "query/mode"),
        ({"modus": "append"}, "query/modus"),
        ({"time_zone": "Mars/Olympus"}, "query/time_zone"),
    ],
)
def test_a_wrong_query_is_refused(client: TestClient, query: dict[str, str], pointer: str) -> None:
    refused = send(client, DAYS, **query)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)


def test_the_calendar_of_a_dataset_stays(client: TestClient) -> None:
    stored(client, DAYS)
    assert send(client, DAYS, time_zone="Europe/Berlin").status_code == 422
    assert send(client, DAYS, frequency="h").status_code == 422
    client.post("/v1/datasets", json={"name": "e", "time_zone": "Asia/Tokyo"})
    assert stored(client, DAYS, name="e")["frequency"] == "D"
    assert client.get("/v1/datasets/e").json()["start"] == "2026-01-01T00:00:00+09:00"


def test_a_body_over_the_limit_is_refused(settings: Settings, tmp_path: Path) -> None:
    from app.main import create_app

    small = settings.model_copy(update={"max_body_bytes": 2000})
    with TestClient(create_app(small)) as client:
        assert send(client, DAYS + "a,2026-01-04,4\n" * 500).status_code == 413

        def endless() -> Any:
            for _ in range(500):
                yield DAYS.encode()

        assert send(client, endless()).status_code == 413  # type: ignore[arg-type]
        assert client.get("/v1/datasets/d").status_code == 404


def test_a_repeated_upload_is_stored_once(client: TestClient) -> None:
    headers = {"Content-Type": "text/csv", "Idempotency-Key": "night-1"}
    url = "/v1/datasets/d/revisions"
    first = client.post(url, content=DAYS, headers=headers)
    stored(client, "key,timestamp,value\na,2026-01-03,4\n", mode="upsert")
    again = client.post(url, content=DAYS, headers=headers)  # would be refused by now
    assert (again.status_code, again.json()) == (201, first.json())
    assert client.get("/v1/datasets/d").json()["revision"] == 2
    assert client.post(url, content=DAYS + "a,2026-01-09,1\n", headers=headers).status_code == 422


def test_revisions_and_audits_that_are_not_there(client: TestClient) -> None:
    assert client.get("/v1/datasets/d/revisions/1").status_code == 404
    audit = stored(client, DAYS + "a,2026-01-03,3\n")["audit"]
    assert (audit["errors"], audit["warnings"]) == (0, 1)
    shown = client.get(audit["href"]).json()
    assert (shown["revision"], shown["warning_count"], shown["errors"]) == (1, 1, [])
    assert shown["warnings"][0]["message"]
    for path in ("revisions/2", "revisions/2/audit"):
        assert client.get(f"/v1/datasets/d/{path}").status_code == 404
    assert client.get("/v1/datasets/d/revisions/0").status_code == 422


def test_a_large_upload_is_planned_for_at_once(client: TestClient, database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite plans without statistics")
    rows = "".join(f"series {place},2026-01-0{day},{place}\n" for place in range(8000) for day in (1, 2))
    stored(client, "key,timestamp,value\n" + rows)
    with database.read("default") as session:
        told = session.connection().exec_driver_sql("select reltuples from pg_class where relname = 'segments'")
        assert told.scalar() == 8000
