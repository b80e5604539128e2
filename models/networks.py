"""The recurrent network: a scaled context in, raw numbers for a head and a mix of bases out. float32."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

CELLS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}


@dataclass(frozen=True)
class Shape:
    """What a network looks like. `outputs` is the numbers its head wants for a step, `bases` how many its gate mixes,
    `features` the columns of known steps, `static` the width of what is known of a series; 0 for none."""

    cell: str
    layers: int
    hidden: int
    segment: int
    horizon: int
    outputs: int
    bases: int
    decoder: str = "direct"
    activation: str = "tanh"
    bidirectional: bool = False
    truncate: int | None = None
    features: int = 0
    static: int = 0


class Network(nn.Module):
    """Segments of the context go through a linear layer and the recurrent cell; its last state gives, for all steps
    of the horizon at once, the head's raw numbers and the softmax weights of the bases."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        size = shape.hidden if shape.segment > 1 else 2
        self.embed = nn.Linear(2 * shape.segment, shape.hidden) if shape.segment > 1 else None
        self.cell = CELLS[shape.cell](size, shape.hidden, num_layers=shape.layers, batch_first=True)
        self.head = nn.Linear(shape.hidden, shape.horizon * shape.outputs)
        self.gate = nn.Linear(shape.hidden, shape.horizon * shape.bases) if shape.bases else None
        with torch.no_grad():  # the first forecast is the plain mix of the bases
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
            if self.gate is not None:
                self.gate.weight.zero_()
                self.gate.bias.zero_()

    def forward(
        self,
        context: Tensor,
        mask: Tensor,
        bases: Tensor,
        logits: Tensor,
        *,
        features: Tensor | None = None,
        static: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Raw numbers for the head (batch, horizon, outputs) and the mix of the bases (batch, horizon), 0 where there
        are none.

        `context` (batch, time) scaled, 0 where missing; `mask` (batch, time); time is a multiple of the segment.
        `bases` (batch, horizon, base) scaled, whose type the mix keeps; `logits` (batch, base) is what the window
        itself says for each base, added to the gate's own. `features` (batch, time + horizon, feature), 0 where
        unknown; `static` (batch, static).
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
        raw = self.head(last).reshape(-1, shape.horizon, shape.outputs)
        if self.gate is None:
            return raw, torch.zeros_like(raw[..., 0])
        own = self.gate(last).reshape(-1, shape.horizon, shape.bases)
        return raw, mix(bases, own + logits[:, None])

    def _rest(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The cell's state before the first step. Given by hand, because an exporter bakes the default's batch size
        in."""
        zeros = inputs.new_zeros(self.shape.layers, inputs.shape[0], self.shape.hidden)
        return (zeros, zeros) if self.shape.cell == "lstm" else zeros

    def start_from(self, raw: Tensor, logits: Tensor) -> None:
        """Set the biases so that the first raw numbers are `raw` (horizon, outputs), from the head's `begin`, around a
        mix of the bases weighed by the softmax of `logits` (horizon, base)."""
        with torch.no_grad():
            self.head.bias.copy_(raw.reshape(-1))
            if self.gate is not None:
                self.gate.bias.copy_((logits - logits.mean(1, keepdim=True)).reshape(-1))


def mix(bases: Tensor, logits: Tensor) -> Tensor:
    """The bases (batch, horizon, base) weighed by the softmax of `logits`, (batch, horizon) in the bases' type: weights
    that sum to 1 in float64 keep a huge level's digits."""
    weights = torch.softmax(logits, dim=2).to(bases.dtype)
    return (bases * weights).sum(2) / weights.sum(2)
