"""The recurrent network: cells, decoders, features, static values, and each of them as a graph."""

import dataclasses
import itertools
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from models.cells import make_cell, remember, rest, run, step
from models.heads import HEADS, make_head
from models.networks import Network, Shape, repeated, rows

SMALL = Shape("gru", 1, 8, 4, 6, 3, 2)
CELLS = [("gru", "tanh"), ("lstm", "tanh"), ("rnn", "tanh"), ("rnn", "relu")]
DECODERS = ["direct", "recursive", "seq2seq"]
NINE = tuple(round(0.1 * n, 1) for n in range(1, 10))


def made(shape: Shape, seed: int = 0) -> Network:
    """A network whose every weight says something."""
    torch.manual_seed(seed)
    network = Network(shape).eval()
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.3)
    return network


def inputs(shape: Shape, batch: int, time: int = 12, horizon: int | None = None) -> dict[str, Tensor]:
    """What a network of `shape` may be asked, with gaps."""
    ahead = horizon or shape.horizon
    mask = (torch.rand(batch, time) < 0.8).float()
    asked = {
        "context": torch.randn(batch, time) * mask,
        "mask": mask,
        "bases": torch.randn(batch, ahead, shape.bases, dtype=torch.float64),
        "logits": torch.randn(batch, shape.bases),
    }
    if shape.features:
        asked["features"] = torch.randn(batch, time + ahead, shape.features)
    if shape.static:
        asked["static"] = torch.randn(batch, shape.static)
    return asked


@pytest.mark.parametrize(("kind", "activation"), CELLS)
def test_steps_one_by_one_are_the_whole_sequence(kind: str, activation: str) -> None:
    torch.manual_seed(0)
    cell = make_cell(kind, activation, 5, 8, 2)
    values, state = torch.randn(3, 6, 5), rest(cell, torch.randn(3, 8))
    outputs, after = run(cell, values, state)
    for place in range(6):
        state = step(cell, values[:, place], state)
        torch.testing.assert_close(state[0][-1], outputs[:, place])
    for one, other in zip(state, after, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("kind", "activation"), CELLS)
def test_a_cell_may_start_with_a_long_memory(kind: str, activation: str) -> None:
    torch.manual_seed(0)
    reached: list[float] = []
    for long in (False, True):
        cell = make_cell(kind, activation, 1, 16, 1)
        if long:
            remember(cell, 60)
        values = torch.rand(4, 60, 1).requires_grad_()
        run(cell, values, rest(cell, torch.zeros(4, 16)))[0][:, -1].square().sum().backward()
        assert values.grad is not None
        reached.append(float(values.grad[:, 0].abs().max()))
    assert reached[1] > 1e-6
    assert reached[1] > 1e3 * reached[0]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_untrained_network_starts_where_it_is_told(decoder: str, bidirectional: bool) -> None:
    shape = dataclasses.replace(SMALL, decoder=decoder, bidirectional=bidirectional, features=2, static=1)
    network = Network(shape)
    network.head.weight.data.zero_()
    given = torch.randn(6, 3)
    network.start_from(given, torch.tensor([[0.0, 3.0]]).log1p().expand(6, 2))
    asked = inputs(shape, 5)
    raw, base = network(**asked | {"logits": torch.zeros(5, 2)})
    torch.testing.assert_close(raw, given.expand(5, -1, -1))
    torch.testing.assert_close(base, asked["bases"] @ torch.tensor([0.2, 0.8], dtype=torch.float64), rtol=1e-6, atol=0)
    assert base.dtype == torch.float64


def test_the_window_itself_has_a_say_in_the_mix() -> None:
    asked = inputs(SMALL, 2) | {"logits": torch.tensor([[50.0, 0.0], [0.0, 50.0]])}
    _, base = made(SMALL)(**asked)
    torch.testing.assert_close(base, torch.stack([asked["bases"][0, :, 0], asked["bases"][1, :, 1]]))


def test_without_bases_the_mix_is_zero() -> None:
    shape = dataclasses.replace(SMALL, bases=0)
    raw, base = made(shape)(**inputs(shape, 2))
    assert raw.shape == (2, 6, 3)
    assert torch.equal(base, torch.zeros(2, 6, dtype=torch.float64))


@pytest.mark.parametrize(("cell", "decoder"), [("gru", "direct"), ("lstm", "recursive"), ("rnn", "seq2seq")])
def test_order_and_company_change_nothing(cell: str, decoder: str) -> None:
    shape = dataclasses.replace(SMALL, cell=cell, decoder=decoder, bidirectional=True, features=2, static=2)
    network, asked = made(shape), inputs(shape, 7)
    turned = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    with torch.no_grad():
        together = network(**asked)
        mixed = network(**{name: value[turned] for name, value in asked.items()})
        alone = [network(**{name: value[row : row + 1] for name, value in asked.items()}) for row in range(7)]
    for place in (0, 1):
        torch.testing.assert_close(mixed[place], together[place][turned], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.cat([one[place] for one in alone]), together[place], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_newest_and_the_oldest_value_count(decoder: str) -> None:
    for bidirectional, place in ((False, -1), (True, -1), (True, 0)):
        shape = dataclasses.replace(SMALL, decoder=decoder, bidirectional=bidirectional)
        network, asked = made(shape), inputs(shape, 2)
        moved = asked["context"].clone()
        moved[:, place] += 1.0
        assert (network(**asked | {"context": moved})[0] - network(**asked)[0]).abs().min() > 1e-5


@pytest.mark.parametrize(("cell", "layers"), [("gru", 1), ("lstm", 2), ("rnn", 1)])
def test_a_recursive_forecast_is_one_that_goes_on_from_itself(cell: str, layers: int) -> None:
    shape = dataclasses.replace(SMALL, cell=cell, layers=layers, decoder="recursive", horizon=8, bases=0, features=2)
    network, asked = made(shape), inputs(shape, 3)
    assert network.start is not None
    network.start.data.zero_()
    with torch.no_grad():
        raw, _ = network(**asked)
        longer = {
            "context": torch.cat([asked["context"], raw[:, :4, 0]], dim=1),
            "mask": torch.cat([asked["mask"], torch.ones(3, 4)], dim=1),
            "bases": asked["bases"][:, :4],
            "logits": asked["logits"],
            "features": asked["features"],
        }
        torch.testing.assert_close(network(**longer)[0], raw[:, 4:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("decoder", "asked_for"), [("recursive", 1), ("recursive", 5), ("seq2seq", 4), ("seq2seq", 12)]
)
def test_unrolled_decoders_answer_any_horizon(decoder: str, asked_for: int) -> None:
    shape = dataclasses.replace(SMALL, decoder=decoder, features=2)
    network, asked = made(shape), inputs(shape, 2, horizon=23)
    shorter = asked | {"bases": asked["bases"][:, :asked_for], "features": asked["features"][:, : 12 + asked_for]}
    with torch.no_grad():
        whole, found = network(**asked), network(**shorter)
    for one, other in zip(whole, found, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(other, one[:, :asked_for])


@pytest.mark.parametrize("decoder", DECODERS)
def test_truncated_learning_sees_the_same_and_learns_from_the_newest_steps(decoder: str) -> None:
    shape = dataclasses.replace(SMALL, decoder=decoder, bidirectional=True, layers=2)
    whole, cut = (made(dataclasses.replace(shape, truncate=truncate)).train() for truncate in (None, 2))
    asked = inputs(shape, 4, time=24)
    torch.testing.assert_close(cut(**asked), whole(**asked))
    reached: list[list[bool]] = []
    for network in (whole, cut):
        context = asked["context"].clone().requires_grad_()
        network(**asked | {"context": context})[0].sum().backward()
        assert context.grad is not None
        reached.append(context.grad.reshape(4, 6, 4).abs().sum((0, 2)).ne(0).tolist())
    assert reached[0] == [True] * 6
    assert reached[1] == [True, True, False, False, True, True]  # the backward cell's newest steps are the oldest


def test_what_a_base_repeats_is_found() -> None:
    past = torch.arange(7.0)[None, :, None]
    assert repeated(past, (3, 0.0), 5)[0, :, 0].tolist() == [4, 5, 6, 4, 5]
    assert repeated(past, (1, 0.0), 2)[0, :, 0].tolist() == [6, 6]
    found = repeated(past, (3, 0.5), 4)[0, :, 0]
    torch.testing.assert_close(found, torch.tensor([3.0, 4.0, 5.0, 3.0]))  # (0.5 * 1 + 4) / 1.5 and on
    assert rows(torch.arange(3.0)[None, :, None], 5)[0, :, 0].tolist() == [0, 1, 2, 2, 2]


def promotions(count: int, horizon: int) -> tuple[dict[str, Tensor], Tensor]:
    """Series of level 0 with promotions of size 2 on days drawn by chance: those in the base are others."""
    promoted = (torch.rand(count, 12 + horizon, 1) < 0.3).float()
    truth = 2.0 * promoted[..., 0] + 0.1 * torch.randn(count, 12 + horizon)
    asked = {
        "context": truth[:, :12],
        "mask": torch.ones(count, 12),
        "bases": truth[:, 12 - horizon : 12, None],
        "logits": torch.zeros(count, 1),
        "features": promoted - 0.3,
    }
    return asked, truth[:, 12:]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_future_covariate_that_matters_is_used(decoder: str) -> None:
    torch.manual_seed(0)
    shape = dataclasses.replace(SMALL, hidden=16, bases=1, decoder=decoder, features=1, references=((6, 0.0),))
    network, head = Network(shape), make_head("quantile", (0.1, 0.5, 0.9))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    losses: list[float] = []
    for _ in range(80):
        asked, truth = promotions(64, 6)
        raw, base = network(**asked)
        loss = head.loss(raw, base, truth, torch.zeros(64, 1), torch.ones(64, 1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 0.3
    assert losses[-1] < 0.12  # 0.04 is the noise's own


def test_what_is_known_of_a_series_matters() -> None:
    for decoder in DECODERS:
        shape = dataclasses.replace(SMALL, decoder=decoder, static=2)
        network, asked = made(shape), inputs(shape, 2)
        moved = network(**asked | {"static": asked["static"] + 1.0})[0]
        assert (moved - network(**asked)[0]).abs().min() > 1e-5


def test_a_warm_start_may_leave_the_inner_parts_alone() -> None:
    network = Network(dataclasses.replace(SMALL, decoder="seq2seq", bidirectional=True, features=1, static=1))
    count = {depth: len(list(network.unfrozen(depth))) for depth in ("head", "recurrent", "all")}
    assert count["all"] == len(list(network.parameters()))
    assert 0 < count["head"] < count["recurrent"] < count["all"]
    own = {id(value) for value in network.unfrozen("head")}
    assert id(network.head.weight) in own
    assert id(network.cell.weight_hh_l0) not in own


@pytest.mark.parametrize(("cell", "activation"), CELLS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_gradients_are_finite_for_wild_windows(cell: str, activation: str, decoder: str) -> None:
    shape = dataclasses.replace(SMALL, cell=cell, activation=activation, decoder=decoder, layers=2)
    torch.manual_seed(0)
    network, asked = Network(shape), inputs(shape, 4, time=40)
    asked["context"] = asked["context"] * 1e4
    raw, base = network(**asked)
    (raw.sum() + base.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


class Whole(nn.Module):
    """Network and head as one graph, by position."""

    def __init__(self, shape: Shape, head: str) -> None:
        super().__init__()
        self.head = make_head(head, NINE)
        self.network = made(dataclasses.replace(shape, outputs=self.head.outputs))

    def forward(self, asked: dict[str, Tensor], shift: Tensor, scale: Tensor) -> Tensor:
        raw, base = self.network(**asked)
        return self.head.quantiles(raw, base, shift, scale)


def difference(shape: Shape, head: str, folder: Path) -> float:
    """The largest difference between torch and its graph at batches of 1, 5 and 33."""
    whole, path = Whole(shape, head).eval(), folder / "graph.onnx"

    def example(batch: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        scale = torch.rand(batch, 1, dtype=torch.float64) * 4 + 0.5
        return inputs(shape, batch), torch.randn(batch, 1, dtype=torch.float64) * 2, scale

    names = [*inputs(shape, 1), "shift", "scale"]
    axes = {name: {0: "batch"} for name in [*names, "quantiles"]}
    named: dict[str, Any] = {"input_names": names, "output_names": ["quantiles"], "dynamic_axes": axes}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(whole, example(3), str(path), dynamo=False, **named)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = {one.name for one in session.get_inputs()}
    worst = 0.0
    for batch in (1, 5, 33):
        asked, shift, scale = example(batch)
        fed = {**asked, "shift": shift, "scale": scale}
        with torch.no_grad():
            expected = whole(asked, shift, scale)
        found = session.run(None, {name: value.numpy() for name, value in fed.items() if name in taken})[0]
        worst = max(worst, float((torch.from_numpy(found) - expected).abs().max()))
    return worst


SOME = [  # every two of cell, decoder, direction and head meet in one of them
    (*pair, decoder, (number + place) % 2 == 0, sorted(HEADS)[(number + place) % 4], 1 + place % 2, (4, 3, 1)[place])
    for number, pair in enumerate(CELLS)
    for place, decoder in enumerate(DECODERS)
]


@pytest.mark.parametrize(("cell", "activation", "decoder", "bidirectional", "head", "layers", "segment"), SOME)
def test_the_graph_says_what_torch_says(  # noqa: PLR0917 -- one row of a table
    cell: str, activation: str, decoder: str, bidirectional: bool, head: str, layers: int, segment: int, tmp_path: Path
) -> None:
    shape = Shape(cell, layers, 8, segment, 5, 0, 2, decoder=decoder, activation=activation)
    extra = {"features": 2, "static": 2, "references": ((4, 0.6), (1, 0.0))} if bidirectional else {}
    assert difference(dataclasses.replace(shape, bidirectional=bidirectional, **extra), head, tmp_path) < 1e-5


@pytest.mark.slow
def test_every_graph_says_what_torch_says(tmp_path: Path) -> None:
    for pair, decoder, both, head in itertools.product(CELLS, DECODERS, (False, True), sorted(HEADS)):
        shape = Shape(pair[0], 2, 8, 4, 5, 0, 2, decoder=decoder, activation=pair[1], bidirectional=both)
        assert difference(shape, head, tmp_path) < 1e-5, (pair, decoder, both, head)
