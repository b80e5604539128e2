"""Quantile functions: a normal distribution goes in, and every answer about it is known."""

from statistics import NormalDist

import numpy as np
import pytest

from models.metrics import normal_scores
from models.quantiles import evaluate, level_weights, mean_weights, paths, scores_of

NINE = tuple(round(0.1 * n, 1) for n in range(1, 10))
NORMAL = NormalDist(10.0, 2.0)
KNOTS = np.array([NORMAL.inv_cdf(level) for level in NINE])


def test_a_normal_distribution_is_met_between_and_beyond_its_levels() -> None:
    asked = (0.001, 0.1, 0.25, 0.5, 0.55, 0.975)
    found = level_weights(NINE, asked) @ KNOTS
    np.testing.assert_allclose(found, [NORMAL.inv_cdf(level) for level in asked], rtol=1e-12)


def test_trained_levels_come_back_bit_for_bit() -> None:
    values = np.sort(np.random.default_rng(0).normal(1e9, 1, 9))
    np.testing.assert_array_equal(level_weights(NINE, (0.1, 0.3, 0.9)) @ values, values[[0, 2, 8]])


def test_answers_never_decrease_along_levels() -> None:
    random = np.random.default_rng(0)
    values = np.sort(random.normal(size=(200, 9)), axis=1)
    values[:50, 3:] = values[:50, 3:4]  # flat stretches too
    asked = tuple(np.linspace(0.001, 0.999, 300))
    found = values @ level_weights(NINE, asked).T
    assert (np.diff(found, axis=1) >= -1e-12).all()


def test_the_mean_is_the_integral_of_the_quantile_function() -> None:
    skewed = np.array([0.0, 0.1, 0.2, 0.4, 0.7, 1.1, 1.8, 3.0, 6.0])
    levels = tuple((np.arange(200_000) + 0.5) / 200_000)
    by_hand = np.mean(evaluate(skewed, NINE, normal_scores(levels)))
    assert skewed @ mean_weights(NINE) == pytest.approx(by_hand, rel=1e-4)
    assert KNOTS @ mean_weights(NINE) == pytest.approx(10.0)


@pytest.mark.parametrize("levels", [(0.5,), (0.3,), (0.05, 0.95), (0.6, 0.9), (0.1, 0.2)])
def test_any_set_of_trained_levels_has_a_mean_and_tails(levels: tuple[float, ...]) -> None:
    assert mean_weights(levels).sum() == pytest.approx(1.0)
    weights = level_weights(levels, (0.01, 0.5, 0.99))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    assert (np.diff(weights @ np.arange(len(levels))) >= 0).all()


def test_one_level_is_a_constant() -> None:
    np.testing.assert_array_equal(level_weights((0.5,), (0.1, 0.9)), [[1.0], [1.0]])


def test_a_truth_finds_its_score() -> None:
    levels = (0.1, 0.4, 0.5, 0.77)
    truth = np.array([NORMAL.inv_cdf(level) for level in levels] + [-99.0, 99.0, np.nan])
    found = scores_of(truth, np.broadcast_to(KNOTS, (7, 9)), NINE)
    expected = [*normal_scores(levels), *normal_scores((0.1, 0.9)), np.nan]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_paths_keep_each_step_normal_and_neighbours_correlated() -> None:
    drawn = paths(np.random.default_rng(0), (20_000, 5), 0.8)
    np.testing.assert_allclose(drawn.std(axis=0), 1.0, atol=0.03)
    near = np.corrcoef(drawn.T)
    assert near[0, 1] == pytest.approx(0.8, abs=0.02)
    assert near[0, 3] == pytest.approx(0.8**3, abs=0.03)
