"""Whether training from the base is worth it: the base alone, `fast` from nothing and `fast` as it is, on one or more
data sets.

    python bench/adapted.py --data FOLDER ... [--preset fast] [--earlier N] [--seed 0] [--out JSON]

FOLDER is as for bench/accuracy.py. Each is forecast once after the end of its training part and scored on the test
part. With --earlier N the series end N horizons before that, and the horizon that follows is scored: rules are chosen
there. A version is as good as the better of the two where its figure is within 0.5 % of it. Ends with 1 when it is
worse on more than a tenth of the sets, in MASE or wQL."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import coverage
import numpy as np
import ours
import runs
import sets
import torch

from models import Run, Series, TrainConfig, base_folder, open_artifact, train
from models.metrics import DECILES, mase, mean_over, naive_scale, wql

WAYS = {"base": None, "nothing": False, "adapted": True}  # whether the base is a part; None: no training
EQUAL = 1.005
SHARE = 0.9  # of the sets


def forecasts(
    data: sets.DataSet, short: list[Series], way: str, config: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Deciles (series, horizon, 9) after the `short` series, and what they cost."""
    before = ours.usage()[0]
    facts: dict[str, Any] = {}
    if way == "base":
        opened = open_artifact(base_folder()).at(data.calendar)
    else:
        fields = {"horizon": data.horizon, **config}
        asked = TrainConfig(**fields) if WAYS[way] else TrainConfig(**fields, pretrained=False)
        with tempfile.TemporaryDirectory(prefix="gatecast-adapted-") as folder:
            result = train(short, data.calendar, asked, Run(Path(folder)))
            opened = open_artifact(result.artifact)
        facts["said"] = [reason for reason in result.reasons if reason.startswith(("pretrained", "members:"))]
    facts["cpu_s"] = round(ours.usage()[0] - before, 1)
    parts = [opened.forecast(short[at : at + 2048], data.horizon, DECILES) for at in range(0, len(short), 2048)]
    return np.concatenate([part.quantiles for part in parts]), facts


def measure(folder: Path, earlier: int, config: dict[str, Any]) -> list[dict[str, Any]]:
    """One set, all three ways: rows of the table."""
    data = sets.read(folder)
    short, long = coverage.known_after(data, earlier)
    truth = np.full((len(short), data.horizon), np.nan)
    for row, part, whole in zip(truth, short, long, strict=True):
        ahead = whole.target[len(part.target) :][: data.horizon]
        row[: len(ahead)] = ahead
    season = max(1, int(data.meta["season_length"]))
    scales = np.array([naive_scale(one.target, season) for one in short])
    rows = []
    for way in WAYS:
        found, facts = forecasts(data, short, way, config)
        figures = {"MASE": float(mean_over(mase(truth, found[..., 4], scales, 1))), "wQL": wql(truth, found, DECILES)}
        rows.append({"data": data.name, "way": way, **{name: round(one, 5) for name, one in figures.items()}, **facts})
        print(f"{data.name:24s}{way:10s}{figures['MASE']:9.4f}{figures['wQL']:9.4f}{facts['cpu_s']:8.1f}", flush=True)
    for sentence in rows[-1]["said"]:
        print(f"  {sentence}", flush=True)
    return rows


def verdict(rows: list[dict[str, Any]], name: str) -> tuple[int, int, list[str]]:
    """On how many sets the adapted version is better than both others or equal to the better, of how many, and where
    it is not."""
    by = {(row["data"], row["way"]): row[name] for row in rows}
    named = sorted({row["data"] for row in rows})
    lost = [one for one in named if by[one, "adapted"] > EQUAL * min(by[one, "base"], by[one, "nothing"])]
    return len(named) - len(lost), len(named), lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--earlier", type=int, default=0, help="horizons before the test part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'':34s}{'MASE':>9s}{'wQL':>9s}{'CPU s':>8s}")
    rows: list[dict[str, Any]] = []
    for folder in asked.data:
        rows += measure(folder, asked.earlier, {"preset": asked.preset, "seed": asked.seed})
    missed = False
    for name in ("MASE", "wQL"):
        good, count, lost = verdict(rows, name)
        print(f"{name}: better than both or equal to the better on {good} of {count}; not on {', '.join(lost) or '-'}")
        ratios = [
            np.exp(np.mean([np.log(row[name]) for row in rows if row["way"] == way])) for way in ("base", "nothing")
        ]
        ours_ = np.exp(np.mean([np.log(row[name]) for row in rows if row["way"] == "adapted"]))
        print(f"{name}: geometric mean {ours_ / ratios[0]:.3f} of the base's, {ours_ / ratios[1]:.3f} of nothing's")
        missed |= good < SHARE * count
    runs.publish(asked.out, preset=asked.preset, earlier=asked.earlier, rows=rows)
    sys.exit(missed)


if __name__ == "__main__":
    main()
