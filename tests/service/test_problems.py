"""Refusals: one form for all of them, a pointer that leads somewhere, and nothing in them that should not be told."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from fastapi import Body
from fastapi.testclient import TestClient
from pydantic import Field
from sqlalchemy.exc import OperationalError

from app import errors
from app.api.schemas.common import AliasPath, In, ModelReference
from app.config import Settings
from app.errors import CODES, AppError, Complaint, Unavailable
from app.http.problems import refusals
from app.main import create_app

APP = Path(__file__).parents[2] / "app"


class Cat(In):
    kind: Literal["cat"]
    lives: int = 9


class Dog(In):
    kind: Literal["dog"]
    tricks: dict[str, int | list[float]] = Field(default_factory=dict)
    api_key: str = Field("", max_length=3)


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """The real application with a few routes more, each failing in its own way."""
    app = create_app(settings)

    @app.post("/pets")
    def pets(pet: Annotated[Pet, Body()], size: int = 1) -> dict[str, int]:
        return {"size": size}

    @app.get("/fail/{how}")
    def fail(how: str) -> None:
        if how == "database":
            raise OperationalError("select secret", {}, Exception("host db.internal"))
        if how == "refused":
            raise errors.Conflict("It is so.", errors=[Complaint("c", "m", row=n) for n in range(150)])
        raise RuntimeError("secret inside")

    @app.get("/aliases/{alias}")
    def alias(alias: AliasPath, model: ModelReference) -> None:
        pass

    with TestClient(app, raise_server_exceptions=False) as opened:
        yield opened


def _refused(client: TestClient, method: str, path: str, status: int, **sent: Any) -> dict[str, Any]:
    answer = client.request(method, path, **sent)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "instance", "errors", "error_count"}
    assert problem["status"] == status
    assert problem["instance"] == answer.headers["x-request-id"]
    assert problem["type"].removeprefix("/docs/errors#") in CODES
    return problem


def test_unknown_paths_and_methods(client: TestClient) -> None:
    assert "/v1/nothing" in _refused(client, "GET", "/v1/nothing", 404)["detail"]
    problem = _refused(client, "DELETE", "/v1/system", 405)
    assert problem["type"] == "/docs/errors#method-not-allowed"
    assert client.request("PATCH", "/v1/system").headers["allow"] == "GET, HEAD"


def test_head_answers_what_get_would_without_its_body(client: TestClient) -> None:
    for path in ("/v1/system", "/v1/datasets?page_size=1", "/v1/models/none", "/openapi.json", "/v1/datasets?x=1"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        for name in ("content-type", "content-length", "etag", "vary"):
            assert head.headers.get(name) == got.headers.get(name), (path, name)
    packed = client.head("/openapi.json", headers={"accept-encoding": "gzip"})
    assert (packed.headers["content-encoding"], packed.content) == ("gzip", b"")
    for path, status in (("/v1/forecasts", 405), ("/v1/jobs/job_x/events", 405), ("/v1/nothing", 404)):
        assert client.head(path).status_code == status, path


@pytest.mark.parametrize(
    ("body", "pointer", "code", "preview"),
    [
        ({"kind": "cat", "lives": "many"}, "/lives", "int-parsing", "many"),
        ({"kind": "cat", "claws": 18}, "/claws", "extra-forbidden", "18"),
        ({"kind": "dog", "tricks": {"a/b~c": "x"}}, "/tricks/a~1b~0c", "int-parsing", "x"),
        ({"kind": "dog", "tricks": {"sit": [1, "x"]}}, "/tricks/sit/1", "float-parsing", "x"),
        ({"kind": "cow"}, "", "union-tag-invalid", None),
        ({}, "", "union-tag-not-found", None),
        ([1], "", "model-attributes-type", None),
        ({"kind": "cat", "lives": 1e400}, "/lives", "finite-number", "inf"),
        ({"kind": "cat", "lives": "9" * 5000}, "/lives", "int-parsing-size", "9" * 59 + "…"),
    ],
)
def test_pointers_lead_into_what_was_sent(
    client: TestClient, body: object, pointer: str, code: str, preview: str | None
) -> None:
    problem = _refused(
        client, "POST", "/pets", 422, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    found = {(error["pointer"], error["code"]): error for error in problem["errors"]}
    assert (pointer, code) in found
    assert found[pointer, code].get("value_preview") == preview
    assert problem["error_count"] == len(problem["errors"])


def test_other_places_are_named(client: TestClient) -> None:
    assert _refused(client, "POST", "/pets?size=x", 422, json={"kind": "cat"})["errors"][0]["pointer"] == "query/size"
    problem = _refused(client, "GET", "/aliases/123?model=a/0", 422)
    assert {error["pointer"] for error in problem["errors"]} == {"path/alias", "query/model"}


def test_secrets_are_not_echoed(client: TestClient) -> None:
    answer = client.post("/pets", json={"kind": "dog", "api_key": "hunter2hunter2"})
    assert answer.status_code == 422
    assert "hunter2" not in answer.text
    assert answer.json()["errors"][0]["pointer"] == "/api_key"


def test_bodies_that_are_not_what_they_say(client: TestClient) -> None:
    json_type = {"Content-Type": "application/json"}
    problem = _refused(client, "POST", "/pets", 422, content=b'{"kind": ', headers=json_type)
    assert problem["errors"][0]["pointer"] == ""
    assert "position 9" in problem["detail"]
    for body in (b'{"kind": "\xff"}', b"[" * 100_000):
        problem = _refused(client, "POST", "/pets", 422, content=body, headers=json_type)
        assert problem["type"] == "/docs/errors#unreadable-body"
    _refused(client, "POST", "/pets", 422, content=b'{"kind": "\\ud800", "\\udfff": 1}', headers=json_type)
    _refused(client, "POST", "/pets", 422, headers=json_type)
    problem = _refused(client, "POST", "/pets", 415, content=b"kind=cat", headers={"Content-Type": "text/plain"})
    assert "application/json" in problem["detail"]
    _refused(client, "POST", "/pets", 415, content=b"{}")


def test_what_nobody_foresaw_tells_nothing(client: TestClient) -> None:
    problem = _refused(client, "GET", "/fail/oddly", 500)
    assert problem["type"] == "/docs/errors#internal-error"
    assert "secret" not in str(problem)
    answer = client.get("/fail/oddly")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_database_that_does_not_answer_is_503(client: TestClient) -> None:
    problem = _refused(client, "GET", "/fail/database", 503)
    assert "db.internal" not in str(problem)
    assert client.get("/fail/database").headers["retry-after"] == "2"


def test_a_hundred_are_listed_and_all_counted(client: TestClient) -> None:
    problem = _refused(client, "GET", "/fail/refused", 409)
    assert len(problem["errors"]) == 100
    assert problem["error_count"] == 150
    assert problem["errors"][7] == {"code": "c", "message": "m", "row": 7}


def test_every_code_in_the_source_is_explained() -> None:
    kinds = {kind.__name__ for kind in (*AppError.__subclasses__(), *Unavailable.__subclasses__())} | {"AppError"}
    used = {kind.code: {kind.status} for kind in (*refusals(), AppError)}
    for file in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in kinds:
                status = AppError.status if name == "AppError" else getattr(errors, name).status
                for word in node.keywords:
                    if word.arg == "code" and isinstance(word.value, ast.Constant):
                        used.setdefault(str(word.value.value), set()).add(status)
    assert set(used) - set(CODES) == set(), "say in app.errors.CODES what these mean and what to do"
    assert set(CODES) - set(used) == set(), "nothing raises these any more"
    assert all(kind.status in used[code] for code, kind in CODES.items())
