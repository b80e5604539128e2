"""What the rows of many series have in common: the step between them, the phase most of them share, the day of the month
they mean. All of it without a loop over rows or series."""

import numpy as np
from numpy.typing import NDArray

from models.zones import DAY, SECOND, Bool, Int, Zone

MOST = 0.9  # share of the rows that a frequency must explain; what it does not is refused later, row by row
SEEN = 0.1  # share of the differences that must be a single step
FREQUENT = 0.02  # share of the differences above which one counts
ENOUGH = 8  # differences a series must have before it is said to step otherwise than the rest
HINT = "pass frequency= to say it"


def majority(codes: Int, values: Int, count: int) -> Int:
    """The most frequent value of each of `count` series, (count,); the smallest of equally frequent ones; 0 without rows."""
    common = np.zeros(count, np.int64)
    common[codes] = values
    mixed = np.zeros(count, np.bool_)
    mixed[codes[values != common[codes]]] = True
    rows = mixed[codes]
    if not rows.any():
        return common
    codes, values = codes[rows], values[rows]
    order = np.lexsort((values, codes))
    codes, values = codes[order], values[order]
    starts = np.flatnonzero(np.r_[True, (codes[1:] != codes[:-1]) | (values[1:] != values[:-1])])
    often = np.diff(np.r_[starts, len(codes)])
    best = np.lexsort((-values[starts], often, codes[starts]))  # each series' best run comes last and is written last
    common[codes[starts][best]] = values[starts][best]
    return common


def month_fields(days: Int) -> tuple[Int, Int, Int]:
    """Month since 1970-01, day of the month from 1, and length of the month, of days since 1970-01-01."""
    month = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    first = month_start(month)
    return month, days - first + 1, month_start(month + 1) - first


def month_start(months: Int) -> Int:
    """Days from 1970-01-01 to the first of each month, of months since 1970-01."""
    return months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def month_day(codes: Int, days: Int, lengths: Int, count: int) -> Int:
    """The day of the month that each series means, (count,): the one that, cut to the month's length, explains most rows.

    31 where that is the month's end; a series that has only ever shown one day means that day.
    """
    common = majority(codes, days, count)
    mixed = np.zeros(count, np.bool_)
    mixed[codes[days != common[codes]]] = True
    rows = mixed[codes]
    if not rows.any():
        return common
    codes, days, lengths = codes[rows], days[rows], lengths[rows]
    choices = np.stack([np.full(count, 31), common, np.full(count, 30), np.full(count, 29), np.full(count, 28)])
    scores = [np.bincount(codes, np.minimum(day[codes], lengths) == days, minlength=count) for day in choices]
    meant = choices[np.argmax(scores, axis=0), np.arange(count)]
    return np.where(mixed, meant, common)


def business_days(days: Int) -> tuple[Int, Int]:
    """Business days since 1970-01-01 up to each day (a weekend counts as its Friday), and how far into the weekend it is:
    0 on business days, 1 on Saturdays, 2 on Sundays."""
    weeks, weekday = np.divmod(days + 3, 7)  # 1970-01-01 was a Thursday
    return weeks * 5 + np.minimum(weekday, 4) - 3, np.maximum(weekday - 4, 0)


def tell(times: Int, codes: Int, place: Zone) -> str:
    """The name of the frequency of rows at UTC µs `times` (n,) of series `codes` (n,). Raises ValueError with the reason."""
    times, codes = _ordered(np.asarray(times, np.int64), np.asarray(codes, np.int64))
    inside = codes[1:] == codes[:-1]
    if not inside.any():
        raise ValueError(f"frequency: expected a series with two different times or more to tell it from; {HINT}")
    both = np.r_[inside, False] | np.r_[False, inside]  # series of one row say nothing
    times, codes = times[both], np.unique(codes[both], return_inverse=True)[1].astype(np.int64)
    inside = codes[1:] == codes[:-1]
    days, clocks = np.divmod(place.to_local(times), DAY)
    if _one_clock(times, codes, days, clocks, place):
        return _tell_months(codes, days, inside) or _tell_days(codes, days, inside)
    return _tell_clock(times, codes, inside, place)


def _ordered(times: Int, codes: Int) -> tuple[Int, Int]:
    """The rows by series and time, each (series, time) once."""
    later = (codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (times[1:] > times[:-1]))
    if later.all():
        return times, codes
    order = np.lexsort((times, codes))
    times, codes = times[order], codes[order]
    new = np.r_[True, (codes[1:] != codes[:-1]) | (times[1:] != times[:-1])][: len(times)]
    return times[new], codes[new]


def _one_clock(times: Int, codes: Int, days: Int, clocks: Int, place: Zone) -> bool:
    """Whether each series keeps to one local time of day, at most once a day: then it steps in days or longer."""
    usual = majority(codes, clocks, int(codes[-1]) + 1)[codes]
    odd = clocks != usual
    if np.mean(odd) > 0.5:
        return False
    moved = place.to_utc(days[odd] * DAY + usual[odd])[0] == times[odd]  # the clock skipped this day's usual time
    inside = codes[1:] == codes[:-1]
    daily = np.mean(np.diff(days)[inside] >= 1) >= MOST
    return bool(daily and 1 - (odd.sum() - moved.sum()) / len(times) >= MOST)


def _tell_months(codes: Int, days: Int, inside: Bool) -> str | None:
    """The frequency if rows keep to one day of the month, at most once a month; else None."""
    month, day, length = month_fields(days)
    differences = np.diff(month)[inside]
    if np.mean(differences >= 1) < MOST:
        return None
    meant = month_day(codes, day, length, int(codes[-1]) + 1)[codes]
    if np.mean(np.minimum(meant, length) == day) < MOST:
        return None
    step = _step(differences, codes[1:][inside], _show_months)
    side = "E" if np.mean(day == length) >= MOST else "S"
    names = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
    anchor = names[int(np.bincount(month % 12).argmax())]
    if step % 12 == 0:
        return f"{step // 12}Y{side}-{anchor}"
    return f"{step // 3}Q{side}-{anchor}" if step % 3 == 0 else f"{step}M{side}"


def _tell_days(codes: Int, days: Int, inside: Bool) -> str:
    owners, differences = codes[1:][inside], np.diff(days)[inside]
    business, weekend = business_days(days)
    working = np.diff(business)[inside]
    if not weekend.any() and (differences > working).any():
        ones = np.mean(working == 1)
        if ones == 1 or (ones >= SEEN and ones > np.mean(differences == _common(differences))):
            _step(working, owners, _show_days)
            return "B"
    step = _step(differences, owners, _show_days)
    weekday = int(np.bincount((days + 3) % 7).argmax())
    return f"{step}D" if step % 7 else f"{step // 7}W-{('MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT', 'SUN')[weekday]}"


def _tell_clock(times: Int, codes: Int, inside: Bool, place: Zone) -> str:
    step = _step(np.diff(times)[inside], codes[1:][inside], _show_clock)
    if step % SECOND:
        raise ValueError(f"frequency: expected steps of whole seconds, got steps of {_show_clock(step)}; {HINT}")
    if step % DAY == 0:
        raise ValueError(
            f"frequency: times are {_show_clock(step)} apart in UTC but at changing times of day in {place.name}; "
            "give time_zone=UTC, or the zone whose days these are"
        )
    phases = times % step
    if np.mean(phases == majority(codes, phases, int(codes[-1]) + 1)[codes]) < MOST:
        raise ValueError(
            f"frequency: times are mostly {_show_clock(step)} apart but shift now and then, perhaps with the clock of "
            f"{place.name}; steps shorter than a day advance in UTC; pass a shorter frequency= that holds all times"
        )
    return f"{step // SECOND}s"


def _common(differences: Int) -> int:
    """The greatest common divisor of the frequent differences."""
    values, counts = np.unique(differences[differences > 0], return_counts=True)
    return int(np.gcd.reduce(values[counts >= FREQUENT * counts.sum()])) if len(values) else 0


def _step(differences: Int, owners: Int, show: "_Show") -> int:
    """The step behind the differences of neighbouring rows of series `owners`. Raises ValueError where there is none."""
    step = _common(differences)
    if not step or np.mean(differences % step == 0) < MOST or np.mean(differences == step) < SEEN:
        values, counts = np.unique(differences[differences > 0], return_counts=True)
        most = np.argsort(-counts, kind="stable")[:3]
        seen = ", ".join(f"{show(int(values[i]))} ({counts[i] / counts.sum():.0%})" for i in most)
        raise ValueError(
            f"frequency: expected evenly spaced times, got steps of {seen} and no step that fits all; {HINT}"
        )
    starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
    sizes = np.diff(np.r_[starts, len(owners)])
    coarse = (sizes >= ENOUGH) & (np.minimum.reduceat(differences, starts) > step)
    if coarse.any():
        rows = np.repeat(coarse, sizes)
        own = np.gcd.reduceat(differences[rows], np.flatnonzero(np.r_[True, np.diff(owners[rows]) != 0]))
        odd = own[own % step == 0]
        odd = odd[odd > step]
        if len(odd):
            raise ValueError(
                f"frequency: series step differently: {len(odd)} of {len(sizes)} by {show(int(odd[0]))}, most rows by "
                f"{show(step)}; put them in datasets of their own, or {HINT}"
            )
    return step


def _show_months(step: int) -> str:
    return f"{step} month" + "s" * (step > 1)


def _show_days(step: int) -> str:
    return f"{step} day" + "s" * (step > 1)


def _show_clock(step: int) -> str:
    for name, unit in (("d", DAY), ("h", 3600 * SECOND), ("min", 60 * SECOND), ("s", SECOND)):
        if step % unit == 0:
            return f"{step // unit} {name}"
    return f"{step / SECOND:g} s"


_Show = type(_show_clock)
