"""The recurrent network: a scaled context in, monotone quantile offsets and a mix of bases out. float32."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

CELLS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}


@dataclass(frozen=True)
class Shape:
    """What a network looks like. `bases` is the number of bases its gate mixes, 0 for none."""

    cell: str
    layers: int
    hidden: int
    segment: int
    horizon: int
    levels: tuple[float, ...]
    bases: int

    @property
    def anchor(self) -> int:
        """The place of the level nearest to the median, the one the other levels are built from."""
        return min(range(len(self.levels)), key=lambda place: abs(self.levels[place] - 0.5))


class Network(nn.Module):
    """Segments of the context go through a linear layer and the recurrent cell; its last state gives, for all steps
    of the horizon at once, one free offset (the anchor level's) and non-negative distances between neighbouring
    levels, so that quantiles cannot cross, and the softmax weights of the bases."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        size = shape.hidden if shape.segment > 1 else 2
        self.embed = nn.Linear(2 * shape.segment, shape.hidden) if shape.segment > 1 else None
        self.cell = CELLS[shape.cell](size, shape.hidden, num_layers=shape.layers, batch_first=True)
        self.head = nn.Linear(shape.hidden, shape.horizon * len(shape.levels))
        self.gate = nn.Linear(shape.hidden, shape.horizon * shape.bases) if shape.bases else None
        with torch.no_grad():  # the first forecast is the plain mix of the bases
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
            if self.gate is not None:
                self.gate.weight.zero_()
                self.gate.bias.zero_()

    def forward(self, context: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (batch, horizon, level), never decreasing along levels, and base weights (batch, horizon, base).

        `context` (batch, time) scaled, 0 where missing; `mask` (batch, time); time is a multiple of the segment.
        """
        shape = self.shape
        steps = context.shape[1] // shape.segment
        inputs = torch.cat(
            [context.reshape(-1, steps, shape.segment), mask.reshape(-1, steps, shape.segment)], dim=2
        )  # (batch, steps, 2 * segment)
        if self.embed is not None:
            inputs = functional.relu(self.embed(inputs))
        states: Tensor = self.cell(inputs, self._rest(inputs))[0]
        last = states[:, -1]  # (batch, hidden)
        offsets = monotone(self.head(last).reshape(-1, shape.horizon, len(shape.levels)), shape.anchor)
        if self.gate is None:
            return offsets, offsets[..., :0]
        return offsets, torch.softmax(self.gate(last).reshape(-1, shape.horizon, shape.bases), dim=2)

    def _rest(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The cell's state before the first step. Given by hand, because an exporter bakes the default's batch size
        in."""
        zeros = inputs.new_zeros(self.shape.layers, inputs.shape[0], self.shape.hidden)
        return (zeros, zeros) if self.shape.cell == "lstm" else zeros

    def start_from(self, residuals: Tensor, logits: Tensor) -> None:
        """Set the biases so that the first quantiles are `residuals` (horizon, level), never decreasing along levels,
        around a mix of the bases weighed by the softmax of `logits` (horizon, base)."""
        anchor = self.shape.anchor
        gaps = residuals.diff(dim=1).clamp_min(1e-3)
        free = gaps + torch.log(-torch.expm1(-gaps))  # the inverse of softplus
        bias = torch.cat([free[:, :anchor], residuals[:, anchor : anchor + 1], free[:, anchor:]], dim=1)
        with torch.no_grad():
            self.head.bias.copy_(bias.reshape(-1))
            if self.gate is not None:
                self.gate.bias.copy_((logits - logits.mean(1, keepdim=True)).reshape(-1))


def monotone(raw: Tensor, anchor: int) -> Tensor:
    """Quantiles (…, level) from free numbers: the anchor's as it is, the others by adding up softplus steps away from
    it."""
    middle = raw[..., anchor : anchor + 1]
    parts = [middle]
    if anchor > 0:
        below = functional.softplus(raw[..., :anchor]).flip(-1).cumsum(-1).flip(-1)
        parts.insert(0, middle - below)
    if anchor < raw.shape[-1] - 1:
        parts.append(middle + functional.softplus(raw[..., anchor + 1 :]).cumsum(-1))
    return torch.cat(parts, dim=-1)
