"""CPU seconds until our training first reaches the OWA that other libraries' recurrent networks end with.

    python bench/speed.py --data FOLDER --scorer score.py [--environments FOLDER] [--again] [--steps 25 50 ...]

For each number of optimisation steps, fewest first, a fresh process imports, reads, searches, trains and exports with
nothing but `steps` set: a complete run that ends there, not a peep into a longer one. The first whose forecasts reach a
peer's OWA counts, with all it has used up to the version on disk. A peer counts from its start to the end of its
training. Peers' results are kept (see bench/peers.py); --again takes all in this run. Ends with 1 when a ratio is under
20 or a training of ours took more than 500 MB. Seasonal naive is printed too: an OWA that it has is no feat.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import runs

PEERS = ("neuralforecast LSTM", "neuralforecast GRU", "gluonts DeepAR")
STEPS = (25, 50, 100, 200, 400, 800)
RATIO_BAR, RATIO_REACH, MEMORY_BAR, MEMORY_REACH = 20.0, 60.0, 500, 350


def show(name: str, row: dict[str, Any]) -> None:
    if "failed" in row:
        print(f"{name:30s}{row['failed']}", flush=True)
        return
    source = "this run" if row["new"] else f"kept {row['date']}"
    cost = f"{row['cpu_s']:8.1f} CPU s{row['peak_mb']:6d} MB  load {row['load']:.1f}"
    print(f"{name:30s}OWA {row['OWA']:.4f}{cost}  {source}", flush=True)


def ours(place: runs.Place, asked: argparse.Namespace, goal: float) -> list[dict[str, Any]]:
    """Our runs, fewest steps first, until one has reached `goal`."""
    rows = []
    for steps in asked.steps:
        row = runs.result(place, asked.data, f"{runs.OURS} {asked.preset}", [f"steps={steps}", *asked.set])
        show(f"{row['peer']}, {steps} steps", row)
        rows.append({**row, "steps": steps})
        if row.get("OWA", float("inf")) <= goal:
            break
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scorer", type=Path, required=True)
    parser.add_argument("--environments", type=Path, default=runs.default_environments())
    parser.add_argument("--again", action="store_true", help="run peers whose results were kept")
    parser.add_argument("--peers", nargs="+", default=PEERS, metavar="NAME")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--set", nargs="*", default=[], help="more fields of TrainConfig, name=value")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    place = runs.Place(asked.scorer, asked.environments.expanduser(), asked.threads, asked.again)
    show("seasonal naive", runs.result(place, asked.data, "statsforecast SeasonalNaive"))
    peers = [runs.result(place, asked.data, name) for name in asked.peers]
    for row in peers:
        show(row["peer"], row)
    found = ours(place, asked, min(row.get("OWA", float("inf")) for row in peers))
    ratios: dict[str, float | None] = {}
    for row in peers:
        reached = next((one for one in found if one.get("OWA", float("inf")) <= row.get("OWA", 0.0)), None)
        ratio = row["cpu_s"] / reached["cpu_s"] if reached else None
        ratios[row["peer"]] = round(ratio, 1) if ratio else None
        text = (
            f"{ratio:.0f} times fewer CPU seconds, at {reached['steps']} steps" if ratio and reached else "not reached"
        )
        print(f"to {row['peer']}'s OWA: {text} (bar {RATIO_BAR:g}, reach for {RATIO_REACH:g})")
    memory = max((row["peak_mb"] for row in found if "peak_mb" in row), default=0)
    print(f"peak memory of our trainings {memory} MB (bar {MEMORY_BAR}, reach for {MEMORY_REACH})")
    runs.publish(asked.out, peers=peers, ours=found, ratios=ratios, peak_mb=memory)
    fine = all(ratio and ratio >= RATIO_BAR for ratio in ratios.values()) and memory <= MEMORY_BAR
    print("the bars are met" if fine else "A BAR WAS MISSED")
    sys.exit(not fine)


if __name__ == "__main__":
    main()
