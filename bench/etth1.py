"""ETTh1, seven channels, 96 steps ahead, standard split and scaling, as the long-horizon papers score it: MSE and MAE.

    python bench/etth1.py --data FOLDER [--set name=value ...] [--validate] [--out FILE]

Each channel is standardised by the mean and deviation of its first n_fit rows and trained on them alone: the core sees
seven series of n_fit steps and holds the last horizon of them out by itself. Then every window of the part is forecast
through the opened artifact (stride 1; its look-back may reach into the rows before) and scored on standardised values.
--validate scores the n_val rows after the fitted ones instead of the test part: settings, and whether the median or the
mean is the point forecast, are chosen there. Without it the point that does better in MSE on the validation part is
scored on the test part. Ends with 1 when MSE > 0.360 or MAE > 0.385.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ours
import runs
import sets
from numpy.typing import NDArray

from models import OpenArtifact, Run, Series, TrainConfig, open_artifact, train
from models.quantiles import level_weights, mean_weights

Array = NDArray[np.float64]
HORIZON = 96
BARS, REACH = {"MSE": 0.360, "MAE": 0.385}, {"MSE": 0.341, "MAE": 0.376}
CONFIG = {"preset": "balanced", "context": 720, "segment": 24, "horizon": HORIZON}
POINTS = ("median", "mean")
CHUNK = 4096  # windows at once: 9 levels of 96 steps of them are 28 MB


def channels(folder: Path) -> tuple[sets.DataSet, Array, int, int]:
    """The data set, its standardised channels (channel, time) over training and test part, and the numbers of rows to
    fit and to validate on."""
    data = sets.read(folder)
    fit, validation = int(data.meta["n_fit"]), int(data.meta["n_val"])
    values = np.stack([np.concatenate([one.target, data.test[one.key][1]]) for one in data.train])
    head = values[:, :fit]
    return data, (values - head.mean(1, keepdims=True)) / head.std(1, keepdims=True), fit, validation


def windows(values: Array, first: int, last: int, context: int) -> Iterator[tuple[Array, Array]]:
    """Contexts (window, context) and truths (window, horizon) of every origin of `first` … `last`, channel by channel;
    an origin is the first step to forecast."""
    for channel in values:
        seen = np.lib.stride_tricks.sliding_window_view(channel, context)
        ahead = np.lib.stride_tricks.sliding_window_view(channel, HORIZON)
        origins = np.arange(first, last + 1)
        for part in np.array_split(origins, -(-len(origins) // CHUNK)):
            yield seen[part - context], ahead[part]


def scored(opened: OpenArtifact, values: Array, first: int, rows: int) -> dict[str, dict[str, float]]:
    """MSE and MAE of each point forecast over every window of `rows` rows from `first` on."""
    weights = {"median": level_weights(opened.levels, (0.5,))[0], "mean": mean_weights(opened.levels)}
    sums = {point: np.zeros(2) for point in POINTS}
    count = 0
    for context, truth in windows(values, first, first + rows - HORIZON, opened.context):
        quantiles = opened.quantiles(context, np.ones_like(context, np.bool_), HORIZON)
        count += truth.size
        for point in POINTS:
            error = quantiles @ weights[point] - truth
            sums[point] += (error**2).sum(), np.abs(error).sum()
    return {point: {"MSE": sums[point][0] / count, "MAE": sums[point][1] / count} for point in POINTS}


def fitted(data: sets.DataSet, values: Array, config: TrainConfig) -> tuple[OpenArtifact, dict[str, Any]]:
    """A version trained on `values` (channel, time), with what it took."""
    series = [
        Series(one.key, np.ascontiguousarray(channel), one.start, one.phase)
        for one, channel in zip(data.train, values, strict=True)
    ]
    before, began = ours.usage()[0], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gatecast-etth1-") as folder:
        result = train(series, data.calendar, config, Run(Path(folder)))
        cpu = ours.usage()[0] - before
        opened = open_artifact(result.artifact)
    facts = {"cpu_s": round(cpu, 1), "seconds": round(time.monotonic() - began, 1), "parameters": result.parameters}
    return opened, {**facts, "config": result.config.document(), "reasons": result.reasons}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", nargs="*", default=[], help="fields of TrainConfig, name=value")
    parser.add_argument("--validate", action="store_true", help="score the validation part alone")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    data, values, fit, validation = channels(asked.data)
    config = TrainConfig(**{**CONFIG, **ours.settings(asked.set)})
    opened, facts = fitted(data, values[:, :fit], config)
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(f"trained in {facts['cpu_s']} CPU s, peak {peak} MB, {facts['parameters']} parameters")
    scores = {"validation": scored(opened, values, fit, validation)}
    point = min(POINTS, key=lambda name: scores["validation"][name]["MSE"])
    if not asked.validate:
        scores["test"] = scored(opened, values, fit + validation, int(data.meta["n_test"]))
    for part, found in scores.items():
        for name in POINTS:
            mark = " <- chosen on the validation part" if part == "test" and name == point else ""
            print(f"{part:12s}{name:8s}MSE {found[name]['MSE']:.4f}  MAE {found[name]['MAE']:.4f}{mark}")
    runs.publish(asked.out, scores=scores, point=point, peak_mb=peak, **facts)
    if asked.validate:
        return
    fine = all(scores["test"][point][name] <= bar for name, bar in BARS.items())
    print(f"bars {BARS}, reach for {REACH}: {'met' if fine else 'MISSED'}")
    sys.exit(not fine)


if __name__ == "__main__":
    main()
