"""Plain questions answered together: those that arrive in one turn of the event loop share one look at the database and
one forward of each version, without a timer and without a thread.

A question that is anything but plain, or that would be refused, gets None here: the way that validates everything
answers it, or says why not. So nothing is refused in two places, and a bad question harms no other."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db.session import Database, Stamp
from app.errors import AppError
from app.services import forecast_answers
from app.services.contexts import Contexts, Dataset, Tail
from app.services.forecast_answers import STAMPED
from app.services.forecast_inputs import instants
from app.services.forecasts import Chosen, Meant, Read, Shape, answer, look_up
from app.services.opened import OpenVersions, Remembered
from models import Calendar, Note, Series

STALL_S = 0.004  # longer forwards leave the loop alone
WINDOW_S = 0.001  # a window of a large graph is one of these
TEXT = 64  # characters of a time or a name; what is longer is no entry of a cache
HELD, ROW = 4, 512  # forecasts kept with a series, and the bytes of one: what a next step takes


@dataclass(slots=True)
class Sent:
    """History in the request: values (time,) with NaN for missing ones, and the time of the first as it was sent."""

    key: str
    values: Any
    start: str | None


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


class Turns:
    """Gathers the questions of a turn. One for each process; `ask` belongs to the event loop."""

    def __init__(
        self, database: Database, versions: OpenVersions, meant: Remembered[Meant], contexts: Contexts
    ) -> None:
        self._database, self._versions, self._meant, self.contexts = database, versions, meant, contexts
        self._waiting: list[Question] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cost: dict[str, float] = {}  # seconds a window, by version
        # PostgreSQL is asked beside the loop: it may be far away, or gone.
        self._beside = None if database.is_sqlite else ThreadPoolExecutor(1, "turn")
        self._asking = False

    def ask(self, question: Question) -> "asyncio.Future[Reply | None]":
        """The answer, once the turn is over; None for what is not plain after all."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the first question, or one after the loop before has gone
            self._loop, self._waiting, self._asking = loop, [], False
        question.future = loop.create_future()
        self._waiting.append(question)
        if len(self._waiting) == 1 and not self._asking:
            loop.call_soon(self._begin, loop)
        return question.future

    def close(self) -> None:
        if self._beside is not None:
            self._beside.shutdown()

    # -------------------------------------------------------- inside

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        questions, self._waiting = self._waiting, []
        if self._beside is None:
            try:
                self._go_on(loop, questions, *self._prepared(questions))
            finally:
                _leave_nobody(questions)
            return
        self._asking = True
        asked = loop.run_in_executor(self._beside, self._prepared, questions)

        def done(found: "asyncio.Future[tuple[list[Part], float]]") -> None:
            self._asking = False
            if self._waiting:
                loop.call_soon(self._begin, loop)
            try:
                self._go_on(loop, questions, *found.result())
            finally:
                _leave_nobody(questions)

        asked.add_done_callback(done)

    def _prepared(self, questions: Sequence[Question]) -> tuple[list[Part], float]:
        """What is needed for those of the questions that are plain, and the seconds it took to get."""
        began = time.perf_counter()
        stamp = self._database.stamp()
        self.contexts.begin()
        parts: list[Part] = []
        if stamp is None:  # the database does not answer, and the other way says so
            return parts, 0.0
        for workspace in {question.workspace for question in questions}:
            mine = [question for question in questions if question.workspace == workspace]
            try:
                with self._database.read(workspace) as session:
                    parts += self._read(session, mine, stamp)
            except SQLAlchemyError:
                continue  # the other way says what is wrong
        return parts, time.perf_counter() - began

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
                elif not chosen.opened.design.columns:
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
        asked = [(one, chosen) for one, chosen in asked if not (chosen.opened.any_frequency and dataset.covariates)]
        wanted = [(key, chosen.on(dataset.calendar).context) for one, chosen in asked for key in one.keys]
        tails = self.contexts.tails(session, dataset, wanted)
        parts: list[Part] = []
        for question, chosen in asked:
            mine = [tails[key] for key in question.keys if key in tails]
            if len(mine) == len(question.keys):
                series = [tail.series for tail in mine]
                dated = [len(one.target) > 0 for one in series]
                parts.append(Part(question, chosen, dataset.calendar, series, dated, [], dataset, mine))
        return parts

    def _go_on(
        self, loop: asyncio.AbstractEventLoop, questions: Sequence[Question], parts: Sequence[Part], read_s: float
    ) -> None:
        plain = {id(part.question) for part in parts}
        for question in questions:
            if id(question) not in plain:
                _give(question, None)
        groups: dict[Any, list[Part]] = {}
        for part in parts:
            question = part.question
            if part.tails and (written := _kept(part)) is not None:
                _give(question, _reply(part, written, [], (read_s, 0.0)))
            else:
                key = (part.chosen.digest, part.calendar, question.shape, question.timestamps)
                groups.setdefault(key, []).append(part)
        for group in groups.values():
            windows, digest = sum(len(part.series) for part in group), group[0].chosen.digest
            each = self._cost.get(digest, WINDOW_S)  # what nobody has timed is not tried on the loop
            if _in_one_go(group[0]) and each < WINDOW_S and each * windows < STALL_S:
                self._answered(group, computed(group), read_s)
            else:
                computing = loop.run_in_executor(None, computed, group)
                for part in group:
                    part.question.elsewhere = True
                computing.add_done_callback(
                    lambda found, group=group: self._answered(
                        group, None if found.exception() else found.result(), read_s
                    )
                )

    def _answered(self, group: Sequence[Part], found: "Computed | None", read_s: float) -> None:
        if found is None:
            for part in group:
                _give(part.question, None)
            return
        windows, digest = len(found.rows), group[0].chosen.digest
        if _in_one_go(group[0]):
            each = found.cpu / windows
            before = self._cost.get(digest, each)
            self._cost[digest] = min(each, 0.8 * before + 0.2 * each)
        place = 0
        for part in group:
            stop = place + len(part.series)
            notes = about(found.notes, place, stop, part.notes)
            written = found.rows[place:stop]
            if not notes:
                _keep(part, written)
            _give(part.question, _reply(part, written, notes, (read_s, found.seconds)))
            place = stop


@dataclass(slots=True)
class Computed:
    """What a group's forward gave: each window's row of the document, the notes about them, the seconds it took, and
    those of the processor, which a busy machine does not stretch."""

    rows: list[bytes]
    notes: Sequence[Note]
    seconds: float
    cpu: float


def _in_one_go(part: Part) -> bool:
    """Whether a forecast of this horizon is a single forward, and its times are texts that are kept: then a window
    takes as long as any other of the version. What is rolled out takes as much more as is asked for."""
    return part.question.shape.horizon <= min(STAMPED, part.chosen.on(part.calendar).horizon)


def computed(group: Sequence[Part]) -> Computed | None:
    """The forecasts of a group of questions of one shape to one version on one calendar, in one batch. None when one of
    them cannot be answered: alone, each will hear whether it is that one."""
    began, cpu = time.perf_counter(), time.thread_time()
    first = group[0]
    series = [one for part in group for one in part.series]
    dated = [one for part in group for one in part.dated]
    try:
        found = answer(first.chosen, Read(first.calendar, series, dated), first.question.shape)
        rows = forecast_answers.rows(found, first.question.timestamps)
    except (AppError, ValueError, RuntimeError):
        return None
    return Computed(rows, found.notes, time.perf_counter() - began, time.thread_time() - cpu)


def about(notes: Sequence[Note], start: int, stop: int, own: Sequence[Note]) -> list[Note]:
    """The notes on a batch that concern its windows [start, stop), counted from there; `own` ones stand where `answer`
    puts them."""
    if not notes:
        return list(own)
    found: list[Note] = []
    for note in notes:
        if not note.series:
            found.append(note)
        elif mine := tuple(place - start for place in note.series if start <= place < stop):
            found.append(Note(note.code, note.message, mine))
    at = int(bool(found) and found[0].code == "frequency_differs")
    return [*found[:at], *own, *found[at:]]


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
        present = np.flatnonzero(~np.isnan(one.values))
        place = (0, 0) if one.start is None else located(calendar, one.start)
        if place is None or not len(present) or int(present[-1]) + 1 != len(one.values):
            return None
        series.append(Series(one.key, one.values, *place, dated=one.start is not None))
    return Part(question, chosen, calendar, series, [one.dated for one in series], notes)


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


# ---------------------------------------------------------------- replies


def _shape_key(part: Part) -> tuple[Any, ...]:
    return part.chosen.digest, part.question.shape, part.question.timestamps


def _kept(part: Part) -> list[bytes] | None:
    """The rows, where all of them were computed before from the same steps by the same version."""
    key = _shape_key(part)
    found = [row for tail in part.tails if (row := tail.kept.get(key)) is not None]
    return found if len(found) == len(part.tails) else None


def _keep(part: Part, rows: Sequence[bytes]) -> None:
    key = _shape_key(part)
    for tail, series, row in zip(part.tails, part.series, rows, strict=bool(part.tails)):
        kept = tail.kept  # before the series is compared: who changes that puts another dict in place after it
        if tail.series is series and len(row) <= ROW:  # an append may have come in between
            if len(kept) >= HELD:
                kept.clear()
            kept[key] = row


def _reply(part: Part, rows: Sequence[bytes], notes: Sequence[Note], seconds: tuple[float, float]) -> Reply:
    chosen, dataset = part.chosen, part.dataset
    head = {
        "model": {"name": chosen.model, "version": chosen.version, "alias": chosen.alias},
        "dataset": dataset and dataset.name,
        "revision": dataset and dataset.state.head,
        "frequency": part.calendar.frequency.name,
        "request_id": part.question.request_id,
    }
    said = forecast_answers.told(notes, [one.key for one in part.series]) if notes else []
    body = forecast_answers.assembled(head, rows, said)
    data = (None,) if dataset is None else dataset.state[2:]
    return Reply(body, (chosen.digest, chosen.model, chosen.version, *data), seconds)


def _leave_nobody(questions: Sequence[Question]) -> None:
    """Nobody may wait for ever for a turn that went wrong: the other way meets the same error, and says so."""
    for question in questions:
        if not question.elsewhere:
            _give(question, None)


def _give(question: Question, reply: Reply | None) -> None:
    if question.future is not None and not question.future.done():  # its client may have gone
        question.future.set_result(reply)
