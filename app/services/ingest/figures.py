"""Numbers: a column becomes float64, NaN where a value is missing. What is no finite number is named row by row."""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.services.ingest.arrow import Column, is_number, is_text, pa, pc, plain, types
from app.services.ingest.sheet import Finding, Findings

# How a missing number is written, whatever the case; a field that is empty or blank is missing too.
MISSING = ("", "na", "n/a", "#n/a", "<na>", "nan", "null", "none")
BLOCK = 1 << 16
SPELLINGS = [form for word in MISSING for form in dict.fromkeys((word, word.upper(), word.title()))] + ["NaN"]
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE | re.ASCII)
_COMMA = re.compile(r"[+-]?[\d.]+,\d+")
_COMMA_HINT = "write a decimal point, or separate the fields of a file with decimal commas by semicolons"


def read_numbers(column: Column, name: str, findings: Findings, commas: bool = False) -> NDArray[np.float64]:
    """(rows,) float64. Complaints: text that is no number, infinite values, booleans. `commas` allows decimal commas,
    in a column that has no decimal point."""
    column = plain(column)
    kind = column.type
    if types.is_null(kind):
        return np.full(len(column), np.nan)
    if types.is_boolean(kind):
        like = Finding("not_a_number", "expected a number and not true or false", column=name, hint="send 1 and 0")
        findings.add_rows(
            like, np.flatnonzero(_array(column.is_valid())), lambda index: str(column[index].as_py()).lower()
        )
        return np.full(len(column), np.nan)
    if is_text(kind):
        found = text_numbers(column, commas)
        values = _spelled(column, name, findings, commas) if found is None else found
    elif is_number(kind):
        values = _array(pc.cast(column, pa.float64(), safe=False)).astype(np.float64, copy=False)
    else:
        findings.add(Finding("not_a_number", f"expected numbers, got a column of {kind}", column=name))
        return np.full(len(column), np.nan)
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        like = Finding(
            "infinite", "expected a finite number", column=name, hint="leave the field empty where no value is known"
        )
        findings.add_rows(like, infinite, lambda index: str(column[index].as_py()))
    return values


def text_numbers(column: Column, commas: bool = False) -> NDArray[np.float64] | None:
    """(rows,) float64 of a column of text, whole columns at a time; None when some value is not a number."""
    if commas and has_decimal_commas(column):
        column = pc.replace_substring(column, ",", ".")
    found = _cast(column)
    if found is not None:
        return found
    found = _cast(_without(column, pc.is_in(column, value_set=pa.array(SPELLINGS))))
    if found is not None:
        return found
    trimmed = pc.utf8_trim_whitespace(column)
    return _cast(_without(trimmed, pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(MISSING))))


def has_decimal_commas(column: Column) -> bool:
    """Whether a column of text has commas and no points."""
    has_comma = pc.any(pc.match_substring(column, ",")).as_py()
    return bool(has_comma) and not pc.any(pc.match_substring(column, ".")).as_py()


def _cast(column: Column) -> NDArray[np.float64] | None:
    try:
        return _array(pc.cast(column, pa.float64()))
    except pa.ArrowException:
        return None


def _without(column: Column, missing: Any) -> Column:
    return pc.if_else(missing, pa.scalar(None, column.type), column)


def _array(column: Column) -> NDArray[Any]:
    return column.to_numpy()


def _spelled(column: Column, name: str, findings: Findings, commas: bool) -> NDArray[np.float64]:
    """Blocks that are clean go the quick way; only rows of the others are looked at one by one."""
    if commas and has_decimal_commas(column):
        column = pc.replace_substring(column, ",", ".")
    values = np.full(len(column), np.nan)
    bad: list[int] = []
    for start in range(0, len(column), BLOCK):
        block = column.slice(start, BLOCK)
        found = text_numbers(block)
        if found is not None:
            values[start : start + BLOCK] = found
            continue
        for index, text in enumerate(block.to_pylist(), start):
            number = _number(text)
            if number is None:
                bad.append(index)
            else:
                values[index] = number
    texts = {index: str(column[index].as_py()) for index in bad[:100]}
    with_comma = any(_COMMA.fullmatch(text.strip()) for text in texts.values())
    like = Finding("not_a_number", "expected a number", column=name, hint=_COMMA_HINT if with_comma else None)
    findings.add_rows(like, np.array(bad, np.int64), texts.__getitem__)
    return values


def _number(text: str | None) -> float | None:
    """One number; NaN when missing, None when it is no number."""
    text = "" if text is None else text.strip()
    if text.lower() in MISSING:
        return math.nan
    return float(text) if _NUMBER.fullmatch(text) else None
