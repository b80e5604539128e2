"""Naive forecasts, worked by hand."""

import numpy as np
import pytest

from models.baselines import baseline_quantiles, period_of, seasonal_naive, spread

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
    np.testing.assert_allclose(spread(history, 2, 5)[0], size * np.sqrt([1, 1, 2, 2, 3]))
    found = baseline_quantiles(history, 2, 1, [0.1, 0.5, 0.9])
    np.testing.assert_allclose(found[0, 0], [4 - 1.281552 * size, 4, 4 + 1.281552 * size], atol=1e-5)


def test_a_baseline_has_a_known_name() -> None:
    assert (period_of("naive", 12), period_of("seasonal_naive", 12)) == (1, 12)
    with pytest.raises(ValueError, match="expected one of naive, seasonal_naive, got 'drift'"):
        period_of("drift", 12)
