"""Pages by keyset: a page's token holds the sort values of its last row, so a page costs the same wherever it is."""

import base64
import binascii
from typing import Annotated, Any

import orjson
from fastapi import Query, Request

from app.errors import Complaint, Invalid

PageSize = Annotated[int, Query(alias="page_size", ge=1, le=1000, description="Most entries in the answer.")]
PageToken = Annotated[
    str | None,
    Query(
        alias="page_token",
        max_length=2048,
        description="`next_page_token` of the page before; left out: the first page.",
    ),
]
DEFAULT_SIZE = 100


def encode_token(values: list[Any]) -> str:
    """The token of the page that starts after the row with these sort values."""
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


def decode_token(text: str) -> list[Any]:
    """The sort values inside a token. Raises Invalid on anything `encode_token` did not make."""
    try:
        inside = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        values = None if rb"\u0000" in inside else orjson.loads(inside)  # PostgreSQL takes no text with a NUL
    except (binascii.Error, ValueError):
        values = None
    if not isinstance(values, list):
        raise bad_token()
    return values  # pyright: ignore[reportUnknownVariableType]


def bad_token() -> Invalid:
    """The refusal of a token that was not handed out here, or not by this route."""
    hint = "Take next_page_token from the page before, unchanged."
    complaint = Complaint("page-token", "This is not a page token", pointer="query/page_token", hint=hint)
    return Invalid("page_token: expected the next_page_token of a page, got something else.", errors=[complaint])


def next_link(request: Request, token: str | None) -> dict[str, str]:
    """The `Link: …; rel="next"` header of a page that has one after it; empty on the last page."""
    if token is None:
        return {}
    url, root = request.url.include_query_params(page_token=token), request.scope.get("root_path", "")
    path = url.path if url.path.startswith(f"{root}/") else root + url.path  # a proxy may have taken the root off
    return {"Link": f'<{path}?{url.query}>; rel="next"'}
