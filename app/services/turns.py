"""Plain questions answered together: those that arrive in one turn of the event loop share one look at the database and
one forward of each version, without a timer and without a thread.

A question that is anything but plain, or that would be refused, gets None here: the way that validates everything
answers it, or says why not. So nothing is refused in two places, and a bad question harms no other."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from app.db.session import Database
from app.errors import AppError
from app.services import forecast_answers
from app.services.contexts import Contexts
from app.services.forecast_answers import STAMPED
from app.services.forecasts import Meant, Read, answer
from app.services.moves import Moves
from app.services.opened import OpenVersions, Remembered
from app.services.questions import Part, Question, Reader, Reply
from models import Note

STALL_S = 0.004  # longer forwards leave the loop alone
WINDOW_S = 0.001  # so is a longer window, unless its question is the only one of the turn
PASSES = 2  # of the loop at most, that a turn waits for more questions; a lone one waits for one, some ten microseconds
HELD, ROW = 4, 512  # forecasts kept with a series, and the bytes of one: what a next step takes


class Turns:
    """Gathers the questions of a turn. One for each process; `ask` belongs to the event loop."""

    def __init__(
        self, database: Database, versions: OpenVersions, meant: Remembered[Meant], contexts: Contexts, moves: Moves
    ) -> None:
        self._reader, self.contexts = Reader(database, versions, meant, contexts, moves), contexts
        self._waiting: list[Question] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cost: dict[str, float] = {}  # seconds a window, by version
        # PostgreSQL is asked beside the loop: it may be far away, or gone.
        self._beside = None if database.is_sqlite else ThreadPoolExecutor(1, "turn")
        self._asking: asyncio.Task[None] | None = None

    def ask(self, question: Question) -> "asyncio.Future[Reply | None]":
        """The answer, once the turn is over; None for what is not plain after all."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the first question, or one after the loop before has gone
            self._loop, self._waiting, self._asking = loop, [], None
        question.future = loop.create_future()
        self._waiting.append(question)
        if len(self._waiting) == 1 and self._asking is None:
            loop.call_soon(self._gather, loop, 0, PASSES)
        return question.future

    def close(self) -> None:
        if self._beside is not None:
            self._beside.shutdown()

    # -------------------------------------------------------- inside

    def _gather(self, loop: asyncio.AbstractEventLoop, before: int, passes: int) -> None:
        """Begin, or let the loop look for others once more where its last pass has brought some: those whom the turn
        before has answered ask again while the first of them are read, and each costs less in a turn of all."""
        if passes and len(self._waiting) > before:
            loop.call_soon(self._gather, loop, len(self._waiting), passes - 1)
        else:
            self._begin(loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        questions, self._waiting = self._waiting, []
        if self._beside is not None:
            self._asking = loop.create_task(self._beside_the_loop(loop, questions, self._beside))
            return
        began = time.perf_counter()
        try:
            stamp = self._reader.stamp()
            parts, left = self._reader.at_hand(questions, stamp)
            parts += self._reader.read(left, stamp)
            self._go_on(loop, questions, parts, time.perf_counter() - began)
        finally:
            _leave_nobody(questions)

    async def _beside_the_loop(
        self, loop: asyncio.AbstractEventLoop, questions: list[Question], beside: ThreadPoolExecutor
    ) -> None:
        """The same; only what asks the database changes threads, most of the time for its stamp alone."""
        began = time.perf_counter()
        try:
            stamp = await loop.run_in_executor(beside, self._reader.stamp)
            if self._waiting:  # one more look for those who came meanwhile: else there would be two turns for ever
                questions += self._waiting
                self._waiting = []
                stamp = await loop.run_in_executor(beside, self._reader.stamp)
            parts, left = self._reader.at_hand(questions, stamp)
            if left:
                parts += await loop.run_in_executor(beside, self._reader.read, left, stamp)
            self._go_on(loop, questions, parts, time.perf_counter() - began)
        finally:
            self._asking = None
            if self._waiting:
                loop.call_soon(self._gather, loop, 0, PASSES)
            _leave_nobody(questions)

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
            if part.tails and (kept := _kept(part)) is not None:
                _give(question, _reply(part, *kept, (read_s, 0.0)))
            else:
                key = (part.chosen.digest, part.calendar, question.shape, question.timestamps)
                groups.setdefault(key, []).append(part)
        for group in groups.values():
            windows, digest = sum(len(part.series) for part in group), group[0].chosen.digest
            each = self._cost.get(digest, STALL_S)  # what nobody has timed is not tried on the loop
            quick = each * windows < STALL_S and (each < WINDOW_S or len(questions) == 1)
            if _in_one_go(group[0]) and quick:
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
            _keep(part, written, notes)
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


# ---------------------------------------------------------------- replies


def _shape_key(part: Part) -> tuple[Any, ...]:
    return part.chosen.digest, part.question.shape, part.question.timestamps


def _kept(part: Part) -> tuple[list[bytes], Sequence[Note]] | None:
    """The rows and what is said about them, where all of them were computed before from the same steps by the same
    version."""
    key = _shape_key(part)
    found = [kept for tail in part.tails if (kept := tail.kept.get(key)) is not None]
    if len(found) != len(part.tails) or (len(found) > 1 and any(notes for _, notes in found)):
        return None
    return [row for row, _ in found], found[0][1]


def _keep(part: Part, rows: Sequence[bytes], notes: Sequence[Note]) -> None:
    """Keep the rows; with something to be said about them only the one of a single series, about which it is said."""
    if notes and len(rows) > 1:
        return
    key = _shape_key(part)
    for tail, series, row in zip(part.tails, part.series, rows, strict=bool(part.tails)):
        kept = tail.kept  # before the series is compared: who changes that puts another dict in place after it
        if tail.series is series and len(row) <= ROW:  # an append may have come in between
            if len(kept) >= HELD:
                kept.clear()
            kept[key] = row, notes


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
