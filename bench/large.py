"""The smallest and the largest that a preset is asked for: one series of 60 points, 10,000 series of 5,000.

    python bench/large.py [--series 10000] [--points 5000] [--preset fast] [--json FILE]

Made-up hourly series: a level, a day, a week and noise. Each is trained by the preset alone, in a process of its own,
the single one ten times over, for a day of one series says little. Printed are seconds and CPU seconds of a training,
peak memory and that of the series themselves, and the mean MASE on the scored steps beside seasonal naive's. Ends with
1 when that is worse.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ours


def made(count: int, points: int, seed: int = 0) -> np.ndarray:
    """(count, points) hourly values."""
    random, step = np.random.default_rng(seed), np.arange(points)
    found = np.empty((count, points))
    for row in found:
        day = 0.3 * np.sin(2 * np.pi * step / 24 + random.uniform(0, 6))
        week = 0.1 * np.sin(2 * np.pi * step / 168 + random.uniform(0, 6))
        row[:] = random.uniform(20, 200) * (1 + day + week + 0.05 * random.standard_normal(points))
    return found.round(2)


def one(count: int, points: int, preset: str, times: int) -> dict[str, Any]:
    """Train in this process, each time on other series."""
    from models import Calendar, Run, Series, TrainConfig, train

    cost: list[tuple[float, float]] = []
    scores: list[tuple[float, float]] = []
    held = 0.0
    for seed in range(times):
        series = [Series(f"s{place}", values, 0, 0) for place, values in enumerate(made(count, points, seed))]
        cpu, peak = ours.usage()
        held, began = held or peak, time.monotonic()
        with tempfile.TemporaryDirectory(prefix="gatecast-large-") as folder:
            result = train(series, Calendar.of("h"), TrainConfig(preset=preset, horizon=24), Run(Path(folder)))
        cost.append((time.monotonic() - began, ours.usage()[0] - cpu))
        scores.append((result.metrics["mase"], result.baselines["seasonal_naive"]["mase"]))
    seconds, cpu_s = np.mean(cost, axis=0).round(1).tolist()
    mase, naive = np.mean(scores, axis=0).round(4).tolist()
    memory = {"peak_mb": round(ours.usage()[1]), "series_mb": round(held)}
    found = {"series": count, "points": points, "seconds": seconds, "cpu_s": cpu_s}
    return found | memory | {"mase": mase, "seasonal_naive": naive}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=5_000)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--one", nargs=3, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.one:
        count, points, times = asked.one
        print(json.dumps(one(count, points, asked.preset, times)))
        return
    rows: list[dict[str, Any]] = []
    for count, points, times in ((1, 60, 10), (asked.series, asked.points, 1)):
        wanted = [str(count), str(points), str(times)]
        command = [sys.executable, __file__, "--one", *wanted, "--preset", asked.preset]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        rows.append(row)
        print(
            f"{count:7,d} x {points:,d}: {row['seconds']:.1f} s, {row['cpu_s']:.1f} CPU s, peak {row['peak_mb']:,d} MB "
            f"({row['series_mb']:,d} before), MASE {row['mase']:.3f}, seasonal naive {row['seasonal_naive']:.3f}",
            flush=True,
        )
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))
    sys.exit(any(row["mase"] > row["seasonal_naive"] for row in rows))


if __name__ == "__main__":
    main()
