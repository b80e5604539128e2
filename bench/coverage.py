"""How often intervals of 80 % hold, on data that no training has seen.

    python bench/coverage.py --data FOLDER ... [--preset balanced] [--earlier 0 1 2] [--set name=value ...] [--out JSON]

FOLDER is as for bench/accuracy.py. Each set is learned with the preset and nothing else set, and asked at origins one
horizon apart through its test part. With --earlier N its series end N horizons before the test part, and the horizon
that follows is forecast instead: several such origins show what is chance, because all steps of one origin share
their time. Sets of fewer than 100 series also count together. Ends with 1 when a set of 100 series or more, or the
others together, miss 77 to 83 % on the test parts."""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ours
import runs
import sets
import torch

from models import BacktestPlan, Run, Series, TrainConfig, backtest, open_artifact, train

LOW, HIGH = 0.77, 0.83
ENOUGH = 100  # series of a set that is judged by itself
SHOWN = ("coverage_80", "msis_80", "mase", "wql")


def known_after(data: sets.DataSet, earlier: int) -> tuple[list[Series], list[Series]]:
    """The series to learn from, which end `earlier` horizons before the test part, and the same with the steps to be
    forecast: the whole test part for 0, else one horizon. Series that would have fewer than two values are left out."""
    short, long = list[Series](), list[Series]()
    for one in data.train:
        end = len(one.target) - earlier * data.horizon
        if end < 1 or np.count_nonzero(~np.isnan(one.target[:end])) < 2:
            continue
        ahead = one.target[end : end + data.horizon]
        if not earlier:
            times, values = data.test[one.key]
            places = data.calendar.locate(times)[0] - one.origin - 1
            ahead = np.full(int(places[-1]) + 1, np.nan)
            ahead[places] = values
        short.append(dataclasses.replace(one, target=one.target[:end]))
        long.append(dataclasses.replace(one, target=np.concatenate([one.target[:end], ahead])))
    return short, long


def measure(folder: Path, earlier: int, config: dict[str, Any]) -> dict[str, Any]:
    """Learn one set and score the steps after it: a row of the table."""
    data = sets.read(folder)
    short, long = known_after(data, earlier)
    before = ours.usage()[0]
    with tempfile.TemporaryDirectory(prefix="gatecast-coverage-") as work:
        fields: dict[str, Any] = {"horizon": data.horizon, **config}
        result = train(short, data.calendar, TrainConfig(**fields), Run(Path(work)))
        cpu = ours.usage()[0] - before
        ahead = max(len(whole.target) - len(part.target) for part, whole in zip(short, long, strict=True))
        plan = BacktestPlan(max(1, ahead // data.horizon), data.horizon, data.horizon, baselines=())
        scores = backtest(open_artifact(result.artifact), long, plan).scores
    found = {row["metric"]: row["value"] for row in scores if row["forecaster"] == "version"}
    ends = [len(part.target) for part in short]
    values = sum(int(np.isfinite(whole.target[end:]).sum()) for whole, end in zip(long, ends, strict=True))
    row = {"data": data.name, "earlier": earlier, "series": len(short), "values": values, "cpu_s": round(cpu, 1)}
    held = {"held_coverage_80": result.metrics.get("coverage_80")}  # the steps that the version held out itself
    return {**row, **held, **{name: round(found[name], 5) for name in SHOWN if name in found}}


def verdicts(rows: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """What is held to the bar, with its share: sets of enough series, and the others together by their values."""
    tested = [row for row in rows if row["earlier"] == 0]
    found = [(row["data"], row["coverage_80"]) for row in tested if row["series"] >= ENOUGH]
    few = [row for row in tested if row["series"] < ENOUGH]
    if few:
        weights = [row["values"] for row in few]
        pooled = float(np.average([row["coverage_80"] for row in few], weights=weights))
        found.append((f"{len(few)} sets of few series", pooled))
    return found


def show(row: dict[str, Any]) -> None:
    cells = "".join(f"{row.get(name, float('nan')):12.4f}" for name in SHOWN)
    print(
        f"{row['data']:24s}{row['earlier']:8d}{row['series']:8d}{row['values']:9d}{cells}{row['cpu_s']:9.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--earlier", type=int, nargs="*", default=[0], help="horizons before the test part")
    parser.add_argument("--set", nargs="*", default=[], help="fields of TrainConfig, name=value")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'':24s}{'earlier':>8s}{'series':>8s}{'values':>9s}" + "".join(f"{n:>12s}" for n in SHOWN) + f"{'CPU s':>9s}"
    )
    rows: list[dict[str, Any]] = []
    for earlier in asked.earlier:
        for folder in asked.data:
            rows.append(measure(folder, earlier, {"preset": asked.preset, **ours.settings(asked.set)}))
            show(rows[-1])
    shares = [row["coverage_80"] for row in rows if "coverage_80" in row]
    print(f"mean of {len(shares)} origins {np.mean(shares):.3f}, standard deviation {np.std(shares):.3f}")
    missed = [f"{name}: {share:.3f}" for name, share in verdicts(rows) if not LOW <= share <= HIGH]
    for sentence in missed:
        print(f"missed  {sentence}, expected {LOW:g} to {HIGH:g}")
    runs.publish(asked.out, preset=asked.preset, rows=rows)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
