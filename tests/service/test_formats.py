"""What a table looks like in each of the five formats, and which of them a request gets."""

import asyncio
import io
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.errors import NotAcceptable
from app.http import formats
from app.services import texts


def asking(accept: str | None) -> Request:
    headers = [] if accept is None else [(b"accept", accept.encode())]
    return Request({"type": "http", "headers": headers})


def body(response: Response) -> bytes:
    if not isinstance(response, StreamingResponse):
        return bytes(response.body)

    async def collect() -> bytes:
        return b"".join([bytes(chunk) async for chunk in response.body_iterator])  # type: ignore[arg-type]

    return asyncio.run(collect())


@pytest.fixture
def table() -> pa.Table:
    """Four rows around the end of summer time in Berlin: 02:00 happens twice on 2023-10-29."""
    hours = np.array(["2023-10-28T23:30", "2023-10-29T00:30", "2023-10-29T01:30", "2023-10-29T02:30"], "datetime64[us]")
    keys = pa.array(["a", 'b,"c"', "ü/ä", ""])
    return pa.table(
        {
            "key": keys.dictionary_encode(),
            "timestamp": pa.array(hours.astype(np.int64)).cast(pa.timestamp("us", "Europe/Berlin")),
            "value": np.array([1.0, np.nan, 0.1 + 0.2, -1e22]),
            "step": pa.array([1, None, 2**53, -3], pa.int64()),
        }
    )


STAMPS = [
    "2023-10-29T01:30:00+02:00",
    "2023-10-29T02:30:00+02:00",
    "2023-10-29T02:30:00+01:00",
    "2023-10-29T03:30:00+01:00",
]
COLUMNS: dict[str, list[Any]] = {
    "key": ["a", 'b,"c"', "ü/ä", ""],
    "timestamp": STAMPS,
    "value": [1.0, None, 0.30000000000000004, -1e22],
    "step": [1, None, 2**53, -3],
}


def test_json_is_one_object_of_columns_with_null_for_what_is_missing(table: pa.Table) -> None:
    assert orjson.loads(body(formats.table_response(table, formats.JSON))) == COLUMNS


@pytest.mark.parametrize("media", [formats.NDJSON, formats.JSONL])
def test_ndjson_has_one_object_a_row(table: pa.Table, media: str) -> None:
    answer = formats.table_response(table, media)
    lines = body(answer).decode().splitlines()
    assert [orjson.loads(line) for line in lines] == [
        dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)
    ]
    assert answer.headers["content-type"] == media


def test_csv_quotes_what_needs_it_and_leaves_missing_empty(table: pa.Table) -> None:
    assert body(formats.table_response(table, formats.CSV)).decode() == (
        "key,timestamp,value,step\n"
        f"a,{STAMPS[0]},1,1\n"
        f'"b,""c""",{STAMPS[1]},,\n'
        f"ü/ä,{STAMPS[2]},0.30000000000000004,9007199254740992\n"
        f'"",{STAMPS[3]},-1e+22,-3\n'
    )


@pytest.mark.parametrize("media", [formats.PARQUET, formats.ARROW])
def test_parquet_and_arrow_keep_types_and_turn_nan_into_null(table: pa.Table, media: str) -> None:
    sent = body(formats.table_response(table, media))
    read = pq.read_table(io.BytesIO(sent)) if media == formats.PARQUET else pa.ipc.open_stream(sent).read_all()
    assert read.column("timestamp").type == pa.timestamp("us", "Europe/Berlin")
    assert read.column("timestamp").equals(table.column("timestamp"))
    assert read.column("key").to_pylist() == COLUMNS["key"]
    assert read.column("value").to_pylist() == COLUMNS["value"]


@pytest.mark.parametrize("media", formats.TABLES)
def test_an_empty_table_is_written_whole(table: pa.Table, media: str) -> None:
    sent = body(formats.table_response(table.slice(0, 0), media))
    expected = {
        formats.JSON: b'{"key":[],"timestamp":[],"value":[],"step":[]}',
        formats.CSV: b"key,timestamp,value,step\n",
        formats.NDJSON: b"",
        formats.JSONL: b"",
    }
    if media in expected:
        assert sent == expected[media]
    elif media == formats.ARROW:
        assert pa.ipc.open_stream(sent).read_all().num_rows == 0
    else:
        assert pq.read_table(io.BytesIO(sent)).num_rows == 0


def test_text_longer_than_one_piece_is_joined_without_a_seam() -> None:
    rows = texts.ROWS * 2 + 7
    table = pa.table({"key": pa.array(["x"] * rows), "value": np.arange(rows) / 2})
    assert orjson.loads(body(formats.table_response(table, formats.JSON)))["value"] == (np.arange(rows) / 2).tolist()
    read = pyarrow.csv.read_csv(io.BytesIO(body(formats.table_response(table, formats.CSV))))
    assert read.column("value").to_pylist() == (np.arange(rows) / 2).tolist()


@pytest.mark.parametrize(
    ("time", "zone", "said"),
    [
        (0, "UTC", "1970-01-01T00:00:00+00:00"),
        (123_456, "UTC", "1970-01-01T00:00:00.123456+00:00"),
        (-1, "UTC", "1969-12-31T23:59:59.999999+00:00"),
        (0, "America/St_Johns", "1969-12-31T20:30:00-03:30"),
        (1_700_000_000_000_000, "Asia/Kathmandu", "2023-11-15T03:58:20+05:45"),
        # Berlin kept 53 min 28 s until 1893: 53 is said, and the clock with it, so the instant is the same.
        (-2_524_521_600_000_000, "Europe/Berlin", "1890-01-01T00:53:00+00:53"),
    ],
)
def test_times_are_said_with_the_offset_of_their_zone(time: int, zone: str, said: str) -> None:
    table = pa.table({"timestamp": pa.array([time]).cast(pa.timestamp("us", zone))})
    assert orjson.loads(body(formats.table_response(table, formats.JSON))) == {"timestamp": [said]}


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, formats.JSON),
        ("", formats.JSON),
        ("*/*", formats.JSON),
        ("text/csv", formats.CSV),
        ("TEXT/CSV; charset=utf-8", formats.CSV),
        ("text/*", formats.CSV),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", formats.JSON),
        ("application/json;q=0.5, application/vnd.apache.parquet", formats.PARQUET),
        ("*/*, text/csv", formats.CSV),
        ("application/jsonl, application/x-ndjson", formats.JSONL),
        ("application/x-ndjson, application/jsonl", formats.NDJSON),
        ("*/*, application/json;q=0", formats.CSV),
        ("application/vnd.apache.arrow.stream;q=0.3, text/csv;q=0.2", formats.ARROW),
    ],
)
def test_accept_chooses_the_format(accept: str | None, media: str) -> None:
    assert formats.negotiate(asking(accept)) == media


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "text/csv;q=nonsense", "text"])
def test_a_format_nobody_writes_is_refused_with_those_offered(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="text/csv") as refused:
        formats.negotiate(asking(accept))
    assert refused.value.status == 406
