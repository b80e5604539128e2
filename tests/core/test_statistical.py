"""Statistical baselines, where the extra is installed: each fitted to what was known, and to nothing else."""

import dataclasses

import numpy as np
import pytest

from models import BacktestPlan, OpenArtifact, Progress, Series, Stopped, backtest, statistical
from models import metrics as scores

pytest.importorskip("statsforecast", reason="the extra `statistics` is not installed")

LEVELS = (0.025, *scores.DECILES, 0.975)


def wave(length: int, seed: int = 0) -> np.ndarray:
    return 100 + 10 * np.sin(np.arange(length) * np.pi / 2) + np.random.default_rng(seed).normal(size=length)


def forecasts(name: str, histories: list[np.ndarray], levels: tuple[float, ...] = LEVELS) -> np.ndarray:
    method = statistical.Method(name, 4, 3, levels)
    parts = list(method.forecasts(histories.__getitem__, len(histories)))
    assert [place for part, _ in parts for place in range(part.start, part.stop)] == list(range(len(histories)))
    return np.concatenate([found for _, found in parts], axis=1)


@pytest.mark.parametrize("name", ["auto_ets", "auto_theta", "mstl"])
def test_quantiles_are_in_order_around_a_point_that_follows_the_season(name: str) -> None:
    found = forecasts(name, [wave(40), wave(37, 1)])
    assert found.shape == (11, 2, 3)
    assert (np.diff(np.delete(found, 5, axis=0), axis=0) >= 0).all()
    np.testing.assert_allclose(found[5, 0], 100 + 10 * np.sin(np.arange(40, 43) * np.pi / 2), atol=3)
    np.testing.assert_allclose(found[5, 1], 100 + 10 * np.sin(np.arange(37, 40) * np.pi / 2), atol=3)


def test_a_forecast_does_not_hang_on_its_company() -> None:
    many = [wave(40, seed) for seed in range(3)]
    np.testing.assert_array_equal(forecasts("auto_ets", many)[:, 2:], forecasts("auto_ets", many[2:]))


def test_what_cannot_be_fitted_is_missing() -> None:
    found = forecasts("auto_ets", [np.array([1.0, 2.0]), wave(40)])
    assert np.isnan(found[:, 0]).all()
    assert np.isfinite(found[:, 1]).all()


def test_it_stands_beside_the_version_and_says_what_was_done_to_the_data(opened: OpenArtifact) -> None:
    gapped = dataclasses.replace(Series("gapped", wave(60)), target=wave(60).copy())
    gapped.target[10:12] = np.nan
    series = [gapped, Series("short", np.arange(4.0))]
    told: list[Progress] = []
    found = backtest(opened, series, BacktestPlan(2, 3, 3, ("seasonal_naive", "auto_theta")), told.append)
    total = {(row["forecaster"], row["metric"]): row["value"] for row in found.scores}
    assert np.isfinite(total["auto_theta", "mase"])
    assert told[-1].step == told[-1].total == 2 * 3
    assert found.notes == [
        "auto_theta could not be fitted to 1 of the windows: the seasonal naive forecast stands in for it there.",
        "2 windows had missing values, which the statistical baselines were given filled by straight lines.",
    ]
    own = {(row["key"], row["forecaster"]): row["value"] for row in found.by_series if row["metric"] == "mae"}
    assert own["short", "auto_theta"] == own["short", "seasonal_naive"]


def test_it_stops_when_asked(opened: OpenArtifact) -> None:
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        backtest(
            opened, [Series("one", wave(60))], BacktestPlan(3, 3, 3, ("auto_theta",)), should_stop=lambda: next(asked)
        )
