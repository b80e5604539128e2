"""Which values that the pre-trained base looks up make which plain forecast, and what of them must be known: small
matrices, each of which stands for a dozen operations of the graph. Numpy only."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.filters import FILTERS
from models.tables import DRIFTS, FADE, LONGER, NEWEST

Array = NDArray[np.float64]

LOOKED = 8  # plain forecasts that are looked up
BASES = 2 * len(FILTERS) + LOOKED
STEADY, MOVED = (2, 3), (4, 5, 7)  # which of them repeat the longer season as it was, and moved to a level of today
ALMOST = 0.99  # of a sum of shares: all that must be known is, and rounding makes no difference
KINDS = (NEWEST, LONGER, LONGER)  # cycles: of the season, of the longer one, of what this lay above the season before


def shares(wanted: Array) -> Array:
    """Of rows of wanted places, what each counts for, so that all known ones come to 1."""
    return (wanted != 0) / np.abs(wanted).astype(bool).sum(axis=1, keepdims=True)


def row(size: int, at: Mapping[int, float]) -> Array:
    """Zeros, but for the values `at` some places."""
    found = np.zeros(size)
    found[list(at)] = list(at.values())
    return found


def by_kind(weight: float) -> Array:
    """(kind, cycle): powers of `weight` for the cycles of each kind, the newest first."""
    found = np.zeros((len(KINDS), sum(KINDS)))
    for kind, count in enumerate(KINDS):
        start = sum(KINDS[:kind])
        found[kind, start : start + count] = weight ** np.arange(count)
    return found


# A step and those the longer season, each drift, and each drift and the longer season before it (`drifts`).
STEPS = 2 + 2 * DRIFTS
APART = np.stack(
    [row(STEPS, {0: 1, 1 + ago: -1}) for ago in range(1 + DRIFTS)]
    + [row(STEPS, {0: 1, 1: -1, 2 + ago: -1, 2 + DRIFTS + ago: 1}) for ago in range(DRIFTS)]
)
METS = shares(APART)

# A step and those so many seasons and longer ones before it (`agos`).
FADES = np.array([[0, FADE, FADE**2, FADE**3, 0, 0, 0], [0, 0, 0, 0, FADE, FADE**2, 0], [0] * 7])
ABOVE = np.array([[1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], [1, -1, 0, 0, -1, 0, 1]], dtype=np.float64)
JUDGES = np.array([[0.9, 0.1, 0.1, 0.1, 0, 0, 0], [0.9, 0, 0, 0, 0.1, 0.1, 0], [0.25, 0.25, 0, 0, 0.25, 0, 0.25]])

# The cycles looked up (`looked`): of the season, of the longer one, and of the season before that one's origin.
CYCLES_OF = np.eye(sum(KINDS))
CYCLES_OF[-LONGER:, NEWEST : NEWEST + LONGER] = np.eye(LONGER)
CYCLES_OF[-LONGER:, -LONGER:] *= -1
TOLD = shares(CYCLES_OF)
EACH, FADING = by_kind(1.0), by_kind(FADE)
SO_FAR = np.tril(EACH.T @ EACH)  # (cycle, cycle): those of its kind up to it
INSTEAD = np.array([[1.0], [1.0], [0.0]])  # of the newest value, where no cycle of a kind is known
VALUES = (EACH[:2].sum(axis=0) > 0).astype(np.float64)  # which cycles are values, and not what changed

# The plain forecasts: of the newest cycle of each kind, its fading mean, and what stands for unknown ones.
PLAIN = np.zeros((LOOKED, 9))
for _forecast, _part, _kind in ((0, 0, 0), (1, 3, 0), (2, 0, 1), (3, 3, 1), (4, 0, 1), (5, 0, 1), (6, 0, 0), (7, 0, 0)):
    PLAIN[_forecast, [_part + _kind, 6 + _kind]] = 1.0
PLAIN[7, 5] = 1.0
# By how much the last season and a quarter of it lay above the longer season, and above the main one.
MOVES = np.stack([row(4, at) for at in ({}, {}, {}, {}, {0: 1}, {1: 1}, {3: 1}, {})])

# What each plain forecast is doubted by, of how far values and their changes drift, and what a longer season spares it.
_looked = [place - BASES + LOOKED for place in range(BASES)]
_moved = np.array([float(place in MOVED) for place in _looked])
_steady = np.array([float(place in STEADY) for place in _looked])
DOUBTED = np.stack([np.ones(BASES), np.zeros(BASES)])
SPARED = np.stack([-(_moved + _steady), _moved])

CHANGED = np.array(
    [[1.0, 0.0, 0.0], [1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]
)  # of `raws`: now, above a season ago, a longer
