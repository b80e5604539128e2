"""Frequencies by name: what people write for the time between two points, and the one name each of them has here."""

import re
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from models import spacing, zones

WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
SECONDS = {"s": 1, "min": 60, "h": 3600}  # units that advance in UTC, in seconds
MONTHLY = {"MS": 1, "ME": 1, "QS": 3, "QE": 3, "YS": 12, "YE": 12}  # units that count months, in months

_ALIASES = {
    **{"S": "s", "MIN": "min", "T": "min", "H": "h", "D": "D", "B": "B", "W": "W", "MS": "MS", "M": "ME", "ME": "ME"},
    **{"QS": "QS", "Q": "QE", "QE": "QE", "YS": "YS", "AS": "YS", "Y": "YE", "YE": "YE", "A": "YE", "STEP": "step"},
}
_SUBSECOND = "steps shorter than a second are not supported"
_REFUSED = {
    "m": "m may mean minutes (min) or months (MS or ME)",
    **dict.fromkeys(("ms", "L", "us", "U", "ns", "N"), _SUBSECOND),
    **dict.fromkeys(("BM", "BME", "BMS", "CBM", "CBME", "CBMS"), "business months are not supported, MS and ME are"),
    **dict.fromkeys(("BQ", "BQE", "BQS"), "business quarters are not supported, QS and QE are"),
    **dict.fromkeys(("BA", "BAS", "BY", "BYE", "BYS"), "business years are not supported, YS and YE are"),
    **dict.fromkeys(("BH", "bh", "CBH", "cbh"), "business hours are not supported, h with gaps is"),
    **dict.fromkeys(("SM", "SME", "SMS"), "half months are not supported"),
    **dict.fromkeys(("WOM", "LWOM"), "a weekday of each month is not supported"),
    "C": "custom business days are not supported, B and D are",
}
_ACCEPTED = (
    "s, min, h, D, B, W-MON, MS, ME, QS-JAN, QE-DEC, YS-JAN or YE-DEC, a multiple such as 15min, "
    "an ISO 8601 duration such as PT15M, or step for integer times"
)
_ALIAS = re.compile(r"([0-9]{0,9}) ?([A-Za-z]+)(?:-([A-Za-z]{3}))?")
_DURATION = re.compile(
    r"P(?:([0-9]{1,9})Y)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9})W)?(?:([0-9]{1,9})D)?"
    r"(?:T(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9})S)?)?"
)
_LONGEST = 100 * 366  # days
_CYCLES = (60, 3600, 86_400, 604_800)  # minute, hour, day and week, in seconds


@dataclass(frozen=True)
class Frequency:
    """The time from one step to the next: `multiple` times a unit (s, min, h, D, B, W, MS, ME, QS, QE, YS, YE or step), the
    weeks counted from the weekday `anchor`, quarters and years from the month `anchor`. Equal grids have equal names."""

    unit: str
    multiple: int = 1
    anchor: str = ""

    @property
    def name(self) -> str:
        """The canonical name: 15min, W-FRI, 2MS, QE-DEC, step."""
        count = "" if self.multiple == 1 else str(self.multiple)
        return f"{count}{self.unit}-{self.anchor}" if self.anchor else f"{count}{self.unit}"

    @property
    def is_integer(self) -> bool:
        """Whether times are plain integers without zone or calendar."""
        return self.unit == "step"

    @property
    def season(self) -> int:
        """The main season in steps; 1 where there is none."""
        return self.seasons[0]

    @property
    def seasons(self) -> tuple[int, ...]:
        """The seasons in steps, the main one first: a day and a week for hours, a week for days, a year for months."""
        if self.unit in SECONDS:
            return _clock_seasons(self.multiple * SECONDS[self.unit])
        if self.unit in MONTHLY:
            months = self.multiple * MONTHLY[self.unit]
            return (12 // months if 12 % months == 0 else 1,)
        if self.unit == "W":
            return (max(1, round(52 / self.multiple)),)
        if self.unit == "B":
            return (5 // gcd(5, self.multiple),)
        if self.unit == "D":
            return (7 if self.multiple <= 3 else max(1, round(365.2425 / self.multiple)),)
        return (1,)

    def agrees(self, other: "Frequency") -> bool:
        """Whether steps are equally long: names that differ only in anchor, start or end (W and W-MON, MS and ME)."""
        return self.multiple == other.multiple and self.unit[0] == other.unit[0] and len(self.unit) == len(other.unit)

    @classmethod
    def parse(cls, text: str) -> "Frequency":
        """The frequency of a pandas alias, old or new, or of an ISO 8601 duration. Raises ValueError on anything else.

        Case is free but for what it tells apart: MS is a month's start, ms, m and the like are refused.
        """
        said = text.strip()
        duration = _DURATION.fullmatch(said.upper()) if said[:1] in {"P", "p"} else None
        if duration is not None:
            return _of_duration(said, [int(part or 0) for part in duration.groups()])
        match = _ALIAS.fullmatch(said)
        if match is None:
            raise _refusal(said, "")
        count, unit, anchor = match[1], match[2], (match[3] or "").upper()
        if unit in _REFUSED or (unit.upper() in _REFUSED and unit.upper() not in _ALIASES):
            raise _refusal(said, _REFUSED.get(unit) or _REFUSED[unit.upper()])
        if unit.upper() not in _ALIASES:
            raise _refusal(said, "")
        return _canonical(said, _ALIASES[unit.upper()], int(count or 1), anchor)

    @classmethod
    def infer(cls, times: NDArray[np.int64], codes: NDArray[np.int64], time_zone: str) -> "Frequency":
        """The frequency of many series together. `times` (n,) UTC µs, `codes` (n,) the series of each row, in any order.

        Rows may be missing, and a few may lie off the grid. Raises ValueError, with the reason, where no frequency fits.
        """
        return cls.parse(spacing.tell(times, codes, zones.zone(time_zone)))


def _refusal(said: str, hint: str) -> ValueError:
    shown = repr(said if len(said) <= 40 else said[:40] + "…")
    return ValueError(f"frequency: expected {_ACCEPTED}; got {shown}" + (f" ({hint})" if hint else ""))


def _of_duration(said: str, parts: list[int]) -> Frequency:
    years, months, weeks, days, hours, minutes, seconds = parts
    months += 12 * years
    days += 7 * weeks
    seconds += 60 * minutes + 3600 * hours
    if months and (days or seconds):
        raise _refusal(said, "months and shorter units in one step are not supported")
    if months:
        return _canonical(said, "MS", months, "")
    if seconds:
        return _canonical(said, "s", 86_400 * days + seconds, "")
    return _canonical(said, "D", days, "")


def _canonical(said: str, unit: str, multiple: int, anchor: str) -> Frequency:
    """The one Frequency of a grid: 60min is h, 24h is D, 7D is W-SUN, 3MS is QS-JAN, QS-OCT is QS-JAN, 12ME is YE-DEC."""
    anchors = {"W": WEEKDAYS, "QS": MONTHS, "QE": MONTHS, "YS": MONTHS, "YE": MONTHS}.get(unit, ())
    if anchor and anchor not in anchors:
        raise _refusal(said, f"{anchor} is no anchor of {unit}" + (f", {', '.join(anchors)} are" if anchors else ""))
    days = multiple * (SECONDS[unit] / 86_400 if unit in SECONDS else {"W": 7}.get(unit, 31 * MONTHLY.get(unit, 1) - 1))
    if not 1 <= multiple or (unit != "step" and days > _LONGEST):
        raise _refusal(said, "a step lasts at least one unit and at most a century")
    if unit in SECONDS:
        seconds = multiple * SECONDS[unit]
        if seconds % 86_400 == 0:
            return _canonical(said, "D", seconds // 86_400, "")
        unit = next(u for u in ("h", "min", "s") if seconds % SECONDS[u] == 0)
        return Frequency(unit, seconds // SECONDS[unit])
    if unit == "D" and multiple % 7 == 0:
        unit, multiple = "W", multiple // 7
    if unit == "W":
        return Frequency(unit, multiple, anchor or "SUN")
    if unit in MONTHLY:
        return _months(unit[1], multiple * MONTHLY[unit], anchor)
    return Frequency(unit, multiple)


def _months(side: str, months: int, anchor: str) -> Frequency:
    month = MONTHS.index(anchor or ("JAN" if side == "S" else "DEC"))
    if months % 12 == 0:
        return Frequency("Y" + side, months // 12, MONTHS[month])
    if months % 3 == 0:
        return Frequency("Q" + side, months // 3, MONTHS[month % 3 + (0 if side == "S" else 9)])
    return Frequency("M" + side, months)


def _clock_seasons(seconds: int) -> tuple[int, ...]:
    """The longest of minute, hour and day that has fewer than 1,440 steps, and the cycle after it."""
    cycles = [cycle // seconds for cycle in _CYCLES if cycle % seconds == 0 and cycle > seconds]
    if not cycles:
        return (1,)
    short = [steps for steps in cycles[: -1 if len(cycles) > 1 else None] if steps < 1440] or cycles[:1]
    after = cycles[cycles.index(short[-1]) + 1 :]
    return (short[-1], *after[:1])
