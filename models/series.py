"""The values that cross the core's border: series in, forecasts out. Both are frozen; arrays inside are not to be
written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


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
class Ends(Sequence[Series]):
    """Many series without covariates as the last steps of each, in one array: a sequence of series that are made only
    when one of them is looked at.

    `values` (series, time) float64, NaN = missing or before the first value; the last of a row is the newest known
    value, or NaN where none is known. `origins` and `phases` (series,). All are dated.
    """

    keys: Sequence[str]
    values: Array
    origins: Ints
    phases: Ints

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> Series: ...

    @overload
    def __getitem__(self, place: slice) -> "Ends": ...

    def __getitem__(self, place: int | slice) -> "Series | Ends":
        if isinstance(place, slice):
            return Ends(self.keys[place], self.values[place], self.origins[place], self.phases[place])
        row, origin = self.values[place], int(self.origins[place])
        known = np.flatnonzero(~np.isnan(row))
        target = row[known[0] :] if len(known) else row[:0]
        return Series(self.keys[place], target, origin - len(target) + 1, int(self.phases[place]))

    def rows(self, places: Ints) -> "Ends":
        """The series at these places, in their order."""
        some: list[int] = places.tolist()
        keys = [self.keys[place] for place in some]
        return Ends(keys, self.values[places], self.origins[places], self.phases[places])


def keys_of(series: Sequence[Series]) -> Sequence[str]:
    """The key of each."""
    return series.keys if isinstance(series, Ends) else [one.key for one in series]


def origins_of(series: Sequence[Series]) -> Ints:
    """The absolute step of the last value of each, (series,)."""
    return series.origins if isinstance(series, Ends) else np.array([one.origin for one in series], np.int64)


def phases_of(series: Sequence[Series]) -> Ints:
    """The place of each inside its steps, (series,)."""
    return series.phases if isinstance(series, Ends) else np.array([one.phase for one in series], np.int64)


def known_of(series: Sequence[Series]) -> Bools:
    """Which of them have any value, (series,); stored ones end with one."""
    if isinstance(series, Ends):
        return ~np.isnan(series.values[:, -1]) if series.values.shape[1] else np.zeros(len(series), np.bool_)
    return np.array([len(one.target) > 0 for one in series], np.bool_)


def dated_of(series: Sequence[Series]) -> Bools:
    """Of which of them it is known what time they are at, (series,)."""
    return np.ones(len(series), np.bool_) if isinstance(series, Ends) else np.array([one.dated for one in series], bool)


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
