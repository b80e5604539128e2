"""The recurrent network: a scaled context in, raw numbers for a head and a mix of bases out. float32."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.cells import Cell, State, make_cell, remember, rest, run, step

EFFECTS = 32  # units that turn a step's features into effects
FARTHEST = 30.0  # from 0, in scaled units: levels beyond are as good as infinite


@dataclass(frozen=True)
class Shape:
    """What a network looks like. `outputs` is the numbers its head wants for a step, `bases` how many its gate mixes,
    `features` the columns of known steps, `static` the width of what is known of a series; 0 for none. `truncate` is in
    recurrent steps. `references` says for each base which of the context's steps it repeats, for a step's features to
    be set against those that are in its base already: (period, fade) means the same place of the cycles before, each
    weighing `fade` times the one after it (0: the newest alone); () where no base repeats anything. `context` is the
    usual number of steps read, 0 for unknown: cells that read it step by step start with memories as long."""

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
    references: tuple[tuple[int, float], ...] = ()
    context: int = 0


class Beside(TypedDict, total=False):
    """What is known beside the target. `features` (batch, at least time + horizon, feature), 0 where unknown, reach
    back as far as the bases do; `static` (batch, static); `worth`, an offset (batch, 1) and a factor, leads from the
    base to `Ahead.size`."""

    features: Tensor | None
    static: Tensor | None
    worth: tuple[Tensor, float] | None


class Ahead(NamedTuple):
    """What is known of the steps to forecast: `base` (batch, horizon) float32 and `features` (batch, horizon, 2 *
    feature), the steps' own before those of the steps that the base repeats; None without features. `size` (batch,
    horizon) is how far the base lies from 0 in the data, in scaled units: what a change by its own size is worth."""

    base: Tensor
    features: Tensor | None
    size: Tensor | None = None

    def padded(self, count: int) -> "Ahead":
        """With zeros up to `count` steps."""
        beside = (None if part is None else padded(part, count) for part in self[1:])
        return Ahead(padded(self.base, count), *beside)

    def steps(self, first: int, last: int) -> "Ahead":
        """The steps from `first` to before `last`."""
        beside = (None if part is None else part[:, first:last] for part in self[1:])
        return Ahead(self.base[:, first:last], *beside)


class Network(nn.Module):
    """Segments of the context go through a linear layer and the recurrent cell. Its state after the newest one gives
    the softmax weights of the bases for each step ahead, and the head's raw numbers by one of three decoders:

    - direct: all steps at once (SegRNN, arXiv 2308.11200, goes without a decoder's recurrence in the same spirit);
    - recursive: each recurrent step gives one segment, whose location is its next input, as far ahead as asked;
    - seq2seq: a second cell goes on from the state, reading each segment's place, base and features (Sutskever et al.
      2014, with the multi-horizon inputs of Wen et al. 2017).

    A bidirectional network has a second cell that reads the context from its newest segment to its oldest (Schuster
    and Paliwal 1997); what it ends with is joined to the forward state by a linear layer. What is known of a series
    shapes the state before the first step and is added to the one that is read."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        hidden, segment = shape.hidden, shape.segment
        width = segment * (2 + shape.features)
        direct = shape.decoder == "direct"
        self.blocks = -(-shape.horizon // segment)  # segments that the trained horizon takes
        self.embed = nn.Linear(width, hidden) if segment > 1 else None
        self.cell = self._cell(hidden if segment > 1 else width)
        self.head = nn.Linear(hidden, (shape.horizon if direct else segment) * shape.outputs, bias=direct)
        self.gate = nn.Linear(hidden, shape.horizon * shape.bases) if shape.bases else None
        self.start = None if direct else nn.Parameter(torch.zeros(shape.horizon, shape.outputs))
        self.backward_cell = self._cell(hidden if segment > 1 else width) if shape.bidirectional else None
        self.join = nn.Linear(2 * hidden, hidden) if shape.bidirectional else None
        self.known = nn.Linear(shape.static, 2 * hidden) if shape.static else None
        self.effects = Effects(shape) if shape.features else None
        self.decoder = self._cell(hidden) if shape.decoder == "seq2seq" else None
        self.question = nn.Linear(segment * (1 + 2 * shape.features), hidden) if self.decoder is not None else None
        self.place = nn.Embedding(self.blocks, hidden) if self.decoder is not None else None
        with torch.no_grad():  # the first forecast is the plain mix of the bases
            self.head.weight.mul_(0.1)
            if direct:
                self.head.bias.zero_()
            if self.gate is not None:
                self.gate.weight.zero_()
                self.gate.bias.zero_()

    def _cell(self, size: int) -> Cell:
        shape = self.shape
        cell = make_cell(shape.cell, shape.activation, size, shape.hidden, shape.layers)
        if shape.segment == 1 and shape.context:
            remember(cell, shape.context)
        return cell

    def forward(
        self,
        context: Tensor,
        mask: Tensor,
        bases: Tensor,
        logits: Tensor,
        **beside: Unpack[Beside],
    ) -> tuple[Tensor, Tensor]:
        """Raw numbers for the head (batch, horizon, outputs) and the mix of the bases (batch, horizon), 0 where there
        are none.

        `context` (batch, time) scaled, 0 where missing; `mask` (batch, time); time is a multiple of the segment.
        `bases` (batch, horizon, base) scaled, whose type the mix keeps; its horizon is the one forecast, which the
        direct decoder has to have been made for. `logits` (batch, base) is what the window itself says for each base,
        added to the gate's own.
        """
        features, static, worth = beside.get("features"), beside.get("static"), beside.get("worth")
        time, horizon = int(context.shape[1]), int(bases.shape[1])
        read = None if features is None else features[:, :-horizon][:, -time:]
        inputs = self._inputs(context, mask, read)
        # Nothing, made from what there is: a graph that makes it of a size that it has to ask for needs five steps.
        first = (context[:, :1] * 0.0).expand(-1, self.shape.hidden)
        added = None
        if self.known is not None and static is not None:
            first, added = self.known(static).chunk(2, dim=1)
            first = torch.tanh(first)
        _, state = run(self.cell, inputs, rest(self.cell, first), self.shape.truncate)
        other = None
        if self.backward_cell is not None:
            _, end = run(self.backward_cell, inputs.flip(1), rest(self.backward_cell, first), self.shape.truncate)
            other = end[0][-1]
        last = self._read(state[0][-1], other, added)
        base, weights = self._mix(last, bases, logits)
        ahead = self._ahead(base, weights, features)
        if worth is not None:
            ahead = ahead._replace(size=(worth[0] + worth[1] * base).clamp(-FARTHEST, FARTHEST).float())
        raw = self._direct(last, ahead) if self.start is None else self._roll(state, ahead, self.start, (other, added))
        return raw, base

    def _inputs(self, values: Tensor, mask: Tensor, features: Tensor | None) -> Tensor:
        """What the cell reads, (batch, segment count, size), of `values` and `mask` (batch, time)."""
        segment = self.shape.segment
        count = int(values.shape[1]) // segment
        parts = [values.reshape(-1, count, segment), mask.reshape(-1, count, segment)]
        if features is not None:
            parts.append(features.reshape(-1, count, segment * self.shape.features))
        inputs = torch.cat(parts, dim=2)  # (batch, segment count, segment * (2 + feature))
        return inputs if self.embed is None else functional.relu(self.embed(inputs))

    def _by_step(self, found: Tensor, count: int) -> Tensor:
        """(batch, count * step) -> (batch, step, count), as a view: what is done to all steps alike, for one number or
        base after the other, then runs over neighbours in memory, several times as fast."""
        return found.reshape(-1, count, int(found.shape[1]) // count).transpose(1, 2)

    def _read(self, state: Tensor, other: Tensor | None, added: Tensor | None) -> Tensor:
        """What head and gate see of a `state` (batch, hidden): with the backward cell's, and what is known of the
        series."""
        if self.join is not None and other is not None:
            state = self.join(torch.cat([state, other], dim=1))
        return state if added is None else state + added

    def _mix(self, last: Tensor, bases: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The bases (batch, horizon, base) weighed by the gate's softmax, (batch, horizon), and the weights. In the
        bases' type: weights that sum to 1 in float64 keep a huge level's digits. Beyond the trained horizon the last
        step's weights go on."""
        if self.gate is None:
            return (last[:, :1] * 0.0).to(bases.dtype).expand(-1, int(bases.shape[1])), bases
        own = rows(self._by_step(self.gate(last), self.shape.bases), int(bases.shape[1])).transpose(1, 2)
        weights = torch.softmax((own + logits[..., None]).to(bases.dtype), dim=1).transpose(1, 2)
        return (bases * weights).sum(2), weights

    def _ahead(self, base: Tensor, weights: Tensor, features: Tensor | None) -> Ahead:
        if features is None:
            return Ahead(base.float(), None)
        past, own = features[:, : -int(base.shape[1])], features[:, -int(base.shape[1]) :]
        there = torch.zeros_like(own)
        for pair in sorted(set(self.shape.references)):
            columns = [place for place, each in enumerate(self.shape.references) if each == pair]
            share = weights[:, :, columns].sum(2, keepdim=True).float()
            there = there + share * repeated(past, pair, int(own.shape[1]))
        return Ahead(base.float(), torch.cat([own, there], dim=2))

    def _direct(self, last: Tensor, ahead: Ahead) -> Tensor:
        raw = self._by_step(self.head(last), self.shape.outputs)
        return raw if self.effects is None else raw + self.effects(last, ahead)

    def _asked(self, state: State, ahead: Ahead, blocks: int) -> Tensor | None:
        """What the decoder's cell says of each segment ahead, (batch, block, hidden); None without one."""
        if self.decoder is None or self.question is None or self.place is None:
            return None
        parts = [ahead.base[..., None], *([] if ahead.features is None else [ahead.features])]
        asked = torch.cat(parts, dim=2).reshape(-1, blocks, self.question.in_features)
        inputs = functional.relu(self.question(asked) + rows(self.place.weight[None], blocks))
        return run(self.decoder, inputs, state)[0]

    def _roll(self, state: State, ahead: Ahead, start: Tensor, beside: tuple[Tensor | None, Tensor | None]) -> Tensor:
        """Raw numbers segment by segment: from what the decoder's cell says where there is one, else each segment is
        fed back for the next state. Free running in training too: what was fed back is learned through, but for a cut
        of the gradient every `truncate` steps."""
        segment, horizon = self.shape.segment, int(ahead.base.shape[1])
        blocks = -(-horizon // segment)
        start, ahead = padded(rows(start[None], horizon), blocks * segment), ahead.padded(blocks * segment)
        asked = self._asked(state, ahead, blocks)
        found: list[Tensor] = []
        for block in range(blocks):
            first, last = block * segment, (block + 1) * segment
            part = ahead.steps(first, last)
            read = self._read(state[0][-1] if asked is None else asked[:, block], *beside)
            raw = self._by_step(self.head(read), self.shape.outputs) + start[:, first:last]
            found.append(raw if self.effects is None else raw + self.effects(read, part))
            if asked is None and block + 1 < blocks:
                fed = part.base + found[-1][..., 0]
                if self.shape.truncate and self.training and (block + 1) % self.shape.truncate == 0:
                    fed, state = fed.detach(), tuple(each.detach() for each in state)
                own = None if part.features is None else part.features[..., : self.shape.features]
                state = step(self.cell, self._inputs(fed, torch.ones_like(fed), own)[:, 0], state)
        return torch.cat(found, dim=1)[:, :horizon]

    def start_from(self, raw: Tensor, logits: Tensor) -> None:
        """Set the biases so that the first raw numbers are `raw` (horizon, outputs), from the head's `begin`, around a
        mix of the bases weighed by the softmax of `logits` (horizon, base)."""
        with torch.no_grad():
            if self.start is None:
                self.head.bias.copy_(raw.T.reshape(-1))
            else:
                self.start.copy_(raw)
            if self.gate is not None:
                self.gate.bias.copy_((logits - logits.mean(1, keepdim=True)).T.reshape(-1))

    def unfrozen(self, depth: str) -> Iterator[nn.Parameter]:
        """The parameters a warm start learns on: `head` (and gate, effects, what is known of a series), `recurrent`
        (those and the cells), or `all`."""
        inner = ("embed.", "question.", "place.")
        cells = ("cell.", "backward_cell.", "join.", "decoder.")
        skipped = {"head": inner + cells, "recurrent": inner, "all": ()}[depth]
        return (value for name, value in self.named_parameters() if not name.startswith(skipped))


class Effects(nn.Module):
    """What the features of the steps ahead do to their raw numbers: one small network for all steps, which sees the
    state too. Beside a step's own features it is given their difference to those of the steps that its base repeats: a
    promotion that the base already holds must not count twice. An effect is so much, or such a share of the base's
    size, which a scaled window does not show: a doubling is one deviation here and ten there. Starts at no effect."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.step = nn.Linear(shape.features, EFFECTS)
        self.state = nn.Linear(shape.hidden, EFFECTS, bias=False)
        self.out = nn.Linear(2 * EFFECTS, shape.outputs, bias=False)
        self.share = nn.Linear(2 * EFFECTS, 1, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.share.weight)

    def forward(self, state: Tensor, ahead: Ahead) -> Tensor:
        """(batch, horizon, outputs) from `state` (batch, hidden)."""
        assert ahead.features is not None
        shared = self.state(state)[:, None]
        own, there = (functional.relu(self.step(part) + shared) for part in ahead.features.chunk(2, dim=2))
        seen = torch.cat([own, own - there], dim=2)
        added = self.out(seen)
        if ahead.size is None:
            return added
        share = self.share(seen) * ahead.size[..., None]
        return added + functional.pad(share, (0, int(added.shape[2]) - 1))


def rows(values: Tensor, count: int) -> Tensor:
    """The first `count` rows of `values` (…, row, column), the last one repeated where there are fewer."""
    own = int(values.shape[1])
    if count <= own:
        return values[:, :count]
    return torch.cat([values, values[:, -1:].expand(-1, count - own, -1)], dim=1)


def padded(values: Tensor, count: int) -> Tensor:
    """(batch, row, …) with zeros up to `count` rows."""
    missing = count - int(values.shape[1])
    return functional.pad(values, (0, 0) * (values.dim() - 2) + (0, missing)) if missing else values


def repeated(past: Tensor, reference: tuple[int, float], horizon: int) -> Tensor:
    """The features (batch, horizon, feature) of the steps that a base with `reference` repeats, of `past` (batch,
    time, feature)."""
    period, fade = reference
    time, width = int(past.shape[1]), int(past.shape[2])
    count = max(1, time // period)
    cycles = past[:, time - count * period :].reshape(-1, count, period, width)
    ages = [fade**age for age in range(count - 1, -1, -1)]
    weights = torch.tensor(ages, dtype=past.dtype, device=past.device) / sum(ages)
    once = (cycles * weights.view(1, count, 1, 1)).sum(1) if fade else cycles[:, -1]
    return once.repeat(1, -(-horizon // period), 1)[:, :horizon]
