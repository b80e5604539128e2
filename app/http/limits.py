"""The limit on a request's body, counted while it streams in: an upload may be large, any other body may not."""

import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.config import MIB, Settings
from app.errors import TooLarge
from app.http.problems import problem_response
from app.http.requests import route_path

UPLOAD = re.compile(r"/v1/(datasets/[^/]+/revisions|models/[^/]+/versions)")


class BodyLimit:
    """Refuses a body longer than its route may have: at once when its length is announced, else where it passes."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.upload, self.other = settings.max_body_bytes, settings.max_json_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        upload = UPLOAD.fullmatch(route_path(scope)) is not None
        limit, seen = self.upload if upload else self.other, 0
        if _announced(scope) > limit:
            refusal = problem_response(TooLarge(_sentence(limit, upload)), scope)
            await refusal(scope, receive, send)
            return

        async def counted() -> Message:
            nonlocal seen
            part = await receive()
            seen += len(part.get("body", b""))
            if seen > limit:
                # The framework turns any other exception met while it reads a body into a 400.
                raise HTTPException(413, _sentence(limit, upload))
            return part

        await self.app(scope, counted, send)


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _sentence(limit: int, upload: bool) -> str:
    size = f"{limit // MIB} MiB" if limit >= MIB else f"{limit} bytes"
    if upload:
        return f"The body is larger than the {size} an upload may have here; send the file in parts, or compressed."
    return f"The body is larger than the {size} a request may have here; send fewer series at once, or upload them."
