"""Sums of errors by series and by step ahead, and the scores they come to. Numpy only."""

from collections.abc import Mapping
from copy import copy

import numpy as np
from numpy.typing import NDArray

from models import metrics

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

WIDE = (0.025, 0.975)  # of the 95 % interval
OWN = ("mase", "smape", "msis_80", "msis_95")  # whose overall figure is the mean over series


class Tally:
    """What one forecaster's errors add up to, so that memory does not grow with the number of windows.

    `levels` are the nine deciles, with those of the 95 % interval around them where it is to be scored."""

    def __init__(self, series: int, horizon: int, levels: tuple[float, ...]) -> None:
        self.levels = levels
        self.steps = range(1, horizon + 1)
        self.deciles = slice(levels.index(0.1), levels.index(0.9) + 1)
        self.ends = {80: (levels.index(0.1), levels.index(0.9))}
        if WIDE[0] in levels:
            self.ends[95] = (levels.index(WIDE[0]), levels.index(WIDE[1]))
        names = ["mae", "square", "smape", "pinball", "size", "mase"]
        names += [f"{name}_{share}" for share in self.ends for name in ("coverage", "interval", "msis")]
        self.by_series = {name: np.zeros((2, series)) for name in names}  # sum and count
        self.by_step = {name: np.zeros((2, horizon)) for name in names}

    def part(self, series: slice) -> "Tally":
        """The same sums for those series alone, counted from 0: what is added to it is added to both."""
        found = copy(self)
        found.by_series = {name: sums[:, series] for name, sums in self.by_series.items()}
        return found

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # squares of 1e200 are infinite and count nowhere
    def add(self, which: Ints, truth: Array, quantiles: Array, scales: Array) -> None:
        """Add windows of the series `which` (window,), ascending: `truth` (window, horizon), `quantiles` (level,
        window, horizon), MASE's `scales` (series,). `quantiles` are used up: to allocate as much again would cost more
        than the sums."""
        point = np.abs(quantiles[self.levels.index(0.5)])
        over = np.subtract(quantiles, truth, out=quantiles)
        error, size = np.abs(over[self.levels.index(0.5)]), np.abs(truth)
        unit = scales[which][:, None]
        self._put("mae", which, error)
        self._put("mase", which, error / unit)
        self._put("square", which, error**2)
        self._put("size", which, size)
        size = size + point
        share = np.where(np.isnan(size), np.nan, 0.0)
        self._put("smape", which, np.divide(200.0 * error, size, out=share, where=size > 0))
        for percent, (low, high) in self.ends.items():
            below, above = over[low], over[high]
            inside = (below <= 0) & (above >= 0)
            self._put(f"coverage_{percent}", which, np.where(np.isnan(error), np.nan, inside))
            interval = metrics.interval_score(np.zeros(()), below, above, percent / 100)
            self._put(f"interval_{percent}", which, interval)
            self._put(f"msis_{percent}", which, interval / unit)
        over = over[self.deciles]
        loss = -np.tensordot(metrics.DECILES, over, 1)  # the pinball loss of level q is max(over, 0) - q over
        loss += np.maximum(over, 0.0, out=over).sum(axis=0)
        self._put("pinball", which, loss * (2.0 / len(metrics.DECILES)))

    def _put(self, name: str, which: Ints, values: Array) -> None:
        """Add `values` (window, horizon), those that are finite."""
        rows, steps = values.sum(axis=1), values.sum(axis=0)
        wide, long = np.full(len(values), values.shape[1]), np.full(values.shape[1], len(values))
        if not np.isfinite(rows).all():
            there = np.isfinite(values)
            filled = np.where(there, values, 0.0)
            rows, steps, wide, long = filled.sum(axis=1), filled.sum(axis=0), there.sum(axis=1), there.sum(axis=0)
        first, count = which[0], which[-1] - which[0] + 1
        for row, part in ((0, rows), (1, wide)):
            self.by_series[name][row, first : first + count] += np.bincount(which - first, part, count)
        self.by_step[name] += steps, long

    @property
    def count(self) -> int:
        """How many values were scored."""
        return int(self.by_step["mae"][1].sum())

    def series_scores(self) -> dict[str, Array]:
        """The metrics of each series, (series,), NaN where undefined."""
        return _scores(self.by_series)

    def step_scores(self) -> dict[str, Array]:
        """The metrics of each step ahead over all windows, (horizon,)."""
        return _scores(self.by_step)

    def scores(self) -> dict[str, Array]:
        """The metrics over everything, (1,): mase, smape and msis are means of the series' own, the others over all
        values."""
        pooled = _scores({name: sums.sum(axis=1, keepdims=True) for name, sums in self.by_series.items()})
        own = self.series_scores()
        return pooled | {name: np.atleast_1d(metrics.mean_over(own[name])) for name in OWN if name in own}


def owa(scores: Mapping[str, Array], naive2: Mapping[str, Array] | None) -> dict[str, Array]:
    """The overall weighted average of the M4 competition, from averages as it takes them: sMAPE and MASE over those of
    Naive2 at the same origins, in the mean. NaN where these are 0, none without Naive2."""
    if naive2 is None:
        return {}
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"owa": (scores["smape"] / naive2["smape"] + scores["mase"] / naive2["mase"]) / 2.0}


def _scores(sums: Mapping[str, Array]) -> dict[str, Array]:
    means = {name: np.where(count > 0, total / np.maximum(count, 1), np.nan) for name, (total, count) in sums.items()}
    size, pinball = sums["size"][0], sums["pinball"][0]
    rmse = np.sqrt(means.pop("square"))
    wql = np.where(size > 0, pinball / np.where(size > 0, size, 1.0), np.nan)
    del means["size"], means["pinball"]
    return {**means, "rmse": rmse, "wql": wql}
