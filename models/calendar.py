"""The calendar: absolute steps from times, and back.

A step is a number, counted from 1970-01-01 on the dataset's clock. A phase says where inside its steps a series' rows
lie, in µs; 0 is what the frequency's name says, at midnight. Units shorter than a day advance in UTC: the step is the
time divided by its length, the phase the rest. All others advance in days of the local clock, however long those are,
and their phase is whole days and the local time of day: D counts days, W days from the anchor's weekday, B business
days. Months, quarters and years count months from the anchor; their phase also holds the month inside the step and the
day of the month that the series means, cut to the length of shorter months: 31 January, 28 February, 31 March.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import spacing, zones
from models.frequency import MONTHLY, SECONDS, Frequency
from models.spacing import MONTHS, WEEKDAYS
from models.zones import DAY, SECOND, Bool, Int

__all__ = ["Calendar", "Frequency"]

_MINUTE = 60 * SECOND


@dataclass(frozen=True)
class Calendar:
    """A frequency on the clock of one time zone. All arrays are int64; times are UTC µs, or the integers of `step`."""

    frequency: Frequency
    time_zone: str = "UTC"

    @classmethod
    def of(cls, frequency: str, time_zone: str = "UTC") -> "Calendar":
        """The calendar of a frequency's name and an IANA zone. Raises ValueError on either unknown."""
        zones.zone(time_zone)
        return cls(Frequency.parse(frequency), time_zone)

    def locate(self, times: Int) -> tuple[Int, Int]:
        """Absolute step and phase of each time, both (n,). `times` makes the time of them again.

        One thing is lost: with units of a day and longer, which of the two a local time shown twice was.
        """
        unit, multiple = self.frequency.unit, self.frequency.multiple
        if self.frequency.is_integer:
            return _divided(times, multiple)
        if unit in SECONDS:
            return _divided(times, multiple * SECONDS[unit] * SECOND)
        days, clock = np.divmod(zones.zone(self.time_zone).to_local(times), DAY)
        if unit in MONTHLY:
            month, day, length = spacing.month_fields(days)
            steps, inside = _divided(month - self._origin, multiple * MONTHLY[unit])
            return steps, (inside * 31 + self._day_code(day, length)) * DAY + clock
        if unit == "B":
            business, weekend = spacing.business_days(days)
            steps, inside = _divided(business, multiple)
            return steps, (inside + weekend * multiple) * DAY + clock
        steps, inside = _divided(days - self._origin, self._days)
        return steps, inside * DAY + clock

    def times(self, steps: Int, phase: int | Int) -> Int:
        """The time of each step of a series, or of each step with its own phase: the inverse of `locate`.

        A local time that the clock skips is moved forward by the gap; of one shown twice it is the first.
        """
        unit, multiple = self.frequency.unit, self.frequency.multiple
        if self.frequency.is_integer:
            return steps * multiple + phase
        if unit in SECONDS:
            return steps * (multiple * SECONDS[unit] * SECOND) + phase
        inside, clock = np.divmod(phase, DAY)
        if unit in MONTHLY:
            within, code = np.divmod(inside, 31)
            month = steps * (multiple * MONTHLY[unit]) + within + self._origin
            first = spacing.month_start(month)
            days = first + np.minimum(self._day_of(code), spacing.month_start(month + 1) - first) - 1
        elif unit == "B":
            weekend, within = np.divmod(inside, multiple)
            weeks, weekday = np.divmod(steps * multiple + within + 3, 5)
            days = weeks * 7 + weekday - 3 + weekend
        else:
            days = steps * self._days + self._origin + inside
        return zones.zone(self.time_zone).to_utc(days * DAY + clock)[0]

    def settle(self, codes: Int, phases: Int, steps: Int) -> Int:
        """The phase of each series, (k,): that of most of its rows, for months and longer the one that explains most.

        `codes` (n,) are the series of the rows, 0 to k - 1, in any order. A series without rows has phase 0.
        """
        count = int(codes.max()) + 1 if codes.size else 0
        if self.frequency.unit == "B":
            working = phases < self.frequency.multiple * DAY
            without = np.ones(count, np.bool_)
            without[codes[working]] = False
            settled = spacing.majority(codes[working], phases[working], count)
            settled[without] = spacing.majority(codes, phases % DAY, count)[without]
            return settled
        common = spacing.majority(codes, phases, count)
        if self.frequency.unit not in MONTHLY:
            return common
        mixed = spacing.unequal(codes, phases, common)
        rows = mixed[codes]
        if not rows.any():
            return common
        codes, phases, steps = codes[rows], phases[rows], steps[rows]
        inside, clock = np.divmod(phases, DAY)
        within, code = np.divmod(inside, 31)
        place = within * DAY + clock
        usual = spacing.majority(codes, place, count)
        rows = place == usual[codes]
        month = steps * (self.frequency.multiple * MONTHLY[self.frequency.unit]) + within + self._origin
        length = spacing.month_start(month + 1) - spacing.month_start(month)
        day = np.minimum(self._day_of(code), length)
        meant = spacing.month_day(codes[rows], day[rows], length[rows], count)
        settled = (usual // DAY * 31 + self._day_code(meant, np.full(count, 31))) * DAY + usual % DAY
        return np.where(mixed, settled, common)

    def on_grid(self, steps: Int, phases: Int, series_phases: int | Int) -> Bool:
        """Whether each row (step, phase) lies where its series' phase puts that step, (n,).

        28 February does in a series of month ends, and 01:00 on a day whose midnight the clock skips; a weekend never
        does on business days.
        """
        same = phases == series_phases
        if self.frequency.is_integer or self.frequency.unit in SECONDS:
            return same
        odd = np.flatnonzero(~same)
        expected = np.broadcast_to(np.asarray(series_phases, np.int64), same.shape)[odd]
        same[odd] = self.times(steps[odd], phases[odd]) == self.times(steps[odd], expected)
        return same & (phases < self.frequency.multiple * DAY) if self.frequency.unit == "B" else same

    def to_utc(self, local: Int, second: Bool | None = None) -> tuple[Int, Bool, Bool]:
        """UTC µs of readings of the local clock in µs; which readings it shows twice; which it never shows.

        A reading shown twice means the first time, or the second where `second`; one never shown moves on by the gap.
        """
        return zones.zone(self.time_zone).to_utc(local, second)

    def to_local(self, times: Int) -> Int:
        """What the local clock shows at each time, in µs since 1970-01-01T00:00 on that clock."""
        return zones.zone(self.time_zone).to_local(times)

    def stamps(self, times: Int) -> list[str] | list[int]:
        """RFC 3339 with the zone's offset at each time, fractions of a second where there are any; integers for `step`.

        RFC 3339 knows whole minutes of offset alone: local mean times of old are rounded, the instant stays the same.
        """
        if self.frequency.is_integer:
            return times.tolist()
        if not times.size:
            return []
        offsets = np.asarray((zones.zone(self.time_zone).offset(times) + _MINUTE // 2) // _MINUTE)
        local = times + offsets * _MINUTE
        kinds, which = np.unique(offsets, return_inverse=True)
        suffixes = np.array([f"{'-' if kind < 0 else '+'}{abs(kind) // 60:02}:{abs(kind) % 60:02}" for kind in kinds])
        text = local.astype("datetime64[us]").astype("datetime64[s]").astype("U24")  # faster than datetime_as_string
        stamps: list[str] = np.strings.add(text, suffixes[which]).tolist()
        fine = np.flatnonzero(times % SECOND)
        text = np.strings.rstrip(local[fine].astype("datetime64[us]").astype("U32"), "0")
        for row, stamp in zip(fine.tolist(), np.strings.add(text, suffixes[which[fine]]).tolist(), strict=True):
            stamps[row] = stamp
        return stamps

    @property
    def _days(self) -> int:
        """Days in a step of D or W."""
        return self.frequency.multiple * (7 if self.frequency.unit == "W" else 1)

    @property
    def _origin(self) -> int:
        """Where step 0 begins: a day since 1970-01-01 (a Thursday) for D and W, a month since 1970-01 for months."""
        if not self.frequency.anchor:
            return 0
        if self.frequency.unit == "W":
            return (WEEKDAYS.index(self.frequency.anchor) - 3) % 7
        return MONTHS.index(self.frequency.anchor) % MONTHLY[self.frequency.unit]

    def _day_code(self, day: Int, length: Int) -> Int:
        """A day of the month as a phase holds it: up from 0, the first; if the name says end, down from 0, the last."""
        if self.frequency.unit[1] == "S":
            return day - 1
        return np.where(day == length, 0, 31 - day)

    def _day_of(self, code: NDArray[np.int64] | int) -> NDArray[np.int64] | int:
        return code + 1 if self.frequency.unit[1] == "S" else 31 - code


def _divided(values: Int, by: int) -> tuple[Int, Int]:
    steps = values // by  # numpy divides by a scalar several times faster than it takes divmod
    return steps, values - steps * by
