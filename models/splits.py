"""What is held out of each series, and for what. Numpy only.

The newest steps (`windows.held`) are what a version's scores are over: nothing ever looks at them. The steps before
them choose options, say when to stop and calibrate intervals. Of many series only some give up those, so that the
others teach up to the newest steps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.windows import held

Ints = NDArray[np.int64]

MANY = 120  # series, from which on some can judge for all
JUDGES = 3  # then one series of so many judges
WANTED = 300  # steps to judge by, over all series, where they are long enough
USUAL, MOST = 3, 8  # horizons that few long series give up to judge by: one stretch of time may be unlike any other


@dataclass(frozen=True)
class Split:
    """Steps of each series, (series,): the first `learned` teach, those up to `judged` judge, the rest is for scores.
    `again`: what judges is so much of the whole that members should learn once more from all of it."""

    learned: Ints
    judged: Ints
    again: bool


def split(lengths: Ints, horizon: int) -> Split:
    """The split of series of `lengths` steps for forecasts of `horizon` steps."""
    judged = lengths - held(lengths, horizon)
    judges = np.ones(len(lengths), np.bool_)
    if len(lengths) >= MANY:
        judges = np.arange(len(lengths)) % JUDGES == 0
    steps = int(np.sum(np.minimum(judged // 4, horizon)[judges]))
    usual = USUAL if len(lengths) < MANY else 1  # what few series give up they learn from in the end
    times = int(min(MOST, max(usual, -(-WANTED // max(1, steps)))))
    given = np.maximum(held(judged, horizon), np.minimum(times * horizon, judged // 4))
    learned = judged - np.where(judges, given, 0)
    lost = float((judged - learned).sum()) / max(1.0, float(judged.sum()))
    return Split(learned, judged, len(lengths) < MANY and lost > 0.02)
