"""From paths without a unit to values as they are kept: levels, counts and demand, shares of growth, scales, rounding,
and what goes wrong: shifts, outliers, gaps."""

import numpy as np
from numpy.typing import NDArray

from models.patterns import Array, between, chosen, even, noises, some

MOST = 1e11  # of the values, in absolute terms
STEEPEST = 12.0  # logarithms of the size are kept within this


def marred(random: np.random.Generator, paths: Array, season: int, lengths: NDArray[np.intp]) -> Array:
    """Values (rows, steps) of the `paths`, |value| at most `MOST`, NaN where one is missing.

    Of each row only the newest `lengths` (rows,) steps are used; of them at most half are missing.
    """
    rows = len(paths)
    slope = random.choice([-1.0, 1.0], (rows, 1), p=[0.2, 0.8]) * between(random, 0.3, 3.0, rows)
    often = 0.5 if season <= 4 else 0.35 if season <= 12 or season == 52 else 0.1
    slope *= some(random, often, rows)  # most that people count grows
    paths = accidents(random, even(even(paths) + slope * np.linspace(-1.7, 1.7, len(paths[0]))), season)
    reverse = random.random(rows) < 0.03
    paths[reverse] = paths[reverse, ::-1]
    shares = {"growing": 0.54, "around": 0.29, "counts": 0.08, "seldom": 0.04, "parts": 0.03, "still": 0.02}
    if season >= 20 and season != 52:
        shares = {"growing": 0.42, "around": 0.46, "counts": 0.05, "seldom": 0.02, "parts": 0.03, "still": 0.02}
    names, found = chosen(random, shares, rows), np.zeros_like(paths)
    ways = {"growing": _growing, "around": _around, "counts": _counts, "seldom": _seldom}
    ways |= {"parts": _parts, "still": _still}
    for name, way in ways.items():
        held = np.flatnonzero(names == name)
        if held.size:
            found[held] = way(random, paths[held])
    whole = np.isin(names, ["counts", "seldom"])[:, None]
    scale = between(random, 1e-2, 1e5, rows) * np.exp(random.standard_normal((rows, 1)))
    found = np.where(whole, found, found * scale)
    often = 0.06 if season in (5, 7) else 0.03
    shut = (random.random(paths.shape) < between(random, 0.001, 0.02, rows)) * some(random, often, rows)
    found = np.where(some(random, 0.03, rows) > 0, -found, found) * (1 - shut)
    found = np.clip(rounded(random, found), -MOST, MOST)
    return gaps(random, found, season, lengths)


def accidents(random: np.random.Generator, paths: Array, season: int) -> Array:
    """Lasting shifts, passing changes, single outliers and slow starts, in units of the path's standard deviation."""
    rows, steps = len(paths), len(paths[0])
    time = np.arange(steps)
    found = paths.copy()
    for _ in range(2):
        when = random.integers(0, steps, (rows, 1))
        size = random.standard_normal((rows, 1)) * 1.5 * some(random, 0.07, rows)
        found += size * (time >= when)
        fade = between(random, 2.0, max(4.0, steps / 6), rows)
        size = random.standard_normal((rows, 1)) * 2 * some(random, 0.06, rows)
        found += size * np.where(time >= when, np.exp(-np.maximum(time - when, 0) / fade), 0.0)
    struck = (random.random(paths.shape) < between(random, 0.002, 0.03, rows)) * some(random, 0.15, rows)
    size = np.clip(random.standard_t(3, paths.shape) * between(random, 1.0, 3.0, rows), -6, 6)
    found += struck * size
    bent = np.sign(found) * np.abs(found) ** random.uniform(0.7, 1.6, (rows, 1))
    return np.where(some(random, 0.12, rows) > 0, even(bent), found)


def _growing(random: np.random.Generator, paths: Array) -> Array:
    """Business: everything in shares of the level."""
    rows = len(paths)
    found = np.exp(np.clip(paths * between(random, 0.03, 0.9, rows), -STEEPEST, STEEPEST))
    more = some(random, 0.2, rows) * between(random, 0.1, 3.0, rows)  # a part that does not grow along
    return found + more


def _around(random: np.random.Generator, paths: Array) -> Array:
    """A level with additive movement, large against it, or at 0, or above 0 throughout."""
    rows = len(paths)
    above = -np.min(paths, 1, keepdims=True)
    level = np.where(some(random, 0.45, rows) > 0, above + between(random, 0.01, 3.0, rows), 0.0)
    far = between(random, 2.0, 60.0, rows)
    found = paths + np.where(some(random, 0.6, rows) > 0, far, level)
    cut = some(random, 0.1, rows)
    return np.where(cut > 0, np.maximum(paths + random.uniform(-0.5, 2, (rows, 1)), 0), found)


def _rates(random: np.random.Generator, paths: Array, low: float, high: float) -> Array:
    rows = len(paths)
    rate = np.exp(np.clip(paths * between(random, 0.1, 0.9, rows), -4, 4))
    return np.minimum(rate / rate.mean(1, keepdims=True) * between(random, low, high, rows), 1e7)


def _counts(random: np.random.Generator, paths: Array) -> Array:
    """Poisson or negative binomial counts, at times with more zeros, whose rate follows the path."""
    rows = len(paths)
    rate = _rates(random, paths, 0.3, 500.0)
    form = between(random, 1.0, 100.0, rows)
    loose = np.maximum(random.gamma(form, 1 / form, paths.shape), 1e-9)
    found = random.poisson(np.where(some(random, 0.5, rows) > 0, rate * loose, rate)).astype(np.float64)
    closed = (random.random(paths.shape) < random.uniform(0.02, 0.4, (rows, 1))) * some(random, 0.2, rows)
    return found * (1 - closed)


def _seldom(random: np.random.Generator, paths: Array) -> Array:
    """Intermittent demand: whether any at all, in spells, and how much when (Croston 1972)."""
    rows = len(paths)
    any_share = between(random, 0.05, 0.7, rows)
    chance = np.clip(any_share * np.exp(np.clip(paths * random.uniform(0, 0.8, (rows, 1)), -4, 4)), 0, 0.98)
    spells = noises(random, paths.shape, 1)
    there = np.where(
        some(random, 0.4, rows) > 0, spells < np.quantile(spells, 0.4), random.random(paths.shape) < chance
    )
    size = 1 + random.poisson(between(random, 0.1, 40.0, rows) * random.gamma(2.0, 0.5, paths.shape))
    return there * size.astype(np.float64)


def _parts(random: np.random.Generator, paths: Array) -> Array:
    """Shares and loads between an empty and a full state."""
    rows = len(paths)
    centre, steep = random.standard_normal((rows, 1)) * 1.5, between(random, 0.3, 2.5, rows)
    return 1 / (1 + np.exp(-np.clip(centre + steep * paths, -30, 30)))


def _still(random: np.random.Generator, paths: Array) -> Array:
    """Nothing moves, or hardly ever: constants, steps now and then, rates that someone sets."""
    rows, steps = len(paths), len(paths[0])
    fresh = random.random(paths.shape) < between(random, 0.3 / steps, 0.1, rows)
    last = np.maximum.accumulate(np.where(fresh, np.arange(steps), 0), axis=1)
    held = np.take_along_axis(paths, last, 1) * between(random, 0.01, 1.0, rows)
    calm = np.where(some(random, 0.3, rows) > 0, paths * between(random, 1e-5, 1e-2, rows), held)
    return between(random, 0.5, 20.0, rows) + calm * (1 - some(random, 0.15, rows))


def rounded(random: np.random.Generator, values: Array) -> Array:
    """Most rows to a few digits, relative to their own size; whole numbers stay whole."""
    rows = len(values)
    size = np.maximum(np.median(np.abs(values), 1, keepdims=True), np.max(np.abs(values), 1, keepdims=True) * 1e-3)
    digits = random.integers(2, 6, (rows, 1))
    unit = 10.0 ** (np.floor(np.log10(np.maximum(size, 1e-12))) - digits + 1)
    whole = (values == np.round(values)).all(1, keepdims=True)
    found = np.round(values / unit) * unit
    found = np.where((some(random, 0.3, rows) > 0) & (size > 20), np.round(values), found)
    return np.where(whole | (some(random, 0.4, rows) > 0), values, found)


def gaps(random: np.random.Generator, values: Array, season: int, lengths: NDArray[np.intp]) -> Array:
    """Single values and runs missing in some rows, more often where steps are short, and now and then the start."""
    rows, steps = len(values), len(values[0])
    often = 0.15 if season in (5, 7) or season >= 24 else 0.05
    gone = random.random(values.shape) < between(random, 0.002, 0.1, rows) * some(random, often, rows)
    time = np.arange(steps)
    for _ in range(3):
        when, long = random.integers(0, steps, (rows, 1)), between(random, 2.0, max(3.0, steps / 12), rows)
        gone |= (time >= when) & (time < when + long) & (some(random, often / 2, rows) > 0)
    gone |= (time < steps - lengths[:, None] * random.uniform(0.7, 1, (rows, 1))) & (some(random, 0.02, rows) > 0)
    used = time >= steps - lengths[:, None]
    keep = (gone & used).sum(1, keepdims=True) > lengths[:, None] / 2
    return np.where(gone & ~keep, np.nan, values)
