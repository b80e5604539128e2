"""What the rows of many series have in common: the step between them, the phase most of them share, the day of the
month they mean. No loop over rows or series."""

from collections.abc import Callable

import numpy as np

from models.zones import DAY, HOUR, SECOND, Bool, Int, Zone

WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")

MOST = 0.9  # share of the rows that a frequency must explain; the others are refused later, row by row
SEEN = 0.1  # share of the differences that must be one single step
FREQUENT = 0.02  # share of the differences from which on a difference is no accident
ENOUGH = 8  # differences a series must have before it is said to step otherwise than the rest
HINT = "pass frequency= to say it"
_APART = f"put them in datasets of their own, or {HINT}"


class StepsDiffer(ValueError):
    """The series have no step in common; `series` is the first that steps otherwise than most rows."""

    def __init__(self, message: str, series: int) -> None:
        super().__init__(message)
        self.series = series


def majority(codes: Int, values: Int, count: int) -> Int:
    """The most frequent value of each of `count` series, (count,): the smallest of equals; 0 if there are no rows."""
    common = np.zeros(count, np.int64)
    common[codes] = values
    if len(values) and (values == values[0]).all():
        return common
    rows = unequal(codes, values, common)[codes]
    if not rows.any():
        return common
    codes, values = codes[rows], values[rows]
    order = np.lexsort((values, codes))
    codes, values = codes[order], values[order]
    starts = np.flatnonzero(np.r_[True, (codes[1:] != codes[:-1]) | (values[1:] != values[:-1])])
    often = np.diff(np.r_[starts, len(codes)])
    best = starts[np.lexsort((-values[starts], often, codes[starts]))]  # each series' best run is written last
    common[codes[best]] = values[best]
    return common


def unequal(codes: Int, values: Int, common: Int) -> Bool:
    """Which series, (count,), have a row whose value is not the series' own of `common` (count,)."""
    mixed = np.zeros(len(common), np.bool_)
    mixed[codes[values != common[codes]]] = True
    return mixed


def month_start(months: Int) -> Int:
    """Days from 1970-01-01 to the first day of each month, months counted from 1970-01."""
    return months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def month_fields(days: Int) -> tuple[Int, Int, Int]:
    """Month since 1970-01, day of the month from 1 and length of the month, of days since 1970-01-01."""
    month = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    first = month_start(month)
    return month, days - first + 1, month_start(month + 1) - first


def month_day(codes: Int, days: Int, lengths: Int, count: int) -> Int:
    """The day of the month each series means, (count,): the one that, cut to the month's length, explains most rows.

    31 where that could be the month's end; but a series that has only ever shown one day means that day.
    """
    common = majority(codes, days, count)
    mixed = unequal(codes, days, common)
    rows = mixed[codes]
    if not rows.any():
        return common
    codes, days, lengths = codes[rows], days[rows], lengths[rows]
    # A day below 28 is never cut, so it can win only as the most frequent one; of equals the first here wins.
    choices = np.stack([np.full(count, 31), common, np.full(count, 30), np.full(count, 29), np.full(count, 28)])
    scores = [np.bincount(codes, np.minimum(day[codes], lengths) == days, minlength=count) for day in choices]
    return np.where(mixed, choices[np.argmax(scores, axis=0), np.arange(count)], common)


def business_days(days: Int) -> tuple[Int, Int]:
    """Business days from 1970-01-01 to each day or the Friday before; and 0, or 1 on Saturdays and 2 on Sundays."""
    weeks, weekday = np.divmod(days + 3, 7)  # 1970-01-01 was a Thursday
    return weeks * 5 + np.minimum(weekday, 4) - 3, np.maximum(weekday - 4, 0)


def tell(times: Int, codes: Int, place: Zone) -> str:
    """The name of the frequency of rows at UTC µs `times` (n,) of series `codes` (n,). Raises ValueError saying why,
    StepsDiffer where it is a series (by its code) that steps otherwise."""
    times, codes = _ordered(np.asarray(times, np.int64), np.asarray(codes, np.int64))
    same = codes[1:] == codes[:-1]
    rows = np.r_[same, False] | np.r_[False, same]  # a series of one row says nothing
    if not rows.any():
        raise ValueError(f"frequency: expected a series with two different times at least to tell it from; {HINT}")
    owners, places = np.unique(codes[rows], return_inverse=True)
    try:
        return _tell(times[rows], places.astype(np.int64), place)
    except StepsDiffer as error:
        error.series = int(owners[error.series])
        raise


def _tell(times: Int, codes: Int, place: Zone) -> str:
    """As `tell`, for ordered rows of series numbered from 0, each of two rows at least."""
    days, clock = np.divmod(place.to_local(times), DAY)
    usual = majority(codes, clock, int(codes[-1]) + 1)[codes]
    kept = clock == usual
    # A day whose usual time the clock skips shows the time after the gap.
    kept[~kept] = place.to_utc(days[~kept] * DAY + usual[~kept])[0] == times[~kept]
    if _fits(codes, days, kept, f"a day or more, most rows by less, in {place.name}"):
        return _tell_days(codes, days)
    return _tell_clock(times, codes, place)


def _ordered(times: Int, codes: Int) -> tuple[Int, Int]:
    """The rows by series and time, each (series, time) once."""
    if ((codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (times[1:] > times[:-1]))).all():
        return times, codes
    order = np.lexsort((times, codes))
    times, codes = times[order], codes[order]
    new = np.r_[True, (codes[1:] != codes[:-1]) | (times[1:] != times[:-1])]
    return times[new], codes[new]


def _fits(codes: Int, units: Int, kept: Bool, otherwise: str) -> bool:
    """Whether nearly all rows are `kept` and come once a unit at most (a day, a month): then the step is units.

    Raises StepsDiffer where that holds for some whole series and not for the rest.
    """
    later = (np.diff(units) > 0) | (codes[1:] != codes[:-1])
    good = kept & np.r_[True, later]
    if np.mean(good) >= MOST:
        return True
    sizes = np.bincount(codes)
    whole = (np.bincount(codes, good) == sizes) & (sizes > ENOUGH)
    if whole.any():
        message = f"frequency: series step differently: {whole.sum()} of {len(sizes)} by {otherwise}; {_APART}"
        raise StepsDiffer(message, int(whole.argmax()))
    return False


def _tell_days(codes: Int, days: Int) -> str:
    month, day, length = month_fields(days)
    meant = month_day(codes, day, length, int(codes[-1]) + 1)[codes]
    if _fits(codes, month, np.minimum(meant, length) == day, "a month or more, most rows by less"):
        step = _step(codes, month, lambda months: f"{months} month{'s' * (months > 1)}")
        side = "E" if np.mean(day == length) >= MOST else "S"
        anchor = MONTHS[int(np.bincount(month % 12).argmax())]
        if step % 12 == 0:
            return f"{step // 12}Y{side}-{anchor}"
        return f"{step // 3}Q{side}-{anchor}" if step % 3 == 0 else f"{step}M{side}"
    business, weekend = business_days(days)
    if not weekend.any() and _skips_weekends(codes, days, business):
        _step(codes, business, lambda steps: f"{steps} business day{'s' * (steps > 1)}")
        return "B"
    step = _step(codes, days, lambda steps: f"{steps} day{'s' * (steps > 1)}")
    weekday = WEEKDAYS[int(np.bincount((days + 3) % 7).argmax())]
    return f"{step}D" if step % 7 else f"{step // 7}W-{weekday}"


def _skips_weekends(codes: Int, days: Int, business: Int) -> bool:
    """Whether rows without a single weekend are better told as business days: a Monday after a Friday is one step."""
    same = codes[1:] == codes[:-1]
    plain, working = np.diff(days)[same], np.diff(business)[same]
    if not (plain > working).any():
        return False
    ones = int(np.count_nonzero(working == 1))
    single = int(np.count_nonzero(plain == _common(plain)))
    return ones == len(working) or ones > max(single, SEEN * len(plain))


def _tell_clock(times: Int, codes: Int, place: Zone) -> str:
    differences = np.diff(times)[codes[1:] == codes[:-1]]
    near = (differences + 2 * HOUR) % DAY <= 4 * HOUR  # a whole number of days, give or take a clock's change
    if np.mean(near & (differences >= 20 * HOUR)) >= MOST:
        raise ValueError(
            f"frequency: times are about whole days apart but at changing times of day in {place.name}; "
            "give time_zone= the zone whose days these are"
        )
    step = _step(codes, times, _show_clock)
    if step % SECOND:
        raise ValueError(f"frequency: expected steps of whole seconds, got {_show_clock(step)}; {HINT}")
    phases = times % step
    if np.mean(phases == majority(codes, phases, int(codes[-1]) + 1)[codes]) < MOST:
        raise ValueError(
            f"frequency: times are mostly {_show_clock(step)} apart but shift now and then, perhaps with the clock of "
            f"{place.name}; steps shorter than a day advance in UTC; pass a shorter frequency= that meets all times"
        )
    return f"{step // SECOND}s"


def _common(differences: Int) -> int:
    """The greatest common divisor of the frequent differences, 0 if none is frequent."""
    values, counts = np.unique(differences[differences > 0], return_counts=True)
    return int(np.gcd.reduce(values[counts >= FREQUENT * counts.sum()]))


def _step(codes: Int, units: Int, show: Callable[[int], str]) -> int:
    """The step between neighbouring rows, in units. Raises ValueError where there is none, or no common one."""
    same = codes[1:] == codes[:-1]
    owners, differences = codes[1:][same], np.diff(units)[same]
    step = _fitting(differences, show)
    starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
    sizes = np.diff(np.r_[starts, len(owners)])
    rare = (sizes >= ENOUGH) & (np.minimum.reduceat(differences, starts) > step)
    rows = np.repeat(rare, sizes)
    if rare.any():
        own = np.gcd.reduceat(differences[rows], np.flatnonzero(np.r_[True, np.diff(owners[rows]) != 0]))
        coarse, first = own[own > step], owners[starts][rare][own > step]
        if len(coarse):
            raise StepsDiffer(
                f"frequency: series step differently: {len(coarse)} of {len(sizes)} by {show(int(coarse[0]))}, "
                f"most rows by {show(step)}; {_APART}",
                int(first[0]),
            )
    return step


def _fitting(differences: Int, show: Callable[[int], str]) -> int:
    """The common divisor of the differences, or the most frequent of them, if that fits; otherwise ValueError."""
    values, counts = np.unique(differences[differences > 0], return_counts=True)
    often = np.argsort(-counts, kind="stable")
    for step in (_common(differences), int(values[often[0]])):
        if step and np.mean(differences % step == 0) >= MOST and np.mean(differences == step) >= SEEN:
            return step
    shown = ", ".join(f"{show(int(values[i]))} ({counts[i] / counts.sum():.0%})" for i in often[:3])
    more = f" and {len(values) - 3} more" if len(values) > 3 else ""
    raise ValueError(
        f"frequency: expected evenly spaced times, got steps of {shown}{more}; no step fits them all; {HINT}"
    )


def _show_clock(step: int) -> str:
    for name, unit in (("d", DAY), ("h", HOUR), ("min", 60 * SECOND)):
        if step % unit == 0:
            return f"{step // unit} {name}"
    return f"{step / SECOND:g} s"
