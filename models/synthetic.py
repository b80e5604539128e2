"""Series of no one's, to train the base on: many kinds of process, with the scales, roundings, gaps and accidents that
series of the world have. The same generator state gives the same series.

What is drawn follows what is published about such priors (ForecastPFN, Dooley et al. 2023; KernelSynth and TSMixup,
Ansari et al. 2024; TempoPFN, Moroshan et al. 2025), with ranges of our own. No real series goes in.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.marring import marred
from models.patterns import (
    MONTH,
    YEAR,
    Array,
    Kind,
    Shape,
    between,
    chosen,
    even,
    noises,
    seasons,
    some,
    trends,
    wandering,
    years,
)
from models.processes import arima, kernels, regimes, smoothed

TOGETHER = 192  # series at most that are drawn at once, of about one length
YOUNG = 0.15  # share of series that began lately, where no length is given

KINDS: dict[Kind, float] = {
    (1, 0): 0.12,
    (4, 0): 0.16,
    (12, 0): 0.20,
    (52, 0): 0.08,
    (7, 0): 0.14,
    (5, 0): 0.03,
    (24, 168): 0.15,
    (48, 336): 0.06,
    (96, 672): 0.02,
    (60, 0): 0.015,
    (60, 1440): 0.005,
    (6, 0): 0.004,
    (8, 0): 0.003,
    (10, 0): 0.003,
    (13, 0): 0.004,
    (26, 0): 0.003,
    (30, 0): 0.003,
}
"""How often each (season, longer) is drawn; sums to 1."""

_LENGTHS: dict[int, tuple[int, int]] = {
    1: (10, 150),
    4: (14, 150),
    5: (60, 1300),
    7: (60, 2000),
    12: (20, 500),
    24: (100, 1500),
    48: (200, 2500),
    52: (60, 900),
    60: (200, 2500),
    96: (300, 2500),
}


@dataclass(frozen=True)
class Made:
    """One series: values, NaN where missing, and what is told of it."""

    values: NDArray[np.float32]
    season: int
    longer: int


def ahead(season: int) -> int:
    """Steps to foretell after any origin: two seasons, at least 24 and at most 96; each series has room for them."""
    return int(np.clip(2 * season, 24, 96))


def draw(random: np.random.Generator, count: int, shares: dict[Kind, float] = KINDS) -> list[Made]:
    """`count` series in random order, each kind as often as `shares` says; ValueError for a count below 0, for no
    shares, or for a kind that `make` refuses."""
    if count < 0:
        raise ValueError(f"count: expected 0 or more, got {count}")
    weights = np.array(list(shares.values()), np.float64)
    if not len(weights) or not (weights >= 0).all() or not weights.sum() > 0:
        raise ValueError(f"shares: expected at least one above 0 and none below, got {list(shares.values())}")
    counts = random.multinomial(count, weights / weights.sum())
    found = [one for kind, many in zip(shares, counts, strict=True) for one in make(random, kind, int(many))]
    return [found[place] for place in random.permutation(len(found))]


def make(random: np.random.Generator, kind: Kind, count: int, length: tuple[int, int] | None = None) -> list[Made]:
    """`count` series of the kind (season, longer), in random order.

    `length` is the least and the most steps of a past; each series is longer than that by `ahead(season)`. Without it,
    lengths are what series of such a season have; a share of YOUNG has seen three seasons at most. ValueError for a
    season below 1, a longer one that is no multiple of it, a count below 0, or a length that is no (low, high) from 2
    up.
    """
    season, longer = kind
    if count < 0:
        raise ValueError(f"count: expected 0 or more, got {count}")
    if season < 1 or (longer and (season == 1 or longer <= season or longer % season)):
        raise ValueError(f"kind: expected (season from 1, 0 or a multiple of the season), got {kind}")
    low, high = length or _LENGTHS.get(season, (3 * season, 40 * season))
    if not 2 <= low <= high:
        raise ValueError(f"length: expected (low, high) with 2 <= low <= high, got {length}")
    lengths = np.exp(random.uniform(np.log(low), np.log(high + 1), count))
    if length is None:
        most = max(16, min(3 * season, 100))
        young = np.exp(random.uniform(np.log(4), np.log(most + 1), count))
        lengths = np.where(random.random(count) < YOUNG, young, lengths)
    lengths = np.sort(lengths.astype(np.intp)) + ahead(season)
    found: list[Made] = []
    for first in range(0, count, TOGETHER):
        held = lengths[first : first + TOGETHER]
        values = marred(random, _paths(random, (len(held), int(held[-1])), kind), season, held)
        shown = longer if longer and random.random() < 0.9 else 0  # now and then the longer one is not told of
        found += [Made(row[-many:].astype(np.float32), season, shown) for row, many in zip(values, held, strict=True)]
    return [found[place] for place in random.permutation(count)]


# ---------------------------------------------------------------- families


def _structural(random: np.random.Generator, shape: Shape, kind: Kind) -> Array:
    """Trend, season and noise, each with a weight of its own; the noise may take over. Years and quarters have seen
    most of their noise added up away: trends are what they show."""
    (rows, _), (season, longer) = shape, kind
    often = season >= 20 and season != 52
    least, most = (0.1, 2.0) if often else (0.5, 8.0) if season <= 4 else (0.3, 6.0)
    trend = trends(random, shape) * between(random, least, most, rows)
    noise = noises(random, shape, season) * between(random, 0.01 if often else 0.02, 0.8 if season <= 4 else 1.0, rows)
    moving = np.zeros(shape)
    if season > 1:
        there = some(random, 0.95 if often else 0.9 if season in (5, 7) else 0.84, rows)
        moving = seasons(random, shape, kind) * between(random, 0.2 if often else 0.12, 3.0, rows) * there
        if longer and random.random() < 0.3:  # the day alone repeats in a part of them
            alone = some(random, 0.5, rows)
            moving += alone * (seasons(random, shape, (season, 0)) * moving.std(1, keepdims=True) - moving)
    if season in (5, 7):
        moving += _calendar(random, shape, YEAR if season == 7 else YEAR * 5 / 7)
    along = random.uniform(0, 0.4, (rows, 1)) * some(random, 0.3, rows) * np.clip(even(trend), -2, 2)
    return trend + (moving + noise) * (1 + along)  # the larger the level, the more it moves


def _calendar(random: np.random.Generator, shape: Shape, year: float) -> Array:
    """What daily series show beside the week: the year, days of the month, and single days that fall out."""
    rows, _ = shape
    found = years(random, shape, year) * between(random, 0.1, 4.0, rows) * some(random, 0.6, rows)
    found += years(random, shape, year * MONTH / YEAR) * between(random, 0.1, 0.8, rows) * some(random, 0.3, rows)
    free = (random.random(shape) < random.uniform(4, 14, (rows, 1)) / year) * some(random, 0.5, rows)
    return found - free * between(random, 0.5, 3.0, rows)


def _repeated(random: np.random.Generator, shape: Shape, kind: Kind) -> Array:
    """Load, traffic, weather: a strong day and week on a level that wanders over days, hardly any noise step to step,
    the season's strength and the level together, and days that follow another day's pattern."""
    (rows, steps), (season, longer) = shape, kind
    moving = seasons(random, shape, kind)
    if longer == 7 * season:  # a free day: what the same hours showed on a day nearby
        days = -(-steps // season)
        free = random.random((rows, days)) < between(random, 0.002, 0.04, rows) * some(random, 0.5, rows)
        back = random.integers(1, 4, (rows, days)) * season * free
        place = np.maximum(np.arange(steps) - np.repeat(back, season, 1)[:, :steps], 0)
        moving = np.take_along_axis(moving, place, 1)
    long = season * between(random, 0.3, 8.0, rows)
    level = wandering(random, shape, long) * between(random, 0.005, 0.8, rows)
    level += trends(random, shape) * between(random, 0.02, 1.0, rows) * some(random, 0.5, rows)
    noise = noises(random, shape, season) * between(random, 0.002, 0.4, rows)
    calm = 1 - random.uniform(0.6, 0.97, (rows, 1)) * some(random, 0.4, rows)  # repeats nearly to the digit
    together = 1 + random.uniform(-0.1, 0.35, (rows, 1)) * np.clip(level, -2, 2)
    return moving * together + (level + noise) * calm


def _family(random: np.random.Generator, name: str, shape: Shape, kind: Kind) -> Array:
    if name == "structural":
        return _structural(random, shape, kind)
    if name == "repeated":
        return _repeated(random, shape, kind)
    process: dict[str, Callable[[np.random.Generator, Shape, Kind], Array]] = {
        "smoothed": smoothed,
        "arima": arima,
        "kernels": kernels,
        "regimes": regimes,
    }
    return process[name](random, shape, kind if random.random() < 0.5 else (kind[0], 0))


def _paths(random: np.random.Generator, shape: Shape, kind: Kind) -> Array:
    """Rows of one length without a unit: of one family each, or two in one."""
    (rows, steps), season = shape, kind[0]
    shares = {"structural": 0.42, "smoothed": 0.22, "arima": 0.16, "kernels": 0.1, "regimes": 0.1}
    if season >= 20 and season != 52:
        shares = {"structural": 0.3, "repeated": 0.42, "smoothed": 0.06, "arima": 0.1, "kernels": 0.06, "regimes": 0.06}
    names, paths = chosen(random, shares, rows), np.zeros(shape)
    for name in shares:
        held = np.flatnonzero(names == name)
        if held.size:
            paths[held] = _family(random, name, (held.size, steps), kind)
    if season <= 12:  # totals of shorter steps, each of which knows the one before
        whole, part = some(random, 0.3 if season <= 4 else 0.12, rows), random.uniform(0.3, 1, (rows, 1))
        paths[:, 1:] += whole * part * (paths[:, :-1] - paths[:, 1:]) / 2
    other = random.permutation(rows)  # two series in one (TSMixup)
    share = random.beta(1.5, 1.5, (rows, 1)) * some(random, 0.08, rows)
    return (1 - share) * even(paths) + share * even(paths)[other]
