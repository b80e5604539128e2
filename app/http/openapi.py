"""The OpenAPI document: what the framework makes of the routes, with our errors, security and groups."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.http.keys import SCHEMES, is_open
from app.http.problems import problems

DESCRIPTION = """\
Upload time series, train a forecaster in the background, ask for the next step or a whole horizon with its uncertainty.

**First steps.** Forecast at once, with the model that comes with the server:

```
curl localhost:8000/v1/forecasts -H 'Content-Type: application/json' \\
     -d '{"inputs": [{"key": "mine", "target": [112, 118, 132, 129, 121, 135, 148]}], "frequency": "MS", "horizon": 6}'
```

Or create a dataset by uploading a file to it, start a train job, follow it, forecast:

```
curl --data-binary @gasoline.csv -H 'Content-Type: text/csv' localhost:8000/v1/datasets/gasoline/revisions
curl localhost:8000/v1/jobs -H 'Content-Type: application/json' \\
     -d '{"kind": "train", "dataset": "gasoline", "model": "fuel", "preset": "fast", "config": {"horizon": 12}}'
curl localhost:8000/v1/forecasts -H 'Content-Type: application/json' \\
     -d '{"model": "fuel", "dataset": "gasoline", "horizon": 12, "quantiles": [0.1, 0.5, 0.9]}'
```

**Errors** are problem documents (RFC 9457, `application/problem+json`): `detail` is a sentence, `errors` says where and
what to do; every `type` is explained under [/docs/errors](docs/errors). **Pages** go on with `page_token`, or along the
`Link` header. A POST that creates takes an **`Idempotency-Key`**, so that it can be repeated safely. Every answer has
an `X-Request-Id`, which is also in the server's log. **Times** are RFC 3339; missing values are `null`.
"""
TAGS = [
    {
        "name": "Datasets",
        "description": "Series go in: upload files, append, correct, read back. Every change is a numbered revision.",
    },
    {
        "name": "Jobs",
        "description": "Training and backtests run in the background: start, follow live, cancel, try again.",
    },
    {
        "name": "Models",
        "description": "What training made, and `base`, which comes with the server: numbered versions, and the "
        "aliases that say which of them answers.",
    },
    {
        "name": "Forecasts",
        "description": "The next step or any horizon, with quantiles, for stored series or for history sent along.",
    },
    {"name": "Backtests", "description": "How good a version would have been, beside the naive forecasts."},
    {"name": "System", "description": "Alive, ready, and what the server has to work with."},
]
PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "Why a request was refused (RFC 9457).",
    "required": ["type", "title", "status", "detail", "errors", "error_count"],
    "properties": {
        "type": {"type": "string", "description": "Which kind of refusal; a page of this server explains it."},
        "title": {"type": "string", "description": "The kind in words."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What was expected, what came, and where."},
        "instance": {"type": ["string", "null"], "description": "The request's id, as in `X-Request-Id` and the log."},
        "errors": {
            "type": "array",
            "maxItems": 100,
            "items": {"$ref": "#/components/schemas/Complaint"},
            "description": "What is wrong, piece by piece; the first hundred.",
        },
        "error_count": {"type": "integer", "description": "How many there are in all."},
    },
}
COMPLAINT = {
    "type": "object",
    "title": "Complaint",
    "description": "One thing wrong with what was sent.",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "string"},
        "message": {"type": "string"},
        "pointer": {
            "type": "string",
            "description": "Where in the body (a JSON pointer), or `query/…`, `path/…`, `header/…` and a name.",
        },
        "row": {"type": "integer", "description": "Where in a file: its line, or the number of its record."},
        "column": {"type": "string", "description": "Where in a file: its column."},
        "value_preview": {"type": "string", "description": "The start of the value that was refused."},
        "hint": {"type": "string", "description": "A way out."},
    },
}


def install_openapi(app: FastAPI, examples: Path) -> None:
    """Let `app.openapi()` answer with `document`, made once; `examples` is a JSON file of answers by operation."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document(app, json.loads(examples.read_bytes()))
        return app.openapi_schema

    app.openapi = openapi


def document(app: FastAPI, examples: Mapping[str, Any]) -> dict[str, Any]:
    """The OpenAPI document of the application's routes, each successful answer with its example."""
    made = get_openapi(
        title=app.title,
        version=app.version,
        summary="A time-series forecasting server you run yourself.",
        description=DESCRIPTION,
        routes=app.routes,
        tags=TAGS,
    )
    components = made.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= {"Problem": PROBLEM, "Complaint": COMPLAINT}
    components["schemas"] = dict(sorted(schemas.items()))
    components["securitySchemes"] = SCHEMES
    for path, operations in made["paths"].items():
        for operation in operations.values():
            _complete(path, operation)
            _exemplify(operation, examples.get(operation["operationId"]))
    return made


def _complete(path: str, operation: dict[str, Any]) -> None:
    """Add what holds for every route of its kind, so that no route has to say it."""
    responses: dict[str, Any] = operation["responses"]
    common = {str(status): said for status, said in problems(413, 415).items()}
    if is_open(path):
        operation["security"] = []
        responses.pop("401", None)
    else:
        operation["security"] = [{name: []} for name in SCHEMES]
        responses["401"] = common["401"]
    if "requestBody" in operation:
        responses["413"] = common["413"]
        responses["415"] = common["415"]
    if operation.get("parameters") or "requestBody" in operation:
        responses["422"] = common["422"]
    else:
        responses.pop("422", None)
    operation["responses"] = dict(sorted(responses.items()))


def _exemplify(operation: dict[str, Any], example: Any) -> None:
    """Put the example beside the schema of each successful answer that is JSON, or events when it is a text."""
    media = "text/event-stream" if isinstance(example, str) else "application/json"
    for status, response in operation["responses"].items():
        said = response.get("content", {}).get(media)
        if example is not None and status < "300" and said is not None:
            said.setdefault("example", example)
