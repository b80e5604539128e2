"""What the peers' scripts share. Each runs alone in its own environment: it needs pandas, and nothing of ours.

python run_x.py FOLDER MODEL --out forecasts.csv   prints one line of JSON at its end."""

import argparse
import json
import resource
import sys
from pathlib import Path
from typing import Any

import pandas as pd

DECILES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, required=True, help="forecasts as CSV: unique_id, ds, y_hat, q0.1 … q0.9")
    return parser.parse_args()


def cpu() -> float:
    """CPU seconds, user and system, of this process since it began and of the children that have ended."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def read(folder: Path) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """The meta data, and the training and test rows (unique_id, ds, y), in order."""
    meta = json.loads((folder / "meta.json").read_text())
    frames = []
    for part in ("train", "test"):
        path = folder / f"{part}.parquet"
        frame = pd.read_parquet(path) if path.exists() else pd.read_csv(folder / f"{part}.csv")
        frame["unique_id"] = frame["unique_id"].astype(str)
        frame["ds"] = pd.to_datetime(frame["ds"])
        frames.append(frame.sort_values(["unique_id", "ds"], kind="stable").reset_index(drop=True))
    return meta, frames[0], frames[1]


def filled(frame: pd.DataFrame, season: int) -> tuple[pd.DataFrame, int]:
    """The rows with each missing value as it was one season before (at the start of a series: one after), and how
    many there were. Most peers refuse a gap; this is the kindest simple thing."""
    gaps = int(frame["y"].isna().sum())
    if not gaps:
        return frame, 0
    place = frame.groupby("unique_id", sort=False).cumcount() % season
    groups = frame.groupby([frame["unique_id"], place], sort=False)["y"]
    values = groups.ffill().fillna(groups.bfill())
    rest = frame.assign(y=values).groupby("unique_id", sort=False)["y"]
    return frame.assign(y=rest.ffill().fillna(rest.bfill())), gaps


def finish(out: Path, forecasts: pd.DataFrame, trained: float, **facts: Any) -> None:
    """Write the forecasts and print what is known here: `trained`, the CPU seconds from the start of the process to
    the end of training, and the peak memory of the largest process until now."""
    forecasts.to_csv(out, index=False)
    whole = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"cpu_s": round(trained, 2), "peak_mb": round(max(whole) / 1024), **facts}))
