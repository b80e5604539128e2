"""The pre-trained base: one recurrent network for every frequency, told the seasons' lengths by tables.

It reads the newest steps in segments, and whole seasons resampled to a fixed grid, each with a recurrent cell. Each
step ahead then asks with what plain forecasts say of it, how far ahead it is and where in its seasons; the answer is a
mix of the plain forecasts and a correction in units of their own error inside the window. So any season, any number of
steps ahead and any length of history go through the same weights.
"""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.bases import newest_places
from models.combining import (
    ABOVE,
    ALMOST,
    APART,
    BASES,
    CHANGED,
    CYCLES_OF,
    DOUBTED,
    EACH,
    FADES,
    FADING,
    INSTEAD,
    JUDGES,
    METS,
    MOVES,
    PLAIN,
    SO_FAR,
    SPARED,
    TOLD,
    VALUES,
)
from models.heads import monotone, nearest_to_median, unsoftplus
from models.metrics import normal_scores
from models.scaling import Scaled, scale_window
from models.smoothing import smooth
from models.tables import BINS, DRIFTS, LONGER, NEWEST, RAW, SEGMENT, TABLES

Given = Mapping[str, Tensor]

STEP = 4 * SEGMENT + 4  # numbers that go into one recurrent step over the newest steps
CYCLE = 2 * BINS + 2
ABOUT = 5 + BASES + 3
AHEAD = 7
ASKED = AHEAD + BASES + 2 + 2 * (NEWEST + LONGER) + 2 * LONGER
SURE = 8.0  # power of a plain forecast's error inside the window that it is weighed by at first
LEAST = 1e-4  # error inside the window, in scaled units
FARTHEST = 50.0  # scaled units that a plain forecast may be away
GROWTH = 2.0  # logarithm: how far beyond a window's largest value a trend of logarithms may lead
ORDER = (1, 4, 0, 5, 2, 2, 3, 6)  # of errors: of plain forecasts that are looked up, among those measured
FEW = 8  # values: so many that are all alike are a constant
SEEN = 8.0  # pairs of values as many seasons apart from which on half is believed of how far they lie apart


@dataclass(frozen=True)
class Read:
    """Windows made ready for the network, in scaled units: `steps` (batch, segment, number) and `cycles` (batch,
    cycle, number) for the cells, `about` (batch, number), `asked` (batch, horizon, number) and `bases` (batch,
    horizon, base) for each step ahead, `doubts` alike the logarithms of the bases' errors inside the window and of how
    they grow ahead, `unit` (batch, 1) the error of their mix inside the window."""

    steps: Tensor
    cycles: Tensor
    about: Tensor
    asked: Tensor
    bases: Tensor
    doubts: Tensor
    unit: Tensor


class Universal(nn.Module):
    """The network: `hidden` units a cell, quantiles at `levels`."""

    def __init__(self, hidden: int, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.hidden, self.levels = hidden, levels
        self.anchor = nearest_to_median(levels)
        self.first = nn.Linear(ABOUT, 2 * hidden)
        self.steps = nn.GRU(STEP, hidden, batch_first=True)
        self.embed = nn.Linear(CYCLE, hidden)
        self.cycles = nn.GRU(hidden, hidden, batch_first=True)
        self.state = nn.Linear(2 * hidden + ABOUT, 2 * hidden)
        self.ask = nn.Linear(ASKED, 2 * hidden)
        self.think = nn.Linear(2 * hidden, hidden)
        self.say = nn.Linear(hidden, len(levels))
        self.gate = nn.Linear(hidden, BASES)
        with torch.no_grad():
            for part in (self.say, self.gate):
                part.weight.mul_(0.1)
                part.bias.zero_()
            gaps = torch.tensor(normal_scores(levels)).float().diff() * 1.25
            self.say.bias[1:] = unsoftplus(gaps)

    def forward(self, read: Read) -> Tensor:
        """Quantiles (batch, horizon, level) in scaled units, never decreasing along levels."""
        state = self.recall(read.about, read.steps, read.cycles)
        return self.answer(state, read.asked, (read.bases, read.doubts, read.unit))

    def recall(self, about: Tensor, steps: Tensor, cycles: Tensor) -> Tensor:
        """What the cells come to, (batch, number): all that a window means for any step ahead."""
        first, second = self.first(about).tanh().split(self.hidden, dim=1)
        _, state = self.steps(steps, first[None].contiguous())
        _, other = self.cycles(self.embed(cycles).relu(), second[None].contiguous())
        return self.state(torch.cat([state[0], other[0], about], 1))

    def answer(self, state: Tensor, asked: Tensor, plain: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Quantiles (batch, horizon, level) for the steps `asked`. `plain` are the bases, their doubts and the unit of
        `Read`."""
        bases, doubts, unit = plain
        thought = functional.gelu(self.think(functional.gelu(state[:, None] + self.ask(asked))))
        weights = torch.softmax(self.gate(thought) - SURE * doubts, -1)
        middle = (weights * bases).sum(-1, keepdim=True)
        return middle + monotone(self.say(thought), self.anchor) * unit[:, None]


class Answering(nn.Module):
    """Everything in the base's graph: raw contexts and tables in, quantiles in the data's units out, their distances
    from the median stretched by `stretch` (level,): real series surprise more than the made-up ones it learned from.
    Where no known value is below 0, none of the forecast is."""

    stretch: Tensor

    def __init__(self, network: Universal) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("stretch", torch.ones(len(network.levels), dtype=torch.float64))

    def forward(self, context: Tensor, mask: Tensor, *tables: Tensor) -> Tensor:
        """Quantiles (batch, horizon, level) float64 of `context` (batch, time) float64 and `mask` alike float32.
        `tables` in the order of TABLES."""
        known = mask.to(context.dtype)
        read, scaled = read_windows(context, known, dict(zip(TABLES, tables, strict=True)))
        quantiles = self.network(read).to(context.dtype)
        centre = quantiles[..., self.network.anchor : self.network.anchor + 1]
        found = scaled.undo(centre + (quantiles - centre) * self.stretch)
        least = torch.where(known > 0, context, 0.0).amin(1)[:, None, None]
        return torch.where(least >= 0, found.clamp_min(0.0), found)


def read_windows(context: Tensor, mask: Tensor, given: Given) -> tuple[Read, Scaled]:
    """Windows made ready: `context` (batch, time) float64, 0 where missing, `mask` alike, 1 where present, `given` the
    tables for its seasons and the steps asked for. float64 but for what is read."""
    scaled = scale(context, mask, given["counted"])
    values = scaled.apply(context) * mask
    count = mask.sum(1, keepdim=True)
    newest = newest_places(mask)
    last = (values * newest).sum(1, keepdim=True)
    met = apart(values, mask, given)
    found, doubt, (cycles, known) = looked_up(values, mask, last, given, met)
    smoothed, own = smoothings(context, values, mask, (scaled, newest), given)
    bases = torch.cat([smoothed, found], 2).clamp(-FARTHEST, FARTHEST)
    doubts = torch.cat([own, doubt], 1)
    farther, aging = drift(met, given)
    aged = doubts[:, None] + aging
    unit = (torch.softmax(-SURE * doubts, 1) * doubts).sum(1, keepdim=True).exp().clamp_min(LEAST)
    mix = (bases * torch.softmax(-SURE * aged, 2)).sum(2, keepdim=True)
    away = torch.cat([bases - mix, (cycles - mix * like(VALUES, mix)) * known], 2) / unit[..., None]
    away, changed, middle = squash(torch.cat([away, mix], 2)).split([BASES + NEWEST + LONGER, LONGER, 1], 2)
    known, both = known.split([NEWEST + LONGER, LONGER], 2)
    rows = torch.ones_like(unit)
    ahead = given["ahead"].to(unit.dtype) * rows[..., None]
    about = [given["about"].to(unit.dtype) * rows, (doubts - unit.log()).clamp(-8.0, 8.0), unit.log()]
    about += [count.add(1.0).log() / 5.0, squash(last / unit)]
    parts = {
        "steps": steps_read(values, mask, unit, given),
        "cycles": cycles_read(values, mask, given),
        "about": torch.cat(about, 1),
        "asked": torch.cat([ahead, away, middle, known, changed, both, farther], 2),
        "bases": bases,
        "doubts": aged,
        "unit": unit,
    }
    return Read(**{name: part.float() for name, part in parts.items()}), scaled


def scale(context: Tensor, mask: Tensor, counted: Tensor) -> Scaled:
    """By mean and deviation of the newest steps; of all where those say nothing or are constant. Few values that are
    all alike are scaled by their size over the square of their number: they may yet turn out to differ."""
    recent = mask * counted
    both = scale_window(torch.stack([context * counted, context], 1), torch.stack([recent, mask], 1), "std")
    late, every, near, far = both.scale[:, 0], both.scale[:, 1], both.shift[:, 0], both.shift[:, 1]
    use = (late > 0) & (recent.sum(1, keepdim=True) > 1)
    count = mask.sum(1, keepdim=True)
    alike = torch.where(count < FEW, far.abs() / count.clamp_min(1.0) ** 2, 0.0)
    shift, size = torch.where(use, near, far), torch.where(use, late, torch.where(every > 0, every, alike))
    return Scaled(shift, size, size)


def apart(values: Tensor, mask: Tensor, given: Given) -> tuple[Tensor, Tensor]:
    """How the steps that are judged lie above those the longer season and each of `drift_lags` before, and how that
    above the longer season has changed over each of these, 0 where a value is unknown, and which are known: (batch,
    1 + 2 * DRIFTS, step) each."""
    known = (like(METS, mask) @ mask[:, given["drifts"]] > ALMOST).to(mask.dtype)
    return (like(APART, values) @ values[:, given["drifts"]]) * known, known


def drift(met: tuple[Tensor, Tensor], given: Given) -> tuple[Tensor, Tensor]:
    """How much farther apart values as far apart as each step ahead lie than those of one season, as a logarithm from 0
    up, (batch, horizon, 1), and by what of it each plain forecast is doubted, (batch, horizon, base): one that repeats
    a longer season that was seen by nothing, or where it moves along by how much farther what it leaves open lies. Of
    what `apart` says; what few values say counts little."""
    away, known = met
    count = known.sum(2)
    sizes, sure = (fraction(away.abs().sum(2), count) + 0.01).log(), count / (count + SEEN)
    size, held = sizes[:, 1:].reshape(-1, 2, DRIFTS), sure[:, 1:].reshape(-1, 2, DRIFTS)  # by value, by change
    grown = (size - size[..., :1]).clamp_min(0.0) * torch.minimum(held, held[..., :1])
    farther = (grown @ given["drifted"]).transpose(1, 2)  # (batch, horizon, 2)
    longer = (sure[:, :1] * given["about"][:, 3:4].to(sure.dtype))[..., None]  # as far as there is one, (batch, 1, 1)
    return farther[..., :1], farther @ (like(DOUBTED, sure) + longer * like(SPARED, sure))


def looked_up(
    values: Tensor, mask: Tensor, last: Tensor, given: Given, met: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The plain forecasts that repeat cycles, (batch, horizon, LOOKED), the logarithms of their errors inside the
    window (batch, LOOKED), and the values that they came from, the cycles of both seasons and how the longer one's lay
    above the main one before, with which are known, (batch, horizon, cycle) each. `met` is what `apart` says."""
    away, both = (part[:, :2] for part in met)  # of the longer season and of the main one
    pairs = torch.cat([away, both], 1)
    moved, seen = (pairs @ given["recent"]).split(2, 1)
    moved = fraction(moved, seen).reshape(-1, 4, 1)  # of the longer season and of the main one, whole and a quarter

    known = (like(TOLD, mask) @ mask[:, given["looked"]] > ALMOST).to(mask.dtype)  # (batch, cycle, horizon)
    cycles = (like(CYCLES_OF, values) @ values[:, given["looked"]]) * known
    first = ((like(SO_FAR, known) @ known) * known == 1).to(known.dtype)  # no cycle after it is known
    total = like(FADING, known) @ known  # (batch, kind of cycle, horizon)
    mean = (like(FADING, cycles) @ cycles) / torch.where(total > 0, total, 1.0)
    instead = torch.where(total > 0, 0.0, last[..., None] * like(INSTEAD, last))
    parts = torch.cat([like(EACH, cycles) @ (cycles * first), mean, instead], 1)
    found = like(PLAIN, parts) @ parts + like(MOVES, moved) @ moved

    late = pairs[..., given["latest"]]
    sums = pairs.cumsum(2) - pairs
    usual, seen = (sums[..., given["latest"]] - sums[..., given["begins"]]).split(2, 1)  # over the season before
    away, both = late.split(2, 1)
    faded, seldom = fading(values, mask, given)
    errors = error(torch.cat([away, away - fraction(usual, seen), faded], 1), torch.cat([both, both, seldom], 1))
    return found.transpose(1, 2), errors[:, ORDER], (cycles.transpose(1, 2), known.transpose(1, 2))


def like(values: NDArray[np.float64], other: Tensor) -> Tensor:
    """A matrix of `combining` beside what it is multiplied with."""
    return torch.from_numpy(values).to(other)


def squash(values: Tensor) -> Tensor:
    """As they are near 0, logarithms far from it."""
    return values.sign() * (values.abs() + 1.0).log()


def fraction(total: Tensor, count: Tensor) -> Tensor:
    return total / count.clamp_min(1.0)


def error(away: Tensor, known: Tensor) -> Tensor:
    """The logarithm of the mean size over the last axis; one error of 1 scaled unit is counted beside those seen."""
    return (((away.abs() * known).sum(-1) + 1.0) / (known.sum(-1) + 1.0)).log()


def fading(values: Tensor, mask: Tensor, given: Given) -> tuple[Tensor, Tensor]:
    """How the steps that are judged lie above the fading mean of three cycles of the season, of two of the longer one,
    and above the newest cycle plus what changed at this place one longer cycle ago, and which are known: (batch, 3,
    step) each."""
    seen, there = values[:, given["agos"]], mask[:, given["agos"]]
    weights = like(FADES, there)
    total = weights @ there
    mean = (weights @ seen) / torch.where(total > 0, total, 1.0)
    known = like(JUDGES, there) @ there > ALMOST
    return like(ABOVE, seen) @ seen - mean, known.to(there.dtype)


def smoothings(
    context: Tensor, values: Tensor, mask: Tensor, about: tuple[Scaled, Tensor], given: Given
) -> tuple[Tensor, Tensor]:
    """What the filters say of the values, and of the logarithms where all known values are above 0: growth and seasons
    in proportion to the level; twice the first elsewhere. (batch, horizon, 2 * filter) in scaled units, and the
    logarithms of the errors, (batch, 2 * filter). So many values cannot promise to be closer than 1 / their square.
    `about` the windows are how they are scaled and their `newest_places`."""
    time = given["band"].shape[0]
    least = mask.sum(1, keepdim=True).clamp_min(1.0)[..., None] ** -2
    scaled, newest = about[0], about[1][:, -time:]
    context, values, mask = context[:, -time:], values[:, -time:], mask[:, -time:]
    known = torch.where(mask > 0, context, 1.0)
    positive = (known.amin(1, keepdim=True) > 0) & (scaled.scale > 0)
    size = torch.where(scaled.scale > 0, scaled.scale, 1.0)[..., None]
    logs = torch.where(positive, known, 1.0).log()
    anchor = (logs * newest).sum(1, keepdim=True)
    logs = (logs - anchor) * mask
    top = (logs.amax(1, keepdim=True) + GROWTH)[..., None]
    proportional, anchor = positive[..., None], anchor[..., None]

    def plain(values: Tensor) -> Tensor:
        """Logarithms in scaled units; anything where there are none."""
        held = torch.where(proportional, torch.minimum(values, top) + anchor, 0.0)
        return (held.exp() - scaled.shift[..., None]) / size

    ahead, judged = smooth(torch.stack([values, logs], 1), mask[:, None], given)  # both in one go
    truth, guess = judged.truth[:, 0], judged.guess[:, 0]
    other = truth + judged.season[:, 0] - plain(judged.guess[:, 1] + judged.season[:, 1])
    doubt = judged.doubt(torch.stack([truth - guess, other], 1).abs(), least)
    own = ahead[:, 0], doubt[:, 0]
    found = [own[0], torch.where(proportional, plain(ahead[:, 1]), own[0])]
    return torch.cat(found, 2), torch.cat([own[1], torch.where(positive, doubt[:, 1], own[1])], 1)


def steps_read(values: Tensor, mask: Tensor, unit: Tensor, given: Given) -> Tensor:
    """The newest steps in segments, (batch, segment, STEP): values, what changed over each season, what is known."""
    there = mask[:, given["raws"]]  # (batch, now or a season ago, step)
    known = there * there[:, :1]
    units = torch.stack([torch.ones_like(unit), unit, unit], 1)
    now, changed = squash((like(CHANGED, values) @ values[:, given["raws"]]) * known / units).split([1, 2], 1)
    count = RAW // SEGMENT
    steps = torch.cat([now, known[:, :1], changed], 1).transpose(1, 2).reshape(-1, count, 4 * SEGMENT)
    phase = given["raw_phase"].to(steps.dtype) * torch.ones_like(steps[:, :, :1])
    return torch.cat([steps, phase], 2)


def cycles_read(values: Tensor, mask: Tensor, given: Given) -> Tensor:
    """The newest cycles resampled, (batch, cycle, CYCLE): values and what share of each is known, level and spread."""
    folded, bins = given["read"], given["bins"].to(values.dtype)
    seen, there = values[:, folded], mask[:, folded]  # (batch, cycle, season)
    cover = there @ bins
    fitted = (seen @ bins) / torch.where(cover > 0, cover, 1.0)
    count = there.sum(2, keepdim=True).clamp_min(1.0)
    level = seen.sum(2, keepdim=True) / count
    spread = ((((seen - level) * there) ** 2).sum(2, keepdim=True) / count).sqrt()
    fitted, rest = squash(torch.cat([fitted, level, spread], 2)).split([BINS, 2], 2)
    return torch.cat([fitted, cover, rest], 2)
