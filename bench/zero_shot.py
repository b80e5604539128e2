"""The pre-trained base with no training at all, beside AutoETS and AutoTheta fitted to each series.

    python bench/zero_shot.py --data FOLDER ... --scorer score.py [--environments FOLDER] [--out FILE]

Prints MASE, wQL and the coverage of the 80 % interval on the test parts, and the geometric mean over all sets of the
MASE and wQL ratios to the better of the two (seasonal naive where they refuse). One graph and no settings for any set.
Ends with 1 when a bar is missed. FOLDER, the scorer and the environments are those of bench/peers.py.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import runs
import sets

MEAN_BAR, HOURLY_BAR = 0.80, 1.00
COVERED = (0.77, 0.83)
PEERS = ("statsforecast AutoETS", "statsforecast AutoTheta")
NAIVE = "statsforecast SeasonalNaive"
BASE = "gatecast base"


def measured(place: runs.Place, folder: Path) -> dict[str, dict[str, Any]]:
    """Peer -> figures on one set."""
    return {name: runs.result(place, folder, name) for name in (BASE, NAIVE, *PEERS)}


def best(rows: dict[str, dict[str, Any]], score: str) -> float:
    """The better of the two, or seasonal naive's where both refuse."""
    found = [rows[name][score] for name in PEERS if score in rows[name]]
    return min(found) if found else rows[NAIVE][score]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--scorer", type=Path, required=True)
    parser.add_argument("--environments", type=Path, default=runs.default_environments())
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="run peers whose results were kept")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds that one run may take")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    place = runs.Place(asked.scorer, asked.environments.expanduser(), asked.threads, asked.again, asked.limit)
    folders: dict[str, Path] = {folder.name: folder for folder in asked.data}
    every = {name: measured(place, folder) for name, folder in folders.items()}
    ratios: list[float] = []
    missed: list[str] = []
    inside = points = 0.0
    print(
        f"{'MASE / wQL':24s}{'base':>16s}{'best of two':>16s}{'naive':>16s}{'ratios':>14s}{'cov 80':>9s}{'CPU s':>8s}"
    )
    for data, rows in every.items():
        ours, naive = rows[BASE], rows[NAIVE]
        if "failed" in ours:
            missed.append(f"{data}: {ours['failed']}")
            continue
        theirs = {score: best(rows, score) for score in ("MASE", "wQL")}
        two = [ours[score] / theirs[score] for score in theirs]
        ratios += two
        cells = "".join(f"{row['MASE']:8.3f} /{row['wQL']:6.4f}" for row in (ours, theirs, naive))
        print(f"{data:24s}{cells}{two[0]:7.2f}{two[1]:7.2f}{ours['cov80']:9.1%}{ours['whole_cpu_s']:8.1f}")
        known = sum(np.count_nonzero(~np.isnan(values)) for _, values in sets.read(folders[data]).test.values())
        inside, points = inside + known * ours["cov80"], points + known
        if ours["MASE"] > naive["MASE"]:
            missed.append(f"{data}: MASE {ours['MASE']:.3f}, seasonal naive {naive['MASE']:.3f}")
        if data == "m4_hourly" and ours["MASE"] > HOURLY_BAR:
            missed.append(f"{data}: MASE {ours['MASE']:.3f} > {HOURLY_BAR}")
    mean = math.exp(sum(map(math.log, ratios)) / max(len(ratios), 1))
    print(f"geometric mean of {len(ratios)} ratios: {mean:.3f} (bar {MEAN_BAR})")
    print(
        f"80 % intervals of all {points:,.0f} points: {inside / points:.1%} (bar {COVERED[0]:.0%} to {COVERED[1]:.0%})"
    )
    if not COVERED[0] <= inside / points <= COVERED[1]:
        missed.append(f"80 % intervals hold {inside / points:.1%}")
    if mean > MEAN_BAR:
        missed.append(f"geometric mean {mean:.3f} > {MEAN_BAR}")
    for sentence in missed:
        print(f"missed  {sentence}")
    runs.publish(
        asked.out, mean=mean, covered=inside / points, rows=[row for rows in every.values() for row in rows.values()]
    )
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
