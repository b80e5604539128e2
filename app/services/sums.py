"""What an upload sums up to: rows inserted and updated, what `append` refuses, the dataset's new total, the digest.

Gathered a part of the series at a time, and the same whatever the parts are.
"""

import datetime as dt
import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import orjson

from app.db.tables import RevisionRow
from app.errors import MAX_LISTED, Complaint, Conflict
from app.services.codecs import Floats, Ints
from app.services.sheets import Bools, Laid, Mode, Sheet

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
HASHED = 1 << 14  # cells put together to be hashed: 256 kB, which stay in the processor's cache
MICRO = dt.timedelta(microseconds=1)


@dataclass(frozen=True)
class Column:
    """A covariate column as it is after the upload: `categories` are the texts of codes 1, 2, …, the new ones last."""

    name: str
    role: str
    kind: str
    categories: tuple[str, ...]
    is_new: bool
    added: tuple[str, ...]  # categories that the dataset did not have


@dataclass(frozen=True)
class Total:
    """A whole dataset at one revision: series in it, target values, and the time (µs, or the integer of `step`) of the
    first and last value. `is_exact` is False where these two must be counted anew: an outermost value went away."""

    series: int = 0
    points: int = 0
    start: int | None = None
    end: int | None = None
    is_exact: bool = True


@dataclass
class Sums:
    """The sums so far: counts of rows, keys and phases of new series, refused rows, and what makes total and digest."""

    mode: Mode
    inserted: int = 0
    updated: int = 0
    series: int = 0  # those the parts bring, or all of theirs in a `replace`
    points: int = 0
    arrived: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    refused: int = 0
    complaints: list[Complaint] = field(default_factory=list[Complaint])
    # Outermost times of the values that came, and of those that went.
    came: list[int] = field(default_factory=list[int])
    went: list[int] = field(default_factory=list[int])
    cells: dict[str, Any] = field(default_factory=dict[str, Any])  # column to the hash of its changed cells

    def refuse(self, sheet: Sheet, laid: Sequence[Laid], columns: Mapping[str, Column]) -> None:
        """`append` adds and never changes: note the rows whose stored value is another one."""
        if sheet.is_fresh:
            return
        for one in laid:
            rows = np.flatnonzero(one.changed & ~np.isnan(one.stored))
            self.refused += len(rows)
            for row in rows[: MAX_LISTED - len(self.complaints)].tolist():
                self.complaints.append(_complaint(sheet, one, columns, row))

    def settle(self) -> None:
        """Raise Conflict with the rows that were refused, if there are any."""
        if self.refused:
            raise Conflict(
                f"append: {self.refused:,} stored value(s) would change, the first {self.complaints[0].message}.",
                code="value-changed",
                errors=self.complaints,
                error_count=self.refused,
            )

    def add(self, sheet: Sheet, laid: Sequence[Laid]) -> None:
        """Take the next series with all their columns, the target first."""
        inserted, updated = _counts(sheet, laid)
        self.inserted += inserted
        self.updated += updated
        new = np.flatnonzero(~sheet.here).tolist()
        self.arrived += [(sheet.upload.keys[place], int(sheet.upload.phases[place])) for place in new]
        self.series += len(sheet.ids if self.mode == "replace" else new)
        came, went = _came_and_went(self.mode, sheet, laid[0])
        self.points += int(np.count_nonzero(came)) - int(np.count_nonzero(went))
        self.came += outermost(sheet, came)
        self.went += outermost(sheet, went)

    def hash(self, sheet: Sheet, laid: Sequence[Laid]) -> None:
        """Take the changed cells of the next series into the digest: half of the work, and it lets go of the
        interpreter, so that another thread may do it. In the order of `add`."""
        for one in laid:
            if one.dropped or one.changed.any():
                _hash(self.cells.setdefault(one.column, hashlib.sha256()), sheet, one)

    def total(self, before: Total) -> Total:
        """The dataset after the upload: what came and went beside `before`; a `replace` counts from nothing."""
        if self.mode == "replace":
            before = Total()
        is_exact = before.points == 0 or before.start is not None
        if self.went and is_exact:
            is_exact = min(self.went) > (before.start or 0) and max(self.went) < (before.end or 0)
        starts = [time for time in (before.start, *self.came) if time is not None]
        ends = [time for time in (before.end, *self.came) if time is not None]
        return Total(
            before.series + self.series,
            before.points + self.points,
            min(starts, default=None),
            max(ends, default=None),
            is_exact,
        )

    def digest(self, parent: str, facts: Mapping[str, object]) -> str:
        """The digest of the revision; see `chained`."""
        return chained(parent, facts, self.cells)


def chained(parent: str, facts: Mapping[str, object], columns: Mapping[str, Any]) -> str:
    """SHA-256 over the parent's digest, the facts beside values, and the changed cells of each column by series and
    step, hashed by `hash_cells`."""
    digest = hashlib.sha256(parent.encode() + b"\n" + orjson.dumps(facts))
    for column, cells in sorted(columns.items()):
        digest.update(struct.pack("<I", len(column.encode())) + column.encode() + cells.digest())
    return f"sha256:{digest.hexdigest()}"


def hash_cells(digest: Any, series: Iterable[tuple[str, Ints, Floats]]) -> None:
    """Put what cells of some series become into the hash of their column, by step: one zero and one NaN among them.

    So many together: each call lets go of the interpreter, and may have to wait for it afterwards."""
    cells: list[Any] = []
    count = 0
    for key, steps, values in series:
        name = key.encode()
        cells.append(struct.pack("<II", len(name), len(steps)) + name)
        cells.append(np.ascontiguousarray(steps, "<i8"))
        cells.append(np.ascontiguousarray(values, "<f8"))
        count += len(steps)
        if count >= HASHED:
            digest.update(b"".join(cells))
            cells.clear()
            count = 0
    digest.update(b"".join(cells))


def total_of(head: RevisionRow | None) -> Total:
    """The total that a revision row holds."""
    if head is None:
        return Total()
    return Total(head.series, head.points, micros(head.start), micros(head.end))


def _complaint(sheet: Sheet, laid: Laid, columns: Mapping[str, Column], row: int) -> Complaint:
    upload, series = sheet.upload, int(sheet.owners_of(np.array([row]))[0])
    when = upload.calendar.stamps(upload.calendar.times(upload.steps[row : row + 1], int(upload.phases[series])))[0]
    stored, sent = (_said(values[row], columns.get(laid.column)) for values in (laid.stored, laid.sent))
    return Complaint(
        "value-changed",
        f"of series {upload.keys[series]!r} at {when}: {stored} is stored, {sent} was sent",
        column=laid.column or upload.columns.get("target"),
        value_preview=sent,
        hint="Send it with mode=upsert to overwrite, or leave the row out.",
    )


def _said(value: float, column: Column | None) -> str:
    if np.isnan(value):
        return "null"
    if column is not None and column.kind == "category":
        return repr(column.categories[int(value) - 1])
    return repr(float(value)).removesuffix(".0")


def _came_and_went(mode: Mode, sheet: Sheet, target: Laid) -> tuple[Bools, Bools]:
    """Which rows hold a value that was not there, and which one that is no longer there; of a `replace` all that are
    sent come."""
    nothing = np.zeros(0, np.bool_)
    if sheet.is_fresh:
        return target.changed, nothing
    was, now = ~np.isnan(target.stored), ~np.isnan(target.sent)
    return (now, nothing) if mode == "replace" else (now & ~was, was & ~now)


def _counts(sheet: Sheet, laid: Sequence[Laid]) -> tuple[int, int]:
    """Rows inserted and updated. A row is inserted when its target was missing, or all of it, and is no longer."""
    first, *others = laid
    if sheet.is_fresh and not others:
        return int(np.count_nonzero(first.changed)), 0
    missing = np.isnan(first.stored)
    changed, empty = first.changed, missing
    for one in others:
        changed, empty = changed | one.changed, empty & np.isnan(one.stored)
    inserted = changed & (empty | (missing & ~np.isnan(first.sent)))
    return int(np.count_nonzero(inserted)), int(np.count_nonzero(changed & ~inserted))


def outermost(sheet: Sheet, rows: Bools) -> list[int]:
    """The first and last time (µs, or integers) among the rows marked in `rows`; nothing without any."""
    upload = sheet.upload
    if len(rows) and rows.all():
        firsts, lasts = upload.offsets[:-1], upload.offsets[1:] - 1
    else:
        marked = np.flatnonzero(rows)
        if not len(marked):
            return []
        turns = np.flatnonzero(np.diff(sheet.owners[marked]))
        firsts, lasts = marked[np.concatenate(([0], turns + 1))], marked[np.append(turns, len(marked) - 1)]
    first = upload.calendar.times(upload.steps[firsts], upload.phases[sheet.owners_of(firsts)])
    last = upload.calendar.times(upload.steps[lasts], upload.phases[sheet.owners_of(lasts)])
    return [int(first.min()), int(last.max())]


def micros(moment: dt.datetime | None) -> int | None:
    """A stored instant in µs since 1970 (for `step`: the integer kept as one)."""
    return None if moment is None else (moment - EPOCH) // MICRO


def moment(time: int | None) -> dt.datetime | None:
    """The inverse of `micros`."""
    return None if time is None else EPOCH + time * MICRO


def _hash(digest: Any, sheet: Sheet, one: Laid) -> None:
    """Put the changed cells of one column into its hash, by series and step: a cell is what it becomes."""
    at, what = sheet.upload.steps, one.sent
    if one.changed.all():
        named, ends = np.arange(len(sheet.ids)), sheet.upload.offsets
    else:
        at, what, owners = at[one.changed], what[one.changed], sheet.owners[one.changed]
        begins = np.flatnonzero(np.diff(owners, prepend=-1))
        named, ends = owners[begins], np.append(begins, len(owners))
    at = at.astype("<i8", copy=False)
    what = what.astype("<f8", copy=False) + 0.0  # one zero
    missing = np.isnan(what)
    if missing.any():
        what[missing] = np.nan  # one NaN
    hash_cells(digest, _cells(sheet.upload.keys, one.dropped, (named, ends), at, what))


def _cells(
    keys: Sequence[str], dropped: Mapping[int, Ints], runs: tuple[Ints, Ints], steps: Ints, values: Floats
) -> Iterator[tuple[str, Ints, Floats]]:
    """Key, steps and values of each series that has changed cells. `runs` are the series (k,) and where the cells of
    each begin and the last's end (k + 1,); what is `dropped` becomes missing."""
    bounds: list[int] = runs[1].tolist()
    parts: dict[int, tuple[int, int]] = dict(zip(runs[0].tolist(), pairwise(bounds), strict=True))
    for owner in sorted({*parts, *dropped}) if dropped else parts:
        begin, end = parts.get(owner, (0, 0))
        mine, what = steps[begin:end], values[begin:end]
        if (left := dropped.get(owner)) is not None:
            mine = np.concatenate((mine, left))
            order = np.argsort(mine)
            mine, what = mine[order], np.append(what, np.full(len(left), np.nan))[order]
        yield keys[owner], mine, what
