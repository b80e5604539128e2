"""What held-out steps say of forecasts: which members count, how even and how wide intervals are."""

import numpy as np
import pytest

from models.calibration import choose, dependence, evened, loss_of, stretch
from models.config import NINE
from models.metrics import normal_scores

PLACE = NINE.index(0.5)
Array = np.ndarray


def asked(count: int, spread: float, seed: int, horizon: int = 6) -> tuple[Array, Array]:
    """Quantiles (window, horizon, level) that claim a normal spread of `spread` around 10, and truth with one of 1."""
    truth = 10.0 + np.random.default_rng(seed).normal(size=(count, horizon))
    return np.broadcast_to(10.0 + spread * normal_scores(NINE), (count, horizon, len(NINE))), truth


def widened(quantiles: Array, factors: Array) -> Array:
    centre = quantiles[..., PLACE : PLACE + 1]
    return centre + (quantiles - centre) * factors


def share_inside(quantiles: Array, truth: Array) -> float:
    return float(np.mean((truth >= quantiles[..., 0]) & (truth <= quantiles[..., -1])))


@pytest.mark.parametrize("spread", [0.4, 1.0, 2.5])
def test_stretched_intervals_hold_on_windows_that_did_not_stretch_them(spread: float) -> None:
    factors = stretch(*asked(800, spread, seed=0), NINE)
    later, truth = asked(4000, spread, seed=1)
    assert share_inside(widened(later, factors), truth) == pytest.approx(0.8, abs=0.015)
    assert (factors[:, PLACE] == 1.0).all()


def test_each_stretch_of_a_long_horizon_has_a_factor_of_its_own_where_windows_are_many() -> None:
    quantiles, truth = asked(900, 1.0, seed=2)
    truth = 10.0 + (truth - 10.0) * np.linspace(0.5, 3.0, 6)
    factors = stretch(quantiles, truth, NINE)[:, 0]
    assert (np.diff(factors) > 0).all()
    few = stretch(quantiles[:100], truth[:100], NINE)[:, 0]
    assert len(set(few)) == 1


def test_few_windows_count_for_little_and_none_for_nothing() -> None:
    quantiles, truth = asked(400, 0.25, seed=3)
    many, few = (stretch(quantiles[:count], truth[:count], NINE)[0, 0] for count in (400, 4))
    assert 3.0 < many < 5.0
    assert 1.0 < few < many / 2
    unknown = np.full_like(truth, np.nan)
    assert (stretch(quantiles, unknown, NINE) == 1.0).all()
    assert (stretch(quantiles[:0], truth[:0], NINE) == 1.0).all()


def test_unknown_truth_moves_no_factor() -> None:
    quantiles, truth = asked(400, 0.5, seed=4)
    gapped = np.concatenate([truth, np.full_like(truth, np.nan)])
    twice = np.concatenate([quantiles, quantiles])
    np.testing.assert_array_equal(stretch(twice, gapped, NINE), stretch(quantiles, truth, NINE))


def test_evened_intervals_lie_the_same_on_both_sides_and_are_as_wide() -> None:
    lopsided = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 5.5, 6.0, 6.5, 7.0])[None, None]
    even = evened(lopsided, 0.0, NINE)[0, 0]
    np.testing.assert_allclose(even - even[PLACE], -(even - even[PLACE])[::-1])
    assert even[-1] - even[0] == pytest.approx(6.0)
    np.testing.assert_allclose(evened(lopsided, 1.0, NINE), lopsided)
    assert (evened(lopsided[..., :3], 0.0, (0.1, 0.5, 0.8)) == lopsided[..., :3]).all()  # no level has a mirror


def test_members_close_to_the_best_count_the_same_and_others_not_at_all() -> None:
    good, truth = asked(200, 1.0, seed=5)
    units = np.ones(len(truth))
    shares, losses = choose(np.stack([good, good + 0.05, good + 2.0]), truth, units, NINE)
    np.testing.assert_allclose(shares, [0.5, 0.5, 0.0])
    assert losses[2] > 1.1 * losses[0]
    assert losses[0] == pytest.approx(loss_of(good, truth, units, NINE))


def test_sample_paths_hang_together_as_the_truth_did() -> None:
    random, steps = np.random.default_rng(6), 12
    noise = random.normal(size=(3000, steps))
    walk = noise.copy()
    for step in range(1, steps):
        walk[:, step] = 0.7 * walk[:, step - 1] + np.sqrt(1 - 0.49) * noise[:, step]
    quantiles = np.broadcast_to(normal_scores(NINE), (3000, steps, len(NINE)))
    assert dependence(quantiles, walk, NINE) == pytest.approx(0.7, abs=0.05)
    assert dependence(quantiles, noise, NINE) < 0.05
