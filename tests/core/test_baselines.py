"""Naive forecasts, worked by hand."""

import numpy as np
import pytest

from models import Series
from models.baselines import NAMES, Past, answer_of, baseline_quantiles, scales, seasonal_naive
from models.metrics import naive_scale
from models.windows import Panel

NAN = np.nan


def test_seasonal_naive_repeats_the_last_season() -> None:
    found = seasonal_naive(np.array([[9.0, 1.0, 2.0, 3.0]]), 3, 5)
    np.testing.assert_array_equal(found, [[1, 2, 3, 1, 2]])


def test_naive_repeats_the_last_known_value() -> None:
    found = seasonal_naive(np.array([[1.0, 4.0, NAN], [NAN, NAN, NAN]]), 1, 2)
    np.testing.assert_array_equal(found, [[4, 4], [NAN, NAN]])


def test_a_missing_place_is_taken_from_the_season_before_else_from_the_last_value() -> None:
    history = np.array([[NAN, 20.0, 30.0, NAN, 21.0, NAN]])  # seasons of 3: (?, 20, 30), (?, 21, ?)
    np.testing.assert_array_equal(seasonal_naive(history, 3, 3), [[21, 21, 30]])


def test_a_history_shorter_than_the_season_keeps_its_places() -> None:
    # Of a season of 4 only the last two places are known; the first two get the newest value.
    np.testing.assert_array_equal(seasonal_naive(np.array([[5.0, 6.0]]), 4, 4), [[6, 6, 5, 6]])


def test_several_series_are_answered_as_each_alone() -> None:
    random = np.random.default_rng(0)
    history = np.where(random.random((5, 40)) < 0.3, NAN, random.normal(size=(5, 40)))
    together = seasonal_naive(history, 7, 10)
    for row, one in zip(together, history, strict=True):
        np.testing.assert_array_equal(row, seasonal_naive(one[None], 7, 10)[0])


def test_intervals_grow_with_the_seasons_ahead() -> None:
    history = np.array([[1.0, 2.0, 4.0, 6.0]])  # differences two apart: 3 and 4
    size = np.sqrt((9 + 16) / 2)
    found = baseline_quantiles(history, 2, 5, [0.1, 0.5, 0.9])[0]
    np.testing.assert_array_equal(found[:, 1], [4, 6, 4, 6, 4])
    np.testing.assert_allclose(found[:, 2] - found[:, 1], 1.2815516 * size * np.sqrt([1, 1, 2, 2, 3]))
    np.testing.assert_allclose(found[:, 1] - found[:, 0], 1.2815516 * size * np.sqrt([1, 1, 2, 2, 3]))


def test_naive2_puts_the_season_back_on_the_last_value() -> None:
    """A pattern alone comes back; with a trend, the index is the mean ratio to the average of three around it."""
    history = np.array([[2.0, 1.0, 1.0] * 8])
    found = baseline_quantiles(history, 3, 5, [0.5], "naive2")[0, :, 0]
    np.testing.assert_allclose(found, [2, 1, 1, 2, 1])
    rising = history * 1.1 ** np.arange(24)
    ratio = np.array([rising[0, t] / rising[0, t - 1 : t + 2].mean() for t in range(1, 23)])
    index = np.array([ratio[2::3].mean(), ratio[0::3].mean(), ratio[1::3].mean()])  # ratio[0] is of step 1
    np.testing.assert_allclose(
        baseline_quantiles(rising, 3, 3, [0.5], "naive2")[0, :, 0], rising[0, -1] / index[2] * index, rtol=1e-12
    )


def test_naive2_of_an_even_season_averages_with_half_weights_at_both_ends() -> None:
    history = 10.0 + np.tile([4.0, -1.0, -2.0, -1.0], 6) + 0.3 * np.arange(24)
    weights = np.array([0.5, 1, 1, 1, 0.5]) / 4
    ratio = np.array([history[t] / (weights @ history[t - 2 : t + 3]) for t in range(2, 22)])
    index = np.array([ratio[2::4].mean(), ratio[3::4].mean(), ratio[0::4].mean(), ratio[1::4].mean()])
    index /= index.mean()
    found = baseline_quantiles(history[None], 4, 6, [0.5], "naive2")[0, :, 0]
    np.testing.assert_allclose(found, history[-1] / index[3] * index[[0, 1, 2, 3, 0, 1]])


@pytest.mark.parametrize(
    "history",
    [
        np.random.default_rng(0).normal(50, 5, 60),  # noise has no season
        np.tile([2.0, 1.0, 1.0, 5.0], 3)[:11],  # three seasons are the least
        np.full(40, 7.0),
        np.tile([0.0, 0.0, 0.0, 3.0], 10),  # the last value's own index is all there is
        np.array([5.0]),
        np.array([NAN, 4.0, NAN]),
    ],
)
def test_naive2_is_naive_where_there_is_no_season_to_find(history: np.ndarray) -> None:
    found = baseline_quantiles(history[None], 4, 5, [0.1, 0.5], "naive2")
    if history[0] != 0:
        np.testing.assert_array_equal(found, baseline_quantiles(history[None], 1, 5, [0.1, 0.5]))
    else:
        np.testing.assert_allclose(found[0, :, 1], [0, 0, 0, 3, 0], atol=1e-12)


def test_a_season_is_found_as_the_autocorrelations_say() -> None:
    """The 90 % test written out for one series, beside the sums over many; some pass and some do not."""
    random = np.random.default_rng(1)
    wave = np.sin(2 * np.pi * np.arange(48) / 6)
    history = 100 + random.normal(size=(40, 48)).cumsum(axis=1) * 0.3 + random.normal(size=(40, 48)) + 0.5 * wave
    expected = []
    for one in history:
        centred = one - one.mean()
        lags = np.array([centred[k:] @ centred[: 48 - k] for k in range(1, 7)]) / (centred @ centred)
        expected.append(abs(lags[5]) > 1.645 * np.sqrt((1 + 2 * (lags[:5] ** 2).sum()) / 48))
    assert 5 < sum(expected) < 35
    found = baseline_quantiles(history, 6, 6, [0.5], "naive2")[..., 0]
    assert [len(set(row)) > 1 for row in found] == expected


@pytest.mark.parametrize("name", NAMES)
def test_origins_of_many_series_in_one_pass_are_each_its_own_past(name: str) -> None:
    """Whatever lies after an origin, in another series or at another scale changes nothing."""
    random = np.random.default_rng(2)
    series = []
    for number, length in enumerate((60, 9, 1, 47)):
        values = (20 + 5 * np.sin(np.arange(length) * np.pi / 3) + random.normal(size=length)) * 10.0 ** (4 * number)
        values[random.random(length) < 0.2] = NAN
        values[0] = 1.0
        series.append(Series(str(number), values))
    panel = Panel.of(series, 8)
    which, ends = np.array([0, 0, 0, 1, 1, 3, 3]), np.array([3, 30, 60, 2, 8, 20, 46])
    points, deviation = answer_of(name, Past(panel, which, ends), 6)(slice(None), 8)
    for row, (place, end) in enumerate(zip(which, ends, strict=True)):
        alone = baseline_quantiles(series[place].target[None, :end], 6 if name != "naive" else 1, 8, [0.5, 0.9], name)
        np.testing.assert_allclose(points[row], alone[0, :, 0], rtol=1e-12)
        np.testing.assert_allclose(points[row] + 1.2815515655446004 * deviation[row], alone[0, :, 1], rtol=1e-12)


def test_scales_are_those_of_each_series_alone() -> None:
    targets = [np.array([1.0, 5, NAN, 5, 9, 2]), np.array([3.0, 4]), np.full(9, 2.0), np.array([1e12, 5e12, 1e12, 0])]
    panel = Panel.of([Series("", target) for target in targets], 4)
    found = scales(panel, np.array([0, 0, 1, 2, 3]), np.array([5, 6, 2, 4, 3]), 2)
    expected = [naive_scale(target[:end], 2) for target, end in zip(targets, (5, 2, 4, 3), strict=True)]
    np.testing.assert_allclose(found, expected)


def test_a_baseline_has_a_known_name() -> None:
    with pytest.raises(ValueError, match="expected one of naive, seasonal_naive, naive2, got 'drift'"):
        baseline_quantiles(np.ones((1, 3)), 1, 1, [0.5], "drift")
