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
    r"(\d{4})[-/]?(\d\d)[-/]?(\d\d)"
    r"(?:[Tt ](\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d+))?)?)?)?\s*([Zz]|[+-]\d\d(?::?\d\d)?|UTC)?",
    re.ASCII,
)
_MONTH = re.compile(r"(\d{4})[-/]?M?(\d\d)", re.ASCII)
_QUARTER = re.compile(r"(\d{4})[-/ ]?[Qq]([1-4])", re.ASCII)
_HINT = "write times as 2026-01-31, 2026-01-31T15:00:00 or 2026-01-31T15:00:00+01:00"
YEAR = "year"  # a column of this name holds years, unless the frequency says otherwise
_YEARLY = re.compile(r"\d*Y")
_YEARS = (1000, 2999)
_COMPACT = (1000_01_01, 2999_12_31)


@dataclass
class Times:
    """(rows,) `values`: steps when `is_step`, else microseconds; `local` tells which are local time and not UTC."""

    values: NDArray[np.int64]
    local: NDArray[np.bool_]
    is_step: bool = False


def read_times(column: Column, name: str, findings: Findings, frequency: str | None) -> Times:
    """The column as times. `frequency` (canonical, or None) tells what whole numbers are: years if yearly, else steps;
    None leaves that to the name.

    Complaints: missing, unparsable or impossible times, times outside the years 1 to 9999, fractions of a microsecond.
    """
    column = plain(column)
    reader = _Reader(name, findings, frequency)
    if column.null_count:
        reader.complain("missing_time", "the row has no time", pc.is_null(column).to_numpy(), None)
    if column.null_count == len(column):
        return _nothing(len(column))
    times = reader.read(column)
    if frequency == "step" and not times.is_step and not findings.count:
        hint = "leave frequency out, or send whole numbers"
        first = str(column[0].as_py())
        findings.add(Finding("not_a_time", "expected whole numbers for frequency step", 0, None, name, first, hint))
    return times


def _nothing(length: int) -> Times:
    return Times(np.zeros(length, np.int64), np.zeros(length, np.bool_))


def _filled(column: Column) -> NDArray[np.int64]:
    """(rows,) int64; a null, complained about before, becomes the column's smallest value, which is plausible."""
    column = pc.cast(column, pa.int64(), safe=False)
    return column.fill_null(pc.min(column).as_py() or 0).to_numpy() if column.null_count else column.to_numpy()


@dataclass(frozen=True)
class _Reader:
    """One time column: its name, where complaints go, and the frequency it must have."""

    name: str
    findings: Findings
    frequency: str | None

    def complain(self, code: str, message: str, bad: NDArray[np.bool_], column: Column | None) -> None:
        """A complaint for each row that is `bad`, with what stands in `column` there."""
        like = Finding(code, message, column=self.name, hint=_HINT if code == "not_a_time" else None)
        self.findings.add_rows(
            like, np.flatnonzero(bad), lambda index: None if column is None else _shown(column[index])
        )

    def read(self, column: Column) -> Times:
        kind = column.type
        if types.is_timestamp(kind) or types.is_date(kind):
            return self.typed(column)
        if types.is_integer(kind):
            if types.is_uint64(kind):  # what does not fit must not wrap around
                column = pc.min_element_wise(column, pa.scalar(MAX_STEP + 1, kind), skip_nulls=False)
            return self.whole(_filled(column), column)
        if types.is_floating(kind):
            return self.floats(column)
        if is_text(kind):
            return self.texts(column)
        self.findings.add(
            Finding("not_a_time", f"expected times, got a column of {kind}", column=self.name, hint=_HINT)
        )
        return _nothing(len(column))

    def typed(self, column: Column) -> Times:
        """Timestamps of any unit, with or without zone, and dates."""
        if types.is_date(column.type):
            column = pc.cast(column, pa.timestamp("s" if types.is_date32(column.type) else "ms"))
        unit, local = column.type.unit, column.type.tz is None
        raw = _filled(column)
        message = "expected a time of whole microseconds in the years 1 to 9999"
        if unit == "ns":
            values, bad = raw // 1000, raw % 1000 != 0
            self.complain("not_a_time", message, bad, column)
        else:
            factor = {"s": 1_000_000, "ms": 1000, "us": 1}[unit]
            low, high = _FIRST // factor, _LAST // factor
            if len(raw) and not low <= raw.min() <= raw.max() <= high:
                bad = (raw < low) | (raw > high)
                self.complain("not_a_time", message, bad, column)
                raw = np.where(bad, 0, raw)
            values = raw * factor
        return Times(values, np.full(len(values), local))

    def floats(self, column: Column) -> Times:
        """Whole numbers that came as floating point, as those of a column with nulls do."""
        numbers = pc.cast(column, pa.float64()).fill_null(0.0).to_numpy()
        good = (np.abs(numbers) <= MAX_STEP) & (numbers == np.floor(numbers))
        self.complain("not_a_time", "expected whole numbers or times", ~good, column)
        return self.whole(np.where(good, numbers, 0).astype(np.int64), column)

    def whole(self, numbers: NDArray[np.int64], column: Column) -> Times:
        """Whole numbers: years or dates written as 20260131 where that is meant, else steps."""
        low, high = int(numbers.min()), int(numbers.max())
        yearly = _YEARLY.match(self.frequency or "") or (self.frequency is None and self.name.lower() == YEAR)
        if yearly and _YEARS[0] <= low and high <= _YEARS[1]:
            return Times(_days(numbers, np.ones_like(numbers), np.ones_like(numbers)), np.ones(len(numbers), np.bool_))
        if self.frequency != "step" and _COMPACT[0] <= low and high <= _COMPACT[1]:
            values = _days(numbers // 10000, numbers // 100 % 100, numbers % 100)
            if not np.any(values == _IMPOSSIBLE):
                return Times(values, np.ones(len(numbers), np.bool_))
        if self.frequency not in (None, "step"):
            bad = np.arange(len(numbers)) == 0
            self.complain(
                "not_a_time", f"expected times for frequency {self.frequency}, got whole numbers", bad, column
            )
            return _nothing(len(numbers))
        bad = np.abs(numbers) > MAX_STEP
        self.complain("not_a_time", f"expected steps between -{MAX_STEP} and {MAX_STEP}", bad, column)
        return Times(numbers, np.zeros(len(numbers), np.bool_), is_step=True)

    def texts(self, column: Column) -> Times:
        found = _quick(column)
        if found is not None:
            return found
        column = pc.utf8_trim_whitespace(column)
        blank = pc.equal(column, "")
        self.complain("missing_time", "the row has no time", blank.fill_null(False).to_numpy(), None)
        column = pc.if_else(blank, pa.scalar(None, column.type), column)
        whole = pc.match_substring_regex(column, _WHOLE)
        if 2 * (pc.sum(whole).as_py() or 0) > len(column) - column.null_count:
            bad = ~whole.fill_null(True).to_numpy()
            self.complain("not_a_time", "expected a whole number as in most rows of the column", bad, column)
            texts = pc.if_else(whole, pc.utf8_ltrim(column, "+"), pa.scalar(None, column.type))
            return self.whole(_filled(texts), column)
        times = _nothing(len(column))
        bad = np.zeros(len(column), np.bool_)
        for start in range(0, len(column), BLOCK):
            _block(column.slice(start, BLOCK), start, times, bad)
        self.complain("not_a_time", "expected a time", bad, column)
        return times


def _shown(scalar: Any) -> str:
    """What stands in a cell; a timestamp that Python has no value for, as its number."""
    return str(scalar.value) if types.is_timestamp(scalar.type) else str(scalar.as_py())


_IMPOSSIBLE = np.iinfo(np.int64).min


def _days(years: NDArray[np.int64], months: NDArray[np.int64], days: NDArray[np.int64]) -> NDArray[np.int64]:
    """Local midnights (rows,) in microseconds; `_IMPOSSIBLE` where there is no such date."""
    good = (months >= 1) & (months <= 12) & (days >= 1)
    month = ((years - 1970) * 12 + np.where(good, months, 1) - 1).astype("datetime64[M]")
    first = month.astype("datetime64[D]")
    length = ((month + 1).astype("datetime64[D]") - first).astype(np.int64)
    good &= days <= length
    return np.where(good, (first.astype(np.int64) + days - 1) * 86_400_000_000, _IMPOSSIBLE)


def _quick(column: Column) -> Times | None:
    """All local or all with an offset, in ISO 8601: Arrow reads whole columns of them. None otherwise."""
    for zone in (None, "UTC"):
        try:
            values = _filled(pc.cast(column, pa.timestamp("us", zone)))
        except pa.ArrowException:
            continue
        if len(values) and (values.min() < _FIRST or values.max() > _LAST):
            return None
        return Times(values, np.full(len(values), zone is None))
    return None


def _block(column: Column, start: int, times: Times, bad: NDArray[np.bool_]) -> None:
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
            bad[index] = True
        else:
            times.values[index], times.local[index] = parsed


def parse_time(text: str) -> tuple[int, bool] | None:
    """Microseconds since 1970 and whether they are local; None when the text is no time.

    ISO 8601 dates and times with `T` or a space, basic or extended, with or without offset; months as 2026-01,
    quarters as 2026-Q1.
    """
    if match := _QUARTER.fullmatch(text) or _MONTH.fullmatch(text):
        part = int(match[2])
        return _moment(int(match[1]), part * 3 - 2 if match.re is _QUARTER else part, 1, 0, 0, 0)
    match = _STAMP.fullmatch(text)
    if match is None:
        return None
    *parts, fraction, offset = match.groups()
    found = _moment(*(int(part or 0) for part in parts))
    if found is None or (fraction or "")[6:].strip("0"):
        return None
    value = found[0] + int((fraction or "")[:6].ljust(6, "0"))
    if offset is None:
        return value, True
    digits = offset[1:].replace(":", "").ljust(4, "0") if offset[0] in "+-" else "0000"
    hours, minutes = int(digits[:2]), int(digits[2:])
    value -= (-1 if offset[0] == "-" else 1) * (hours * 60 + minutes) * 60_000_000
    return (value, False) if hours < 24 and minutes < 60 and _FIRST <= value <= _LAST else None


def _moment(*parts: int) -> tuple[int, bool] | None:
    """A local time of year, month, … second in microseconds since 1970; None where there is no such time."""
    try:
        year, month, day, hour, minute, second = parts
        span = datetime(year, month, day, hour, minute, second) - _EPOCH
    except ValueError:
        return None
    return (span.days * 86_400 + span.seconds) * 1_000_000, True


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
