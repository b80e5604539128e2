"""The worked examples of the docs run as they stand, after the README's first two steps."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

DATA = Path(__file__).parents[2] / "app" / "cli" / "data" / "us_gasoline_weekly.csv"


def examples(app: FastAPI, tags: set[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, body) of every example of a body under these tags."""
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if tags & set(operation["tags"]) and content:
                shown = [each["value"] for each in content.get("examples", {}).values()]
                shown = shown or content["schema"].get("examples", [])
                assert shown, f"{method} {path} has no example"
                yield from ((method, path, body) for body in shown)


@pytest.mark.usefixtures("base")
def test_examples_run(app: FastAPI, client: TestClient, publish: Callable[..., int]) -> None:
    upload = client.post(
        "/v1/datasets/gasoline/revisions", content=DATA.read_bytes(), headers={"Content-Type": "text/csv"}
    )
    assert upload.status_code == 201, upload.text
    publish("fuel")
    publish("fuel", promote="always")  # so that there is something to roll back
    ran = 0
    for method, path, body in examples(app, {"Models", "Forecasts"}):
        url = path.replace("{model}", "fuel").replace("{alias}", "champion")
        answer = client.request(method, url, json=body)
        assert answer.status_code in (200, 201), (method, url, answer.text)
        ran += 1
    assert ran >= 5


def test_reads_run_with_their_path_examples(app: FastAPI, client: TestClient, publish: Callable[..., int]) -> None:
    publish("fuel")
    for path, operations in app.openapi()["paths"].items():
        operation = operations.get("get")
        if operation is None or "Models" not in operation["tags"]:
            continue
        url = path
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                schema = parameter["schema"]
                shown = parameter.get("example") or (schema.get("examples") or schema.get("enum"))[0]
                url = url.replace("{" + parameter["name"] + "}", str(shown))
        assert "{" not in url
        assert client.get(url).status_code == 200, url


def test_every_error_a_route_gives_is_documented(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    expected = {
        ("/v1/forecasts", "post"): {200, 304, 401, 404, 406, 409, 413, 415, 422, 503},
        ("/v1/models/{model}/next", "post"): {200, 401, 404, 406, 409, 413, 415, 422, 503},
        ("/v1/models/{model}/aliases/{alias}", "put"): {200, 201, 401, 404, 409, 412, 413, 415, 422},
        ("/v1/models/{model}/aliases/{alias}", "delete"): {204, 401, 404, 409, 412, 422},
        ("/v1/models/{model}/versions/{number}/files/{name}", "get"): {200, 304, 401, 404, 422, 503},
    }
    for (path, method), statuses in expected.items():
        assert {int(status) for status in paths[path][method]["responses"]} >= statuses, (path, method)
    offered = set(paths["/v1/forecasts"]["post"]["responses"]["200"]["content"])
    assert {"application/json", "text/csv", "application/x-ndjson", "application/vnd.apache.parquet"} <= offered
