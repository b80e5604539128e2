"""History and covariates that come with a request: bytes are numbers already, here they become series on a calendar and
every complaint gets its JSON pointer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import ColumnRow
from app.errors import Complaint, Invalid
from app.services.ingest.stamps import parse_time
from models import Calendar, Column, Note, Series

Scalar = float | str | bool | None
Columns = Mapping[str, Sequence[Scalar]]


@dataclass(frozen=True)
class Input:
    """One series as it was sent. `target` is (time,) float64, NaN = missing; `start` the time of its first value."""

    key: str
    target: NDArray[np.float64]
    start: str | int | None = None
    past: Columns = field(default_factory=dict[str, Sequence[Scalar]])
    future: Columns = field(default_factory=dict[str, Sequence[Scalar]])
    static: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])


@dataclass(frozen=True)
class Known:
    """A covariate column that the version's data have: its role (future, past, static) and kind (number, category)."""

    role: str
    kind: str
    read: bool = False  # by the version that answers


def known_columns(session: Session, dataset_id: int | None) -> dict[str, Known]:
    """The covariate columns of a dataset by name; none when there is no dataset (any more)."""
    if dataset_id is None:
        return {}
    rows = session.scalars(select(ColumnRow).where(ColumnRow.dataset_id == dataset_id))
    return {row.name: Known(row.role, row.kind) for row in rows}


def series_of(inputs: Sequence[Input], calendar: Calendar) -> tuple[list[Series], list[Note]]:
    """The inputs as series without covariates, dated where they have a `start`, and what had to be decided on the way.

    Values missing at the end are cut off, as in an upload: the origin is the last value that is there. Raises Invalid
    with a pointer to each start that is no time of this calendar.
    """
    times, notes = instants([sent.start for sent in inputs], calendar, "/inputs/{}/start")
    dated = [sent.start is not None for sent in inputs]
    steps, phases = calendar.locate(times)
    own, phases = phases, calendar.settle(np.arange(len(inputs)), phases, steps)
    _refuse_off_grid(inputs, np.flatnonzero(~calendar.on_grid(steps, own, phases) & dated), calendar)
    made: list[Series] = []
    cut: list[int] = []
    for place, sent in enumerate(inputs):
        present = np.flatnonzero(~np.isnan(sent.target))
        length = int(present[-1]) + 1 if len(present) else 0
        if 0 < length < len(sent.target):
            cut.append(place)
        start, phase = (int(steps[place]), int(phases[place])) if dated[place] else (0, 0)
        made.append(Series(sent.key, sent.target[:length], start, phase, dated=dated[place]))
    if cut:
        text = "the last values are missing: the forecast starts after the last one that is there"
        notes.append(Note("missing_at_end", text, tuple(cut)))
    return made, notes


def _refuse_off_grid(inputs: Sequence[Input], off: NDArray[np.int64], calendar: Calendar) -> None:
    """Raises Invalid for the starts at these places, which lie on no step: a Saturday among business days."""
    name, places = calendar.frequency.name, cast(list[int], off.tolist())
    wrong = [
        Complaint(
            "off-grid",
            f"expected the time of a step of frequency {name}",
            pointer=f"/inputs/{place}/start",
            value_preview=str(inputs[place].start)[:60],
        )
        for place in places
    ]
    if wrong:
        raise Invalid(f"{wrong[0].pointer}: {wrong[0].message}, got {wrong[0].value_preview!r}.", errors=wrong)


def instants(
    values: Sequence[str | int | None], calendar: Calendar, pointer: str
) -> tuple[NDArray[np.int64], list[Note]]:
    """Times as microseconds since 1970 UTC (`step`: the integers themselves), (n,), 0 where None. Those without offset
    are local: what the clock shows twice is the first, what it skips is moved forward, and a note says so.

    Raises Invalid with a pointer, `pointer` with the place put in, for each value that is no time of this calendar.
    """
    times = np.zeros(len(values), np.int64)
    local: list[int] = []
    wrong: list[Complaint] = []
    for place, value in enumerate(values):
        if value is None:
            continue
        try:
            times[place], naive = _parse(value, calendar)
        except ValueError as error:
            shown = str(value)[:60]
            wrong.append(Complaint("not-a-time", str(error), pointer=pointer.format(place), value_preview=shown))
            continue
        local += [place] if naive else []
    if wrong:
        raise Invalid(f"{wrong[0].pointer}: {wrong[0].message}, got {wrong[0].value_preview!r}.", errors=wrong)
    if not local:
        return times, []
    times[local], ambiguous, missing = calendar.to_utc(times[local])
    notes: list[Note] = []
    for code, rows, text in (
        ("ambiguous_time", ambiguous, "a local time comes twice that day: the first is taken"),
        ("missing_time", missing, "a local time was skipped by the clock that day: moved forward"),
    ):
        if rows.any():
            notes.append(Note(code, text))
    return times, notes


def _parse(value: str | int, calendar: Calendar) -> tuple[int, bool]:
    """Microseconds since 1970, and whether they are on the local clock, because the text has no offset."""
    if calendar.frequency.is_integer:
        if not isinstance(value, int):
            raise ValueError("expected an integer: the frequency is `step`")
        return value, False
    found = parse_time(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("expected a time such as 2026-01-01T00:00:00+01:00")
    return found


# ---------------------------------------------------------------- covariates


def check_inputs(inputs: Sequence[Input], known: Mapping[str, Known], horizon: int) -> list[Note]:
    """Check the covariates of every input. Past ones have one value for each of the target, future ones one for each
    step ahead (more are ignored). Raises Invalid with pointers; gives the warnings about those that are not used."""
    wrong: list[Complaint] = []
    names: set[str] = set()
    for place, sent in enumerate(inputs):
        at = f"/inputs/{place}"
        wrong += _complaints(sent.past, known, f"{at}/past_covariates", (len(sent.target), len(sent.target)))
        wrong += _complaints(sent.future, known, f"{at}/future_covariates", (horizon, None))
        statics = {name: [value] for name, value in sent.static.items()}
        wrong += _complaints(statics, known, f"{at}/static_covariates", (1, 1))
        names |= {*sent.past, *sent.future, *sent.static}
    return _noted(names, known, wrong)


def check_future(
    future: Mapping[str, Columns], keys: Iterable[str], known: Mapping[str, Known], horizon: int
) -> list[Note]:
    """Check what a request adds about the future of stored series, as `check_inputs` does."""
    wrong: list[Complaint] = []
    names: set[str] = set()
    asked = set(keys)
    for key, columns in future.items():
        at = f"/future_covariates/{_escaped(key)}"
        if key not in asked:
            wrong.append(Complaint("unknown-series", "expected one of the series asked for", pointer=at))
        wrong += _complaints(columns, known, at, (horizon, None))
        names |= set(columns)
    return _noted(names, known, wrong)


def ignored(names: Iterable[str]) -> list[Note]:
    """A warning that names columns, where there are any, for a version that reads the target alone whatever there is:
    what is in them is not even looked at."""
    some = sorted(names)
    if not some:
        return []
    more = f" (and {len(some) - 5} more)" if some[5:] else ""
    text = f"this version forecasts from the target alone: {', '.join(map(repr, some[:5]))}{more} changed nothing"
    return [Note("covariates_ignored", text)]


def _complaints(
    columns: Columns, known: Mapping[str, Known], at: str, lengths: tuple[int, int | None]
) -> list[Complaint]:
    least, most = lengths
    wrong: list[Complaint] = []
    for name, values in columns.items():
        pointer = f"{at}/{_escaped(name)}"
        if len(values) < least or (most is not None and len(values) > most):
            text = f"expected {'at least ' if most is None else ''}{least} values, got {len(values)}"
            wrong.append(Complaint("wrong-length", text, pointer=pointer))
        if name in known and known[name].kind == "number":
            for place, value in enumerate(values):
                if isinstance(value, str) and value != "NaN":
                    text = f"expected a number: {name!r} is a numeric column"
                    wrong.append(Complaint("not-a-number", text, f"{pointer}/{place}", value_preview=value[:60]))
                    break  # the first tells enough
    return wrong


def _noted(names: set[str], known: Mapping[str, Known], wrong: list[Complaint]) -> list[Note]:
    if wrong:
        raise Invalid(f"{wrong[0].pointer}: {wrong[0].message}.", errors=wrong)
    notes: list[Note] = []
    if unknown := sorted(names - set(known)):
        text = f"the data have no column {', '.join(map(repr, unknown[:5]))}"
        notes.append(Note("unknown_covariates", text + (f" (and {len(unknown) - 5} more)" if unknown[5:] else "")))
    if unused := sorted(name for name in names & set(known) if not known[name].read):
        reads = ", ".join(map(repr, [name for name, about in known.items() if about.read][:5]))
        alone = f"the target and {reads} alone" if reads else "the target alone"
        text = f"this version forecasts from {alone}: {', '.join(map(repr, unused[:5]))} changed nothing"
        notes.append(Note("covariates_ignored", text))
    return notes


class Reading:
    """Covariates of a request, read as a version knows them. `columns` are those that it reads. Texts that it has not
    learned are remembered, for a note."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = columns
        self.codes = {
            one.name: {text: code for code, text in enumerate(one.categories, 1)}
            for one in columns
            if one.kind == "category"
        }
        self.strange: dict[str, set[str]] = {}

    def known(self, stored: Mapping[str, Known]) -> dict[str, Known]:
        """The columns of the data, and those the version reads, which count where they differ."""
        return {**stored, **{one.name: Known(one.role, one.kind, read=True) for one in self.columns}}

    def covered(self, series: Series, sent: Input) -> Series:
        """The series with what was sent along: past values from its start on, future ones after all of its target,
        values missing at its end included."""
        count = len(sent.target)
        past: dict[str, NDArray[np.float64]] = {}
        future: dict[str, NDArray[np.float64]] = {}
        static: dict[str, float] = {}
        for column in self.columns:
            name = column.name
            if column.role == "static":
                if name in sent.static:
                    static[name] = float(self._numbers(column, [sent.static[name]])[0])
                continue
            before = self._numbers(column, sent.past[name]) if name in sent.past else np.full(count, np.nan)
            if column.role == "past":
                past[name] = before[: len(series.target)]
            else:
                future[name] = np.concatenate([before, self._numbers(column, sent.future.get(name, ()))])
        return replace(series, past=past, future=future, static=static)

    def extended(self, series: Series, sent: Columns) -> Series:
        """A stored series with values sent for the steps after its target; a null leaves what is stored."""
        future = dict(series.future)
        for column in self.columns:
            if column.role != "future" or column.name not in sent:
                continue
            values = self._numbers(column, sent[column.name])
            stored = future.get(column.name, np.empty(0))
            whole = np.full(max(len(stored), len(series.target) + len(values)), np.nan)
            whole[: len(stored)] = stored
            ahead = whole[len(series.target) : len(series.target) + len(values)]
            ahead[:] = np.where(np.isnan(values), ahead, values)
            future[column.name] = whole
        return replace(series, future=future)

    def notes(self) -> list[Note]:
        """What was read and has no meaning to the version."""
        found: list[Note] = []
        for name, texts in self.strange.items():
            some = ", ".join(map(repr, sorted(texts)[:5])) + (f" (and {len(texts) - 5} more)" if len(texts) > 5 else "")
            found.append(Note("unknown_category", f"{name!r}: {some} did not occur in training, taken as unknown"))
        return found

    def _numbers(self, column: Column, values: Sequence[Scalar]) -> NDArray[np.float64]:
        """(n,) float64, NaN where missing; codes of a category, 0 where its text is strange."""
        if column.kind == "number":
            return np.array([np.nan if value is None else float(value) for value in values], np.float64)
        codes = self.codes[column.name]
        texts = [_text(value) for value in values]
        if strange := {text for text in texts if text is not None and text not in codes}:
            self.strange.setdefault(column.name, set()).update(strange)
        return np.array([np.nan if text is None else codes.get(text, 0) for text in texts], np.float64)


def _text(value: Scalar) -> str | None:
    """A category's name, as an upload reads it: whole numbers without a decimal point, no text at all is missing."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
