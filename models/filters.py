"""The filters that smoothing knows, and everything about them that windows of a given length and season share: weights
and places, computed once. Numpy only."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Tables = dict[str, NDArray[np.generic]]

FADE = 0.8  # weight of a cycle in the season's mean, over that of the cycle after it
ORIGINS = 40  # inside a window, at which filters are judged, at most
KNOWN = 3  # values before an origin that is judged


class Filter(NamedTuple):
    """A level with decay `level` and, where `trend` is a decay, a slope, of which `share` is taken and which fades by
    `damping` with each step ahead."""

    level: float
    trend: float | None = None
    damping: float = 1.0
    share: float = 1.0


FILTERS = (
    Filter(0.05),
    Filter(0.4),
    Filter(0.7),
    Filter(0.85),
    Filter(0.95),
    Filter(0.05, 0.97, 1.0, 0.5),
    Filter(0.4, 0.97, 1.0, 0.5),
    Filter(0.85, 0.97),
    Filter(0.05, 0.7, 0.85),
    Filter(0.4, 0.9, 0.9),
    Filter(0.7, 0.9, 0.9),
)
DECAYS = tuple(sorted({decay for one in FILTERS for decay in (one.level, one.trend) if decay is not None}))
LEVELS = tuple(DECAYS.index(one.level) for one in FILTERS)
TRENDS = tuple(DECAYS.index(one.trend or one.level) for one in FILTERS)
SHARES = tuple(0.0 if one.trend is None else one.share for one in FILTERS)


def smoothing_tables(time: int, season: int, horizon: int) -> Tables:
    """For windows of `time` steps with a season of `season` (1: none; a longer one than half the window counts as
    none), of which forecasts of up to `horizon` steps are asked for.

    `counts` (time, 3 * decay * end) weighs the steps before each of the `ends`, the window's last. Of the season are
    `size` (1,), its length, `fading` (cycle,), `folded` (cycle, season; 0: before the window, else 1 + step), `band`
    (time, time), and `inside` (time,), each step's place in it. The filters are judged by `origins`, `places` (pair,)
    and `judged` (filter, pair): origin among the ends, step, slopes gone."""
    season = season if time >= 2 * season else 1
    leads = [lead for lead in sorted({1, 2, max(1, horizon // 4), max(1, horizon // 2)}) if lead < time]
    latest = time - 1 - (leads[0] if leads else 1)
    apart = max(1, -(-(latest - KNOWN) // ORIGINS))
    origins = list(range(latest, KNOWN - 2, -apart))[::-1]  # places of the last known value
    ends = np.array([*origins, time - 1])
    age = ends[None, :] - np.arange(time)[:, None].astype(np.float64)  # (time, end)
    weights = np.stack([np.where(age >= 0, decay ** np.maximum(age, 0.0), 0.0) for decay in DECAYS], axis=1)
    powers = np.stack([weights, -weights * age[:, None], weights * age[:, None] ** 2], axis=1)
    pairs = [(at, origin + lead, lead) for lead in leads for at, origin in enumerate(origins) if origin + lead < time]
    cycles = -(-time // season)
    early = cycles * season - time  # steps that the first cycle lacks
    folded = np.maximum(np.arange(cycles * season) - early + 1, 0).reshape(cycles, season)
    return {
        "counts": powers.reshape(time, -1),
        "ends": ends,
        "fading": FADE ** np.arange(cycles - 1, -1, -1, dtype=np.float64),
        "folded": folded,
        "size": np.array([float(season)]),
        "band": moving_average(time, season),
        "inside": (np.arange(time) + early) % season,
        "origins": np.array([at for at, _, _ in pairs], np.int64),
        "places": np.array([place for _, place, _ in pairs], np.int64),
        "judged": reaches([lead for _, _, lead in pairs]),
    }


def reaches(leads: list[int]) -> Array:
    """How many slopes each filter's trend has gone after each lead, (filter, lead)."""
    steps = np.arange(max(leads, default=0))
    gone = np.stack([np.concatenate([[0.0], np.cumsum(one.damping**steps)]) for one in FILTERS])
    return gone[:, leads]


def moving_average(time: int, season: int) -> Array:
    """The centred moving average over a season, (from, to): half weights at both ends of an even one."""
    weights = np.full(season, 1.0 / season) if season % 2 else np.full(season + 1, 1.0 / season)
    if season % 2 == 0:
        weights[0] = weights[-1] = 0.5 / season
    band = np.zeros((time, time))
    half = len(weights) // 2
    for place, weight in enumerate(weights):
        to = np.arange(max(0, half - place), min(time, time + half - place))
        band[to + place - half, to] = weight
    return band
