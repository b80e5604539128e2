"""From a sheet to an Upload: check after check, the file refused with all that one check found."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app.services.ingest.columns import Roles, choose_roles, tidy, wide_roles
from app.services.ingest.covariates import Extra, guess_role, read_extra, static_values
from app.services.ingest.figures import read_numbers
from app.services.ingest.grid import (
    Ints,
    Placed,
    check_grid,
    check_spans,
    ordered,
    place,
    to_utc,
    wanted_frequency,
    with_zone_of,
)
from app.services.ingest.keys import read_keys
from app.services.ingest.sheet import Case, Finding, Sheet, refuse
from app.services.ingest.stamps import read_times
from app.services.ingest.upload import Ask, Audit, Covariate, Known, Upload

Floats = NDArray[np.float64]


@dataclass
class _Points:
    """Rows sorted by series and step: (rows,) codes, steps, target values and file row indexes; extras likewise."""

    codes: Ints
    steps: Ints
    values: Floats
    rows: Ints
    extras: list[tuple[Extra, Floats]]

    def keep(self, wanted: NDArray[np.bool_]) -> "_Points":
        extras = [(extra, values[wanted]) for extra, values in self.extras]
        return _Points(self.codes[wanted], self.steps[wanted], self.values[wanted], self.rows[wanted], extras)


@dataclass
class _Content:
    """A file understood: its series, their place on the calendar, their rows, and how its columns were taken."""

    keys: list[str]
    placed: Placed
    points: _Points
    columns: dict[str, object]

    @property
    def target(self) -> str | None:
        target = self.columns["target"]
        return target if isinstance(target, str) else None


def assemble(sheet: Sheet, ask: Ask, known: Known) -> Upload:
    """The sheet as an Upload. Raises Invalid with every complaint of the first check that has any."""
    if not sheet.columns:
        refuse("no_rows", "the records of the file are all empty")
    case = Case(ask, known, sheet.rows)
    tidy(sheet, case.warnings)
    content = _read_wide(sheet, case) if ask.layout == "wide" else _read_long(sheet, case)
    keys, placed, columns = content.keys, content.placed, content.columns
    points = _merge(content, case)
    offsets = np.searchsorted(points.codes, np.arange(len(keys) + 1))
    check_spans(placed, points.steps, offsets, keys, case)
    case.refuse()
    covariates, statics = _give_roles(points, keys, case)
    case.refuse()
    for role in ("future", "past"):
        columns[role] = [name for name, covariate in covariates.items() if covariate.role == role]
    columns["static"] = list(statics)
    audit = Audit(case.warnings.complaints(case.rows), case.warnings.count)
    return Upload(
        placed.calendar, keys, placed.phases, offsets, points.steps, points.values, covariates, statics, columns, audit
    )


def _commas(sheet: Sheet) -> bool:
    return sheet.delimiter not in (None, ",")


def _read_long(sheet: Sheet, case: Case) -> _Content:
    """One row a series and time."""
    roles = choose_roles(sheet, case.ask, case.known)
    frequency = wanted_frequency(case.ask, case.known)
    if roles.id is None:
        keys, codes = [case.ask.dataset], np.zeros(sheet.length, np.int64)
    else:
        keys, codes = read_keys(sheet.columns.pop(roles.id), roles.id, case.findings, case.ask.max_series)
    case.known = with_zone_of(sheet.columns[roles.time], case.known)
    times = read_times(sheet.columns.pop(roles.time), roles.time, case.findings, frequency)
    values = read_numbers(sheet.columns.pop(roles.target), roles.target, case.findings, _commas(sheet))
    extras = _read_extras(sheet, roles, case)
    # Codes of rows without a key mean nothing: clock changes are looked into once all is well.
    utc = times.values if case.findings.count else to_utc(times, codes, roles.time, case)
    case.refuse()
    placed = place(utc, codes, keys, "step" if times.is_step else frequency, column=roles.time, case=case)
    check_grid(placed, keys, roles.time, case)
    case.refuse()
    order = ordered(codes, placed.steps)
    columns: dict[str, object] = {"layout": "long", "id": roles.id, "time": roles.time, "target": roles.target}
    if order is None:
        points = _Points(codes, placed.steps, values, np.arange(sheet.length), [(each, each.values) for each in extras])
    else:
        sorted_extras = [(each, each.values[order]) for each in extras]
        points = _Points(codes[order], placed.steps[order], values[order], order, sorted_extras)
    return _Content(keys, placed, points, columns)


def _read_extras(sheet: Sheet, roles: Roles, case: Case) -> list[Extra]:
    extras: list[Extra] = []
    for name in roles.extras:
        extra = read_extra(sheet.columns.pop(name), name, case, _commas(sheet))
        if extra is None:
            case.warnings.add(Finding("ignored_column", "a column without numbers or text was ignored", column=name))
        else:
            extras.append(extra)
    return extras


def _read_wide(sheet: Sheet, case: Case) -> _Content:
    """One row a time, one column a series. Rows are placed once, then each series takes those in which it has a value:
    an empty cell is an absent row, so that a wide file never wipes out what is stored."""
    time, names = wide_roles(sheet, case.ask)
    frequency = wanted_frequency(case.ask, case.known)
    case.known = with_zone_of(sheet.columns[time], case.known)
    times = read_times(sheet.columns.pop(time), time, case.findings, frequency)
    one = np.zeros(sheet.length, np.int64)
    utc = times.values if case.findings.count else to_utc(times, one, time, case)
    values = {name: read_numbers(sheet.columns.pop(name), name, case.findings, _commas(sheet)) for name in names}
    case.refuse()
    keys: list[str] = []
    for name in sorted(names):
        if np.isnan(values[name]).all():
            case.warnings.add(Finding("empty_series", "a series without values was ignored", column=name))
        else:
            keys.append(name)
    if not keys:
        case.findings.add(Finding("no_rows", "no series of the file has a value"))
        case.refuse()
    phases = case.known.phases
    shared = next((phases[key] for key in keys if key in phases), None)
    stand_in = Known(phases={} if shared is None else {keys[0]: shared}, time_zone=case.known.time_zone)
    one_case = replace(case, known=stand_in)
    placed = place(utc, one, keys[:1], "step" if times.is_step else frequency, column=time, case=one_case)
    check_grid(placed, keys, time, case)
    for key in keys:
        if phases.get(key, placed.phases[0]) != placed.phases[0]:
            case.findings.add(Finding("off_grid", "the stored series lies at other times than this file", column=key))
    case.refuse()
    order = np.argsort(placed.steps, kind="stable")
    steps = placed.steps[order]
    held = [values.pop(key)[order] for key in keys]
    filled = [np.flatnonzero(~np.isnan(column)) for column in held]
    points = _Points(
        np.repeat(np.arange(len(keys)), [len(rows) for rows in filled]),
        np.concatenate([steps[rows] for rows in filled]),
        np.concatenate([column[rows] for column, rows in zip(held, filled, strict=True)]),
        np.concatenate([order[rows] for rows in filled]),
        [],
    )
    placed.phases = np.repeat(placed.phases, len(keys))
    return _Content(keys, placed, points, {"layout": "wide", "id": None, "time": time, "target": None})


def _merge(content: _Content, case: Case) -> _Points:
    """One row for each series and step: equal duplicates become one, with a warning; others are refused."""
    points = content.points
    twice = np.flatnonzero((points.codes[1:] == points.codes[:-1]) & (points.steps[1:] == points.steps[:-1])) + 1
    if not len(twice):
        return points
    equal = _equal(points.values, twice)
    for _, values in points.extras:
        equal &= _equal(values, twice)
    by_row = np.argsort(points.rows[twice], kind="stable")
    twice, equal = twice[by_row], equal[by_row]
    case.findings.add_first(twice[~equal], lambda row: _conflict(content, row))
    case.refuse()
    message = "rows {other} and {row} are both %s and say the same: one was kept"

    def merged(row: int) -> Finding:
        where = (int(points.rows[row]), int(points.rows[row - 1]))
        return Finding("merged_duplicate", message % _name(content, row), *where)

    case.warnings.add_first(twice, merged)
    keep = np.ones(len(points.codes), np.bool_)
    keep[twice] = False
    return points.keep(keep)


def _equal(values: Floats, rows: Ints) -> NDArray[np.bool_]:
    """Whether each of `rows` holds what the row before it holds."""
    here, before = values[rows], values[rows - 1]
    return (here == before) | (np.isnan(here) & np.isnan(before))


def _name(content: _Content, row: int) -> str:
    series = int(content.points.codes[row])
    return f"series {content.keys[series]!r} at {content.placed.stamp(int(content.points.steps[row]), series)}"


def _conflict(content: _Content, row: int) -> Finding:
    """What two rows of one series and time disagree in."""
    points = content.points
    columns: list[tuple[str, Floats, Callable[[float], str]]] = [
        (content.target or content.keys[points.codes[row]], points.values, _figure)
    ]
    columns += [(extra.name, values, extra.shown) for extra, values in points.extras]
    column, values, show = next(each for each in columns if not _equal(each[1], np.array([row]))[0])
    hint = "keep one of the rows"
    if content.columns["id"] is None and content.columns["layout"] == "long":
        hint = "if the file holds several series, pass id_column= with the column that tells them apart"
    return Finding(
        "conflicting_duplicate",
        f"rows {{other}} and {{row}} are both {_name(content, row)} and differ",
        int(points.rows[row]),
        int(points.rows[row - 1]),
        column,
        f"{show(float(values[row - 1])) or 'nothing'} and {show(float(values[row])) or 'nothing'}",
        hint,
    )


def _figure(value: float) -> str:
    return "" if np.isnan(value) else repr(value)


def _give_roles(points: _Points, keys: list[str], case: Case) -> tuple[dict[str, Covariate], dict[str, Covariate]]:
    """Each extra column as a covariate of its role, the dataset's own roles first: (past and future, static)."""
    last = np.full(len(keys), -1, np.int64)
    there = np.flatnonzero(~np.isnan(points.values))
    last[points.codes[there]] = there
    covariates: dict[str, Covariate] = {}
    statics: dict[str, Covariate] = {}
    for extra, values in points.extras:
        stored = case.known.columns.get(extra.name, ("", ""))[0]
        asked = case.ask.roles.get(extra.name, "")
        if stored and asked and stored != asked:
            message = f"the column is {stored} in this dataset and stays so, {asked} was asked for"
            case.warnings.add(Finding("role_kept", message, column=extra.name))
        role = stored or asked or guess_role(extra, values, points.codes, last)
        if role == "static":
            statics[extra.name] = _static(extra, values, points, keys, case)
        else:
            covariates[extra.name] = extra.covariate(role, values)
    return covariates, statics


def _static(extra: Extra, values: Floats, points: _Points, keys: list[str], case: Case) -> Covariate:
    """One value a series, and a complaint about every row that says otherwise than the series' first."""
    chosen, odd, first = static_values(extra, values, points.codes, len(keys))
    firsts = dict(zip(odd.tolist(), first.tolist(), strict=True))

    def finding(row: int) -> Finding:
        was, now = (extra.shown(float(values[each])) for each in (firsts[row], row))
        return Finding(
            "not_static",
            f"row {{other}} of series {keys[points.codes[row]]!r} has {was!r}, row {{row}} has {now!r}; "
            "expected one value a series in a static column",
            int(points.rows[row]),
            int(points.rows[firsts[row]]),
            extra.name,
            now,
            "name it in future_columns or past_columns",
        )

    case.findings.add_first(odd, finding)
    return extra.covariate("static", chosen)
