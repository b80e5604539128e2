"""Quantile functions: what lies between, beyond and behind the trained levels. Numpy only.

The quantile function of a forecast step is taken as piecewise linear in the normal score of the level (the standard
normal quantile), with the trained quantiles as knots. Beyond the outermost levels it goes on with the slope of the
chord from the level nearest to the median to the outermost one: the tails are those of a normal distribution as wide
as the trained part. With one trained level it is constant. All of this is linear in the knots, so other levels and
the mean are fixed weights."""

from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from models.metrics import normal_scores

Array = NDArray[np.float64]

NORMAL = NormalDist()


@lru_cache(maxsize=256)
def _pieces(levels: tuple[float, ...]) -> tuple[Array, NDArray[np.int64]]:
    """The normal scores of the knots and, for each of the (levels + 1) intervals around them, its two knots."""
    anchor = min(range(len(levels)), key=lambda place: abs(levels[place] - 0.5))
    last = len(levels) - 1
    inner = [(place, place + 1) for place in range(last)]
    below = (0, anchor if anchor > 0 else min(1, last))
    above = (anchor if anchor < last else max(last - 1, 0), last)
    return normal_scores(levels), np.array([below, *inner, above], np.int64)


def evaluate(quantiles: Array, levels: tuple[float, ...], scores: Array) -> Array:
    """The quantile function at normal scores: `quantiles` (…, level), `scores` (…, draw) -> (…, draw)."""
    knots, pieces = _pieces(levels)
    place = pieces[np.searchsorted(knots, scores)]  # (…, draw, 2)
    left, right = knots[place[..., 0]], knots[place[..., 1]]
    gap = np.where(right > left, right - left, 1.0)
    share = np.where(right > left, (scores - left) / gap, 0.0)
    low = np.take_along_axis(quantiles, place[..., 0], axis=-1)
    high = np.take_along_axis(quantiles, place[..., 1], axis=-1)
    return low + share * (high - low)


@lru_cache(maxsize=256)
def level_weights(levels: tuple[float, ...], asked: tuple[float, ...]) -> Array:
    """Weights (asked, level) that turn trained quantiles into those asked for."""
    eye = np.eye(len(levels))
    return np.stack([evaluate(row, levels, normal_scores(asked)) for row in eye], axis=1)


@lru_cache(maxsize=256)
def mean_weights(levels: tuple[float, ...]) -> Array:
    """Weights (level,) that turn trained quantiles into the mean: the integral of the quantile function over all
    levels."""
    knots, pieces = _pieces(levels)
    edges = [-np.inf, *knots, np.inf]
    weights = np.zeros(len(levels))
    for (left, right), low, high in zip(pieces, edges[:-1], edges[1:], strict=True):
        mass = NORMAL.cdf(high) - NORMAL.cdf(low)
        moment = NORMAL.pdf(low) - NORMAL.pdf(high)  # the integral of the score itself over the interval
        if left == right:
            weights[left] += mass
            continue
        gap = knots[right] - knots[left]
        weights[left] += (knots[right] * mass - moment) / gap
        weights[right] += (moment - knots[left] * mass) / gap
    return weights


def scores_of(truth: Array, quantiles: Array, levels: Sequence[float]) -> Array:
    """Where the truth (…) fell in its forecast (…, level), as a normal score held within the trained levels'; NaN
    stays."""
    knots = normal_scores(levels)
    width = np.diff(quantiles, axis=-1)
    over = truth[..., None] - quantiles[..., :-1]
    share = np.where(width > 0, over / np.where(width > 0, width, 1.0), over > 0)
    return knots[0] + (np.clip(share, 0.0, 1.0) * np.diff(knots)).sum(-1)


def paths(random: np.random.Generator, shape: tuple[int, int], dependence: float) -> Array:
    """Normal scores of sample paths, (sample, horizon): a Gaussian copula whose neighbouring steps correlate by
    `dependence` (a stationary AR(1) process), so that each step alone keeps its own distribution."""
    noise = random.standard_normal(shape)
    fresh = np.sqrt(1.0 - dependence**2)
    for step in range(1, shape[1]):
        noise[:, step] = dependence * noise[:, step - 1] + fresh * noise[:, step]
    return noise
