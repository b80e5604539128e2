"""What goes into `parse` and what comes out: Known, Ask, Upload, Covariate, Audit."""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import MAX_LISTED, Complaint
from models import Calendar

CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"
JSONL = "application/jsonl"
JSON = "application/json"
MEDIA_TYPES = (CSV, PARQUET, ARROW, NDJSON, JSONL, JSON)
ENCODINGS = ("gzip", "zstd")
ROWS = 1 << 17  # of a part: a column of it stays in the processor's cache


@dataclass(frozen=True)
class Known:
    """What the dataset already is. `frequency` None: nothing decided yet. `phases`: series key to phase; `columns`:
    covariate name to (role, kind). `takes_zone`: nobody chose `time_zone`, so a zone in the file's own types wins."""

    frequency: str | None = None
    time_zone: str = "UTC"
    phases: Mapping[str, int] = field(default_factory=dict[str, int])
    columns: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    takes_zone: bool = False


@dataclass(frozen=True)
class Ask:
    """What the sender said about the file. `encoding` is the content encoding; `dataset` names the one series of a file
    without id column; `length` are the bytes of one that is still arriving, None where all of it is there."""

    media_type: str
    encoding: str | None = None
    layout: str = "long"
    frequency: str | None = None
    id_column: str | None = None
    time_column: str | None = None
    target_column: str | None = None
    static_columns: tuple[str, ...] = ()
    future_columns: tuple[str, ...] = ()
    past_columns: tuple[str, ...] = ()
    dataset: str = "series"
    max_inflated_bytes: int = 8 << 30
    max_columns: int = 10_000
    max_series: int = 1_000_000
    max_span: int = 10_000_000
    length: int | None = None

    @property
    def roles(self) -> dict[str, str]:
        """Covariate column to the role the sender gave it."""
        named = {"static": self.static_columns, "future": self.future_columns, "past": self.past_columns}
        return {column: role for role, columns in named.items() for column in columns}


@dataclass(frozen=True)
class Covariate:
    """One column beside the target. `values` float64: (rows,), or (series,) for a static one; a category's value is its
    code, `categories[code - 1]` its text, 0 = missing. A missing number is NaN. `present` is False where it is.
    """

    role: str
    kind: str
    values: NDArray[np.float64]
    present: NDArray[np.bool_]
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """What was noticed in a file that was taken: at most 100 warnings listed, all counted."""

    warnings: list[Complaint] = field(default_factory=list[Complaint])
    warning_count: int = 0

    def document(self) -> dict[str, Any]:
        return {
            "errors": 0,
            "warnings": self.warning_count,
            "findings": [complaint.document() for complaint in self.warnings[:MAX_LISTED]],
        }


@dataclass(frozen=True)
class Upload:
    """A file as arrays: rows sorted by (key, step), one row for each (key, step).

    Series `i` is `keys[i]` (ascending), its rows are `offsets[i]:offsets[i + 1]`, its phase `phases[i]`. `steps`
    (rows,) are absolute steps of `calendar`, `values` (rows,) the target, NaN where a null was sent. `covariates` are
    the past and future columns, `statics` the static ones, in the file's order. `columns` says how each was understood.
    """

    calendar: Calendar
    keys: list[str]
    phases: NDArray[np.int64]
    offsets: NDArray[np.int64]
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    covariates: dict[str, Covariate]
    statics: dict[str, Covariate]
    columns: dict[str, Any]
    audit: Audit

    def whole(self) -> "Upload":
        """Itself: all of it is there."""
        return self

    def parts(self, most: int = ROWS) -> Iterator[tuple[int, "Upload"]]:
        """The upload in parts of whole series with at most so many rows, or one series: the number of the first series
        of each, and the part. Arrays that lie in files take memory only while their part is looked at."""
        start, count = 0, len(self.keys)
        while start < count:
            stop = int(np.searchsorted(self.offsets, int(self.offsets[start]) + most, side="right")) - 1
            stop = max(stop, start + 1)
            yield start, self if (start, stop) == (0, count) else self._part(start, stop)
            start = stop

    def _part(self, start: int, stop: int) -> "Upload":
        rows = slice(int(self.offsets[start]), int(self.offsets[stop]))
        return replace(
            self,
            keys=self.keys[start:stop],
            phases=self.phases[start:stop],
            offsets=self.offsets[start : stop + 1] - self.offsets[start],
            steps=_taken(self.steps, rows),
            values=_taken(self.values, rows),
            covariates={
                name: replace(each, values=_taken(each.values, rows), present=_taken(each.present, rows))
                for name, each in self.covariates.items()
            },
            statics={
                name: replace(each, values=each.values[start:stop], present=each.present[start:stop])
                for name, each in self.statics.items()
            },
        )


def _taken(column: NDArray[Any], rows: slice) -> NDArray[Any]:
    """The rows; of a file that is mapped a copy, and what was read of the map is given back."""
    if not isinstance(column, np.memmap):
        return column[rows]
    part = np.array(column[rows])
    held: mmap.mmap | None = getattr(column, "_mmap", None)
    if held is not None and hasattr(held, "madvise"):
        held.madvise(mmap.MADV_DONTNEED)
    return part
