"""Backtests: the right windows, the right sums, one by one the same as in one pass."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pytest

from models import BacktestPlan, BacktestResult, OpenArtifact, Progress, Series, Stopped, TrainResult, backtest
from models import metrics as scores
from models.baselines import seasonal_naive


def table(rows: Iterable[dict], *names: str) -> dict[tuple, float]:
    return {tuple(row[name] for name in names): row["value"] for row in rows}


@pytest.fixture(scope="module")
def scored(opened: OpenArtifact, history: list[Series]) -> BacktestResult:
    return backtest(opened, history, BacktestPlan(origins=3, horizon=8, step=5))


def forecasts(opened: OpenArtifact, one: Series, ends: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Truth and deciles at each origin, each asked for alone."""
    truth, found = [], []
    for end in ends:
        known = dataclasses.replace(one, target=one.target[:end])
        found.append(opened.forecast([known], 8, scores.DECILES).quantiles[0])
        truth.append(one.target[end : end + 8])
    return np.array(truth), np.array(found)


def test_scores_are_those_of_forecasts_asked_for_one_by_one(
    opened: OpenArtifact, history: list[Series], scored: BacktestResult
) -> None:
    ends = [102, 107, 112]
    by_series = table(scored.by_series, "forecaster", "key", "metric")
    truths, quantiles, mases = [], [], []
    for one in history:
        truth, found = forecasts(opened, one, ends)
        scale = scores.naive_scale(one.target[:102], 12)
        mases.append(scores.mase(truth, found[..., 4], scale))
        truths.append(truth)
        quantiles.append(found)
        assert by_series["version", one.key, "mase"] == pytest.approx(mases[-1], rel=1e-5)
        assert by_series["version", one.key, "smape"] == pytest.approx(scores.smape(truth, found[..., 4]), rel=1e-5)
    total = table(scored.scores, "forecaster", "metric")
    truth, found = np.array(truths), np.array(quantiles)
    assert total["version", "mase"] == pytest.approx(np.mean(mases), rel=1e-5)
    assert total["version", "wql"] == pytest.approx(scores.wql(truth, found, scores.DECILES), rel=1e-5)
    assert total["version", "rmse"] == pytest.approx(scores.rmse(truth, found[..., 4]), rel=1e-5)
    assert total["version", "coverage_80"] == scores.coverage(truth, found[..., 0], found[..., 8])
    by_horizon = table(scored.by_horizon, "forecaster", "horizon", "metric")
    for step in (1, 8):
        expected = scores.mae(truth[..., step - 1], found[..., step - 1, 4])
        assert by_horizon["version", step, "mae"] == pytest.approx(expected, rel=1e-5)


def test_baselines_stand_beside_the_version(history: list[Series], scored: BacktestResult) -> None:
    total = table(scored.scores, "forecaster", "metric")
    for name, period in (("naive", 1), ("seasonal_naive", 12)):
        errors = []
        for one in history:
            for end in (102, 107, 112):
                point = seasonal_naive(one.target[None, :end], period, 8)[0]
                errors.append(np.abs(one.target[end : end + 8] - point))
        assert total[name, "mae"] == pytest.approx(np.mean(errors))
    assert {forecaster for forecaster, _ in total} == {"version", "naive", "seasonal_naive"}


def test_origins_are_absolute_steps(history: list[Series], scored: BacktestResult) -> None:
    assert scored.origins[2] == {"series": "s2", "first": history[2].start + 101, "last": history[2].start + 111}
    assert len(scored.origins) == 8


def test_leading_missing_values_move_no_origin(opened: OpenArtifact, history: list[Series]) -> None:
    plan = BacktestPlan(origins=1, horizon=8, step=1, baselines=())
    padded = dataclasses.replace(
        history[0], target=np.concatenate([np.full(10, np.nan), history[0].target]), start=history[0].start - 10
    )
    one, other = (backtest(opened, [series], plan) for series in (history[0], padded))
    assert one == other


def test_the_training_scores_are_a_backtest_of_one_origin(
    opened: OpenArtifact, history: list[Series], result: TrainResult
) -> None:
    plan = BacktestPlan(*(result.origins[name] for name in ("origins", "horizon", "step")))
    total = table(backtest(opened, history, plan).scores, "forecaster", "metric")
    assert {metric: value for (name, metric), value in total.items() if name == "version"} == result.metrics


def test_missing_truth_and_series_without_origins_count_nowhere(opened: OpenArtifact, history: list[Series]) -> None:
    gapped = dataclasses.replace(history[0], target=history[0].target.copy())
    gapped.target[-8:-4] = np.nan
    quiet = [Series("one", np.array([5.0])), Series("none", np.full(30, np.nan)), Series("zeros", np.zeros(40))]
    found = backtest(opened, [gapped, *quiet], BacktestPlan(1, 8, 1))
    assert [row["series"] for row in found.origins] == ["s0", "zeros"]
    by_series = table(found.by_series, "forecaster", "key", "metric")
    assert by_series["version", "zeros", "mae"] == 0.0
    assert ("version", "zeros", "mase") not in by_series  # a scale of 0 has no quotient
    steps = {row["horizon"] for row in backtest(opened, [gapped], BacktestPlan(1, 8, 1)).by_horizon}
    assert steps == {5, 6, 7, 8}


def test_a_long_backtest_is_summed_over_passes(opened: OpenArtifact, history: list[Series]) -> None:
    told: list[Progress] = []
    many = [dataclasses.replace(one, key=f"{one.key}-{n}") for n in range(60) for one in history]
    found = backtest(opened, many, BacktestPlan(3, 8, 5), told.append)
    few = backtest(opened, history, BacktestPlan(3, 8, 5))
    assert [progress.step for progress in told] == [1024, 1440]
    one, other = (table(result.scores, "forecaster", "metric") for result in (found, few))
    assert one == pytest.approx(other, rel=1e-5)


def test_it_stops_when_asked_and_refuses_what_cannot_be_scored(opened: OpenArtifact, history: list[Series]) -> None:
    with pytest.raises(Stopped):
        backtest(opened, history, BacktestPlan(1, 8, 1), should_stop=lambda: True)
    with pytest.raises(ValueError, match="expected one with a step before and after an origin, got none in 1"):
        backtest(opened, [Series("one", np.array([5.0]))], BacktestPlan(1, 8, 1))
    with pytest.raises(ValueError, match="baselines: expected one of"):
        backtest(opened, history, BacktestPlan(1, 8, 1, ("drift",)))
