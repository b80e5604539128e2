"""Naive forecasts, the yardstick of every score: vectorised over series, missing values skipped. Numpy only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.metrics import mean_over, normal_scores

Array = NDArray[np.float64]

NAMES = ("naive", "seasonal_naive")


def period_of(name: str, season: int) -> int:
    """How many steps back the baseline looks. Raises ValueError on a name that is no baseline."""
    if name not in NAMES:
        raise ValueError(f"baselines: expected one of {', '.join(NAMES)}, got {name!r}")
    return season if name == "seasonal_naive" else 1


def seasonal_naive(history: Array, period: int, horizon: int) -> Array:
    """The newest known value `period`, 2 `period`, … steps before each of the `horizon` steps: (series, horizon).

    `history` (series, time) ends at the origin, NaN = missing. A place of the season that was never seen gets the
    newest known value; a history without any is NaN. `period` 1 is the naive forecast."""
    newest = _newest(history[:, :, None])
    cycles = -(-history.shape[1] // period)
    padded = np.full((len(history), cycles * period), np.nan)
    padded[:, padded.shape[1] - history.shape[1] :] = history
    values = _newest(padded.reshape(len(history), cycles, period))  # (series, period)
    values = np.where(np.isnan(values), newest, values)
    return values[:, np.arange(horizon) % period]


def _newest(cycles: Array) -> Array:
    """The last value along axis 1 that is not NaN: (series, cycle, place) -> (series, place)."""
    known = ~np.isnan(cycles)
    if cycles.shape[1] == 0:
        return np.full((cycles.shape[0], cycles.shape[2]), np.nan)
    last = cycles.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    return np.take_along_axis(cycles, last[:, None], axis=1)[:, 0]


def spread(history: Array, period: int, horizon: int) -> Array:
    """The standard deviation of the seasonal-naive forecast's error, (series, horizon): that of the differences
    `period` steps apart, growing with the root of the number of seasons ahead (Hyndman and Athanasopoulos, fpp3,
    5.5)."""
    ahead = np.sqrt(np.arange(horizon) // period + 1.0)
    if history.shape[1] <= period:
        return np.zeros((len(history), horizon))
    size = np.sqrt(mean_over((history[:, period:] - history[:, :-period]) ** 2, axis=1))
    return np.nan_to_num(size)[:, None] * ahead


def baseline_quantiles(history: Array, period: int, horizon: int, levels: Sequence[float]) -> Array:
    """Normal intervals around `seasonal_naive`: (series, horizon, level)."""
    point = seasonal_naive(history, period, horizon)
    return point[..., None] + spread(history, period, horizon)[..., None] * normal_scores(levels)
