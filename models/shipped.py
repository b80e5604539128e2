"""The base as a member of a version: bound to the seasons and the steps ahead of one run, its levels turned into those
asked for. It stands in one graph with networks that were learned from nothing, and may be learned on."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.config import TrainConfig
from models.features import Design
from models.forecaster import AnyMember, Inputs, Ready
from models.quantiles import level_weights
from models.scaling import Scaled
from models.tables import reach, tables_until
from models.universal import Answering, Universal, read_windows

HEAD = ("ask.", "think.", "say.", "gate.")  # what answers a step ahead
CELLS = ("steps.", "cycles.", "state.")
NO_FLOOR = -1e9  # scaled units


@dataclass(frozen=True)
class Known(Ready):
    """Windows as the base reads them: parts of `Read`, the least that a forecast may be, (batch, 1) in scaled units,
    and instead of what the cells read the `state` (batch, number) that they come to, where they stay as they are."""

    about: Tensor
    asked: Tensor
    bases: Tensor
    doubts: Tensor
    error: Tensor
    floor: Tensor
    steps: Tensor | None = None
    cycles: Tensor | None = None
    state: Tensor | None = None


class Shipped(AnyMember[Known]):
    """The base's network for the `seasons` (main, longer) of one frequency. `config` is complete; its `context` may be
    less than the base's reach where no series is longer, its quantiles are those answered with."""

    floored = True
    together = 128  # a fifth of a megabyte each of few steps ahead, more of many
    stretch: Tensor
    weights: Tensor

    def __init__(self, config: TrainConfig, seasons: tuple[int, int], base: Answering) -> None:
        super().__init__(config, (), Design())
        self.seasons = seasons
        self.network = copy.deepcopy(base.network)
        own = base.network.levels
        self.register_buffer("stretch", base.stretch.float().clone())
        self.register_buffer("weights", torch.from_numpy(level_weights(own, config.quantiles)).float(), False)
        self.same = [own.index(level) for level in config.quantiles if level in own]
        # No buffers: a device without float64 could not hold them, and nothing is prepared there.
        tables = tables_until(*seasons, config.horizon or 1)
        self.tables = {name: torch.from_numpy(np.ascontiguousarray(table)) for name, table in tables.items()}

    @classmethod
    def blank(cls, config: TrainConfig, seasons: tuple[int, int], levels: tuple[float, ...]) -> "Shipped":
        """One without weights yet, whose network has `config.hidden` units and answers at `levels`."""
        return cls(config, seasons, Answering(Universal(config.hidden or 1, levels)))

    @property
    def context(self) -> int:
        """Steps of history that it can use."""
        return reach(*self.seasons)

    def prepare(self, inputs: Inputs) -> tuple[Known, Scaled]:
        """Windows of any length; steps that are not there are missing."""
        length = self.context
        context, mask = inputs.context[:, -length:], inputs.mask[:, -length:].to(inputs.context.dtype)
        missing = length - int(context.shape[1])
        if missing > 0:
            context, mask = functional.pad(context, (missing, 0)), functional.pad(mask, (missing, 0))
        given = {name: table.to(context.device) for name, table in self.tables.items()}
        read, scaled = read_windows(context, mask, given)
        least = torch.where(mask > 0, context, 0.0).amin(1, keepdim=True)
        size = torch.where(scaled.scale > 0, scaled.scale, 1.0)
        floor = torch.where((least >= 0) & (scaled.scale > 0), -scaled.shift / size, NO_FLOOR).clamp_min(NO_FLOOR)
        plain = read.about, read.asked, read.bases, read.doubts, read.unit, floor
        ready = Known(scaled.shift, scaled.scale, scaled.unit, *plain, read.steps, read.cycles)
        if self.training and self._rests(context.device):
            with torch.no_grad():
                state = self.network.recall(read.about, read.steps, read.cycles)
            ready = replace(ready, steps=None, cycles=None, state=state)
        return ready, scaled

    def _rests(self, device: torch.device) -> bool:
        """Whether the cells are not learned on, so that windows need to be read but once."""
        named = self.network.named_parameters()
        return all(name.startswith(HEAD) or not value.requires_grad for name, value in named) and all(
            value.device == device for value in self.network.parameters()
        )

    def scaled_quantiles(self, ready: Known) -> Tensor:
        """Quantiles in scaled units, (batch, horizon, level), not below 0 where the window is not."""
        return self._asked(torch.maximum(self._own(ready), ready.floor[..., None].to(ready.about.dtype)))

    def _own(self, ready: Known) -> Tensor:
        """The quantiles at the base's own levels."""
        state = ready.state
        if state is None:
            assert ready.steps is not None
            assert ready.cycles is not None
            state = self.network.recall(ready.about, ready.steps, ready.cycles)
        found = self.network.answer(state, ready.asked, (ready.bases, ready.doubts, ready.error))
        centre = found[..., self.network.anchor : self.network.anchor + 1]
        return centre + (found - centre) * self.stretch

    def _asked(self, found: Tensor) -> Tensor:
        """Those asked for, from those at its own levels."""
        if len(self.same) == len(self.config.quantiles):
            return found[..., self.same]
        found = found @ self.weights.T
        steps = (found[..., 1:] - found[..., :-1]).clamp_min(0.0)  # no exporter knows `diff`
        return torch.cat([found[..., :1], found[..., :1] + steps.cumsum(-1)], -1)

    def losses(self, ready: Known, target: Tensor) -> Tensor:
        """Pinball losses (batch, horizon) of `target` alike (Koenker and Bassett 1978)."""
        levels = torch.tensor(self.config.quantiles, device=target.device)
        error = target[..., None] - self._asked(self._own(ready))
        return (error * (levels - (error.detach() < 0).to(error.dtype))).mean(-1)

    def freeze(self, depth: str) -> None:
        """Leave open to learning what `depth` says: `nothing`, the `head` (what answers a step ahead), `recurrent` (the
        cells too) or `all`."""
        wanted = {"nothing": (), "head": HEAD, "recurrent": HEAD + CELLS, "all": ("",)}[depth]
        for name, value in self.network.named_parameters():
            value.requires_grad_(name.startswith(wanted))
