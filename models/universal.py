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

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.bases import newest_of_all
from models.filters import FILTERS
from models.heads import monotone, nearest_to_median, unsoftplus
from models.metrics import normal_scores
from models.scaling import Scaled, scale_window
from models.smoothing import Judged, smooth
from models.tables import BINS, DRIFTS, FADE, LONGER, NEWEST, RAW, SEGMENT, TABLES

Given = Mapping[str, Tensor]

LOOKED = 8  # plain forecasts that are looked up
BASES = 2 * len(FILTERS) + LOOKED
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
AGO = ((0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (1, 1))  # seasons and longer ones before a step that is judged
FADES = ((0.0, FADE, FADE**2, FADE**3, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, FADE, FADE**2, 0.0))
FEW = 8  # values: so many that are all alike are a constant
SEEN = 8.0  # pairs of values as many seasons apart from which on half is believed of how far they lie apart
STEADY, MOVED = (2, 3), (4, 5, 7)  # which of them repeat the longer season as it was, and moved to a level of today


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
    last = newest_of_all(values, mask)
    met = apart(values, mask, given)
    found, doubt, known = looked_up(values, mask, last, given, met)
    smoothed, own = smoothings(context, values, mask, scaled, given)
    bases = torch.cat([smoothed, found], 2).clamp(-FARTHEST, FARTHEST)
    doubts = torch.cat([own, doubt], 1)
    farther, aging = drift(met, given)
    aged = doubts[:, None] + aging
    unit = (torch.softmax(-SURE * doubts, 1) * doubts).sum(1, keepdim=True).exp().clamp_min(LEAST)
    mix = (bases * torch.softmax(-SURE * aged, 2)).sum(2, keepdim=True)
    told = [torch.cat([bases - mix, (known[0] - mix) * known[1]], 2) / unit[..., None], mix, known[2] / unit[..., None]]
    away, changed = squash(torch.cat(told, 2)).split([BASES + NEWEST + LONGER + 1, LONGER], 2)
    rows = torch.ones_like(unit)
    ahead = given["ahead"].to(unit.dtype) * rows[..., None]
    about = [given["about"].to(unit.dtype) * rows, (doubts - unit.log()).clamp(-8.0, 8.0), unit.log()]
    about += [count.add(1.0).log() / 5.0, squash(last / unit)]
    parts = {
        "steps": steps_read(values, mask, unit, given),
        "cycles": cycles_read(values, mask, given),
        "about": torch.cat(about, 1),
        "asked": torch.cat([ahead, away, known[1], changed, known[3], farther], 2),
        "bases": bases,
        "doubts": aged,
        "unit": unit,
    }
    return Read(**{name: part.float() for name, part in parts.items()}), scaled


def scale(context: Tensor, mask: Tensor, counted: Tensor) -> Scaled:
    """By mean and deviation of the newest steps; of all where those say nothing or are constant. Few values that are
    all alike are scaled by their size over the square of their number: they may yet turn out to differ."""
    both = scale_window(torch.cat([context * counted, context]), torch.cat([mask * counted, mask]), "std")
    (late, every), (near, far) = both.scale.chunk(2), both.shift.chunk(2)
    use = (late > 0) & ((mask * counted).sum(1, keepdim=True) > 1)
    count = mask.sum(1, keepdim=True)
    alike = torch.where(count < FEW, far.abs() / count.clamp_min(1.0) ** 2, 0.0)
    shift, size = torch.where(use, near, far), torch.where(use, late, torch.where(every > 0, every, alike))
    return Scaled(shift, size, size)


def apart(values: Tensor, mask: Tensor, given: Given) -> tuple[Tensor, Tensor]:
    """How the steps that are judged lie above those the longer season and each of `drift_lags` before, and how that
    above the longer season has changed over each of these, 0 where a value is unknown, and which are known: (batch,
    1 + 2 * DRIFTS, step) each."""
    seen, there = values[:, given["drifts"]], mask[:, given["drifts"]]
    both = there[:, :1] * there[:, 1 : 2 + DRIFTS]
    all_four = both[:, :1] * there[:, 2 : 2 + DRIFTS] * there[:, 2 + DRIFTS :]
    above = seen[:, :1] - seen[:, 1 : 2 + DRIFTS]
    changed = above[:, :1] - (seen[:, 2 : 2 + DRIFTS] - seen[:, 2 + DRIFTS :])
    known = torch.cat([both, all_four], 1)
    return torch.cat([above, changed], 1) * known, known


def drift(met: tuple[Tensor, Tensor], given: Given) -> tuple[Tensor, Tensor]:
    """How much farther apart values as far apart as each step ahead lie than those of one season, as a logarithm from 0
    up, (batch, horizon), and by what of it each plain forecast is doubted, (batch, horizon, base): one that repeats a
    longer season that was seen by nothing, or where it moves along by how much farther what it leaves open lies. Of
    what `apart` says; what few values say counts little."""
    away, known = met
    count = known.sum(2)
    size = (fraction(away.abs().sum(2), count) + 0.01).log()
    sure = count / (count + SEEN)
    size, held = (torch.stack([one[:, 1 : 1 + DRIFTS], one[:, 1 + DRIFTS :]], 1) for one in (size, sure))
    grown = (size - size[..., :1]).clamp_min(0.0) * torch.minimum(held, held[..., :1])
    farther, changed = (grown @ given["drifted"]).transpose(1, 2).split(1, 2)  # (batch, horizon, 1)
    moved, steady = (
        torch.tensor([float(place - BASES + LOOKED in some) for place in range(BASES)]).to(sure)
        for some in (MOVED, STEADY)
    )
    longer = (sure[:, :1] * given["about"][:, 3:4].to(sure.dtype))[..., None]  # as far as there is one, (batch, 1, 1)
    aging = farther * (1.0 - longer * (moved + steady)) + changed * longer * moved
    return farther, aging


def looked_up(
    values: Tensor, mask: Tensor, last: Tensor, given: Given, met: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """The plain forecasts that repeat cycles, (batch, horizon, LOOKED), the logarithms of their errors inside the
    window (batch, LOOKED), and the values that they came from with which are known, (batch, horizon, cycle) each.
    `met` is what `apart` says."""
    away, both = (part[:, :2] for part in met)  # of the longer season and of the main one
    moved = fraction(away @ given["recent"], both @ given["recent"])  # (batch, season, whole or quarter)
    cycles = [(values[:, places], mask[:, places]) for places in (given["look_season"], given["look_longer"])]
    (season, season_mean), (longer, longer_mean) = (
        repeated(*one, last, count) for one, count in zip(cycles, (NEWEST, LONGER), strict=True)
    )
    change, changed, seen = changes(values, mask, given)
    found = [season, season_mean, longer, longer_mean, longer + moved[:, 0, :1], longer + moved[:, 0, 1:]]
    found += [season + moved[:, 1, 1:], season + change]
    late = given["latest"]
    usual = fraction(before(away, given), before(both, given))
    away, both = away[:, :, late], both[:, :, late]
    faded, seldom = fading(values, mask, given)
    errors = error(torch.cat([away, away - usual, faded], 1), torch.cat([both, both, seldom], 1))
    all_values = torch.cat([one[0] for one in cycles], 1).transpose(1, 2)
    all_known = torch.cat([one[1] for one in cycles], 1).transpose(1, 2)
    return torch.stack(found, 2), errors[:, ORDER], (all_values, all_known, changed, seen)


def changes(values: Tensor, mask: Tensor, given: Given) -> tuple[Tensor, Tensor, Tensor]:
    """How the same step of earlier longer cycles lay above the main season before its origin: the fading mean (batch,
    horizon), 0 where unknown; each, with which are known, (batch, horizon, cycle)."""
    now, ago = given["look_longer"], given["look_before"]
    seen = mask[:, now] * mask[:, ago]
    change = (values[:, now] - values[:, ago]) * seen
    mean = repeated(change, seen, torch.zeros_like(values[:, :1]), LONGER)[1]
    return mean, change.transpose(1, 2), seen.transpose(1, 2)


def before(values: Tensor, given: Given) -> Tensor:
    """The sum over the season before each step that is judged, of (batch, lag, step)."""
    sums = torch.cat([torch.zeros_like(values[..., :1]), values.cumsum(2)], 2)
    return sums[..., given["latest"]] - sums[..., given["begins"]]


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
    at, lags = given["checked"][given["latest"]], given["lags"]
    ago = (torch.tensor(AGO, device=at.device) * lags).sum(1)
    seen, there = values[:, at - ago[:, None]], mask[:, at - ago[:, None]]
    weights = torch.tensor(FADES, dtype=values.dtype, device=values.device)
    known = weights @ there
    mean = (weights @ (seen * there)) / torch.where(known > 0, known, 1.0)
    all_four = there[:, :1] * there[:, 1:2] * there[:, 4:5] * there[:, 6:]
    turned = (seen[:, :1] - seen[:, 1:2]) - (seen[:, 4:5] - seen[:, 6:])
    return torch.cat([seen[:, :1] - mean, turned], 1), torch.cat([there[:, :1] * (known > 0), all_four], 1)


def repeated(values: Tensor, known: Tensor, last: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The newest known value of (batch, cycle, horizon), `count` cycles, the newest first, and the fading mean: (batch,
    horizon), `last` (batch, 1) where nothing is known."""
    newer = known.cumsum(1) * known == 1  # no cycle after it is known
    fade = torch.tensor([FADE**cycle for cycle in range(count)], dtype=values.dtype, device=values.device)
    weights = torch.stack([newer.to(values.dtype), known * fade[:, None]], 1)  # (batch, newest or mean, cycle, horizon)
    total = weights.sum(2)
    found = (values[:, None] * weights).sum(2) / torch.where(total > 0, total, 1.0)
    newest, mean = torch.where(total > 0, found, last[:, None]).unbind(1)
    return newest, mean


def smoothings(context: Tensor, values: Tensor, mask: Tensor, scaled: Scaled, given: Given) -> tuple[Tensor, Tensor]:
    """What the filters say of the values, and of the logarithms where all known values are above 0: growth and seasons
    in proportion to the level; twice the first elsewhere. (batch, horizon, 2 * filter) in scaled units, and the
    logarithms of the errors, (batch, 2 * filter). So many values cannot promise to be closer than 1 / their square."""
    time = given["band"].shape[0]
    least = mask.sum(1, keepdim=True).clamp_min(1.0) ** -2
    context, values, mask = context[:, -time:], values[:, -time:], mask[:, -time:]
    positive = ((context > 0) | (mask == 0)).all(1, keepdim=True) & (scaled.scale > 0)
    size = torch.where(scaled.scale > 0, scaled.scale, 1.0)[..., None]
    logs = torch.where(positive & (mask > 0), context, 1.0).log()
    anchor = newest_of_all(logs, mask)
    logs = (logs - anchor) * mask
    top = (logs.amax(1, keepdim=True) + GROWTH)[..., None]

    def plain(values: Tensor) -> Tensor:
        """Logarithms in scaled units; anything where there are none."""
        held = torch.where(positive[..., None], torch.minimum(values, top) + anchor[..., None], 0.0)
        return (held.exp() - scaled.shift[..., None]) / size

    ahead, judged = smooth(torch.cat([values, logs]), torch.cat([mask, mask]), given)  # both in one go
    own, other = ahead.chunk(2)
    one, two = (Judged(*parts) for parts in zip(*(part.chunk(2) for part in judged), strict=True))
    whole = plain(torch.cat([two.truth, two.guess], 2) + two.season)
    errors = torch.cat([one.truth - one.guess, whole[..., :1] - whole[..., 1:]]).abs()
    doubt, other_doubt = judged.doubt(errors, torch.cat([least, least])).chunk(2)
    found = [own, torch.where(positive[..., None], plain(other), own)]
    return torch.cat(found, 2), torch.cat([doubt, torch.where(positive, other_doubt, doubt)], 1)


def steps_read(values: Tensor, mask: Tensor, unit: Tensor, given: Given) -> Tensor:
    """The newest steps in segments, (batch, segment, STEP): values, what changed over each season, what is known."""
    ago = given["raw"] - given["lags"][:, None]  # (season, step)
    now, there = values[:, None, given["raw"]], mask[:, None, given["raw"]]
    changed = (now - values[:, ago]) / unit[..., None] * there * mask[:, ago]
    now, changed = squash(torch.cat([now, changed], 1)).split([1, 2], 1)
    count = RAW // SEGMENT
    steps = torch.cat([now, there, changed], 1).transpose(1, 2).reshape(-1, count, 4 * SEGMENT)
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
