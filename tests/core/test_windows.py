"""Panels, windows and what is held out."""

import numpy as np
import pytest

from models import Series
from models.windows import DAMAGED, GAPS, Panel, Sampler, held, held_out, latest, spare

NAN = np.nan


def series(*values: float) -> Series:
    return Series("a", np.array(values, float))


def test_a_panel_cuts_windows_across_the_ends_as_missing() -> None:
    panel = Panel.of([series(1, 2, 3), series(NAN, 5, NAN, 7), series()], pad=3)
    np.testing.assert_array_equal(panel.lengths, [3, 3, 0])
    np.testing.assert_array_equal(panel.skipped, [0, 1, 0])
    found = panel.cut(np.array([0, 0, 1, 2]), np.array([1, 3, 2, 0]), before=3, after=2)
    expected = [[NAN, NAN, 1, 2, 3], [1, 2, 3, NAN, NAN], [NAN, 5, NAN, 7, NAN], [NAN] * 5]
    np.testing.assert_array_equal(found, expected)


def test_the_latest_context_is_right_aligned() -> None:
    values, present = latest([series(1, 2, NAN, 4), series(9), series()], 3)
    np.testing.assert_array_equal(values, [[2, 0, 4], [0, 0, 9], [0, 0, 0]])
    np.testing.assert_array_equal(present, [[True, False, True], [False, False, True], [False] * 3])


def test_a_horizon_is_held_out_or_a_third_of_a_short_series() -> None:
    found = held(np.array([0, 1, 2, 3, 9, 15, 16, 100]), horizon=8)
    np.testing.assert_array_equal(found, [0, 0, 1, 1, 3, 5, 8, 8])


def test_origins_step_back_from_the_newest_one_while_a_horizon_comes_before() -> None:
    which, ends = held_out(np.array([20, 5, 1]), horizon=4, origins=4, step=5)
    np.testing.assert_array_equal(which, [0, 0, 0, 1])
    np.testing.assert_array_equal(ends, [6, 11, 16, 4])


def test_targets_of_training_windows_stay_before_the_limit() -> None:
    panel = Panel.of([series(*range(60)), series(1, 2), series(4)], pad=10)
    sampler = Sampler.of(panel, np.array([50, 1, 0]), (10, 5, 4, 0.0))
    which, ends = sampler.draw(np.random.default_rng(0), 2000)
    assert set(which) == {0}  # the others have nothing before their limit to learn from
    assert (ends.min(), ends.max()) == (8, 45)


def test_aligned_windows_share_the_place_in_the_season_of_the_newest_origin() -> None:
    panel = Panel.of([series(*range(60))], pad=10)
    _, ends = Sampler.of(panel, np.array([50]), (10, 5, 7, 1.0)).draw(np.random.default_rng(0), 500)
    assert set(ends % 7) == {60 % 7}
    _, half = Sampler.of(panel, np.array([50]), (10, 5, 7, 0.5)).draw(np.random.default_rng(0), 2000)
    assert 0.5 < np.mean(half % 7 == 60 % 7) < 0.65  # a half, and by chance a seventh of the rest


def test_the_same_seed_draws_the_same_windows() -> None:
    panel = Panel.of([series(*range(60)), series(*range(30))], pad=10)
    sampler = Sampler.of(panel, np.array([50, 20]), (10, 5, 4, 0.5))
    first, second = (sampler.draw(np.random.default_rng(1), 50) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_some_contexts_lose_steps_and_never_the_newest() -> None:
    kept = spare(np.random.default_rng(0), 4000, 50)
    assert kept[:, -1].all()
    assert np.mean(~kept.all(axis=1)) == pytest.approx(1 - (1 - DAMAGED) ** 2, abs=0.03)
    assert 0.1 < 1 - kept[:, 0].mean() < 0.3
    assert kept.mean(axis=1).min() < 1 - GAPS  # long cuts
