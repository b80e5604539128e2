"""The plain forecasts that a network corrects: looked up in each window, inside the exported graph."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from models import filters
from models.filters import FILTERS
from models.smoothing import Smoothing

FADE = 0.6  # weight of a season in the mean, over that of the season after it


class Base(NamedTuple):
    """The value at the same place of a cycle of `period` steps (1: any place): the `newest` known one, or the `mean`
    of all known ones, the newer ones weighing more; or `smooth`: levels and trends with a season of `period`."""

    kind: Literal["newest", "mean", "smooth"]
    period: int


SMOOTHED = 200  # newest steps that levels and trends are fitted to, at most: the cost grows with their square


class Bases(nn.Module):
    """All bases of a window of `context` steps, `horizon` steps ahead. `count` is how many columns they give."""

    def __init__(self, bases: tuple[Base, ...], context: int, horizon: int) -> None:
        super().__init__()
        self.plain = tuple(base for base in bases if base.kind != "smooth")
        self.horizon = horizon
        periods = [base.period for base in bases if base.kind == "smooth"]
        reach = [min(context, max(SMOOTHED // period, 4) * period) for period in periods]
        self.smooth = nn.ModuleList(Smoothing(time, m, horizon) for time, m in zip(reach, periods, strict=True))
        self.count = len(self.plain) + len(FILTERS) * len(periods)

    def forward(self, context: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What each base says, (batch, horizon, base), and the logarithm of how far off it was inside the window,
        (batch, base): both as good as known for `smooth` ones; a plain one's is the mean of theirs, 0 without."""
        found = [look_up(context, mask, self.plain, self.horizon)] if self.plain or not len(self.smooth) else []
        doubts: list[Tensor] = []
        for smooth in self.smooth:
            assert isinstance(smooth, Smoothing)
            ahead, doubt = smooth(context[:, -smooth.time :], mask[:, -smooth.time :])
            found.append(ahead)
            doubts.append(doubt)
        if self.plain or not doubts:  # an exporter makes one column of an expansion to none
            usual = torch.cat(doubts, dim=1).mean(1, keepdim=True) if doubts else context[:, :1] * 0.0
            doubts.insert(0, usual.expand(-1, len(self.plain)))
        return torch.cat(found, dim=2), torch.cat(doubts, dim=1)


def references(bases: tuple[Base, ...]) -> tuple[tuple[int, float], ...]:
    """Which steps of the context each column of `Bases` repeats, as (period, fade): the same place of earlier cycles,
    each weighing `fade` times the one after it (0: the newest alone)."""
    plain = [(base.period, FADE if base.kind == "mean" else 0.0) for base in bases if base.kind != "smooth"]
    smooth = [(base.period, filters.FADE) for base in bases if base.kind == "smooth" for _ in FILTERS]
    return (*plain, *smooth)


def look_up(context: Tensor, mask: Tensor, bases: tuple[Base, ...], horizon: int) -> Tensor:
    """What each base says about the steps after the context: (batch, horizon, base). Where a place was never seen it
    is the newest known value; 0 without any. `context` (batch, time) is 0 where missing, `mask` alike, 1 where
    present."""
    last, _ = newest(context, mask, 1)
    found: list[Tensor] = []
    for kind, period in bases:
        values, known = (newest if kind == "newest" else faded_mean)(context, mask, period)
        values = torch.where(known, values, last)
        found.append(values.repeat(1, -(-horizon // period))[:, :horizon])
    return torch.stack(found, dim=2) if found else context.new_zeros((context.shape[0], horizon, 0))


def newest(context: Tensor, mask: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """The newest known value at each place of a cycle of `period` steps that ends with the context, 0 where none is
    known, and whether one is: both (batch, period). The front of the context is cut to whole cycles; one must fit."""
    values, known = _cycles(context, period), _cycles(mask, period)
    age = torch.arange(1, values.shape[1] + 1, dtype=mask.dtype, device=mask.device).view(1, -1, 1)
    last = (known * age).amax(1, keepdim=True)  # (batch, 1, period), 0 where none is known
    value = values.gather(1, (last - 1).clamp_min(0).long()).squeeze(1)
    return value, (last > 0).squeeze(1)


def newest_of_all(context: Tensor, mask: Tensor) -> Tensor:
    """The newest known value, (…, 1) of (…, time), 0 where none is known: in few steps, each of which costs in the
    graph."""
    return (context * newest_places(mask)).sum(-1, keepdim=True)


def newest_places(mask: Tensor) -> Tensor:
    """1 from the newest known step on, (…, time), where what is missing counts as 0."""
    seen = mask.cumsum(-1)
    return (seen == seen[..., -1:]).to(mask.dtype)


def faded_mean(context: Tensor, mask: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """The mean of the known values at each place of a cycle, each weighing `FADE` times the one a cycle later, and
    whether one is known: both (batch, period)."""
    values, known = _cycles(context, period), _cycles(mask, period)
    age = torch.arange(values.shape[1] - 1, -1, -1, dtype=mask.dtype, device=mask.device).view(1, -1, 1)
    weights = known * FADE**age
    total = weights.sum(1)
    some = known.amax(1) > 0
    return (values * weights).sum(1) / torch.where(some, total, 1.0), some


def _cycles(values: Tensor, period: int) -> Tensor:
    """(batch, time) -> (batch, cycle, period), the front cut off."""
    count = values.shape[1] // period
    return values[:, values.shape[1] - count * period :].reshape(-1, count, period)
