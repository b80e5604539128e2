"""Rows onto the dataset's grid: times to UTC, the frequency, steps and phases, order, spans."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app.services.ingest.arrow import Column, types
from app.services.ingest.sheet import Case, Finding, refuse
from app.services.ingest.stamps import Times, as_text
from app.services.ingest.upload import Ask, Known
from models import Calendar, Frequency, StepsDiffer

Ints = NDArray[np.int64]
DAY = 86_400_000_000
SPAN_A_POINT, SPAN_EXTRA = 100, 10_000
_OFFSETS_HINT = "send times with their offset from UTC"


@dataclass
class Placed:
    """Rows on a calendar, in file order: times, codes, steps and own phases (rows,); their series' phases (series,)."""

    calendar: Calendar
    times: Ints
    codes: Ints
    steps: Ints
    own: Ints
    phases: Ints

    def stamp(self, step: int, series: int) -> str:
        """A step of a series as text."""
        times = self.calendar.times(np.array([step], np.int64), int(self.phases[series]))
        return str(self.calendar.stamps(times)[0])


def wanted_frequency(ask: Ask, known: Known) -> str | None:
    """The frequency the rows must have; None when they are to tell it. Invalid when ask and dataset disagree."""
    try:
        asked = Frequency.parse(ask.frequency) if ask.frequency else None
    except ValueError as error:
        refuse("bad_frequency", str(error))
    if known.frequency is None:
        return asked.name if asked else None
    stored = Frequency.parse(known.frequency)
    if asked is not None and not asked.agrees(stored):
        refuse(
            "other_frequency",
            f"the dataset's frequency is {stored.name}, got frequency={ask.frequency}",
            "leave the parameter out, or use another dataset",
        )
    return stored.name


def with_zone_of(column: Column, known: Known) -> Known:
    """The dataset as known, in the IANA zone that the time column's type carries where it may still take one. A mere
    offset from UTC is no zone and says nothing."""
    zone = column.type.tz if known.takes_zone and types.is_timestamp(column.type) else None
    if zone is None:
        return known
    try:
        return replace(known, time_zone=Calendar.of("D", zone).time_zone)
    except ValueError:
        return known


def to_utc(times: Times, codes: Ints, column: str, case: Case) -> Ints:
    """The times in UTC, (rows,). A local time the clock shows twice is the first, or the second where the series has it
    for the second time; one it never shows is complained about, but midnight means the first instant of that day."""
    zone = case.known.time_zone
    try:
        calendar = Calendar.of("h", zone)
    except ValueError as error:
        refuse("bad_time_zone", str(error))
    if times.is_step or zone == "UTC" or not times.local.any():
        return times.values
    places = np.flatnonzero(times.local)
    local = times.values[places]
    utc, ambiguous, missing = calendar.to_utc(local)
    if ambiguous.any():
        second = _second(local, codes[places], ambiguous)
        utc = calendar.to_utc(local, second)[0]
        for which, word in ((ambiguous & ~second, "first"), (second, "second")):
            message = f"the clock of {zone} shows this time twice: taken as the {word}"
            like = Finding("ambiguous_time", message, column=column, hint=_OFFSETS_HINT)
            case.warnings.add_rows(like, places[which], lambda row: _local_text(times.values[row]))
    skipped = places[missing & (local % DAY != 0)]
    message = f"the clock of {zone} never shows this time"
    like = Finding("nonexistent_time", message, column=column, hint=_OFFSETS_HINT)
    case.findings.add_rows(like, skipped, lambda row: _local_text(times.values[row]))
    if len(utc) == len(times.values):
        return utc
    values = times.values.copy()
    values[places] = utc
    return values


def _local_text(value: int) -> str:
    return as_text(int(value)).removesuffix("+00:00")


def _second(local: Ints, codes: Ints, ambiguous: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of the times shown twice, those that mean the second showing: a series' later one, by the order of its rows; in a
    series that runs backwards, the earlier one."""
    rows = np.flatnonzero(ambiguous)
    order = rows[np.lexsort((rows, local[rows], codes[rows]))]
    repeated = np.zeros(len(order), np.bool_)
    repeated[1:] = (codes[order[1:]] == codes[order[:-1]]) & (local[order[1:]] == local[order[:-1]])
    second = np.zeros(len(local), np.bool_)
    if not repeated.any():
        return second
    count = int(codes.max()) + 1
    first_row, last_row = np.zeros(count, np.int64), np.zeros(count, np.int64)
    places = np.arange(len(codes))
    last_row[codes] = places
    first_row[codes[::-1]] = places[::-1]
    backwards = local[last_row] < local[first_row]
    later = order[repeated]
    earlier = order[np.flatnonzero(repeated) - 1]
    turned = backwards[codes[later]]
    second[later[~turned]] = True
    second[earlier[turned]] = True
    return second


def place(times: Ints, codes: Ints, keys: list[str], frequency: str | None, *, column: str, case: Case) -> Placed:
    """Every row's step and phase, and every series' phase. Invalid when the frequency cannot be told from the rows of
    the time `column`: where series step differently, with the first row of the first that does."""
    known = case.known
    try:
        if frequency is None:
            calendar = Calendar(Frequency.infer(times, codes, known.time_zone), known.time_zone)
        else:
            calendar = Calendar.of(frequency, known.time_zone)
        steps, own = calendar.locate(times)
    except ValueError as error:
        hint = "pass frequency= to say it"
        reason = str(error).removesuffix(f"; {hint}").removesuffix(f", or {hint}")
        if 1 < len(keys) == len(codes):
            hint += "; every row is a series of its own: is the id column the right one?"
        if isinstance(error, StepsDiffer):
            first = int(np.argmax(codes == error.series))
            reason += f"; the first such series is {keys[error.series]!r}"
            refuse("no_frequency", reason, hint, row=case.rows.numbers([first])[0], column=column)
        refuse("no_frequency", reason, hint)
    settled = calendar.settle(codes, own, steps)
    if known.phases:
        settled = np.array([known.phases.get(key, phase) for key, phase in zip(keys, settled.tolist(), strict=True)])
    return Placed(calendar, times, codes, steps, own, settled)


def check_grid(placed: Placed, keys: list[str], column: str, case: Case) -> None:
    """Complain about every row whose time is not one of its series' times."""
    calendar = placed.calendar
    good = calendar.on_grid(placed.steps, placed.own, placed.phases[placed.codes])

    def finding(row: int) -> Finding:
        series = int(placed.codes[row])
        return Finding(
            "off_grid",
            f"the time does not lie on the grid of series {keys[series]!r}, frequency {calendar.frequency.name}",
            row,
            column=column,
            value=str(calendar.stamps(placed.times[row : row + 1])[0]),
            hint=f"the grid has {placed.stamp(int(placed.steps[row]), series)} there; does the file mix frequencies?",
        )

    case.findings.add_first(np.flatnonzero(~good), finding)


def ordered(codes: Ints, steps: Ints) -> Ints | None:
    """The order of rows by series and step, equal ones in file order; None when they are in it already."""
    later = (codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (steps[1:] >= steps[:-1]))
    return None if later.all() else np.lexsort((steps, codes))


def allowed_spans(offsets: Ints, ask: Ask) -> Ints:
    """The most steps that each series may span, (series,)."""
    return np.minimum(ask.max_span, np.diff(offsets) * SPAN_A_POINT + SPAN_EXTRA)


def check_spans(placed: Placed, steps: Ints, offsets: Ints, keys: list[str], case: Case) -> None:
    """Complain about series (rows sorted) whose first and last row lie further apart than a series may span."""
    spans = steps[offsets[1:] - 1] - steps[offsets[:-1]] + 1
    points = np.diff(offsets)
    allowed = allowed_spans(offsets, case.ask)
    hint = "is a time wrong, or the frequency too fine?"
    if placed.calendar.frequency.is_integer:
        hint = "whole numbers are taken as plain steps: send times such as 2026-01-31T15:00:00Z"

    def finding(series: int) -> Finding:
        message = (
            f"series {keys[series]!r} has {points[series]} rows over {spans[series]} steps of "
            f"{placed.calendar.frequency.name}; at most {allowed[series]} steps are taken"
        )
        return Finding("too_long", message, value=keys[series], hint=hint)

    case.findings.add_first(np.flatnonzero(spans > allowed), finding)
