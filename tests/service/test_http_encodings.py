"""Packed bodies in, packed answers out."""

import gzip
import json
from collections.abc import Iterator

import pytest
import zstandard
from fastapi import Response
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from app.config import Settings
from app.http.encodings import LEAST
from app.main import create_app

BODY = json.dumps({"a": "x" * 100}).encode()


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    app = create_app(settings.model_copy(update={"max_json_bytes": 2000}))

    @app.post("/parsed")
    def parsed(body: dict[str, str]) -> int:
        return sum(map(len, body.values()))

    @app.get("/text/{length}")
    def text(length: int, media: str = "text/csv", streamed: bool = False) -> Response:
        body = b"0123456789" * (length // 10)
        if streamed:
            return StreamingResponse(
                (body[start : start + LEAST] for start in range(0, length, LEAST)), media_type=media
            )
        return Response(body, media_type=media)

    with TestClient(app) as opened:
        yield opened


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_a_packed_body_is_read(client: TestClient, coding: str, pack) -> None:  # type: ignore[no-untyped-def]
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    assert client.post("/parsed", content=pack(BODY), headers=headers).json() == 100
    for parts in (pack(BODY)[:-8], b"no such thing", b""):
        answer = client.post("/parsed", content=parts, headers=headers)
        assert answer.status_code == 422, answer.text
    bomb = pack(json.dumps({"a": "x" * 10_000_000}).encode())
    answer = client.post("/parsed", content=bomb[:1999], headers=headers)  # a start of it is bomb enough
    assert answer.status_code in (413, 422)
    answer = client.post("/parsed", content=pack(json.dumps({"a": "x" * 3000}).encode()), headers=headers)
    assert answer.status_code == 413
    assert "unpacks" in answer.json()["detail"]
    answer = client.post("/parsed", content=pack(bytes(range(256)) * 16), headers=headers)
    assert answer.status_code == 413


def test_other_codings_are_refused(client: TestClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "br"}
    answer = client.post("/parsed", content=BODY, headers=headers)
    assert answer.status_code == 415
    assert "gzip or zstd" in answer.json()["detail"]
    assert client.post("/parsed", content=BODY, headers=headers | {"Content-Encoding": "identity"}).json() == 100
    over = client.post("/parsed", content=b"x" * 3000, headers=headers | {"Content-Encoding": "gzip"})
    assert over.status_code == 413


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("gzip, zstd;q=0.5", "zstd"),
        ("zstd;q=0, gzip", "gzip"),
        ("br", None),
        ("identity", None),
        ("", None),
    ],
)
def test_a_long_text_is_packed_for_those_who_take_it(
    client: TestClient, accepted: str, coding: str | None, streamed: bool
) -> None:
    length = 10 * LEAST
    answer = client.get(f"/text/{length}?streamed={streamed}", headers={"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == coding
    # The test client unpacks gzip itself.
    content = (
        zstandard.ZstdDecompressor().decompressobj().decompress(answer.content) if coding == "zstd" else answer.content
    )
    assert content == b"0123456789" * (length // 10)
    if coding:
        assert "accept-encoding" in answer.headers["vary"].lower()
        assert "content-length" not in answer.headers


def test_what_is_short_or_packed_already_is_left_alone(client: TestClient) -> None:
    headers = {"Accept-Encoding": "gzip, zstd"}
    for path in (f"/text/{LEAST - 20}", f"/text/{2 * LEAST}?media=application/vnd.apache.parquet", "/healthz"):
        assert "content-encoding" not in client.get(path, headers=headers).headers
