"""Windows of series: all series end to end in one flat array, so that a batch of windows is one gather. Numpy only.

A window is a series' number and an `end`: the number of its steps that are known. Its context is the steps before
`end`, its target the `horizon` steps from `end` on. Steps outside the series count as missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.series import Ends, Series

if TYPE_CHECKING:
    from models.features import Beside

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DAMAGED = 0.15
GAPS = 0.6


@dataclass(frozen=True)
class Panel:
    """Series end to end, each from its first known value on, with `pad` missing cells before, between and after.

    `values` (cell,) float64 with 0 where missing; `present` (cell,); `firsts` (series,) the cell of each series' first
    step; `lengths` (series,) in steps; `skipped` (series,) leading steps without a value that were left out; `beside`
    what is known beside the target, where anything is.
    """

    values: Array
    present: Bools
    firsts: Ints
    lengths: Ints
    skipped: Ints
    beside: "Beside | None" = None

    @classmethod
    def of(cls, series: Sequence[Series], pad: int) -> "Panel":
        """The panel of `series`; `pad` must be at least the context and the horizon of the windows to be cut."""
        known = [~np.isnan(one.target) for one in series]
        skipped = np.array([int(np.argmax(k)) if k.any() else len(k) for k in known], np.int64)
        lengths = np.array([len(one.target) for one in series], np.int64) - skipped
        firsts = pad + np.concatenate([[0], np.cumsum(lengths + pad)[:-1]]).astype(np.int64)
        cells = int(pad + (lengths + pad).sum())
        values, present = np.zeros(cells), np.zeros(cells, np.bool_)
        for one, there, first, skip in zip(series, known, firsts, skipped, strict=True):
            place = slice(first, first + len(there) - skip)
            present[place] = there[skip:]
            values[place] = np.where(there[skip:], one.target[skip:], 0.0)
        return cls(values, present, firsts, lengths, skipped)

    def cut(self, which: Ints, ends: Ints, before: int, after: int) -> Array:
        """The values from `before` steps before each end to `after` steps past it, NaN = missing: (window, time)."""
        cells = (self.firsts[which] + ends)[:, None] + np.arange(-before, after)
        return np.where(self.present[cells], self.values[cells], np.nan)


def known_lengths(series: Sequence[Series]) -> Ints:
    """The number of steps of each series from its first known value on, (series,)."""
    known = [np.flatnonzero(~np.isnan(one.target)) for one in series]
    return np.array([len(one.target) - k[0] if len(k) else 0 for one, k in zip(series, known, strict=True)], np.int64)


def latest(series: Sequence[Series], context: int) -> tuple[Array, Bools]:
    """The last `context` steps of each series, right-aligned: values with 0 where missing, and which are present; both
    (series, context)."""
    values = np.full((len(series), context), np.nan)
    if isinstance(series, Ends):
        width = min(context, series.values.shape[1])
        values[:, context - width :] = series.values[:, series.values.shape[1] - width :]
    else:
        for row, one in zip(values, series, strict=True):
            tail = one.target[-context:]
            if len(tail):
                row[-len(tail) :] = tail
    present = ~np.isnan(values)
    values[~present] = 0.0
    return values, present


def held(lengths: Ints, horizon: int) -> Ints:
    """How many steps each series holds out for scoring, (series,): the horizon; a third of its steps where it is
    shorter than two horizons (at least one); none of a series of one step."""
    short = np.maximum(lengths // 3, 1)
    return np.where(lengths >= 2 * horizon, horizon, np.where(lengths >= 2, short, 0))


def held_out(lengths: Ints, horizon: int, origins: int = 1, step: int = 1) -> tuple[Ints, Ints]:
    """The windows scores are taken over: (which, ends), `origins` a series, `step` steps apart, the last one where the
    steps of `held` begin. Earlier ones are left out where fewer than `horizon` steps come before them."""
    last = lengths - held(lengths, horizon)
    which, ends = np.meshgrid(np.arange(len(lengths)), np.arange(origins)[::-1], indexing="ij")
    back = ends * step
    ends = last[:, None] - back
    usable = (held(lengths, horizon) > 0)[:, None] & ((back == 0) | (ends >= horizon))
    return which[usable], ends[usable]


@dataclass(frozen=True)
class Sampler:
    """Draws training windows. `which` (series,) are the series that can be drawn, `low` and `high` (series,) their
    first and last end, `phase` (series,) an end that has the phase of the newest origin, `season` in steps; `aligned`
    is the share of windows that have this phase too."""

    which: Ints
    low: Ints
    high: Ints
    phase: Ints
    season: int
    aligned: float

    @classmethod
    def of(cls, panel: Panel, limits: Ints, config: tuple[int, int, int, float]) -> "Sampler":
        """A sampler over the first `limits` (series,) steps of each series; `config` is context, horizon, season,
        aligned. Only series with two known values among them are drawn."""
        context, horizon, season, aligned = config
        counts = np.concatenate([[0], np.cumsum(panel.present)])
        known = counts[panel.firsts + limits] - counts[panel.firsts]
        which = np.flatnonzero((known >= 2) & (limits >= 2))
        last = limits[which]
        high = last - np.clip(last // 4, 1, horizon)  # targets of short series may run out
        low = np.minimum(max(1, min(context, 2 * season)), np.maximum(high // 2, 1))
        return cls(which, low, high, panel.lengths[which], season, aligned)

    def draw(self, random: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """`count` windows: (which, ends)."""
        chosen = random.integers(len(self.which), size=count)
        low, high = self.low[chosen], self.high[chosen]
        ends = low + (random.random(count) * (high - low + 1)).astype(np.int64)
        shifted = ends - (ends - self.phase[chosen]) % self.season
        shifted = np.where(shifted < low, shifted + self.season, shifted)
        take = (random.random(count) < self.aligned) & (shifted >= low) & (shifted <= high)
        return self.which[chosen], np.where(take, shifted, ends)


def spare(random: np.random.Generator, count: int, context: int) -> Bools:
    """Which steps of `count` contexts to keep for learning, (window, context). Most windows are kept whole; `DAMAGED`
    of them lose up to `GAPS` of their steps here and there, and as many a front of any length: a network that never
    saw a gap or a short history is worse than a naive forecast when it meets one. The newest step is never taken."""
    kept = np.ones((count, context), np.bool_)
    gapped = np.flatnonzero(random.random(count) < DAMAGED)
    rates = GAPS * random.random((len(gapped), 1))
    kept[gapped] = random.random((len(gapped), context)) >= rates
    cut = np.flatnonzero(random.random(count) < DAMAGED)
    kept[cut] &= np.arange(context) >= random.integers(context, size=(len(cut), 1))
    kept[:, -1] = True
    return kept
