"""What an upload changes in its dataset, worked out without changing anything: `revisions` writes it down."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from app.db.tables import ColumnRow, DatasetRow, RevisionRow, SeriesRow, StaticRow
from app.errors import Complaint, Conflict, TooLarge
from app.services import segments
from app.services.codecs import Floats, Ints
from app.services.ingest.coming import Coming
from app.services.ingest.upload import Covariate, Upload
from app.services.segments import TARGET, Piece
from app.services.sheets import Laid, Limits, Mode, Sheet, lay, sheet_of
from app.services.sums import Column, Sums, Total, total_of

STATIC = "static"
_NUMBERED = select(RevisionRow).where(
    RevisionRow.dataset_id == bindparam("dataset"), RevisionRow.number == bindparam("number")
)


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


def change_of(session: Session, dataset: DatasetRow, upload: Upload | Coming, mode: Mode, limits: Limits) -> Change:
    """What the upload changes against the dataset's head, worked out for a part of the series after the other.

    Raises Conflict when `append` would change a stored value or a column is not what it was, TooLarge past the limits.
    """
    stored = stored_series(session, dataset.id)
    head = head_of(session, dataset)
    columns = _columns(session, dataset.id, upload) if isinstance(upload, Upload) else {}
    before = live(head)
    after = sorted(columns) if mode == "replace" else sorted({*before, *columns})
    sums = Sums(mode)
    ids: list[Ints] = []
    statics: list[tuple[int, str, float | None]] = []
    with segments.Packing() as packing:
        for first, part in _awaited(session, upload):
            sheet = sheet_of(session, dataset, part, mode, limits)
            laid = _lay_all(session, sheet, columns, before)
            ids.append(sheet.ids)
            changed = _changed_statics(session, sheet, columns, before)
            statics += [(first + series, column, value) for series, column, value in changed]
            if mode == "append":
                sums.refuse(sheet, laid, columns)
            spans = [span for one in laid for span in one.spans]
            packing.add(spans, first, partial(sums.hash, sheet, laid))
            sums.add(sheet, laid)
        sums.settle()
        pieces = packing.pieces()
    upload = upload.whole()
    gone = _gone(session, upload, dataset) if mode == "replace" else {}
    total = sums.total(total_of(head))
    if total.series > limits.series:
        raise TooLarge(f"The dataset would hold {total.series:,} series, more than the {limits.series:,} allowed here.")
    facts = {
        "calendar": [upload.calendar.frequency.name, upload.calendar.time_zone],
        "columns": [[c.name, c.role, c.kind, c.added] for c in columns.values() if c.is_new or c.added],
        "live": after,
        "arrived": sums.arrived,
        "gone": sorted(key for key, _ in gone.values()),
        "statics": [[upload.keys[series], column, value] for series, column, value in statics],
    }
    return Change(
        dataset_id=dataset.id,
        head=dataset.head,
        stored=stored,
        ids=np.concatenate(ids),
        pieces=pieces,
        gone=[(series_id, column) for series_id, (_, filled) in gone.items() for column in filled],
        columns=columns,
        live=after,
        statics=statics,
        gone_statics=_gone_statics(session, dataset.head, gone),
        inserted=sums.inserted,
        updated=sums.updated,
        unchanged=len(upload.steps) - sums.inserted - sums.updated,
        total=total,
        digest=sums.digest(head.digest if head else "", facts),
        is_empty=not (pieces or gone or statics or before != after),
    )


def _awaited(session: Session, upload: Upload | Coming) -> Iterator[tuple[int, Upload]]:
    """The parts of the upload. No transaction waits for one that is still to come; what was loaded stays as it is."""
    if isinstance(upload, Upload):
        yield from upload.parts()
        return
    session.close()
    for part in upload.parts():
        yield part
        session.close()


def head_of(session: Session, dataset: DatasetRow) -> RevisionRow | None:
    """The dataset's newest revision; None when it has none."""
    if not dataset.head:
        return None
    return session.scalars(_NUMBERED, {"dataset": dataset.id, "number": dataset.head}).one()


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


def _gone(session: Session, upload: Upload, dataset: DatasetRow) -> dict[int, tuple[str, list[str]]]:
    """The series of the head that a `replace` does not send: id to (key, columns that hold something)."""
    rows = session.execute(select(SeriesRow.id, SeriesRow.key).where(SeriesRow.dataset_id == dataset.id))
    sent = set(upload.keys)
    left = {series_id: key for series_id, key in rows if key not in sent}
    gone: dict[int, tuple[str, list[str]]] = {}
    for (series_id, column), extent in segments.extents(session, list(left), dataset.head).items():
        if extent.stop > extent.start:
            gone.setdefault(series_id, (left[series_id], []))[1].append(column)
    return gone


def _gone_statics(session: Session, head: int, gone: Mapping[int, object]) -> list[tuple[int, str]]:
    found = statics_at(session, list(gone), head) if gone else {}
    return [(series_id, column) for series_id, columns in found.items() for column in columns]
