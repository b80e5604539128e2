"""The sums of a backtest against `utilsforecast`, a library that others score with, and what it has not by hand."""

import numpy as np
import pandas as pd
import pytest
from utilsforecast import losses

from models import metrics
from models.tally import Tally, owa

LEVELS = (0.025, *metrics.DECILES, 0.975)
SERIES, ORIGINS, HORIZON, SEASON = 5, 4, 6, 3


class Case:
    """Random windows of a few series of very different sizes, some truths missing, as arrays and as a frame."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        self.which = np.repeat(np.arange(SERIES), ORIGINS)
        size = 10.0 ** np.arange(-2, 3)[self.which][:, None]
        self.truth = size * (5 + random.normal(size=(len(self.which), HORIZON)))
        self.truth[random.random(self.truth.shape) < 0.1] = np.nan
        centre = 5 + 0.5 * random.normal(size=self.truth.shape)
        spread = np.sort(random.normal(size=(len(LEVELS), *self.truth.shape)), axis=0)
        self.quantiles = size * (centre + spread)
        self.history = [10.0 ** (number - 2) * (5 + random.normal(size=40)) for number in range(SERIES)]
        self.scales = np.array([metrics.naive_scale(history, SEASON) for history in self.history])
        names = ["lo95", *(f"q{place}" for place in range(1, 10)), "hi95"]
        columns = {name: plane.ravel() for name, plane in zip(names, self.quantiles, strict=True)}
        frame = pd.DataFrame({"unique_id": np.repeat(self.which, HORIZON), "y": self.truth.ravel(), **columns})
        frame = frame.assign(m=frame["q5"], step=np.tile(np.arange(HORIZON), len(self.which)))
        for share, low, high in ((80, "q1", "q9"), (95, "lo95", "hi95")):
            frame = frame.assign(**{f"m-lo-{share}": frame[low], f"m-hi-{share}": frame[high]})
        self.frame = frame.dropna()
        self.train = pd.concat(
            pd.DataFrame({"unique_id": number, "y": history}) for number, history in enumerate(self.history)
        )

    def tally(self) -> Tally:
        found = Tally(SERIES, HORIZON, LEVELS)
        for part in (slice(0, 7), slice(7, None)):  # in two passes, the first of which ends within a series
            found.add(self.which[part], self.truth[part], self.quantiles[:, part].copy(), self.scales)
        return found


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def yardstick(frame: pd.DataFrame, train: pd.DataFrame) -> dict[str, np.ndarray]:
    """The scores by `unique_id` as the library has them."""
    levels = {name: f"q{round(10 * level)}" for level in metrics.DECILES for name in [f"{level:g}"]}
    pinball = [losses.quantile_loss(frame, {"m": levels[f"{level:g}"]}, q=level)["m"] for level in metrics.DECILES]
    size = frame.assign(y=0.0, m=frame["y"])
    return {
        "mae": losses.mae(frame, ["m"])["m"],
        "rmse": losses.rmse(frame, ["m"])["m"],
        "smape": 200 * losses.smape(frame, ["m"])["m"],
        "mase": losses.mase(frame, ["m"], SEASON, train)["m"],
        "coverage_80": losses.coverage(frame, ["m"], 80)["m"],
        "coverage_95": losses.coverage(frame, ["m"], 95)["m"],
        "wql": 2 * np.mean(pinball, axis=0) / losses.mae(size, ["m"])["m"],
    }


def test_scores_by_series_are_the_librarys(case: Case) -> None:
    found = case.tally().series_scores()
    for metric, expected in yardstick(case.frame, case.train).items():
        np.testing.assert_allclose(found[metric], expected, rtol=1e-9, err_msg=metric)


def test_scores_by_step_are_the_librarys(case: Case) -> None:
    found = case.tally().step_scores()
    frame = case.frame.assign(unique_id=case.frame["step"])
    expected = yardstick(frame, case.train.assign(unique_id=0))
    for metric in ("mae", "rmse", "smape", "coverage_80", "coverage_95", "wql"):
        np.testing.assert_allclose(found[metric], expected[metric], rtol=1e-9, err_msg=metric)


def test_overall_scores_pool_values_but_average_what_is_relative_over_series(case: Case) -> None:
    found = {name: float(value[0]) for name, value in case.tally().scores().items()}
    each, pooled = (yardstick(case.frame.assign(**ids), case.train) for ids in ({}, {"unique_id": 0}))
    for metric in ("mae", "rmse", "coverage_80", "coverage_95", "wql"):
        assert found[metric] == pytest.approx(pooled[metric].iloc[0], rel=1e-9), metric
    for metric in ("mase", "smape"):
        assert found[metric] == pytest.approx(each[metric].mean(), rel=1e-9), metric


def test_interval_scores_are_width_and_what_lies_outside(case: Case) -> None:
    found, rows = case.tally().series_scores(), case.frame
    for share, penalty in ((80, 10.0), (95, 40.0)):
        low, high = rows[f"m-lo-{share}"], rows[f"m-hi-{share}"]
        outside = np.where(rows["y"] < low, low - rows["y"], np.where(rows["y"] > high, rows["y"] - high, 0.0))
        each = (high - low + penalty * outside).groupby(rows["unique_id"]).mean().to_numpy()
        np.testing.assert_allclose(found[f"interval_{share}"], each, rtol=1e-9)
        np.testing.assert_allclose(found[f"msis_{share}"], each / case.scales, rtol=1e-9)


def test_noise_on_a_large_level_keeps_its_digits() -> None:
    random = np.random.default_rng(0)
    truth, spread = random.normal(size=(3, 4)), np.sort(random.normal(size=(9, 3, 4)), axis=0)
    scores = []
    for level in (0.0, 1e9):
        tally = Tally(1, 4, metrics.DECILES)
        tally.add(np.zeros(3, np.int64), truth + level, spread + level, np.ones(1))
        scores.append(tally.by_series["pinball"][0, 0])
    assert scores[1] == pytest.approx(scores[0], rel=1e-6)


def test_what_is_infinite_or_has_no_scale_counts_nowhere() -> None:
    tally = Tally(3, 2, metrics.DECILES)
    truth = np.array([[1.0, 2.0], [1e200, 1.0], [np.nan, np.nan]])
    tally.add(np.arange(3), truth, np.zeros((9, 3, 2)), np.array([np.nan, 1.0, 1.0]))
    own = tally.series_scores()
    np.testing.assert_array_equal(own["mase"], [np.nan, (1e200 + 1) / 2, np.nan])
    np.testing.assert_array_equal(own["rmse"], [np.sqrt(2.5), 1.0, np.nan])  # the square of 1e200 is no number
    assert tally.count == 4


def test_owa_is_the_mean_of_two_ratios() -> None:
    scores = {"smape": np.array([10.0, 3.0]), "mase": np.array([0.5, 1.0])}
    reference = {"smape": np.array([20.0, 0.0]), "mase": np.array([1.0, 1.0])}
    found = owa(scores, reference)["owa"]
    assert found[0] == 0.5
    assert not np.isfinite(found[1])
    assert owa(scores, None) == {}
