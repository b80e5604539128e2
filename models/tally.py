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

    `levels` are the nine deciles, with those of the 95 % interval around them where it is to be scored. Each figure of
    every value is one row of one array, so that they are summed together: a call costs more than a row's numbers do."""

    def __init__(self, series: int, horizon: int, levels: tuple[float, ...]) -> None:
        self.levels = levels
        self.steps = range(1, horizon + 1)
        self.middle = levels.index(0.5)
        self.deciles = slice(levels.index(0.1), levels.index(0.9) + 1)
        self.ends = {80: (levels.index(0.1), levels.index(0.9))}
        if WIDE[0] in levels:
            self.ends[95] = (levels.index(WIDE[0]), levels.index(WIDE[1]))
        self.names = ["mae", "mase", "square", "size", "smape", "pinball"]
        self.names += [f"{name}_{share}" for share in self.ends for name in ("coverage", "interval", "msis")]
        self.series_sums = np.zeros((len(self.names), 2, series))  # sum and count
        self.step_sums = np.zeros((len(self.names), 2, horizon))
        self.space = np.empty((len(self.names), 0, horizon))

    @property
    def by_series(self) -> dict[str, Array]:
        """Sum and count of each figure by series, (2, series)."""
        return dict(zip(self.names, self.series_sums, strict=True))

    @property
    def by_step(self) -> dict[str, Array]:
        """The same by steps ahead, (2, horizon)."""
        return dict(zip(self.names, self.step_sums, strict=True))

    def part(self, series: slice) -> "Tally":
        """The same sums for those series alone, counted from 0: what is added to it is added to both."""
        found = copy(self)
        found.series_sums = self.series_sums[..., series]
        return found

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # squares of 1e200 are infinite and count nowhere
    def add(self, which: Ints, truth: Array, quantiles: Array, scales: Array) -> None:
        """Add windows of the series `which` (window,), ascending: `truth` (window, horizon), `quantiles` (level,
        window, horizon), MASE's `scales` (series,). `quantiles` are used up: to allocate as much again would cost more
        than the sums."""
        if self.space.shape[1:] != truth.shape:
            self.space = np.empty((len(self.names), *truth.shape))
        found: dict[str, Array] = {name: self.space[place] for place, name in enumerate(self.names)}
        unit = scales[which][:, None]
        size = np.abs(quantiles[self.middle])
        over = np.subtract(quantiles, truth, out=quantiles)
        error = np.abs(over[self.middle], out=found["mae"])
        np.divide(error, unit, out=found["mase"])
        np.square(error, out=found["square"])
        size += np.abs(truth, out=found["size"])
        found["smape"][...] = np.where(np.isnan(size), np.nan, 0.0)
        np.divide(200.0 * error, size, out=found["smape"], where=size > 0)
        for percent, (low, high) in self.ends.items():
            below, above = over[low], over[high]
            inside = (below <= 0) & (above >= 0)
            found[f"coverage_{percent}"][...] = np.where(np.isnan(error), np.nan, inside)
            interval = found[f"interval_{percent}"]
            interval[...] = metrics.interval_score(np.zeros(()), below, above, percent / 100)
            np.divide(interval, unit, out=found[f"msis_{percent}"])
        over = over[self.deciles]
        np.negative(
            np.tensordot(metrics.DECILES, over, 1), out=found["pinball"]
        )  # a level's loss: max(over, 0) - q over
        found["pinball"] += np.maximum(over, 0.0, out=over).sum(axis=0)
        found["pinball"] *= 2.0 / len(metrics.DECILES)
        self._sum(which, self.space)

    def _sum(self, which: Ints, values: Array) -> None:
        """Add `values` (figure, window, horizon), those that are finite."""
        rows, steps = values.sum(axis=2), values.sum(axis=1)  # (figure, window), (figure, horizon)
        wide, long = np.full(rows.shape, float(values.shape[2])), np.full(steps.shape, float(values.shape[1]))
        if not np.isfinite(rows).all():
            there = np.isfinite(values)
            values[~there] = 0.0
            rows, steps, wide, long = values.sum(axis=2), values.sum(axis=1), there.sum(axis=2), there.sum(axis=1)
        first = np.flatnonzero(np.diff(which, prepend=-1))  # of each series' windows
        self.series_sums[:, 0, which[first]] += np.add.reduceat(rows, first, axis=1)
        self.series_sums[:, 1, which[first]] += np.add.reduceat(wide, first, axis=1)
        self.step_sums[:, 0] += steps
        self.step_sums[:, 1] += long

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
