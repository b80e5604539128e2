"""Scores of forecasts: small pure functions over numpy arrays. A truth that is NaN counts nowhere; a score over
nothing is NaN."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def normal_scores(levels: Sequence[float]) -> Array:
    """The standard normal quantile of each level, (level,)."""
    return np.array([NormalDist().inv_cdf(level) for level in levels])


def mean_over(values: Array, axis: int | tuple[int, ...] | None = None) -> Array:
    """The mean of what is not NaN along `axis`, NaN where nothing is there (numpy's nanmean without its warning)."""
    there = ~np.isnan(values)
    count = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def mae(truth: Array, point: Array, axis: int | None = None) -> Array:
    """Mean absolute error in the data's units. `truth` and `point` have one shape."""
    return mean_over(np.abs(truth - point), axis)


def rmse(truth: Array, point: Array, axis: int | None = None) -> Array:
    """Root of the mean squared error in the data's units."""
    return np.sqrt(mean_over((truth - point) ** 2, axis))


def smape(truth: Array, point: Array, axis: int | None = None) -> Array:
    """Symmetric mean absolute percentage error, 0 to 200, as the M4 competition defines it (0 / 0 counts as 0)."""
    size = np.abs(truth) + np.abs(point)
    share = np.divide(200.0 * np.abs(truth - point), size, out=np.zeros_like(size), where=size != 0)
    return mean_over(np.where(np.isnan(truth), np.nan, share), axis)


def naive_scale(history: Array, season: int) -> float:
    """MASE's denominator: the mean absolute difference of values `season` steps apart in `history` (time,) (Hyndman and
    Koehler 2006). Where no such pair is known, of neighbouring values; NaN when that fails too or the scale is 0."""
    for lag in dict.fromkeys((season, 1)):
        if len(history) > lag:
            scale = float(mean_over(np.abs(history[lag:] - history[:-lag])))
            if not np.isnan(scale):
                return scale if scale > 0 else np.nan
    return np.nan


def mase(truth: Array, point: Array, scale: Array | float, axis: int | None = None) -> Array:
    """Mean absolute error over `scale` (see `naive_scale`), which broadcasts against the errors' mean."""
    return mae(truth, point, axis) / scale


def pinball(truth: Array, quantiles: Array, levels: Sequence[float]) -> Array:
    """The quantile loss of each value, (…, level), for `truth` (…) and `quantiles` (…, level)."""
    error = truth[..., None] - quantiles
    level = np.asarray(levels)
    return np.maximum(level * error, (level - 1.0) * error)


def wql(truth: Array, quantiles: Array, levels: Sequence[float]) -> float:
    """Weighted quantile loss over everything given: twice the summed pinball loss over the summed size of the truth,
    averaged over levels (Gasthaus et al. 2019). NaN when every truth is 0 or missing."""
    size = float(np.nansum(np.abs(truth)))
    if size == 0:
        return np.nan
    return float(2.0 * np.nansum(pinball(truth, quantiles, levels)) / size / len(levels))


def coverage(truth: Array, low: Array, high: Array, axis: int | None = None) -> Array:
    """The share of the truth between `low` and `high`, both included."""
    inside = ((truth >= low) & (truth <= high)).astype(np.float64)
    return mean_over(np.where(np.isnan(truth), np.nan, inside), axis)


def interval_score(truth: Array, low: Array, high: Array, level: float) -> Array:
    """The score of each central interval meant to hold a share `level`: its width, plus 2 / (1 - level) times how far
    the truth lies outside (Gneiting and Raftery 2007). Lower is better; the data's units."""
    penalty = 2.0 / (1.0 - level)
    return (high - low) + penalty * (np.maximum(low - truth, 0.0) + np.maximum(truth - high, 0.0))


def defined(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores that are finite numbers."""
    return {name: value for name, value in scores.items() if np.isfinite(value)}
