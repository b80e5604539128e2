"""Exponential smoothing as closed-form sums: levels and trends fitted to each window by discounted least squares, with
its season taken out, and what each would have missed by inside the window. No recursion, no optimiser: two matrix
products answer for all windows and all smoothing constants at once, gaps included, inside the exported graph.

A level with decay d is the mean of the past, each value weighing d times the one after it: simple exponential smoothing
with constant 1 - d (Brown 1959). A trend is the slope of the line fitted with such weights (general exponential
smoothing, Brown 1963), damped ahead (Gardner and McKenzie 1985) or taken by half (the theta method, Assimakopoulos and
Nikolopoulos 2000; Hyndman and Billah 2003). The season is classical decomposition, shrunk by how much of it is noise.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

FADE = 0.8  # weight of a cycle in the season's mean, over that of the cycle after it
ORIGINS = 40  # inside a window, at which filters are judged, at most
KNOWN = 3  # values before an origin that is judged
TRUSTED = 10  # values from which on a slope is believed in full
WARY = 10.0  # of trends, over the square of the number of errors
NOTHING = 1e-9


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


class Smoothing(nn.Module):
    """All FILTERS for windows of `time` steps with a season of `season` (1: none), `horizon` steps ahead."""

    band: Tensor
    fading: Tensor
    counts: Tensor
    sums: Tensor
    ahead: Tensor
    judged: Tensor
    shares: Tensor

    def __init__(self, time: int, season: int, horizon: int) -> None:
        super().__init__()
        self.time, self.season, self.horizon = time, season if time >= 2 * season else 1, horizon
        self.leads = tuple(lead for lead in sorted({1, 2, max(1, horizon // 4), max(1, horizon // 2)}) if lead < time)
        latest = time - 1 - (self.leads[0] if self.leads else 1)
        apart = max(1, -(-(latest - KNOWN) // ORIGINS))
        self.origins = list(range(latest, KNOWN - 2, -apart))[::-1]  # places of the last known value
        decays = sorted({d for one in FILTERS for d in (one.level, one.trend) if d is not None})
        self.levels = [decays.index(one.level) for one in FILTERS]
        self.trends = [decays.index(one.trend or one.level) for one in FILTERS]
        steps = torch.arange(time, dtype=torch.float64)
        ends = torch.tensor([*self.origins, time - 1], dtype=torch.float64)
        age = ends[None, :] - steps[:, None]  # (time, origin)
        weights = torch.stack([torch.where(age >= 0, decay ** age.clamp_min(0.0), 0.0) for decay in decays], dim=1)
        powers = torch.stack([weights, -weights * age[:, None], weights * age[:, None] ** 2], dim=1)
        self._keep("counts", powers.reshape(time, -1))  # (time, 3 * decay * origin)
        self._keep("sums", powers[:, :2].reshape(time, -1))
        shares = [0.0 if one.trend is None else one.share for one in FILTERS]
        self._keep("shares", torch.tensor(shares, dtype=torch.float64))
        self._keep("ahead", _reaches(range(1, horizon + 1)))  # (filter, horizon)
        self._keep("judged", _reaches(self.leads))  # (filter, lead)
        self._keep("band", _moving_average(time, self.season))
        cycles = -(-time // self.season)
        self._keep("fading", FADE ** torch.arange(cycles - 1, -1, -1, dtype=torch.float64))

    def _keep(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values.double(), persistent=False)

    def forward(self, context: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What each filter says, (batch, horizon, filter), and the logarithm of its mean error inside the window,
        (batch, filter). `context` (batch, time) 0 where missing, `mask` alike, 1 where present."""
        season = self.seasonal(context, mask)  # (batch, season), ending with the window's last step
        repeats = -(-self.time // self.season)
        plain = (context - season.repeat(1, repeats)[:, repeats * self.season - self.time :]) * mask
        level, slope, known = self.fits(plain, mask)  # (batch, origin, filter)
        ahead = level[:, -1:] + slope[:, -1:] * self.ahead.T.to(context.dtype)
        ahead = ahead + season.repeat(1, -(-self.horizon // self.season))[:, : self.horizon, None]
        missed, count = context.new_zeros(level.shape[0], len(FILTERS)), context.new_zeros(level.shape[0], 1)
        for place, lead in enumerate(self.leads):
            inside = [at for at, origin in enumerate(self.origins) if origin + lead < self.time]
            where = [self.origins[at] + lead for at in inside]
            counts = mask[:, where] * (known[:, inside] >= KNOWN)  # (batch, origin)
            guess = level[:, inside] + slope[:, inside] * self.judged[:, place].to(context.dtype)
            missed = missed + ((plain[:, where, None] - guess).abs() * counts[..., None]).sum(1)
            count = count + counts.sum(1, keepdim=True)
        # Few errors say little: each filter starts from the mean of all as if from two errors, a trend from more.
        usual = missed.mean(1, keepdim=True)
        doubt = ((missed + 2.0 * usual / count.clamp_min(1.0)) / (count + 2.0)).clamp_min(NOTHING).log()
        return ahead, doubt + (self.shares > 0).to(doubt.dtype) * WARY / (count + 1.0) ** 2

    def fits(self, plain: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Level and slope at each origin, the window's end last, (batch, origin, filter), and how many values were
        known (batch, origin)."""
        shape = (-1, len(self.shares), len(self.origins) + 1)
        places = len(self.counts[0]) // 3 // shape[2]
        counts = (mask @ self.counts.to(mask.dtype)).reshape(-1, 3, places, shape[2])
        sums = (plain @ self.sums.to(plain.dtype)).reshape(-1, 2, places, shape[2])
        n, t, tt = counts[:, 0], counts[:, 1], counts[:, 2]
        room = n * tt - t**2
        slope = torch.where(room > 1e-6, (n * sums[:, 1] - t * sums[:, 0]) / room.clamp_min(NOTHING), 0.0)
        mean, lag = sums[:, 0] / n.clamp_min(NOTHING), -t / n.clamp_min(NOTHING)
        known = mask.cumsum(1)[:, [*self.origins, self.time - 1]]
        believed = ((known - 1.0) / (TRUSTED - 1.0)).clamp(0.0, 1.0)[:, None]
        slope = slope[:, self.trends] * self.shares[:, None].to(plain.dtype) * believed
        level = mean[:, self.levels] + slope * lag[:, self.levels]  # the mean lies as far back as its weights
        return level.transpose(1, 2), slope.transpose(1, 2), known

    def seasonal(self, context: Tensor, mask: Tensor) -> Tensor:
        """What each place of the season adds, (batch, season), the window's last step last; zeros where it cannot be
        told from noise. A place's mean is shrunk by the share of the places' variance that noise explains."""
        if self.season == 1:
            return context.new_zeros(context.shape[0], 1)
        band = self.band.to(context.dtype)
        cover = mask @ band
        whole = mask * (cover > 0.999)  # the moving average is over known values alone
        away = (context - context @ band) * whole
        cycles = len(self.fading)
        pad = (cycles * self.season - self.time, 0)
        away = functional.pad(away, pad).reshape(-1, cycles, self.season)
        whole = functional.pad(whole, pad).reshape(-1, cycles, self.season)
        weights = whole * self.fading.to(context.dtype)[:, None]
        total = weights.sum(1)
        mean = (away * weights).sum(1) / total.clamp_min(NOTHING)  # (batch, season)
        seen = (total > 0).to(context.dtype)
        mean = (mean - (mean * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp_min(1.0)) * seen
        count = whole.sum((1, 2))
        noise = (((away - mean[:, None]) * whole) ** 2).sum((1, 2)) / (count - self.season).clamp_min(1.0)
        spread = (mean**2).sum(1) / (self.season - 1)
        share = ((spread - noise * self.season / count.clamp_min(1.0)) / spread.clamp_min(1e-12)).clamp(0.0, 1.0)
        return mean * torch.where(count > self.season, share, 0.0)[:, None]


def _reaches(leads: range | tuple[int, ...]) -> Tensor:
    """How many slopes each filter's trend has gone after each lead, (filter, lead)."""
    rows = [[sum(one.damping**step for step in range(lead)) for lead in leads] for one in FILTERS]
    return torch.tensor(rows, dtype=torch.float64)


def _moving_average(time: int, season: int) -> Tensor:
    """The centred moving average over a season, (from, to): half weights at both ends of an even one."""
    weights = torch.full((season,), 1.0 / season) if season % 2 else torch.ones(season + 1) / season
    if season % 2 == 0:
        weights[0] = weights[-1] = 0.5 / season
    band = torch.zeros(time, time)
    half = len(weights) // 2
    for place, weight in enumerate(weights):
        to = torch.arange(max(0, half - place), min(time, time + half - place))
        band[to + place - half, to] = weight
    return band
