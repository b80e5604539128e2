"""What the pre-trained base is told beside the values: everything that depends on the seasons and the steps asked for
alone, as index and weight tables. They are inputs of its graph, so that one graph serves every frequency and any
steps ahead. Numpy only."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.filters import reaches, smoothing_tables
from models.frequency import Frequency

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Tables = dict[str, NDArray[np.generic]]

RAW, SEGMENT = 96, 6  # newest steps read one by one, and how many go into one recurrent step
CYCLES, BINS = 24, 24  # newest seasons read whole, and the values each is resampled to
NEWEST, LONGER = 6, 3  # cycles of the main and of the longer season that are looked up
FADE = 0.6  # weight of a cycle in the mean, over that of the cycle after it
DRIFTS = 4  # distances at which it is looked how far values drift apart: one season, two, four, eight
JUDGED, JUDGED_MOST = 24, 672  # newest steps at which looked-up values are judged: a longer season where it is shorter
SMOOTHED, LONGEST = 200, 168  # steps that levels and trends are fitted to, about; the longest season taken from them
LONG_CYCLES = {7: 364, 5: 260}  # a year of days, in whole weeks: told where the frequency names one season alone
# A step that is judged and those before it that it is judged by: so many seasons and longer ones ago.
AGO = ((0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (1, 1))
TABLES = (
    *("about", "agos", "ahead", "band", "begins", "bins", "counted", "counts", "drifted", "drifts", "ends", "fading"),
    *("folded", "inside", "judged", "latest", "looked", "origins", "outside", "places", "raw_phase", "raws", "reach"),
    *("read", "recent", "size"),
)
EARLIER = ("checked", "lags", "look_before", "look_longer", "look_season", "raw", "sums")  # that older graphs ask for
MOST = 20_000  # steps of whole seasons that are read, about


def seasons_of(frequency: Frequency) -> tuple[int, int]:
    """The main and the longer season of a frequency in steps, as the base is told them. The longer is the main one
    where there is none."""
    seasons = frequency.seasons
    if len(seasons) == 1 and frequency.multiple > 1:
        return seasons[0], seasons[0]  # 364 steps of two days are no year
    return told(seasons[0], seasons[1] if len(seasons) > 1 else 0)


def told(season: int, longer: int) -> tuple[int, int]:
    """The seasons as the base is told them, where `longer` may be 0: there is none."""
    return season, longer or LONG_CYCLES.get(season, season)


def reach(season: int, longer: int) -> int:
    """Steps of history that the base can use."""
    judged = steps_judged(season, longer) + season
    looked = max(NEWEST * season, LONGER * longer + trained_horizon(season) + season)
    tried = judged + max(3 * season, 2 * longer, longer + int(drift_lags(season)[-1]))
    return max(RAW + longer, cycles_read(season) * season, looked, tried, smoothed_steps(season))


def steps_judged(season: int, longer: int) -> int:
    """Newest steps at which looked-up values are judged."""
    return max(2 * season, JUDGED, min(longer, JUDGED_MOST))


def cycles_read(season: int) -> int:
    """Whole seasons that are read: fewer of very long ones."""
    return max(4, min(CYCLES, MOST // season))


def smoothed_steps(season: int) -> int:
    """Steps that levels and trends are fitted to."""
    return max(SMOOTHED // season, 4) * season if season <= LONGEST else SMOOTHED


def trained_horizon(season: int) -> int:
    """Steps ahead that the base is trained for: two to eight seasons."""
    return min(max(8 * season, 24), max(2 * season, 96))


def drift_lags(season: int) -> Ints:
    """The steps apart at which it is looked how far values drift, none farther than the base is trained for."""
    return season * np.minimum(2 ** np.arange(DRIFTS), trained_horizon(season) // season)


def drift_weights(season: int, steps: Ints) -> Array:
    """What each of these distances counts for each of the `steps` ahead, (DRIFTS, step): the two around it, linearly in
    the logarithm."""
    place = np.clip(np.log2(steps / season), 0, DRIFTS - 1)
    return np.maximum(1 - np.abs(place - np.arange(DRIFTS)[:, None]), 0)


def ahead_tables(season: int, longer: int, steps: Ints, length: int) -> Tables:
    """What depends on the `steps` ahead (1 is the next) too; `length` is the context's."""
    place = steps - 1
    own = np.arange(1, NEWEST + 1)[:, None] * season
    week = np.arange(1, LONGER + 1)[:, None] * longer
    turn, long_turn = 2 * math.pi * place / season, 2 * math.pi * place / longer
    period = season if season <= LONGEST else 1
    columns = [
        np.log(steps) / 3.0,
        np.minimum(steps / season, 4.0) if season > 1 else np.minimum(steps / 12.0, 4.0),
        np.minimum(steps / longer, 4.0) if longer > 1 else np.minimum(steps / 24.0, 4.0),
        np.sin(turn),
        np.cos(turn),
        np.sin(long_turn),
        np.cos(long_turn),
    ]
    look_season, look_longer = length - own + place % season, length - week + place % longer
    look_before = look_longer - season * (1 + place % longer // season)
    return {
        "looked": np.concatenate([look_season, look_longer, look_before]),
        "ahead": np.stack(columns, 1).astype(np.float32),
        "drifted": drift_weights(season, steps),
        "reach": reaches([int(step) for step in steps]),
        "outside": place % period,
    }


@lru_cache(maxsize=64)
def fixed_tables(season: int, longer: int) -> Tables:
    """What the seasons alone decide. The context they index is `reach` steps long."""
    length = reach(season, longer)
    raw = np.arange(length - RAW, length)
    count = cycles_read(season)
    folded = length - count * season + np.arange(count * season).reshape(count, season)
    judged = steps_judged(season, longer)
    at = np.arange(length - judged - season, length)
    tokens = np.arange(RAW // SEGMENT) * SEGMENT + SEGMENT / 2 - RAW
    phases = [wave(2 * math.pi * tokens / cycle) for cycle in (season, longer) for wave in (np.sin, np.cos)]
    recent = np.zeros((len(at), 2))
    recent[-max(season, 1) :, 0] = 1.0
    recent[-max(season // 4, 1) :, 1] = 1.0
    counted = np.zeros(length)
    counted[-max(2 * season, 24) :] = 1.0
    about = [math.log(season) / 3.0, math.log(longer) / 5.0, float(season == 1), float(longer != season), 1 / season]
    return {
        "raws": raw - np.array([[0], [season], [longer]]),
        "raw_phase": np.stack(phases, 1).astype(np.float32),
        "read": np.maximum(folded, 0),
        "bins": resampling(season, BINS),
        "agos": at[season:] - (np.array(AGO) @ [season, longer])[:, None],
        "begins": np.arange(judged),
        "latest": np.arange(season, season + judged),
        "drifts": at - np.array([0, longer, *drift_lags(season), *(longer + drift_lags(season))])[:, None],
        "recent": recent,
        "counted": counted,
        "about": np.array(about, np.float32)[None],
        **smoothing_tables(smoothed_steps(season), season if season <= LONGEST else 1, min(2 * season, 24)),
    }


@lru_cache(maxsize=64)
def tables_until(season: int, longer: int, horizon: int) -> Tables:
    """`tables_for` all steps up to a horizon."""
    return tables_for(season, longer, np.arange(1, horizon + 1))


def tables_for(season: int, longer: int, steps: Ints) -> Tables:
    """All that the graph is given beside the values, for a context of `reach` steps, in the order of TABLES."""
    every = {**fixed_tables(season, longer), **ahead_tables(season, longer, steps, reach(season, longer))}
    return {name: every[name] for name in TABLES}


def earlier_tables(season: int, longer: int, horizon: int) -> Tables:
    """What graphs of bases made earlier ask for besides, from what is given today."""
    now = tables_until(season, longer, horizon)
    counts, looked = now["counts"], now["looked"]
    return {
        "checked": now["drifts"][0],
        "lags": np.array([season, longer], np.int64),
        "look_season": looked[:NEWEST],
        "look_longer": looked[NEWEST : NEWEST + LONGER],
        "look_before": looked[-LONGER:],
        "raw": now["raws"][0],
        "sums": counts.reshape(len(counts), 3, -1)[:, :2].reshape(len(counts), -1),
    }


def resampling(season: int, bins: int) -> NDArray[np.float32]:
    """Weights (season, bin) that resample a season to so many values: means where it is longer, straight lines
    between where it is shorter."""
    weights = np.zeros((season, bins), np.float32)
    if season >= bins:
        edges = np.arange(bins + 1) * season / bins
        starts, ends = np.arange(season)[:, None], np.arange(1, season + 1)[:, None]
        shared = np.minimum(ends, edges[None, 1:]) - np.maximum(starts, edges[None, :-1])
        weights[:] = np.maximum(shared, 0.0)
        return weights / weights.sum(0)
    places = np.clip((np.arange(bins) + 0.5) * season / bins - 0.5, 0, season - 1)
    low = np.minimum(places.astype(np.int64), season - 1)
    high = np.minimum(low + 1, season - 1)
    share = places - low
    np.add.at(weights, (low, np.arange(bins)), 1.0 - share)
    np.add.at(weights, (high, np.arange(bins)), share)
    return weights
