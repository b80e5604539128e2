"""What an upload changes in its dataset, worked out without changing anything: `revisions` writes it down."""

import datetime as dt
import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.tables import ColumnRow, DatasetRow, RevisionRow, SeriesRow, StaticRow
from app.errors import MAX_LISTED, Complaint, Conflict, TooLarge
from app.services import segments
from app.services.ingest.upload import Covariate, Upload
from app.services.segments import TARGET, Floats, Ints, Piece
from app.services.sheets import Bools, Laid, Limits, Mode, Sheet, lay, sheet_of

STATIC = "static"
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
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


@dataclass(frozen=True)
class Change:
    """What to write for an upload, and the state of the dataset it was worked out against: `head`, `stored` series."""

    dataset_id: int
    head: int
    stored: int
    ids: Ints  # (k,) series rows of the upload's keys, -1 = to be made
    pieces: list[Piece]
    gone: list[tuple[int, str]]  # (series id, column) that a `replace` empties
    columns: dict[str, Column]  # covariates of the upload, by name
    live: list[str]  # covariates of the dataset after it
    statics: list[tuple[int, str, float | None]]  # (series number, column, value)
    gone_statics: list[tuple[int, str]]  # (series id, column)
    inserted: int
    updated: int
    unchanged: int
    total: Total
    digest: str
    is_empty: bool


def stored_series(session: Session, dataset_id: int) -> int:
    """How many series rows the dataset has, those that are no longer part of it too. Falls only when one is erased."""
    return session.scalars(select(func.count()).where(SeriesRow.dataset_id == dataset_id)).one()


def change_of(session: Session, dataset: DatasetRow, upload: Upload, mode: Mode, limits: Limits) -> Change:
    """What the upload changes against the dataset's head.

    Raises Conflict when `append` would change a stored value or a column is not what it was, TooLarge past the limits.
    """
    stored = stored_series(session, dataset.id)
    head = head_of(session, dataset)
    columns = _columns(session, dataset.id, upload)
    sheet = sheet_of(session, dataset, upload, mode, limits)
    before = live(head)
    after = sorted(columns) if mode == "replace" else sorted({*before, *columns})
    laid = _lay_all(session, sheet, columns, before)
    statics = _changed_statics(session, sheet, columns, before)
    if mode == "append":
        _refuse_changes(sheet, laid, columns)
    gone = _gone(session, sheet, dataset.id) if mode == "replace" else {}
    pieces = [piece for one in laid for piece in one.pieces]
    total = _total(sheet, laid[0], head)
    if total.series > limits.series:
        raise TooLarge(f"The dataset would hold {total.series:,} series, more than the {limits.series:,} allowed here.")
    inserted, updated = _counts(sheet, laid)
    facts = {
        "calendar": [upload.calendar.frequency.name, upload.calendar.time_zone],
        "columns": [[c.name, c.role, c.kind, c.added] for c in columns.values() if c.is_new or c.added],
        "live": after,
        "arrived": [[upload.keys[i], int(upload.phases[i])] for i in np.flatnonzero(~sheet.here).tolist()],
        "gone": sorted(key for key, _ in gone.values()),
        "statics": [[upload.keys[series], column, value] for series, column, value in statics],
    }
    return Change(
        dataset_id=dataset.id,
        head=dataset.head,
        stored=stored,
        ids=sheet.ids,
        pieces=pieces,
        gone=[(series_id, column) for series_id, (_, filled) in gone.items() for column in filled],
        columns=columns,
        live=after,
        statics=statics,
        gone_statics=_gone_statics(session, sheet, gone),
        inserted=inserted,
        updated=updated,
        unchanged=len(upload.steps) - inserted - updated,
        total=total,
        digest=_digest(head, facts, sheet, laid),
        is_empty=not (pieces or gone or statics or before != after),
    )


def head_of(session: Session, dataset: DatasetRow) -> RevisionRow | None:
    """The dataset's newest revision; None when it has none."""
    if not dataset.head:
        return None
    newest = select(RevisionRow).where(RevisionRow.dataset_id == dataset.id, RevisionRow.number == dataset.head)
    return session.scalars(newest).one()


def live(revision: RevisionRow | None) -> list[str]:
    """The covariate columns of a dataset at a revision: those sent since the last `replace`."""
    return revision.columns["live"] if revision else []


# ---------------------------------------------------------------- columns


def _columns(session: Session, dataset_id: int, upload: Upload) -> dict[str, Column]:
    rows = session.scalars(select(ColumnRow).where(ColumnRow.dataset_id == dataset_id))
    known = {row.name: row for row in rows}
    sent = sorted({**upload.covariates, **upload.statics}.items())
    return {name: _column(name, covariate, known.get(name)) for name, covariate in sent}


def _column(name: str, sent: Covariate, known: ColumnRow | None) -> Column:
    if known is not None and (known.role, known.kind) != (sent.role, sent.kind):
        detail = f"Column {name!r} holds {known.role} {known.kind} values here; {sent.role} {sent.kind} values came."
        raise Conflict(detail, code="column-changed", errors=[Complaint("column-changed", detail, column=name)])
    before: tuple[str, ...] = tuple(known.categories) if known else ()
    # By text, not by code: codes follow the rows' order in the file, which must not show in the digest.
    codes: list[int] = np.unique(sent.values).astype(int).tolist() if sent.kind == "category" else []
    used: set[str] = {sent.categories[code - 1] for code in codes if code > 0}
    added = tuple(sorted(used - set(before)))
    return Column(name, sent.role, sent.kind, before + added, known is None, added)


def _values(sent: Covariate, column: Column) -> Floats:
    """A covariate's values as they are stored: NaN for missing, categories as the dataset's codes."""
    if sent.kind != "category":
        return sent.values
    code_of = {text: code for code, text in enumerate(column.categories, start=1)}
    codes = np.array([np.nan, *(code_of.get(text, np.nan) for text in sent.categories)])
    return codes[sent.values.astype(np.int64)]


def _lay_all(session: Session, sheet: Sheet, columns: Mapping[str, Column], before: Sequence[str]) -> list[Laid]:
    """The target, then every past and future covariate; a `replace` lays those that it left out too, as nulls."""
    upload = sheet.upload
    laid = [lay(session, sheet, TARGET, upload.values)]
    for name, column in columns.items():
        if column.role != STATIC:
            laid.append(lay(session, sheet, name, _values(upload.covariates[name], column)))
    if sheet.mode == "replace":
        for name in sorted({*before} - {*columns}):
            laid.append(lay(session, sheet, name, np.full(len(upload.steps), np.nan)))
    return laid


# ---------------------------------------------------------------- statics


def statics_at(session: Session, series_ids: Sequence[int], revision: int) -> dict[int, dict[str, float]]:
    """The static values of each series at a revision, by column; missing ones left out."""
    found: dict[int, dict[str, float]] = {}
    for ids in segments.batched(series_ids, segments.BATCH):
        rows = session.execute(
            select(StaticRow.series_id, StaticRow.column, StaticRow.value)
            .where(StaticRow.series_id.in_(ids), StaticRow.revision <= revision)
            .order_by(StaticRow.revision)
        )
        for series_id, column, value in rows:
            mine = found.setdefault(series_id, {})
            mine.pop(column, None)
            if value is not None:
                mine[column] = value
    return found


def _changed_statics(
    session: Session, sheet: Sheet, columns: Mapping[str, Column], before: Sequence[str]
) -> list[tuple[int, str, float | None]]:
    """(series number, column, value) where a static value changes. One not sent stays, except in a `replace`."""
    upload, whole = sheet.upload, sheet.mode == "replace"
    if not upload.statics and not (whole and before):
        return []
    ids = [int(i) for i in sheet.ids if i >= 0]
    stored = statics_at(session, ids, sheet.head) if sheet.head and before else {}
    sent = {name: _values(covariate, columns[name]) for name, covariate in upload.statics.items()}
    changed: list[tuple[int, str, float | None]] = []
    for series, series_id in enumerate(sheet.ids.tolist()):
        mine = stored.get(series_id, {})
        new = {name: float(values[series]) for name, values in sent.items() if not np.isnan(values[series])}
        for name in sorted({*new, *mine} if whole else new):
            if mine.get(name) == new.get(name):
                continue
            if sheet.mode == "append" and name in mine:
                detail = (
                    f"{name!r} of series {upload.keys[series]!r} has another value here; append does not change it."
                )
                hint = "Send it with mode=upsert to change it."
                complaint = Complaint("value-changed", detail, column=name, hint=hint)
                raise Conflict(detail, code="value-changed", errors=[complaint])
            changed.append((series, name, new.get(name)))
    return changed


# ---------------------------------------------------------------- what a replace leaves out


def _gone(session: Session, sheet: Sheet, dataset_id: int) -> dict[int, tuple[str, list[str]]]:
    """The series of the head that a `replace` does not send: id to (key, columns that hold something)."""
    rows = session.execute(select(SeriesRow.id, SeriesRow.key).where(SeriesRow.dataset_id == dataset_id))
    sent = set(sheet.upload.keys)
    left = {series_id: key for series_id, key in rows if key not in sent}
    gone: dict[int, tuple[str, list[str]]] = {}
    for (series_id, column), extent in segments.extents(session, list(left), sheet.head).items():
        if extent.stop > extent.start:
            gone.setdefault(series_id, (left[series_id], []))[1].append(column)
    return gone


def _gone_statics(session: Session, sheet: Sheet, gone: Mapping[int, object]) -> list[tuple[int, str]]:
    found = statics_at(session, list(gone), sheet.head) if gone else {}
    return [(series_id, column) for series_id, columns in found.items() for column in columns]


# ---------------------------------------------------------------- refuse, count, sum up


def _refuse_changes(sheet: Sheet, laid: Sequence[Laid], columns: Mapping[str, Column]) -> None:
    """`append` adds and never changes: a Conflict that lists the rows whose stored value is another one."""
    found: list[Complaint] = []
    count = 0
    for one in laid:
        rows = np.flatnonzero(one.changed & ~np.isnan(one.stored))
        count += len(rows)
        for row in rows[: MAX_LISTED - len(found)].tolist():
            found.append(_complaint(sheet, one, columns, row))
    if count:
        raise Conflict(
            f"append: {count:,} stored value(s) would change, the first {found[0].message}.",
            code="value-changed",
            errors=found,
            error_count=count,
        )


def _complaint(sheet: Sheet, laid: Laid, columns: Mapping[str, Column], row: int) -> Complaint:
    upload, series = sheet.upload, int(sheet.owners[row])
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


def _counts(sheet: Sheet, laid: Sequence[Laid]) -> tuple[int, int]:
    """Rows inserted and updated. A row is inserted when its target was missing, or all of it, and is no longer."""
    changed = np.logical_or.reduce([one.changed for one in laid])
    empty = np.logical_and.reduce([np.isnan(one.stored) for one in laid])
    inserted = changed & (empty | (np.isnan(laid[0].stored) & ~np.isnan(laid[0].sent)))
    return int(np.count_nonzero(inserted)), int(np.count_nonzero(changed & ~inserted))


def _total(sheet: Sheet, target: Laid, head: RevisionRow | None) -> Total:
    """The dataset after the upload: counted anew for a `replace`, else from the head's total and what came and went."""
    was, now = ~np.isnan(target.stored), ~np.isnan(target.sent)
    if sheet.mode == "replace":
        return Total(len(sheet.ids), int(np.count_nonzero(now)), *outermost(sheet, now))
    before = total_of(head)
    came, went = now & ~was, was & ~now
    points = before.points + int(np.count_nonzero(came)) - int(np.count_nonzero(went))
    first, last = outermost(sheet, came)
    lost_first, lost_last = outermost(sheet, went)
    is_exact = before.points == 0 or before.start is not None
    if lost_first is not None and lost_last is not None and is_exact:
        is_exact = lost_first > (before.start or 0) and lost_last < (before.end or 0)
    starts = [time for time in (before.start, first) if time is not None]
    ends = [time for time in (before.end, last) if time is not None]
    return Total(
        before.series + int(np.count_nonzero(~sheet.here)),
        points,
        min(starts, default=None),
        max(ends, default=None),
        is_exact,
    )


def total_of(head: RevisionRow | None) -> Total:
    """The total that a revision row holds."""
    if head is None:
        return Total()
    return Total(head.series, head.points, micros(head.start), micros(head.end))


def outermost(sheet: Sheet, rows: Bools) -> tuple[int | None, int | None]:
    """The first and last time (µs, or integers) among the rows marked in `rows`; None, None without any."""
    marked = np.flatnonzero(rows)
    if not len(marked):
        return None, None
    upload, owners = sheet.upload, sheet.owners[marked]
    turns = np.flatnonzero(np.diff(owners))
    firsts, lasts = marked[np.concatenate(([0], turns + 1))], marked[np.append(turns, len(marked) - 1)]
    first = upload.calendar.times(upload.steps[firsts], upload.phases[sheet.owners[firsts]])
    last = upload.calendar.times(upload.steps[lasts], upload.phases[sheet.owners[lasts]])
    return int(first.min()), int(last.max())


def micros(moment: dt.datetime | None) -> int | None:
    """A stored instant in µs since 1970 (for `step`: the integer kept as one)."""
    return None if moment is None else (moment - EPOCH) // MICRO


def moment(time: int | None) -> dt.datetime | None:
    """The inverse of `micros`."""
    return None if time is None else EPOCH + time * MICRO


# ---------------------------------------------------------------- digest


def _digest(head: RevisionRow | None, facts: Mapping[str, object], sheet: Sheet, laid: Sequence[Laid]) -> str:
    """SHA-256 over the parent's digest, the facts beside values, and the changed cells by column, series and step."""
    digest = hashlib.sha256((head.digest if head else "").encode() + b"\n" + orjson.dumps(facts))
    keys, steps = sheet.upload.keys, sheet.upload.steps
    for one in laid:
        column = one.column.encode()
        values = np.where(np.isnan(one.sent), np.nan, one.sent + 0.0)  # one NaN, one zero
        rows = np.flatnonzero(one.changed)
        parts = np.split(rows, np.flatnonzero(np.diff(sheet.owners[rows])) + 1) if len(rows) else []
        cells = {int(sheet.owners[part[0]]): (steps[part], values[part]) for part in parts}
        for owner, left in one.dropped.items():
            some = cells.get(owner, (steps[:0], values[:0]))
            all_steps = np.concatenate((some[0], left))
            order = np.argsort(all_steps)
            cells[owner] = all_steps[order], np.append(some[1], np.full(len(left), np.nan))[order]
        for owner in sorted(cells):
            key, (at, what) = keys[owner].encode(), cells[owner]
            digest.update(struct.pack("<III", len(column), len(key), len(at)) + column + key)
            digest.update(at.astype("<i8").tobytes() + what.astype("<f8").tobytes())
    return f"sha256:{digest.hexdigest()}"
