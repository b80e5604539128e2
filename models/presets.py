"""What a preset picks where the config leaves a field open, from the calendar and the lengths of the series, with a
reason each. Scaling, base and aligned origins are checked on held-out origins by `training`; here are their first
guesses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bases import Base
from models.calendar import Calendar
from models.config import TrainConfig
from models.series import Series
from models.windows import known_lengths

HORIZONS = {"h": 48, "D": 14, "B": 10, "W": 13, "ME": 12, "MS": 12, "QS": 8, "QE": 8, "YS": 6, "YE": 6}
LADDER: Mapping[str, Mapping[str, Any]] = {
    "fast": {"steps": 800, "hidden": 128, "layers": 1},
    "balanced": {"steps": 2000, "hidden": 128, "layers": 2},
    "thorough": {"steps": 5000, "hidden": 192, "layers": 2},
}
LONGEST = 1500  # steps of context for two of the longer seasons, at most


@dataclass(frozen=True)
class Facts:
    """What is known about the data: its calendar and the length of each series in steps, (series,)."""

    calendar: Calendar
    lengths: NDArray[np.int64]
    positive: bool = False  # every known value is above 0
    covariates: bool = False  # there are some

    @classmethod
    def of(cls, calendar: Calendar, series: Sequence[Series]) -> "Facts":
        """The facts of `series`."""
        positive = all(bool(np.all(one.target[~np.isnan(one.target)] > 0)) for one in series)
        covariates = any(one.past or one.future or one.static for one in series)
        return cls(calendar, known_lengths(series), positive, covariates)

    @property
    def points(self) -> int:
        return int(self.lengths.sum())

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
    context = pick("context", context, "several seasons, as far as the series reach")
    windows = max(1, facts.points - len(facts.lengths) * horizon)
    small = windows < 5000
    filled = {
        "season": season,
        "horizon": horizon,
        "segment": segment,
        "context": context,
        "cell": pick("cell", "gru", "the usual choice"),
        "layers": pick("layers", 1 if small else rung["layers"], f"preset {config.preset}"),
        "hidden": pick(
            "hidden", 32 if windows < 500 else 64 if small else rung["hidden"], f"{windows} windows to learn from"
        ),
        "scaling": pick("scaling", "std" if season > 1 else "last", "seasonal data" if season > 1 else "no season"),
        "base": pick("base", "mix" if season > 1 else "naive", "the network corrects it"),
        "steps": pick("steps", rung["steps"] // 2 if small else rung["steps"], f"preset {config.preset}"),
        "batch": pick("batch", 64 if small else 256, f"{windows} windows to learn from"),
        "learning_rate": pick("learning_rate", 2e-3, "the usual choice"),
        "patience": pick("patience", 6, "looks at the held-out steps without improvement"),
        "head": pick("head", "quantile", "any distribution"),
        "members": pick("members", 1, f"preset {config.preset}"),
        "calendar": pick("calendar", False, "not used"),
        "covariates": pick("covariates", facts.covariates, "as the series have some" if facts.covariates else "none"),
        "aligned": pick("aligned", 0.0, "training origins lie anywhere in the season"),
    }
    return config.replace(**filled), reasons


def options(asked: TrainConfig, full: TrainConfig, facts: Facts) -> dict[str, tuple[Any, ...]]:
    """The fields that `asked` left open and short runs should decide, with their options."""
    found: dict[str, tuple[Any, ...]] = {}
    if asked.scaling is None:
        log = facts.positive and full.head != "negative_binomial"
        found["scaling"] = ("std", "last", "mean", "log") if log else ("std", "last", "mean")
    if asked.aligned is None and (full.season or 1) > 1 and facts.usual >= 20 * (full.season or 1):
        found["aligned"] = (0.0, 0.5)
    return found


def members_of(config: TrainConfig) -> list[TrainConfig]:
    """The configs of a version's networks, the first the version's own."""
    return [config.replace(members=1, seed=config.seed + place) for place in range(config.members or 1)]


def _horizon(name: str, season: int, facts: Facts) -> int:
    usual = HORIZONS.get(name.split("-", 1)[0], min(max(season, 12), 96))
    return int(max(1, min(usual, facts.usual // 3)))


def _context(config: TrainConfig, season: int, horizon: int, facts: Facts) -> tuple[int, int]:
    """Segment and context. A segment is the largest part of a season of up to 24 steps; the context some seasons, two
    of the longer ones where there are any, as far as a usual series leaves room for a horizon, or half of one."""
    usual = facts.usual
    if season == 1:
        segment, wanted = (4, min(96, usual // 8)) if usual >= 200 else (1, 24)
    else:
        segment = max(size for size in range(1, 25) if season % size == 0)
        wanted = season * {5: 8, 7: 8, 52: 3}.get(season, 4 if season <= 12 else 14)
        longer = max(facts.calendar.frequency.seasons)
        if longer % season == 0 and season < longer <= LONGEST // 2:
            wanted = 2 * longer
    segment = config.segment or segment
    if config.context is not None:
        if config.segment is None:
            segment = max(size for size in range(1, segment + 1) if config.context % size == 0)
        return segment, config.context
    context = max(1, min(wanted, max(usual - horizon, usual // 2)))
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
