"""Bodies that go to disk as they arrive: raw, or as the one part `file` of a form. Memory holds a piece at a time."""

import hashlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool

from app.config import MIB
from app.errors import FULL, Complaint, Invalid, Unavailable, UnsupportedMedia, disk_full
from app.http.formats import ARROW, CSV, JSON, NDJSON, PARQUET
from app.services.ingest import Ahead

MULTIPART = "multipart/form-data"
# What a file's name says where the form does not: browsers and curl send most of these as octets.
SUFFIXES = {
    ".csv": CSV,
    ".tsv": CSV,
    ".txt": CSV,
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".arrow": ARROW,
    ".arrows": ARROW,
    ".ndjson": NDJSON,
    ".jsonl": NDJSON,
    ".json": JSON,
    ".zip": "application/zip",
}
MAX_HEADER = 8192
SMALL = 16_384  # bytes that are written where they came: a thread's turn takes longer
PACKED = (".gz", ".gzip", ".zst", ".zstd")
UNTOLD = ("", "application/octet-stream", "text/plain", "application/gzip", "application/x-gzip", "application/zstd")


@dataclass(frozen=True)
class Spooled:
    """A body on disk: what it is said to be, the SHA-256 of all that was sent, and who reads it already."""

    path: Path
    media_type: str
    encoding: str | None
    digest: str
    ahead: Ahead | None


# Given the path, the media type and the bytes of a body that begins to arrive: who reads it meanwhile.
Begin = Callable[[Path, str, int], Ahead | None]


@asynccontextmanager
async def spooled(request: Request, folder: Path, begin: Begin | None = None) -> AsyncGenerator[Spooled]:
    """The request's body as a file in `folder`, which is gone afterwards, also when the client goes away in between.
    A plain one of known length is shown to `begin` before it arrives.

    Raises Invalid for a form that is not one part named `file`, UnsupportedMedia for a packed form, Unavailable when
    the disk is full. How long a body may be is the middleware's to say.
    """
    path = folder / f"upload-{uuid.uuid4().hex}"
    with ExitStack() as stack:
        stack.callback(path.unlink, missing_ok=True)
        yield await _received(request, path, begin, stack)


def _plain_length(request: Request) -> int | None:
    """The bytes of the file, where the body is the file itself and says how long it is."""
    said = request.headers
    is_plain = "content-encoding" not in said and not said.get("content-type", "").lower().startswith(MULTIPART)
    length = said.get("content-length", "")
    return int(length) if is_plain and length.isdecimal() else None


async def _received(request: Request, path: Path, begin: Begin | None, stack: ExitStack) -> Spooled:
    media = request.headers.get("content-type", "")
    encoding = request.headers.get("content-encoding")
    is_form = media.partition(";")[0].strip().lower() == MULTIPART
    if is_form and encoding not in (None, "", "identity"):
        raise UnsupportedMedia(f"A form is not unpacked: pack the file inside it, not the body ({encoding!r}).")
    digest = hashlib.sha256()
    ahead: Ahead | None = None
    try:
        with path.open("xb") as file:
            length = _plain_length(request)
            if begin is not None and length is not None:
                ahead = await run_in_threadpool(begin, path, media, length)
            if ahead is not None:
                stack.callback(ahead.close)
            form = _Form(media, file) if is_form else None
            write = form.write if form else file.write

            def keep(piece: bytes) -> None:
                digest.update(piece)
                write(piece)

            async for piece in _pieces(request):
                if len(piece) <= SMALL:
                    keep(piece)
                else:
                    await run_in_threadpool(keep, piece)
    except OSError as error:
        if error.errno in FULL:
            raise disk_full("the body could not be kept while it arrived, and nothing of it was stored") from error
        raise Unavailable(f"The body could not be kept: {error.strerror}.") from error
    if form is not None:
        media, encoding = form.finish(), None
    return Spooled(path, media, encoding, digest.hexdigest(), ahead)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces of about a megabyte: a thread's turn for each costs little then."""
    held = bytearray()
    async for chunk in request.stream():
        held += chunk
        if len(held) >= MIB:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


@dataclass
class _Part:
    name: str = ""
    file_name: str = ""
    media_type: str = ""
    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)


class _Form:
    """Reads a form as it streams in: the content of its one part `file` goes to `file`."""

    def __init__(self, content_type: str, file: BinaryIO) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise _malformed("its Content-Type names no boundary")
        self.file, self.part, self.ended, self.seen = file, _Part(), False, 0
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_begin": self._header_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_end": self._end,
        }
        self.parser = MultipartParser(boundary, callbacks)

    def write(self, piece: bytes) -> None:
        try:
            self.parser.write(piece)
        except FormParserError as error:  # what it says is about its own innards
            raise _malformed(str(error)) from error

    def finish(self) -> str:
        """The file's media type, by its own header or its name. Raises Invalid when the form is not whole."""
        if not self.ended:
            raise _malformed("it ends early")
        if not self.seen:
            raise _malformed("it has no part named `file`")
        media = self.part.media_type
        if media.partition(";")[0].strip().lower() in UNTOLD:
            name = self.part.file_name.lower()
            for ending in PACKED:
                name = name.removesuffix(ending)
            media = SUFFIXES.get(Path(name).suffix, media)
        return media

    def _begin(self) -> None:
        self.part = _Part()

    def _end(self) -> None:
        self.ended = True

    def _header_begin(self) -> None:
        self.part.header.clear()
        self.part.value.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self.part.header += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self.part.value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self.part.header) + len(self.part.value) > MAX_HEADER:
            raise _malformed(f"a header of its part is longer than {MAX_HEADER} bytes")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self.file.write(memoryview(data)[start:end])

    def _header_end(self) -> None:
        name, value = bytes(self.part.header).lower(), bytes(self.part.value)
        if name == b"content-disposition":
            _, options = parse_options_header(value)
            self.part.name = options.get(b"name", b"").decode("utf-8", "replace")
            self.part.file_name = options.get(b"filename", b"").decode("utf-8", "replace")
        elif name == b"content-type":
            self.part.media_type = value.decode("latin-1")

    def _headers_finished(self) -> None:
        self.seen += 1
        if self.part.name != "file" or self.seen > 1:
            raise _malformed(f"expected one part named `file`, got part {self.seen} named {self.part.name[:60]!r}")


def _malformed(why: str) -> Invalid:
    hint = "Send one part named `file`, as `curl -F file=@data.csv` does, or the file itself as the body."
    complaint = Complaint("form", f"The form is not what it should be: {why}", pointer="", hint=hint)
    return Invalid(f"{complaint.message}.", code="unreadable-body", errors=[complaint])
