"""Content encodings: gzip and zstd bodies are unpacked to a file beside them, in pieces, never past the limit."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from app.errors import FULL, TooLarge, UnsupportedMedia, disk_full
from app.services.ingest.sheet import refuse
from app.services.ingest.upload import ENCODINGS

PIECE = 1 << 20
ZSTD_BITE = 2048
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MAX_WINDOW = 1 << 27  # a zstd frame may ask its reader for gigabytes of window: 128 MiB is what the format suggests


def coding_of(path: Path, encoding: str | None) -> str | None:
    """The coding to undo: what the sender said, or what the first bytes say (`data.csv.gz` sent without the header)."""
    said = (encoding or "").strip().lower()
    said = {"": None, "identity": None, "x-gzip": "gzip"}.get(said, said)
    if said is not None and said not in ENCODINGS:
        raise UnsupportedMedia(f"content encoding: expected gzip, zstd or none, got {encoding!r}")
    if said is None:
        with path.open("rb") as file:
            start = file.read(4)
        return "gzip" if start.startswith(GZIP_MAGIC) else "zstd" if start == ZSTD_MAGIC else None
    return said


def inflate(path: Path, coding: str, target: Path, limit: int) -> Path:
    """Unpack `path` into `target`. TooLarge past `limit` bytes, Invalid when the body is broken or ends early."""
    size = 0
    try:
        with path.open("rb") as source, target.open("wb") as file:
            for piece in _gunzip(source) if coding == "gzip" else _unzstd(source):
                size += len(piece)
                if size > limit:
                    raise TooLarge(f"the body unpacks to more than {limit} bytes, the most this server accepts")
                file.write(piece)
    except (zlib.error, zstandard.ZstdError) as error:
        refuse("broken_encoding", f"the {coding} body is broken after {size} unpacked bytes: {error}")
    except OSError as error:
        if error.errno in FULL:
            raise disk_full("the upload could not be unpacked, and nothing of it was stored") from error
        raise
    return target


def _gunzip(source: BinaryIO) -> Iterator[bytes]:
    """Pieces of every member of a gzip file; zero bytes after the last one are padding."""
    reader = zlib.decompressobj(31)
    packed = source.read(PIECE)
    while packed:
        yield reader.decompress(packed, PIECE)
        if reader.eof:
            packed = reader.unused_data or source.read(PIECE)
            if not packed.strip(b"\0"):
                packed = b""
                continue
            reader = zlib.decompressobj(31)
        else:
            packed = reader.unconsumed_tail or source.read(PIECE)
    if not reader.eof:
        rest = reader.flush()
        yield rest
        if not reader.eof:
            refuse("broken_encoding", "the gzip body ends in the middle")


def _unzstd(source: BinaryIO) -> Iterator[bytes]:
    """Pieces of every frame of a zstd file. Fed in small bites: four bytes can stand for 128 KiB, a bite for 64 MiB."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    reader = unpacker.decompressobj()
    begun = False
    while packed := source.read(ZSTD_BITE):
        while packed:
            yield reader.decompress(packed)
            begun = not reader.eof
            packed = reader.unused_data if reader.eof else b""
            if reader.eof:
                reader = unpacker.decompressobj()
    if begun:
        refuse("broken_encoding", "the zstd body ends in the middle")
