"""How a window is normalised: by its own known values, in float64, inside the exported graph."""

import torch
from torch import Tensor

FLOOR = 1e-9  # smallest scale as a share of the window's size: a constant window has no spread to measure
TINY = 1e-150  # the size of a window of zeros


def scale_window(context: Tensor, mask: Tensor, scaling: str) -> tuple[Tensor, Tensor]:
    """The shift and scale of each window, both (batch, 1) float64, so that (value - shift) / scale is of order one.

    `context` (batch, time) float64 with 0 where missing, `mask` (batch, time) float64 with 1 where present. `std`: mean and
    standard deviation; `last`: newest known value and standard deviation; `mean`: 0 and mean size. A window without any
    known value has shift 0.
    """
    count = mask.sum(1, keepdim=True).clamp_min(1.0)
    size = context.abs().amax(1, keepdim=True).clamp_min(TINY)  # first divided by: squares of 1e200 overflow
    unit = context / size
    mean = unit.sum(1, keepdim=True) / count
    level = unit.abs().sum(1, keepdim=True) / count
    if scaling == "mean":
        return torch.zeros_like(mean), level.clamp_min(FLOOR) * size
    deviation = (((unit - mean) * mask) ** 2).sum(1, keepdim=True) / count
    spread = deviation.sqrt().clamp_min(FLOOR)
    shift = newest(unit, mask, 1)[0] if scaling == "last" else mean
    return shift * size, spread * size


def newest(context: Tensor, mask: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """The newest known value at each place of a cycle of `period` steps that ends with the context, 0 where none is known,
    and whether one is: both (batch, period). The front of the context is cut to whole cycles; one must fit."""
    cycles = context.shape[1] // period
    values = context[:, context.shape[1] - cycles * period :].reshape(-1, cycles, period)
    known = mask[:, mask.shape[1] - cycles * period :].reshape(-1, cycles, period)
    age = torch.arange(1, cycles + 1, dtype=mask.dtype, device=mask.device).view(1, cycles, 1)
    last = (known * age).amax(1, keepdim=True)  # (batch, 1, period), 0 where none is known
    value = values.gather(1, (last - 1).clamp_min(0).long()).squeeze(1)
    return value, (last > 0).squeeze(1)
