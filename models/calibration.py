"""What is settled on held-out steps once the members have learned: which of them count, how wide the intervals must be,
and how much neighbouring steps of a sample path have in common."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.forecaster import Inputs, Member, middle
from models.quantiles import scores_of
from models.windows import Panel

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

WORSE = 1.08  # times the best member's loss: a member above is left out
BAND = 150  # windows for each stretch of the horizon that has a factor of its own
BANDS = 6
DOUBTED = 20.0  # windows that a factor of 1 counts for
WIDEST = 6.0
CHUNK = 512


def ask(members: Sequence[Member], panel: Panel, windows: tuple[Ints, Ints]) -> Array:
    """Each member's quantiles for `windows` (which, ends), (member, window, horizon, level) in the data's units."""
    which, ends = windows
    context = max(member.config.context or 1 for member in members)
    found: list[list[Array]] = [[] for _ in members]
    for at in range(0, len(which), CHUNK):
        values = panel.cut(which[at : at + CHUNK], ends[at : at + CHUNK], context, 0)
        present = ~np.isnan(values)
        inputs = Inputs(torch.from_numpy(np.where(present, values, 0.0)), torch.from_numpy(present).float())
        for member, own in zip(members, found, strict=True):
            with torch.no_grad():
                own.append(member.cpu().eval()(inputs).numpy())
    return np.stack([np.concatenate(own) for own in found])


def choose(quantiles: Array, truth: Array, units: Array, levels: Sequence[float]) -> tuple[Array, Array]:
    """The members' shares (member,), and each one's loss (member,): equal for those whose loss is close to the best
    one's, else 0. `quantiles` (member, window, horizon, level), `truth` (window, horizon), `units` (window,) what an
    error of one counts in each window."""
    level = np.asarray(levels)
    losses = np.empty(len(quantiles))
    for place, own in enumerate(quantiles):
        error = truth[..., None] - own
        pinball = np.maximum(level * error, (level - 1.0) * error).mean(-1) * units[:, None]
        losses[place] = 2.0 * float(np.nanmean(pinball)) if np.isfinite(truth).any() else 1.0
    good = losses <= WORSE * losses.min()
    if not good.any():
        good[:] = True
    return good / good.sum(), losses


def stretch(quantiles: Array, truth: Array, levels: tuple[float, ...]) -> Array:
    """Factors (horizon, level) for each quantile's distance from the median, so that the outermost tenths hold their
    share of the truth in the windows given: split conformal prediction with the distance as the score (Romano,
    Patterson and Candès 2019), on each side of the median. `quantiles` (window, horizon, level), `truth` (window,
    horizon), NaN = unknown. Few windows count for little."""
    horizon, place = truth.shape[1], middle(levels)
    factors = np.ones((horizon, len(levels)))
    count = int(np.any(np.isfinite(truth), axis=1).sum())
    if count == 0:
        return factors
    bands = np.array_split(np.arange(horizon), min(horizon, BANDS, max(1, count // BAND)))
    centre = quantiles[..., place]
    for sign, side in ((-1.0, np.arange(place)), (1.0, np.arange(place + 1, len(levels)))):
        if not len(side):
            continue
        outer = side[int(np.argmin(np.abs(np.array(levels)[side] - (0.5 + 0.4 * sign))))]
        share = max(levels[outer], 1.0 - levels[outer])
        width = sign * (quantiles[..., outer] - centre)
        known = np.isfinite(truth) & (width > 0)
        ratio = np.where(known, sign * (truth - centre) / np.where(width > 0, width, 1.0), np.nan)
        for band in bands:
            own = np.sort(ratio[:, band][known[:, band]])
            if len(own) < 10:
                continue
            rank = min(len(own), int(np.ceil((len(own) + 1) * share)))
            found = float(np.clip(own[rank - 1], 1.0 / WIDEST, WIDEST))
            factors[np.ix_(band, side)] = found ** (count / (count + DOUBTED))
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
