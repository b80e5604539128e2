"""Forecasts: for stored series, for history in the request, and for the next step as points arrive.

Three stages, so that each can be timed and no transaction is open while a model computes: `choose` (which version
answers), `read_…` (the series), `answer` (one batched forward). What leaves is made by `forecast_answers`.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from app.db.tables import DatasetRow, ModelRow, RevisionRow, VersionRow
from app.errors import Complaint, Conflict, Invalid, TooLarge
from app.services import datasets
from app.services.datasets import Span
from app.services.ends import KeptEnds, read_span
from app.services.forecast_answers import Answer
from app.services.forecast_inputs import (
    Columns,
    Input,
    Reading,
    check_future,
    check_inputs,
    ignored,
    instants,
    known_columns,
    series_of,
)
from app.services.opened import OpenVersions
from app.services.registry import resolved
from models import Calendar, Forecast, Note, OpenArtifact, Series, known_of, phases_of

STEP = "step"
PART = 128  # series computed at a time: as quick, each, as more of them, and a few hundred take several threads
THREADS = min(8, os.cpu_count() or 1)
MAX_HELD = 20_000_000  # numbers in one answer that is made in one go
MAX_VALUES = 500_000_000  # numbers in one answer that is sent in parts; more is work for a job


@dataclass(frozen=True)
class Shape:
    """How much of a forecast is wanted."""

    horizon: int = 1
    levels: tuple[float, ...] = (0.1, 0.5, 0.9)
    samples: int = 0


@dataclass(frozen=True)
class Stored:
    """Series of a dataset: those of `keys`, or all; at a revision, or the newest."""

    dataset: str
    keys: tuple[str, ...] | None = None
    revision: int | None = None
    future: Mapping[str, Columns] = field(default_factory=dict[str, Columns])


@dataclass(frozen=True)
class Sent:
    """History in the request, on the version's own calendar unless it says otherwise."""

    inputs: tuple[Input, ...]
    frequency: str | None = None
    time_zone: str | None = None


@dataclass(frozen=True)
class Meant:
    """The version that a reference stands for: its name, number, the alias that led there, its files, its data."""

    model: str
    version: int
    alias: str | None
    folder: str
    digest: str
    dataset_id: int | None


@dataclass(frozen=True)
class Chosen(Meant):
    """The version that answers, and itself."""

    opened: OpenArtifact

    def on(self, calendar: Calendar) -> OpenArtifact:
        """The version on the clock on which series lie; the one that answers for any frequency, bound to theirs."""
        bound = self.opened.at(calendar)
        return bound if bound.calendar == calendar else replace(bound, calendar=calendar)


@dataclass(frozen=True)
class Read:
    """Series to forecast, with where they come from. `dated` says which of them have times."""

    calendar: Calendar
    series: Sequence[Series]
    dated: Sequence[bool] | NDArray[np.bool_]
    notes: Sequence[Note] = ()
    dataset: str | None = None
    revision: int | None = None


def look_up(session: Session, reference: str) -> Meant:
    """The version a reference stands for at this moment. Raises NotFound."""
    # Not the rows: their configs and figures would be read for nothing, which takes as long as all else.
    wanted = (ModelRow.name, VersionRow.number, VersionRow.folder, VersionRow.digest, VersionRow.dataset_id)
    (name, number, folder, digest, dataset_id), alias = resolved(session, reference, *wanted)
    return Meant(name, number, alias, folder, digest, dataset_id)


def take(versions: OpenVersions, meant: Meant) -> Chosen:
    """A version, opened and checked. Raises Unavailable."""
    return Chosen(**vars(meant), opened=versions.get(meant.folder, meant.digest))


def check(shape: Shape, max_horizon: int) -> None:
    """Raises Invalid when the horizon is longer than this server answers."""
    if shape.horizon > max_horizon:
        text = f"horizon: expected at most {max_horizon} steps, got {shape.horizon}."
        raise Invalid(text, errors=[Complaint("horizon-too-long", text, pointer="/horizon")])


def locate(session: Session, ask: Stored) -> tuple[DatasetRow, RevisionRow]:
    """The dataset and the revision that a question is about.

    Raises NotFound for the dataset, Conflict while it is empty, Invalid for a revision that does not exist.
    """
    dataset = datasets.get(session, ask.dataset)
    if dataset.head == 0:
        raise Conflict(f"Dataset {ask.dataset!r} is empty: upload something first.", code="dataset-empty")
    return dataset, datasets.revision_of(session, dataset, ask.revision)


def read_stored(
    session: Session,
    chosen: Chosen,
    ask: Stored,
    found: tuple[DatasetRow, RevisionRow],
    shape: Shape,
    *,
    kept: KeptEnds,
) -> Read:
    """The last steps of the series asked for, as many as the version can use, of what `locate` found.

    Raises NotFound for series that are not there, TooLarge when the answer would be.
    """
    dataset, revision = found
    check_size(revision.series if ask.keys is None else len(ask.keys), shape)
    read = None
    if not chosen.opened.design.columns and not ask.future:
        calendar = datasets.calendar_of(dataset)
        ends = kept.read(session, found, ask.keys, chosen.on(calendar).context)
        if ends is not None:
            read = Read(calendar, ends, known_of(ends), (), dataset.name, revision.number)
    if read is None:
        read = read_last(session, dataset, revision.number, ask.keys, chosen)
    return with_future(session, dataset.id, chosen, read, ask.future, horizon=shape.horizon)


def with_future(
    session: Session, dataset_id: int, chosen: Chosen, read: Read, future: Mapping[str, Columns], *, horizon: int
) -> Read:
    """What was read with what is said beside it about the future of these series, key -> column -> values. Raises
    Invalid with pointers for keys that were not read, and as `check_future`."""
    if chosen.opened.any_frequency:
        names = {name for columns in future.values() for name in columns}
        return replace(read, notes=ignored({*names, *known_columns(session, dataset_id)}))
    if not future:
        return read
    reading = Reading(chosen.opened.design.columns)
    known = reading.known(known_columns(session, dataset_id))
    notes = check_future(future, [one.key for one in read.series], known, horizon)
    series = [reading.extended(one, future[one.key]) if one.key in future else one for one in read.series]
    return replace(read, series=series, notes=[*notes, *reading.notes()])


def read_sent(session: Session, chosen: Chosen, ask: Sent, shape: Shape) -> Read:
    """The history in the request as series. Raises Invalid with pointers, TooLarge when the answer would be."""
    check_size(len(ask.inputs), shape)
    if chosen.opened.any_frequency:
        return _read_any(ask)
    calendar = _calendar(chosen.opened.calendar, ask)
    reading = Reading(chosen.opened.design.columns)
    notes = check_inputs(ask.inputs, reading.known(known_columns(session, chosen.dataset_id)), shape.horizon)
    series, more = series_of(ask.inputs, calendar)
    series = [reading.covered(one, sent) for one, sent in zip(series, ask.inputs, strict=True)]
    kept = [one.dated and len(one.target) > 0 for one in series]
    return Read(calendar, series, kept, (*notes, *reading.notes(), *more))


def _read_any(ask: Sent) -> Read:
    """The history in the request for a version that was trained on no calendar, so that the request has to name it.
    Raises Invalid with pointers."""
    notes = ignored({name for sent in ask.inputs for name in (*sent.past, *sent.future, *sent.static)})
    frequency = ask.frequency
    if frequency is None:
        if any(isinstance(sent.start, str) for sent in ask.inputs):
            text = "frequency: expected one beside `start`, such as h, D, W-FRI or MS, got none"
            hint = "Or leave `start` out: the values are then taken as steps without a season."
            raise Invalid(f"{text}.", errors=[Complaint("missing", text, pointer="/frequency", hint=hint)])
        text = "no frequency was named: the values are taken as steps without a season"
        frequency, notes = STEP, [*notes, Note("no_frequency", text)]
    calendar = _calendar(Calendar.of(STEP), replace(ask, frequency=frequency))
    series, more = series_of(ask.inputs, calendar)
    dated = [one.dated and len(one.target) > 0 for one in series]
    return Read(calendar, series, dated, (*notes, *more))


@dataclass(frozen=True)
class Arrived:
    """One value that has become known; NaN says that it is missing."""

    key: str
    timestamp: str | int
    value: float


def append(session: Session, chosen: Chosen, dataset: str, points: Sequence[Arrived], shape: Shape) -> Read:
    """Append points as one revision, then read the last steps of the series they name, in the order first named.

    Raises Invalid for a timestamp that is none, TooLarge when the answer would be, and what `datasets.append_points`
    raises: Conflict for a point that is there already with another value.
    """
    keys = tuple(dict.fromkeys(point.key for point in points))
    check_size(len(keys), shape, MAX_HELD)
    row = datasets.get(session, dataset)
    times, notes = instants([point.timestamp for point in points], datasets.calendar_of(row), "/points/{}/timestamp")
    rows = [(point.key, int(time), point.value) for point, time in zip(points, times, strict=True)]
    outcome = datasets.append_points(session, row, rows)
    read = read_last(session, row, outcome.revision.number, keys, chosen)
    if chosen.opened.any_frequency:
        notes += ignored(known_columns(session, row.id))
    return replace(read, notes=notes)


def answer(chosen: Chosen, read: Read, shape: Shape) -> Answer:
    """One batched forecast of everything read; needs no session."""
    opened = chosen.on(read.calendar)
    forecast = _computed(opened, read.series, shape)
    notes = [*read.notes, *forecast.notes]
    if not (np.isfinite(forecast.mean).all() and np.isfinite(forecast.quantiles).all()):
        finite = np.isfinite(forecast.mean).all(axis=1) & np.isfinite(forecast.quantiles).all(axis=(1, 2))
        if (lost := np.flatnonzero(known_of(read.series) & ~finite)).size:
            text = "the values are too large to compute with: nulls stand where the result is not finite"
            notes.append(Note("not_finite", text, tuple(lost.tolist())))
    if not chosen.opened.any_frequency:
        own, asked = chosen.opened.calendar.frequency.name, read.calendar.frequency.name
        if asked != own:
            text = f"the version was trained on steps of {own}, the series have steps of {asked}"
            notes.insert(0, Note("frequency_differs", text))
    return Answer(
        model=chosen.model,
        version=chosen.version,
        alias=chosen.alias,
        dataset=read.dataset,
        revision=read.revision,
        calendar=read.calendar,
        phases=phases_of(read.series),
        dated=np.asarray(read.dated, np.bool_),
        forecast=forecast,
        notes=notes,
    )


def _computed(opened: OpenArtifact, series: Sequence[Series], shape: Shape) -> Forecast:
    """The forecast of all series; of many, parts at once in threads, for the graph leaves the interpreter free. A
    series' forecast does not depend on its company, so the parts are those of the whole."""

    def forecast(part: Sequence[Series]) -> Forecast:
        with np.errstate(over="ignore", invalid="ignore"):  # values near the end of float64: noted by the caller
            return opened.forecast(part, shape.horizon, shape.levels, shape.samples)

    size = PART if opened.together >= PART else opened.together * (PART // opened.together)  # whole forwards
    if len(series) <= size:
        return forecast(series)
    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(forecast, [series[at : at + size] for at in range(0, len(series), size)]))
    return joined(parts)


def joined(parts: Sequence[Forecast]) -> Forecast:
    """The forecasts of one shape of several batches as that of all their series."""
    samples = [part.samples for part in parts if part.samples is not None]
    return Forecast(
        keys=[key for part in parts for key in part.keys],
        origins=np.concatenate([part.origins for part in parts]),
        levels=parts[0].levels,
        mean=np.concatenate([part.mean for part in parts]),
        quantiles=np.concatenate([part.quantiles for part in parts]),
        samples=np.concatenate(samples) if samples else None,
        notes=merged([part.notes for part in parts], [len(part.keys) for part in parts]),
    )


def merged(notes: Sequence[Sequence[Note]], sizes: Sequence[int]) -> tuple[Note, ...]:
    """What is said about batches of these sizes as what is said about all of their series."""
    places: dict[tuple[str, str], list[int]] = {}
    start = 0
    for some, size in zip(notes, sizes, strict=True):
        for note in some:
            found = places.setdefault((note.code, note.message), [])
            found += [start + place for place in note.series]
        start += size
    return tuple(Note(code, text, tuple(found)) for (code, text), found in places.items())


def read_last(
    session: Session, dataset: DatasetRow, revision: int, keys: Sequence[str] | Span | None, chosen: Chosen
) -> Read:
    """The last steps of the series as the version knows them: with the covariates that it reads. Raises NotFound for
    keys that are not there."""
    calendar = datasets.calendar_of(dataset)
    opened = chosen.on(calendar)
    names = [one.name for one in opened.design.columns]
    if isinstance(keys, Span) and not names:
        series = read_span(session, dataset, revision, keys, opened.context)
    else:
        series = datasets.read_series(session, dataset, revision, keys, opened.context, beside=names)
    if names:
        series = opened.recoded(series, datasets.read_columns(session, dataset, revision))
    return Read(calendar, series, known_of(series), (), dataset.name, revision)  # a target ends with a known value


def _calendar(own: Calendar, ask: Sent) -> Calendar:
    """The calendar of history in a request. Raises Invalid with a pointer."""
    frequency, time_zone = ask.frequency or own.frequency.name, ask.time_zone or own.time_zone
    for at, trial in (("time_zone", (own.frequency.name, time_zone)), ("frequency", (frequency, time_zone))):
        try:
            Calendar.of(*trial)
        except ValueError as error:
            complaint = Complaint(f"unknown-{at.replace('_', '-')}", str(error), pointer=f"/{at}")
            raise Invalid(f"{error}.", errors=[complaint]) from error
    return Calendar.of(frequency, time_zone)


def numbers(series: int, shape: Shape) -> int:
    """The numbers in the forecast of so many series."""
    return series * shape.horizon * (1 + len(shape.levels) + shape.samples)


def check_size(series: int, shape: Shape, most: int = MAX_VALUES) -> None:
    if (values := numbers(series, shape)) > most:
        raise TooLarge(
            f"Expected an answer of at most {most:,} numbers, this one has {values:,}: {series:,} series, "
            f"{shape.horizon:,} steps, {len(shape.levels):,} quantiles, {shape.samples:,} samples. Ask in parts."
        )
