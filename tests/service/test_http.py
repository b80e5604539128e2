"""What every answer has and every request passes: ids, headers, limits, roots, log lines."""

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import Request, Response
from fastapi.testclient import TestClient

from app.config import Settings
from app.db.session import Database
from app.errors import Invalid
from app.http import logs
from app.http.chores import attempt
from app.http.idempotency import tidy
from app.http.pages import decode_token, encode_token
from app.main import LEFTOVER_S, create_app, sweep_spool


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Standard error as the server writes it; the form is set by the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)


def _log_to(stream: io.StringIO, level: str, form: str) -> None:
    logs.configure(level, form)
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)


def test_every_answer_has_an_id(client: TestClient) -> None:
    first, second = (client.get("/healthz").headers["x-request-id"] for _ in range(2))
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second
    assert client.get("/nowhere", headers={"X-Request-Id": "trace-1.a:b_c"}).json()["instance"] == "trace-1.a:b_c"


@pytest.mark.parametrize("bad", ["", " ", "a b", "x" * 129, "-a", 'a"b', "a\tb"])
def test_an_id_that_could_do_harm_is_not_taken(client: TestClient, bad: str) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": bad}).headers["x-request-id"] != bad


@pytest.mark.parametrize("path", ["/healthz", "/v1/system", "/nowhere"])
def test_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"
    assert re.match(r"total;dur=\d+\.\d", headers["server-timing"])
    assert "access-control-allow-origin" not in headers


@pytest.fixture
def echo(settings: Settings) -> Iterator[TestClient]:
    """The application with small limits and two routes that read what they are sent."""
    app = create_app(settings.model_copy(update={"max_json_bytes": 2000, "max_body_bytes": 5000}))

    @app.post("/raw")
    async def raw(request: Request) -> int:
        return sum([len(part) async for part in request.stream()])

    @app.post("/parsed")
    def parsed(body: dict[str, str]) -> int:
        return len(body)

    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("path", ["/raw", "/parsed"])
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_refused(echo: TestClient, path: str, announced: bool) -> None:
    fits, over = json.dumps({"a": "x" * 1000}).encode(), json.dumps({"a": "x" * 2000}).encode()

    def post(body: bytes) -> tuple[int, dict[str, object] | int]:
        parts = body if announced else iter([body[:900], body[900:]])
        answer = echo.post(path, content=parts, headers={"Content-Type": "application/json"})
        assert ("content-length" in answer.request.headers) is announced
        return answer.status_code, answer.json()

    assert post(fits)[0] == 200
    status, problem = post(over)
    assert status == 413
    assert isinstance(problem, dict)
    assert problem["type"] == "/docs/errors#too-large"
    assert "2000 bytes" in str(problem["detail"])


def test_an_upload_may_be_larger_than_other_bodies(echo: TestClient) -> None:
    body, headers = b"x" * 3000, {"Content-Type": "text/x-nothing"}
    assert echo.post("/v1/datasets/d/revisions", content=body, headers=headers).status_code != 413
    answer = echo.post("/v1/datasets/d/revisions", content=body * 2, headers=headers)
    assert answer.status_code == 413
    assert "upload" in answer.json()["detail"]


def test_a_root_path_is_in_what_leads_back(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"root_path": "/fc/"}))

    @app.post("/v1/things", status_code=201)
    def make() -> Response:
        return Response(status_code=201, headers={"Location": "/v1/things/1"})

    with TestClient(app) as client:
        for name in ("a", "b"):
            assert client.post("/v1/datasets", json={"name": name}).status_code == 201
        for prefix in ("", "/fc"):  # a proxy takes the root off, or does not
            assert client.get(prefix + "/healthz").status_code == 200
            assert client.post(prefix + "/v1/things").headers["location"] == "/fc/v1/things/1"
            assert client.get(prefix + "/nowhere").json()["type"] == "/fc/docs/errors#not-found"
            page = client.get(prefix + "/v1/datasets?page_size=1")
            assert (
                page.links["next"]["url"] == f"/fc/v1/datasets?page_size=1&page_token={page.json()['next_page_token']}"
            )
            assert client.get(prefix + "/openapi.json").json()["servers"] == [{"url": "/fc"}]
        assert 'src="/fc/docs/static/docs.js"' in client.get("/docs").text


def test_other_origins_are_let_in_only_by_name(settings: Settings) -> None:
    asking = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    with TestClient(create_app(settings.model_copy(update={"cors_origins": ("https://a.example",)}))) as client:
        answer = client.options("/v1/jobs", headers=asking)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        assert (
            "access-control-allow-origin"
            not in client.options("/v1/jobs", headers=asking | {"Origin": "https://b"}).headers
        )


def test_log_lines_for_people_and_machines(client: TestClient, lines: io.StringIO) -> None:
    _log_to(lines, "info", "text")
    client.get("/v1/system", headers={"X-Request-Id": "abc"})
    client.get("/healthz")
    client.get("/no%0Aforged line")
    first, second = (line for line in lines.getvalue().splitlines() if "access: " in line)
    assert re.search(r"info +access: 200 GET /v1/system client=testclient ms=[\d.]+ request_id=abc$", first)
    assert "404 GET /no\\nforged line" in second

    _log_to(lines, "debug", "json")
    lines.truncate(0)
    lines.seek(0)
    client.get("/healthz", headers={"X-Request-Id": "def"})
    line = next(line for line in map(json.loads, lines.getvalue().splitlines()) if line["logger"] == "gatecast.access")
    assert line["message"] == "200 GET /healthz"
    assert (line["level"], line["request_id"]) == ("debug", "def")


def test_the_spool_loses_only_what_is_old(settings: Settings) -> None:
    old, new = settings.spool / "old", settings.spool / "new"
    for file in (old, new):
        file.write_bytes(b"x")
    dead, at_work = settings.spool / "ingest-dead", settings.spool / "ingest-at-work"
    for folder in (dead, at_work):
        folder.mkdir()
        (folder / "part").write_bytes(b"x")
    now = new.stat().st_mtime + LEFTOVER_S + 1
    for file in (new, at_work / "part"):
        os.utime(file, (now - 10, now - 10))
    sweep_spool(settings, now)
    assert sorted(Path(settings.spool).iterdir()) == [at_work, new]


@pytest.mark.parametrize("values", [[1], ["x/y ä", 2.5, None], []])
def test_a_page_token_gives_back_what_was_put_in(values: list[object]) -> None:
    token = encode_token(_of("/v1/jobs", "kind=tune&page_size=2"), values)
    assert re.fullmatch("[A-Za-z0-9_-]+", token)
    assert decode_token(_of("/v1/jobs", "page_token=x&kind=tune"), token) == values
    for other in (_of("/v1/jobs"), _of("/v1/jobs", "kind=train"), _of("/v1/models", "kind=tune")):
        with pytest.raises(Invalid, match="another list"):
            decode_token(other, token)


def _of(path: str, query: str = "") -> Request:
    """A question about a list."""
    return Request({"type": "http", "path": path, "query_string": query.encode(), "headers": []})


@pytest.mark.parametrize("token", ["", "x", "é", "e30", "!!!!", "bnVsbA", "W10=W10", "\ud800"])
def test_what_is_no_page_token_is_refused(token: str) -> None:
    with pytest.raises(Invalid, match="page_token"):
        decode_token(_of("/v1/jobs"), token)


def test_a_database_that_is_away_does_not_end_the_housekeeping(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = Database("postgresql+psycopg://u@127.0.0.1:1/x")
    attempt(tidy, away)
    away.close()
    assert "tidy is put off" in caplog.text
