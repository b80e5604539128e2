"""Recurrent cells: torch's own over whole sequences, and the same arithmetic one step at a time."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import torch
from torch import Tensor, nn
from torch.nn import functional

State = tuple[Tensor, ...]  # (layers, batch, hidden) of the outputs and, for an LSTM, of its memory
Cell = nn.GRU | nn.LSTM | nn.RNN


def make_cell(kind: str, activation: str, size: int, hidden: int, layers: int) -> Cell:
    """`layers` layers of `kind` (gru, lstm or rnn) that read `size` numbers a step, batch first. `activation` (tanh or
    relu) is the rnn's."""
    if kind == "rnn":
        return nn.RNN(size, hidden, layers, nonlinearity=activation, batch_first=True)
    return (nn.GRU if kind == "gru" else nn.LSTM)(size, hidden, layers, batch_first=True)


def remember(cell: Cell, reach: int) -> None:
    """Set a new cell's weights so that its units keep what they hold for 1 to `reach` steps, where torch's own forget
    it within a few and then have no gradient to learn otherwise from. Gates: biases from the logarithm of a uniform
    number of steps (Tallec and Ollivier 2018). Plain cells: an orthogonal matrix, for relu the identity (Le, Jaitly
    and Hinton 2015)."""
    hidden = cell.hidden_size
    with torch.no_grad():
        for layer in range(cell.num_layers):
            bias, other = getattr(cell, f"bias_ih_l{layer}"), getattr(cell, f"bias_hh_l{layer}")
            kept = slice(hidden, 2 * hidden)  # the forget gate of an LSTM, the update gate of a GRU
            held = torch.empty(hidden).uniform_(1.0, max(2.0, reach - 1.0)).log()
            if isinstance(cell, nn.RNN):
                weight = getattr(cell, f"weight_hh_l{layer}")
                (nn.init.eye_ if cell.nonlinearity == "relu" else nn.init.orthogonal_)(weight)
                bias.zero_()
                other.zero_()
                continue
            bias[kept], other[kept] = held, 0.0
            if isinstance(cell, nn.LSTM):
                bias[:hidden], other[:hidden] = -held, 0.0  # the input gate: a slow unit fills slowly


def rest(cell: Cell, first: Tensor) -> State:
    """The state before the first step: `first` (batch, hidden) in each layer, an empty memory. Given by hand, because
    an exporter bakes the default's batch size in."""
    state = (
        first[None].expand(cell.num_layers, -1, -1).contiguous() if cell.num_layers > 1 else first[None].contiguous()
    )
    return (state, torch.zeros_like(state)) if isinstance(cell, nn.LSTM) else (state,)


def run(cell: Cell, inputs: Tensor, state: State, cut: int | None = None) -> tuple[Tensor, State]:
    """All outputs of the last layer (batch, step, hidden) and the state after `inputs` (batch, step, size).

    In training the gradient goes back over the newest `cut` steps alone: truncated back-propagation (Williams and Peng
    1990), whose earlier pieces teach nothing where, as here, the loss is behind the last step. They cost a forward
    pass and no memory; only the outputs of the newest `cut` steps come back then."""
    early = inputs.shape[1] - cut if cut and cell.training and torch.is_grad_enabled() else 0
    if early > 0:
        with torch.no_grad():
            state = _call(cell, inputs[:, :early], state)[1]
        inputs = inputs[:, early:]
    return _call(cell, inputs, state)


def _call(cell: Cell, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    if isinstance(cell, nn.LSTM):
        outputs, after = cell(inputs, (state[0], state[1]))
        return outputs, after
    outputs, last = cell(inputs, state[0])
    return outputs, (last,)


def step(cell: Cell, inputs: Tensor, state: State) -> State:
    """The state after one step of `inputs` (batch, size), written out in matrix products: a graph unrolled over many
    steps then holds each weight once, where torch's exporter copies all weights for each call of a cell."""
    after: list[State] = []
    for layer in range(cell.num_layers):
        before = tuple(part[layer] for part in state)
        own = functional.linear(inputs, getattr(cell, f"weight_ih_l{layer}"), getattr(cell, f"bias_ih_l{layer}"))
        kept = functional.linear(before[0], getattr(cell, f"weight_hh_l{layer}"), getattr(cell, f"bias_hh_l{layer}"))
        if isinstance(cell, nn.LSTM):
            admit, forget, fresh, show = (own + kept).chunk(4, dim=1)
            memory = torch.sigmoid(forget) * before[1] + torch.sigmoid(admit) * torch.tanh(fresh)
            after.append((torch.sigmoid(show) * torch.tanh(memory), memory))
        elif isinstance(cell, nn.GRU):
            own_reset, own_keep, own_fresh = own.chunk(3, dim=1)
            kept_reset, kept_keep, kept_fresh = kept.chunk(3, dim=1)
            fresh = torch.tanh(own_fresh + torch.sigmoid(own_reset + kept_reset) * kept_fresh)
            after.append((fresh + torch.sigmoid(own_keep + kept_keep) * (before[0] - fresh),))
        else:
            after.append((torch.tanh(own + kept) if cell.nonlinearity == "tanh" else torch.relu(own + kept),))
        inputs = after[-1][0]
    return tuple(torch.stack(parts) for parts in zip(*after, strict=True))
