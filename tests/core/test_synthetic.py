"""Synthetic series: the same from the same seed, sound, and of the many kinds that they are meant to be."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from models.synthetic import KINDS, YOUNG, Kind, Made, ahead, draw, make

MANY = 1500


@pytest.fixture(scope="module")
def made() -> list[Made]:
    return draw(np.random.default_rng(11), MANY)


def known(one: Made) -> NDArray[np.float64]:
    return one.values[~np.isnan(one.values)].astype(np.float64)


def share(made: list[Made], of: Callable[[Made], object]) -> float:
    return float(np.mean([bool(of(one)) for one in made]))


def explained(values: NDArray[np.float32], period: int) -> float:
    """Share of the variance around a moving mean of one period that the mean pattern of that period explains, less what
    it would explain of noise."""
    steps = np.arange(len(values))
    there = ~np.isnan(values)
    whole = np.interp(steps, steps[there], values[there].astype(np.float64))
    middle = np.convolve(whole, np.ones(period) / period, "valid")
    rest = whole[period // 2 :][: len(middle)] - middle
    cycles = len(rest) // period
    rest = rest[: cycles * period].reshape(cycles, period)
    if cycles < 2 or rest.var() < 1e-12 * max(whole.var(), 1e-12):
        return 0.0
    left = float((rest - rest.mean(0)).var() / rest.var())
    return 1 - left * cycles / (cycles - 1)


def test_a_seed_says_all() -> None:
    first, again = draw(np.random.default_rng(3), 60), draw(np.random.default_rng(3), 60)
    assert len(first) == len(again) == 60
    for one, other in zip(first, again, strict=True):
        assert (one.season, one.longer) == (other.season, other.longer)
        np.testing.assert_array_equal(one.values, other.values)
    different = draw(np.random.default_rng(4), 60)
    assert any(not np.array_equal(a.values, b.values, equal_nan=True) for a, b in zip(first, different, strict=True))


def test_values_are_sound(made: list[Made]) -> None:
    for one in made:
        assert one.values.dtype == np.float32
        assert not np.isinf(one.values).any()
        assert len(known(one)) >= len(one.values) / 2
        assert np.abs(known(one)).max() < 1e12


def test_kinds_come_as_often_as_asked(made: list[Made]) -> None:
    assert sum(KINDS.values()) == pytest.approx(1)
    for season in {season for season, _ in KINDS}:
        wanted = sum(often for kind, often in KINDS.items() if kind[0] == season)
        found = sum(one.season == season for one in made) / len(made)
        assert abs(found - wanted) < 4 * np.sqrt(wanted / len(made)) + 1e-3, season
    only = draw(np.random.default_rng(0), 50, {(12, 0): 3.0})
    assert {(one.season, one.longer) for one in only} == {(12, 0)}


@pytest.mark.parametrize("season", sorted({season for season, _ in KINDS}))
def test_there_is_room_for_a_target(season: int) -> None:
    kind = next(kind for kind in KINDS if kind[0] == season)
    lengths = [len(one.values) - ahead(season) for one in make(np.random.default_rng(1), kind, 40)]
    assert min(lengths) >= 4
    assert len(set(lengths)) > 10
    told = [len(one.values) - ahead(season) for one in make(np.random.default_rng(1), kind, 60, (30, 33))]
    assert set(told) == {30, 31, 32, 33}


def test_some_series_began_lately() -> None:
    lengths = np.array([len(one.values) for one in make(np.random.default_rng(3), (24, 168), 1200)]) - ahead(24)
    young = lengths < 100  # three days at most; others have seen more
    assert abs(young.mean() - YOUNG) < 0.04
    assert lengths[young].max() <= 72
    assert (lengths[young] <= 12).mean() > 0.2
    told = [len(one.values) for one in make(np.random.default_rng(3), (24, 168), 200, (100, 200))]
    assert min(told) >= 100 + ahead(24)


@pytest.mark.parametrize("kind", [(4, 0), (12, 0), (7, 0), (52, 0), (24, 168), (48, 336)])
def test_the_season_told_is_there_in_most(kind: Kind) -> None:
    season = kind[0]
    some = make(np.random.default_rng(5), kind, 500, (8 * season, 12 * season))
    found = np.array([explained(one.values, season) for one in some])
    assert np.mean(found > 0.2) > 0.5
    assert np.mean(found < 0.1) > 0.1  # and in some it is not, though told
    wrong = season + 2 if season < 20 else round(season * 1.37)
    assert np.mean(found) > np.mean([explained(one.values, wrong) for one in some]) + 0.25


def test_hours_repeat_by_the_week_too() -> None:
    """What a week ago was tells more than what a day ago was, in a good part."""
    closer = 0
    hours = make(np.random.default_rng(6), (24, 168), 200, (900, 1000))
    for one in hours:
        values = one.values.astype(np.float64)
        closer += np.nanmean(np.abs(values[168:] - values[:-168])) < 0.9 * np.nanmean(
            np.abs(values[24:] - values[:-24])
        )
    assert 0.15 < closer / len(hours) < 0.8
    assert (
        0.7 < np.mean([one.longer == 168 for one in make(np.random.default_rng(7), (24, 168), 3000, (20, 30))]) <= 1.0
    )


def test_all_that_data_of_the_world_have(made: list[Made]) -> None:
    assert 0.02 < share(made, lambda one: np.isnan(one.values).any()) < 0.4
    assert 0.03 < share(made, lambda one: (known(one) < 0).any()) < 0.4
    assert 0.02 < share(made, lambda one: (known(one) == 0).mean() > 0.2) < 0.3
    assert 0.05 < share(made, lambda one: (known(one) == np.round(known(one))).all() and known(one).min() >= 0) < 0.6
    assert 0.001 < share(made, lambda one: np.ptp(known(one)) == 0) < 0.08
    sizes = np.array([np.median(np.abs(known(one))) for one in made])
    low, high = np.quantile(sizes, [0.05, 0.95])
    assert low < 1
    assert high > 1e4


def test_no_two_are_alike(made: list[Made]) -> None:
    seen = {one.values.tobytes() for one in made if np.ptp(known(one)) > 0}
    assert len(seen) == sum(np.ptp(known(one)) > 0 for one in made)


@pytest.mark.parametrize("kind", [(0, 0), (-4, 0), (24, 100), (24, 24), (1, 7), (24, -168)])
def test_impossible_seasons_are_refused(kind: Kind) -> None:
    with pytest.raises(ValueError, match="kind: expected"):
        make(np.random.default_rng(0), kind, 3)


def test_impossible_wishes_are_refused() -> None:
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match="length: expected"):
        make(random, (12, 0), 3, (20, 10))
    with pytest.raises(ValueError, match="length: expected"):
        make(random, (12, 0), 3, (1, 10))
    with pytest.raises(ValueError, match="count: expected"):
        draw(random, -1)
    with pytest.raises(ValueError, match="count: expected"):
        make(random, (12, 0), -1)
    with pytest.raises(ValueError, match="shares: expected"):
        draw(random, 3, {})
    assert draw(random, 0) == []


def test_one_alone_and_very_short_ones() -> None:
    for kind in KINDS:
        for one in make(np.random.default_rng(2), kind, 3, (2, 3)):
            assert np.isfinite(known(one)).all()
