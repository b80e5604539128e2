"""A version as one file, to be carried to another server: a zip archive of four entries.

    version.json            where it comes from (see `services/parcels`)
    manifest.json, weights.safetensors, forward.onnx

They are stored as they are, in this order, without times, and with nothing else in the archive, so that a version gives
the same bytes on every server. Any zip program reads it; here nothing is taken but these very bytes, read once from
front to back: no second directory to disagree with the first, no entry that unpacks to more than it takes, no name that
is not one of the four.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.store.folder import GRAPH, MANIFEST, WEIGHTS

ABOUT = "version.json"
NAMES = (ABOUT, MANIFEST, WEIGHTS, GRAPH)
MOST = 0xFFFFFFFE  # bytes that such an archive may have in all: lengths take 32 bits
CHUNK = 1024 * 1024
LOCAL, CENTRAL, END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
DAY = 1 << 5 | 1  # 1 January 1980, the first that the format has
PLAIN = 0o100644 << 16  # a file that its owner may write


@dataclass(frozen=True)
class Entry:
    """One file in the archive: its name, its bytes' number and CRC-32."""

    name: str
    size: int
    crc: int


def packed(sources: Sequence[tuple[str, BinaryIO]]) -> tuple[int, Iterator[bytes]]:
    """The archive of these open files, by name: its length and its bytes, a piece at a time; with the last piece the
    files are closed. Raises ValueError when it would be too long for the format."""
    entries: list[Entry] = []
    for name, file in sources:
        size = crc = 0
        while piece := file.read(CHUNK):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
        entries.append(Entry(name, size, crc))
        file.seek(0)
    length = sum(one.size + len(_head(one)) for one in entries) + len(_tail(entries))
    if length > MOST:
        raise ValueError(f"expected at most {MOST} bytes, got {length}")

    def pieces() -> Iterator[bytes]:
        for entry, (_, file) in zip(entries, sources, strict=True):
            yield _head(entry)
            with file:
                while piece := file.read(CHUNK):
                    yield piece
        yield _tail(entries)

    return length, pieces()


def unpack(archive: Path, folder: Path, limits: Callable[[str], int]) -> None:
    """Write the four files into `folder`, each of at most `limits(name)` bytes. Raises ValueError, naming what was
    expected, when the archive is not to the byte as `packed` makes it."""
    entries: list[Entry] = []
    with archive.open("rb") as file:
        for name in NAMES:
            entry = _announced(file, name)
            if entry.size > (most := limits(name)):
                raise ValueError(f"{name}: expected at most {most} bytes, got {entry.size}")
            with (folder / name).open("xb") as copy:
                crc, left = 0, entry.size
                while left and (piece := file.read(min(left, CHUNK))):
                    crc, left = zlib.crc32(piece, crc), left - len(piece)
                    copy.write(piece)
            if left:
                raise ValueError(f"{name}: the file ends early, {left} bytes are missing")
            if crc != entry.crc:
                raise ValueError(f"{name}: its bytes are not those that were packed (CRC-32 differs)")
            entries.append(entry)
        tail = _tail(entries)
        if file.read(len(tail) + 1) != tail:
            raise ValueError(f"expected the end of the archive after {NAMES[-1]}, got other bytes, more or fewer")


def _announced(file: BinaryIO, name: str) -> Entry:
    """The next entry, which has to be `name`. Raises ValueError."""
    wanted = LOCAL.size + len(name)
    head = file.read(wanted)
    if len(head) >= 4 and head[:4] != b"PK\x03\x04":
        found = "expected a zip archive" if name == NAMES[0] else f"expected {name}"
        raise ValueError(f"{found}, got other bytes")
    if len(head) < wanted:
        raise ValueError(f"{name}: the file ends early")
    *_, method, _time, _day, crc, size, _unpacked, length, _extra = LOCAL.unpack(head[: LOCAL.size])
    entry = Entry(name, size, crc)
    if head != _head(entry):
        named = head[LOCAL.size : LOCAL.size + length]
        if named != name.encode():
            raise ValueError(f"expected {name}, got {named.decode('utf-8', 'replace')!r}")
        raise ValueError(f"{name}: expected it {'stored' if method else 'without additions'}, as an export writes it")
    return entry


def _head(entry: Entry) -> bytes:
    """What stands before an entry's bytes."""
    name = entry.name.encode()
    return LOCAL.pack(b"PK\x03\x04", 20, 0, 0, 0, DAY, entry.crc, entry.size, entry.size, len(name), 0) + name


def _tail(entries: Sequence[Entry]) -> bytes:
    """What stands after the last entry's bytes: the directory."""
    directory, at = b"", 0
    for entry in entries:
        name = entry.name.encode()
        sizes = (entry.crc, entry.size, entry.size, len(name), 0, 0, 0, 0)
        directory += CENTRAL.pack(b"PK\x01\x02", 3 << 8 | 20, 20, 0, 0, 0, DAY, *sizes, PLAIN, at) + name
        at += len(_head(entry)) + entry.size
    count = len(entries)
    return directory + END.pack(b"PK\x05\x06", 0, 0, count, count, len(directory), at, 0)
