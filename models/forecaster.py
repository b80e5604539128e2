"""The forecaster: one torch module from raw contexts to quantiles in the data's units. It is what is exported; its
members are what is trained."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.bases import Base, Bases, references
from models.config import TrainConfig
from models.covariates import Encoder
from models.features import Design
from models.heads import make_head
from models.networks import Network, Shape
from models.scaling import Scaled, scale_window
from models.windows import Panel

Ints = NDArray[np.int64]

SURE = 8.0  # power of a base's error inside the window that it is weighed by at first


@dataclass(frozen=True)
class Inputs:
    """Raw windows. `context` (batch, time) float64 with 0 where missing, `mask` alike float32, 1 where present;
    `features` (batch, time + horizon, feature) float32, NaN where unknown, and `static` (batch, column) where the
    forecaster uses any."""

    context: Tensor
    mask: Tensor
    features: Tensor | None = None
    static: Tensor | None = None


def inputs_of(panel: Panel, windows: tuple[Ints, Ints], sizes: tuple[int, int], design: Design) -> Inputs:
    """The raw windows (which, ends) of a panel; `sizes` are context and horizon, `design` what is read beside the
    target."""
    context, horizon = sizes
    there = min(context, int(panel.firsts[0]))  # steps farther back would be another series', or none
    before = ((0, 0), (context - there, 0))
    values = np.pad(panel.cut(*windows, there, 0), before, constant_values=np.nan)
    present = ~np.isnan(values)
    parts: list[Tensor | None] = [None, None]
    if panel.beside is not None:
        features, static = panel.beside.part(design).cut(panel, windows, there, horizon)
        features = np.pad(features, (*before, (0, 0)), constant_values=np.nan)
        parts = [torch.from_numpy(part) if part.shape[-1] else None for part in (features, static)]
    return Inputs(torch.from_numpy(np.where(present, values, 0.0)), torch.from_numpy(present).float(), *parts)


@dataclass(frozen=True)
class Ready:
    """Windows made ready for a member: `shift`, `scale` and `unit` (batch, 1) of `Scaled`, a constant window's scale is
    0, and what else the member reads."""

    shift: Tensor
    scale: Tensor
    unit: Tensor

    def narrow(self, device: torch.device) -> Self:
        """All of it in float32 on a device: exact enough to learn from, and MPS knows no float64."""
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        narrowed: dict[str, Any] = {n: part if part is None else _narrow(part, device) for n, part in parts.items()}
        return type(self)(**narrowed)

    def rows(self, which: Tensor | slice) -> Self:
        """Some of the windows."""
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        chosen: dict[str, Any] = {name: part if part is None else part[which] for name, part in parts.items()}
        return type(self)(**chosen)


@dataclass(frozen=True)
class Prepared(Ready):
    """Windows made ready for a network: `context` and `mask` (batch, time) float32, `bases` (batch, horizon, base) in
    scaled units, `doubts` (batch, base) the logarithm of their errors inside the window. `features` (batch, time +
    horizon, plain) and `static` (batch, plain) as the encoder's `plain` gives them."""

    context: Tensor
    mask: Tensor
    bases: Tensor
    doubts: Tensor
    features: Tensor | None = None
    static: Tensor | None = None


def _narrow(part: Tensor, device: torch.device) -> Tensor:
    return (part.float() if part.is_floating_point() else part).to(device)


R = TypeVar("R", bound=Ready)


class AnyMember(nn.Module, Generic[R]):
    """One of the forecasts that a version is the mean of. `config` is complete, `kinds` are the plain forecasts that it
    corrects, `design` is what it reads beside the target. One that is `floored` forecasts nothing below 0 where the
    window has nothing there. `together` windows are prepared at a time: in float64 they take several times what is kept
    of them."""

    floored = False
    together = 256

    def __init__(self, config: TrainConfig, kinds: tuple[Base, ...], design: Design) -> None:
        super().__init__()
        self.config, self.kinds, self.design = config, kinds, design
        self.beside = Encoder(design) if design else None

    def prepare(self, inputs: Inputs) -> tuple[R, Scaled]:
        """Make windows ready, and say how they are scaled."""
        raise NotImplementedError

    def scaled_quantiles(self, ready: R) -> Tensor:
        """Quantiles in scaled units, (batch, horizon, level), without bounds."""
        raise NotImplementedError

    def losses(self, ready: R, target: Tensor) -> Tensor:
        """What is learned from: (batch, horizon) of a scaled `target` alike."""
        raise NotImplementedError

    def forward(self, inputs: Inputs) -> Tensor:
        """Quantiles in the data's units, (batch, horizon, level) float64, never decreasing along levels."""
        ready, scaled = self.prepare(inputs)
        return scaled.undo(self.scaled_quantiles(ready).to(inputs.context.dtype))


class Member(AnyMember[Prepared]):
    """Scaling, bases, network and head of one network. `config` is complete; a base's period is at most the context;
    `design` is what it reads beside the target."""

    def __init__(self, config: TrainConfig, bases: tuple[Base, ...], design: Design | None = None) -> None:
        super().__init__(config, bases, design or Design())
        shape = network_shape(config)
        self.reads = config.read or config.context or 1
        self.bases = Bases(bases, config.context or 1, shape.horizon)
        self.head = make_head(config.head or "quantile", config.quantiles)
        sizes: dict[str, Any] = {"outputs": self.head.outputs, "bases": self.bases.count}
        if self.beside is not None:
            sizes |= {"features": self.beside.width, "static": self.beside.static_width}
            sizes |= {"references": references(bases)}
        self.network = Network(Shape(**shape.__dict__ | sizes))
        self.trust = nn.Parameter(torch.tensor(SURE))  # in the bases' errors inside a window

    def prepare(self, inputs: Inputs) -> tuple[Prepared, Scaled]:
        """Scale the windows' newest steps and look up their bases."""
        length = self.config.context or 1
        context, mask = inputs.context, inputs.mask
        if int(context.shape[1]) != length:  # a slice of everything costs a graph as much as any other
            context, mask = context[:, -length:], mask[:, -length:]
        present, mask = mask.float(), mask.to(context.dtype)
        scaled = self._scaled(context, mask)
        values = scaled.apply(context) * mask
        bases, doubts = self.bases(values, mask)
        ready = Prepared(scaled.shift, scaled.scale, scaled.unit, values.float(), present, bases, doubts)
        if self.beside is not None:
            steps = length + int(bases.shape[1])
            features = None if inputs.features is None else self.beside.plain(inputs.features[:, -steps:], mask)
            static = None if inputs.static is None else self.beside.static.plain(inputs.static)
            ready = replace(ready, features=features, static=static)
        return ready, scaled

    def _scaled(self, context: Tensor, mask: Tensor) -> Scaled:
        """How the windows are scaled: by the steps that the network reads, by all where those are missing."""
        early = context.shape[1] - self.reads
        if early == 0:
            return scale_window(context, mask, self.config.scaling or "std")
        late = torch.cat([torch.zeros_like(mask[:, :early]), mask[:, early:]], dim=1)
        counted = torch.where(late.sum(1, keepdim=True) > 0, late, mask)
        return scale_window(context * counted, counted, self.config.scaling or "std")

    def raw(self, ready: Prepared) -> tuple[Tensor, Tensor]:
        """The head's numbers (batch, horizon, outputs) and the base (batch, horizon) it corrects."""
        logits = -self.trust * (ready.doubts - ready.doubts.mean(1, keepdim=True)) if self.bases.count else ready.doubts
        features, static = ready.features, ready.static
        if self.beside is not None:
            features = None if features is None else self.beside.embed(features)
            static = None if static is None else self.beside.static.embed(static)
        context, mask = ready.context, ready.mask
        if int(context.shape[1]) != self.reads:
            context, mask = context[:, -self.reads :], mask[:, -self.reads :]
        worth = None
        if features is not None:
            scale = torch.where(ready.scale > 0, ready.scale, 1.0)
            worth = (1.0 / scale, 0.0) if self.config.scaling == "log" else (ready.shift / scale, 1.0)
        return self.network(context, mask, ready.bases, logits.float(), features=features, static=static, worth=worth)

    def scaled_quantiles(self, ready: Prepared) -> Tensor:
        """Quantiles in scaled units, (batch, horizon, level), without bounds."""
        raw, base = self.raw(ready)
        return self.head.quantiles(raw, base, ready.shift, ready.scale)

    def losses(self, ready: Prepared, target: Tensor) -> Tensor:
        """The head's losses (batch, horizon) of a scaled `target` alike."""
        raw, base = self.raw(ready)
        return self.head.loss(raw, base, target, ready.shift, ready.scale)


class Forecaster(nn.Module):
    """What a version computes: the weighted mean of its members' quantiles, their distances from the median evened out
    (see `evened`) and stretched as the held-out steps asked for, within the bounds; with a member that is `floored`,
    not below 0 where the window is not. `config` is the version's, complete."""

    shares: Tensor
    skew: Tensor
    stretch: Tensor

    def __init__(self, config: TrainConfig, members: Sequence[AnyMember[Any]]) -> None:
        super().__init__()
        self.config = config
        self.members = nn.ModuleList(members)
        self.register_buffer("shares", torch.ones(len(members), dtype=torch.float64))
        self.register_buffer("skew", torch.ones(1, dtype=torch.float64))
        self.register_buffer("stretch", torch.ones(config.horizon or 1, len(config.quantiles), dtype=torch.float64))

    def mixed(self, inputs: Inputs) -> Tensor:
        """The members' weighted mean, (batch, horizon, level)."""
        parts = [member(inputs) for member in self.members]
        if len(parts) == 1:
            return parts[0]
        total = torch.stack([share * part for share, part in zip(self.shares, parts, strict=True)]).sum(0)
        return total / self.shares.sum()

    def forward(
        self, context: Tensor, mask: Tensor, features: Tensor | None = None, static: Tensor | None = None
    ) -> Tensor:
        """Quantiles in the data's units, (batch, horizon, level) float64: never decreasing along levels, within the
        bounds."""
        quantiles = self.mixed(Inputs(context, mask, features, static))
        place = middle(self.config.quantiles)
        centre = quantiles[..., place : place + 1]
        away = quantiles - centre
        if mirrored(self.config.quantiles) and float(self.skew) != 1.0:
            own, other = (1.0 + self.skew) / 2.0 * self.stretch, (1.0 - self.skew) / 2.0 * self.stretch
            quantiles = centre + away * own - away.flip(-1) * other
        else:
            quantiles = centre + away * self.stretch
        if any(member.floored for member in self.members):
            least = torch.where(mask > 0, context, 0.0).amin(1)[:, None, None]
            quantiles = torch.where(least >= 0, quantiles.clamp_min(0.0), quantiles)
        low, high = self.config.minimum, self.config.maximum
        return quantiles if low is None and high is None else quantiles.clamp(low, high)


def mirrored(levels: tuple[float, ...]) -> bool:
    """Whether the median is a level, and each other one has one as far on its other side."""
    pairs = zip(levels, levels[::-1], strict=True)
    return len(levels) % 2 == 1 and all(abs(low + high - 1.0) < 1e-9 for low, high in pairs)


def middle(levels: tuple[float, ...]) -> int:
    """The place of the level nearest to the median."""
    return min(range(len(levels)), key=lambda place: abs(levels[place] - 0.5))


def network_shape(config: TrainConfig) -> Shape:
    """The network a complete config asks for, its head and bases aside. Raises ValueError when a field is still
    open."""
    sizes = {name: getattr(config, name) for name in ("cell", "layers", "hidden", "segment", "horizon", "context")}
    for name, value in sizes.items():
        if value is None:
            raise ValueError(f"config: expected a value for {name}, got None")
    return Shape(
        outputs=0,
        bases=0,
        decoder=config.decoder,
        activation=config.activation,
        bidirectional=config.bidirectional,
        truncate=config.truncate,
        **sizes,
    )
