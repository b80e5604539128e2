"""The time column: text, timestamps, dates or whole numbers become microseconds, UTC or local, or plain steps."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.services.ingest.arrow import Column, is_text, pa, pc, plain, types
from app.services.ingest.sheet import Finding, Findings

BLOCK = 1 << 16
MAX_STEP = 10**15
_FIRST = -62_135_596_800_000_000  # 0001-01-01 and 9999-12-31T23:59:59.999999 in microseconds since 1970
_LAST = 253_402_300_799_999_999
_EPOCH = datetime(1970, 1, 1)
_WHOLE = r"^[+-]?\d{1,18}$"
_STAMP = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)(?:[Tt ](\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d+))?)?)?)?\s*([Zz]|[+-]\d\d(?::?\d\d)?|UTC)?"
)
_MONTH = re.compile(r"(\d{4})[-/]?M?(\d\d)")
_QUARTER = re.compile(r"(\d{4})[-/ ]?[Qq]([1-4])")
_YEAR = re.compile(r"\d{4}")
_HINT = "write times as 2026-01-31, 2026-01-31T15:00:00 or 2026-01-31T15:00:00+01:00"
_YEARLY = (1000, 2999)
_COMPACT = (1000_01_01, 2999_12_31)


@dataclass
class Times:
    """(rows,) `values`: steps when `is_step`, else microseconds; `local` tells which of them are local wall time, not UTC."""

    values: NDArray[np.int64]
    local: NDArray[np.bool_]
    is_step: bool = False


def read_times(column: Column, name: str, findings: Findings, frequency: str | None) -> Times:
    """The column as times. `frequency` (canonical, or None) tells whole numbers apart: years for a yearly one, steps for `step`.

    Complaints: missing, unparsable or impossible times, times outside the years 1 to 9999, fractions of a microsecond.
    """
    column = plain(column)
    kind = column.type
    missing = np.flatnonzero(pc.is_null(column).to_numpy())
    if len(missing):
        like = Finding("missing_time", "the row has no time", column=name)
        findings.add_rows(like, missing, lambda _: None)
    if types.is_null(kind):
        return _nothing(len(column))
    if types.is_timestamp(kind) or types.is_date(kind):
        return _typed(column, name, findings)
    if types.is_integer(kind):
        return _whole(_filled(pc.cast(column, pa.int64(), safe=False)), column, name, findings, frequency)
    if types.is_floating(kind):
        return _floats(column, name, findings, frequency)
    if is_text(kind):
        return _texts(column, name, findings, frequency)
    findings.add(Finding("not_a_time", f"expected times, got a column of {kind}", column=name, hint=_HINT))
    return _nothing(len(column))


def _nothing(length: int) -> Times:
    return Times(np.zeros(length, np.int64), np.zeros(length, np.bool_))


def _filled(column: Column) -> NDArray[np.int64]:
    return column.fill_null(0).to_numpy()


def _typed(column: Column, name: str, findings: Findings) -> Times:
    kind = column.type
    local = types.is_date(kind) or kind.tz is None
    try:
        if types.is_date(kind):
            values = _filled(pc.cast(pc.cast(column, pa.timestamp("us")), pa.int64()))
        else:
            values = _filled(pc.cast(pc.cast(column, pa.timestamp("us", kind.tz)), pa.int64()))
    except pa.ArrowException:
        values = np.zeros(len(column), np.int64)
        bad = _lossy(column, values)
        like = Finding("not_a_time", "expected a time of whole microseconds in the years 1 to 9999", column=name)
        findings.add_rows(like, bad, lambda index: str(column[index].value))
    outside = np.flatnonzero((values < _FIRST) | (values > _LAST))
    like = Finding("not_a_time", "expected a time in the years 1 to 9999", column=name)
    findings.add_rows(like, outside, lambda index: str(column[index].value))
    return Times(values, np.full(len(values), local))


def _lossy(column: Column, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows whose stamp does not fit into microseconds; the others are written into `values`."""
    unit = getattr(column.type, "unit", "ms")
    raw = _filled(pc.cast(column, pa.int64()))
    if unit == "ns":
        values[:] = raw // 1000
        return np.flatnonzero(raw % 1000)
    factor = {"s": 1_000_000, "ms": 1000, "us": 1}[unit]
    bad = np.abs(raw) > _LAST // factor
    values[:] = np.where(bad, 0, raw) * factor
    return np.flatnonzero(bad)


def _floats(column: Column, name: str, findings: Findings, frequency: str | None) -> Times:
    numbers = column.fill_null(0.0).to_numpy().astype(np.float64)
    good = (np.abs(numbers) <= MAX_STEP) & (numbers == np.floor(numbers))
    like = Finding("not_a_time", "expected whole numbers or times", column=name, hint=_HINT)
    findings.add_rows(like, np.flatnonzero(~good), lambda index: str(column[index].as_py()))
    return _whole(np.where(good, numbers, 0).astype(np.int64), column, name, findings, frequency)


def _whole(numbers: NDArray[np.int64], column: Column, name: str, findings: Findings, frequency: str | None) -> Times:
    """Whole numbers: years or dates written as 20260131 where that is meant, else steps."""
    if frequency != "step" and len(numbers):
        low, high = int(numbers.min()), int(numbers.max())
        if frequency is not None and _YEARLY[0] <= low and high <= _YEARLY[1]:
            return Times(_days(numbers, 1, 1), np.ones(len(numbers), np.bool_))
        if _COMPACT[0] <= low and high <= _COMPACT[1]:
            values = _days(numbers // 10000, numbers // 100 % 100, numbers % 100)
            if not np.any(values == _IMPOSSIBLE):
                return Times(values, np.ones(len(numbers), np.bool_))
    if frequency not in (None, "step"):
        findings.add(
            Finding(
                "not_a_time",
                f"expected times for frequency {frequency}, got whole numbers",
                0,
                None,
                name,
                str(column[0].as_py()),
                _HINT,
            )
        )
        return _nothing(len(numbers))
    bad = np.flatnonzero(np.abs(numbers) > MAX_STEP)
    findings.add_rows(
        Finding("not_a_time", f"expected steps between -{MAX_STEP} and {MAX_STEP}", column=name),
        bad,
        lambda index: str(column[index].as_py()),
    )
    return Times(numbers, np.zeros(len(numbers), np.bool_), is_step=True)


_IMPOSSIBLE = np.iinfo(np.int64).min


def _days(years: Any, months: Any, days: Any) -> NDArray[np.int64]:
    """Local midnights (rows,) in microseconds; `_IMPOSSIBLE` where there is no such date."""
    years, months, days = np.broadcast_arrays(years, months, days)
    good = (months >= 1) & (months <= 12) & (days >= 1)
    month = ((years - 1970) * 12 + np.where(good, months, 1) - 1).astype("datetime64[M]")
    first = month.astype("datetime64[D]")
    length = ((month + 1).astype("datetime64[D]") - first).astype(np.int64)
    good &= days <= length
    return np.where(good, (first.astype(np.int64) + days - 1) * 86_400_000_000, _IMPOSSIBLE)


# ---------------------------------------------------------------- text


def _texts(column: Column, name: str, findings: Findings, frequency: str | None) -> Times:
    found = _quick(column)
    if found is not None:
        return found
    column = pc.utf8_trim_whitespace(column)
    if pc.all(pc.match_substring_regex(column, _WHOLE)).as_py():
        # `pc.all` skips nulls: those have been complained about
        numbers = _filled(pc.cast(pc.utf8_ltrim(column, "+"), pa.int64()))
        return _whole(numbers, column, name, findings, frequency)
    times = _nothing(len(column))
    bad: list[int] = []
    for start in range(0, len(column), BLOCK):
        _block(column.slice(start, BLOCK), start, times, bad)
    texts = {index: column[index].as_py() for index in bad[:100]}
    empty = [index for index in bad if not (column[index].as_py() if index not in texts else texts[index])]
    findings.add_rows(
        Finding("missing_time", "the row has no time", column=name), np.array(empty, np.int64), lambda _: None
    )
    gone = set(empty)
    wrong = np.array([index for index in bad if index not in gone], np.int64)
    like = Finding("not_a_time", "expected a time", column=name, hint=_HINT)
    findings.add_rows(like, wrong, lambda index: column[index].as_py())
    return times


def _quick(column: Column) -> Times | None:
    """All local or all with an offset, in ISO 8601: Arrow reads whole columns of them. None otherwise."""
    for zone in (None, "UTC"):
        try:
            values = _filled(pc.cast(pc.cast(column, pa.timestamp("us", zone)), pa.int64()))
        except pa.ArrowException:
            continue
        return Times(values, np.full(len(values), zone is None))
    return None


def _block(column: Column, start: int, times: Times, bad: list[int]) -> None:
    """One block into `times`: the quick way when it is clean, else each distinct text once."""
    found = _quick(column)
    if found is not None:
        times.values[start : start + len(column)] = found.values
        times.local[start : start + len(column)] = found.local
        return
    seen: dict[str, tuple[int, bool] | None] = {}
    for index, text in enumerate(column.to_pylist(), start):
        if text is None:
            continue
        if text not in seen:
            seen[text] = parse_time(text)
        parsed = seen[text]
        if parsed is None:
            bad.append(index)
        else:
            times.values[index], times.local[index] = parsed


def parse_time(text: str) -> tuple[int, bool] | None:
    """Microseconds since 1970 and whether they are local; None when the text is no time.

    ISO 8601 dates and times with `T` or a space, basic or extended, with or without offset; months 2026-01, quarters 2026-Q1.
    """
    if match := _QUARTER.fullmatch(text):
        return _midnight(int(match[1]), int(match[2]) * 3 - 2)
    if match := _MONTH.fullmatch(text):
        return _midnight(int(match[1]), int(match[2]))
    match = _STAMP.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    if fraction and fraction[6:].strip("0"):
        return None
    try:
        moment = datetime(*(int(part or 0) for part in (year, month, day, hour, minute, second)))
    except ValueError:
        return None
    value = _microseconds(moment) + int((fraction or "")[:6].ljust(6, "0"))
    if offset is None:
        return value, True
    if offset in "Zz" or offset == "UTC":
        return value, False
    digits = offset[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    value -= (1 if offset[0] == "+" else -1) * minutes * 60_000_000
    return (value, False) if minutes < 24 * 60 and _FIRST <= value <= _LAST else None


def _midnight(year: int, month: int) -> tuple[int, bool] | None:
    if not (1 <= year and 1 <= month <= 12):
        return None
    return _microseconds(datetime(year, month, 1)), True


def _microseconds(moment: datetime) -> int:
    span = moment - _EPOCH
    return (span.days * 86_400 + span.seconds) * 1_000_000


def looks_like_time(text: str) -> bool:
    """Whether a text is a time on its face; a bare number is not."""
    return not text.isdigit() and parse_time(text.strip()) is not None


def as_text(value: int) -> str:
    """A UTC time for a message."""
    seconds, rest = divmod(value, 1_000_000)
    try:
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest).isoformat()
    except (ValueError, OverflowError, OSError):
        return str(value)
