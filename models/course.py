"""What the training loop is given: the series on the device, batches of windows by one gather, the loss, the held-out
score."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.covariates import Store
from models.forecaster import AnyMember, Inputs, Member, Prepared, Ready, middle
from models.metrics import naive_scale
from models.scaling import Scaled
from models.windows import Panel, Sampler, spare

Ints = NDArray[np.int64]
LOOKED_AT = 1024  # held-out windows scored at each look, at most
POOL = 8192  # windows ready at once
WEIGHED = 1024  # windows whose weights are evened out together
REUSED = 3  # times a prepared window is learned from, on average
MANY = 30  # series, from which on one origin each is enough to look at
STARTED_FROM = 2048  # windows the untrained forecaster is set up from
EXTREME = 1e4  # scaled targets are held within: the loss's gradient has only their sign
HEAVY = 20.0  # the largest weight of a window over the usual one


@dataclass(frozen=True)
class Batch:
    """Windows on the device: what the network gets, and the scaled target (batch, horizon) with its mask and each
    window's weight (batch, 1), all float32. Features come later (`Course.ready`): for a whole pool they are large.
    `places` (batch, 3) is where they are found, `blind` (batch, category) what is not to be known of them."""

    ready: Ready
    target: Tensor
    known: Tensor
    weight: Tensor
    places: Tensor | None = None
    blind: Tensor | None = None

    def rows(self, which: Tensor | slice) -> "Batch":
        parts = (self.target, self.known, self.weight, self.places, self.blind)
        return Batch(self.ready.rows(which), *(part if part is None else part[which] for part in parts))  # pyright: ignore

    def tensors(self) -> list[Tensor]:
        """All that there are, in the same order for batches of one course."""
        parts = [getattr(self.ready, field.name) for field in fields(self.ready)]
        parts += [self.target, self.known, self.weight, self.places, self.blind]
        return [part for part in parts if part is not None]

    def room(self, count: int) -> "Batch":
        """A batch of `count` such windows that is yet to be filled."""

        def of(part: Any) -> Any:
            return None if part is None else part.new_empty(count, *part.shape[1:])

        ready = type(self.ready)(**{field.name: of(getattr(self.ready, field.name)) for field in fields(self.ready)})
        return Batch(ready, *(of(part) for part in (self.target, self.known, self.weight, self.places, self.blind)))


class Course:
    """One course of training over a panel: everything that stays as it is while the weights move.

    The member learns from the first `limits` (series,) steps of each series and is looked at on those from there up to
    `until`. Windows are prepared where the panel's values lie: on the device, or on the CPU for MPS, which has no
    float64."""

    def __init__(self, member: AnyMember[Any], panel: Panel, limits: Ints, until: Ints, device: torch.device) -> None:
        config = member.config
        self.config, self.panel, self.limits, self.until, self.device = config, panel, limits, until, device
        self.store = torch.device("cpu") if device.type == "mps" else device
        self.values = torch.from_numpy(panel.values).to(self.store)
        self.present = torch.from_numpy(panel.present).to(self.store)
        self.steps = torch.arange(-_of(config.context), _of(config.horizon), device=self.store)
        self.beside = None if member.beside is None else Store(member.beside, panel, self.steps)
        self.member = member.to(device)
        self.together = member.together if self.store.type == "cpu" else WEIGHED  # a GPU would wait for each part
        sizes = (_of(config.context), _of(config.horizon), _of(config.season), config.aligned or 0.0)
        self.sampler = Sampler.of(panel, limits, sizes)
        needed = -(-_of(config.steps) * _of(config.batch) // REUSED)
        self.pooled = min(POOL, -(-needed // 1024) * 1024)
        self.scales, sizes_of = series_sizes(panel, limits, _of(config.season))
        self.weights = torch.from_numpy(_weights(self.scales, sizes_of)).to(self.store)

    def windows(
        self, which: Ints, ends: Ints, limits: Ints, kept: Tensor | None = None
    ) -> tuple[Inputs, Tensor, Tensor]:
        """The raw windows `which` and `ends` (window,): inputs, target (window, horizon) and which of it is known: only
        what lies before each series' `limits` (series,). Contexts hold only what `kept` (window, context) says."""
        cells = torch.from_numpy(self.panel.firsts[which] + ends).to(self.store)[:, None] + self.steps
        values, present = self.values[cells], self.present[cells]
        context = _of(self.config.context)
        left = torch.from_numpy(limits[which] - ends).to(self.store)
        known = present[:, context:] & (self.steps[context:] < left[:, None])
        seen = present[:, :context] if kept is None else present[:, :context] & kept.to(self.store)
        return Inputs(values[:, :context] * seen, seen), values[:, context:], known

    def batch(self, which: Ints, ends: Ints, limits: Ints, kept: Tensor | None = None) -> Batch:
        """The windows `which` and `ends` made ready to learn from; see `windows`."""
        parts = (slice(at, at + self.together) for at in range(0, len(which), self.together))
        made = (self._prepared(which[at], ends[at], limits, None if kept is None else kept[at]) for at in parts)
        whole = gathered(made, len(which))
        mean = whole.weight.mean()
        weight = (whole.weight / torch.where(mean > 0, mean, 1.0)).clamp(max=HEAVY)
        return replace(whole, weight=weight.float().to(self.device))

    def _prepared(self, which: Ints, ends: Ints, limits: Ints, kept: Tensor | None) -> Batch:
        """Some of the windows of a batch; weights are float64 where the values lie, and not yet evened out."""
        inputs, values, known = self.windows(which, ends, limits, kept)
        ready, scaled = self.member.prepare(inputs)
        target = torch.where(known, scaled.apply(values), 0.0).clamp(-EXTREME, EXTREME)
        weight = ready.unit * self.weights[torch.from_numpy(which).to(self.store)][:, None]
        target, known = (part.float().to(self.device) for part in (target, known))
        places = None if self.beside is None else self.beside.places(which, ends).to(self.device)
        return Batch(ready.narrow(self.device), target, known, weight, places)

    def ready(self, batch: Batch) -> Ready:
        """What the network gets of a batch, features included."""
        return batch.ready if batch.places is None else self._beside(batch.ready, batch.places, batch.blind)

    def _beside(self, ready: Ready, places: Tensor, blind: Tensor | None) -> Ready:
        if self.beside is None or not isinstance(ready, Prepared):
            return ready
        features, static = self.beside.gather(places, ready.mask, blind)
        return replace(ready, features=features, static=static)

    def pool(self, seed: int) -> Batch:
        """Windows to learn from, `pooled` of them, some with steps taken away: prepared at once, which costs a fifth of
        preparing each batch."""
        random = np.random.default_rng(seed)
        which, ends = self.sampler.draw(random, self.pooled)
        kept = torch.from_numpy(spare(random, self.pooled, _of(self.config.context)))
        parts = (slice(at, at + WEIGHED) for at in range(0, self.pooled, WEIGHED))
        whole = gathered((self.batch(which[at], ends[at], self.limits, kept[at]) for at in parts), self.pooled)
        blind = None if self.beside is None else self.beside.blind(random, self.pooled)
        return whole if blind is None else replace(whole, blind=blind.to(self.device))

    def loss(self, batch: Batch) -> Tensor:
        """The head's loss over known targets and windows, in scaled units, weighted."""
        losses = self.member.losses(self.ready(batch), batch.target)
        counted = batch.known * batch.weight
        return (losses * counted).sum() / counted.sum().clamp_min(1e-6)

    def start(self, random: np.random.Generator) -> None:
        """Make the untrained forecaster a fair one, from windows to learn from (it stays as it is where there are
        none, and the pre-trained base does): each base weighs by the inverse fourth power of its mean error at each
        step ahead, beside what its errors inside the window say, and the quantiles lie around that mix as the truth
        did. The median's offset stays 0."""
        member = self.member
        if not len(self.sampler.which) or not isinstance(member, Member):
            return
        which, ends = self.sampler.draw(random, STARTED_FROM)
        batch = self.batch(which, ends, self.limits)
        counts = (batch.known > 0) & (batch.ready.scale > 0)
        ready = self.ready(batch)
        assert isinstance(ready, Prepared)
        errors = torch.where(counts[..., None], (batch.target[..., None] - ready.bases).abs(), torch.nan)
        errors = errors * batch.weight[..., None]
        mean = errors.nanmean(0).nan_to_num(1.0).clamp_min(1e-6)  # (horizon, base)
        with torch.no_grad():
            logits = -4.0 * mean.log() if not member.bases.smooth else torch.zeros_like(mean)
            blank = torch.zeros(mean.shape[0], member.head.outputs, device=self.device)
            member.network.start_from(blank, logits)
            parts = [slice(at, at + self.together) for at in range(0, len(counts), self.together)]
            mix = torch.cat([member.raw(ready.rows(part))[1] for part in parts])
            missed = torch.where(counts, batch.target - mix, torch.nan)
            levels = torch.tensor(self.config.quantiles, device=self.device)
            found = torch.nanquantile(missed, levels, dim=0).T  # (horizon, level)
            found = torch.where(found.isnan(), found.nanmean(0), found).nan_to_num(0.0)
            place = middle(self.config.quantiles)
            member.network.start_from(member.head.begin(found - found[:, place : place + 1]), logits)

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
        """A function that scores the member as it is on held-out steps: twice the pinball loss in the data's units,
        counted as the loss counts series and in the size of MASE, and MASE, both means over windows; NaN where there is
        nothing to score."""
        which, ends = self.examined()
        parts = np.array_split(np.arange(len(which)), -(-len(which) // self.together)) if len(which) else []
        asked: list[tuple[Ready, Scaled, Tensor, Tensor, Tensor]] = []
        for part in parts:
            inputs, truth, known = self.windows(which[part], ends[part], self.until)
            ready, scaled = self.member.prepare(inputs)
            rows = torch.from_numpy(which[part])
            units = torch.stack([1.0 / torch.from_numpy(self.scales)[rows], self.weights.cpu()[rows]], dim=1)
            ready = ready.narrow(self.device)
            if self.beside is not None:
                places = self.beside.places(which[part], ends[part]).to(self.device)
                ready = self._beside(ready, places, None)
            asked.append((ready, scaled, truth, known, units.to(self.store)))
        levels = torch.tensor(self.config.quantiles, dtype=torch.float64, device=self.store)
        place = middle(self.config.quantiles)

        def examine() -> tuple[float, float]:
            scores: list[Tensor] = []
            for ready, scaled, truth, known, units in asked:
                found = scaled.undo(self.member.scaled_quantiles(ready).to(self.store, torch.float64))
                error = truth[..., None] - found
                losses = 2.0 * torch.maximum(levels * error, (levels - 1.0) * error).mean(2)
                both = torch.stack([error[..., place].abs(), losses], dim=2) * known[..., None]
                count = known.sum(1).clamp_min(1)[:, None]
                scores.append(both.sum(1) / count * units)  # (window, 2)
            if not scores:
                return float("nan"), float("nan")
            mase, loss = torch.cat(scores).mean(0).tolist()
            return loss, mase

        return examine


def gathered(parts: Iterator[Batch], count: int) -> Batch:
    """Batches of `count` windows in all end to end, made one after the other: never all of them twice in memory."""
    whole, at = None, 0
    for part in parts:
        if len(part.target) == count:
            return part
        whole = whole or part.room(count)
        rows = whole.rows(slice(at, at + len(part.target)))
        for place, own in zip(rows.tensors(), part.tensors(), strict=True):
            place.copy_(own)
        at += len(part.target)
    assert whole is not None
    return whole


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


def series_weights(panel: Panel, limits: Ints, season: int) -> NDArray[np.float64]:
    """What an error of one unit in each series counts, (series,); see `_weights`."""
    return _weights(*series_sizes(panel, limits, season))


def _weights(scales: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """What an error of one unit in each series counts, (series,): half by MASE's scale, half by the series' mean
    size; 0 for series of zeros, and of values too small to divide by."""
    weights = np.zeros(len(scales))
    alive = levels > 1e-290
    size = levels[alive]
    scale = np.maximum(np.where(np.isfinite(scales[alive]), scales[alive], size), 1e-9 * size)
    usual = np.median(scale / size) if len(size) else 1.0
    weights[alive] = 0.5 / scale + 0.5 * usual / size
    return weights
