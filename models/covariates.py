"""Raw columns of `features` made into what a network reads, inside the exported graph: numbers standardised, a missing
one 0 (and said to be, where that has a meaning), categories embedded with code 0 for the unknown. float32."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.features import Beside, Design, Feature

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
    sizes: Tensor

    def __init__(self, features: Sequence[Feature]) -> None:
        super().__init__()
        self.numbers = [place for place, one in enumerate(features) if one.kind == "number"]
        self.gaps = [place for place, one in enumerate(features) if one.kind == "number" and one.gaps]
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
        self.register_buffer("sizes", torch.tensor(sizes, dtype=torch.float32), persistent=False)
        with torch.no_grad():
            for table in self._tables():
                table.weight.normal_(0.0, SPREAD)

    def _tables(self) -> list[nn.Embedding]:
        return [table for table in self.categories if isinstance(table, nn.Embedding)]

    def fit(self, values: Tensor) -> None:
        """Take the numbers' mean and deviation from `values` (row, column), NaN = unknown."""
        for place, column in enumerate(self.numbers):
            own = values[:, column].double()
            own = own[~own.isnan()]
            if len(own):
                deviation = float(own.std(correction=0))
                self.mean[place] = float(own.mean())
                self.deviation[place] = deviation if deviation > 0 else 1.0

    def plain(self, raw: Tensor) -> Tensor:
        """Numbers standardised, whether they are there, codes that the tables hold."""
        parts: list[Tensor] = []
        if self.numbers:
            numbers = raw[..., self.numbers]
            own = ((numbers - self.mean) / self.deviation).clamp(-FARTHEST, FARTHEST)
            parts.append(torch.where(numbers.isnan(), 0.0, own))
        if self.gaps:
            parts.append((~raw[..., self.gaps].isnan()).to(raw.dtype))
        if self.codes:
            codes = raw[..., self.codes]
            known = (codes >= 0) & (codes < self.sizes)  # false for NaN
            parts.append(torch.where(known, codes, 0.0))
        return torch.cat(parts, dim=-1) if parts else raw[..., :0]

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

    def fit(self, known: Beside, learned: Tensor) -> None:
        """Take means and deviations from the cells that are learned from, where `learned` (cell,) says."""
        self.steps.fit(torch.from_numpy(known.cells)[learned])
        self.static.fit(torch.from_numpy(known.static))

    def plain(self, features: Tensor, mask: Tensor) -> Tensor:
        """Raw features (batch, time + horizon, column) before categories are embedded; nothing is known of steps before
        the first value of `mask` (batch, time)."""
        parts = [torch.where(features.isnan(), 0.0, features)[..., : self.calendar]] if self.calendar else []
        return torch.cat([*parts, self.steps.plain(features[..., self.calendar :])], dim=2) * begun(mask, features)

    def embed(self, plain: Tensor) -> Tensor:
        """(batch, time, plain) -> (batch, time, width)."""
        if not self.steps.codes:
            return plain
        return torch.cat([plain[..., : self.calendar], self.steps.embed(plain[..., self.calendar :])], dim=2)


def begun(mask: Tensor, features: Tensor) -> Tensor:
    """Which steps of `features` (batch, time + horizon, …) do not lie before the first value of `mask` (batch, time):
    (batch, time + horizon, 1) float32."""
    seen = (mask.float().cumsum(1) > 0).to(features.dtype)
    ahead = features.new_ones(1, features.shape[1] - mask.shape[1]).expand(mask.shape[0], -1)
    return torch.cat([seen, ahead], dim=1)[..., None]
