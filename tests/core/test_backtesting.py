"""Backtests: the right windows, the right sums, one by one the same as in one pass."""

import dataclasses
from collections.abc import Callable, Iterable
from importlib.util import find_spec

import numpy as np
import pytest

from models import (
    BacktestPlan,
    BacktestResult,
    OpenArtifact,
    Progress,
    Series,
    Stopped,
    TrainResult,
    backtest,
    backtesting,
    statistical,
)
from models import metrics as scores
from models.baselines import seasonal_naive


def waves(count: int, length: int) -> list[Series]:
    random = np.random.default_rng(0)
    wave = 3 * np.sin(np.arange(length) * np.pi / 6)
    return [Series(f"w{number}", 20 + wave + random.normal(0, 0.5, length)) for number in range(count)]


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
    assert {forecaster for forecaster, _ in total} == {"version", "naive", "seasonal_naive", "naive2"}


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
    steps = [progress.step for progress in told]
    assert steps == sorted(set(steps))
    assert len(steps) > 2
    assert (steps[-1], told[-1].total) == (1440, 1440)
    one, other = (table(result.scores, "forecaster", "metric") for result in (found, few))
    assert one == pytest.approx(other, rel=1e-5)


def test_series_that_do_not_fit_together_are_worked_on_apart(
    opened: OpenArtifact, history: list[Series], scored: BacktestResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backtesting, "PANEL", 500)
    apart = backtest(opened, history, BacktestPlan(origins=3, horizon=8, step=5))
    assert apart.origins == scored.origins
    for rows, others, names in (
        (apart.scores, scored.scores, ("forecaster", "metric")),
        (apart.by_horizon, scored.by_horizon, ("forecaster", "horizon", "metric")),
        (apart.by_series, scored.by_series, ("forecaster", "key", "metric")),
    ):
        assert table(rows, *names) == pytest.approx(table(others, *names), rel=1e-5)


def test_every_score_comes_over_all_by_horizon_and_by_series(scored: BacktestResult) -> None:
    metrics = {"mase", "smape", "mae", "rmse", "wql", "coverage_80", "interval_80", "msis_80", "owa"}
    for rows, name, places in (
        (scored.by_horizon, "horizon", set(range(1, 9))),
        (scored.by_series, "key", {f"s{number}" for number in range(8)}),
    ):
        assert {(row["forecaster"], row["metric"], row[name]) for row in rows} == {
            (forecaster, metric, place)
            for forecaster in ("version", "naive", "seasonal_naive", "naive2")
            for metric in metrics
            for place in places
        }
    assert {row["metric"] for row in scored.scores} == metrics


def test_owa_is_over_naive2_at_the_same_origins(scored: BacktestResult, opened: OpenArtifact) -> None:
    total = table(scored.scores, "forecaster", "metric")
    for name in ("version", "naive", "naive2"):
        ratios = [total[name, metric] / total["naive2", metric] for metric in ("smape", "mase")]
        assert total[name, "owa"] == pytest.approx(np.mean(ratios))
    alone = backtest(opened, waves(2, 60), BacktestPlan(1, 8, 1, ("naive",)))
    assert "owa" not in {row["metric"] for row in alone.scores}


def test_a_naive_baseline_scores_the_same_beside_any_version(
    opened: OpenArtifact, history: list[Series], fit: Callable[..., OpenArtifact]
) -> None:
    other = fit(history, horizon=3, context=12, season=12, quantiles=(0.5,), layers=1)
    plan = BacktestPlan(2, 4, 5)
    one, two = (table(backtest(each, history, plan).scores, "forecaster", "metric") for each in (opened, other))
    for name, metric in one:
        if name != "version":
            assert two[name, metric] == pytest.approx(one[name, metric], rel=1e-12)


def test_the_95_percent_interval_is_scored_where_the_levels_reach(
    history: list[Series], fit: Callable[..., OpenArtifact]
) -> None:
    wide = fit(history, horizon=4, context=24, season=12, quantiles=(0.02, 0.1, 0.5, 0.9, 0.98), layers=1)
    total = table(backtest(wide, history, BacktestPlan(2, 4, 4)).scores, "forecaster", "metric")
    for name in ("version", "naive"):
        assert total[name, "coverage_95"] >= total[name, "coverage_80"]
        assert total[name, "interval_95"] > 0
        assert total[name, "msis_95"] > 0


@pytest.mark.parametrize("name", statistical.NAMES)
def test_a_statistical_baseline_without_the_extra_says_what_to_install(
    opened: OpenArtifact, history: list[Series], name: str
) -> None:
    if find_spec("statsforecast"):
        pytest.skip("statsforecast is installed")
    with pytest.raises(ModuleNotFoundError, match=r"expected statsforecast .* got none.* pip install 'gatecast\[stat"):
        backtest(opened, history, BacktestPlan(1, 8, 1, ("naive", name)))


def test_it_stops_when_asked_and_refuses_what_cannot_be_scored(opened: OpenArtifact, history: list[Series]) -> None:
    with pytest.raises(Stopped):
        backtest(opened, history, BacktestPlan(1, 8, 1), should_stop=lambda: True)
    with pytest.raises(ValueError, match="expected one with a step before and after an origin, got none in 1"):
        backtest(opened, [Series("one", np.array([5.0]))], BacktestPlan(1, 8, 1))
    with pytest.raises(ValueError, match="baselines: expected one of"):
        backtest(opened, history, BacktestPlan(1, 8, 1, ("drift",)))
