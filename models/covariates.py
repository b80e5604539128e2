"""Raw columns of `features` made into what a network reads, inside the exported graph: numbers standardised, a missing
one 0 (and said to be, where that has a meaning), categories embedded with code 0 for the unknown. float32."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.features import Beside, Design, Feature, Floats, within
from models.windows import Panel

Ints = NDArray[np.int64]

FARTHEST = 8.0  # deviations from the mean, beyond which a number says no more
WIDEST = 8  # numbers a category becomes, at most
UNKNOWN = 0.05  # of the windows learned from do not know a category, so that code 0 means something
SPREAD = 0.3  # deviation of a category's first numbers


class Columns(nn.Module):
    """Some columns, in two stages, because the first is the same for every window and costs a quarter of a training
    step: `plain` (…, column) -> (…, plain), what can be computed once for the whole of the data; `embed` (…, plain) ->
    (…, width), what is learned."""

    mean: Tensor
    deviation: Tensor
    ratios: Tensor
    levels: Tensor
    sizes: Tensor

    def __init__(self, features: Sequence[Feature]) -> None:
        super().__init__()
        self.numbers = [place for place, one in enumerate(features) if one.kind == "number"]
        self.gaps = [place for place, one in enumerate(features) if one.kind == "number" and (one.gaps or one.own)]
        self.log = [features[place].log for place in self.numbers]
        self.own = [features[place].own for place in self.numbers]
        self.codes = [place for place, one in enumerate(features) if one.kind == "category"]
        sizes = [features[place].size for place in self.codes]
        self.categories = nn.ModuleList(
            nn.Embedding(size, min(WIDEST, 1 + math.ceil(math.log2(size)))) for size in sizes
        )
        self.first = len(self.numbers) + len(self.gaps)  # of the codes in `plain`
        self.count = self.first + len(self.codes)
        self.width = self.first + sum(int(table.weight.shape[1]) for table in self._tables())
        self.order = [*self.numbers, *self.gaps, *self.codes]  # the column that each plain one comes from
        self.register_buffer("mean", torch.zeros(len(self.numbers)))
        self.register_buffer("deviation", torch.ones(len(self.numbers)))
        self.register_buffer("ratios", torch.tensor([one.log for one in features], dtype=torch.bool), persistent=False)
        self.register_buffer("levels", torch.tensor(self.own, dtype=torch.bool), persistent=False)
        self.register_buffer("sizes", torch.tensor(sizes, dtype=torch.float32), persistent=False)
        with torch.no_grad():
            for table in self._tables():
                table.weight.normal_(0.0, SPREAD)

    def _tables(self) -> list[nn.Embedding]:
        return [table for table in self.categories if isinstance(table, nn.Embedding)]

    def fit(self, values: Floats, owners: Ints) -> None:
        """Take the numbers' mean and deviation from `values` (row, column), NaN = unknown; where series have levels of
        their own, the deviation from those. `owners` (row,) are the series."""
        for place, column in enumerate(self.numbers):
            own = np.log(values[:, column]) if self.log[place] else values[:, column]
            if np.isnan(own).all():
                continue
            deviation = within(own, owners if self.own[place] else np.zeros_like(owners))
            self.mean[place] = float(np.nanmean(own.astype(np.float64)))
            self.deviation[place] = deviation if deviation > 0 else 1.0

    def plain(self, raw: Tensor) -> Tensor:
        """Numbers standardised, whether they are there, codes that the tables hold."""
        parts: list[Tensor] = []
        if any(self.log):
            raw = torch.where(self.ratios, torch.where(raw > 0, raw, torch.nan).log(), raw)
        if self.numbers:
            numbers = (raw[..., self.numbers] - self.mean) / self.deviation
            if not all(self.own):
                held = numbers.clamp(-FARTHEST, FARTHEST)
                numbers = torch.where(self.levels, numbers, held) if any(self.own) else held
            parts.append(torch.where(numbers.isnan(), 0.0, numbers))
        if self.gaps:
            parts.append((~raw[..., self.gaps].isnan()).to(raw.dtype))
        if self.codes:
            codes = raw[..., self.codes]
            known = (codes >= 0) & (codes < self.sizes)  # false for NaN
            parts.append(torch.where(known, codes, 0.0))
        return torch.cat(parts, dim=-1) if parts else raw[..., :0]

    def centred(self, plain: Tensor) -> Tensor:
        """(batch, time, plain), the numbers with levels of their own as the distance from the window's mean."""
        if not any(self.own):
            return plain
        count = len(self.numbers)
        pairs = zip(self.numbers, self.own, strict=True)
        there = plain[..., [count + self.gaps.index(place) if own else 0 for place, own in pairs]]
        numbers = plain[..., :count]
        mean = (numbers * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp_min(1.0)
        near = ((numbers - mean) * there).clamp(-FARTHEST, FARTHEST)
        return torch.cat([torch.where(self.levels, near, numbers), plain[..., count:]], dim=-1)

    def embed(self, plain: Tensor) -> Tensor:
        """The codes' own numbers in their place."""
        if not self.codes:
            return plain
        codes = plain[..., self.first :].long()
        found = [table(codes[..., place]) for place, table in enumerate(self.categories)]
        return torch.cat([plain[..., : self.first], *found], dim=-1)


class Encoder(nn.Module):
    """All that a design's columns become: `features` (batch, time, width) of the steps, `static` (batch,
    static_width) of the series. The calendar's columns come first and as they are."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design = design
        self.calendar = len(design.calendar)
        covariates = design.steps[self.calendar :]
        self.steps = Columns(covariates)
        self.static = Columns(design.static)
        self.past = [place for place, at in enumerate(self.steps.order) if covariates[at].role == "past"]
        self.width = self.calendar + self.steps.width
        self.static_width = self.static.width

    def fit(self, panel: Panel, limits: Ints) -> None:
        """Take means and deviations from the first `limits` (series,) steps of each series."""
        known = beside_of(panel, self.design)
        owners = np.arange(len(limits))
        self.steps.fit(known.cells[known.learned(panel, limits)], np.repeat(owners, limits))
        self.static.fit(known.static, owners)

    def plain(self, features: Tensor, mask: Tensor) -> Tensor:
        """Raw features (batch, time + horizon, column) before categories are embedded; nothing is known of steps before
        the first value of `mask` (batch, time)."""
        parts = [torch.where(features.isnan(), 0.0, features)[..., : self.calendar]] if self.calendar else []
        return torch.cat([*parts, self.steps.plain(features[..., self.calendar :])], dim=2) * begun(mask, features)

    def embed(self, plain: Tensor) -> Tensor:
        """(batch, time, plain) -> (batch, time, width)."""
        own = self.steps.embed(self.steps.centred(plain[..., self.calendar :]))
        return torch.cat([plain[..., : self.calendar], own], dim=2) if self.calendar else own


def begun(mask: Tensor, features: Tensor) -> Tensor:
    """Which steps of `features` (batch, time + horizon, …) do not lie before the first value of `mask` (batch, time):
    (batch, time + horizon, 1) float32."""
    seen = (mask.float().cumsum(1) > 0).to(features.dtype)
    ahead = features.new_ones(1, features.shape[1] - mask.shape[1]).expand(mask.shape[0], -1)
    return torch.cat([seen, ahead], dim=1)[..., None]


class Store:
    """The features of a panel where its values lie, as an encoder's `plain` makes them: a window costs one gather."""

    def __init__(self, encoder: Encoder, panel: Panel, steps: Tensor) -> None:
        """`steps` (time + horizon,) are those of a window around its end, on the device to gather on."""
        known = beside_of(panel, encoder.design)
        encoder.cpu()
        self.panel, self.known, self.steps, self.encoder = panel, known, steps, encoder
        table, cells = torch.from_numpy(known.table), torch.from_numpy(known.cells)
        self.table = torch.where(table.isnan(), 0.0, table).to(steps.device)
        self.cells = encoder.steps.plain(cells).to(steps.device)
        self.static = encoder.static.plain(torch.from_numpy(known.static)).to(steps.device)
        self.ahead = int((steps >= 0).sum())
        first, count = encoder.calendar + encoder.steps.first, len(encoder.steps.codes)
        self.codes = slice(first, first + count)
        self.categories = count + len(encoder.static.codes)

    def places(self, which: Ints, ends: Ints) -> Tensor:
        """Where each window (which, ends) is found: (window, 3)."""
        cells, rows = self.panel.firsts[which] + ends, self.known.rows[which] + ends
        return torch.from_numpy(np.stack([cells, rows, which], axis=1))

    def gather(self, places: Tensor, mask: Tensor, blind: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """`plain` features (window, time + horizon, plain) and statics (window, plain) of the windows at `places`, on
        the device of their `mask` (window, time); without the categories that `blind` (window, category) takes away."""
        encoder = self.encoder
        places = places.to(self.steps.device)
        features = static = None
        steps_blind = static_blind = None
        if blind is not None:
            count = len(encoder.steps.codes)
            steps_blind, static_blind = blind[:, None, :count], blind[:, count:]
        if encoder.design.steps:
            own = self.cells[places[:, :1] + self.steps]
            if encoder.past:
                own[:, -self.ahead :, encoder.past] = 0.0
            if encoder.calendar:
                own = torch.cat([self.table[places[:, 1:2] + self.steps], own], dim=2)
            features = own.to(mask.device) * begun(mask, own.to(mask.device))
            if steps_blind is not None:
                features[..., self.codes] = features[..., self.codes].masked_fill(steps_blind, 0.0)
        if encoder.design.static:
            static = self.static[places[:, 2]].to(mask.device)
            if static_blind is not None:
                first = encoder.static.first
                static[:, first:] = static[:, first:].masked_fill(static_blind, 0.0)
        return features, static

    def blind(self, random: np.random.Generator, count: int) -> Tensor | None:
        """Which categories each of `count` windows does not know, (window, category); None where there are none."""
        if not self.categories:
            return None
        return torch.from_numpy(random.random((count, self.categories)) < UNKNOWN)


def beside_of(panel: Panel, design: Design) -> Beside:
    """The columns of `design` of a panel's series. Raises ValueError when the panel has none."""
    if panel.beside is None:
        raise ValueError(f"panel: expected features {', '.join(one.name for one in design.steps)}, got none")
    return panel.beside.part(design)
