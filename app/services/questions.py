"""Plain questions, and what is needed to answer them: the version, and the series, mostly from memory.

A question that is anything but plain, or that would be refused, is left out here: the way that validates everything
answers it, or says why not."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db.session import Database, Stamp
from app.errors import AppError
from app.services.contexts import Contexts, Dataset
from app.services.forecast_inputs import instants
from app.services.forecasts import Chosen, Meant, Shape, look_up
from app.services.moves import Moves
from app.services.opened import OpenVersions, Remembered
from app.services.tails import Tail
from models import Calendar, Note, Series

TEXT = 64  # characters of a time or a name; what is longer is no entry of a cache


@dataclass(slots=True)
class Sent:
    """History in the request: values (time,) with NaN for missing ones, and the time of the first as it was sent.
    `whole`: there are some, and none is missing."""

    key: str
    values: Any
    start: str | None
    whole: bool


@dataclass(slots=True)
class Question:
    """What is asked in plain words: one model, some series, stored (`dataset`, `keys`) or `sent`."""

    workspace: str
    model: str
    shape: Shape
    timestamps: bool
    request_id: str
    dataset: str | None = None
    keys: tuple[str, ...] = ()
    sent: tuple[Sent, ...] = ()
    frequency: str | None = None
    time_zone: str | None = None
    future: "asyncio.Future[Reply | None] | None" = None
    elsewhere: bool = False  # a thread works on it


@dataclass(slots=True)
class Reply:
    """A JSON answer, and what its entity tag is made of: the version and the data."""

    body: bytes
    stands_for: tuple[str | int | None, ...]
    seconds: tuple[float, float]  # reading, computing; of the turn


@dataclass(slots=True)
class Part:
    """A question on its way: who answers, from which series, and what has been decided."""

    question: Question
    chosen: Chosen
    calendar: Calendar
    series: list[Series]
    dated: list[bool]
    notes: list[Note] = field(default_factory=list[Note])
    dataset: Dataset | None = None
    tails: list[Tail] = field(default_factory=list[Tail])


class Reader:
    """Finds what questions need. To be used by one thread at a time, but for `stamp`."""

    def __init__(
        self, database: Database, versions: OpenVersions, meant: Remembered[Meant], contexts: Contexts, moves: Moves
    ) -> None:
        self._database, self._versions, self._meant, self.contexts = database, versions, meant, contexts
        self._moves = moves
        self._stamp: Stamp = None  # the last one seen

    def stamp(self) -> Stamp:
        """The database's, as it is now; from any thread."""
        return self._database.stamp()

    def at_hand(self, questions: Sequence[Question], stamp: Stamp) -> tuple[list[Part], list[Question]]:
        """What is needed for those of the questions that can be answered by what is in memory at this stamp, and the
        others. Asks the database nothing."""
        if stamp != self._stamp:
            self._follow(stamp)
        self.contexts.begin()
        parts: list[Part] = []
        if stamp is None:  # the database does not answer, and the other way says so
            return parts, []
        left: list[Question] = []
        for question in questions:
            part = None
            with suppress(AppError, ValueError):
                part = self._at_hand(question, stamp)
            if part is None:
                left.append(question)
            else:
                parts.append(part)
        return parts, left

    def read(self, questions: Sequence[Question], stamp: Stamp) -> list[Part]:
        """What is needed for those of these questions that are plain."""
        apart: dict[str, list[Question]] = {}
        for question in questions:
            apart.setdefault(question.workspace, []).append(question)
        parts: list[Part] = []
        for workspace, mine in apart.items():
            try:
                with self._database.read(workspace) as session:
                    parts += self._read(session, mine, stamp)
            except SQLAlchemyError:
                continue  # the other way says what is wrong
        return parts

    def _follow(self, stamp: Stamp) -> None:
        """Somebody has committed: what that was is known where it was this process' own writing of points."""
        for move in self._moves.taken():
            self._meant.move(move.before, move.after)
            self.contexts.move(move)
        self._stamp = stamp

    def _at_hand(self, question: Question, stamp: Stamp) -> Part | None:
        """The question with all that it needs, where nothing has been committed since that was read; without a look at
        the database. None where there is to be one."""
        meant = self._meant.known(question.workspace, question.model, stamp)
        opened = None if meant is None else self._versions.here(meant.folder, meant.digest)
        if meant is None or opened is None:
            return None
        chosen = Chosen(**vars(meant), opened=opened)
        if question.dataset is None:
            return sent_part(question, chosen)
        dataset = self.contexts.known(question.workspace, question.dataset, stamp)
        if dataset is None or not _is_plain(chosen, dataset):
            return None
        tails = self.contexts.held(dataset, question.keys, chosen.on(dataset.calendar).context)
        return None if tails is None else _stored_part(question, chosen, dataset, tails)

    def _read(self, session: Session, questions: Sequence[Question], stamp: Stamp) -> list[Part]:
        found: list[Part] = []
        wanted: dict[str, tuple[Dataset, list[tuple[Question, Chosen]]]] = {}
        for question in questions:
            with suppress(AppError, ValueError):  # this one is answered on the other way, and the rest here
                chosen = self._chosen(session, question, stamp)
                if chosen is None:
                    continue
                if question.dataset is None:
                    part = sent_part(question, chosen)
                    found += [] if part is None else [part]
                else:
                    if question.dataset not in wanted:
                        dataset = self.contexts.dataset(session, question.dataset, stamp)
                        if dataset is None:
                            continue
                        wanted[question.dataset] = (dataset, [])
                    wanted[question.dataset][1].append((question, chosen))
        for dataset, asked in wanted.values():
            with suppress(AppError, ValueError):
                found += self._stored(session, dataset, asked)
        return found

    def _chosen(self, session: Session, question: Question, stamp: Stamp) -> Chosen | None:
        """The version that answers; None while it is not in memory: to fetch and open it takes the other way's thread a
        second, and would take the loop as long."""
        look: Callable[[], Meant] = lambda: look_up(session, question.model)  # noqa: E731
        meant = self._meant.get(question.workspace, question.model, look, stamp)
        opened = self._versions.here(meant.folder, meant.digest)
        return None if opened is None else Chosen(**vars(meant), opened=opened)

    def _stored(self, session: Session, dataset: Dataset, asked: Sequence[tuple[Question, Chosen]]) -> list[Part]:
        asked = [(one, chosen) for one, chosen in asked if _is_plain(chosen, dataset)]
        wanted = [(key, chosen.on(dataset.calendar).context) for one, chosen in asked for key in one.keys]
        tails = self.contexts.tails(session, dataset, wanted)
        parts: list[Part] = []
        for question, chosen in asked:
            mine = [tails[key] for key in question.keys if key in tails]
            if len(mine) == len(question.keys):
                parts.append(_stored_part(question, chosen, dataset, mine))
        return parts


def _is_plain(chosen: Chosen, dataset: Dataset) -> bool:
    """Whether the version reads nothing but the targets, and there is nothing to say about what it leaves out."""
    return not chosen.opened.design.columns and not (chosen.opened.any_frequency and dataset.covariates)


def _stored_part(question: Question, chosen: Chosen, dataset: Dataset, tails: list[Tail]) -> Part:
    series = [tail.series for tail in tails]
    dated = [len(one.target) > 0 for one in series]
    return Part(question, chosen, dataset.calendar, series, dated, [], dataset, tails)


def sent_part(question: Question, chosen: Chosen) -> Part | None:
    """History in the request as series; None where there is more to it than values on a known clock."""
    opened, notes = chosen.opened, list[Note]()
    if opened.design.columns:
        return None
    if opened.any_frequency and question.frequency is None:
        return None
    texts = [question.frequency, question.time_zone, *(one.start for one in question.sent)]
    if any(text is not None and len(text) > TEXT for text in texts):
        return None
    calendar = calendar_of(
        question.frequency or opened.calendar.frequency.name, question.time_zone or opened.calendar.time_zone
    )
    if calendar is None:
        return None
    series: list[Series] = []
    for one in question.sent:
        place = (0, 0) if one.start is None else located(calendar, one.start)
        if place is None or not (one.whole or _ends_known(one.values)):
            return None
        series.append(Series(one.key, one.values, *place, dated=one.start is not None))
    return Part(question, chosen, calendar, series, [one.dated for one in series], notes)


def _ends_known(values: Any) -> bool:
    return len(values) > 0 and not np.isnan(values[-1])


@lru_cache(maxsize=1024)
def calendar_of(frequency: str, time_zone: str) -> Calendar | None:
    """The calendar of these names; None where there is none."""
    try:
        return Calendar.of(frequency, time_zone)
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def located(calendar: Calendar, start: str) -> tuple[int, int] | None:
    """Step and phase of a time as it was sent; None where there is something to say about it."""
    try:
        times, notes = instants([start], calendar, "{}")
    except AppError:
        return None
    steps, phases = calendar.locate(times)
    settled = calendar.settle(np.zeros(1, np.int64), phases, steps)
    if notes or not calendar.on_grid(steps, phases, settled).all():
        return None
    return int(steps[0]), int(settled[0])
