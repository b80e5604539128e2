"""Exponential smoothing as closed-form sums: levels and trends fitted to each window by discounted least squares, with
its season taken out, and what each would have missed by inside the window. No recursion, no optimiser: two matrix
products answer for all windows and all smoothing constants at once, gaps included, inside the exported graph.

A level with decay d is the mean of the past, each value weighing d times the one after it: simple exponential smoothing
with constant 1 - d (Brown 1959). A trend is the slope of the line fitted with such weights (general exponential
smoothing, Brown 1963), damped ahead (Gardner and McKenzie 1985) or taken by half (the theta method, Assimakopoulos and
Nikolopoulos 2000; Hyndman and Billah 2003). The season is classical decomposition, shrunk by how much of it is noise.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
import torch
from torch import Tensor, nn

from models.filters import DECAYS, KNOWN, LEVELS, SHARES, TRENDS, reaches, smoothing_tables

TRUSTED = 10  # values from which on a slope is believed in full
WARY = 10.0  # of trends, over the square of the number of errors
NOTHING = 1e-9

Given = Mapping[str, Tensor]


class Judged(NamedTuple):
    """What each filter would have said inside the window, `guess` (batch, channel, pair, filter), and the `truth`
    (batch, channel, pair, 1), both without the `season` (batch, channel, pair, 1) that they share; `counts` (batch, 1,
    pair) is 1 where it counts."""

    truth: Tensor
    guess: Tensor
    season: Tensor
    counts: Tensor

    def doubt(self, error: Tensor, least: Tensor | None = None) -> Tensor:
        """The logarithm of the mean `error` (batch, channel, pair, filter), (batch, channel, filter), of none below
        `least` (batch, 1, 1). Few errors say little: each filter starts from the mean of all as if from two errors, a
        trend from more."""
        missed, count = (error * self.counts[..., None]).sum(-2), self.counts.sum(-1, keepdim=True)
        usual = missed.mean(-1, keepdim=True)
        mean = (missed + 2.0 * usual / count.clamp_min(1.0)) / (count + 2.0)
        return trusted(mean.clamp_min(NOTHING) if least is None else torch.maximum(mean, least), count)


def trusted(mean: Tensor, count: Tensor) -> Tensor:
    """The logarithm of each filter's `mean` error (…, filter) of `count` (…, 1): a trend is trusted less."""
    trends = torch.tensor([share > 0 for share in SHARES], dtype=mean.dtype, device=mean.device)
    return mean.log() + trends * WARY / (count + 1.0) ** 2


class Smoothing(nn.Module):
    """All FILTERS for windows of `time` steps with a season of `season` (1: none), `horizon` steps ahead."""

    def __init__(self, time: int, season: int, horizon: int) -> None:
        super().__init__()
        self.time = time
        tables = smoothing_tables(time, season, horizon)
        period = tables["folded"].shape[1]
        tables |= {"reach": reaches(list(range(1, horizon + 1)))}
        tables |= {"outside": np.arange(horizon) % period}
        self.names = tuple(tables)
        for name, values in tables.items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def forward(self, context: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What each filter says, (batch, horizon, filter), and the logarithm of its mean error inside the window,
        (batch, filter). `context` (batch, time) 0 where missing, `mask` alike, 1 where present."""
        tables: dict[str, Tensor] = {name: getattr(self, name) for name in self.names}
        known = {name: fitting(table, context) for name, table in tables.items()}
        ahead, found = smooth(context[:, None], mask[:, None], known)
        if not len(tables["places"]):  # too short a window: ONNX Runtime cannot sum over nothing
            return ahead[:, 0], trusted(torch.full_like(ahead[:, 0, 0], NOTHING), torch.zeros_like(mask[:, :1]))
        return ahead[:, 0], found.doubt((found.truth - found.guess).abs())[:, 0]


def fitting(table: Tensor, like: Tensor) -> Tensor:
    """A table in the precision of the values it meets; one of places as it is."""
    return table.to(like.dtype) if table.is_floating_point() else table


def smooth(context: Tensor, mask: Tensor, given: Given) -> tuple[Tensor, Judged]:
    """What each filter says, (batch, channel, horizon, filter), and what it would have said inside the window.
    `context` (batch, channel, time) are series that are known at the same steps, `mask` (batch, 1, time). `given` are
    the tables of `smoothing_tables`, with `reach` (filter, horizon) and the place in the season `outside` (horizon,) of
    each step asked for."""
    season = seasonal(context, mask, given)  # (batch, channel, season)
    rest = (context - season[..., given["inside"]]) * mask
    level, slope, known = fits(rest, mask, given)  # (batch, channel, end, filter)
    ahead = level[:, :, -1:] + slope[:, :, -1:] * given["reach"].T
    ahead = ahead + season[..., given["outside"], None]
    places, origins = given["places"], given["origins"]
    guess = level[:, :, origins] + slope[:, :, origins] * given["judged"].T  # (batch, channel, pair, filter)
    counts = mask[..., places] * (known[..., origins] >= KNOWN)
    return ahead, Judged(rest[..., places, None], guess, season[..., given["inside"][places], None], counts)


def fits(rest: Tensor, mask: Tensor, given: Given) -> tuple[Tensor, Tensor, Tensor]:
    """Level and slope at each end, (batch, channel, end, filter), and how many values were known (batch, 1, end).
    `rest` (batch, channel, time) has no season."""
    ends, channels = given["ends"], int(rest.shape[1])
    powers = torch.cat([mask, rest], 1) @ given["counts"]  # one look at the largest table
    counts, sums = powers.reshape(-1, 1 + channels, 3, len(DECAYS), ends.shape[0]).split([1, channels], 1)
    n, t, tt = counts[:, :, 0], counts[:, :, 1], counts[:, :, 2]
    total, moment = sums[:, :, 0], sums[:, :, 1]
    room = n * tt - t**2
    slope = torch.where(room > 1e-6, (n * moment - t * total) / room.clamp_min(NOTHING), 0.0)
    counted = n.clamp_min(NOTHING)
    known = mask.cumsum(2)[..., ends]
    believed = ((known - 1.0) / (TRUSTED - 1.0)).clamp(0.0, 1.0)[:, :, None]
    shares = torch.tensor(SHARES, dtype=rest.dtype, device=rest.device)
    slope = slope[:, :, TRENDS] * shares[:, None] * believed
    level = (total / counted)[:, :, LEVELS] - slope * (t / counted)[:, :, LEVELS]  # the mean lies as far back
    return level.transpose(2, 3), slope.transpose(2, 3), known


def seasonal(context: Tensor, mask: Tensor, given: Given) -> Tensor:
    """What each place of the season adds, (batch, channel, season), the window's last step last; zeros where it cannot
    be told from noise, or where there is none. A place's mean is shrunk by the share of the places' variance that noise
    explains."""
    smoothed = torch.cat([mask, context], 1) @ given["band"]
    whole = mask * (smoothed[:, :1] > 0.999)  # the moving average is over known values alone
    away = (context - smoothed[:, 1:]) * whole
    nothing = torch.zeros_like(away[..., :1])
    away = torch.cat([nothing, away], 2)[..., given["folded"]]  # (batch, channel, cycle, season)
    whole = torch.cat([nothing[:, :1], whole], 2)[..., given["folded"]]
    weights = whole * given["fading"][:, None]
    total = weights.sum(2)
    mean = (away * weights).sum(2) / total.clamp_min(NOTHING)  # (batch, channel, season)
    seen = (total > 0).to(context.dtype)
    mean = (mean - (mean * seen).sum(2, keepdim=True) / seen.sum(2, keepdim=True).clamp_min(1.0)) * seen
    season = given["size"]  # (1,)
    count = whole.sum((2, 3))  # (batch, 1)
    noise = (((away - mean[:, :, None]) * whole) ** 2).sum((2, 3)) / (count - season).clamp_min(1.0)
    spread = (mean**2).sum(2) / (season - 1.0).clamp_min(1.0)
    share = ((spread - noise * season / count.clamp_min(1.0)) / spread.clamp_min(1e-12)).clamp(0.0, 1.0)
    return mean * torch.where(count > season, share, 0.0)[..., None]
