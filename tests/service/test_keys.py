"""The API key: asked everywhere but of the health checks and the docs, told by nobody."""

import logging
import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.http.keys import exposure
from app.main import create_app

KEY = "correct-horse-battery"


@pytest.fixture
def guarded(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(**settings.model_dump() | {"api_key": KEY}))) as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/system", "/v1/datasets", "/nowhere", "/docs/static", "/docs/../v1/system"])
def test_without_the_key_nothing_is_told(guarded: TestClient, path: str) -> None:
    answer = guarded.get(path)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == 'Bearer realm="gatecast"'
    assert answer.json()["type"] == "/docs/errors#unauthorized"
    assert "x-api-key" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong-horse-battery"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": "Bearer "},
        {"x-api-key": "é".encode("latin-1")},
        {"Authorization": "Bearer wrong", "x-api-key": KEY},
    ],
)
def test_a_wrong_key_is_refused(guarded: TestClient, headers: dict[str, str]) -> None:
    answer = guarded.get("/v1/system", headers=headers)
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY} "}, {"x-api-key": KEY}],
)
def test_the_key_opens(guarded: TestClient, headers: dict[str, str]) -> None:
    assert guarded.get("/v1/system", headers=headers).status_code == 200


def test_health_and_docs_need_no_key(guarded: TestClient) -> None:
    page = guarded.get("/docs")
    assert page.status_code == 200
    needed = re.findall(r'(?:src|href|data-openapi)="(/[^"#]*)"', page.text)
    assert len(needed) >= 6
    for path in ["/healthz", "/readyz", "/docs/errors", *needed]:
        assert guarded.get(path).status_code == 200, path


def test_a_refused_body_is_not_read(guarded: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        yield b"x"

    assert guarded.post("/v1/datasets/d/revisions", content=parts()).status_code == 401


def test_the_key_is_in_no_log_and_no_answer(guarded: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        texts = [guarded.get("/v1/system", headers={"x-api-key": key}).text for key in (KEY, "sesame-sesame")]
    written = caplog.text + "".join(texts) + repr(guarded.app.state.settings)  # type: ignore[attr-defined]
    assert KEY not in written
    assert "sesame-sesame" not in written


@pytest.mark.parametrize(
    ("host", "key", "allowed", "may"),
    [
        ("127.0.0.1", None, False, True),
        ("::1", None, False, True),
        ("localhost", None, False, True),
        ("0.0.0.0", None, False, False),
        ("192.168.1.5", None, False, False),
        ("::", None, False, False),
        ("forecasts.example", None, False, False),
        ("0.0.0.0", KEY, False, True),
        ("0.0.0.0", None, True, True),
    ],
)
def test_who_may_listen_where(host: str, key: str | None, allowed: bool, may: bool) -> None:
    said = exposure(Settings(host=host, api_key=key, allow_open=allowed))  # type: ignore[arg-type]
    assert (said is None) is may
    if said:
        assert "GATECAST_API_KEY" in said
        assert "--allow-open" in said


@pytest.mark.parametrize(
    ("headers", "may"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}, False),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({}, True),
        ({"Host": "evil.example:8000"}, False),
        ({"Host": "localhost:8000"}, True),
        ({"Host": "app.localhost"}, True),
        ({"Host": "127.0.0.1:8000"}, True),
        ({"Host": "[::1]:8000"}, True),
    ],
)
def test_an_open_server_is_not_for_other_sites_pages(client: TestClient, headers: dict[str, str], may: bool) -> None:
    answer = client.post("/v1/jobs/job_0/cancel", headers=headers)
    assert answer.status_code == (404 if may else 403), answer.text
    assert may or answer.json()["type"] == "/docs/errors#forbidden"


def test_a_page_that_was_let_in_may_post(settings: Settings) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://a.example"}
    with TestClient(create_app(settings.model_copy(update={"cors_origins": ("https://a.example",)}))) as client:
        answer = client.post("/v1/jobs/job_0/cancel", headers=headers)
    assert answer.status_code == 404
    assert answer.headers["access-control-allow-origin"] == "https://a.example"


def test_a_name_of_its_own_needs_a_key_or_leave(settings: Settings) -> None:
    named = {"Host": "forecasts.example"}
    with TestClient(create_app(settings.model_copy(update={"allow_open": True}))) as client:
        assert client.get("/v1/system", headers=named).status_code == 200
    with TestClient(create_app(Settings(**settings.model_dump() | {"api_key": KEY}))) as client:
        assert client.get("/v1/system", headers=named | {"x-api-key": KEY}).status_code == 200
        assert client.get("/healthz", headers=named).status_code == 200
