"""What is settled on held-out steps once the members have learned: which of them count, how wide the intervals must be,
and how much neighbouring steps of a sample path have in common."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.forecaster import AnyMember, Forecaster, inputs_of, middle, mirrored
from models.quantiles import scores_of
from models.windows import Panel

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

WORSE = 1.1  # times the best member's loss: a member above is left out
BAND = 150  # windows for each stretch of the horizon that has a factor of its own
BANDS = 6
DOUBTED = 20.0  # windows that a factor of 1 counts for
WIDEST = 6.0
SKEWS = (0.0, 0.5, 1.0)  # the first is taken where nothing tells them apart
CHUNK = 128  # windows a forward: with the base each takes a fifth of a megabyte or more


@dataclass(frozen=True)
class Mixture:
    """Members, their shares (member,), the loss of each (member,) and of all together, the skew (see `evened`) and the
    stretch (horizon, level) of the mix and what its neighbouring steps have in common."""

    members: Sequence[AnyMember[Any]]
    shares: Array
    losses: Array
    loss: float
    skew: float
    stretch: Array
    dependence: float


@dataclass(frozen=True)
class Judges:
    """Windows (which, ends) to judge by, their truth (window, horizon), NaN = unknown, and what an error of one counts
    in each, (window,). `seen`: the version to start from has learned from most of it."""

    panel: Panel
    windows: tuple[Ints, Ints]
    truth: Array
    units: Array
    seen: bool
    levels: tuple[float, ...]

    @property
    def count(self) -> float:
        """The number of windows without what they share."""
        which, ends = self.windows
        horizon = self.truth.shape[1]
        cells = (self.panel.firsts[which] + ends)[:, None] + np.arange(horizon)
        return len(np.unique(cells[np.isfinite(self.truth)])) / horizon

    def mixture(self, members: Sequence[AnyMember[Any]]) -> Mixture:
        """The best of `members` averaged and calibrated."""
        quantiles = self.asked(members)
        return self.calibrated(members, quantiles, choose(quantiles, self.truth, self.units, self.levels)[0])

    def asked(self, members: Sequence[AnyMember[Any]]) -> Array:
        """Each member's quantiles for the windows, (member, window, horizon, level)."""
        return ask(members, self.panel, self.windows)

    def losses(self, quantiles: Array) -> Array:
        """The loss (member,) of each member's `quantiles` (member, window, horizon, level)."""
        return np.array([loss_of(own, self.truth, self.units, self.levels) for own in quantiles])

    def calibrated(self, members: Sequence[AnyMember[Any]], quantiles: Array, shares: Array) -> Mixture:
        """The `members`, which forecast `quantiles`, averaged by their `shares` (member,) and calibrated."""
        plain = np.tensordot(shares, quantiles, axes=1)
        tried: list[tuple[float, float, Array]] = []
        for skew in SKEWS if mirrored(self.levels) else (1.0,):
            mixed = evened(plain, skew, self.levels)
            widen = stretch(mixed, self.truth, self.levels)
            tried.append((self._loss(mixed, widen), skew, widen))
        loss, skew, widen = min(tried, key=lambda one: one[0])
        link = dependence(evened(plain, skew, self.levels), self.truth, self.levels)
        return Mixture(members, shares, self.losses(quantiles), loss, skew, widen, link)

    def untouched(self, members: Sequence[AnyMember[Any]], quantiles: Array, shares: Array) -> Mixture:
        """The same with the members' own intervals."""
        plain = np.tensordot(shares, quantiles, axes=1)
        widen = np.ones((self.truth.shape[1], len(self.levels)))
        link = dependence(plain, self.truth, self.levels)
        return Mixture(members, shares, self.losses(quantiles), self._loss(plain, widen), 1.0, widen, link)

    def taken(self, members: Sequence[AnyMember[Any]], shares: Array, version: Forecaster, link: float) -> Mixture:
        """`members` with the shares given, calibrated as `version` is, and the dependence given."""
        skew, widen, shares = float(version.skew), version.stretch.numpy(), shares / shares.sum()
        quantiles = ask(members, self.panel, self.windows)
        losses = choose(quantiles, self.truth, self.units, self.levels)[1]
        mixed = evened(np.tensordot(shares, quantiles, axes=1), skew, self.levels)
        return Mixture(members, shares, losses, self._loss(mixed, widen), skew, widen, link)

    def _loss(self, mixed: Array, widen: Array) -> float:
        place = middle(self.levels)
        centre = mixed[..., place : place + 1]
        return loss_of(centre + (mixed - centre) * widen, self.truth, self.units, self.levels)


def ask(members: Sequence[AnyMember[Any]], panel: Panel, windows: tuple[Ints, Ints]) -> Array:
    """Each member's quantiles for `windows` (which, ends), (member, window, horizon, level) in the data's units."""
    which, ends = windows
    context = max(member.config.context or 1 for member in members)
    if not len(which):
        config = members[0].config
        return np.zeros((len(members), 0, config.horizon or 1, len(config.quantiles)))
    found: list[list[Array]] = [[] for _ in members]
    for at in range(0, len(which), CHUNK):
        part = which[at : at + CHUNK], ends[at : at + CHUNK]
        inputs = inputs_of(panel, part, (context, members[0].config.horizon or 1), members[0].design)
        for member, own in zip(members, found, strict=True):
            with torch.no_grad():
                own.append(member.cpu().eval()(inputs).numpy())
    return np.stack([np.concatenate(own) for own in found])


def choose(quantiles: Array, truth: Array, units: Array, levels: Sequence[float]) -> tuple[Array, Array]:
    """The members' shares (member,): the same for those whose loss is close to the best one's, else 0; and each one's
    loss (member,). `quantiles` (member, window, horizon, level), `truth` (window, horizon), `units` (window,) what an
    error of one counts in each window. Shares fitted to the windows (Caruana et al. 2004) did worse on later steps."""
    losses = np.array([loss_of(own, truth, units, levels) for own in quantiles])
    good = losses <= WORSE * losses.min()
    if not good.any():
        good[:] = True
    return good / good.sum(), losses


def loss_of(quantiles: Array, truth: Array, units: Array, levels: Sequence[float]) -> float:
    """Twice the mean pinball loss of `quantiles` (window, horizon, level), 1 where nothing of the truth is known."""
    level, error = np.asarray(levels), truth[..., None] - quantiles
    pinball = np.maximum(level * error, (level - 1.0) * error).mean(-1) * units[:, None]
    return 2.0 * float(np.nanmean(pinball)) if np.isfinite(truth).any() else 1.0


def evened(quantiles: Array, skew: float, levels: tuple[float, ...]) -> Array:
    """The quantiles with distances from the median between their own (`skew` 1) and the mean of theirs and the mirrored
    level's (0). Where learned lopsidedness is chance or of its time, even intervals are better ones."""
    if not mirrored(levels):
        return quantiles
    place = middle(levels)
    away = quantiles - quantiles[..., place : place + 1]
    return quantiles[..., place : place + 1] + away * (1.0 + skew) / 2.0 - away[..., ::-1] * (1.0 - skew) / 2.0


def stretch(quantiles: Array, truth: Array, levels: tuple[float, ...]) -> Array:
    """Factors (horizon, level) for each quantile's distance from the median, so that the interval between the outermost
    tenths holds its share of the truth in the windows given: split conformal prediction with the distance as the score
    (Romano, Patterson and Candès 2019). `quantiles` (window, horizon, level), `truth` (window, horizon), NaN = unknown.
    Few windows count for little."""
    horizon, place = truth.shape[1], middle(levels)
    factors = np.ones((horizon, len(levels)))
    count = int(np.any(np.isfinite(truth), axis=1).sum())
    if count == 0 or not 0 < place < len(levels) - 1:
        return factors
    known_levels = np.array(levels)
    low = int(np.argmin(np.abs(known_levels[:place] - 0.1)))
    high = place + 1 + int(np.argmin(np.abs(known_levels[place + 1 :] - 0.9)))
    centre = quantiles[..., place]
    width = np.where(truth < centre, centre - quantiles[..., low], quantiles[..., high] - centre)
    known = np.isfinite(truth) & (width > 0)
    ratio = np.where(known, np.abs(truth - centre) / np.where(width > 0, width, 1.0), np.nan)
    for band in np.array_split(np.arange(horizon), min(horizon, BANDS, max(1, count // BAND))):
        own = np.sort(ratio[:, band][known[:, band]])
        if len(own) < 10:
            continue
        rank = min(len(own), int(np.ceil((len(own) + 1) * (levels[high] - levels[low]))))
        found = float(np.clip(own[rank - 1], 1.0 / WIDEST, WIDEST))
        factors[band] = found ** (count / (count + DOUBTED))
    factors[:, place] = 1.0
    return factors


def dependence(quantiles: Array, truth: Array, levels: tuple[float, ...]) -> float:
    """How the normal scores of neighbouring steps' truths correlate under the forecasts, 0 to 0.99: what sample paths
    are drawn with."""
    if len(levels) < 2:
        return 0.0
    scores = scores_of(truth, quantiles, levels)
    first, second = scores[:, :-1].ravel(), scores[:, 1:].ravel()
    both = ~np.isnan(first) & ~np.isnan(second)
    if np.count_nonzero(both) < 8 or not first[both].std() or not second[both].std():
        return 0.0
    return float(np.clip(np.corrcoef(first[both], second[both])[0, 1], 0.0, 0.99))
