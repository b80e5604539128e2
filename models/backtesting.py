"""Backtests: forecasts at many origins against the truth, in batched passes, beside baselines. Needs no torch."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from models import statistical
from models.baselines import NAMES, Answer, Past, answer_of, scales
from models.config import BacktestPlan, BacktestResult, Progress, Stopped
from models.features import beside
from models.inference import OpenArtifact
from models.metrics import DECILES, normal_scores
from models.series import Series
from models.tally import WIDE, Tally, owa
from models.windows import Panel, held_out, known_lengths

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

VERSION = "version"
CHUNK = 256  # windows a forward: the graph is as fast from 64 to 2,048, the sums are fastest while they fit the caches
CELLS = 1_000_000  # of history and of forecasts held at a time: bounds memory
PANEL = 250_000  # cells of series worked on together: the naive baselines take twenty arrays as long
AHEAD = min(8, os.cpu_count() or 1)  # forwards at work while others are scored; each uses one thread


@np.errstate(over="ignore", invalid="ignore")  # squares of 1e200 are infinite and count nowhere
def backtest(
    opened: OpenArtifact,
    series: Sequence[Series],
    plan: BacktestPlan,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    together: int = CHUNK,
) -> BacktestResult:
    """Score a version and baselines at the origins of `plan` (see `windows.held_out` for short series).

    MASE's scale of a series is taken over its steps before its first origin, and a naive baseline knows all steps
    before each, so that its scores are the same whatever the version. Metrics: see `tally`; an undefined one is left
    out. No more than `together` windows go through the graph at once. Raises ValueError when no series has an origin or
    a baseline is not known, ModuleNotFoundError for a statistical baseline without the extra, Stopped when
    `should_stop` says so."""
    if unknown := [name for name in plan.baselines if name not in (*NAMES, *statistical.NAMES)]:
        expected = ", ".join((*NAMES, *statistical.NAMES))
        raise ValueError(f"baselines: expected one of {expected}, got {unknown[0]!r}")
    statistical.check(plan.baselines)
    lengths = known_lengths(series)
    windows = held_out(lengths, plan.horizon, plan.origins, plan.step)
    if not len(windows[0]):
        raise ValueError(f"series: expected one with a step before and after an origin, got none in {len(series)}")
    fitted = [name for name in dict.fromkeys(plan.baselines) if name in statistical.NAMES]
    course = Course(opened, plan, len(windows[0]) * (1 + len(fitted)), on_progress, should_stop, together)
    tallies = {name: Tally(len(series), plan.horizon, course.levels) for name in (VERSION, *plan.baselines)}
    for group in _groups(lengths + course.pad + course.season * np.bincount(windows[0], minlength=len(lengths))):
        inside = slice(*np.searchsorted(windows[0], (group.start, group.stop)))
        if inside.start == inside.stop:
            continue
        batch = Batch.of(course, series[group], windows[0][inside] - group.start, windows[1][inside])
        own = {name: tally.part(group) for name, tally in tallies.items()}
        score(course, batch, own)
        for name in fitted:
            fit(course, batch, name, own[name])
    return _result(tallies, series, lengths, windows, course.notes())


@dataclass
class Course:
    """A backtest under way: what is asked, and how far it is."""

    opened: OpenArtifact
    plan: BacktestPlan
    total: int
    on_progress: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    together: int
    done: int = 0
    filled: int = 0  # windows with gaps, which the statistical baselines were given filled
    unfit: dict[str, int] = field(default_factory=dict[str, int])  # windows a statistical baseline was not fitted to

    @property
    def season(self) -> int:
        return self.opened.config.season or 1

    @property
    def levels(self) -> tuple[float, ...]:
        """The quantile levels scored: the deciles, and those of the 95 % interval if the version was trained so far
        out."""
        trained = self.opened.levels
        return (WIDE[0], *DECILES, WIDE[1]) if trained[0] <= WIDE[0] and trained[-1] >= WIDE[1] else DECILES

    @property
    def pad(self) -> int:
        """Cells between two series: no step back or ahead leads into another."""
        return max(self.opened.context, self.opened.reach(self.plan.horizon), self.season)

    def check(self) -> None:
        if self.should_stop():
            raise Stopped(f"stopped at window {self.done} of {self.total}")

    def tell(self, count: int, name: str = "") -> None:
        self.done += count
        message = f"{name}{self.done} of {self.total} windows"
        self.on_progress(Progress(self.done, self.total, message, unit="windows"))

    def notes(self) -> list[str]:
        """What a reader of the scores has to know."""
        found = [
            f"{name} could not be fitted to {count} of the windows: the seasonal naive forecast stands in for it there."
            for name, count in self.unfit.items()
            if count
        ]
        if self.filled:
            text = "windows had missing values, which the statistical baselines were given filled by straight lines."
            found.append(f"{self.filled} {text}")
        return found


@dataclass(frozen=True)
class Batch:
    """The windows of some of the series: `which` and `ends` (window,) as in `windows`, MASE's `scales` (series,)."""

    panel: Panel
    which: Ints
    ends: Ints
    scales: Array

    @classmethod
    def of(cls, course: Course, series: Sequence[Series], which: Ints, ends: Ints) -> "Batch":
        panel = Panel.of(series, course.pad)
        design, calendar = course.opened.design, course.opened.calendar
        if design:
            panel = replace(panel, beside=beside(series, panel, calendar, design, course.pad))
        return cls(panel, which, ends, scales(panel, which, ends, course.season))

    def steps(self, cells: NDArray[Any], part: slice, first: int, count: int) -> NDArray[Any]:
        """`count` of `cells` (cell,) from `first` steps past each end on: (window, count)."""
        starts = self.panel.firsts[self.which[part]] + self.ends[part] + first
        return sliding_window_view(cells, count)[starts]

    def history(self, place: int) -> tuple[Array, bool]:
        """The steps known at one end, (time,), gaps filled by straight lines, and whether there were any."""
        first = self.panel.firsts[self.which[place]]
        steps = slice(first, first + self.ends[place])
        values, known = self.panel.values[steps], np.flatnonzero(self.panel.present[steps])
        if len(known) == len(values):
            return values, False
        return np.interp(np.arange(len(values)), known, values[known]), True

    def truth(self, part: slice, horizon: int) -> Array:
        """What came after the ends, NaN = missing: (window, horizon)."""
        values, present = (self.steps(cells, part, 0, horizon) for cells in (self.panel.values, self.panel.present))
        return np.where(present, values, np.nan)


@np.errstate(over="ignore", invalid="ignore")  # what holds in one thread does not in another
def forecast(course: Course, batch: Batch, part: slice) -> Array:
    """The version's quantiles after some of the windows: (level, window, horizon)."""
    opened = course.opened
    values, present = (
        batch.steps(cells, part, -opened.context, opened.context) for cells in (batch.panel.values, batch.panel.present)
    )
    known, reach = batch.panel.beside, opened.reach(course.plan.horizon)
    windows = batch.which[part], batch.ends[part]
    features = None if known is None else known.cut(batch.panel, windows, opened.context, reach)
    trained = opened.quantiles(values, present, course.plan.horizon, features)
    return np.ascontiguousarray(opened.at_levels(trained, course.levels).transpose(2, 0, 1))


def score(course: Course, batch: Batch, tallies: dict[str, Tally]) -> None:
    """Add the version's and the naive baselines' errors. Some parts are forecast ahead by other threads, the graph
    leaves the interpreter free meanwhile; they are added in order."""
    horizon, width = course.plan.horizon, course.opened.context + course.plan.horizon * (2 + len(course.levels))
    size = int(np.clip(CELLS // width, 1, min(course.together, course.opened.together)))
    parts = [slice(at, min(at + size, len(batch.which))) for at in range(0, len(batch.which), size)]
    scores = normal_scores(course.levels)[:, None, None]
    space = np.empty((len(course.levels), size, horizon))
    with ThreadPoolExecutor(AHEAD) as pool:
        coming: deque[Future[Array]] = deque()
        answers: dict[str, Answer] = {}
        try:
            for place, part in enumerate(parts):
                course.check()
                while len(coming) <= AHEAD and place + len(coming) < len(parts):
                    coming.append(pool.submit(forecast, course, batch, parts[place + len(coming)]))
                if not answers:  # only now that forwards are under way
                    past = Past(batch.panel, batch.which, batch.ends)
                    answers = {name: answer_of(name, past, course.season) for name in tallies if name in NAMES}
                which, truth = batch.which[part], batch.truth(part, horizon)
                for name, answer in answers.items():
                    points, deviation = answer(part, horizon)
                    planes = np.multiply(deviation, scores, out=space[:, : len(which)])
                    tallies[name].add(which, truth, np.add(planes, points, out=planes), batch.scales)
                tallies[VERSION].add(which, truth, coming.popleft().result(), batch.scales)
                course.tell(len(which))
        finally:
            for future in coming:
                future.cancel()


def fit(course: Course, batch: Batch, name: str, tally: Tally) -> None:
    """Add the errors of a statistical baseline."""
    horizon = course.plan.horizon
    stand_in = answer_of("seasonal_naive", Past(batch.panel, batch.which, batch.ends), course.season)
    scores = normal_scores(course.levels)[:, None, None]

    def history(place: int) -> Array:
        values, gapped = batch.history(place)
        course.filled += gapped
        return values

    course.check()
    method = statistical.Method(name, course.season, horizon, course.levels)
    for part, quantiles in method.forecasts(history, len(batch.which)):
        unfit: Bools = np.any(np.isnan(quantiles), axis=(0, 2))
        course.unfit[name] = course.unfit.get(name, 0) + int(unfit.sum())
        points, deviation = stand_in(part, horizon)
        found = np.where(unfit[:, None], points + deviation * scores, quantiles)
        tally.add(batch.which[part], batch.truth(part, horizon), found, batch.scales)
        course.tell(part.stop - part.start, f"{name}: ")
        course.check()


def _groups(cost: Ints) -> Iterator[slice]:
    """Runs of series that are worked on together: of a `cost` (series,) of at most `PANEL`, or a single series."""
    total: Ints = np.cumsum(cost)
    first = 0
    while first < len(cost):
        most = int(total[first] - cost[first]) + PANEL
        last = max(first + 1, int(np.searchsorted(total, np.int64(most), side="right")))
        yield slice(first, last)
        first = last


def _result(
    tallies: dict[str, Tally], series: Sequence[Series], lengths: Ints, windows: tuple[Ints, Ints], notes: list[str]
) -> BacktestResult:
    which, ends = windows
    scored, first, count = np.unique(which, return_index=True, return_counts=True)
    own = [series[int(place)] for place in scored]
    ahead = tallies[VERSION].steps
    by_series = {
        name: {metric: values[scored] for metric, values in tally.series_scores().items()}
        for name, tally in tallies.items()
    }
    skipped = [one.start + len(one.target) - int(lengths[place]) for one, place in zip(own, scored, strict=True)]
    spans = np.stack([ends[first], ends[first + count - 1]], axis=1) + np.array(skipped)[:, None] - 1
    return BacktestResult(
        scores=_rows({name: tally.scores() for name, tally in tallies.items()}),
        by_horizon=_rows({name: tally.step_scores() for name, tally in tallies.items()}, "horizon", ahead),
        by_series=_rows(by_series, "key", [one.key for one in own]),
        origins=[{"series": one.key, "first": a, "last": b} for one, (a, b) in zip(own, spans.tolist(), strict=True)],
        notes=notes,
        values=tallies[VERSION].count,
    )


def _rows(
    found: Mapping[str, Mapping[str, Array]], label: str = "", labels: Sequence[Any] = ()
) -> list[dict[str, Any]]:
    """A row for each score that is defined; those of several places say which under `label`."""
    rows: list[dict[str, Any]] = []
    for name, scores in found.items():
        for metric, values in {**scores, **owa(scores, found.get("naive2"))}.items():
            own = {"metric": metric, "forecaster": name}
            there: list[int] = np.flatnonzero(np.isfinite(values)).tolist()
            pairs = zip(there, values[there].tolist(), strict=True)
            if label:
                rows += [{label: labels[place], "value": value, **own} for place, value in pairs]
            else:
                rows += [{"value": value, **own} for _, value in pairs]
    return rows
