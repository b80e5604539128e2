"""Columns beside the target: number or category, and whether they are static, known in the future, or past only."""

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.services.ingest.arrow import Column, is_number, is_text, pa, pc, plain, types
from app.services.ingest.figures import MISSING, read_numbers, text_numbers
from app.services.ingest.keys import key_problem
from app.services.ingest.sheet import Case, Finding, Findings
from app.services.ingest.upload import Covariate

MAX_CATEGORIES = 10_000
_BREAKS = re.compile(r"[\t\n\r]")  # in a text these do no harm


@dataclass
class Extra:
    """A covariate while it is read: (rows,) values and whether one is there; text categories of a `category`."""

    name: str
    kind: str
    values: NDArray[np.float64]
    categories: tuple[str, ...] = ()

    @property
    def present(self) -> NDArray[np.bool_]:
        return self.values != 0 if self.kind == "category" else ~np.isnan(self.values)

    def shown(self, value: float) -> str:
        if self.kind == "category":
            return self.categories[int(value) - 1] if value else ""
        return "" if np.isnan(value) else repr(value)

    def covariate(self, role: str, values: NDArray[np.float64]) -> Covariate:
        chosen = Extra(self.name, self.kind, values, self.categories)
        return Covariate(role, self.kind, values, chosen.present, self.categories)


def read_extra(column: Column, name: str, case: Case, commas: bool) -> Extra | None:
    """One extra column; None when nothing stands in it, or what stands there is neither number nor text (a time).

    Text is a number where all of it is, true and false count as 1 and 0, and anything else is a category.
    """
    column = plain(column)
    kind = case.known.columns.get(name, ("", ""))[1]
    findings = case.findings
    if types.is_boolean(column.type):
        column = pc.cast(column, pa.int8())
    numeric = is_number(column.type) or types.is_null(column.type)
    if kind == "category":
        return _category(_as_text(column) if numeric else column, name, findings)
    if numeric or (kind == "number" and is_text(column.type)):
        values = read_numbers(column, name, findings, commas)
    elif not is_text(column.type):
        return None
    else:
        found = text_numbers(column, commas)
        found = _truths(column) if found is None else found
        if found is None:
            return _category(column, name, findings)
        values = found
        if np.isinf(values).any():
            values = read_numbers(column, name, findings, commas)
    if not kind and np.isnan(values).all():
        return None
    return Extra(name, "number", values)


def _truths(column: Column) -> NDArray[np.float64] | None:
    """1 for true and 0 for false when the column holds no other text."""
    texts = pc.utf8_lower(pc.utf8_trim_whitespace(column))
    places = pc.index_in(texts, value_set=pa.array(["false", "true", *MISSING]))
    if pc.any(pc.is_null(places)).as_py() and not pc.all(pc.equal(pc.is_null(places), pc.is_null(column))).as_py():
        return None
    values = places.fill_null(2).to_numpy().astype(np.float64)
    values[values > 1] = np.nan
    return values


def _as_text(column: Column) -> Column:
    """Numbers as category names: whole ones without a decimal point."""
    values = pc.cast(column, pa.float64(), safe=False)
    numbers = values.to_numpy()
    texts = [_figure(number) if math.isfinite(number) else None for number in numbers.tolist()]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _figure(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def _category(column: Column, name: str, findings: Findings) -> Extra | None:
    """Codes into the distinct texts in ascending order, from 1; an empty text is missing."""
    if not is_text(column.type):
        return None
    encoded = column.dictionary_encode().unify_dictionaries()
    texts: list[str | None] = encoded.chunks[0].dictionary.to_pylist()
    categories = sorted({text for text in texts if text})
    if len(categories) > MAX_CATEGORIES:
        message = f"expected at most {MAX_CATEGORIES} different texts in a column, got {len(categories)}"
        findings.add(Finding("too_many_categories", message, column=name, hint="leave the column out of the file"))
    rank = {text: code for code, text in enumerate(categories, 1)}
    codes = np.array([rank.get(text or "", 0) for text in texts] + [0], np.float64)
    indices = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
    values = codes[np.concatenate(indices)]
    odd = [text for text in categories if len(text) > 60 or not text.isprintable()]
    for text in odd:
        if problem := key_problem(_BREAKS.sub(" ", text)):
            first = int(np.argmax(values == rank[text]))
            findings.add(Finding("bad_category", problem, first, column=name, value=ascii(text)))
    return Extra(name, "category", values, tuple(categories))


def static_values(
    extra: Extra, values: NDArray[np.float64], codes: NDArray[np.int64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """One value a series from (rows,) `values` sorted by series, (series,): its first; the rows that say otherwise;
    and for each of them the row that it contradicts."""
    places = np.flatnonzero(values != 0 if extra.kind == "category" else ~np.isnan(values))
    owners = codes[places]
    new = np.ones(len(places), np.bool_)
    new[1:] = owners[1:] != owners[:-1]
    first = places[new][np.cumsum(new) - 1] if len(places) else places
    odd = values[places] != values[first]
    chosen = np.full(count, 0.0 if extra.kind == "category" else np.nan)
    chosen[codes[places[new]]] = values[places[new]]
    return chosen, places[odd], first[odd]


def guess_role(extra: Extra, values: NDArray[np.float64], codes: NDArray[np.int64], last: NDArray[np.int64]) -> str:
    """The role of a column nobody named. Static: constant within every series, over more than one row of some, and
    either text or different from series to series (a number that is the same everywhere is a flag not raised yet,
    which a static column could never become). Future: it goes on after the row `last` (series,) of a series' last
    target. Else past."""
    count = len(last)
    chosen, odd, _ = static_values(extra, values, codes, count)
    places = np.flatnonzero(values != 0 if extra.kind == "category" else ~np.isnan(values))
    repeats = len(places) > 0 and np.bincount(codes[places], minlength=count).max() > 1
    if not len(odd) and repeats and (extra.kind == "category" or len(np.unique(chosen[~np.isnan(chosen)])) > 1):
        return "static"
    return "future" if np.any(places > last[codes[places]]) else "past"
