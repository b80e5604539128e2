"""Tables in and out: which media type an answer takes, and the six that a table can be answered as."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.errors import NotAcceptable
from app.services import texts

JSON = "application/json"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"
JSONL = "application/jsonl"
TABLES = (JSON, CSV, PARQUET, ARROW, NDJSON, JSONL)


def negotiate(request: Request, offered: Sequence[str] = TABLES) -> str:
    """The media type to answer with: the one the client's `Accept` likes best, the first offered when it does not say.

    Equal quality falls to the more exact range, then to the client's order. Raises NotAcceptable, naming those offered.
    """
    header = ",".join(request.headers.getlist("accept"))
    ranges = [_range(part) for part in header.split(",") if part.strip()] or [("*/*", 1.0)]
    best: tuple[float, int, int] | None = None
    chosen = ""
    for media in offered:
        matches = [(_exactness(name, media), -place, q) for place, (name, q) in enumerate(ranges)]
        exactness, place, quality = max(matches)  # the most exact range says how much this type is liked
        if exactness and quality > 0 and (best is None or (quality, exactness, place) > best):
            best, chosen = (quality, exactness, place), media
    if not chosen:
        raise NotAcceptable(f"Accept: expected one of {', '.join(offered)}, got {header!r}.")
    return chosen


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = min(max(float(parameter[2:]), 0.0), 1.0)
            except ValueError:
                quality = 0.0
    return name, quality


def _exactness(name: str, media: str) -> int:
    """3 for the type itself, 2 for its family (`text/*`), 1 for anything, 0 for no match."""
    if name == media:
        return 3
    if name == media.partition("/")[0] + "/*":
        return 2
    return 1 if name == "*/*" else 0


def table_response(table: Any, media: str, headers: Mapping[str, str] | None = None) -> Response:
    """A pyarrow table as `media`; texts are streamed. JSON is one object of equal-length columns, the rest are rows.

    A timestamp column must carry its zone's name; numbers that are missing may be NaN or null. Column order is kept.
    """
    sent = {"Vary": "Accept", **(headers or {})}
    if media in (PARQUET, ARROW):
        binary = texts.parquet_bytes if media == PARQUET else texts.arrow_bytes
        return Response(binary(texts.null_for_nan(table)), media_type=media, headers=sent)
    pieces = {JSON: texts.json_pieces, CSV: texts.csv_pieces, NDJSON: texts.ndjson_pieces, JSONL: texts.ndjson_pieces}[
        media
    ]
    return StreamingResponse(pieces(table), media_type=media, headers=sent)


STREAMS: dict[str, texts.Stream] = {CSV: "csv", ARROW: "arrow", PARQUET: "parquet", NDJSON: "ndjson", JSONL: "ndjson"}


def tables_response(pages: Iterator[Any], media: str, headers: Mapping[str, str] | None = None) -> Response:
    """Pyarrow tables with the same columns as one answer of a media type of STREAMS, `streamed`."""
    return streamed(texts.stream(pages, STREAMS[media]), media, headers)


def streamed(pieces: Iterator[bytes], media: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that is sent while it is made. The first piece is made now: what it raises can still be answered. What
    comes later cuts the connection, which tells the client that the answer is not whole, and is logged."""
    first = next(pieces, b"")  # of no rows, NDJSON has none
    sent = {"Vary": "Accept", **(headers or {})}
    return StreamingResponse(chain([first], pieces), media_type=media, headers=sent)


def documented(description: str, example: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """A route's `responses[200]` for a table: every media type it can have, with `example` (columns) in the texts."""
    names = list(example)
    rows = [dict(zip(names, values, strict=True)) for values in zip(*example.values(), strict=True)]
    lines = [",".join(names), *(",".join("" if v is None else str(v) for v in row.values()) for row in rows)]
    ndjson = "".join(orjson.dumps(row).decode() + "\n" for row in rows)
    text: dict[str, Any] = {"schema": {"type": "string"}}
    binary: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    columns: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "array", "items": {}}}
    return {
        "description": description,
        "content": {
            JSON: {"schema": columns, "example": dict(example)},
            CSV: {**text, "example": "\n".join(lines) + "\n"},
            PARQUET: binary,
            ARROW: binary,
            NDJSON: {**text, "example": ndjson},
            JSONL: {**text, "example": ndjson},
        },
    }
