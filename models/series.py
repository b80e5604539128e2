"""The values that cross the core's border: series in, forecasts out. Both are frozen; arrays inside are not to be
written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One regular sequence on a calendar.

    `target` (time,) float64 in the data's units, NaN = missing; its last value is the origin. `start` is the absolute
    step of `target[0]`, `phase` the series' place inside a step (see `calendar`). Covariate arrays begin at `start`
    too: `past` are (time,), `future` at least (time,) and longer where the future is known; `static` holds one number
    a column (a category's code, 0 = unknown). Not `dated`: nobody knows what time `start` is.
    """

    key: str
    target: Array
    start: int = 0
    phase: int = 0
    past: Mapping[str, Array] = field(default_factory=dict[str, Array])
    future: Mapping[str, Array] = field(default_factory=dict[str, Array])
    static: Mapping[str, float] = field(default_factory=dict[str, float])
    dated: bool = True

    def __post_init__(self) -> None:
        if self.target.ndim != 1 or self.target.dtype != np.float64:
            raise ValueError(
                f"series {self.key!r}: expected target of shape (time,) and type float64, "
                f"got {self.target.shape} {self.target.dtype}"
            )

    @property
    def origin(self) -> int:
        """Absolute step of the last target value."""
        return self.start + len(self.target) - 1


@dataclass(frozen=True)
class Column:
    """What a covariate column of some series is: its `role` (future, past, static) and `kind` (number, category), and
    the texts of a category's codes from 1 on."""

    name: str
    role: str
    kind: str = "number"
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Note:
    """A warning about some of the series of a forecast: a code, a sentence, and their places in the batch (empty:
    all)."""

    code: str
    message: str
    series: tuple[int, ...] = ()


@dataclass(frozen=True)
class Forecast:
    """Values for `horizon` steps after each series' origin, for a batch of series in the order they were given.

    `mean` (series, horizon); `quantiles` (series, horizon, level), never decreasing along `levels`, which are
    ascending; `samples` (series, sample, horizon) or None. All in the data's units and within the bounds.
    """

    keys: Sequence[str]
    origins: NDArray[np.int64]
    levels: tuple[float, ...]
    mean: Array
    quantiles: Array
    samples: Array | None = None
    notes: tuple[Note, ...] = ()
