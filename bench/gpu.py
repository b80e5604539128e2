"""One training on 100,000 made-up series of 500 points, beside a bare forward and backward pass of the same net.

    python bench/gpu.py [--series 100000] [--points 500] [--horizon 24] [--preset balanced] [--device cuda] [--out FILE]

Training is `models.train` with the preset and nothing else set: its search, its held-out scores and its export are in
the minutes. Its windows/s are optimisation steps times the batch over the time between the first and the last progress
told of each part of the run (a trial, a member): looks at held-out steps are in, export is not. The bare pass is
torch's own recurrent layer (cuDNN on CUDA) between two linear ones, of the sizes and the batch of each member, on
windows that already lie on the device: nothing is gathered, scaled or scored. Refuses to run where the device is
missing; `--series 200 --device cpu` tries the way. Ends with 1 when the training takes more than 3 minutes or its
windows/s are under half of the bare ones (CUDA only).
"""

import argparse
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import ours
import runs
import torch
from torch import Tensor, nn

from models import Calendar, Progress, Run, Series, TrainConfig, devices, open_artifact, train

SEASON = 24
SECONDS_BAR, SHARE_BAR = 180.0, 0.5


def made_up(count: int, points: int) -> list[Series]:
    """Hourly series of a level, a day's season, a slow wander and noise, all of sizes of their own."""
    random = np.random.default_rng(0)
    hours = np.arange(points) * (2 * np.pi / SEASON)
    found = []
    for place in range(count):
        level, swing, wander, noise = random.lognormal(0.0, 1.0, 4)
        season = swing * np.sin(hours + random.uniform(0, 2 * np.pi))
        walk = 0.05 * wander * random.standard_normal(points).cumsum()
        target = 10.0 * level + season + walk + 0.2 * noise * random.standard_normal(points)
        found.append(Series(f"s{place:06d}", target))
    return found


class Bare(nn.Module):
    """The same sizes without anything around them: segments in, all steps and levels out of the last state."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        hidden, segment = config.hidden or 1, config.segment or 1
        self.segment = segment
        self.embed = nn.Linear(2 * segment, hidden)  # values and their mask
        cells: dict[str, Any] = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
        self.cell = cells[config.cell or "gru"](hidden, hidden, num_layers=config.layers or 1, batch_first=True)
        self.head = nn.Linear(hidden, (config.horizon or 1) * len(config.quantiles))

    def forward(self, windows: Tensor) -> Tensor:
        """(batch, context, 2) -> (batch, horizon x level)"""
        batch, context, _ = windows.shape
        segments = windows.reshape(batch, context // self.segment, 2 * self.segment)
        return self.head(self.cell(torch.relu(self.embed(segments)))[0][:, -1])


def bare_rate(config: TrainConfig, device: torch.device, passes: int) -> float:
    """Windows/s of forward and backward passes alone."""
    net = Bare(config).to(device)
    windows = torch.randn(config.batch or 1, config.context or 1, 2, device=device)

    def timed(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            net.zero_grad(set_to_none=True)
            net(windows).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    timed(max(3, passes // 10))  # the first passes choose kernels
    return passes * len(windows) / timed(passes)


def rate(told: list[tuple[float, Progress]]) -> tuple[int, float]:
    """Steps and seconds from the first to the last progress of each part of a run, summed. Parts bear the text before
    their count; between them a run leaps over the steps that stopping early saved."""
    steps, seconds = 0, 0.0
    for (before, first), (after, then) in pairwise(told):
        if first.message.split("step ", 1)[0] == then.message.split("step ", 1)[0] and "step " in then.message:
            steps, seconds = steps + then.step - first.step, seconds + after - before
    return steps, seconds


def trained(asked: argparse.Namespace) -> dict[str, Any]:
    """What the training took: seconds and windows/s, with the config it picked and those of its members."""
    series = made_up(asked.series, asked.points)
    told: list[tuple[float, Progress]] = []

    def tell(progress: Progress) -> None:
        told.append((time.monotonic(), progress))

    config = TrainConfig(**{"preset": asked.preset, "horizon": asked.horizon, **ours.settings(asked.set)})
    with tempfile.TemporaryDirectory(prefix="gatecast-gpu-") as folder:
        began = time.monotonic()
        result = train(series, Calendar.of("h"), config, Run(Path(folder), device=asked.device, on_progress=tell))
        seconds = time.monotonic() - began
        members = [TrainConfig.parse(one["config"]) for one in open_artifact(result.artifact).manifest["members"]]
    steps, lasted = rate(told)
    windows = steps * (result.config.batch or 1) / lasted if lasted else 0.0
    facts = {"seconds": round(seconds, 1), "steps": steps, "windows_s": round(windows), "metrics": dict(result.metrics)}
    return {**facts, "config": result.config, "members": members, "reasons": result.reasons}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--horizon", type=int, default=24)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--set", nargs="*", default=[], help="fields of TrainConfig, name=value")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--passes", type=int, default=200, help="bare passes that are timed")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    if device.type not in {one["kind"] for one in devices()}:
        raise SystemExit(
            f"--device {asked.device}: there is none here; torch sees {[one['name'] for one in devices()]}"
        )
    found = trained(asked)
    config: TrainConfig = found.pop("config")
    rates = [bare_rate(one, device, asked.passes) for one in found.pop("members")]
    bare = len(rates) / sum(1.0 / one for one in rates)  # windows/s when each member gets as many of them
    share = found["windows_s"] / bare
    sizes = f"{len(rates)} members, {config.layers} x {config.hidden}, context {config.context}"
    print(f"{asked.series:,} series x {asked.points}, {asked.preset} on {asked.device}: {sizes}, batch {config.batch}")
    print(f"trained in {found['seconds']:.1f} s, {found['steps']} steps, MASE {found['metrics'].get('mase', 0):.3f}")
    print(f"windows/s {found['windows_s']:,}, bare pass {bare:,.0f}: {share:.0%}")
    size = {"series": asked.series, "points": asked.points, "device": device.type}
    runs.publish(
        asked.out, **size, **found, config=config.document(), bare_windows_s=round(bare), share=round(share, 3)
    )
    fine = device.type != "cuda" or (found["seconds"] <= SECONDS_BAR and share >= SHARE_BAR)
    print("the bars are met" if fine and device.type == "cuda" else "no bars on this device" if fine else "MISSED")
    sys.exit(not fine)


if __name__ == "__main__":
    main()
