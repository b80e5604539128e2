"""What every request gets, as plain ASGI: an id, security headers, one access line, a problem for what failed."""

import logging
import os
import re
import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import AppError
from app.http.logs import REQUEST_ID, tell
from app.http.problems import problem_response

access = logging.getLogger("gatecast.access")

SANE_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
UNSEEN = "gatecast.unseen"  # in the scope of a question that the server asks itself
PROBES = ("/healthz", "/readyz")  # logged at debug: a probe every few seconds would drown the rest
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
# Unless the answer says otherwise: nothing in it may run, and no cache keeps it.
DEFAULTS = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)


class Requests:
    """The outermost middleware. Gives `request.state.request_id`, the root path, the headers and the access line."""

    def __init__(self, app: ASGIApp, root_path: str = "", clock: Callable[[], float] = time.perf_counter) -> None:
        self.app = app
        self.root_path = root_path.rstrip("/")
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = self.clock()
        request_id = _request_id(scope)
        REQUEST_ID.set(request_id)  # each request is a task, so nothing has to be put back
        scope.setdefault("state", {})["request_id"] = request_id
        if self.root_path:
            scope["root_path"] = self.root_path
        status = 0

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(message, request_id, (self.clock() - started) * 1000)
            await send(message)

        try:
            await self.app(scope, receive, finish)
        except ClientDisconnect:
            status = status or 499  # the caller hung up while sending; nobody is there to answer
        finally:
            if not status:
                # An exception nobody foresaw is on its way to the server, which logs it with its traceback and this id.
                await problem_response(_unforeseen(), scope)(scope, receive, finish)
            _log(scope, status, (self.clock() - started) * 1000)

    def _add_headers(self, message: Message, request_id: str, milliseconds: float) -> None:
        headers: list[tuple[bytes, bytes]] = list(message["headers"])
        present = {name.lower() for name, _ in headers}
        headers += HEADERS
        headers += [header for header in DEFAULTS if header[0] not in present]
        headers.append((b"x-request-id", request_id.encode()))
        headers.append((b"server-timing", b"total;dur=%.1f" % milliseconds))
        if self.root_path:
            headers = [(name, self._rooted(value) if name.lower() == b"location" else value) for name, value in headers]
        message["headers"] = headers

    def _rooted(self, location: bytes) -> bytes:
        root = self.root_path.encode()
        inside = location.startswith(b"/") and not location.startswith(root + b"/")
        return root + location if inside else location


def _request_id(scope: Scope) -> str:
    """The caller's X-Request-Id when it is harmless, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SANE_ID.fullmatch(value):
            return value.decode()
    return os.urandom(16).hex()


def _unforeseen() -> AppError:
    return AppError(
        "Something went wrong here that nobody foresaw. Nothing was changed; the server's log has the cause."
    )


def _log(scope: Scope, status: int, milliseconds: float) -> None:
    quiet = UNSEEN in scope or (scope["path"].endswith(PROBES) and status < 400)
    level = logging.DEBUG if quiet else logging.INFO
    client = scope.get("client")
    fields = {"client": client[0] if client else None, "ms": round(milliseconds, 1)}
    tell(access, level, f"{status} {scope['method']} {scope['path']}", fields)


def route_path(scope: Scope) -> str:
    """The path below the root path, whether or not the proxy in front takes the root off."""
    path, root = scope["path"], scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root + "/") else path
