"""Processes that synthetic series follow where they are more than trend, season and noise added up: exponential
smoothing run forwards, seasonal ARIMA, sums and products of Gaussian processes, regimes, chaos and markets.

Each takes a generator, a shape (rows, steps) and the seasons, and returns paths in no particular unit.
"""

import numpy as np

from models.patterns import Array, Kind, Shape, between, chosen, cycles, even, faded, seasons, smooth, some, trends

WARM = 60  # steps a recursion runs before what it is taken for


def smoothed(random: np.random.Generator, shape: Shape, kind: Kind) -> Array:
    """Innovations state space models of exponential smoothing (Hyndman, Koehler, Ord and Snyder 2008), run forwards on
    a level of about 0: no, a full or a damped trend, no or an additive season, smoothing constants from hardly any to
    nearly all. An exponential of such a path has the multiplicative forms."""
    (rows, steps), season = shape, kind[0]
    size = between(random, 0.03, 1.0, rows)[:, 0]
    alpha = np.where(random.random(rows) < 0.5, random.beta(1, 3, rows), random.beta(3, 1.3, rows))
    beta = alpha * random.random(rows) ** 4 * (random.random(rows) < 0.5)
    damp = np.where(random.random(rows) < 0.5, 1.0, random.uniform(0.8, 0.99, rows))
    gamma = (1 - alpha) * random.random(rows) ** 3 * 0.7
    slope = (random.standard_normal(rows) + 0.4) * np.where(random.random(rows) < 0.5, 0.06, 0.4) * size
    slope *= random.random(rows) < 0.65
    shown = random.random(rows) < (0.88 if season > 1 else 0.0)
    shown = shown * between(random, 0.2 if season in (5, 7) or season >= 20 else 0.07, 2.0, rows)[:, 0]
    states = np.ascontiguousarray(cycles(random, rows, kind).T) * shown if season > 1 else np.zeros((1, rows))
    period, level = len(states), np.zeros(rows)
    errors = np.ascontiguousarray(random.standard_normal(shape).T) * size
    path = np.empty((steps, rows))
    for step in range(steps):
        place, error = step % period, errors[step]
        slope = damp * slope
        path[step] = level + slope + states[place] + error
        level = level + slope + alpha * error
        slope = slope + beta * error
        if season > 1:
            states[place] += gamma * (shown > 0) * error
    return path.T


def _stationary(random: np.random.Generator, rows: int) -> Array:
    """Coefficients (rows, 3) of a stationary autoregression of order 0 to 3, from partial autocorrelations by the
    Durbin-Levinson recursion (Barndorff-Nielsen and Schou 1973)."""
    partial = np.tanh(random.standard_normal((rows, 3)) * 0.8 + np.array([0.4, 0.0, 0.0]))
    partial *= np.arange(3) < random.integers(0, 4, (rows, 1))
    found = np.zeros((rows, 3))
    for order in range(3):
        past = found[:, :order].copy()
        found[:, :order] = past - partial[:, [order]] * past[:, ::-1]
        found[:, order] = partial[:, order]
    return found


def arima(random: np.random.Generator, shape: Shape, kind: Kind) -> Array:
    """Seasonal ARIMA (Box and Jenkins 1970): up to (3, d, 2)(1, D, 1), d and D of 0 and 1, with a drift at times."""
    (rows, wanted), season = shape, max(kind)
    steps = wanted + WARM + 2 * season
    shocks = random.standard_normal((steps, rows))
    once, twice = random.random(rows) < 0.65, (random.random(rows) < 0.45) & (season > 1)
    moving = random.uniform(-0.9, 0.7, (2, rows)) * (random.random((2, rows)) < [[0.5], [0.2]])
    back = np.where(once, random.uniform(-0.95, -0.6, rows), random.uniform(-0.9, -0.2, rows))
    shocks[2:] += moving[0] * shocks[1:-1] + 0.5 * moving[1] * shocks[:-2]
    if season > 1:
        shocks[season:] += np.where(twice, back, 0.0) * shocks[:-season]
    first, second, third = _stationary(random, rows).T
    path = np.zeros((steps + 3, rows))
    for step in range(steps):
        path[step + 3] = first * path[step + 2] + second * path[step + 1] + third * path[step] + shocks[step]
    path = path[3:]
    path /= np.maximum(path[WARM:].std(0), 1e-6)
    if season > 1:
        keep = np.where(twice, 1.0, random.uniform(0, 0.9, rows) * (random.random(rows) < 0.5))
        start = cycles(random, rows, kind).T * between(random, 0.3, 6.0, rows)[:, 0]
        path[:season] += twice * (start - start.mean(0))
        for begin in range(season, steps, season):
            stop = min(begin + season, steps)
            path[begin:stop] += keep * path[begin - season : stop - season]
    path = np.where(once, np.cumsum(path, 0), path)
    if season > 1:  # a season that stays as it is
        fixed = ~twice & (random.random(rows) < 0.7)
        path += (
            fixed
            * path.std(0)
            * between(random, 0.1, 2.0, rows)[:, 0]
            * cycles(random, rows, kind).T[np.arange(steps) % season]
        )
    drift = (random.standard_normal(rows) + 0.5) * 0.15 * (random.random(rows) < 0.6)
    return (path + drift * np.where(once, np.arange(steps)[:, None], 0.0))[-wanted:].T


def kernels(random: np.random.Generator, shape: Shape, kind: Kind) -> Array:
    """Gaussian processes put together at random, kernels added and multiplied (KernelSynth, Ansari et al. 2024), drawn
    by features instead of a covariance: smooth paths of many lengths, lines, cycles told or not, rough walks, noise."""
    rows, steps = shape
    found = np.zeros(shape)
    shares = {"smooth": 0.25, "cycle": 0.4 if kind[0] > 1 else 0.0, "untold": 0.1, "line": 0.12, "rough": 0.15}
    for slot in range(4):
        names, part = chosen(random, shares, rows), np.zeros(shape)
        for name in shares:
            held = np.flatnonzero(names == name)
            if held.size:
                part[held] = _kernel(random, name, (held.size, steps), kind)
        part = part * between(random, 0.2, 1.5, rows) * (slot < random.integers(1, 5, (rows, 1)))
        product = (some(random, 0.25, rows) > 0) & (slot > 0)
        found = np.where(product, found * (1 + 0.7 * part), found + part)
    change = random.uniform(0.1, 0.9, (rows, 1)) * steps  # one kind of path turns into another
    turn = 1 / (1 + np.exp(-np.clip((np.arange(steps) - change) / (0.03 * steps + 1), -40, 40)))
    found += some(random, 0.15, rows) * turn * (found[::-1] - found)
    return found + random.standard_normal(shape) * between(random, 0.005, 0.6, rows)


def _kernel(random: np.random.Generator, name: str, shape: Shape, kind: Kind) -> Array:
    rows, steps = shape
    if name == "smooth":
        return smooth(random, shape, between(random, max(2.0, steps / 100), steps, rows))
    if name == "cycle":
        return seasons(random, shape, kind)
    if name == "line":
        return random.standard_normal((rows, 1)) * np.linspace(-1.5, 1.5, steps)
    if name == "rough":
        return faded(random, random.standard_normal(shape), np.exp(-1 / between(random, 1.0, steps, rows)))
    turns = np.arange(steps) / between(random, 3.0, steps / 2, rows) + random.random((rows, 1))
    return np.sin(2 * np.pi * turns) + random.uniform(0, 0.6, (rows, 1)) * np.sin(4 * np.pi * turns + 1)


# ---------------------------------------------------------------- regimes, chaos, markets


def _levels(random: np.random.Generator, shape: Shape) -> Array:
    """Two to four states, each with a level and an unrest of its own, that last for random times."""
    rows, steps = shape
    count = random.integers(2, 5, (rows, 1))
    fresh = random.random(shape) < between(random, 2 / steps, 0.15, rows)
    last = np.maximum.accumulate(np.where(fresh, np.arange(steps), 0), axis=1)
    state = random.integers(0, 1000, shape)[np.arange(rows)[:, None], last] % count
    level = random.standard_normal((rows, 4)) * between(random, 0.5, 5.0, rows)
    unrest = between(random, 0.01, 1.0, rows) * np.exp(0.5 * random.standard_normal((rows, 4)))
    row = np.arange(rows)[:, None]
    return level[row, state] + unrest[row, state] * random.standard_normal(shape)


def _threshold(random: np.random.Generator, shape: Shape) -> Array:
    """Threshold autoregression (Tong 1978): another coefficient and constant above 0 than below."""
    rows, steps = shape
    keep = random.uniform(-0.6, 0.95, (2, rows))
    constant = random.standard_normal((2, rows)) * [[1.0], [-1.0]] * 0.7
    shocks, path = random.standard_normal((steps + WARM, rows)), np.empty((steps + WARM, rows))
    state: Array = np.zeros(rows)
    for step in range(steps + WARM):
        high, low = keep[0] * state + constant[0], keep[1] * state + constant[1]
        state = np.asarray(np.where(state > 0, high, low) + shocks[step], np.float64)
        path[step] = state
    return path[WARM:].T


def _excited(random: np.random.Generator, shape: Shape) -> Array:
    """Counts that call for more of the same (an autoregression of Poisson counts, Ferland, Latour and Oraichi 2006)."""
    rows, steps = shape
    base, keep = between(random, 0.2, 20.0, rows)[:, 0], random.uniform(0.1, 0.6, rows)
    echo = random.uniform(0.1, 0.95, rows) * (1 - keep)
    rate, path = base / (1 - keep - echo), np.empty((steps + WARM, rows))
    for step in range(steps + WARM):
        count = random.poisson(np.minimum(rate, 1e6)).astype(np.float64)
        path[step] = count
        rate = base + keep * rate + echo * count
    return path[WARM:].T


def _chaos(random: np.random.Generator, shape: Shape) -> Array:
    """The logistic map, or a delayed feedback (Mackey and Glass 1977), with a little noise seen on top."""
    rows, steps = shape
    rate = random.uniform(3.5, 4.0, rows)
    delay, growth = int(random.integers(8, 22)), random.uniform(0.18, 0.25, rows)
    jump, state = random.random(rows), np.full((steps + WARM + delay, rows), 0.8)
    state[:delay] += 0.4 * random.random((delay, rows))
    path = np.empty((steps + WARM, rows))
    for step in range(steps + WARM):
        jump = np.clip(rate * jump * (1 - jump), 1e-6, 1 - 1e-6)
        now, past = state[step + delay - 1], state[step]
        state[step + delay] = now + growth * past / (1 + past**10) - 0.1 * now
        path[step] = jump
    calm = random.random(rows) < 0.6
    found = np.where(calm, state[delay:], path)[WARM:].T
    return even(found) + random.standard_normal(shape) * between(random, 0.001, 0.2, rows)


def _market(random: np.random.Generator, shape: Shape) -> Array:
    """Logarithms of prices: steps without memory whose size has one (a GARCH, Bollerslev 1986)."""
    rows, steps = shape
    echo, keep = random.uniform(0.02, 0.2, rows), random.uniform(0.5, 0.79, rows)
    size, path = np.ones(rows), np.empty((steps, rows))
    shocks = random.standard_t(6, (steps, rows)) * np.sqrt(4 / 6)
    for step in range(steps):
        path[step] = np.sqrt(size) * shocks[step]
        size = np.minimum(1 - echo - keep + echo * path[step] ** 2 + keep * size, 100.0)
    return np.cumsum(path, 0).T


def _saws(random: np.random.Generator, shape: Shape) -> Array:
    """Stock that runs down and is filled up again, or charge that builds up and goes: slopes with sudden resets."""
    rows, steps = shape
    pace = np.maximum(1 + random.standard_normal(shape) * random.uniform(0, 1, (rows, 1)), 0)
    filled = np.cumsum(pace / between(random, 4.0, max(8.0, steps / 3), rows), 1) + random.random((rows, 1))
    noise = random.standard_normal(shape) * between(random, 0.005, 0.3, rows)
    return random.choice([-1.0, 1.0], (rows, 1)) * (filled % 1.0) + noise


def regimes(random: np.random.Generator, shape: Shape, kind: Kind) -> Array:
    """Paths that change their ways: states, thresholds, echoes, chaos, markets, resets; some with a season on top."""
    rows, steps = shape
    draws = {"levels": _levels, "threshold": _threshold, "excited": _excited, "chaos": _chaos, "market": _market}
    draws["saws"] = _saws
    shares = {"levels": 0.22, "threshold": 0.15, "excited": 0.15, "chaos": 0.12, "market": 0.26, "saws": 0.1}
    names, found = chosen(random, shares, rows), np.zeros(shape)
    for name, draw in draws.items():
        held = np.flatnonzero(names == name)
        if held.size:
            found[held] = even(draw(random, (held.size, steps)))
    if kind[0] > 1:
        found += some(random, 0.55, rows) * between(random, 0.2, 2.0, rows) * seasons(random, shape, kind)
    return found + some(random, 0.3, rows) * trends(random, shape)
