"""Backtests: forecasts at many origins against the truth, in batched passes, beside naive baselines. Needs no torch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import metrics
from models.baselines import baseline_quantiles, period_of
from models.config import BacktestPlan, BacktestResult, Progress, Stopped
from models.inference import OpenArtifact
from models.series import Series
from models.windows import Panel, held_out

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

VERSION = "version"
CHUNK = 1024  # windows at a time: bounds memory


@np.errstate(over="ignore", invalid="ignore")  # squares of 1e200 are infinite and count nowhere
def backtest(
    opened: OpenArtifact,
    series: Sequence[Series],
    plan: BacktestPlan,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> BacktestResult:
    """Score a version and naive baselines at the origins of `plan` (see `windows.held_out` for short series).

    MASE's scale of a series is taken over its steps before its first origin. Metrics: mase, smape, mae, rmse, wql
    (nine deciles), coverage_80, msis_80; an undefined one is left out. Raises ValueError when no series has an
    origin, Stopped when `should_stop` says so."""
    season = opened.config.season or 1
    periods = {name: period_of(name, season) for name in plan.baselines}
    before = max(opened.context, 4 * season, 2)
    panel = Panel.of(series, max(before, plan.horizon))
    which, ends = held_out(panel.lengths, plan.horizon, plan.origins, plan.step)
    if not len(which):
        raise ValueError(f"series: expected one with a step before and after an origin, got none in {len(series)}")
    scales = _scales(panel, which, ends, season)
    tallies = {name: Tally(len(series), plan.horizon) for name in (VERSION, *periods)}
    for at in range(0, len(which), CHUNK):
        if should_stop():
            raise Stopped(f"stopped at window {at} of {len(which)}")
        part = slice(at, at + CHUNK)
        history = panel.cut(which[part], ends[part], before, 0)
        truth = panel.cut(which[part], ends[part], 0, plan.horizon)
        recent = history[:, before - opened.context :]
        trained = opened.quantiles(np.nan_to_num(recent), ~np.isnan(recent), plan.horizon)
        tallies[VERSION].add(which[part], truth, opened.at_levels(trained, metrics.DECILES), scales)
        for name, period in periods.items():
            found = baseline_quantiles(history, period, plan.horizon, metrics.DECILES)
            tallies[name].add(which[part], truth, found, scales)
        done = min(at + CHUNK, len(which))
        on_progress(Progress(done, len(which), f"{done} of {len(which)} windows"))
    return _result(tallies, series, panel, (which, ends), scales)


def _scales(panel: Panel, which: Ints, ends: Ints, season: int) -> Array:
    """MASE's scale of each series, (series,), NaN where it has none."""
    first = np.full(len(panel.lengths), np.iinfo(np.int64).max)
    np.minimum.at(first, which, ends)
    scales = np.full(len(first), np.nan)
    for place in np.unique(which):
        cells = slice(panel.firsts[place], panel.firsts[place] + first[place])
        scales[place] = metrics.naive_scale(np.where(panel.present[cells], panel.values[cells], np.nan), season)
    return scales


class Tally:
    """Sums of errors by series and by step ahead, so that memory does not grow with the number of origins."""

    NAMES = ("mae", "square", "smape", "pinball", "size", "coverage_80", "interval", "mase", "msis_80")

    def __init__(self, series: int, horizon: int) -> None:
        self.by_series = {name: np.zeros((2, series)) for name in self.NAMES}  # sum and count
        self.by_step = {name: np.zeros((2, horizon)) for name in self.NAMES}

    def add(self, which: Ints, truth: Array, quantiles: Array, scales: Array) -> None:
        """Add windows of the series `which` (window,): `truth` (window, horizon), decile `quantiles`, `scales`
        (series,)."""
        point, low, high = quantiles[..., 4], quantiles[..., 0], quantiles[..., 8]
        error = np.abs(truth - point)
        size = np.abs(truth) + np.abs(point)
        interval = metrics.interval_score(truth, low, high, 0.8)
        inside = np.where(np.isnan(truth), np.nan, (truth >= low) & (truth <= high))
        unit = scales[which][:, None]
        errors: dict[str, Array] = {
            "mae": error,
            "square": error**2,
            "smape": np.where(size == 0, 0.0, 200.0 * error / np.where(size == 0, 1.0, size)),
            "pinball": 2.0 * metrics.pinball(truth, quantiles, metrics.DECILES).mean(-1),
            "size": np.abs(truth),
            "coverage_80": inside,
            "interval": interval,
            "mase": error / unit,
            "msis_80": interval / unit,
        }
        for name, values in errors.items():
            there = np.isfinite(values)
            filled = np.where(there, values, 0.0)
            for row, part in ((0, filled), (1, there)):
                np.add.at(self.by_series[name][row], which, part.sum(axis=1))
                self.by_step[name][row] += part.sum(axis=0)

    def series_scores(self) -> dict[str, Array]:
        """The metrics of each series, (series,), NaN where undefined."""
        return _scores(self.by_series)

    def step_scores(self) -> dict[str, Array]:
        """The metrics of each step ahead over all windows, (horizon,)."""
        return _scores(self.by_step)

    def scores(self) -> dict[str, float]:
        """The metrics over everything: mase, smape and msis_80 are means of the series' own, the others over all
        values."""
        total = {name: sums.sum(axis=1, keepdims=True) for name, sums in self.by_series.items()}
        pooled = {name: float(values[0]) for name, values in _scores(total).items()}
        own = self.series_scores()
        return pooled | {name: float(metrics.mean_over(own[name])) for name in ("mase", "smape", "msis_80")}


def _scores(sums: dict[str, Array]) -> dict[str, Array]:
    means = {name: np.where(pair[1] > 0, pair[0] / np.maximum(pair[1], 1), np.nan) for name, pair in sums.items()}
    size = sums["size"][0]
    wql = np.where(size > 0, sums["pinball"][0] / np.where(size > 0, size, 1.0), np.nan)
    rmse = np.sqrt(means["square"])
    plain = {name: means[name] for name in ("mase", "smape", "mae", "coverage_80", "msis_80")}
    return {**plain, "rmse": rmse, "wql": wql}


def _result(
    tallies: dict[str, Tally], series: Sequence[Series], panel: Panel, windows: tuple[Ints, Ints], scales: Array
) -> BacktestResult:
    which, ends = windows
    scores: list[dict[str, Any]] = []
    by_horizon: list[dict[str, Any]] = []
    by_series: list[dict[str, Any]] = []
    scored = np.unique(which)
    for name, tally in tallies.items():
        for metric, value in metrics.defined(tally.scores()).items():
            scores.append({"metric": metric, "value": value, "forecaster": name})
        for metric, values in tally.step_scores().items():
            for step in np.flatnonzero(np.isfinite(values)):
                row = {"horizon": int(step) + 1, "metric": metric, "value": float(values[step])}
                by_horizon.append({**row, "forecaster": name})
        for metric, values in tally.series_scores().items():
            for place in map(int, scored[np.isfinite(values[scored])]):
                row = {"key": series[place].key, "metric": metric, "value": float(values[place])}
                by_series.append({**row, "forecaster": name})
    origins: list[dict[str, Any]] = []
    for place in map(int, scored):
        own = ends[which == place] + int(panel.skipped[place]) + series[place].start - 1
        origins.append({"series": series[place].key, "first": int(own.min()), "last": int(own.max())})
    return BacktestResult(scores, by_horizon, by_series, origins)
