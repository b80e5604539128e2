"""What a version looks at beside the target: covariates and the place on the local calendar, as columns of numbers.
Numpy only: training, backtests and answers gather them by the same functions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import spacing
from models.calendar import Calendar
from models.frequency import MONTHLY, SECONDS
from models.series import Column, Series, dated_of, origins_of
from models.windows import Panel
from models.zones import DAY, Int

Floats = NDArray[np.float32]  # NaN = unknown; a category's code is a number here too, 0 = unknown
Ints = NDArray[np.int64]

OWN = 0.3  # share of a column's variance that lies inside series, below which levels are taken as the series' own
BLOCK = 2048  # steps of the calendar that are computed together and kept
BLOCKS = 32  # of them for one question, at most; more are computed without keeping them
CYCLES = ("hour", "day", "week", "month", "year")  # that a step can have a place in
DAYS = {"hour": 1 / 24, "day": 1.0, "week": 7.0, "month": 30.44, "year": 365.25}


@dataclass(frozen=True)
class Feature:
    """One column that a version reads. `role` is calendar, future, past or static; `kind` number or category. `size` is
    how many codes a category has, 0 for the unknown among them; `categories` their texts from code 1 on, where they
    are known. `gaps`: some of its numbers were missing in training, so that missing has a meaning. `own`: its numbers
    lie elsewhere in each series, so that what counts is how far they are from the window's own mean; `log`: and they
    are above 0, so that ratios count."""

    name: str
    role: str
    kind: str = "number"
    size: int = 0
    categories: tuple[str, ...] = ()
    gaps: bool = False
    own: bool = False
    log: bool = False


@dataclass(frozen=True)
class Design:
    """The columns a version reads, in their order: of each step (calendar first), and of each series."""

    steps: tuple[Feature, ...] = ()
    static: tuple[Feature, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps or self.static)

    @property
    def calendar(self) -> tuple[str, ...]:
        """Names of the calendar's columns."""
        return tuple(one.name for one in self.steps if one.role == "calendar")

    @property
    def covariates(self) -> tuple[Feature, ...]:
        """The columns that come with the data."""
        return tuple(one for one in (*self.steps, *self.static) if one.role != "calendar")

    @property
    def columns(self) -> tuple[Column, ...]:
        """The same as the data know them."""
        return tuple(Column(one.name, one.role, one.kind, one.categories) for one in self.covariates)

    def part(self, calendar: bool, covariates: bool) -> "Design":
        """Only what a config asks for."""
        steps = tuple(one for one in self.steps if (calendar if one.role == "calendar" else covariates))
        return Design(steps, self.static if covariates else ())

    def document(self) -> dict[str, Any]:
        """JSON-ready values for the manifest."""
        return {"steps": [_document(one) for one in self.steps], "static": [_document(one) for one in self.static]}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "Design":
        """The design of a manifest."""
        return cls(*(tuple(_feature(one) for one in document[part]) for part in ("steps", "static")))


def _document(feature: Feature) -> dict[str, Any]:
    return {**asdict(feature), "categories": list(feature.categories)}


def _feature(document: Mapping[str, Any]) -> Feature:
    values: dict[str, Any] = {**document, "categories": tuple(document["categories"])}
    return Feature(**values)


# ---------------------------------------------------------------- the calendar


def cycles_of(calendar: Calendar, steps: int) -> tuple[str, ...]:
    """The cycles that steps of this calendar have a place in: longer than a step, and seen twice within `steps`; none
    of `step`."""
    unit, multiple = calendar.frequency.unit, calendar.frequency.multiple
    if calendar.frequency.is_integer:
        return ()
    if unit in SECONDS:
        days, known = multiple * SECONDS[unit] / 86_400, ("hour", "day", "week", "year")
    elif unit in MONTHLY:
        days, known = 30.44 * multiple * MONTHLY[unit], ("year",)
    else:
        days = multiple * {"D": 1.0, "B": 1.4, "W": 7.0}[unit]
        known = ("year",) if unit == "W" else ("week", "month", "year")
    return tuple(name for name in known if 2 * days <= DAYS[name] and 2 * DAYS[name] <= steps * days)


def calendar_names(cycles: Sequence[str]) -> tuple[str, ...]:
    """The columns that tell the place in each cycle: its angle's sine and cosine."""
    return tuple(f"{name}_{part}" for name in cycles for part in ("sin", "cos"))


def calendar_columns(calendar: Calendar, names: Sequence[str], steps: Int) -> Floats:
    """The columns `names` at absolute `steps` of any shape: (…, column). The clock is the local one: an hour of the day
    is what it shows, also where it has been moved. A series' phase is left out: it shifts all its steps alike. NaN on a
    calendar without a clock (`step`)."""
    if calendar.frequency.is_integer or not names:
        return np.full((*steps.shape, len(names)), np.nan, np.float32)
    if not steps.size:
        return np.zeros((*steps.shape, len(names)), np.float32)
    blocks, place = np.unique(steps // BLOCK, return_inverse=True)
    if len(blocks) > BLOCKS:
        return _columns(calendar, tuple(names), steps.ravel()).reshape(*steps.shape, len(names))
    kept = np.concatenate([_block(calendar, tuple(names), int(block)) for block in blocks])
    return kept[place.reshape(steps.shape) * BLOCK + steps % BLOCK]


@lru_cache(maxsize=4 * BLOCKS)
def _block(calendar: Calendar, names: tuple[str, ...], block: int) -> Floats:
    return _columns(calendar, names, np.arange(block * BLOCK, (block + 1) * BLOCK))


def _columns(calendar: Calendar, names: tuple[str, ...], steps: Int) -> Floats:
    """(step, column) of `steps` (step,)."""
    days, clock = np.divmod(calendar.to_local(calendar.times(steps, 0)), DAY)
    month, day, length = spacing.month_fields(days)
    january = month // 12 * 12
    first, after = spacing.month_start(january), spacing.month_start(january + 12)
    turns = {
        "hour": lambda: clock % (DAY // 24) / (DAY // 24),
        "day": lambda: clock / DAY,
        "week": lambda: (days + 3) % 7 / 7,
        "month": lambda: (day - 1) / length,
        "year": lambda: (days - first) / (after - first),
    }
    angles = {name: 2 * np.pi * turns[name]() for name in {name.split("_")[0] for name in names}}
    found = np.empty((len(steps), len(names)), np.float32)
    for column, name in enumerate(names):
        cycle, part = name.split("_")
        found[:, column] = np.sin(angles[cycle]) if part == "sin" else np.cos(angles[cycle])
    return found


# ---------------------------------------------------------------- of a panel


@dataclass(frozen=True)
class Beside:
    """The features of a panel's series. `cells` (cell, covariate) beside the panel's values; `table` (row, calendar
    column) with `rows` (series,) the row of each series' first step; `static` (series, column)."""

    design: Design
    cells: Floats
    table: Floats
    rows: Ints
    static: Floats

    def part(self, design: Design) -> "Beside":
        """The columns of `design` alone, which are some of these."""
        own = [one.name for one in self.design.steps if one.role != "calendar"]
        kept = [own.index(one.name) for one in design.steps if one.role != "calendar"]
        static = [one.name for one in self.design.static]
        table = self.table if design.calendar else self.table[:, :0]
        cells = self.cells if len(kept) == len(own) else self.cells[:, kept]
        held = self.static[:, [static.index(one.name) for one in design.static]]
        return Beside(design, cells, table, self.rows, held)

    def usable(self, panel: Panel, limits: Ints) -> Design:
        """Of the design, the columns that vary over the first `limits` (series,) steps of each series, with what they
        hold there: nothing can be learned from the others."""
        inside = self.learned(panel, limits)
        owners = np.repeat(np.arange(len(limits)), limits)
        own = [one for one in self.design.steps if one.role != "calendar"]
        found = [_levelled(_seen(one, self.cells[inside, place]), self.cells[inside, place], owners)
                 for place, one in enumerate(own)]  # fmt: skip
        static = [_seen(one, self.static[:, place]) for place, one in enumerate(self.design.static)]
        calendar = [one for one in self.design.steps if one.role == "calendar"]
        return Design((*calendar, *filter(None, found)), tuple(filter(None, static)))

    def learned(self, panel: Panel, limits: Ints) -> NDArray[np.bool_]:
        """Which cells are among the first `limits` (series,) steps of a series, (cell,)."""
        changes = np.zeros(len(self.cells) + 1, np.int8)
        np.add.at(changes, panel.firsts, 1)
        np.add.at(changes, panel.firsts + limits, -1)
        return np.cumsum(changes[:-1], dtype=np.int8) > 0

    def cut(self, panel: Panel, windows: tuple[Ints, Ints], before: int, after: int) -> tuple[Floats, Floats]:
        """Features (window, before + after, column) of `windows` (which, ends) and of their series (window, column).
        Past covariates are unknown from the end on. Steps before a series hold what lies there: they have no value, and
        a forecaster looks at nothing before the first one."""
        which, ends = windows
        steps = np.arange(-before, after)
        own = self.cells[(panel.firsts[which] + ends)[:, None] + steps]
        roles = [one.role for one in self.design.steps if one.role != "calendar"]
        own[:, before:, [role == "past" for role in roles]] = np.nan
        if not self.design.calendar:
            return own, self.static[which]
        table = self.table[(self.rows[which] + ends)[:, None] + steps]
        return np.concatenate([table, own], axis=2), self.static[which]


def beside(series: Sequence[Series], panel: Panel, calendar: Calendar, design: Design, pad: int) -> Beside:
    """The features of `design` of a panel's series; `pad` is at least what windows reach over a series' ends."""
    own = [one for one in design.steps if one.role != "calendar"]
    cells = np.full((len(panel.values), len(own)), np.nan, np.float32)
    static = np.full((len(series), len(design.static)), np.nan, np.float32)
    for place, one in enumerate(series):
        first, length, skip = int(panel.firsts[place]), int(panel.lengths[place]), int(panel.skipped[place])
        for column, feature in enumerate(own):
            part = _values(one, feature)[skip : skip + length]
            cells[first : first + len(part), column] = part
        static[place] = [one.static.get(feature.name, np.nan) for feature in design.static]
    for values in (cells, static):
        values[~np.isfinite(values)] = np.nan
    starts = np.array([one.start for one in series], np.int64) + panel.skipped
    table, rows = _table(calendar, design.calendar, starts, panel.lengths, pad)
    return Beside(design, cells, table, rows, static)


def offer(series: Sequence[Series], columns: Sequence[Column], calendar: Calendar | None) -> Design:
    """Every column that a version of these series could read, those of a calendar where one is given; a covariate that
    `columns` does not name is a number."""
    told = {(one.role, one.name): one for one in columns}
    named: dict[str, set[str]] = {
        "future": {name for one in series for name in one.future},
        "past": {name for one in series for name in one.past},
        "static": {name for one in series for name in one.static},
    }
    found = {
        role: tuple(
            Feature(name, role, about.kind, categories=about.categories) if about else Feature(name, role)
            for name in sorted(names)
            for about in [told.get((role, name))]
        )
        for role, names in named.items()
    }
    longest = max((len(one.target) for one in series), default=0)
    names = () if calendar is None else calendar_names(cycles_of(calendar, longest))
    return Design((*(Feature(name, "calendar") for name in names), *found["future"], *found["past"]), found["static"])


def _values(series: Series, feature: Feature) -> NDArray[np.float64]:
    """A series' values of a step's covariate from `start` on; none where it has none."""
    return (series.past if feature.role == "past" else series.future).get(feature.name, np.empty(0))


def _seen(feature: Feature, values: Floats) -> Feature | None:
    """The feature with what its column (value,) holds; None where that is always the same."""
    known = values[~np.isnan(values)]
    if feature.kind == "category":
        codes = np.unique(known.astype(np.int64))
        size = int(codes.max(initial=0)) + 1
        few = np.count_nonzero(codes > 0) < 2 and not (0 in codes and size > 1)
        return None if few else replace(feature, size=size, categories=feature.categories[: size - 1])
    gaps = len(known) < len(values)
    if not len(known) or (known.min() == known.max() and not gaps):
        return None
    return replace(feature, gaps=gaps)


def _levelled(feature: Feature | None, values: Floats, owners: Ints) -> Feature | None:
    """The feature, told whether its `values` (value,) lie at another level in each series, whose numbers are `owners`
    (value,)."""
    if feature is None or feature.kind != "number":
        return feature
    log = bool(np.nanmin(values) > 0)
    known = np.log(values) if log else values
    if within(known, owners) ** 2 > OWN * float(np.nanvar(known.astype(np.float64))):
        return feature
    return replace(feature, own=True, log=log)


def within(values: Floats, owners: Ints) -> float:
    """The deviation of `values` (value,), NaN = unknown, from their means by owner."""
    there = ~np.isnan(values)
    own, numbers = owners[there], values[there].astype(np.float64)
    counts = np.maximum(np.bincount(own), 1)
    means = np.bincount(own, numbers) / counts
    return float(np.sqrt(np.mean((numbers - means[own]) ** 2))) if len(own) else 0.0


def _table(calendar: Calendar, names: Sequence[str], starts: Ints, lengths: Ints, pad: int) -> tuple[Floats, Ints]:
    """The calendar's columns (row, column) and the row of each series' first step (series,): one row for each step of
    the time that the series lie in, or, where they lie far apart, one for each step of each series."""
    if not names or not len(starts):
        return np.zeros((0, len(names)), np.float32), np.zeros(len(starts), np.int64)
    first, last = int(starts.min()) - pad, int((starts + lengths).max()) + pad
    sizes = lengths + 2 * pad
    if last - first <= sizes.sum():
        return calendar_columns(calendar, names, np.arange(first, last)), starts - first
    begins = np.cumsum(sizes) - sizes
    steps: Ints = np.arange(int(sizes.sum())) + np.repeat(starts - pad - begins, sizes)
    return calendar_columns(calendar, names, steps), begins + pad


# ---------------------------------------------------------------- of a question


def gather(
    design: Design, series: Sequence[Series], calendar: Calendar, before: int, after: int
) -> tuple[Floats, Floats]:
    """Features (series, before + after, column) of the steps around each series' origin, and of the series (series,
    column)."""
    names = design.calendar
    features = np.full((len(series), before + after, len(design.steps)), np.nan, np.float32)
    static = np.full((len(series), len(design.static)), np.nan, np.float32)
    if names:
        dated = dated_of(series)
        origins, which = np.unique(origins_of(series)[dated], return_inverse=True)  # most series end together
        steps = origins[:, None] + np.arange(1 - before, after + 1)
        features[dated, :, : len(names)] = calendar_columns(calendar, names, steps)[which]
    for place, one in enumerate(series if design.covariates else ()):
        low = max(0, len(one.target) - before)
        for column, feature in enumerate(design.steps[len(names) :], len(names)):
            stop = len(one.target) + (0 if feature.role == "past" else after)
            part = _values(one, feature)[low:stop]
            at = before - len(one.target) + low
            features[place, at : at + len(part), column] = part
        static[place] = [one.static.get(feature.name, np.nan) for feature in design.static]
    for values in (features, static):
        values[~np.isfinite(values)] = np.nan
    return features, static


def recoded(series: Sequence[Series], columns: Sequence[Column], design: Design) -> list[Series]:
    """The series, of the `columns` given, as a version of `design` knows them: categories by its own codes, found by
    their texts, and no column that is of another kind there."""
    told = {(one.role, one.name): one for one in columns}
    tables: dict[str, NDArray[np.float64]] = {}
    for feature in design.covariates:
        about = told.get((feature.role, feature.name))
        if about is not None and about.kind != feature.kind:
            tables[feature.name] = np.full(1, np.nan)
        elif about is not None and feature.categories != about.categories[: feature.size - 1]:
            own = {text: code for code, text in enumerate(feature.categories, 1)}
            tables[feature.name] = np.array([0.0, *(own.get(text, 0) for text in about.categories)])
    if not tables:
        return list(series)

    def mapped(values: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        return {name: own if name not in tables else _mapped(own, tables[name]) for name, own in values.items()}

    def one_by_one(values: Mapping[str, float]) -> dict[str, float]:
        found = mapped({name: np.array([own]) for name, own in values.items()})
        return {name: float(own[0]) for name, own in found.items()}

    return [
        replace(one, past=mapped(one.past), future=mapped(one.future), static=one_by_one(one.static)) for one in series
    ]


def _mapped(codes: NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(table) == 1 and np.isnan(table[0]):
        return np.full(len(codes), np.nan)
    known = (codes >= 0) & (codes < len(table))
    return np.where(np.isnan(codes), np.nan, table[np.where(known, codes, 0).astype(np.int64)])


def lacking(design: Design, features: Floats, static: Floats, before: int) -> dict[str, NDArray[np.bool_]]:
    """The covariates that are not there although the version reads them, with the rows (series,) they lack in: a future
    one at any of the steps ahead, a past one in all of the history. Where gaps are nothing new to the version, only all
    of them missing count."""
    found: dict[str, NDArray[np.bool_]] = {}
    for column, feature in enumerate(design.steps):
        if feature.role == "calendar":
            continue
        ahead = feature.role == "future"
        missing = np.isnan(features[:, before:, column] if ahead else features[:, :before, column])
        rows: NDArray[np.bool_] = (np.any if ahead and not feature.gaps else np.all)(missing, axis=1)
        found[feature.name] = rows
    for column, feature in enumerate(design.static):
        if not feature.gaps:
            found[feature.name] = np.isnan(static[:, column])
    return {name: rows for name, rows in found.items() if rows.any()}
