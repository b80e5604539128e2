"""What synthetic series are put together from: trends, seasons and noises, many rows at once.

Every function takes a generator and a shape and returns an array of that shape or with its rows; a recursion over time
runs once for all rows. Nothing here is fitted to any series: the ranges are those that series of people, goods, money,
traffic, power and weather commonly show.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Shape = tuple[int, int]  # rows, steps
Kind = tuple[int, int]  # main season in steps, 1: none; longer season made of whole main ones, 0: none

TINY = 1e-9
YEAR = 365.25  # days
MONTH = 30.44  # days


def between(random: np.random.Generator, low: float, high: float, rows: int) -> Array:
    """A column of `rows` values, each as likely per factor between `low` and `high` (log-uniform)."""
    return np.exp(random.uniform(np.log(low), np.log(high), (rows, 1)))


def chosen(random: np.random.Generator, shares: dict[str, float], rows: int) -> NDArray[np.str_]:
    """One of the names of `shares` for each row, as often as its share says."""
    weights = np.array(list(shares.values()))
    return random.choice(np.array(list(shares)), rows, p=weights / weights.sum())


def some(random: np.random.Generator, share: float, rows: int) -> Array:
    """A column of ones and zeros, ones for about `share` of the rows."""
    return (random.random((rows, 1)) < share).astype(np.float64)


def even(values: Array) -> Array:
    """`values` with mean 0 and standard deviation 1 in every row; a row that never changes becomes 0."""
    middle = values - values.mean(1, keepdims=True)
    spread = middle.std(1, keepdims=True)
    return np.where(spread > TINY, middle / np.maximum(spread, TINY), 0.0)


def faded(random: np.random.Generator, shocks: Array, keep: Array) -> Array:
    """First-order autoregression of `shocks` (rows, steps) with `keep` (rows, 1), in its steady state, variance as the
    shocks'."""
    rows, steps = len(shocks), len(shocks[0])
    fresh = np.sqrt(np.maximum(1 - keep[:, 0] ** 2, TINY))
    moving, kept = np.empty((steps, rows)), keep[:, 0]
    state: Array = random.standard_normal(rows)
    columns = np.ascontiguousarray(shocks.T) * fresh
    for step in range(steps):
        state = kept * state + columns[step]
        moving[step] = state
    return moving.T


def smooth(random: np.random.Generator, shape: Shape, length: Array) -> Array:
    """Smooth wandering of about unit variance that forgets within `length` (rows, 1) steps: a Gaussian process with a
    squared-exponential kernel by random Fourier features (Rahimi and Recht 2007)."""
    rows, steps = shape
    features = 24
    speed = random.standard_normal((rows, features)) / length
    phase = random.uniform(0, 2 * np.pi, (rows, features))
    weight = random.standard_normal((rows, features)) * np.sqrt(2 / features)
    time, moving = np.arange(steps), np.zeros(shape)
    for number in range(features):
        moving += weight[:, [number]] * np.cos(speed[:, [number]] * time + phase[:, [number]])
    return moving


def wandering(random: np.random.Generator, shape: Shape, length: Array) -> Array:
    """A level of unit variance that forgets within `length` (rows, 1) steps, rough or rather smooth: an autoregression
    of second order."""
    once = faded(random, random.standard_normal(shape), np.exp(-1 / length))
    second = length * between(random, 0.02, 0.5, shape[0])
    return even(faded(random, once, np.exp(-1 / np.maximum(second, 0.05))))


# ---------------------------------------------------------------- trends


def _line(random: np.random.Generator, shape: Shape) -> Array:
    return random.choice([-1.0, 1.0], (shape[0], 1), p=[0.25, 0.75]) * np.linspace(0, 1, shape[1])


def _curve(random: np.random.Generator, shape: Shape) -> Array:
    """Fading growth, growth ever faster, or an S: what saturates, catches on, or both."""
    rows, steps = shape
    time = np.linspace(0, 1, steps)
    pace, turn = random.uniform(1, 6, (rows, 1)), random.uniform(0, 1, (rows, 1))
    ways = np.stack([1 - np.exp(-pace * time), np.expm1(pace * time / 2), np.tanh(2 * pace * (time - turn))])
    way = random.integers(0, 3, rows)
    return random.choice([-1.0, 1.0], (rows, 1), p=[0.3, 0.7]) * ways[way, np.arange(rows)]


def _bends(random: np.random.Generator, shape: Shape) -> Array:
    """A line whose slope changes a few times."""
    rows, steps = shape
    bends = random.random(shape) < random.uniform(1, 5, (rows, 1)) / steps
    slopes = random.standard_normal(shape) * bends
    slopes[:, 0] = random.standard_normal(rows) + 0.5
    return np.cumsum(np.cumsum(slopes, 1), 1)


def _walk(random: np.random.Generator, shape: Shape) -> Array:
    """A random walk with drift; some with heavy-tailed steps, or with steps that resemble the one before."""
    rows, _ = shape
    heavy = random.standard_t(4, shape) / np.sqrt(2)
    shocks = np.where(some(random, 0.33, rows) > 0, heavy, random.standard_normal(shape))
    shocks = faded(random, shocks, random.choice([0.0, 0.3, 0.6, 0.85], (rows, 1), p=[0.45, 0.25, 0.2, 0.1]))
    drift = (random.standard_normal((rows, 1)) + 0.5) * between(random, 0.02, 0.6, rows)
    return np.cumsum(shocks + drift, 1)


def _local(random: np.random.Generator, shape: Shape) -> Array:
    """A level whose slope itself wanders, and comes back to a mean slope (local linear trend, damped)."""
    rows, _ = shape
    keep = random.choice([0.8, 0.9, 0.95, 0.98, 0.995], (rows, 1))
    slope = faded(random, random.standard_normal(shape), keep) + random.standard_normal((rows, 1)) * 0.4 + 0.15
    return np.cumsum(slope + random.standard_normal(shape) * between(random, 0.01, 1.5, rows), 1)


def _swings(random: np.random.Generator, shape: Shape) -> Array:
    """Cycles of no fixed length, as of business: smooth wandering."""
    return smooth(random, shape, between(random, 4.0, max(8.0, shape[1]), shape[0]))


_TRENDS: dict[str, tuple[float, Callable[[np.random.Generator, Shape], Array]]] = {
    "none": (0.12, lambda random, shape: np.zeros(shape)),
    "line": (0.13, _line),
    "curve": (0.12, _curve),
    "bends": (0.09, _bends),
    "walk": (0.26, _walk),
    "local": (0.16, _local),
    "swings": (0.12, _swings),
}


def trends(random: np.random.Generator, shape: Shape) -> Array:
    """Paths (rows, steps) of mean 0 and standard deviation 1, or 0 throughout where there is no trend."""
    found = np.zeros(shape)
    names = chosen(random, {name: share for name, (share, _) in _TRENDS.items()}, shape[0])
    for name, (_, draw) in _TRENDS.items():
        rows = np.flatnonzero(names == name)
        if rows.size:
            found[rows] = draw(random, (rows.size, shape[1]))
    both = some(random, 0.25, shape[0]) * between(random, 0.1, 1.0, shape[0])
    return even(even(found) + both * even(_walk(random, shape)))


# ---------------------------------------------------------------- seasons


def _waves(random: np.random.Generator, shape: Shape) -> Array:
    """Harmonics that get weaker as they get faster."""
    rows, season = shape
    most = max(1, min(season // 2, 10))
    time, moving = 2 * np.pi * np.arange(season) / season, np.zeros(shape)
    fade, count = random.uniform(0.3, 2.5, (rows, 1)), random.integers(1, most + 1, (rows, 1))
    for number in range(1, most + 1):
        size = random.standard_normal((rows, 1)) * number**-fade * (number <= count)
        moving += size * np.cos(number * time + random.uniform(0, 2 * np.pi, (rows, 1)))
    return moving


def _any(random: np.random.Generator, shape: Shape) -> Array:
    """Each place of the season for itself, at times heavy-tailed."""
    heavy = random.standard_t(3, shape)
    return np.where(some(random, 0.3, shape[0]) > 0, heavy, random.standard_normal(shape))


def _spikes(random: np.random.Generator, shape: Shape) -> Array:
    """A few places stand out, as December does."""
    rows, season = shape
    there = random.random(shape) < between(random, 1 / season, 0.4, rows)
    there[np.arange(rows), random.integers(0, season, rows)] = True
    return there * (random.standard_normal(shape) * 0.5 + random.choice([-1.0, 1.0], (rows, 1), p=[0.3, 0.7]))


def _humps(random: np.random.Generator, shape: Shape) -> Array:
    """One to four rounded humps, as of morning and evening."""
    rows, season = shape
    time, moving = 2 * np.pi * np.arange(season) / season, np.zeros(shape)
    for number in range(4):
        size = random.uniform(0.3, 1, (rows, 1)) * (number < random.integers(1, 5, (rows, 1)))
        sharp = between(random, 0.5, 12.0, rows)
        moving += size * np.exp(sharp * (np.cos(time - random.uniform(0, 2 * np.pi, (rows, 1))) - 1))
    return moving * random.choice([-1.0, 1.0], (rows, 1), p=[0.2, 0.8])


def _plateau(random: np.random.Generator, shape: Shape) -> Array:
    """Day and night: a high part and a low part with edges of any steepness, the high part slightly bent."""
    rows, season = shape
    time = 2 * np.pi * np.arange(season) / season
    wave = np.cos(time - random.uniform(0, 2 * np.pi, (rows, 1)))
    edge, width = between(random, 0.05, 1.0, rows), random.uniform(-0.6, 0.6, (rows, 1))
    return np.tanh((wave - width) / edge) + random.uniform(0, 0.6, (rows, 1)) * np.cos(time * 2 + 1)


def _solar(random: np.random.Generator, shape: Shape) -> Array:
    """Nothing at night, an arch by day."""
    rows, season = shape
    time = 2 * np.pi * np.arange(season) / season
    arch = np.cos(time - random.uniform(0, 2 * np.pi, (rows, 1))) + random.uniform(-0.4, 0.4, (rows, 1))
    return np.maximum(arch, 0) ** random.uniform(0.6, 1.6, (rows, 1))


_SHAPES: dict[str, tuple[float, Callable[[np.random.Generator, Shape], Array]]] = {
    "waves": (0.34, _waves),
    "any": (0.2, _any),
    "spikes": (0.1, _spikes),
    "humps": (0.16, _humps),
    "plateau": (0.12, _plateau),
    "solar": (0.08, _solar),
}


def profiles(random: np.random.Generator, shape: Shape) -> Array:
    """One season's shape for each row (rows, season) with mean 0 and standard deviation 1: waves, humps, a plateau, an
    arch, spikes, or anything; longer seasons are smooth more often and carry fine detail of their own."""
    rows, season = shape
    shares = {name: share for name, (share, _) in _SHAPES.items()}
    if season <= 7:
        shares = {"waves": 0.3, "any": 0.55, "spikes": 0.15}
    elif season >= 24:
        shares["any"] = 0.04
    found, names = np.zeros(shape), chosen(random, shares, rows)
    for name in shares:
        held = np.flatnonzero(names == name)
        if held.size:
            found[held] = _SHAPES[name][1](random, (held.size, season))
    detail = some(random, 0.5, rows) * between(random, 0.01, 0.3, rows)
    return even(even(found) + detail * random.standard_normal(shape))


def weeks(random: np.random.Generator, rows: int, season: int, longer: int) -> Array:
    """A long cycle made of short ones, as a week of days: (rows, longer), standard deviation 1. Days of one kind are
    alike; one or two days of seven have another shape or strength (the weekend); each day may differ a little."""
    days = longer // season
    common, other = profiles(random, (rows, season)), profiles(random, (rows, season))
    off = np.zeros((rows, days))
    off[:, -2:] = [random.random() < 0.9, 1.0] if days == 7 else 0.0
    ease = random.uniform(0, 1, (rows, 1))
    off[:, -2] *= ease[:, 0]
    off[:, 0] += (days == 7) * 0.3 * ease[:, 0] * (random.random(rows) < 0.2)
    strength = between(random, 0.02, 1.0, rows) * some(random, 0.85, rows)
    apart = (strength * off)[:, :, None]  # how much of the weekday's shape a day gives up for the other
    size = np.exp(between(random, 0.005, 0.3, rows) * profiles(random, (rows, days)))[:, :, None]
    level = (between(random, 0.02, 1.0, rows) * profiles(random, (rows, days)))[:, :, None]
    weekend = (random.standard_normal((rows, 1)) * 0.7 - 0.5)[:, :, None] * off[:, :, None] * strength[:, :, None] * 1.5
    own = random.standard_normal((rows, days, season)) * between(random, 0.005, 0.1, rows)[:, :, None]
    alike = some(random, 0.75 if days == 7 else 0.3, rows)[:, :, None]  # else every day has a level of its own
    shape = size * ((1 - apart) * common[:, None] + apart * other[:, None])
    return even((shape + np.where(alike > 0, weekend + 0.15 * level, level) + own).reshape(rows, longer))


def cycles(random: np.random.Generator, rows: int, kind: Kind) -> Array:
    """One cycle for each row: of the season, or where a longer one is told, (rows, longer) made of it."""
    season, longer = kind
    return weeks(random, rows, season, longer) if longer else profiles(random, (rows, season))


def seasons(random: np.random.Generator, shape: Shape, kind: Kind) -> Array:
    """Repeating paths (rows, steps) of about unit standard deviation with the period of the season, or the longer one.
    They start anywhere; a part swells and shrinks, changes shape slowly, or is a year of 52.18 weeks."""
    rows, steps = shape
    season, cycle = kind[0], max(kind)
    pace = 52 / (YEAR / 7) if season == 52 and random.random() < 0.5 else 1.0
    place = (np.arange(steps) * pace + random.integers(0, cycle, (rows, 1))) % cycle
    below = place.astype(np.intp) % cycle
    share, row = place - np.floor(place), np.arange(rows)[:, None]

    def laid(profile: Array) -> Array:
        now = profile[row, below]
        return now if pace == 1.0 else now + share * (profile[row, (below + 1) % cycle] - now)

    first = cycles(random, rows, kind)
    moving = laid(first)
    if random.random() < 0.6:  # another shape of the same kind, mixed in more and more, or now and then
        mixed = first + between(random, 0.1, 1.0, rows) * cycles(random, rows, kind)
        turn = smooth(random, shape, np.maximum(between(random, 1.0, 20.0, rows) * cycle, steps / 4))
        moving = moving + (laid(mixed) - moving) / (1 + np.exp(-3 * turn)) * some(random, 0.45, rows)
    swell = smooth(random, shape, np.maximum(between(random, 2.0, 20.0, rows) * season, 8.0))
    return moving * np.exp(swell * between(random, 0.02, 0.5, rows) * some(random, 0.45, rows))


def years(random: np.random.Generator, shape: Shape, period: float) -> Array:
    """A cycle that is there but not told, such as the year in daily data: smooth waves of `period` steps and days that
    stand out at the same place each time; standard deviation 1."""
    rows, steps = shape
    turns = np.arange(steps) / period + random.random((rows, 1))
    moving = np.zeros(shape)
    for number in range(1, 5):
        size = random.standard_normal((rows, 1)) * number ** -random.uniform(0.5, 2, (rows, 1))
        moving += size * np.cos(2 * np.pi * (number * turns + random.random((rows, 1))))
    for _ in range(3):
        width = between(random, 0.003, 0.03, rows)
        apart = (turns + random.random((rows, 1))) % 1.0 - 0.5
        moving += random.standard_normal((rows, 1)) * 2 * some(random, 0.4, rows) * np.exp(-0.5 * (apart / width) ** 2)
    return even(moving)


# ---------------------------------------------------------------- noises


def noises(random: np.random.Generator, shape: Shape, season: int) -> Array:
    """What cannot be told beforehand, (rows, steps), standard deviation about 1: Gaussian or heavy-tailed, with a
    memory of its own (of up to days where `season` counts the steps of a day), calm and wild in turns."""
    rows, steps = shape
    freedom = random.choice([3.0, 4.0, 6.0], (rows, 1))
    heavy = random.standard_t(freedom, shape) * np.sqrt((freedom - 2) / freedom)
    shocks = np.where(some(random, 0.25, rows) > 0, heavy, random.standard_normal(shape))
    wild = smooth(random, shape, between(random, 5.0, max(10.0, steps / 2), rows))
    shocks = shocks * np.exp(wild * between(random, 0.1, 0.8, rows) * some(random, 0.25, rows))
    plain = shocks
    keep = random.uniform(0.2, 0.9, (rows, 1)) * random.choice([1.0, -0.4], (rows, 1), p=[0.93, 0.07])
    if season >= 20:
        keep = np.exp(-1 / (season * between(random, 0.08, 3.0, rows)))
    moving = faded(random, shocks, keep)
    if season >= 20 and season != 52:  # a part so smooth that the next step hardly differs
        softer = even(faded(random, moving, np.exp(-1 / between(random, 0.3, season / 5, rows))))
        moving = np.where(some(random, 0.55, rows) > 0, softer, moving)
    share = random.random((rows, 1)) ** (2 if season < 20 else 4) * (1.0 if season < 20 else 0.2)
    memory = some(random, 0.5 if season < 20 else 0.9, rows)
    return np.where(memory > 0, np.sqrt(1 - share) * moving + np.sqrt(share) * plain, plain)
