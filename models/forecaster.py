"""The forecaster: one torch module from a raw context to quantiles in the data's units. It is what is trained and
exported."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from models.bases import Base, look_up
from models.config import TrainConfig
from models.networks import Network, Shape
from models.scaling import scale_window


@dataclass(frozen=True)
class Prepared:
    """A batch of windows made ready for the network: `context` and `mask` (batch, time) float32; `shift`, `scale`
    (batch, 1) and `bases` (batch, horizon, base) float64, the bases in scaled units. A constant window's scale is
    0."""

    context: Tensor
    mask: Tensor
    shift: Tensor
    scale: Tensor
    bases: Tensor

    def narrow(self, device: torch.device) -> "Prepared":
        """All of it in float32 on a device: exact enough to learn from, and MPS knows no float64."""
        return Prepared(*(getattr(self, field.name).float().to(device) for field in fields(self)))


class Forecaster(nn.Module):
    """Scaling, bases, network and bounds in one graph. `config` is complete; the period of each base is at most the
    context."""

    def __init__(self, config: TrainConfig, bases: tuple[Base, ...]) -> None:
        super().__init__()
        self.config = config
        self.bases = bases
        self.network = Network(network_shape(config, len(bases)))

    def prepare(self, context: Tensor, mask: Tensor) -> Prepared:
        """Scale the windows and look up their bases. `context` (batch, time) float64 with 0 where missing, `mask`
        alike, 1 where present."""
        mask = mask.to(context.dtype)
        shift, scale = scale_window(context, mask, self.config.scaling or "std")
        scaled = (context - shift) / torch.where(scale > 0, scale, 1.0) * mask
        bases = look_up(scaled, mask, self.bases, self.config.horizon or 1)
        return Prepared(scaled.float(), mask.float(), shift, scale, bases)

    def scaled_quantiles(self, ready: Prepared) -> Tensor:
        """Quantiles in scaled units, (batch, horizon, level) in the bases' type, without bounds."""
        offsets, weights = self.network(ready.context, ready.mask)
        if not self.bases:
            return offsets.to(ready.bases.dtype)
        weights = weights.to(ready.bases.dtype)
        base = (ready.bases * weights).sum(2, keepdim=True) / weights.sum(2, keepdim=True)
        return base + offsets

    def forward(self, context: Tensor, mask: Tensor) -> Tensor:
        """Quantiles in the data's units, (batch, horizon, level) float64: never decreasing along levels, within the
        bounds."""
        ready = self.prepare(context, mask)
        quantiles = self.scaled_quantiles(ready) * ready.scale[..., None] + ready.shift[..., None]
        low, high = self.config.minimum, self.config.maximum
        return quantiles if low is None and high is None else quantiles.clamp(low, high)


def network_shape(config: TrainConfig, bases: int) -> Shape:
    """The network a complete config asks for. Raises ValueError when a field is still open."""
    sizes = {name: getattr(config, name) for name in ("cell", "layers", "hidden", "segment", "horizon", "context")}
    for name, value in sizes.items():
        if value is None:
            raise ValueError(f"config: expected a value for {name}, got None")
    del sizes["context"]
    return Shape(levels=config.quantiles, bases=bases, **sizes)
