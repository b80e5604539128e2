"""What is held out of each series: for the scores, and for judging."""

import numpy as np
import pytest

from models.splits import JUDGES, MANY, split


def test_every_third_of_many_series_judges_and_the_others_teach_up_to_the_scored_steps() -> None:
    lengths = np.full(MANY, 100, np.int64)
    found = split(lengths, 12)
    assert (found.judged == 88).all()
    judges = np.arange(MANY) % JUDGES == 0
    assert (found.learned[judges] == 76).all()
    assert (found.learned[~judges] == 88).all()
    assert not found.again


def test_few_series_all_judge_with_several_horizons_and_are_learned_from_again() -> None:
    found = split(np.full(10, 300, np.int64), 12)
    assert (found.judged == 288).all()
    assert (found.learned == 288 - 36).all()
    assert found.again


def test_one_long_series_gives_up_more_horizons_but_never_more_than_a_quarter() -> None:
    found = split(np.array([1000]), 10)
    assert found.judged[0] - found.learned[0] == 80
    short = split(np.array([80]), 10)
    assert short.judged[0] == 70
    assert short.judged[0] - short.learned[0] == 70 // 4


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 11, 23, 24, 25])
@pytest.mark.parametrize("count", [1, MANY])
def test_short_series_keep_something_to_learn_from(length: int, count: int) -> None:
    found = split(np.full(count, length, np.int64), 12)
    assert (found.learned >= 1).all()
    assert (found.learned <= found.judged).all()
    assert (found.judged <= length).all()
    assert (found.judged < length).all() == (length > 1)
