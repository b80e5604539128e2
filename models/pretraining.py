"""Trains the base from nothing: synthetic series, windows of them made ready, one loop over the network's weights. Same
seed, device and number of threads: same weights."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.synthetic import KINDS, Made, make
from models.tables import cycles_read, reach, tables_for, told, trained_horizon
from models.universal import FEW, Read, Universal, read_windows

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVELS = (0.025, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.975)
ASKED = 24  # steps ahead of a window that are asked for, at most
DRAWN, CUT = 64, 4  # series drawn at a time, and windows cut from each
REUSED = 4  # times a window is learned from, about: eight times from a fifth of the pool were learned by heart
SHORTENED, DAMAGED = 0.3, 0.1  # shares of windows that lose their front, and steps here and there
FEWEST = 1.7  # values that a front leaves: of these windows one in 25 or so has a single value
FAR = 30.0  # scaled units: what lies farther away teaches no more than this
CERTAIN = 0.02  # scaled units added to a window's seasonal error, by whose inverse its errors count


@dataclass(frozen=True)
class Recipe:
    """What the base is made by."""

    hidden: int = 192
    steps: int = 20_000
    batch: int = 256
    rate: float = 1.5e-3
    pool: int = 163_840  # windows kept ready, 19 kB each
    seed: int = 1
    decay: float = 1e-3
    average: float = 0.999
    stretch: float = 1.05  # of the intervals: real series surprise more than made-up ones
    mixed: bool = True  # products in bfloat16: half the time or less where the processor has them


@dataclass(frozen=True)
class Lesson:
    """Windows made ready, what came after them (batch, asked) in scaled units with which is known, and what an error of
    one unit costs (batch, 1)."""

    read: Read
    truth: Tensor
    known: Tensor
    worth: Tensor

    def rows(self, which: Tensor) -> "Lesson":
        """Some of the windows."""
        read = Read(**{field.name: getattr(self.read, field.name)[which] for field in fields(Read)})
        return Lesson(read, self.truth[which], self.known[which], self.worth[which])

    def parts(self) -> list[Tensor]:
        """All its tensors, always in the same order."""
        return [*(getattr(self.read, field.name) for field in fields(Read)), self.truth, self.known, self.worth]


def lessons(random: np.random.Generator, kind: tuple[int, int] | None = None) -> Lesson:
    """DRAWN * CUT windows of one kind of new series, each at steps ahead that are the same for all."""
    if kind is None:
        kinds = list(KINDS)
        shares = np.array(list(KINDS.values()))
        kind = kinds[random.choice(len(kinds), p=shares / shares.sum())]
    return cut(random, make(random, kind, DRAWN), CUT)


def cut(random: np.random.Generator, series: list[Made], count: int, steps: Ints | None = None) -> Lesson:
    """`count` windows from each of some series of one kind, at random origins, with what came at some `steps` ahead:
    at random ones where none are given."""
    season, longer = told(series[0].season, series[0].longer)
    length, horizon = reach(season, longer), trained_horizon(season)
    if steps is None:
        weights = 1.0 / np.sqrt(np.arange(1, horizon + 1))
        steps = np.sort(random.choice(horizon, min(ASKED, horizon), replace=False, p=weights / weights.sum())) + 1
    horizon = max(horizon, int(steps[-1]))
    which = np.repeat(np.arange(len(series)), count)
    lengths = np.array([len(one.values) for one in series])[which]
    least = np.minimum(np.maximum(3, np.minimum(2 * season, lengths // 3)), lengths - 2)
    ends = least + (random.random(len(which)) * (lengths - 1 - least)).astype(np.int64)
    values = np.full((len(which), length + horizon), np.nan)
    for row, place, end in zip(values, which, ends, strict=True):
        whole = series[place].values
        first, last = max(0, end - length), min(len(whole), end + horizon)
        row[length - (end - first) : length + (last - end)] = whole[first:last]
    context, truth = values[:, :length], values[:, length - 1 + steps]
    damage(random, context, ends)
    present = ~np.isnan(context)
    given = {name: torch.from_numpy(table) for name, table in tables_for(season, longer, steps).items()}
    known = torch.from_numpy(~np.isnan(truth))
    with torch.no_grad():
        inside = torch.from_numpy(np.where(present, context, 0.0)), torch.from_numpy(present.astype(np.float64))
        read, scaled = read_windows(*inside, given)
        target = scaled.apply(torch.from_numpy(np.where(np.isnan(truth), 0.0, truth))).clamp(-FAR, FAR)
        usable = scaled.scale > 0
        worth = torch.where(
            usable, 0.5 / (seasonal_error(scaled.apply(inside[0]), inside[1], season) + CERTAIN) + 0.5, 0.0
        )
    return Lesson(read, target.float(), known.float(), worth.float())


def damage(random: np.random.Generator, context: Array, ends: Ints) -> None:
    """Some windows lose their front, some steps here and there."""
    length = context.shape[1]
    for row, end in zip(context, ends, strict=True):
        have = min(int(end), length)
        if random.random() < SHORTENED:
            keep = int(math.exp(random.uniform(math.log(FEWEST), math.log(max(have, 3)))))
            row[: length - keep] = np.nan
        if random.random() < DAMAGED:
            row[random.random(length) < random.uniform(0.0, 0.5)] = np.nan


def seasonal_error(values: Tensor, mask: Tensor, season: int) -> Tensor:
    """The mean difference one season apart, (batch, 1); of neighbours where a season was never seen twice; 1 of one
    value, or of few that are all alike."""
    found: list[Tensor] = []
    for lag in (season, 1):
        both = mask[:, lag:] * mask[:, :-lag]
        total, count = ((values[:, lag:] - values[:, :-lag]).abs() * both).sum(1), both.sum(1)
        found += [total / count.clamp_min(1.0), count]
    error = torch.where(found[1] > 0, found[0], torch.where(found[3] > 0, found[2], 1.0))[:, None]
    alike = (error == 0) & (mask.sum(1, keepdim=True) < FEW)  # not that they repeat: nothing is known of them yet
    return torch.where(alike, 1.0, error)


def loss_of(network: Universal, lesson: Lesson, levels: Tensor) -> Tensor:
    """The mean pinball loss (Koenker and Bassett 1978), each window's by its worth."""
    error = lesson.truth[..., None] - network(lesson.read)
    slope = levels - (error.detach() < 0).to(error.dtype)
    counts = lesson.known * lesson.worth
    return ((error * slope).mean(-1) * counts).sum() / lesson.known.sum().clamp_min(1.0)


class Pool:
    """Windows kept ready, the oldest replaced by new ones as they are learned from."""

    def __init__(self, size: int, random: np.random.Generator, device: torch.device) -> None:
        self.random, self.device, self.place = random, device, 0
        first = lessons(random)
        self.size = size // len(first.truth) * len(first.truth)
        self.kept: list[Tensor] = [
            torch.zeros((self.size, *part.shape[1:]), device=device) for part in _even(first).parts()
        ]
        while self.place < self.size:
            self._put(lessons(random))
        self.place = 0

    def _put(self, lesson: Lesson) -> None:
        parts = _even(lesson).parts()
        at = self.place % self.size
        for kept, part in zip(self.kept, parts, strict=True):
            kept[at : at + len(part)] = part
        self.place += len(parts[0])

    def renew(self) -> int:
        """Replace the oldest windows; how many."""
        before = self.place
        self._put(lessons(self.random))
        return self.place - before

    def take(self, which: Tensor) -> Lesson:
        """The windows at some places."""
        parts = [kept[which] for kept in self.kept]
        count = len(fields(Read))
        return Lesson(Read(*parts[:count]), *parts[count:])


def _even(lesson: Lesson) -> Lesson:
    """With as many cycles as any other: unknown ones in front."""
    read = lesson.read
    missing = fixed_cycles() - read.cycles.shape[1]
    if missing > 0:
        empty = torch.zeros((len(read.cycles), missing, read.cycles.shape[2]))
        read = Read(**{**read.__dict__, "cycles": torch.cat([empty, read.cycles], 1)})
    return Lesson(read, lesson.truth, lesson.known, lesson.worth)


def fixed_cycles() -> int:
    """The most cycles that any season is read with."""
    return cycles_read(1)


def pretrain(
    recipe: Recipe, device: torch.device, watch: Callable[[int, float, Universal], None], every: int = 500
) -> Universal:
    """The base's network, learned by `recipe`: AdamW (Loshchilov and Hutter 2019) with warm-up and cosine, an
    exponential average of the weights. `watch` is told steps, mean loss and the averaged network now and then."""
    torch.manual_seed(recipe.seed)
    random = np.random.default_rng(recipe.seed)
    chooser = torch.Generator().manual_seed(recipe.seed)
    network = Universal(recipe.hidden, LEVELS).to(device)
    levels = torch.tensor(LEVELS, device=device)
    averaged = copy.deepcopy(network)
    pool = Pool(recipe.pool, random, device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    used, total = 0, 0.0
    for step in range(recipe.steps):
        warm, along = min(1.0, (step + 1) / 200), step / recipe.steps
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * warm * (0.5 * (1 + math.cos(math.pi * along)) + 0.01)
        which = torch.randint(pool.size, (recipe.batch,), generator=chooser).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.mixed):
            loss = loss_of(network, pool.take(which), levels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        share = 1.0 - min(recipe.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(averaged.parameters(), network.parameters(), strict=True):
                mean.lerp_(now, share)
        total += float(loss.detach())
        used += recipe.batch
        while used >= REUSED * DRAWN * CUT:
            used -= REUSED * pool.renew()
        if (step + 1) % every == 0:
            watch(step + 1, total / every, averaged)
            total = 0.0
    return averaged.eval()
