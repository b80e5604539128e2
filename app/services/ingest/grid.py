"""Rows onto the dataset's grid: times to UTC, the frequency, steps and phases, order, duplicates, spans."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.services.ingest.sheet import Finding, Findings, refuse
from app.services.ingest.stamps import Times, as_text
from app.services.ingest.upload import Ask, Known
from models import Calendar, Frequency

Ints = NDArray[np.int64]
DAY = 86_400_000_000
SPAN_A_POINT, SPAN_EXTRA = 100, 10_000


@dataclass
class Placed:
    """Rows on a calendar, still in file order: (rows,) codes and steps; (series,) phases."""

    calendar: Calendar
    codes: Ints
    steps: Ints
    phases: Ints


def wanted_frequency(ask: Ask, known: Known) -> str | None:
    """The frequency the rows must have; None when they are to tell it. Invalid when ask and dataset disagree."""
    asked = _parse(ask.frequency, "frequency") if ask.frequency else None
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


def _parse(text: str, where: str) -> Frequency:
    try:
        return Frequency.parse(text)
    except ValueError as error:
        refuse(f"bad_{where}", str(error))


def to_utc(times: Times, codes: Ints, zone: str, column: str, findings: Findings, warnings: Findings) -> None:
    """Change local times in place into UTC. A time the clock shows twice is the first, and the second where the series has it
    a second time; one it never shows is refused, but a date means the day's first instant."""
    try:
        calendar = Calendar.of("h", zone)
    except ValueError as error:
        refuse("bad_time_zone", str(error))
    if times.is_step or not times.local.any():
        return
    whole = bool(times.local.all())
    places = np.arange(len(codes)) if whole else np.flatnonzero(times.local)
    local = times.values if whole else times.values[places]
    utc, ambiguous, missing = calendar.to_utc(local)
    if ambiguous.any():
        second = _second(local, codes[places], ambiguous)
        utc = calendar.to_utc(local, second)[0]
        rows = np.flatnonzero(ambiguous)
        for which, word in ((rows[~second[rows]], "first"), (rows[second[rows]], "second")):
            message = f"the clock of {zone} shows this time twice: taken as the {word}"
            like = Finding("ambiguous_time", message, column=column, hint="send times with their offset from UTC")
            warnings.add_rows(like, places[which], lambda index: _local_text(int(times.values[index])))
    skipped = np.flatnonzero(missing & (local % DAY != 0))
    like = Finding(
        "nonexistent_time",
        f"the clock of {zone} never shows this time",
        column=column,
        hint="send times with their offset from UTC",
    )
    shown = {int(places[row]): _local_text(int(local[row])) for row in skipped[:100]}
    findings.add_rows(like, places[skipped], shown.get)
    if whole:
        times.values = utc
    else:
        times.values = times.values.copy()  # Arrow's memory is not to be written
        times.values[places] = utc


def _local_text(value: int) -> str:
    return as_text(value).removesuffix("+00:00")


def _second(local: Ints, codes: Ints, ambiguous: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of the times shown twice, those that mean the second showing: a series' later one, by the order of its rows; in a series
    that runs backwards, the earlier one."""
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


def place(times: Times, codes: Ints, keys: list[str], frequency: str | None, known: Known) -> tuple[Placed, Ints]:
    """Every row's step, every series' phase, and every row's own phase, (rows,). Invalid when the frequency cannot be told from the rows."""
    try:
        if times.is_step:
            calendar = Calendar.of("step", known.time_zone)
        elif frequency is not None:
            calendar = Calendar.of(frequency, known.time_zone)
        else:
            calendar = Calendar(Frequency.infer(times.values, codes, known.time_zone), known.time_zone)
        steps, phases = calendar.locate(times.values)
    except ValueError as error:
        refuse("no_frequency", str(error).removesuffix("; pass frequency= to say it"), "pass frequency= to say it")
    settled = calendar.settle(codes, phases, steps)
    for index, key in enumerate(keys) if known.phases else ():
        settled[index] = known.phases.get(key, settled[index])
    return Placed(calendar, codes, steps, settled), phases


def check_grid(placed: Placed, phases: Ints, times: Times, keys: list[str], column: str, findings: Findings) -> None:
    """Complain about every row whose time is not one of its series' times."""
    good = placed.calendar.on_grid(placed.steps, phases, placed.phases[placed.codes])
    bad = np.flatnonzero(~good)
    name = placed.calendar.frequency.name
    for index in bad[:100].tolist():
        code = int(placed.codes[index])
        near = placed.calendar.times(placed.steps[index : index + 1], int(placed.phases[code]))
        here = placed.calendar.stamps(times.values[index : index + 1])[0]
        message = f"the time does not lie on the grid of series {keys[code]!r}, frequency {name}"
        hint = f"its step's time is {placed.calendar.stamps(near)[0]}; does the file mix frequencies? frequency= says which is meant"
        findings.listed.append(Finding("off_grid", message, index, None, column, str(here), hint))
    findings.count += len(bad)


def ordered(codes: Ints, steps: Ints) -> Ints | None:
    """The order of rows by series and step, equal ones in file order; None when they are in it already."""
    later = (codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (steps[1:] >= steps[:-1]))
    return None if later.all() else np.lexsort((steps, codes))


def check_spans(placed: Placed, steps: Ints, offsets: Ints, keys: list[str], ask: Ask, findings: Findings) -> None:
    """Complain about series (rows sorted) whose first and last row lie further apart than a series may span."""
    first, last = steps[offsets[:-1]], steps[offsets[1:] - 1]
    points = np.diff(offsets)
    allowed = np.minimum(ask.max_span, points * SPAN_A_POINT + SPAN_EXTRA)
    wrong = np.flatnonzero(last - first >= allowed)
    findings.count += len(wrong)
    for series in wrong[:100].tolist():
        span = int(last[series] - first[series]) + 1
        message = (
            f"series {keys[series]!r} has {points[series]} points over {span} steps of {placed.calendar.frequency.name}; "
            f"at most {allowed[series]} steps are taken"
        )
        hint = "is a time wrong, or the frequency too fine?"
        if placed.calendar.frequency.is_integer:
            hint = "whole numbers are taken as plain steps: send times such as 2026-01-31T15:00:00Z"
        findings.listed.append(Finding("too_long", message, hint=hint, value=keys[series]))
