"""The API key: one for the whole server, asked of every route but the health checks and the docs page.

A server without a key is for this machine alone; what keeps others out then is that they cannot reach it. A browser on
this machine can, on behalf of any page it shows: hence the look at where a request comes from.
"""

import hashlib
import hmac
import ipaddress
import re
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from app.config import Settings
from app.errors import AppError, Forbidden, Unauthorized
from app.http.problems import problem_response
from app.http.requests import route_path

OPEN = frozenset({"/", "/healthz", "/readyz", "/docs", "/docs/errors", "/openapi.json"})
PORT = re.compile(r":\d*$")
SAFE = ("GET", "HEAD", "OPTIONS")
OPEN_BELOW = "/docs/static/"  # the docs page's scripts and styles
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer <key>`"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key in its own header."},
}


def is_open(path: str) -> bool:
    """Whether a path answers without a key."""
    return path in OPEN or path.startswith(OPEN_BELOW)


class Keys:
    """Refuses a request without the key, before its body is read or its path looked up; without a key, one that another
    web page sent."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.wanted = _digest(settings.api_key.get_secret_value().encode()) if settings.api_key else None
        self.origins = frozenset(origin.encode() for origin in settings.cors_origins)
        self.local = not settings.allow_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error: AppError | None = None
        if scope["type"] == "http" and not is_open(route_path(scope)):
            error = self._stranger(scope) if self.wanted is None else self._refusal(scope, self.wanted)
        await (self.app if error is None else problem_response(error, scope))(scope, receive, send)

    def _refusal(self, scope: Scope, wanted: bytes) -> AppError | None:
        given = _given(scope)
        # Digests of one length: the comparison takes the same time whatever was sent.
        if given is not None and hmac.compare_digest(_digest(given), wanted):
            return None
        how = "Send the server's key as `Authorization: Bearer <key>` or as `x-api-key: <key>`."
        said = "This server asks for an API key." if given is None else "This is not the server's API key."
        challenge = 'Bearer realm="gatecast"' + ("" if given is None else ', error="invalid_token"')
        return Unauthorized(f"{said} {how}", headers={"WWW-Authenticate": challenge})

    def _stranger(self, scope: Scope) -> AppError | None:
        """Other sites' pages can send simple requests here, or point a name of theirs at this address; both are told by
        headers that no page can forge."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        elsewhere = headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site")
        if elsewhere and scope["method"] not in SAFE and headers.get(b"origin") not in self.origins:
            return Forbidden("A page of another site sent this; set an API key, or GATECAST_CORS_ORIGINS.")
        host = headers.get(b"host", b"")
        if self.local and not _is_ours(host):
            named = host.decode("latin-1")[:80]
            return Forbidden(f"Without an API key this server answers on this machine only, not as {named!r}.")
        return None


def _given(scope: Scope) -> bytes | None:
    found = None
    for name, value in scope["headers"]:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
        if name == b"x-api-key":
            found = value.strip()
    return found


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


@lru_cache(maxsize=64)
def _is_ours(host: bytes) -> bool:
    """Whether a Host header can be this machine's: no public name, which somebody else could point at this address."""
    name = PORT.sub("", host.decode("latin-1")).strip("[]").lower()
    if "." not in name or name.endswith(".localhost"):
        return True
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
