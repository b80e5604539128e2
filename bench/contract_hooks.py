"""What schemathesis uploads where the media type is no JSON: small tables, many of them right, and rubbish."""

import io
import json
import random
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import schemathesis
from hypothesis import strategies as st

NAMES = ("unique_id", "ds", "y")
KEYS = ("us_gasoline", "a", "b/c", "", "ä")
TIMES = ("2020-01-03", "2020-01-10", "2020-01-17T00:00:00Z", "3.1.2020", "", "2020-13-45", "99999")
VALUES = ("1", "2.5", "-3e8", "", "x", "1e999", "NaN")
Row = tuple[str, str, str]


def rows_of(seed: str | bytes) -> list[Row]:
    """A small table that is the same whenever the seed is."""
    chance = random.Random(seed)
    right = chance.random() < 0.5  # then only what can be stored
    keys, times, values = (KEYS[:2], TIMES[:3], VALUES[:4]) if right else (KEYS, TIMES, VALUES)
    return [(chance.choice(keys), chance.choice(times), chance.choice(values)) for _ in range(chance.randrange(6))]


def as_csv(rows: list[Row]) -> bytes:
    return "\n".join([",".join(NAMES), *(",".join(row) for row in rows)]).encode()


def as_lines(rows: list[Row]) -> bytes:
    return "\n".join(json.dumps(dict(zip(NAMES, row, strict=True))) for row in rows).encode()


def as_table(rows: list[Row]) -> pa.Table:
    return pa.table({name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(NAMES)})


def as_parquet(rows: list[Row]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(as_table(rows), sink)
    return sink.getvalue()


def as_arrow(rows: list[Row]) -> bytes:
    sink, table = io.BytesIO(), as_table(rows)
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def text(write: Any, value: Any) -> bytes:
    """The examples and what is meant to be wrong as they are; of other texts every third, else a table of their own."""
    said = str(value)
    if not isinstance(value, str) or "us_gasoline" in said or not len(said) % 3:
        return said.encode("utf-8", "surrogatepass")
    return write(rows_of(said))


@schemathesis.serializer("text/csv")
def csv(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    return text(as_csv, value)


@schemathesis.serializer("application/x-ndjson", "application/jsonl")
def lines(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    return text(as_lines, value)


for media, write in (
    ("application/vnd.apache.parquet", as_parquet),
    ("application/vnd.apache.arrow.stream", as_arrow),
):
    made = st.binary(max_size=8).map(lambda seed, write=write: write(rows_of(seed)))
    schemathesis.openapi.media_type(media, st.one_of(made, st.binary(max_size=64)))
