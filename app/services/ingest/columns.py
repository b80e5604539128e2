"""Which column is what: as the sender said, else by its name, else by what stands in it. Nothing is left to chance."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from app.errors import TooLarge
from app.services.ingest.arrow import Column, is_number, is_text, pc, plain, types
from app.services.ingest.figures import text_numbers
from app.services.ingest.keys import key_problem
from app.services.ingest.sheet import Finding, Findings, Sheet, refuse
from app.services.ingest.stamps import YEAR, looks_like_time
from app.services.ingest.upload import Ask, Known

IDS = ("unique_id", "item_id", "series_id", "ts_id", "series", "key", "id", "item")
TIMES = ("ds", "timestamp", "time", "datetime", "date", "date_time", "step")
TARGETS = ("y", "target", "value")
FAMILIES = (
    ("unique_id", "ds", "y"),
    ("item_id", "timestamp", "target"),
    ("key", "timestamp", "value"),
    ("series", "time", "value"),
)
SAMPLE = 1000
_NUMBER = r"^\s*[-+]?[0-9][0-9.,]*([eE][-+]?[0-9]+)?\s*$"
_BAND = re.compile(r"q\d+(\.\d+)?|sample\d+")
_HINTS = {"id": "id_column", "time": "time_column", "target": "target_column"}


@dataclass(frozen=True)
class Roles:
    """The columns of a file by role. `id` None: one series. `extras` are the other columns, in file order."""

    id: str | None
    time: str
    target: str
    extras: tuple[str, ...]


def tidy(sheet: Sheet, warnings: Findings) -> None:
    """Drop the unnamed index column that data frames write; Invalid on any other column without a usable name."""
    for place, name in enumerate(sheet.names):
        index = name == "" or name.startswith(("Unnamed: ", "__index_level_"))
        if index and place in (0, len(sheet.columns) - 1) and len(sheet.columns) > 2:
            del sheet.columns[name]
            warnings.add(Finding("ignored_column", "an index column without a name was ignored", column=name or None))
        elif (problem := key_problem(name)) is not None:
            refuse("bad_column_name", f"column {place + 1}: {problem}", column=ascii(name))


def choose_roles(sheet: Sheet, ask: Ask, known: Known) -> Roles:
    """The roles of a long file's columns. Invalid where they cannot be told, naming columns and parameter to pass."""
    names = sheet.names
    spoken = {**ask.roles, **dict.fromkeys(known.columns, "")}
    for name in (ask.id_column, ask.time_column, ask.target_column, *ask.roles):
        if name is not None and name not in names:
            refuse("no_such_column", f"expected a column {name!r}, the file has {_list(names)}", column=name)
    _expect_distinct(ask)
    free = [
        name for name in names if name not in spoken and name not in (ask.id_column, ask.time_column, ask.target_column)
    ]
    family = _family(free, ask)
    by_name = {
        "id": ask.id_column or family.get("id") or _named("id", IDS, free, names),
        "time": ask.time_column or family.get("time") or _named("time", TIMES, free, names),
        "target": ask.target_column or family.get("target") or _named("target", TARGETS, free, names),
    }
    taken = {name for name in by_name.values() if name is not None}
    free = [name for name in free if name not in taken]
    time = by_name["time"] or _year(sheet, free) or _by_content("time", sheet, free, _is_time)
    free = [name for name in free if name != time]
    target = by_name["target"] or _by_content("target", sheet, free, _is_target)
    roles = (by_name["id"], time, target)
    return Roles(*roles, tuple(name for name in names if name not in roles))


def _expect_distinct(ask: Ask) -> None:
    given = [name for name in (ask.id_column, ask.time_column, ask.target_column) if name is not None]
    given += [*ask.static_columns, *ask.future_columns, *ask.past_columns]
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        refuse("two_roles", f"column {twice!r} is given two roles; a column has one", column=twice)


def _family(free: list[str], ask: Ask) -> dict[str, str]:
    """The one well-known trio of names that is here whole, if exactly one is."""
    lowered = [name.lower() for name in free]
    whole = [family for family in FAMILIES if all(lowered.count(name) == 1 for name in family)]
    if len(whole) != 1 or ask.id_column or ask.time_column or ask.target_column:
        return {}
    return {role: free[lowered.index(name)] for role, name in zip(_HINTS, whole[0], strict=True)}


def _named(role: str, candidates: tuple[str, ...], free: list[str], names: list[str]) -> str | None:
    found = [name for name in free if name.lower() in candidates]
    if len(found) > 1:
        _ambiguous(role, found, names)
    return found[0] if found else None


def _year(sheet: Sheet, free: list[str]) -> str | None:
    """The one column called that, unless another one holds times: then it is what is known of each row."""
    found = [name for name in free if name.lower() == YEAR]
    return found[0] if len(found) == 1 and not any(_is_time(sheet.columns[name]) for name in free) else None


def _by_content(role: str, sheet: Sheet, free: list[str], fits: Callable[[Column], bool]) -> str:
    """The one column that can play the role by what stands in it. In a forecast's answer the target is `mean`; its
    quantiles and samples are extra columns as any other, so they become covariates."""
    found = [name for name in free if fits(sheet.columns[name])]
    if len(found) == 1:
        return found[0]
    if role == "target" and "mean" in found and all(name == "mean" or _BAND.fullmatch(name) for name in found):
        return "mean"
    if role == "target" and len(free) == 1:
        return free[0]  # nothing else is left: what is wrong with its values is said row by row
    if found:
        _ambiguous(role, found, sheet.names)
    if role == "target":  # with a word among its numbers; that word is complained about by row
        spoilt = [name for name in free if _is_mostly_numbers(sheet.columns[name])]
        if len(spoilt) == 1:
            return spoilt[0]
    refuse(
        f"no_{role}_column",
        f"no column is recognised as the {role}; the file has {_list(sheet.names)}",
        f"pass {_HINTS[role]}=",
    )


def _ambiguous(role: str, found: list[str], names: list[str]) -> NoReturn:
    wide = ", or layout=wide if each of them is a series" if role == "target" else ""
    refuse(
        "ambiguous_columns",
        f"{_list(found)} could each be the {role}; the file has {_list(names)}",
        f"pass {_HINTS[role]}={wide}",
    )


def _list(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"


def _sample(column: Column) -> Column:
    return plain(column.slice(0, SAMPLE))


def _is_target(column: Column) -> bool:
    if not is_text(column.type):
        return is_number(column.type)
    return text_numbers(_sample(column), commas=True) is not None


def _is_mostly_numbers(column: Column) -> bool:
    if not is_text(column.type):
        return False
    texts = pc.drop_null(_sample(column))
    return 2 * (pc.sum(pc.match_substring_regex(texts, _NUMBER)).as_py() or 0) > len(texts)


def _is_time(column: Column) -> bool:
    kind = column.type
    if types.is_timestamp(kind) or types.is_date(kind):
        return True
    if not is_text(kind):
        return False
    texts = [text for text in pc.unique(_sample(column)).to_pylist() if text]
    return bool(texts) and all(looks_like_time(text) for text in texts)


def wide_roles(sheet: Sheet, ask: Ask) -> tuple[str, list[str]]:
    """The time column of a wide file and its series columns. Invalid on options that only a long file can have."""
    if ask.id_column or ask.target_column or ask.roles:
        refuse(
            "not_wide",
            "a wide file has a time column and one column a series, and no column parameter but time_column",
            "leave out id_column, target_column and the covariate columns, or send layout=long",
        )
    names = sheet.names
    time = ask.time_column or names[0]
    if time not in names:
        refuse("no_such_column", f"expected a column {time!r}, the file has {_list(names)}", column=time)
    series = [name for name in names if name != time]
    if not series:
        refuse("no_target_column", "the file has a time column and no series beside it")
    if len(series) > ask.max_series:
        raise TooLarge(f"the file holds {len(series)} series; at most {ask.max_series} are taken")
    return time, series
