"""Points as tables that can be uploaded again: of one series, or of a whole dataset, so many series at a time."""

# pyarrow has no types of its own.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from app.db.session import Database
from app.db.tables import ColumnRow, DatasetRow, RevisionRow
from app.errors import Complaint, Invalid, NotFound
from app.services.changes import STATIC, statics_at
from app.services.codecs import Floats, Ints
from app.services.ingest.arrow import pa
from app.services.ingest.stamps import parse_time
from app.services.revisions import find, revision_of
from app.services.segments import TARGET, Painted
from app.services.series import FAR, Span, columns_at, next_keys, painted_columns, series_rows, spread, unknown
from models import Calendar

# Names for key, time and value, all of which an upload recognises: the first three that no covariate has.
NAMES = (
    ("key", "timestamp", "value"),
    ("unique_id", "ds", "y"),
    ("item_id", "timestamp", "target"),
    ("series", "time", "value"),
)
OFFSET = re.compile(r"(:\d\d(?:\.\d+)?) (\d\d:?\d\d)$")  # a `+` that a query string turned into a space


@dataclass(frozen=True)
class Range:
    """Which points: from `start` to `end`, both included, as the query has them; the first `limit` of these."""

    start: str | None = None
    end: str | None = None
    limit: int | None = None


def table_of(session: Session, dataset: DatasetRow, key: str, revision: int | None, which: Range) -> Any:
    """A pyarrow table with one row a step, from the series' first to its last value or covariate, gaps as missing: key,
    time (µs with the dataset's zone, or integers), value, then the covariates.

    Raises NotFound for a key that is not there, Invalid for a revision or a time that is none.
    """
    at = revision_of(session, dataset, revision)
    calendar = Calendar.of(dataset.frequency or "D", dataset.time_zone)
    low, high = _time("start", which.start, calendar), _time("end", which.end, calendar)
    row = next(iter(series_rows(session, dataset.id, [key])), None)
    painted = painted_columns(session, [row.id], at.number).get(row.id) if row else None
    if row is None or painted is None:
        raise unknown(dataset, [key], at.number)
    first, last = (int(ends[0]) for ends in _reach([[column] for column in painted.values()]))
    times = calendar.times(np.arange(first, last + 1, dtype=np.int64), row.phase)
    begin = 0 if low is None else int(np.searchsorted(times, low))
    stop = len(times) if high is None else int(np.searchsorted(times, high, side="right"))
    stop = max(begin, stop if which.limit is None else min(stop, begin + which.limit))
    covariates = columns_at(session, at)
    statics = statics_at(session, [row.id], at.number).get(row.id, {}) if covariates else {}
    names = next(names for names in NAMES if not set(names) & set(covariates))
    columns: dict[str, Any] = {
        names[0]: pa.array([key]).dictionary_encode().take(pa.array(np.zeros(stop - begin, np.int64))),
        names[1]: _instants(times[begin:stop], calendar),
        names[2]: spread(painted[TARGET], first + begin, first + stop),
    }
    for name, column in covariates.items():
        if column.role == STATIC:
            values = np.full(stop - begin, statics.get(name, np.nan))
        else:
            values = spread(painted.get(name, Painted(0, np.empty(0))), first + begin, first + stop)
        columns[name] = _covariate(values, column)
    return pa.table(columns)


ROWS = 1 << 19  # of a page, if its series are as long as the dataset's are on average
SERIES = 1000  # of a page, at most


def page(
    session: Session, dataset: DatasetRow, number: int, after: str | None, size: int = SERIES
) -> tuple[Any, str | None]:
    """The rows of a dataset at revision `number`, by series and time, as `table_of` has them: of the series that follow
    `after` (None: the first), at most `size` of them, and the key to go on from, None after the last."""
    at = revision_of(session, dataset, number)
    size = max(1, min(size, ROWS * max(at.series, 1) // max(at.points, 1)))
    keys = next_keys(session, dataset.id, after, size)
    rows = list(series_rows(session, dataset.id, Span(after, keys[-1]))) if keys else []
    painted = painted_columns(session, [row.id for row in rows], at.number)
    rows = [row for row in rows if row.id in painted]
    calendar = Calendar.of(dataset.frequency or "D", dataset.time_zone)
    table = _rows_of(session, at, calendar, rows, painted)
    return table, keys[-1] if len(keys) == size else None


def pages(database: Database, dataset: DatasetRow, number: int, size: int = SERIES) -> Iterator[Any]:
    """Every `page` of a dataset at revision `number`, each read in a session of its own. Raises NotFound where the
    dataset is deleted meanwhile, though another may have its name by then."""
    wanted, name, workspace = dataset.id, dataset.name, dataset.workspace

    def read() -> Iterator[Any]:
        after: str | None = None
        while True:
            with database.read(workspace) as session:
                found = find(session, name)
                if found is None or found.id != wanted:
                    raise NotFound(f"Dataset {name!r} was deleted while it was read.", code="no-such-dataset")
                table, after = page(session, found, number, after, size)
            yield table
            if after is None:
                return

    return read()


def _rows_of(
    session: Session,
    at: RevisionRow,
    calendar: Calendar,
    rows: Sequence[Any],
    painted: Mapping[int, Mapping[str, Painted]],
) -> Any:
    covariates = columns_at(session, at)
    statics = statics_at(session, [row.id for row in rows], at.number) if covariates else {}
    names = next(names for names in NAMES if not set(names) & set(covariates))
    nothing = Painted(0, np.empty(0))
    held = {name: [painted[row.id].get(name, nothing) for row in rows] for name in (TARGET, *covariates)}
    first, last = _reach(list(held.values()))
    lengths = last - first + 1
    owners = pa.array(np.repeat(np.arange(len(rows), dtype=np.int32), lengths))
    phases = np.array([row.phase for row in rows], np.int64)
    columns: dict[str, Any] = {
        names[0]: pa.DictionaryArray.from_arrays(owners, pa.array([row.key for row in rows], pa.string())),
        names[1]: _instants(_times(calendar, first, last, phases), calendar),
        names[2]: pa.array(_spread(held[TARGET], first, last), from_pandas=True),
    }
    for name, column in covariates.items():
        if column.role == STATIC:
            stored = np.repeat([statics.get(row.id, {}).get(name, np.nan) for row in rows], lengths)
        else:
            stored = _spread(held[name], first, last)
        columns[name] = _covariate(stored, column)
    return pa.table(columns)


def _spread(columns: Sequence[Painted], first: Ints, last: Ints) -> Floats:
    """What is painted of each series from its first to its last step, end to end."""
    spans = zip(columns, first.tolist(), (last + 1).tolist(), strict=True)
    return np.concatenate([np.empty(0), *(spread(column, start, stop) for column, start, stop in spans)])


def _times(calendar: Calendar, first: Ints, last: Ints, phases: Ints) -> Ints:
    """The times of all steps of each series, end to end. Series that go together are as often as not equally long."""
    spans = np.stack([first, last, phases])
    if len(first) and (spans == spans[:, :1]).all():
        return np.tile(calendar.times(np.arange(first[0], last[0] + 1), int(phases[0])), len(first))
    lengths = last - first + 1
    before = np.cumsum(lengths) - lengths
    steps = np.arange(lengths.sum()) + np.repeat(first - before, lengths)
    return calendar.times(steps, np.repeat(phases, lengths))


def _time(name: str, text: str | None, calendar: Calendar) -> int | None:
    """A time of the query in µs, or the integer of `step`; without offset it is local to the dataset."""
    if text is None:
        return None
    if calendar.frequency.is_integer:
        if re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
            return int(text)
        expected = "an integer: the frequency is step"
    else:
        found = parse_time(OFFSET.sub(r"\1+\2", text.strip()))
        if found is not None:
            return int(calendar.to_utc(np.array([found[0]]))[0][0]) if found[1] else found[0]
        expected = "a time such as 2026-01-31 or 2026-01-31T12:00:00+01:00"
    complaint = Complaint("not-a-time", f"Expected {expected}", pointer=f"query/{name}", value_preview=text[:60])
    raise Invalid(f"{name}: expected {expected}, got {text[:60]!r}.", errors=[complaint])


def _reach(columns: Sequence[Sequence[Painted]]) -> tuple[Ints, Ints]:
    """The first and the last step, (series,) each, at which any of the columns, each (series,), holds something; 0 and
    -1 where none does."""
    firsts: list[Ints] = []
    lasts: list[Ints] = []
    for column in columns:
        starts = np.array([one.start for one in column], np.int64)
        ends = np.cumsum([0, *(len(one.values) for one in column)])
        present = np.flatnonzero(~np.isnan(np.concatenate([np.empty(0), *(one.values for one in column)])))
        low, high = np.searchsorted(present, ends[:-1]), np.searchsorted(present, ends[1:])
        some = low < high
        present = np.append(present, 0)  # for columns without any, whatever comes of it
        firsts.append(np.where(some, starts + present[low] - ends[:-1], FAR))
        lasts.append(np.where(some, starts + present[high - 1] - ends[:-1], -FAR))
    first, last = np.min(firsts, axis=0), np.max(lasts, axis=0)
    return np.where(first == FAR, 0, first), np.where(last == -FAR, -1, last)


def _instants(times: Ints, calendar: Calendar) -> Any:
    values = pa.array(times)
    return values if calendar.frequency.is_integer else values.cast(pa.timestamp("us", calendar.time_zone))


def _covariate(values: Floats, column: ColumnRow) -> Any:
    """Numbers as they are, categories by name."""
    if column.kind != "category":
        return pa.array(values)
    missing = np.isnan(values)
    codes = np.where(missing, 1, values).astype(np.int32) - 1
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=missing), pa.array(column.categories, pa.string()))
