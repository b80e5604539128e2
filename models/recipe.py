"""`make base`: the base from nothing. Made-up series, training, what it scores on others of them, and the artifact with
its card."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.calibration import dependence
from models.combining import LOOKED
from models.device import pick
from models.inference import base_folder
from models.pretraining import DRAWN, LEVELS, Lesson, Recipe, cut, pretrain
from models.publishing import write_base
from models.synthetic import make
from models.tables import CYCLES, RAW
from models.universal import Answering, Universal

Array = NDArray[np.float64]

EXAMINED = {
    "yearly": (1, 0),
    "quarterly": (4, 0),
    "monthly": (12, 0),
    "weekly": (52, 0),
    "daily": (7, 0),
    "hourly": (24, 168),
    "half-hourly": (48, 336),
}
CARD = """# base

One recurrent network ({parameters:,} weights, two GRUs of {hidden} units) that forecasts series of any frequency from
their history alone, without training on them.

- **Learned from**: made-up series only, drawn by `models/synthetic.py`: trends, seasons, calendars, autoregressions,
  counts, regimes, accidents. No real series was learned from, so that it carries nobody's data.
- **How**: {steps:,} steps of {batch} windows, seed {seed}; `make base` repeats it.
- **Reads**: the newest {raw} steps, up to {cycles} whole seasons and the same place of the longer season (a week of
  hours, a year of days). Past and future covariates are not read.
- **Gives**: quantiles from {low:g} to {high:g}, none below 0 where the history is not. Beyond two to eight seasons
  ahead its own medians are fed back.
- **Not for**: effects that the history does not show, such as holidays that moved, prices or promotions: train a
  version for these.

Made-up series that it had not seen, mean pinball loss as a share of a repeated season's, and share inside the 80 %
interval:

{scores}
"""


def examine(network: Universal, seed: int, stretch: float = 1.0) -> dict[str, dict[str, float]]:
    """What it scores, its intervals stretched, on made-up series of another seed: kind -> `loss`, its pinball loss over
    that of the repeated season, `coverage_80` and `dependence` between neighbouring steps."""
    random = np.random.default_rng([seed, 1])
    found: dict[str, dict[str, float]] = {}
    for name, kind in EXAMINED.items():
        lesson = cut(random, make(random, kind, 4 * DRAWN), 1, np.arange(1, 25))
        quantiles, truth, repeated = forecasts(network, lesson)
        centre = quantiles[..., network.anchor : network.anchor + 1]
        quantiles = centre + (quantiles - centre) * stretch
        low, high = quantiles[..., LEVELS.index(0.1)], quantiles[..., LEVELS.index(0.9)]
        known = ~np.isnan(truth)
        found[name] = {
            "loss": pinball(quantiles, truth) / pinball(np.repeat(repeated[..., None], len(LEVELS), -1), truth),
            "coverage_80": float(((truth >= low) & (truth <= high))[known].mean()),
            "dependence": dependence(quantiles, truth, LEVELS),
        }
    return found


def forecasts(network: Universal, lesson: Lesson) -> tuple[Array, Array, Array]:
    """Quantiles (batch, horizon, level), the truth, NaN where unknown, and the newest season repeated, (batch, horizon)
    each, in scaled units; windows that teach nothing are left out."""
    rows = lesson.rows(torch.nonzero(lesson.worth[:, 0] > 0)[:, 0])
    with torch.no_grad():
        quantiles = network(rows.read)
    truth = torch.where(rows.known > 0, rows.truth, torch.nan)
    repeated = rows.read.bases[..., -LOOKED]
    return quantiles.double().numpy(), truth.double().numpy(), repeated.double().numpy()


def pinball(quantiles: Array, truth: Array) -> float:
    """The mean pinball loss of quantiles (…, level), steps whose truth is NaN left out."""
    error = truth[..., None] - quantiles
    levels = np.array(LEVELS)
    return float(np.nanmean(np.maximum(levels * error, (levels - 1.0) * error)))


def card(recipe: Recipe, network: Universal, scores: dict[str, dict[str, float]]) -> str:
    """What people are told of the base."""
    rows = [f"- {name}: {one['loss']:.2f}, {one['coverage_80']:.0%}" for name, one in scores.items()]
    facts: dict[str, Any] = {
        "parameters": sum(part.numel() for part in network.parameters()),
        "raw": RAW,
        "cycles": CYCLES,
        "low": LEVELS[0],
        "high": LEVELS[-1],
        "scores": "\n".join(rows),
    }
    return CARD.format(**dataclasses.asdict(recipe), **facts)


def build(folder: Path, recipe: Recipe, device: torch.device) -> None:
    """Train by the recipe and write the artifact into `folder`, telling how it goes."""
    began = time.monotonic()

    def watch(step: int, loss: float, network: Universal) -> None:
        seconds = time.monotonic() - began
        left = seconds / step * (recipe.steps - step) / 60
        print(
            f"step {step:,} of {recipe.steps:,}: loss {loss:.4f}, {seconds / 60:.0f} min, {left:.0f} left", flush=True
        )

    network = pretrain(recipe, device, watch).to("cpu")
    publish(folder, recipe, network)


def publish(folder: Path, recipe: Recipe, network: Universal) -> None:
    """Score the network and write the artifact."""
    scores = examine(network, recipe.seed, recipe.stretch)
    answering = Answering(network)
    answering.stretch.fill_(recipe.stretch)
    facts = {
        "card": card(recipe, network, scores),
        "recipe": dataclasses.asdict(recipe),
        "scores": scores,
        "dependence": float(np.mean([one["dependence"] for one in scores.values()])),
    }
    write_base(folder, answering, facts)
    for name, one in scores.items():
        print(f"{name:12s} loss {one['loss']:.3f} of a repeated season's, 80 % covered {one['coverage_80']:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.recipe", description="Make the base from nothing.")
    parser.add_argument("--out", type=Path, default=base_folder(), help="folder of the artifact")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; the weights depend on it")
    for name, usual in dataclasses.asdict(Recipe()).items():
        if name != "mixed":
            kind = int if isinstance(usual, int) else float
            parser.add_argument(f"--{name}", type=kind, default=usual, help=f"default {usual}")
    asked = vars(parser.parse_args())
    torch.set_num_threads(asked.pop("threads"))
    folder, device = asked.pop("out"), pick(asked.pop("device"))
    build(folder, Recipe(**asked), device)


if __name__ == "__main__":
    main()
