"""Frequencies by name: what people write for the time between two points, and the one name each of them has here."""

import re
from dataclasses import dataclass
from math import gcd

from models import spacing, zones
from models.spacing import MONTHS, WEEKDAYS
from models.zones import Int

SECONDS = {"s": 1, "min": 60, "h": 3600}  # units that advance in UTC, in seconds
MONTHLY = {"MS": 1, "ME": 1, "QS": 3, "QE": 3, "YS": 12, "YE": 12}  # units that count months, in months

_ALIASES = {
    **{"S": "s", "MIN": "min", "T": "min", "H": "h", "D": "D", "B": "B", "W": "W", "MS": "MS", "M": "ME", "ME": "ME"},
    **{"QS": "QS", "Q": "QE", "QE": "QE", "YS": "YS", "AS": "YS", "Y": "YE", "YE": "YE", "A": "YE", "STEP": "step"},
}
_REFUSED = {  # upper case; m and ms are refused by their case
    **dict.fromkeys(("L", "US", "U", "NS", "N"), "steps shorter than a second are not supported"),
    **dict.fromkeys(("BM", "BME", "BMS", "CBM", "CBME", "CBMS"), "business months are not supported, MS and ME are"),
    **dict.fromkeys(("BQ", "BQE", "BQS"), "business quarters are not supported, QS and QE are"),
    **dict.fromkeys(("BA", "BAS", "BY", "BYE", "BYS"), "business years are not supported, YS and YE are"),
    **dict.fromkeys(("BH", "CBH"), "business hours are not supported, h with gaps is"),
    **dict.fromkeys(("SM", "SME", "SMS"), "half months are not supported"),
    **dict.fromkeys(("WOM", "LWOM"), "the n-th weekday of a month is not supported"),
    "C": "custom business days are not supported, B and D are",
}
_ACCEPTED = (
    "s, min, h, D, B, W-MON, MS, ME, QS-JAN, QE-DEC, YS-JAN or YE-DEC, a multiple such as 15min, "
    "an ISO 8601 duration such as PT15M, or step for integer times"
)
_ALIAS = re.compile(r"([0-9]{0,9}) ?([A-Za-z]+)(?:-([A-Za-z0-9]+))?")
_DURATION = re.compile(
    r"P(?=[0-9T])(?:([0-9]{1,9})Y)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9})W)?(?:([0-9]{1,9})D)?"
    r"(?:T(?=[0-9])(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9})S)?)?"
)
_LONGEST = 100 * 366  # days in a step
_CYCLES = (60, 3600, 86_400, 604_800)  # minute, hour, day and week, in seconds


@dataclass(frozen=True)
class Frequency:
    """The time from one step to the next: `multiple` units. Equal grids have equal names.

    Units are s, min, h, D, B, W, MS, ME, QS, QE, YS, YE and step. `anchor` is the weekday from which weeks count, or
    the month from which quarters and years count; empty for the other units.
    """

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
        """Whether times are plain integers, without zone or calendar."""
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
        """Whether steps are equally long: the names differ in nothing but anchor, start or end (W-SUN and W-MON)."""
        return self.multiple == other.multiple and self.unit[0] == other.unit[0] and len(self.unit) == len(other.unit)

    @classmethod
    def parse(cls, text: str) -> "Frequency":
        """The frequency of a pandas alias, old or new, or of an ISO 8601 duration. Raises ValueError on anything else.

        Case is free except where it tells things apart: MS is a month's start, M its end, m and ms are refused.
        """
        said = text.strip()
        if duration := _DURATION.fullmatch(said.upper()):
            return _of_duration(said, [int(part or 0) for part in duration.groups()])
        match = _ALIAS.fullmatch(said)
        if match is None:
            raise _refusal(said)
        count, unit, anchor = match[1], match[2].upper(), (match[3] or "").upper()
        if unit in {"M", "MS"} and match[2] != unit:
            raise _refusal(said, "months are MS or ME, minutes min, and milliseconds are not supported")
        if unit not in _ALIASES:
            raise _refusal(said, _REFUSED.get(unit, ""))
        return _canonical(said, _ALIASES[unit], int(count or 1), anchor)

    @classmethod
    def infer(cls, times: Int, codes: Int, time_zone: str) -> "Frequency":
        """The frequency of many series together. `times` (n,) UTC µs, `codes` (n,) the series of each row, any order.

        Rows may be missing, and a few may lie off the grid. Raises ValueError with the reason where no frequency fits.
        """
        return cls.parse(spacing.tell(times, codes, zones.zone(time_zone)))


def _refusal(said: str, hint: str = "") -> ValueError:
    shown = repr(said if len(said) <= 40 else said[:40] + "…")
    return ValueError(f"frequency: expected {_ACCEPTED}; got {shown}" + (f" ({hint})" if hint else ""))


def _of_duration(said: str, parts: list[int]) -> Frequency:
    years, months, weeks, days, hours, minutes, seconds = parts
    months += 12 * years
    days += 7 * weeks
    seconds += 60 * minutes + 3600 * hours
    if months and (days or seconds):
        raise _refusal(said, "months together with shorter units are not supported")
    if months:
        return _canonical(said, "MS", months, "")
    if seconds:
        return _canonical(said, "s", 86_400 * days + seconds, "")
    return _canonical(said, "D", days, "")


def _canonical(said: str, unit: str, multiple: int, anchor: str) -> Frequency:
    """The one Frequency of a grid: 60min is h, 24h D, 7D W-SUN, 3MS QS-JAN, QS-OCT QS-JAN, 12ME YE-DEC."""
    anchors = WEEKDAYS if unit == "W" else MONTHS if unit in MONTHLY and unit[0] != "M" else ()
    if anchor and anchor not in anchors:
        raise _refusal(said, f"{unit} can end in one of {', '.join(anchors)}" if anchors else f"{unit} has no anchor")
    days = SECONDS[unit] / 86_400 if unit in SECONDS else 7 if unit == "W" else 30.5 * MONTHLY.get(unit, 1 / 30.5)
    if not multiple or (unit != "step" and multiple * days > _LONGEST):
        raise _refusal(said, "a step lasts at least a second and at most a century")
    if unit in SECONDS:
        seconds = multiple * SECONDS[unit]
        if seconds % 86_400 == 0:
            return _canonical(said, "D", seconds // 86_400, "")
        unit = next(coarse for coarse in ("h", "min", "s") if seconds % SECONDS[coarse] == 0)
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
    """The longest of minute, hour and day with fewer than 1,440 steps, and the next longer cycle; a week if alone."""
    cycles = [cycle // seconds for cycle in _CYCLES if cycle % seconds == 0]
    if not cycles:
        return (1,)
    main = sum(steps < 1440 for steps in cycles[1:-1])
    return tuple(cycles[main : main + 2])
