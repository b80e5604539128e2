"""What a preset picks where the config leaves a field open, from the calendar and the lengths of the series, with a
reason each. Scaling, base and aligned origins are checked on held-out origins by `training`; here are their first
guesses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bases import Base
from models.calendar import Calendar
from models.config import TrainConfig

HORIZONS = {"h": 48, "D": 14, "B": 10, "W": 13, "ME": 12, "MS": 12, "QS": 8, "QE": 8, "YS": 6, "YE": 6}
LADDER: Mapping[str, Mapping[str, Any]] = {
    "fast": {"steps": 800, "hidden": 128, "layers": 1},
    "balanced": {"steps": 2000, "hidden": 128, "layers": 2},
    "thorough": {"steps": 5000, "hidden": 192, "layers": 2},
}
EVALUATIONS = 20  # looks at the held-out origins in a whole run


@dataclass(frozen=True)
class Facts:
    """What is known about the data: its calendar and the length of each series in steps, (series,)."""

    calendar: Calendar
    lengths: NDArray[np.int64]

    @property
    def points(self) -> int:
        return int(self.lengths.sum())

    @property
    def usual(self) -> int:
        """A length that three quarters of the series reach."""
        return int(np.quantile(self.lengths, 0.25)) if len(self.lengths) else 0


def complete(config: TrainConfig, facts: Facts) -> tuple[TrainConfig, list[str]]:
    """The config with every open field filled (bounds aside), and a sentence for each that was."""
    reasons: list[str] = []

    def pick(name: str, value: Any, why: str) -> Any:
        given = getattr(config, name)
        if given is None:
            reasons.append(f"{name} {value}: {why}.")
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
        "patience": pick("patience", 8, f"of {EVALUATIONS} looks at the held-out origins"),
        "aligned": pick(
            "aligned",
            0.5 if season > 1 and len(facts.lengths) > 20 else 0.0,
            "share of origins at the season's place of the newest one",
        ),
    }
    return config.replace(**filled), reasons


def _horizon(name: str, season: int, facts: Facts) -> int:
    usual = HORIZONS.get(name.split("-", 1)[0], min(max(season, 12), 96))
    return int(max(1, min(usual, facts.usual // 3)))


def _context(config: TrainConfig, season: int, horizon: int, facts: Facts) -> tuple[int, int]:
    """Segment and context: 14 seasons of up to a day of hours, fewer of longer ones, and half a usual series at
    most."""
    segment = config.segment or max(size for size in range(1, 25) if season % size == 0)
    if config.context is not None:
        if config.segment is None and config.context % segment:
            segment = max(size for size in range(1, segment + 1) if config.context % size == 0)
        return segment, config.context
    wanted = 24 if season == 1 else season * (14 if season <= 24 else 3)
    if 4 <= season <= 12:
        wanted = season * (8 if season in (5, 7) else 4)
    room = max(1, facts.usual - horizon, facts.usual // 2)
    context = max(1, min(wanted, room))
    if context < segment:
        segment = context if config.segment is None else segment
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
    }[config.base or "mix"]
    return tuple(base for base in wanted if base.period <= context) or (Base("newest", 1),)
