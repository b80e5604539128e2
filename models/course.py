"""What the training loop is given: the series on the device, batches of windows by one gather, the loss, the held-out
score."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.forecaster import Forecaster, Prepared
from models.metrics import naive_scale
from models.windows import Panel, Sampler, spare

Ints = NDArray[np.int64]
LOOKED_AT = 4096  # held-out windows scored at each look, at most
MANY = 30  # series, from which on one origin each is enough to look at
STARTED_FROM = 2048  # windows the untrained forecaster is set up from
EXTREME = 1e4  # scaled targets are held within: the loss's gradient has only their sign
HEAVY = 20.0  # the largest weight of a window over the usual one


@dataclass(frozen=True)
class Batch:
    """Windows on the device: what the network gets, and the scaled target (batch, horizon) with its mask and each
    window's weight (batch, 1), all float32; `scale` (batch, 1) stays float64 where the windows were prepared."""

    ready: Prepared
    target: Tensor
    known: Tensor
    weight: Tensor
    scale: Tensor


class Course:
    """One course of training over a panel: everything that stays as it is while the weights move.

    The first `limits` (series,) steps of each series may be learned from; those from there to `until` (series,) are
    held out. On MPS, which knows no float64, windows are prepared on the CPU."""

    def __init__(self, forecaster: Forecaster, panel: Panel, limits: Ints, until: Ints, device: torch.device) -> None:
        config = forecaster.config
        self.config, self.panel, self.limits, self.until, self.device = config, panel, limits, until, device
        self.forecaster = forecaster.to(device)
        self.store = torch.device("cpu") if device.type == "mps" else device
        self.values = torch.from_numpy(panel.values).to(self.store)
        self.present = torch.from_numpy(panel.present).to(self.store)
        self.steps = torch.arange(-_of(config.context), _of(config.horizon), device=self.store)
        self.levels = torch.tensor(config.quantiles, device=device)
        sizes = (_of(config.context), _of(config.horizon), _of(config.season), config.aligned or 0.0)
        self.sampler = Sampler.of(panel, limits, sizes)
        self.scales, sizes_of = series_sizes(panel, limits, _of(config.season))
        self.weights = torch.from_numpy(_weights(self.scales, sizes_of)).to(self.store)

    def batch(self, which: Ints, ends: Ints, limits: Ints, kept: Tensor | None = None) -> Batch:
        """The windows `which` and `ends` (window,), with targets known only before each series' `limits` (series,), and
        contexts only where `kept` (window, context) says so."""
        cells = torch.from_numpy(self.panel.firsts[which] + ends).to(self.store)[:, None] + self.steps
        values, present = self.values[cells], self.present[cells]
        context = _of(self.config.context)
        left = torch.from_numpy(limits[which] - ends).to(self.store)
        known = present[:, context:] & (self.steps[context:] < left[:, None])
        seen = present[:, :context] if kept is None else present[:, :context] & kept.to(self.store)
        ready = self.forecaster.prepare(values[:, :context] * seen, seen)
        unit = torch.where(ready.scale > 0, ready.scale, 1.0)
        target = ((values[:, context:] - ready.shift) / unit).clamp(-EXTREME, EXTREME)
        weight = ready.scale * self.weights[torch.from_numpy(which).to(self.store)][:, None]
        mean = weight.mean()
        weight = (weight / torch.where(mean > 0, mean, 1.0)).clamp(max=HEAVY)
        target, known, weight = (part.float().to(self.device) for part in (target, known, weight))
        return Batch(ready.narrow(self.device), target, known, weight, ready.scale)

    def draw(self, random: np.random.Generator, count: int) -> Batch:
        """A batch of `count` windows to learn from, some with steps taken away."""
        which, ends = self.sampler.draw(random, count)
        kept = spare(random, count, _of(self.config.context))
        return self.batch(which, ends, self.limits, torch.from_numpy(kept))

    def loss(self, batch: Batch) -> Tensor:
        """The mean pinball loss of the forecasts over known targets, levels and windows, in scaled units, weighted."""
        error = batch.target[..., None] - self.forecaster.scaled_quantiles(batch.ready)
        pinball = torch.maximum(self.levels * error, (self.levels - 1.0) * error).mean(2)
        counted = batch.known * batch.weight
        return (pinball * counted).sum() / counted.sum().clamp_min(1e-6)

    def start(self, random: np.random.Generator) -> None:
        """Make the untrained forecaster a fair one, from windows to learn from (it stays as it is where there are
        none): each base weighs by the inverse fourth power of its mean error at each step ahead, and the quantiles
        lie around that mix as the truth did. The anchor level's offset stays 0."""
        if not len(self.sampler.which):
            return
        batch = self.batch(*self.sampler.draw(random, STARTED_FROM), self.limits)
        counts = (batch.known > 0) & (batch.scale > 0).to(self.device)
        bases = batch.ready.bases  # (window, horizon, base)
        errors = torch.where(counts[..., None], (batch.target[..., None] - bases).abs(), torch.nan)
        mean = errors.nanmean(0).nan_to_num(1.0).clamp_min(1e-6)  # (horizon, base)
        logits = -4.0 * mean.log()
        missed = batch.target - (bases * torch.softmax(logits, dim=1)).sum(2)
        missed = torch.where(counts, missed, torch.nan)
        found = torch.nanquantile(missed, self.levels, dim=0).T  # (horizon, level)
        found = torch.where(found.isnan(), found.nanmean(0), found).nan_to_num(0.0)
        anchor = self.forecaster.network.shape.anchor
        self.forecaster.network.start_from(found - found[:, anchor : anchor + 1], logits)

    def examined(self) -> tuple[Ints, Ints]:
        """The windows that are looked at while training: (which, ends). A horizon apart from each series' limit on; few
        series are looked at from more origins, whose targets run out at the end of what is held out."""
        which = np.flatnonzero((self.limits >= 1) & (self.until > self.limits) & np.isfinite(self.scales))
        apart = _of(self.config.horizon) if len(which) >= MANY else max(1, _of(self.config.horizon) // 6)
        counts = -(-(self.until - self.limits)[which] // apart)
        which = np.repeat(which, counts)
        place = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        if len(which) > LOOKED_AT:
            thin = np.linspace(0, len(which) - 1, LOOKED_AT).astype(np.int64)
            which, place = which[thin], place[thin]
        return which, self.limits[which] + place * apart

    def examination(self) -> Callable[[], tuple[float, float]]:
        """A function that scores the forecaster as it is on held-out steps: twice the pinball loss over MASE's scale
        (in the size of MASE), and MASE, both means over windows; NaN where there is nothing to score."""
        which, ends = self.examined()
        parts = np.array_split(np.arange(len(which)), -(-len(which) // 1024)) if len(which) else []
        batches = [self.batch(which[part], ends[part], self.until) for part in parts]
        units = [torch.from_numpy(self.scales[which[part]]).to(self.store)[:, None] for part in parts]
        anchor = self.forecaster.network.shape.anchor

        def examine() -> tuple[float, float]:
            scores: list[Tensor] = []
            for batch, unit in zip(batches, units, strict=True):
                error = batch.target[..., None] - self.forecaster.scaled_quantiles(batch.ready)
                losses = 2.0 * torch.maximum(self.levels * error, (self.levels - 1.0) * error).mean(2)
                both = torch.stack([losses, error[..., anchor].abs()], dim=2) * batch.known[..., None]
                count = batch.known.sum(1).clamp_min(1.0)[:, None]
                size = (batch.scale / unit).float().to(self.device)
                scores.append(both.sum(1) / count * size)  # (window, 2)
            if not scores:
                return float("nan"), float("nan")
            loss, mase = torch.cat(scores).mean(0).tolist()
            return loss, mase

        return examine


def _of(value: int | None) -> int:
    """A field of a complete config."""
    if value is None:
        raise ValueError("config: expected a complete one, got None in a field")
    return value


def series_sizes(panel: Panel, limits: Ints, season: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """MASE's scale and the mean size of each series over its first `limits` steps, both (series,), NaN where
    unknown."""
    scales, levels = np.full(len(limits), np.nan), np.full(len(limits), np.nan)
    for place, (first, limit) in enumerate(zip(panel.firsts, limits, strict=True)):
        cells = slice(first, first + limit)
        history = np.where(panel.present[cells], panel.values[cells], np.nan)
        scales[place] = naive_scale(history, season)
        levels[place] = np.abs(panel.values[cells]).sum() / max(1, panel.present[cells].sum())
    return scales, levels


def _weights(scales: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """What an error of one unit in each series counts, (series,): half by MASE's scale, half by the series' mean
    size; 0 for series of zeros."""
    weights = np.zeros(len(scales))
    alive = levels > 0
    size = levels[alive]
    scale = np.maximum(np.where(np.isfinite(scales[alive]), scales[alive], size), 1e-9 * size)
    usual = np.median(scale / size) if len(size) else 1.0
    weights[alive] = 0.5 / scale + 0.5 * usual / size
    return weights
