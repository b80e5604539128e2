"""Points that arrive one by one and want the next step forecast: those that are there when a commit is done share the
next transaction, a revision and a forward. One thread writes; a lone point waits for a few passes of the loop.

The forecasts are computed before the commit, so that a point without one is not kept, and leave after it. A batch that
is refused is tried again in halves until the one that is to blame is alone; that one gets None: the way on which each
request has a transaction of its own refuses it, or obeys its Idempotency-Key."""

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db.session import AWAY, Database, Stamp, Written
from app.db.tables import DatasetRow
from app.errors import AppError
from app.services import datasets, forecast_answers
from app.services.contexts import Contexts, Dataset, Move
from app.services.forecast_inputs import instants
from app.services.forecasts import Arrived, Chosen, Meant, Read, Shape, answer, look_up, read_last, take
from app.services.growth import growth_of, keep
from app.services.moves import Moves
from app.services.opened import OpenVersions, Remembered
from app.services.tails import Tail
from app.services.turns import about
from models import known_of

MOST = 256  # requests that share a transaction
NUMBERS = 200_000  # in all their answers: they are computed while nobody else can write
# Passes of the loop, some ten microseconds each, that a transaction waits for more requests: at most, and in which none
# has come. Whose answer is sent in one pass asks again in the next but one, if it is quick.
PASSES, QUIET = 24, 3

TRIES = 5  # of a batch whose versions have to be opened first

# Built once: on SQLite, where nobody asks it, that takes as long as the rest of the beginning.
_LOCK = select(DatasetRow.id).where(DatasetRow.name == bindparam("name")).with_for_update()

Future = asyncio.Future[bytes | None]
Found = dict[int, bytes | Exception]  # by the arrival's id


@dataclass(slots=True)
class Arrival:
    """Points of one request, and what is asked about the series they name."""

    workspace: str
    model: str
    dataset: str
    points: tuple[Arrived, ...]
    shape: Shape
    request_id: str
    future: Future | None = None
    keys: list[str] = field(init=False)
    numbers: int = field(init=False)

    def __post_init__(self) -> None:
        self.keys = list(dict.fromkeys([point.key for point in self.points]))
        self.numbers = len(self.keys) * self.shape.horizon * (1 + len(self.shape.levels))


class _Closed(Exception):
    """A version that is not in memory."""

    def __init__(self, meant: Meant) -> None:
        super().__init__(meant.folder)
        self.meant = meant


class Arrivals:
    """Gathers points. One for each process; `ask` belongs to the event loop."""

    def __init__(self, database: Database, versions: OpenVersions, contexts: Contexts) -> None:
        """`contexts` are for the thread that writes alone."""
        self._database, self._versions, self._contexts = database, versions, contexts
        self._writer = database.writer()
        self.moves = Moves(self._writer.ending)
        self._meant = Remembered[Meant](database)
        self._untold = 0  # commits of this thread that what is kept here was not told of
        self._thread = ThreadPoolExecutor(1, "arrivals")
        self._waiting: list[Arrival] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing = False

    def ask(self, arrival: Arrival) -> Future:
        """The JSON answer, once the points are stored; None where another way has to answer. Raises what the database
        said that did not answer: whoever asks it again at once waits as long again."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the first one, or one after the loop before has gone
            self._loop, self._waiting, self._writing = loop, [], False
        arrival.future = loop.create_future()
        self._waiting.append(arrival)
        if len(self._waiting) == 1 and not self._writing:
            loop.call_soon(self._gather, loop, 0, PASSES, QUIET)
        return arrival.future

    def close(self) -> None:
        self._thread.shutdown()
        self._writer.close()

    # -------------------------------------------------------- inside

    def _gather(self, loop: asyncio.AbstractEventLoop, before: int, passes: int, quiet: int) -> None:
        """Begin, or let the loop look for others once more: those who were answered together ask again one after
        another, and the first of them alone would cost a transaction of its own."""
        if self._writing:
            return
        count = len(self._waiting)
        quiet = QUIET if count > before else quiet - 1
        if passes and quiet:
            loop.call_soon(self._gather, loop, count, passes - 1, quiet)
        else:
            self._begin(loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        count = fitting(self._waiting)
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        try:
            writing = loop.run_in_executor(self._thread, self._stored, batch)
        except RuntimeError:  # it has been closed: the other way says what it says to everybody then
            left, self._waiting = [*batch, *self._waiting], []
            _give(left, {})
            return
        self._writing = True
        writing.add_done_callback(lambda found: self._done(loop, batch, {} if found.exception() else found.result()))

    def _done(self, loop: asyncio.AbstractEventLoop, batch: Sequence[Arrival], found: Found) -> None:
        self._writing = False
        _give(batch, found)
        if self._waiting:
            loop.call_soon(self._gather, loop, 0, PASSES, QUIET)

    def _stored(self, batch: Sequence[Arrival]) -> Found:
        """The answers of those that could be stored, by the arrival's id."""
        apart: dict[tuple[str, str], list[Arrival]] = {}
        for arrival in batch:
            apart.setdefault((arrival.workspace, arrival.dataset), []).append(arrival)
        found: Found = {}
        away: Exception | None = None
        for some in apart.values():
            if away is not None and self._database.is_sqlite:  # whose one lock is for all
                found |= {id(arrival): away for arrival in some}
                continue
            found |= (mine := self._tried(some))
            away = next((one for one in mine.values() if isinstance(one, Exception)), None)
        return found

    def _tried(self, some: Sequence[Arrival]) -> Found:
        try:
            return dict(self._together(some))
        except AWAY as error:
            return {id(arrival): error for arrival in some}
        except SQLAlchemyError:
            return {}
        except (AppError, ValueError, RuntimeError):
            half = len(some) // 2
            return self._tried(some[:half]) | self._tried(some[half:]) if half else {}

    def _together(self, some: Sequence[Arrival]) -> dict[int, bytes]:
        """All points of one dataset in one transaction, and the answers, but of those that want to hear what they alone
        are told. Raises what refuses any of them."""
        for _ in range(TRIES):
            try:
                return self._at_once(some)
            except _Closed as closed:
                take(self._versions, closed.meant)
        return {}

    def _at_once(self, some: Sequence[Arrival]) -> dict[int, bytes]:
        """The same; raises `_Closed` where a version would have to be opened while nobody else can write."""
        workspace, name = some[0].workspace, some[0].dataset
        with self._kept_if_committed(workspace, name), self._writer.write(workspace, _LOCK, {"name": name}) as written:
            session = written.session
            chosen = {model: self._chosen(written, model) for model in {arrival.model for arrival in some}}
            dataset = self._contexts.dataset(session, name, self._stamp(written))
            if dataset is not None and dataset.covariates:  # of which somebody may have to be told
                some = [arrival for arrival in some if not chosen[arrival.model].opened.any_frequency]
                if not some:
                    return {}
            dataset, tails = self._appended(written, dataset, some, chosen)
            alike: dict[tuple[str, Shape], list[Arrival]] = {}
            for arrival in some:
                alike.setdefault((arrival.model, arrival.shape), []).append(arrival)
            found: dict[int, bytes] = {}
            for (model, _), group in alike.items():
                keys = [key for arrival in group for key in arrival.keys]
                read = self._ends(session, dataset, keys, chosen[model], tails)
                found |= _answers(chosen[model], group, read)
        return found

    def _appended(
        self, written: Written, dataset: Dataset | None, some: Sequence[Arrival], chosen: Mapping[str, Chosen]
    ) -> tuple[Dataset, Mapping[str, Tail]]:
        """The dataset after the points, and the ends of their series where these are known."""
        session, name = written.session, some[0].dataset
        calendar = datasets.calendar_of(datasets.get(session, name)) if dataset is None else dataset.calendar
        points = [point for arrival in some for point in arrival.points]
        stamps = list({point.timestamp: None for point in points})  # mostly one for all
        times, notes = instants(stamps, calendar, "{}")
        if notes:
            raise ValueError("something is to be said to one of these alone")
        at = dict(zip(stamps, times.tolist(), strict=True))
        rows = [(point.key, at[point.timestamp], point.value) for point in points]
        if dataset is not None and not any(one.opened.design.columns for one in chosen.values()):
            contexts = {model: one.on(calendar).context for model, one in chosen.items()}
            wanted = [(point.key, contexts[arrival.model]) for arrival in some for point in arrival.points]
            if (grown := self._grown(written, dataset, rows, wanted)) is not None:
                return grown
        datasets.append_points(session, datasets.get(session, name), rows)
        self._untold += 1
        after = self._contexts.dataset(session, name, self._stamp(written))
        assert after is not None
        return after, {}

    def _grown(
        self, written: Written, dataset: Dataset, rows: list[tuple[str, int, float]], wanted: list[tuple[str, int]]
    ) -> tuple[Dataset, Mapping[str, Tail]] | None:
        """The same, where the points go on where their series end and what is kept of these suffices; else None."""
        session, stamp = written.session, self._stamp(written)
        self._contexts.begin(len(wanted))
        tails = self._contexts.tails(session, dataset, wanted)
        if any(key not in tails for key, _ in wanted):
            return None
        growth = growth_of(session, dataset.head, self._contexts.ends(session, dataset, tails), rows)
        if growth is None:
            return None
        revision = keep(session, dataset.head, growth)["id"]
        move = Move(session.info["workspace"], dataset.name, dataset.state, growth, revision, stamp, stamp)
        written.alone = lambda before, after: self.moves.add(replace(move, before=before, after=after))
        return self._contexts.grow(dataset, move, tails), tails

    def _chosen(self, written: Written, model: str) -> Chosen:
        session = written.session
        look: Callable[[], Meant] = lambda: look_up(session, model)  # noqa: E731
        meant = self._meant.get(session.info["workspace"], model, look, self._stamp(written))
        opened = self._versions.here(meant.folder, meant.digest)
        if opened is None:
            raise _Closed(meant)
        return Chosen(**vars(meant), opened=opened)

    def _stamp(self, written: Written) -> Stamp:
        """What moves with everybody's commits, but for those of this thread that `_contexts` has taken in."""
        return f"{written.stamp}/{self._untold}"

    def _ends(
        self, session: Session, dataset: Dataset, keys: Sequence[str], chosen: Chosen, tails: Mapping[str, Tail]
    ) -> Read:
        """What `read_last` reads, from `tails`, if there are any, or from what is kept and what has come since."""
        if not chosen.opened.design.columns:
            if not tails:
                self._contexts.begin(len(keys))
                context = chosen.on(dataset.calendar).context
                tails = self._contexts.tails(session, dataset, [(key, context) for key in keys])
            if all(key in tails for key in keys):
                series = [tails[key].series for key in keys]
                return Read(dataset.calendar, series, known_of(series), (), dataset.name, dataset.state.head)
        return read_last(session, datasets.get(session, dataset.name), dataset.state.head, keys, chosen)

    @contextmanager
    def _kept_if_committed(self, workspace: str, dataset: str) -> Generator[None]:
        """Forgets what was read of a dataset where the block fails: it was read before its commit."""
        kept = False
        try:
            yield
            kept = True
        finally:
            if not kept:
                self._contexts.forget(workspace, dataset)


def fitting(waiting: Sequence[Arrival]) -> int:
    """How many of those that wait, from the first on, share the next transaction."""
    count = numbers = 0
    for arrival in waiting[:MOST]:
        numbers += arrival.numbers
        if count and numbers > NUMBERS:
            break
        count += 1
    return count


def _give(some: Sequence[Arrival], found: Found) -> None:
    for arrival in some:
        if arrival.future is None or arrival.future.done():  # its client may have gone
            continue
        if isinstance(mine := found.get(id(arrival)), Exception):
            arrival.future.set_exception(mine)
        else:
            arrival.future.set_result(mine)


def _answers(chosen: Chosen, group: Sequence[Arrival], read: Read) -> dict[int, bytes]:
    """The answers to questions of one shape to one version; `read` has their series one after another."""
    made = answer(chosen, read, group[0].shape)
    rows = forecast_answers.rows(made, timestamps=True)
    found: dict[int, bytes] = {}
    place = 0
    for arrival in group:
        keys = arrival.keys
        stop = place + len(keys)
        told = forecast_answers.told(about(made.notes, place, stop, ()), keys)
        head = forecast_answers.head(made, arrival.request_id)
        found[id(arrival)] = forecast_answers.assembled(head, rows[place:stop], told)
        place = stop
    return found
