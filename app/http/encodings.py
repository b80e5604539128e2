"""Content encodings both ways: packed JSON bodies are unpacked, long answers are packed for clients that ask for it.

An upload's body is left alone: it is unpacked on disk, with limits of its own.
"""

import asyncio
import gzip
import io
import zlib
from typing import Protocol

import zstandard
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.config import Settings
from app.errors import AppError, Invalid, TooLarge, UnsupportedMedia
from app.http.limits import UPLOAD
from app.http.problems import problem_response
from app.http.requests import route_path

LEAST = 32 * 1024  # shorter answers cost more to pack than to send
IN_A_THREAD = 256 * 1024  # a longer piece would hold the event loop up
TEXTS = (
    "application/json",
    "application/x-ndjson",
    "application/jsonl",
    "text/css",
    "text/csv",
    "text/javascript",
)
MAX_WINDOW = 1 << 27  # a zstd frame may ask its reader for gigabytes of memory; this is what the format suggests


class Packer(Protocol):
    """What `zlib.compressobj` and zstandard's share."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Encodings:
    """Middleware for both ways."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.limit = settings.max_json_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = _header(scope, b"content-encoding", "identity").strip().lower()
        send = packing(scope, send)
        if sent != "identity" and not UPLOAD.fullmatch(route_path(scope)):
            try:
                receive = await self._unpacked(scope, receive, sent)
            except AppError as error:
                await problem_response(error, scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _unpacked(self, scope: Scope, receive: Receive, coding: str) -> Receive:
        """The request as if it had been sent unpacked. Raises AppError."""
        if coding not in ("gzip", "x-gzip", "zstd"):
            raise UnsupportedMedia(f"Content-Encoding: expected gzip or zstd, got {coding[:80]!r}.")
        body = await asyncio.to_thread(_inflated, await _whole(receive), coding, self.limit)
        dropped = (b"content-encoding", b"content-length")
        kept = [(name, value) for name, value in scope["headers"] if name not in dropped]
        scope["headers"] = [*kept, (b"content-length", str(len(body)).encode())]
        message: Message | None = {"type": "http.request", "body": body, "more_body": False}

        async def once() -> Message:
            nonlocal message
            if message is None:
                return await receive()
            first, message = message, None
            return first

        return once


async def _whole(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        try:
            message = await receive()
        except HTTPException as error:  # the limit on what is sent; nothing out here turns it into an answer
            raise TooLarge(str(error.detail)) from error
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _inflated(packed: bytes, coding: str, limit: int) -> bytes:
    """Unpack, never past the limit. Raises TooLarge and Invalid."""
    source = io.BytesIO(packed)
    try:
        if coding == "zstd":
            unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
            body = unpacker.stream_reader(source, read_across_frames=True).read(limit + 1)
        else:
            body = gzip.GzipFile(fileobj=source).read(limit + 1)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise Invalid(f"The {coding} body cannot be unpacked: {error}.", code="unreadable-body") from error
    if len(body) > limit:
        raise TooLarge(f"The body unpacks to more than the {limit} bytes a request may have here.")
    return body


# ---------------------------------------------------------------- answers


def packing(scope: Scope, send: Send) -> Send:
    """A `send` for the answers to a request, that packs long ones where the client takes them so."""
    accepted = _header(scope, b"accept-encoding", "")
    coding = _coding(accepted) if accepted else None
    return Packed(send, coding) if coding else send


def _header(scope: Scope, wanted: bytes, otherwise: str) -> str:
    """A header's text; of one that comes twice, the first counts."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), otherwise)


class Packed:
    """An ASGI `send` that packs a long text on its way out."""

    def __init__(self, send: Send, coding: str) -> None:
        self.send = send
        self.coding = coding
        self.start: Message | None = None
        self.packer: Packer | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message if _is_text(message) else None
            if self.start is not None:
                return  # how long the answer is shows with its first piece
        elif message["type"] == "http.response.body" and self.start is not None:
            start, self.start = self.start, None
            if len(message.get("body", b"")) >= LEAST:
                self.packer = _packer(self.coding)
                headers = MutableHeaders(raw=start["headers"])
                headers["Content-Encoding"] = self.coding
                headers.add_vary_header("Accept-Encoding")
                del headers["Content-Length"]
            await self.send(start)
        if self.packer is not None and message["type"] == "http.response.body":
            message = await self._pack(message, self.packer)
        await self.send(message)

    async def _pack(self, message: Message, packer: Packer) -> Message:
        body, more = message.get("body", b""), message.get("more_body", False)
        long = len(body) >= IN_A_THREAD
        packed = await asyncio.to_thread(packer.compress, body) if long else packer.compress(body)
        return {**message, "body": packed if more else packed + packer.flush()}


def _is_text(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    media = headers.get("content-type", "").partition(";")[0]
    whole = start["status"] != 206  # a range is one of the bytes as they are
    return whole and media in TEXTS and "content-encoding" not in headers


def _packer(coding: str) -> Packer:
    if coding == "zstd":
        return zstandard.ZstdCompressor(level=3).compressobj()
    return zlib.compressobj(level=3, wbits=31)


def _coding(accepted: str) -> str | None:
    """The coding the client takes and this server writes; zstd, the cheaper one, before gzip."""
    taken: set[str] = set()
    for part in accepted.lower().split(","):
        name, _, quality = part.partition(";q=")
        if quality.strip() not in ("0", "0.0", "0.00", "0.000"):
            taken.add(name.strip())
    return next((coding for coding in ("zstd", "gzip") if coding in taken), None)
