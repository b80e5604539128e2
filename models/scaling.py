"""How a window is normalised: by its own known values, in float64, inside the exported graph."""

import torch
from torch import Tensor

from models.bases import newest


def scale_window(context: Tensor, mask: Tensor, scaling: str) -> tuple[Tensor, Tensor]:
    """The shift and scale of each window, both (batch, 1) float64, so that (value - shift) / scale is of order one.

    `context` (batch, time) float64 with 0 where missing, `mask` (batch, time) float64 with 1 where present. `std`:
    mean and standard deviation; `last`: newest known value and standard deviation; `mean`: 0 and mean size. One known
    value has no deviation and is scaled by its size. The scale of a constant window is exactly 0: nothing may be
    added to it."""
    count = mask.sum(1, keepdim=True).clamp_min(1.0)
    level = _mean_size(context, count)
    if scaling == "mean":
        return torch.zeros_like(level), level
    last = newest(context, mask, 1)[0]
    away = (
        context - last
    ) * mask  # from a known value, not from the rounded mean: small changes of huge values are exact
    size = away.abs().amax(1, keepdim=True)
    unit = away / torch.where(size > 0, size, 1.0)  # the square of 1e200 overflows
    drift = unit.sum(1, keepdim=True) / count
    deviation = (((unit - drift) * mask) ** 2).sum(1, keepdim=True) / count
    spread = torch.where(count > 1, deviation.sqrt() * size, level)
    return (last if scaling == "last" else last + drift * size), spread


def _mean_size(context: Tensor, count: Tensor) -> Tensor:
    size = context.abs().amax(1, keepdim=True)
    size = torch.where(size > 0, size, 1.0)
    return (context / size).abs().sum(1, keepdim=True) / count * size
