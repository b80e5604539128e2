"""The scores of a backtest against an independent scorer's, on a real data set.

python bench/metrics.py FOLDER --scorer SCORE.PY [--set name=value ...]

A small forecaster is trained on the training part. It and the naive baselines are backtested at the last origin, whose
horizon is the test part, and their forecasts of the test part are written as CSV for the scorer: two ways to a figure.
Ends with 1 when any of them differs by more than 1e-6 of its size."""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import sets
from backtest import settings

from models import BacktestPlan, Run, Series, TrainConfig, backtest, open_artifact, train
from models.baselines import NAMES, baseline_quantiles
from models.metrics import DECILES

CLOSE = 1e-6
OURS = {
    "sMAPE": "smape",
    "MASE": "mase",
    "OWA": "owa",
    "wQL": "wql",
    "cov80": "coverage_80",
    "MSIS80": "msis_80",
    "RMSE": "rmse",
    "MAE": "mae",
}


def whole(data: sets.DataSet) -> list[Series]:
    """The series with the test part at their end."""
    found = []
    for one in data.train:
        times, values = data.test[one.key]
        steps = data.calendar.locate(times)[0] - one.origin - 1
        target = np.full(len(one.target) + data.horizon, np.nan)
        target[: len(one.target)] = one.target
        target[len(one.target) + steps] = values
        if len(target) < 2 * data.horizon:
            raise SystemExit(f"{one.key}: too short for a backtest of {data.horizon} steps")
        found.append(replace(one, target=target))
    return found


def baseline(data: sets.DataSet, name: str, season: int) -> np.ndarray:
    """A naive baseline's deciles after the training part, one series at a time: (series, horizon, 9)."""
    period = 1 if name == "naive" else season
    rows = [baseline_quantiles(one.target[None], period, data.horizon, DECILES, name)[0] for one in data.train]
    return np.stack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scorer", type=Path, required=True)
    parser.add_argument("--set", nargs="*", default=["steps=60"], help="fields of TrainConfig, name=value")
    asked = parser.parse_args()
    data = sets.read(asked.folder)
    season = max(1, int(data.meta["season_length"]))
    config = settings(asked.set)
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        full = TrainConfig(horizon=data.horizon, season=season, **config)
        opened = open_artifact(train(data.train, data.calendar, full, Run(Path(folder), device="cpu")).artifact)
        found = backtest(opened, whole(data), BacktestPlan(1, data.horizon, 1, NAMES))
        forecasts = {name: baseline(data, name, season) for name in NAMES}
        forecasts["version"] = opened.forecast(data.train, data.horizon, DECILES).quantiles
        for name, quantiles in forecasts.items():
            path = Path(folder) / f"{name}.csv"
            sets.write(path, data, quantiles)
            command = [sys.executable, str(asked.scorer), str(asked.folder), str(path), "--json"]
            theirs: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            ours = {row["metric"]: row["value"] for row in found.scores if row["forecaster"] == name}
            apart = {metric: abs(ours[own] / theirs[metric] - 1.0) for metric, own in OURS.items()}
            worst = max(worst, *apart.values())
            figures = "  ".join(f"{metric} {ours[own]:.6g} ({apart[metric]:.0e})" for metric, own in OURS.items())
            print(f"{data.name}, {name}: {figures}", flush=True)
    print(f"furthest apart: {worst:.1e} of the figure (bar {CLOSE:.0e})")
    sys.exit(not worst <= CLOSE)


if __name__ == "__main__":
    main()
