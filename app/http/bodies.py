"""JSON bodies read as bytes and validated in one step, where the framework's way costs more than the work itself."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.errors import Complaint, Invalid, UnsupportedMedia
from app.http.complaints import HINTS, complaints_of

Body = TypeVar("Body", bound=BaseModel)
JSON = "application/json"


async def json_bytes(request: Request) -> bytes:
    """The request's body. Raises UnsupportedMedia unless it is said to be plain JSON: a page of another site can make
    a browser send anything else without asking first."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != JSON and not (media.startswith("application/") and media.endswith("+json")):
        raise UnsupportedMedia(f"Content-Type: expected {JSON}, got {media[:80] or 'none'}.")
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise UnsupportedMedia(f"Content-Encoding: expected none for this request, got {encoding[:80]}.")
    return await request.body()


def parse(kind: type[Body], raw: bytes) -> Body:
    """The body as `kind`. Raises Invalid with a JSON pointer to each thing wrong."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        found = error.errors(include_url=False)
    if found[0]["type"] == "json_invalid":
        reason = str(found[0].get("ctx", {}).get("error", ""))
        complaint = Complaint("json-invalid", f"The body is not JSON: {reason}", "", hint=HINTS["json_invalid"])
        raise Invalid(f"{complaint.message}.", errors=[complaint])
    rooted = [cast(Mapping[str, Any], {**each, "loc": ("body", *each["loc"])}) for each in found]
    complaints = complaints_of(rooted, _lenient(raw))
    where = f" at {complaints[0].pointer}" if complaints[0].pointer else ""
    raise Invalid(f"{complaints[0].message}{where}.", errors=complaints)


def documented(kind: type[BaseModel], examples: Mapping[str, Any]) -> dict[str, Any]:
    """A route's `openapi_extra` for a body that it reads itself: schema, and examples by title."""
    named = {title: {"summary": title, "value": value} for title, value in examples.items()}
    schema = kind.model_json_schema()
    content = {JSON: {"schema": _inlined(schema, schema.pop("$defs", {})), "examples": named}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: Any, named: Mapping[str, Any]) -> Any:
    """The schema with every reference replaced by what it refers to: an operation has no place for definitions."""
    if isinstance(schema, dict):
        here = cast(dict[str, Any], schema)
        if reference := here.get("$ref"):
            here = {**named[str(reference).rpartition("/")[2]], **{k: v for k, v in here.items() if k != "$ref"}}
        return {name: _inlined(value, named) for name, value in here.items()}
    if isinstance(schema, list):
        return [_inlined(each, named) for each in cast(list[Any], schema)]
    return schema


def _lenient(raw: bytes) -> object:
    """The body as objects, to find the real path of a complaint in it; NaN and 1e999 are read, as pydantic does."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
