"""The OpenAPI document: fresh, complete, and true to itself."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from fastapi import FastAPI

from app.http.openapi import TAGS

ROOT = Path(__file__).parents[2]
EXAMPLES = json.loads((ROOT / "app" / "api" / "examples.json").read_bytes())
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def examples(content: dict[str, Any]) -> list[Any]:
    """The examples of a body in one media type, its own or its schema's."""
    if shown := content.get("schema", {}).get("examples"):
        return shown
    return (
        [content["example"]] if "example" in content else [one["value"] for one in content.get("examples", {}).values()]
    )


def test_the_checked_in_file_is_fresh(document: dict[str, Any]) -> None:
    written = json.loads((ROOT / "openapi.json").read_bytes())
    assert written == document, "run `make openapi` and look at what changed"


def test_every_operation_says_what_it_is(document: dict[str, Any]) -> None:
    names = {tag["name"] for tag in TAGS}
    seen: set[str] = set()
    for place, operation in operations(document):
        assert operation["summary"], place
        assert len(operation["description"]) > 20, place
        assert len(operation["tags"]) == 1, place
        assert set(operation["tags"]) <= names, place
        assert operation["operationId"] not in seen, place
        seen.add(operation["operationId"])
    assert set(EXAMPLES) <= seen


def test_every_parameter_is_described_and_every_path_has_an_example(document: dict[str, Any]) -> None:
    for place, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (place, parameter["name"])
            schema = parameter["schema"]
            shown = schema.get("examples") or schema.get("enum") or parameter.get("example")
            assert parameter["in"] != "path" or shown, (place, parameter["name"])


def test_every_refusal_is_a_problem_and_those_all_can_give_are_there(document: dict[str, Any]) -> None:
    for place, operation in operations(document):
        refusals = {status: said for status, said in operation["responses"].items() if status >= "400"}
        assert all(said["content"] == PROBLEM for said in refusals.values()), place
        guarded = operation["security"] != []
        assert guarded is ("401" in refusals), place
        assert guarded is place.split()[1].startswith("/v1/"), place
        assert ("422" in refusals) is bool(operation.get("parameters") or operation.get("requestBody")), place
        assert ("404" in refusals) or "{" not in place or place.startswith(("POST", "PUT")), place
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_body_and_every_answer_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    checked = 0
    for place, operation in operations(document):
        bodies = operation.get("requestBody", {}).get("content", {})
        answers = {status: said.get("content", {}) for status, said in operation["responses"].items() if status < "300"}
        for content in (bodies, *answers.values()):
            for media, said in content.items():
                binary = said.get("schema", {}).get("format") == "binary" or "schema" not in said
                shown = examples(said)
                assert shown or binary or media == "multipart/form-data", (place, media)
                for example in shown if "json" in media and "ndjson" not in media and "jsonl" not in media else []:
                    schema = {**said["schema"], "components": document["components"]}
                    jsonschema_rs.Draft202012Validator(schema).validate(example)
                    checked += 1
    assert checked > 35


def test_the_examples_name_no_field_that_is_not_there(document: dict[str, Any]) -> None:
    """Answers may have more fields than the schema asks for, so the fit alone would let an old name pass."""
    for place, operation in operations(document):
        if isinstance(example := EXAMPLES.get(operation["operationId"]), dict):
            said = next(said for status, said in operation["responses"].items() if status in ("200", "201", "202"))
            reference = said["content"]["application/json"]["schema"]["$ref"]
            known = document["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
            assert set(example) == set(known), place
