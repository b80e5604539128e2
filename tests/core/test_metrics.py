"""Scores, worked by hand."""

import numpy as np
import pytest

from models import metrics

TRUTH = np.array([1.0, 2.0, np.nan, 4.0])
POINT = np.array([2.0, 2.0, 9.0, 1.0])


def test_absolute_and_squared_errors_skip_missing_truth() -> None:
    assert metrics.mae(TRUTH, POINT) == pytest.approx((1 + 0 + 3) / 3)
    assert metrics.rmse(TRUTH, POINT) == pytest.approx(np.sqrt((1 + 0 + 9) / 3))


def test_smape_is_in_percent_of_the_mean_size_and_counts_zero_over_zero_as_zero() -> None:
    # 200 * 1/3, 0, 200 * 3/5
    assert metrics.smape(TRUTH, POINT) == pytest.approx((200 / 3 + 0 + 120) / 3)
    assert metrics.smape(np.zeros(2), np.zeros(2)) == 0.0


def test_naive_scale_is_the_mean_seasonal_difference() -> None:
    history = np.array([1.0, 5.0, 3.0, 5.0, 9.0])
    assert metrics.naive_scale(history, 2) == pytest.approx((2 + 0 + 6) / 3)
    assert metrics.naive_scale(history, 5) == pytest.approx((4 + 2 + 2 + 4) / 4)  # no pair a season apart: neighbours
    assert np.isnan(metrics.naive_scale(np.full(4, 7.0), 2))
    assert np.isnan(metrics.naive_scale(np.array([7.0]), 1))


def test_naive_scale_skips_missing_values() -> None:
    assert metrics.naive_scale(np.array([1.0, np.nan, 4.0, 2.0, np.nan]), 1) == pytest.approx(2.0)


def test_mase_is_the_error_over_the_scale() -> None:
    assert metrics.mase(TRUTH, POINT, 2.0) == pytest.approx(4 / 3 / 2)
    two = metrics.mase(np.stack([TRUTH, TRUTH]), np.stack([POINT, POINT]), np.array([1.0, 2.0]), axis=1)
    np.testing.assert_allclose(two, [4 / 3, 2 / 3])


def test_pinball_costs_the_level_below_and_its_complement_above() -> None:
    loss = metrics.pinball(np.array([10.0, 10.0]), np.array([[8.0, 10.0, 13.0], [12.0, 12.0, 12.0]]), [0.1, 0.5, 0.9])
    np.testing.assert_allclose(loss, [[0.2, 0.0, 0.3], [1.8, 1.0, 0.2]])


def test_wql_sums_before_it_divides() -> None:
    truth = np.array([10.0, -20.0, np.nan])
    quantiles = np.array([[8.0, 11.0], [-20.0, -16.0], [0.0, 0.0]])
    # level 0.2: 0.4 + 0; level 0.6: 0.4 + 1.6; twice each over 30, averaged
    assert metrics.wql(truth, quantiles, [0.2, 0.6]) == pytest.approx((2 * 0.4 / 30 + 2 * 2.0 / 30) / 2)
    assert np.isnan(metrics.wql(np.zeros(1), np.ones((1, 1)), [0.5]))


def test_coverage_counts_both_ends() -> None:
    truth = np.array([1.0, 2.0, 3.0, np.nan])
    assert metrics.coverage(truth, np.array([1.0, 2.5, 0.0, 0.0]), np.array([1.0, 3.0, 3.0, 9.0])) == pytest.approx(
        2 / 3
    )


def test_interval_score_adds_what_lies_outside() -> None:
    truth = np.array([5.0, 0.0, 13.0])
    score = metrics.interval_score(truth, np.full(3, 1.0), np.full(3, 10.0), 0.8)
    np.testing.assert_allclose(score, [9.0, 9.0 + 10 * 1.0, 9.0 + 10 * 3.0])


def test_the_mean_of_nothing_is_missing_without_a_warning() -> None:
    found = metrics.mean_over(np.array([[np.nan, np.nan], [1.0, np.nan]]), axis=1)
    np.testing.assert_array_equal(found, [np.nan, 1.0])


def test_only_defined_scores_are_kept() -> None:
    assert metrics.defined({"a": 1.0, "b": float("nan"), "c": float("inf")}) == {"a": 1.0}


def test_normal_scores_are_the_usual_ones() -> None:
    np.testing.assert_allclose(metrics.normal_scores([0.025, 0.5, 0.9]), [-1.959964, 0.0, 1.281552], atol=1e-6)
