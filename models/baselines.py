"""Naive forecasts, the yardstick of every score: of all windows at once, missing values skipped. Numpy only.

What a forecast needs of the past is a sum over all steps before its origin, or a value found once for each step of a
series; so many origins of one series cost hardly more than one, and none of it is a loop over windows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.metrics import normal_scores
from models.series import Series
from models.windows import Panel

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
# Points (window, horizon) of some of the windows, and the deviation of their errors, alike.
Answer = Callable[[slice, int], tuple[Array, Array]]

NAMES = ("naive", "seasonal_naive", "naive2")
CRITICAL = 1.645  # of the normal distribution, 90 % two-sided: what the M4 competition tests a season with


@dataclass(frozen=True)
class Past:
    """What was known at the ends of windows. `which` and `ends` (window,) are those of `windows`, series by series and
    ascending within each; the panel's pad is at least the longest period asked about."""

    panel: Panel
    which: Ints
    ends: Ints
    kept: dict[tuple[Any, ...], Any] = field(default_factory=dict[tuple[Any, ...], Any])  # what several baselines need

    @cached_property
    def firsts(self) -> Ints:
        """The cell of the first step of each window's series, (window,)."""
        return self.panel.firsts[self.which]

    @cached_property
    def place(self) -> tuple[Ints, Ints]:
        """Each window's series and origin, counted from 0 over those there are: (window,) each."""
        fresh = np.concatenate([[True], self.which[1:] != self.which[:-1]])
        row = np.cumsum(fresh) - 1
        return row, np.arange(len(row)) - np.flatnonzero(fresh)[row]

    @cached_property
    def bounds(self) -> Ints:
        """Where the steps begin and stop that a window has and the one before it in its series has not, (2 window,)."""
        before = np.concatenate([[0], self.ends[:-1]])
        before[self.place[1] == 0] = 0
        return (self.firsts[:, None] + np.stack([before, self.ends], axis=1)).ravel()

    def running(self, parts: Array) -> Array:
        """The sum of `parts` (window, …) over the windows of the same series up to each. Series are never added up, so
        that a large one costs a small one no digits."""
        row, column = self.place
        table = np.zeros((row[-1] + 1, column.max() + 1, *parts.shape[1:]))
        table[row, column] = parts
        return table.cumsum(axis=1)[row, column]

    def sums(self, cells: Array | Bools) -> Array:
        """The sum of `cells` (cell,) over the steps before each window's end, (window,)."""
        return self.running(np.add.reduceat(cells, self.bounds, dtype=np.float64)[::2])

    def newest(self, period: int) -> Ints:
        """The newest known cell among each and those 1, 2, … periods before it, (cell,), -1 where none is known. It may
        lie in a series before."""
        if ("newest", period) not in self.kept:
            count = len(self.panel.present)
            cells = np.full(-(-count // period) * period, -1)
            cells[:count] = np.where(self.panel.present, np.arange(count), -1)
            cells = cells.reshape(-1, period)
            self.kept["newest", period] = np.maximum.accumulate(cells, axis=0, out=cells).ravel()[:count]
        return self.kept["newest", period]

    def mean_gap(self, period: int, power: int) -> Array:
        """The mean of |difference|^power of values `period` steps apart before each end, (window,), NaN where no pair
        is known."""
        if ("gap", period, power) in self.kept:
            return self.kept["gap", period, power]
        values, present = self.panel.values, self.panel.present
        both = np.zeros(len(present), np.bool_)
        both[period:] = present[period:] & present[:-period]  # the pad keeps a pair within its series
        gaps = np.zeros(len(present))
        gaps[period:] = np.where(both[period:], np.abs(values[period:] - values[:-period]) ** power, 0.0)
        count = self.sums(both)
        found = np.where(count > 0, self.sums(gaps) / np.maximum(count, 1), np.nan)
        return self.kept.setdefault(("gap", period, power), found)


def answer_of(name: str, past: Past, season: int) -> Answer:
    """The baseline `name` over the windows of `past`. Raises ValueError on a name that is none."""
    match name:
        case "naive":
            return _seasonal(past, 1)
        case "seasonal_naive":
            return _seasonal(past, season)
        case "naive2":
            return _naive2(past, season)
        case _:
            raise ValueError(f"baselines: expected one of {', '.join(NAMES)}, got {name!r}")


def scales(panel: Panel, which: Ints, ends: Ints, season: int) -> Array:
    """MASE's scale of each series over its steps before its first window, (series,), as `metrics.naive_scale`; NaN
    where it has none."""
    own, first = np.unique(which, return_index=True)
    past = Past(panel, own, ends[first])
    found = past.mean_gap(season, 1)
    found = np.where(np.isnan(found), past.mean_gap(1, 1), found)
    every = np.full(len(panel.lengths), np.nan)
    every[own] = np.where(found > 0, found, np.nan)
    return every


def _seasonal(past: Past, period: int) -> Answer:
    """The newest known value `period`, 2 `period`, … steps before each step ahead; a place of the season that was never
    seen gets the newest known value. `period` 1 is the naive forecast.

    Its error's deviation is that of the differences `period` steps apart before the origin, growing with the root of
    the number of seasons ahead (Hyndman and Athanasopoulos, fpp3, 5.5)."""
    values, newest = past.panel.values, past.newest(period)
    last = newest if period == 1 else past.newest(1)
    size = np.nan_to_num(np.sqrt(past.mean_gap(period, 2)), posinf=np.inf)

    def answer(part: slice, horizon: int) -> tuple[Array, Array]:
        first, end = past.firsts[part, None], (past.firsts + past.ends)[part, None]
        found = newest[end - period + np.arange(min(period, horizon))]
        plain = last[end - 1]
        found = np.where(found >= first, found, plain)
        points = np.where(plain >= first, values[found], np.nan)[:, np.arange(horizon) % period]
        return points, size[part, None] * np.sqrt(np.arange(horizon) // period + 1.0)

    return answer


# ---------------------------------------------------------------- the M4 competition's Naive2


def _naive2(past: Past, season: int) -> Answer:
    """The last value without its multiplicative season, and the season back on, where the M4 competition's test finds
    one; else the naive forecast (Makridakis, Spiliotis and Assimakopoulos 2020, appendix). Gaps are filled with the
    value before. The deviation is that of the seasonal naive forecast where there is a season, else of the naive."""
    plain, seasonal = _seasonal(past, 1), _seasonal(past, season)
    filled = past.panel.values[np.maximum(past.newest(1), 0)]  # the first cell is of the pad, and 0
    found = is_seasonal(past, filled, season)
    if not found.any():
        return plain
    index = np.ones((len(found), season))
    index[found] = seasonal_index(past, filled, season)[found]

    def answer(part: slice, horizon: int) -> tuple[Array, Array]:
        points, deviation = plain(part, horizon)
        at = past.ends[part, None] + np.arange(-1, horizon)
        own = np.take_along_axis(index[part], at % season, axis=1)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            shaped = filled[past.firsts[part] + past.ends[part] - 1][:, None] / own[:, :1] * own[:, 1:]
        take: Bools = found[part] & np.all(np.isfinite(shaped), axis=1)
        wide = seasonal(part, horizon)[1]
        return np.where(take[:, None], shaped, points), np.where(take[:, None], wide, deviation)

    return answer


def is_seasonal(past: Past, filled: Array, season: int) -> Bools:
    """Whether the autocorrelation of each window's steps at the season's lag is significant at 90 %, given those at the
    lags before (window,). Never with less than three seasons."""
    count = past.ends
    tested = count >= 3 * season
    if season <= 1 or not tested.any():
        return np.zeros(len(count), np.bool_)
    values = _standard(past.panel, filled)
    cells = past.firsts + count
    total = past.sums(values)
    mean = total / count
    heads = values[past.firsts[:, None] + np.arange(season)].cumsum(axis=1)  # of the first 1, 2, … steps
    tails = values[cells[:, None] - 1 - np.arange(season)].cumsum(axis=1)
    power = past.sums(values**2) - count * mean**2
    above = power > 1e-12 * count  # a constant has none but for rounding
    squares = own = np.zeros(len(count))
    products = np.zeros(len(values))
    for lag in range(1, season + 1):
        np.multiply(values[lag:], values[:-lag], out=products[lag:])  # the pad is 0: nothing crosses between series
        reach = 2.0 * total - heads[:, lag - 1] - tails[:, lag - 1]
        squares = squares + own**2
        own = (past.sums(products) - mean * reach + (count - lag) * mean**2) / np.where(above, power, 1.0)
    limit = CRITICAL * np.sqrt((1.0 + 2.0 * squares) / count)
    return tested & above & (np.abs(own) > limit)


def seasonal_index(past: Past, filled: Array, season: int) -> Array:
    """The multiplicative index of each place of the season over each window's steps, counted from the series' first,
    with mean 1: (window, season). Classical decomposition: the mean ratio to a centred moving average (as R's
    `decompose`). Not finite where it cannot be had."""
    half = season // 2
    kernel = np.ones(season) / season if season % 2 else np.r_[0.5, np.ones(season - 1), 0.5] / season
    if len(filled) < len(kernel):
        return np.full((len(past.ends), season), np.nan)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = filled / np.convolve(filled, kernel, "same")
    # A ratio counts from the window on whose last step its average ends; each cell's first such window:
    widths = np.diff(past.bounds)
    window = np.repeat(np.arange(len(widths)), widths)  # of the cells from bounds[0] on; odd ones lie between
    inside, window = window % 2 == 0, window // 2
    cell: Ints = int(past.bounds[0]) + np.arange(len(window))
    step = cell - past.firsts[window] - half  # of the ratio within its series
    there = inside & (step >= half)
    window, cell, step = window[there], cell[there] - half, step[there]
    known = ~np.isnan(ratio[cell])
    window, cell, place = window[known], cell[known], step[known] % season
    shape = (len(past.ends), season)
    key, size = window * season + place, shape[0] * shape[1]
    sums = past.running(_binned(key, ratio[cell], size).reshape(shape))
    counts = past.running(_binned(key, np.ones(len(key)), size).reshape(shape))
    with np.errstate(divide="ignore", invalid="ignore"):
        index = sums / counts
        return index / index.mean(axis=1, keepdims=True)


def _binned(key: Ints, values: Array, size: int) -> Array:
    return np.bincount(key, values, size).astype(np.float64)


def _standard(panel: Panel, filled: Array) -> Array:
    """Every series with mean 0 and deviation 1 (0 where constant), 0 outside the series: (cell,)."""
    edges = np.stack([panel.firsts, panel.firsts + panel.lengths], axis=1).ravel()
    widths = np.diff(edges, prepend=0, append=len(filled))  # pad, series, pad, …
    count = np.maximum(panel.lengths, 1)

    def spread(values: Array) -> Array:
        every = np.zeros(len(widths))
        every[1::2] = values
        return np.repeat(every, widths)

    values = filled - spread(np.add.reduceat(filled, edges)[::2] / count)
    deviation = np.sqrt(np.add.reduceat(values**2, edges)[::2] / count)
    usable = (deviation > 0) & np.isfinite(deviation)
    values *= spread(np.where(usable, 1.0 / np.where(usable, deviation, 1.0), 0.0))
    return np.nan_to_num(values, copy=False)


# ---------------------------------------------------------------- of one window a series


def seasonal_naive(history: Array, period: int, horizon: int) -> Array:
    """The seasonal naive forecast after each history: (series, horizon). `history` (series, time) ends at the origin,
    NaN = missing; without any known value it is NaN."""
    return _of(history, period, "seasonal_naive")(slice(None), horizon)[0]


def baseline_quantiles(
    history: Array, period: int, horizon: int, levels: Sequence[float], name: str = "seasonal_naive"
) -> Array:
    """Normal intervals around a baseline's points: (series, horizon, level)."""
    points, deviation = _of(history, period, name)(slice(None), horizon)
    return points[..., None] + deviation[..., None] * normal_scores(levels)


def _of(history: Array, period: int, name: str) -> Answer:
    panel = Panel.of([Series("", row) for row in history.astype(np.float64)], max(period, 1))
    return answer_of(name, Past(panel, np.arange(len(history)), panel.lengths), period)
