"""The API key: one for the whole server, asked of every route but the health checks and the docs page."""

import hashlib
import hmac
import ipaddress

from starlette.types import ASGIApp, Receive, Scope, Send

from app.config import Settings
from app.errors import Unauthorized
from app.http.problems import problem_response
from app.http.requests import route_path

OPEN = frozenset({"/healthz", "/readyz", "/docs", "/docs/errors", "/openapi.json"})
OPEN_BELOW = "/docs/static/"  # the docs page's scripts and styles
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer <key>`"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key in its own header."},
}


def is_open(path: str) -> bool:
    """Whether a path answers without a key."""
    return path in OPEN or path.startswith(OPEN_BELOW)


class Keys:
    """Refuses a request without the key, before its body is read or its path looked up. No key set: lets all pass."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.wanted = _digest(settings.api_key.get_secret_value().encode()) if settings.api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.wanted is None or scope["type"] != "http" or is_open(route_path(scope)):
            await self.app(scope, receive, send)
            return
        given = _given(scope)
        # Digests of one length: the comparison takes the same time whatever was sent.
        if given is not None and hmac.compare_digest(_digest(given), self.wanted):
            await self.app(scope, receive, send)
            return
        refusal = problem_response(_refusal(given is not None), scope)
        await refusal(scope, receive, send)


def _given(scope: Scope) -> bytes | None:
    found = None
    for name, value in scope["headers"]:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
        if name == b"x-api-key":
            found = value.strip()
    return found


def _refusal(wrong: bool) -> Unauthorized:
    how = "Send the server's key as `Authorization: Bearer <key>` or as `x-api-key: <key>`."
    said = "This is not the server's API key." if wrong else "This server asks for an API key."
    challenge = 'Bearer realm="gatecast"' + (', error="invalid_token"' if wrong else "")
    return Unauthorized(f"{said} {how}", headers={"WWW-Authenticate": challenge})


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def exposure(settings: Settings) -> str | None:
    """Why the server must not start like this (open to others, with no key), or None when it may."""
    if settings.api_key or settings.allow_open or _is_loopback(settings.host):
        return None
    return (
        f"Listening on {settings.host} would let anybody who can reach this machine read and change everything. Set "
        "GATECAST_API_KEY (or GATECAST_API_KEY_FILE), listen on 127.0.0.1, or pass --allow-open if that is wanted."
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
