"""Which cell remembers: a value seen many steps ago is asked back, and what time steps and hidden units cost. The cells
are those of `models.networks`, without anything else of the core. Takes two CPU minutes; nothing is written.

    python bench/memory_cells.py [--seeds 2] [--steps 250]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.heads import make_head
from models.networks import Network, Shape

LAGS = (10, 30, 100, 200)
KINDS = {  # what a row is called -> how its shape differs
    "rnn, tanh": {"cell": "rnn"},
    "rnn, relu": {"cell": "rnn", "activation": "relu"},
    "gru": {"cell": "gru"},
    "lstm": {"cell": "lstm"},
    "gru, gradient cut at 50 steps": {"cell": "gru", "truncate": 50},
    "gru, segments of 10 steps": {"cell": "gru", "segment": 10},
}
NINE = tuple(round(0.1 * n, 1) for n in range(1, 10))
BATCH, HIDDEN, LOST = 32, 32, 0.5


def recall(kind: dict[str, object], lag: int, steps: int, seed: int) -> float:
    """How much of the variance of a value marked `lag` steps ago, among others of the same size, a network explains
    at the end of `steps` training steps: 1 is all, 0 none."""
    torch.manual_seed(seed)
    sizes = {"layers": 1, "hidden": HIDDEN, "segment": 1, "horizon": 1, "outputs": 1, "bases": 0, "context": lag}
    network = Network(Shape(**sizes | {"features": 1} | kind))  # pyright: ignore
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2, fused=True)
    marks = torch.zeros(BATCH, lag + 1, 1)
    marks[:, 0] = 1.0
    errors: list[float] = []
    for _ in range(steps):
        values = torch.randn(BATCH, lag)
        bases, logits = torch.zeros(BATCH, 1, 0), torch.zeros(BATCH, 0)
        raw, _ = network(values, torch.ones(BATCH, lag), bases, logits, features=marks)
        error = (raw[:, 0, 0] - values[:, 0]).square().mean()
        optimiser.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        errors.append(error.item())
    return 1.0 - statistics.mean(errors[-steps // 10 :])


def print_recall(seeds: int, steps: int) -> bool:
    """The table of what is remembered; a cell that has lost half of one lag is not asked for a longer one. True where
    the gated cells keep 100 steps and a plain one does not."""
    print(f"Share of a value seen N steps ago that is recalled after {steps} training steps, mean of {seeds} seeds\n")
    print("| cell | " + " | ".join(f"N = {lag}" for lag in LAGS) + " |\n|---|" + "---|" * len(LAGS))
    kept: dict[tuple[str, int], float] = {}
    for name, kind in KINDS.items():
        cells: list[str] = []
        for lag in LAGS:
            if cells and (cells[-1] == "–" or kept[name, LAGS[len(cells) - 1]] < LOST):
                cells.append("–")
                continue
            found = max(0.0, statistics.mean(recall(kind, lag, steps, seed) for seed in range(seeds)))
            kept[name, lag] = found
            cells.append(f"{found:.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    gated = min(kept.get((name, 100), 0.0) for name in ("gru", "lstm"))
    plain = max(kept.get((name, 100), 0.0) for name in ("rnn, tanh", "rnn, relu"))
    return gated > 0.5 > plain


def cpu_ms(work: Callable[[], None], times: int, rounds: int = 3) -> float:
    """The CPU milliseconds of one call: the best round's mean."""
    work()
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(times):
            work()
        best = min(best, (time.process_time() - began) / times * 1000)
    return best


def learning(shape: Shape, batch: int, time_steps: int) -> Callable[[], None]:
    """One forward and backward pass of a network."""
    network = Network(shape)
    context, mask = torch.randn(batch, time_steps), torch.ones(batch, time_steps)
    bases, logits = torch.zeros(batch, shape.horizon, 0), torch.zeros(batch, 0)

    def work() -> None:
        network.zero_grad(set_to_none=True)
        network(context, mask, bases, logits)[0].sum().backward()

    return work


def print_cost() -> None:
    print("\nCPU milliseconds of a forward and backward pass, 64 windows, one thread\n")
    asked = [(steps, 64, 1) for steps in (50, 100, 200, 400)] + [(100, hidden, 1) for hidden in (32, 128, 256)]
    asked.append((400, 64, 20))
    print("| time steps | hidden | segment | rnn | gru | lstm |\n|---|---|---|---|---|---|")
    for steps, hidden, segment in asked:
        found: list[str] = []
        for cell in ("rnn", "gru", "lstm"):
            shape = Shape(cell, 1, hidden, segment, 12, 9, 0)
            found.append(f"{cpu_ms(learning(shape, 64, steps), 2):.0f}")
        print(f"| {steps} | {hidden} | {segment} | " + " | ".join(found) + " |", flush=True)


class Bare(nn.Module):
    """What a network cannot do without: torch's GRU between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cell = nn.Linear(48, 128), nn.GRU(128, 128, batch_first=True)
        self.head = nn.Linear(128, 48 * 9)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.cell(functional.relu(self.embed(inputs)))[0][:, -1])


def print_overhead() -> None:
    """What gate, bases and loss add to the hot path: 256 windows of seven segments of 24 steps, 48 steps ahead."""
    network, head, bare = Network(Shape("gru", 1, 128, 24, 48, 9, 4)), make_head("quantile", NINE), Bare()
    context, mask, bases = torch.randn(256, 168), torch.ones(256, 168), torch.randn(256, 48, 4)
    logits, target, slope = torch.zeros(256, 4), torch.randn(256, 48), torch.randn(256, 432)
    inputs, shift, scale = torch.randn(256, 7, 48), torch.zeros(256, 1), torch.ones(256, 1)

    def ours() -> None:
        network.zero_grad(set_to_none=True)
        raw, base = network(context, mask, bases, logits)
        head.loss(raw, base, target, shift, scale).mean().backward()

    def theirs() -> None:
        bare.zero_grad(set_to_none=True)
        (bare(inputs) * slope).sum().backward()

    ours(), theirs()
    pairs = [(cpu_ms(ours, 10, 1), cpu_ms(theirs, 10, 1)) for _ in range(5)]
    own, other = (min(pair[side] for pair in pairs) for side in (0, 1))
    print(f"\nNetwork, base and loss: {own:.1f} ms; bare nn.GRU between two linear layers: {other:.1f} ms; ", end="")
    print(f"ratio {own / other:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=250)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    kept = print_recall(options.seeds, options.steps)
    print_cost()
    print_overhead()
    print(f"\n{time.process_time() - began:.0f} CPU seconds")
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
