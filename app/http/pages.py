"""Pages by keyset: a page's token holds the sort values of its last row, so a page costs the same wherever it is; and a
mark of its list, so that no other list takes it."""

import base64
import binascii
import hashlib
import re
from typing import Annotated, Any

import orjson
from fastapi import Query, Request

from app.errors import Complaint, Invalid
from app.http.requests import route_path

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
MARK = re.compile("[0-9a-f]{16}")
OWN = ("page_size", "page_token")  # what may differ from one page of a list to the next


def encode_token(request: Request, values: list[Any]) -> str:
    """The token of the page of the list asked for that starts after the row with these sort values."""
    return base64.urlsafe_b64encode(orjson.dumps([_mark(request), *values])).decode().rstrip("=")


def decode_token(request: Request, text: str) -> list[Any]:
    """The sort values inside a token. Raises Invalid on anything that `encode_token` did not make for this list."""
    try:
        inside = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        values = None if rb"\u0000" in inside else orjson.loads(inside)  # PostgreSQL takes no text with a NUL
    except (binascii.Error, ValueError):
        values = None
    match values:
        case [str(mark), *rest] if mark == _mark(request):
            return rest  # pyright: ignore[reportUnknownVariableType]
        case [str(mark), *_] if MARK.fullmatch(mark):
            raise _foreign_token()
        case _:
            raise bad_token()


def _mark(request: Request) -> str:
    """What tells this list from others: its path, and what is asked of it beside the page."""
    asked = sorted((name, value) for name, value in request.query_params.multi_items() if name not in OWN)
    return hashlib.sha256(repr((route_path(request.scope), asked)).encode("utf-8", "replace")).hexdigest()[:16]


def _foreign_token() -> Invalid:
    hint = "Take next_page_token from the page before of this list, and leave the rest of the query as it was."
    complaint = Complaint("page-token", "This token is of another list", pointer="query/page_token", hint=hint)
    detail = "page_token: expected one of this list, got one of another list, or of this one filtered otherwise."
    return Invalid(detail, errors=[complaint])


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
