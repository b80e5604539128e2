"""One pass over a text file before it is parsed: is it UTF-8, where does it begin, how many lines has it."""

import codecs
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from app.services.ingest.sheet import preview, refuse

PIECE = 1 << 20
_HINTS = (
    (b"PAR1", "this is a Parquet file: send it as application/vnd.apache.parquet"),
    (b"ARROW1", "this is an Arrow file: send it as application/vnd.apache.arrow.stream"),
    (b"PK\x03\x04", "this is a ZIP archive or an Excel workbook: save it as CSV"),
    (codecs.BOM_UTF16_LE, "this looks like UTF-16: save it as UTF-8"),
    (codecs.BOM_UTF16_BE, "this looks like UTF-16: save it as UTF-8"),
)


@dataclass(frozen=True)
class Scan:
    """`start` is the first byte after a byte order mark, `lines` the number of lines; `quotes` and `bare_returns` say
    whether double quotes and carriage returns without line feed occur."""

    start: int
    lines: int
    quotes: bool
    bare_returns: bool


def scan(path: Path) -> Scan:
    """Read the file once. Invalid on bytes that are not UTF-8 text (byte offset and row named) and on an empty file."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = newlines = returns = pairs = 0
    quotes = False
    first = last = b""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            first = first or piece[:8]
            _check(decoder, piece, _Place(offset, newlines, first))
            newlines += piece.count(b"\n")
            quotes = quotes or b'"' in piece
            returns += piece.count(b"\r")
            pairs += piece.count(b"\r\n") + (last == b"\r" and piece.startswith(b"\n"))
            offset += len(piece)
            last = piece[-1:]
    if not offset:
        refuse("empty_file", "the file is empty")
    _check(decoder, None, _Place(offset, newlines, first))
    start = 3 if first.startswith(codecs.BOM_UTF8) else 0
    bare = returns - pairs
    return Scan(start, newlines + bare + (last not in b"\r\n"), quotes, bare > 0)


@dataclass(frozen=True)
class _Place:
    """Where a piece begins: its byte, the line breaks before it, and the first bytes of the file."""

    offset: int
    newlines: int
    first: bytes

    def refuse(self, what: str, piece: bytes, place: int, bad: bytes) -> NoReturn:
        """Refuse `bad`, which begins `place` bytes into the piece, or before it."""
        hint = next((hint for magic, hint in _HINTS if self.first.startswith(magic)), "save the file as UTF-8")
        row = self.newlines + piece.count(b"\n", 0, max(place, 0)) + 1
        shown = preview(bad.hex(" "))
        message = f"not {what}: byte {self.offset + place} (row {row}) is {shown}"
        refuse("encoding", message, hint, row=row, value_preview=shown)


def _check(decoder: codecs.IncrementalDecoder, piece: bytes | None, place: _Place) -> None:
    """Refuse a piece that is not UTF-8 text; None is the end of the file."""
    held = len(decoder.getstate()[0])
    try:
        decoder.decode(piece or b"", piece is None)
    except UnicodeDecodeError as error:
        place.refuse("UTF-8 text", piece or b"", error.start - held, error.object[error.start : error.start + 4])
    zero = -1 if piece is None else piece.find(b"\0")
    if piece is not None and zero >= 0:
        place.refuse("text", piece, zero, b"\0")
