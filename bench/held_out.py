"""Two bases beside each other at origins inside training parts: by these one is chosen, never by a test part.

    python bench/held_out.py --data FOLDER ... --before BASE [--base models/base] [--earlier 1 2 3] [--out JSON]

BASE is a folder as `make base` writes it, such as an earlier release's; FOLDER is as for bench/accuracy.py. Each series
ends one, two and three horizons before the test part, and the horizon that follows is forecast; the scores of the
origins are averaged. Ends with 1 when the newer base is worse in the geometric means of both MASE and wQL.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import sets
from coverage import known_after

from models import BacktestPlan, OpenArtifact, backtest, base_folder, open_artifact

SHOWN = ("mase", "wql", "coverage_80")


def scores(base: OpenArtifact, data: sets.DataSet, earlier: list[int]) -> dict[str, float]:
    """The scores of a base, the mean over the origins."""
    found: list[dict[str, float]] = []
    for horizons in earlier:
        short, long = known_after(data, horizons)
        long = [whole for part, whole in zip(short, long, strict=True) if len(part.target) > data.horizon]
        if not long:
            continue
        plan = BacktestPlan(1, data.horizon, data.horizon, baselines=())
        rows = backtest(base.at(data.calendar), long, plan).scores
        found.append({row["metric"]: row["value"] for row in rows if row["metric"] in SHOWN})
    return {name: float(np.mean([one[name] for one in found])) for name in SHOWN}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--before", type=Path, required=True, help="the base to compare with")
    parser.add_argument("--base", type=Path, default=base_folder())
    parser.add_argument("--earlier", type=int, nargs="+", default=[1, 2, 3], help="horizons before the test part")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    before, after = (open_artifact(folder) for folder in (asked.before, asked.base))
    rows: list[dict[str, Any]] = []
    print(f"{'':22s}" + "".join(f"{name:>24s}" for name in SHOWN))
    for folder in asked.data:
        data = sets.read(folder)
        one, two = (scores(base, data, asked.earlier) for base in (before, after))
        rows.append({"data": data.name, "before": one, "after": two})
        print(f"{data.name:22s}" + "".join(f"{one[name]:12.4f} ->{two[name]:9.4f}" for name in SHOWN), flush=True)
    ratios = {
        name: float(np.exp(np.mean([np.log(row["after"][name] / row["before"][name]) for row in rows])))
        for name in ("mase", "wql")
    }
    print("geometric means of the ratios: " + ", ".join(f"{name} {ratio:.4f}" for name, ratio in ratios.items()))
    if asked.out:
        asked.out.write_text(json.dumps({"rows": rows, "ratios": ratios}, indent=1) + "\n")
    return int(all(ratio > 1.0 for ratio in ratios.values()))


if __name__ == "__main__":
    sys.exit(main())
