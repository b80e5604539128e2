"""One media type, one reader: from a body to a sheet, and on to an Upload, in this process."""

from dataclasses import replace
from pathlib import Path

from app.errors import UnsupportedMedia
from app.services.ingest.assemble import assemble
from app.services.ingest.blocks import STREAMED
from app.services.ingest.columnar import read_arrow, read_parquet
from app.services.ingest.delimited import HEADER_BYTES, read_delimited
from app.services.ingest.growing import wait_for
from app.services.ingest.inflate import coding_of, inflate
from app.services.ingest.placing import Tell
from app.services.ingest.records import read_json, read_lines
from app.services.ingest.sheet import Sheet, refuse
from app.services.ingest.streamed import read_streamed
from app.services.ingest.upload import ARROW, CSV, JSON, JSONL, MEDIA_TYPES, NDJSON, PARQUET, Ask, Known, Upload

STREAMED_BYTES = 1 << 20


def media_type(said: str) -> str:
    """The bare media type. UnsupportedMedia when it is not read here, or names a character set other than UTF-8."""
    name, *parameters = (part.strip().lower() for part in said.split(";"))
    if name not in MEDIA_TYPES:
        raise UnsupportedMedia(f"expected one of {', '.join(MEDIA_TYPES)}, got {said[:100]!r}")
    for parameter in parameters:
        label, _, value = parameter.partition("=")
        if label.strip() == "charset" and value.strip(' "') not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMedia(f"expected charset=utf-8, got {parameter[:100]!r}")
    return name


def check(ask: Ask) -> None:
    """Refuse what needs no look at the file."""
    media_type(ask.media_type)
    if ask.layout not in ("long", "wide"):
        refuse("bad_layout", f"expected layout long or wide, got {ask.layout!r}")


def parse_here(
    path: Path, folder: Path, ask: Ask, known: Known, *, streamed_bytes: int = STREAMED_BYTES, tell: Tell | None = None
) -> Upload:
    """The Upload in `path`; `folder` takes files made on the way. Long files over `streamed_bytes` are read block by
    block where they are clean, and `tell` is told of the parts as `read_streamed` has them."""
    check(ask)
    kind = media_type(ask.media_type)
    size = path.stat().st_size if ask.length is None else ask.length
    if ask.length is not None:
        # A table needs its end, and only CSV is read from the beginning on.
        wait_for(path, min(size, HEADER_BYTES) if kind == CSV else size)
    coding = coding_of(path, ask.encoding)
    if coding is not None:
        wait_for(path, size)
        path = inflate(path, coding, folder / "inflated", ask.max_inflated_bytes)
        ask, size = replace(ask, length=None), path.stat().st_size
    if kind in STREAMED and ask.layout == "long" and size > streamed_bytes:
        upload = read_streamed(path, folder, ask, known, tell=tell)
        if upload is not None:
            return upload
    if ask.length is not None:
        wait_for(path, size)
    return assemble(_read(path, folder, ask), ask, known)


def _read(path: Path, folder: Path, ask: Ask) -> Sheet:
    if path.stat().st_size == 0:
        refuse("empty_file", "the file is empty")
    kind = media_type(ask.media_type)
    if kind == CSV:
        return read_delimited(path, ask)
    if kind == PARQUET:
        return read_parquet(path, ask)
    if kind == ARROW:
        return read_arrow(path, ask)
    if kind in (NDJSON, JSONL):
        return read_lines(path, ask)
    assert kind == JSON
    return read_json(path, folder, ask)
