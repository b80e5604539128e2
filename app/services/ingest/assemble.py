"""From a sheet to an Upload: every check in turn, the whole file refused with all that one check found."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.services.ingest.columns import Roles, choose_roles, tidy, wide_roles
from app.services.ingest.covariates import Extra, guess_role, read_extra, static_values
from app.services.ingest.figures import read_numbers
from app.services.ingest.grid import Ints, Placed, check_grid, check_spans, ordered, place, to_utc, wanted_frequency
from app.services.ingest.keys import read_keys
from app.services.ingest.sheet import Finding, Findings, Sheet
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


def assemble(sheet: Sheet, ask: Ask, known: Known) -> Upload:
    """The sheet as an Upload. Raises Invalid with every complaint of the first check that has any."""
    warnings = Findings()
    tidy(sheet, warnings)
    read = _read_wide if ask.layout == "wide" else _read_long
    placed, keys, points, columns = read(sheet, ask, known, warnings)
    points = _merge(points, placed, keys, sheet, warnings, columns["id"] is None and ask.layout == "long")
    offsets = np.searchsorted(points.codes, np.arange(len(keys) + 1))
    findings = Findings()
    check_spans(placed, points.steps, offsets, keys, ask, findings)
    findings.refuse(sheet.rows)
    covariates, statics = _give_roles(points, ask, known, keys, findings, warnings)
    findings.refuse(sheet.rows)
    for role in ("future", "past"):
        columns[role] = [name for name, covariate in covariates.items() if covariate.role == role]
    columns["static"] = list(statics)
    audit = Audit(warnings.complaints(sheet.rows), warnings.count)
    return Upload(
        placed.calendar, keys, placed.phases, offsets, points.steps, points.values, covariates, statics, columns, audit
    )


def _commas(sheet: Sheet) -> bool:
    return sheet.delimiter not in (None, ",")


_Read = tuple[Placed, list[str], _Points, dict[str, object]]


def _read_long(sheet: Sheet, ask: Ask, known: Known, warnings: Findings) -> _Read:
    roles = choose_roles(sheet, ask, known)
    frequency = wanted_frequency(ask, known)
    findings = Findings()
    if roles.id is None:
        keys, codes = [ask.dataset], np.zeros(sheet.length, np.int64)
    else:
        keys, codes = read_keys(sheet.columns.pop(roles.id), roles.id, findings, ask.max_series)
    times = read_times(sheet.columns.pop(roles.time), roles.time, findings, frequency)
    values = read_numbers(sheet.columns.pop(roles.target), roles.target, findings, _commas(sheet))
    extras = _read_extras(sheet, roles, findings, warnings, known)
    if not findings.count:
        to_utc(times, codes, known.time_zone, roles.time, findings, warnings)
    findings.refuse(sheet.rows)
    placed, phases = place(times, codes, keys, frequency, known)
    check_grid(placed, phases, times, keys, roles.time, findings)
    findings.refuse(sheet.rows)
    order = ordered(codes, placed.steps)
    columns: dict[str, object] = {"layout": "long", "id": roles.id, "time": roles.time, "target": roles.target}
    if order is None:
        points = _Points(codes, placed.steps, values, np.arange(sheet.length), [(each, each.values) for each in extras])
    else:
        sorted_extras = [(each, each.values[order]) for each in extras]
        points = _Points(codes[order], placed.steps[order], values[order], order, sorted_extras)
    return placed, keys, points, columns


def _read_extras(sheet: Sheet, roles: Roles, findings: Findings, warnings: Findings, known: Known) -> list[Extra]:
    extras: list[Extra] = []
    for name in roles.extras:
        extra = read_extra(sheet.columns.pop(name), name, findings, known, _commas(sheet))
        if extra is None:
            warnings.add(Finding("ignored_column", "a column without numbers or text was ignored", column=name))
        else:
            extras.append(extra)
    return extras


def _read_wide(sheet: Sheet, ask: Ask, known: Known, warnings: Findings) -> _Read:
    """A wide file: rows are placed once, then each series takes the rows in which it has a value. An empty cell is an absent
    row, so that a wide file never wipes out what is stored."""
    time, names = wide_roles(sheet, ask)
    frequency = wanted_frequency(ask, known)
    findings = Findings()
    times = read_times(sheet.columns.pop(time), time, findings, frequency)
    one = np.zeros(sheet.length, np.int64)
    if not findings.count:
        to_utc(times, one, known.time_zone, time, findings, warnings)
    values = {name: read_numbers(sheet.columns.pop(name), name, findings, _commas(sheet)) for name in names}
    findings.refuse(sheet.rows)
    keys = sorted(name for name in names if not np.isnan(values[name]).all())
    for name in names:
        if np.isnan(values[name]).all():
            warnings.add(Finding("empty_series", "a series without values was ignored", column=name))
    if not keys:
        findings.add(Finding("no_rows", "no series of the file has a value"))
        findings.refuse(sheet.rows)
    shared = next((known.phases[key] for key in keys if key in known.phases), None)
    stand_in = Known(known.frequency, known.time_zone, {} if shared is None else {keys[0]: shared})
    placed, phases = place(times, one, [keys[0]], frequency, stand_in)
    check_grid(placed, phases, times, [keys[0]], time, findings)
    for key in keys:
        if known.phases.get(key, placed.phases[0]) != placed.phases[0]:
            findings.add(Finding("off_grid", "the stored series lies at other times than this file's rows", column=key))
    findings.refuse(sheet.rows)
    order = np.argsort(placed.steps, kind="stable")
    steps = placed.steps[order]
    held = [values[key][order] for key in keys]
    filled = [np.flatnonzero(~np.isnan(column)) for column in held]
    points = _Points(
        np.repeat(np.arange(len(keys)), [len(rows) for rows in filled]),
        np.concatenate([steps[rows] for rows in filled]),
        np.concatenate([column[rows] for column, rows in zip(held, filled, strict=True)]),
        np.concatenate([order[rows] for rows in filled]),
        [],
    )
    placed = Placed(placed.calendar, points.codes, points.steps, np.repeat(placed.phases, len(keys)))
    return placed, keys, points, {"layout": "wide", "id": None, "time": time, "target": None}


def _merge(
    points: _Points, placed: Placed, keys: list[str], sheet: Sheet, warnings: Findings, unnamed: bool
) -> _Points:
    """One row for each series and step: equal duplicates become one, with a warning; others are refused."""
    twice = np.flatnonzero((points.codes[1:] == points.codes[:-1]) & (points.steps[1:] == points.steps[:-1])) + 1
    if not len(twice):
        return points
    equal = np.ones(len(twice), np.bool_)
    for values in (points.values, *(values for _, values in points.extras)):
        here, before = values[twice], values[twice - 1]
        equal &= (here == before) | (np.isnan(here) & np.isnan(before))
    findings = Findings()
    hint = "keep one of the rows"
    if unnamed:
        hint = "if the file holds several series, pass id_column= with the column that tells them apart"
    for wanted, collected, verdict in ((~equal, findings, "differ"), (equal, warnings, "are equal, one was kept")):
        rows = twice[wanted]
        collected.count += len(rows)
        for row in rows[np.argsort(points.rows[rows], kind="stable")][:100].tolist():
            code = int(points.codes[row])
            when = placed.calendar.times(points.steps[row : row + 1], int(placed.phases[code]))
            message = f"rows {{other}} and {{row}} are both series {keys[code]!r} at {placed.calendar.stamps(when)[0]} and {verdict}"
            finding = Finding(
                "conflicting_duplicate" if collected is findings else "merged_duplicate",
                message,
                int(points.rows[row]),
                int(points.rows[row - 1]),
                None,
                f"{points.values[row - 1]:g} and {points.values[row]:g}",
                hint if collected is findings else None,
            )
            collected.listed.append(finding)
    findings.refuse(sheet.rows)
    keep = np.ones(len(points.codes), np.bool_)
    keep[twice] = False
    return points.keep(keep)


def _give_roles(
    points: _Points, ask: Ask, known: Known, keys: list[str], findings: Findings, warnings: Findings
) -> tuple[dict[str, Covariate], dict[str, Covariate]]:
    """Each extra column as a covariate of its role, the dataset's own roles first: (past and future, static)."""
    count = len(keys)
    last = np.full(count, -1, np.int64)
    there = np.flatnonzero(~np.isnan(points.values))
    last[points.codes[there]] = there
    covariates: dict[str, Covariate] = {}
    statics: dict[str, Covariate] = {}
    for extra, values in points.extras:
        stored = known.columns.get(extra.name, ("", ""))[0]
        asked = ask.roles.get(extra.name, "")
        if stored and asked and stored != asked:
            message = f"the column is {stored} in this dataset and stays so, {asked} was asked for"
            warnings.add(Finding("role_kept", message, column=extra.name))
        role = stored or asked or guess_role(extra, values, points.codes, last)
        if role != "static":
            covariates[extra.name] = extra.covariate(role, values)
            continue
        chosen, odd, first = static_values(extra, values, points.codes, count)
        statics[extra.name] = extra.covariate(role, chosen)
        findings.count += len(odd)
        for row, earlier in zip(odd[:100].tolist(), first[:100].tolist(), strict=True):
            message = (
                f"the static column has {extra.shown(values[earlier])!r} in row {{other}} and {extra.shown(values[row])!r} in "
                f"row {{row}} of series {keys[points.codes[row]]!r}; expected one value a series"
            )
            shown = extra.shown(values[row])
            where = (int(points.rows[row]), int(points.rows[earlier]))
            finding = Finding(
                "not_static", message, *where, extra.name, shown, "name it in future_columns or past_columns"
            )
            findings.listed.append(finding)
    return covariates, statics
