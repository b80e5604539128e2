"""What the network's numbers mean at each step ahead: one class a distribution, from raw numbers to quantiles and to a
loss. All in scaled units, around the base."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST_GAP = 1e-3  # between neighbouring levels of the first forecast, in scaled units


class Head(nn.Module):
    """`outputs` numbers a step; the first is always the offset of the median (the location) from the base."""

    outputs: int

    def quantiles(self, raw: Tensor, base: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Quantiles (batch, horizon, level), never decreasing along levels, in scaled units, of `raw` (batch, horizon,
        outputs) and `base` (batch, horizon). `shift` and `scale` (batch, 1) lead to the data: scaled * scale +
        shift."""
        raise NotImplementedError

    def loss(self, raw: Tensor, base: Tensor, target: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """What each step's forecast costs against `target` (batch, horizon), as (batch, horizon), in scaled units and
        finite for any finite input."""
        raise NotImplementedError

    def begin(self, residuals: Tensor) -> Tensor:
        """The raw numbers (horizon, outputs) whose quantiles are `residuals` (horizon, level), never decreasing along
        levels, around the base: what an untrained network starts from."""
        raise NotImplementedError


class Quantile(Head):
    """Free quantiles, monotone by construction: the level nearest to the median as it is, the others by adding up
    softplus steps away from it. The loss is the pinball loss (Koenker and Bassett 1978), a mean over levels."""

    levels: Tensor

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.outputs = len(levels)
        self.anchor = nearest_to_median(levels)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)

    def quantiles(self, raw: Tensor, base: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return base[..., None] + monotone(raw, self.anchor)

    def loss(self, raw: Tensor, base: Tensor, target: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        error = (target - base)[..., None] - monotone(raw, self.anchor)
        return torch.maximum(self.levels * error, (self.levels - 1.0) * error).mean(-1)

    def begin(self, residuals: Tensor) -> Tensor:
        anchor = self.anchor
        gaps = residuals.diff(dim=1).clamp_min(LEAST_GAP)
        free = gaps + torch.log(-torch.expm1(-gaps))  # the inverse of softplus
        return torch.cat([residuals[:, anchor : anchor + 1], free], dim=1)


def monotone(raw: Tensor, anchor: int) -> Tensor:
    """Quantiles (…, level) from free numbers (…, level): the first is the anchor's, the others are the steps between
    neighbouring levels, from the lowest to the highest, before softplus."""
    middle = raw[..., :1]
    steps = functional.softplus(raw[..., 1:])
    parts = [middle]
    if anchor > 0:
        parts.insert(0, middle - steps[..., :anchor].flip(-1).cumsum(-1).flip(-1))
    if anchor < raw.shape[-1] - 1:
        parts.append(middle + steps[..., anchor:].cumsum(-1))
    return torch.cat(parts, dim=-1)


def nearest_to_median(levels: tuple[float, ...]) -> int:
    """The place of the level that a forecast's location is read from."""
    return min(range(len(levels)), key=lambda place: abs(levels[place] - 0.5))


HEADS: dict[str, Callable[[tuple[float, ...]], Head]] = {"quantile": Quantile}


def make_head(kind: str, levels: tuple[float, ...]) -> Head:
    """The head a config names: `kind` is a key of HEADS, `levels` the trained ones, ascending."""
    return HEADS[kind](levels)
