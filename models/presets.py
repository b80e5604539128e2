"""What a preset picks where the config leaves a field open, from the calendar and the lengths of the series, with a
reason each. Scaling, base and aligned origins are checked on held-out origins by `training`; here are their first
guesses."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bases import Base
from models.calendar import Calendar
from models.config import TrainConfig
from models.features import cycles_of
from models.series import Series
from models.windows import known_lengths

HORIZONS = {"h": 48, "D": 14, "B": 10, "W": 13, "ME": 12, "MS": 12, "QS": 8, "QE": 8, "YS": 6, "YE": 6}
LADDER: Mapping[str, Mapping[str, Any]] = {
    "fast": {"members": 1, "steps": 500, "hidden": 96},
    "balanced": {"members": 5, "steps": 700, "hidden": 128},
    "thorough": {"members": 10, "steps": 1200, "hidden": 128},
}
CYCLES = {4: 12, 5: 12, 7: 16, 12: 6, 52: 3}  # seasons of context, by the season's length
SHORT_SEASON = 13  # up to which levels and trends are smoothed: longer seasons are looked up
CHEAP = 60_000  # points, below which a network learns in seconds
FEW = 600  # windows, below which networks are kept small
SEEN = 2000  # series whose values are looked at for zeros and counts, about
SMALL_COUNT = 20  # a median below it makes whole numbers counts
DAYS = (24, 48)  # seasons of a day's steps, which repeat too well to smooth
BOTH_BASES = 60  # steps of season, up to which smoothing and looking up are both tried
ALIGNED = 0.8  # share of origins at the newest one's place in the season, where that helps
LONGEST = 1500  # steps of context for two of the longer seasons, at most


@dataclass(frozen=True)
class Facts:
    """What is known about the data: its calendar and the length of each series in steps, (series,)."""

    calendar: Calendar
    lengths: NDArray[np.int64]
    positive: bool = False  # every known value is above 0
    covariates: bool = False  # there are some
    zeros: bool = False  # some values are 0 and none is below
    counts: bool = False  # all are whole numbers, mostly small ones, and none is below 0

    @classmethod
    def of(cls, calendar: Calendar, series: Sequence[Series]) -> "Facts":
        """The facts of `series`."""
        looked_at = series[:: 1 + len(series) // SEEN]
        known: list[NDArray[np.float64]] = [one.target[~np.isnan(one.target)] for one in looked_at]
        values = np.concatenate(known)
        usual = float(np.median(values)) if len(values) else 0.0
        positive = all(bool(np.all(one.target[~np.isnan(one.target)] > 0)) for one in series)
        least = min((float(np.nanmin(one.target)) for one in series), default=0.0)
        zeros = least == 0 and int(np.count_nonzero(values == 0)) >= 0.01 * len(values)
        counts = least >= 0 and bool(np.all(values == np.floor(values))) and usual < SMALL_COUNT
        covariates = any(one.past or one.future or one.static for one in series)
        return cls(calendar, known_lengths(series), positive, covariates, zeros, counts)

    @property
    def points(self) -> int:
        return int(self.lengths.sum())

    @property
    def reach(self) -> int:
        """A length that a quarter of the series reach."""
        return int(np.quantile(self.lengths, 0.75)) if len(self.lengths) else 0

    @property
    def usual(self) -> int:
        """A length that three quarters of the series reach."""
        return int(np.quantile(self.lengths, 0.25)) if len(self.lengths) else 0


def complete(config: TrainConfig, facts: Facts) -> tuple[TrainConfig, dict[str, str]]:
    """The config with every open field filled (bounds aside), and field -> reason of each that was."""
    reasons: dict[str, str] = {}

    def pick(name: str, value: Any, why: str) -> Any:
        given = getattr(config, name)
        if given is None:
            reasons[name] = f"{name} {value}: {why}."
            return value
        return given

    frequency, rung = facts.calendar.frequency, LADDER[config.preset]
    season = pick("season", frequency.season, f"the main season of frequency {frequency.name}")
    horizon = pick(
        "horizon", _horizon(frequency.name, season, facts), "usual for the frequency, at most a third of a usual series"
    )
    segment, context = _context(config, season, horizon, facts)
    segment = pick("segment", segment, "a part of the season, eaten by one recurrent step")
    context = pick("context", context, "several seasons, as far as the longer series reach")
    read = pick("read", _read(context, segment, horizon, facts), "as far back as most windows to learn from reach")
    windows = max(1, facts.points - len(facts.lengths) * horizon)
    small = windows < FEW
    smooth = season <= SHORT_SEASON
    base = "smooth" if smooth and not _surprising(season, horizon, facts) else "mix"
    filled = {
        "season": season,
        "horizon": horizon,
        "segment": segment,
        "context": context,
        "read": read,
        "cell": pick("cell", "gru", "the usual choice"),
        "layers": pick("layers", 1, "more gain little"),
        "hidden": pick("hidden", 32 if small else 64 if smooth else rung["hidden"], f"{windows} windows to learn from"),
        "scaling": pick("scaling", "std" if season > 1 else "last", "seasonal data" if season > 1 else "no season"),
        "base": pick("base", base, "levels and trends" if base == "smooth" else "cycles of the season"),
        "steps": pick("steps", rung["steps"] * 3 // 4 if smooth else rung["steps"], f"preset {config.preset}"),
        "batch": pick("batch", 64 if small else 128, f"{windows} windows to learn from"),
        "learning_rate": pick("learning_rate", 3e-3 if small else 6e-3, f"{windows} windows to learn from"),
        "patience": pick("patience", 6, "looks at the held-out steps without improvement"),
        "head": pick("head", "quantile", "any distribution"),
        "members": pick("members", _members(rung["members"], facts), f"preset {config.preset}"),
        "calendar": pick("calendar", False, "not used"),
        "covariates": pick("covariates", facts.covariates, "as the series have some" if facts.covariates else "none"),
        "aligned": pick("aligned", 0.0, "training origins lie anywhere in the season"),
    }
    if config.minimum is None and facts.zeros and (config.maximum is None or config.maximum > 0):
        filled["minimum"] = 0.0
        reasons["minimum"] = "minimum 0: the series have zeros and nothing below."
    return config.replace(**filled), reasons


def options(asked: TrainConfig, full: TrainConfig, facts: Facts) -> dict[str, tuple[Any, ...]]:
    """The fields that `asked` left open and short runs should decide, with their options."""
    found: dict[str, tuple[Any, ...]] = {}
    if asked.scaling is None:
        counted = facts.counts and asked.head is None  # the head for counts may be chosen, which takes no logarithms
        log = facts.positive and full.head != "negative_binomial" and not counted
        found["scaling"] = ("std", "last", "mean", "log") if log else ("std", "last", "mean")
    if asked.head is None and facts.counts and full.scaling != "log":
        found["head"] = ("quantile", "negative_binomial")
    shown = not _surprising(full.season or 1, full.horizon or 1, facts)
    if asked.base is None and (full.season or 1) > 1 and smoothable(full.season or 1) and shown:
        found["base"] = ("smooth", "mix")
    if asked.aligned is None and (full.season or 1) > 1 and facts.usual >= 20 * (full.season or 1):
        found["aligned"] = (0.0, ALIGNED)
    short = facts.calendar.frequency.unit in {"s", "min", "h", "D", "B"}  # the year is no season of theirs
    if asked.calendar is None and short and "year" in cycles_of(facts.calendar, facts.usual):
        found["calendar"] = (False, True)
    return found


def members_of(asked: TrainConfig, full: TrainConfig, facts: Facts, scalings: Sequence[str]) -> list[TrainConfig]:
    """The configs of the networks a version is made of, the first the complete `full` one itself. The others differ
    in what `asked` left open: cell, scaling (`scalings`, the better ones first), base and context. Where levels and
    trends are smoothed, one that learns nothing stands beside them."""
    segment, context, read = full.segment or 1, full.context or 1, full.read or 1
    shown = not _surprising(full.season or 1, full.horizon or 1, facts)
    smooth = asked.base is None and smoothable(full.season or 1) and shown
    longer = context * 2 if facts.usual >= 5 * context else context
    least = min(context, max(context // 2, 2 * (full.horizon or 1)))
    shorter = max(segment, least // segment * segment)
    lined: list[TrainConfig] = []
    for place in range(full.members or 1):
        changes: dict[str, Any] = {"seed": full.seed + place}
        if asked.cell is None:
            changes["cell"] = ("gru", "gru", "lstm", "gru", "lstm")[place % 5]
        if asked.scaling is None and scalings:
            changes["scaling"] = scalings[place % len(scalings)]
        if smooth and (full.season or 1) > 1 and place % 3 == 2:
            changes["base"] = "mix" if full.base == "smooth" else "smooth"
        if asked.read is None and read < context and place % 4 == 2:
            changes["read"] = min(context, 2 * read)
        if asked.read is None and asked.context is None and read == context:
            changes["context"] = changes["read"] = (context, context, context, shorter, longer)[place % 5]
        lined.append(full.replace(members=1, **changes))
    if smooth and asked.members is None and full.steps:
        log = facts.positive and full.head != "negative_binomial"
        scaling = asked.scaling or ("log" if log else "last")
        lined.append(full.replace(members=1, steps=0, scaling=scaling, base="smooth"))
    return lined


def smoothable(season: int) -> bool:
    """Whether levels and trends, and a season taken from them, can be fitted to windows in short time, and to some
    use."""
    return season <= BOTH_BASES and season not in DAYS


def _surprising(season: int, horizon: int, facts: Facts) -> bool:
    """Whether usual series show a season twice when asked, but not even the longer ones do while learning: smoothing
    would then add a season to that which the network has learned to make up for (125 made monthly series of 40 steps:
    MASE 1.94 instead of 0.89, seasonal naive 1.03)."""
    return season > 1 and season <= facts.usual - 2 * horizon and facts.reach - 2 * horizon <= 2 * season


def _horizon(name: str, season: int, facts: Facts) -> int:
    usual = HORIZONS.get(name.split("-", 1)[0], min(max(season, 12), 96))
    return int(max(1, min(usual, facts.usual // 3)))


def _members(usual: int, facts: Facts) -> int:
    """More networks where they cost little and chance counts for much: each is a draw."""
    return usual if usual == 1 or facts.points >= CHEAP else usual * 8 // 5


def _read(context: int, segment: int, horizon: int, facts: Facts) -> int:
    """How much of a context the network reads: all, unless a usual series has few windows that fill it. A network that
    hardly ever saw a full context is at a loss when it is asked with one."""
    filled = (facts.usual - 2 * horizon) * 3 // 5
    wanted = max(filled, 2 * max(segment, facts.calendar.frequency.season), 8)
    return min(context, max(segment, wanted // segment * segment))


def _context(config: TrainConfig, season: int, horizon: int, facts: Facts) -> tuple[int, int]:
    """Segment and context. A segment is the largest part of a season of up to 24 steps; the context some seasons, two
    of the longer ones where there are any, as far as the longer series leave room for a horizon, or half of one."""
    reach = facts.reach
    if season == 1:
        segment, wanted = (4, min(96, reach // 8)) if facts.usual >= 200 else (1, 32)
    else:
        segment = max(size for size in range(1, 25) if season % size == 0)
        wanted = season * CYCLES.get(season, 4 if season <= 12 else 14)
        longer = max(facts.calendar.frequency.seasons)
        if longer % season == 0 and season < longer <= LONGEST // 2:
            wanted = 2 * longer
    given = math.gcd(config.context or 0, config.read or 0)  # 0: nothing
    segment = config.segment or max(size for size in range(1, segment + 1) if given % size == 0)
    if config.context is not None:
        return segment, config.context
    room = reach if season <= SHORT_SEASON else max(reach - horizon, reach // 2)
    context = max(1, min(max(wanted, 2 * horizon), room), config.read or 1)
    if config.segment is None:
        segment = min(segment, context)
    return segment, max(segment, context // segment * segment)


def bases_of(config: TrainConfig, calendar: Calendar) -> tuple[Base, ...]:
    """The bases of a complete config, those whose period the context holds; the newest value where that is none of
    them. `mix` is the newest value and, of every season, the newest cycle and the fading mean of all."""
    context, season = config.context or 1, config.season or 1
    if config.base == "none":
        return ()
    longer = tuple(period for period in calendar.frequency.seasons if period > season)
    mixed = [Base(kind, period) for period in (season, *longer) if period > 1 for kind in ("newest", "mean")]
    wanted: list[Base] = {
        "naive": [],
        "seasonal": [Base("newest", season)],
        "mix": [*mixed, Base("newest", 1)],
        "smooth": [Base("smooth", season), *([Base("newest", season)] if season > 1 else [])],
    }[config.base or "mix"]
    return tuple(base for base in wanted if base.kind == "smooth" or base.period <= context) or (Base("newest", 1),)
