"""The parts of a forecast too big to hold: each a small Parquet file, whole or not there, that says in its metadata how
far it reaches; then all of them as one file, a part in memory at a time.

    {folder}/part-000001.parquet     written once, by rename; the same whoever writes it
    {folder}/.part-000001.{attempt}  being written

A part that cannot be read is as one that is not there: whoever finds it so deletes it, and it is made again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.services.ingest.arrow import parquet
from app.services.texts import csv_pieces, grouped, null_for_nan
from models import Stopped

TOLD = b"gatecast"  # the metadata's name
UNREADABLE = (OSError, ValueError, KeyError, TypeError)  # what Arrow and JSON say of a file that is not one of ours


class Damaged(Exception):
    """A part that cannot be read; it has been deleted."""


@dataclass(frozen=True)
class Reach:
    """How far the parts up to one go: series done, the last key among them, the warnings of this part alone."""

    done: int = 0
    last: str | None = None
    warnings: Sequence[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def whole(folder: Path) -> list[Path]:
    """The parts that are there, from the first to the last before a gap. What follows one that cannot be read goes with
    it: it would be written again all the same."""
    found: list[Path] = []
    while (path := _path(folder, len(found) + 1)).is_file():
        try:
            reach(path)
        except UNREADABLE:
            path.unlink()
            break
        found.append(path)
    return found


def reach(part: Path) -> Reach:
    """What a part says of itself."""
    return Reach(**json.loads(parquet.read_schema(part).metadata[TOLD]))


def write(folder: Path, number: int, table: Any, told: Reach, attempt: str) -> Path:
    """Write part `number`, counted from 1, in the name of an attempt; on disk before this returns. Raises OSError."""
    path = _path(folder, number)
    draft = folder / f".{path.stem}.{attempt}"
    said = {TOLD: json.dumps(asdict(told)).encode()}
    parquet.write_table(null_for_nan(table).replace_schema_metadata(said), draft, compression="zstd")
    _settle(draft, path)
    return path


def join(parts: Sequence[Path], path: Path, should_stop: Callable[[], bool]) -> int:
    """Write all parts as one file, CSV or Parquet by the path's name, visible when it is whole and on disk; gives its
    number of rows. Raises OSError, Damaged, and Stopped when `should_stop` says so."""
    draft = path.with_name(f".{path.name}")
    rows = 0
    tables = _tables(parts, should_stop)
    if path.suffix == ".csv":
        with draft.open("wb") as file:
            for place, table in enumerate(tables):
                pieces = csv_pieces(table)
                header = next(pieces)
                if place == 0:
                    file.write(header)
                file.writelines(pieces)
                rows += table.num_rows
    else:
        schema = parquet.read_schema(parts[0]).remove_metadata()
        with parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
            for table in grouped(tables):
                writer.write_table(table)
                rows += table.num_rows
    _settle(draft, path)
    return rows


def digest(path: Path) -> str:
    """`sha256:…` of a file."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.parquet"


def _tables(parts: Sequence[Path], should_stop: Callable[[], bool]) -> Iterator[Any]:
    for part in parts:
        if should_stop():
            raise Stopped
        try:
            table = parquet.read_table(part)
        except UNREADABLE as error:
            part.unlink(missing_ok=True)
            raise Damaged(part.name) from error
        yield table.replace_schema_metadata(None)


def _settle(draft: Path, path: Path) -> None:
    """Give a written file its name, both on disk."""
    for step in (draft, path.parent):
        handle = os.open(step, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        if step == draft:
            draft.rename(path)
