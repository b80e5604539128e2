"""Train one data set through the core, forecast its test part, and score it as the M4 competition does.

python bench/accuracy.py FOLDER [--preset fast] [--set name=value ...] [--seeds 1] [--out forecasts.csv] [--threads 2]

FOLDER holds train.parquet or train.csv, test.csv (unique_id, ds, y) and meta.json (freq, horizon, season_length).
Printed, for the forecaster and for seasonal naive: sMAPE, MASE, OWA (both over Naive2's), wQL (nine deciles),
coverage of the 80 % interval, and the CPU seconds of training. The test part is only scored; everything is chosen on
held-out steps of the training part."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import ours
import runs  # noqa: F401  before torch: it says that threads do not spin while they wait
import sets
import torch

from models import Run, TrainConfig, open_artifact, train
from models.baselines import baseline_quantiles
from models.metrics import DECILES, coverage, mase, mean_over, naive_scale, smape, wql


def seasonal(values: np.ndarray, season: int) -> bool:
    """The M4 competition's 90 % test of the autocorrelation at the season's lag."""
    if season <= 1 or len(values) < 3 * season:
        return False
    centred = values - values.mean()
    power = (centred**2).sum()
    if power == 0:
        return False
    lags = np.array([(centred[lag:] * centred[:-lag]).sum() for lag in range(1, season + 1)]) / power
    limit = 1.645 * np.sqrt((1 + 2 * (lags[:-1] ** 2).sum()) / len(values))
    return bool(abs(lags[-1]) > limit)


def naive2(values: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """The M4 competition's Naive2: the last value of the series without its multiplicative season, and the season
    back on."""
    plain = np.repeat(values[-1], horizon)
    if not seasonal(values, season):
        return plain
    kernel = np.ones(season) / season if season % 2 else np.r_[0.5, np.ones(season - 1), 0.5] / season
    half = len(kernel) // 2
    ratio = np.full(len(values), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio[half:-half] = values[half:-half] / np.convolve(values, kernel, "valid")
        index = np.array([np.nanmean(ratio[place::season]) for place in range(season)])
        index /= index.mean()
        ahead = np.arange(len(values), len(values) + horizon)
        found = values[-1] / index[(len(values) - 1) % season] * index[ahead % season]
    return found if np.isfinite(found).all() else plain


def filled(values: np.ndarray) -> np.ndarray:
    """The values with each missing one as the one known before it, at the front as the first known."""
    known = np.flatnonzero(~np.isnan(values))
    return values[known[np.maximum(np.searchsorted(known, np.arange(len(values)), "right") - 1, 0)]]


def truth_of(data: sets.DataSet) -> np.ndarray:
    """The test part (series, horizon), which must follow each series without a gap."""
    return np.stack([data.test[one.key][1] for one in data.train])


def score(data: sets.DataSet, quantiles: np.ndarray) -> dict[str, float]:
    """Scores of decile forecasts (series, horizon, 9)."""
    season = max(1, int(data.meta["season_length"]))
    truth = truth_of(data)
    scales = np.array([naive_scale(one.target, season) for one in data.train])
    point = quantiles[..., 4]
    reference = np.stack([naive2(filled(one.target), season, data.horizon) for one in data.train])
    ours = [float(mean_over(smape(truth, point, 1))), float(mean_over(mase(truth, point, scales, 1)))]
    theirs = [
        float(mean_over(smape(truth, reference, 1))),
        float(mean_over(mase(truth, reference, scales, 1))),
    ]
    return {
        "sMAPE": ours[0],
        "MASE": ours[1],
        "OWA": (ours[0] / theirs[0] + ours[1] / theirs[1]) / 2,
        "wQL": wql(truth, quantiles, DECILES),
        "cov80": float(coverage(truth, quantiles[..., 0], quantiles[..., 8])),
    }


def baseline(data: sets.DataSet) -> np.ndarray:
    """Seasonal naive's deciles."""
    season = max(1, int(data.meta["season_length"]))
    rows = [baseline_quantiles(one.target[None], season, data.horizon, DECILES)[0] for one in data.train]
    return np.stack(rows)


def show(name: str, scores: dict[str, float]) -> None:
    print(f"{name:28s}" + "".join(f" {key} {value:8.4f}" for key, value in scores.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--set", nargs="*", default=[], help="fields of TrainConfig, name=value")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    data = sets.read(asked.folder)
    show("seasonal naive", score(data, baseline(data)))
    for seed in range(asked.seeds):
        config = TrainConfig(preset=asked.preset, seed=seed, **{"horizon": data.horizon, **ours.settings(asked.set)})
        before = ours.usage()[0]
        with tempfile.TemporaryDirectory() as folder:
            result = train(data.train, data.calendar, config, Run(Path(folder)))
            after, peak = ours.usage()
            forecast = open_artifact(result.artifact).forecast(data.train, data.horizon, DECILES)
        if seed == 0:
            print("\n".join(f"  {reason}" for reason in result.reasons))
        show(f"seed {seed}, {after - before:.1f} CPU s", score(data, forecast.quantiles))
        for name, scores in {"held out": result.metrics, **result.baselines}.items():
            show(f"  {name}", {key: scores.get(key, np.nan) for key in ("mase", "smape", "wql", "coverage_80")})
        print(f"  {result.parameters} parameters, {result.seconds:.1f} s, peak {peak:.0f} MB", flush=True)
        if asked.out:
            sets.write(asked.out, data, forecast.quantiles)


if __name__ == "__main__":
    main()
