"""Ingest: bytes become arrays once, every complaint with row and column. `parse` is the whole of it.

ask = Ask("text/csv", dataset="demand")
upload = parse(path, ask, Known())
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from app.errors import TooLarge
from app.services.ingest.apart import OWN_PROCESS_BYTES, Ahead, parse_apart
from app.services.ingest.coming import Coming, Retold
from app.services.ingest.inflate import coding_of, inflate
from app.services.ingest.reading import check, media_type, parse_here
from app.services.ingest.upload import (
    ARROW,
    ENCODINGS,
    MEDIA_TYPES,
    PARQUET,
    Ask,
    Audit,
    Covariate,
    Known,
    Upload,
)

__all__ = [
    "ENCODINGS",
    "MEDIA_TYPES",
    "Ahead",
    "Ask",
    "Audit",
    "Coming",
    "Covariate",
    "Known",
    "Retold",
    "Upload",
    "parse",
]


def parse(path: Path, ask: Ask, known: Known) -> Upload:
    """The file at `path` as arrays. What is made on the way lies beside it and is gone afterwards.

    Bodies over a megabyte and binary formats are read in a process of their own: the event loop stays free, memory goes
    back, and a file that breaks its reader breaks nothing else. Raises Invalid, TooLarge or UnsupportedMedia with
    complaints (row, column, value, way out), Unavailable when the reading process was killed.
    """
    check(ask)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="ingest-") as name:
        folder = Path(name)
        apart = path.stat().st_size > OWN_PROCESS_BYTES or media_type(ask.media_type) in (PARQUET, ARROW)
        if not apart and (coding := coding_of(path, ask.encoding)):
            try:
                path = inflate(path, coding, folder / "small", min(OWN_PROCESS_BYTES, ask.max_inflated_bytes))
                ask = replace(ask, encoding=None)
            except TooLarge:
                apart = True
        return (parse_apart if apart else parse_here)(path, folder, ask, known)
