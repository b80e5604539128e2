"""When a trial is stopped early: by the median rule over what others scored at the same part of their learning."""

import datetime as dt
from collections.abc import Mapping

import pytest

from app.db.tables import JobRow, TrialRow, utc_now
from app.services.pruning import EARLIEST, PARTS, STARTUP, worse
from app.services.trials import COMPLETED, PRUNED, Trial, out_of_time


def trial(scores: Mapping[int, float], outcome: str = COMPLETED, state: str = "succeeded") -> Trial:
    row = TrialRow(
        scores=[[part, score] for part, score in scores.items()], outcome=outcome, value=min(scores.values())
    )
    return Trial(row, JobRow(state=state))


OTHERS = [trial({part: level - 0.01 * part for part in range(1, PARTS + 1)}) for level in (1.0, 1.1, 1.2, 1.3, 1.4)]


@pytest.mark.parametrize(
    ("scores", "stopped"),
    [
        ({EARLIEST - 1: 5.0}, False),  # too early to say
        ({1: 5.0, EARLIEST: 4.0}, True),
        ({1: 1.0, 2: 1.0, 3: 1.0, 4: 1.15}, False),  # by its best so far
        ({4: 1.17}, True),  # the median there is 1.16
        ({4: 1.15}, False),
        ({}, False),
    ],
)
def test_worse_than_half_at_the_same_part_is_stopped(scores: dict[int, float], stopped: bool) -> None:
    assert worse(scores, OTHERS) is stopped


def test_too_few_that_completed_stop_nobody() -> None:
    bad = dict.fromkeys(range(1, 7), 9.0)
    assert not worse(bad, OTHERS[: STARTUP - 1])
    others = [*OTHERS[: STARTUP - 1], trial({6: 1.0}, PRUNED), trial({6: 1.0}, state="running"), trial({6: 1.0})]
    assert not worse(bad, others[:-1])  # one that was stopped, or still runs, is no yardstick
    assert worse(bad, others)


def test_minutes_count_from_the_first_step() -> None:
    now = utc_now()
    begun = {minutes: JobRow(spec={"minutes": minutes}, started_at=now - dt.timedelta(minutes=5)) for minutes in (4, 6)}
    assert (out_of_time(begun[4], now), out_of_time(begun[6], now)) == (True, False)
    assert not out_of_time(JobRow(spec={"minutes": 4}, started_at=None), now)
    assert not out_of_time(JobRow(spec={"minutes": None}, started_at=now - dt.timedelta(days=9)), now)
