"""How a window is normalised: by its own known values, in float64, inside the exported graph."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.bases import newest_of_all

FLOOR = 1e-3  # of a window's mean size: what is below it has the logarithm of it
LARGEST = 700.0  # exponent: e to this is finite


class Scaled(NamedTuple):
    """How a window was normalised. `shift` and `scale` (batch, 1) lead from scaled to plain values (their logarithms
    where `floor` is given): scaled * scale + shift. `unit` (batch, 1) is about what 1 scaled is in the data's units;
    `newest` (batch, 1) the newest known value, which a constant window goes on with whatever rounding does to
    logarithms."""

    shift: Tensor
    scale: Tensor
    unit: Tensor
    floor: Tensor | None = None
    newest: Tensor | None = None

    def apply(self, values: Tensor) -> Tensor:
        """Data -> scaled, (batch, time). Where the scale is 0 the values only move."""
        return (self.plain(values) - self.shift) / torch.where(self.scale > 0, self.scale, 1.0)

    def plain(self, values: Tensor) -> Tensor:
        """What is scaled linearly: the values, or their logarithms."""
        return values if self.floor is None else torch.maximum(values, self.floor).log()

    def undo(self, scaled: Tensor) -> Tensor:
        """Scaled -> data, (batch, time, level)."""
        plain = scaled * self.scale[..., None] + self.shift[..., None]
        if self.floor is None or self.newest is None:
            return plain
        return torch.where(self.scale[..., None] > 0, plain.clamp_max(LARGEST).exp(), self.newest[..., None])


def scale_window(context: Tensor, mask: Tensor, scaling: str) -> Scaled:
    """How each window is normalised so that scaled values are of order one.

    `context` (batch, time) float64 with 0 where missing, `mask` (batch, time) float64 with 1 where present. `std`:
    mean and standard deviation; `last`: newest known value and standard deviation; `mean`: 0 and mean size; `log`:
    newest known value and standard deviation of the logarithms, for positive values. One known value has no deviation
    and is scaled by its size (`log`: by 1). The scale of a constant window is exactly 0: nothing may be added to it."""
    count = mask.sum(-1, keepdim=True).clamp_min(1.0)
    level = _mean_size(context, count)
    if scaling == "mean":
        return Scaled(torch.zeros_like(level), level, level)
    if scaling == "log":
        floor = torch.where(level > 0, FLOOR * level, 1.0)
        logs = torch.maximum(context, floor).log() * mask
        last, _, spread = _spread(logs, mask, count, torch.ones_like(level))
        spread = torch.where(level > 0, spread, 0.0)
        return Scaled(last, spread, last.clamp_max(LARGEST).exp() * spread, floor, newest_of_all(context, mask))
    last, mean, spread = _spread(context, mask, count, level)
    return Scaled(last if scaling == "last" else mean, spread, spread)


def _spread(values: Tensor, mask: Tensor, count: Tensor, alone: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The newest known value, the mean and the standard deviation (`alone` of a single value), all (batch, 1)."""
    last = newest_of_all(values, mask)
    away = (
        values - last
    ) * mask  # from a known value, not from the rounded mean: small changes of huge values are exact
    size = away.abs().amax(-1, keepdim=True)
    unit = away / torch.where(size > 0, size, 1.0)  # the square of 1e200 overflows
    drift = unit.sum(-1, keepdim=True) / count
    deviation = (((unit - drift) * mask) ** 2).sum(-1, keepdim=True) / count
    return last, last + drift * size, torch.where(count > 1, deviation.sqrt() * size, alone)


def _mean_size(context: Tensor, count: Tensor) -> Tensor:
    size = context.abs().amax(-1, keepdim=True)
    size = torch.where(size > 0, size, 1.0)
    return (context / size).abs().sum(-1, keepdim=True) / count * size
