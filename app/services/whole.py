"""Forecasts too long to hold: read, computed and written so many series at a time, sent while the next are made.

Memory holds one part's history and forecast, however many series are asked for. What a request brings along, and the
ends that are kept in memory anyway, is read before the first part; all else in a transaction of its own for each part,
at one revision. What can be refused is refused before the first byte, but for what happens meanwhile.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from app.db.session import Database
from app.db.tables import DatasetRow, RevisionRow
from app.errors import NotFound
from app.services import datasets
from app.services.datasets import Span
from app.services.ends import KeptEnds
from app.services.forecast_answers import Answer
from app.services.forecasts import Chosen, Read, Shape, Stored, answer, check_size, numbers, read_last, with_future
from models import Note

MANY = 2048  # series read at a time
SHORT = 1_000_000  # numbers in an answer that is made in one go: quicker, with a length and all of its warnings' codes
PART = 500_000  # numbers computed and written at a time, where that is more than one series


@dataclass(frozen=True)
class Apart:
    """Series of a dataset to be read in parts: those of `keys`, or all; which dataset it was, and at which revision."""

    name: str
    dataset: int
    revision: int
    keys: tuple[str, ...] | None


def apart(
    session: Session,
    chosen: Chosen,
    ask: Stored,
    found: tuple[DatasetRow, RevisionRow],
    shape: Shape,
    *,
    kept: KeptEnds,
) -> Apart | None:
    """What to read in parts, where a question is about too many series to read at once; None where it is not, or what
    it brings along for their future has to be compared with all of them.

    Raises NotFound for series that are not there, TooLarge when the answer would be.
    """
    dataset, revision = found
    asked = revision.series if ask.keys is None else len(ask.keys)
    if ask.future or asked <= MANY:
        return None
    context = chosen.on(datasets.calendar_of(dataset)).context
    is_head = revision.number == dataset.head and not chosen.opened.design.columns
    if is_head and kept.fits(revision.series, context):
        return None
    check_size(asked, shape)
    for some in _parts(ask.keys or ()):  # one that is not there is refused now
        datasets.read_series(session, dataset, revision.number, some, 1, beside=())
    return Apart(dataset.name, dataset.id, revision.number, ask.keys)


def is_long(read: Read, shape: Shape) -> bool:
    """Whether the forecast of what was read is to be made and sent in parts."""
    return numbers(len(read.series), shape) > SHORT


def answers(chosen: Chosen, reads: Iterator[Read], shape: Shape) -> Iterator[Answer]:
    """The forecasts of what is read, so much at a time as memory may hold; at least one, be it of nothing."""
    size = min(MANY, max(1, PART // numbers(1, shape)))
    for read in reads:
        for at in range(0, len(read.series) or 1, size):
            yield answer(chosen, _slice(read, at, at + size), shape)


def reads(database: Database, workspace: str, chosen: Chosen, asked: Apart, shape: Shape) -> Iterator[Read]:
    """The last steps of the series, part by part, at least one. Raises NotFound where the dataset, or a series that was
    named, is deleted meanwhile; of all series one that is erased meanwhile is left out."""

    def read(keys: Sequence[str] | Span) -> Read:
        dataset = _dataset(session, asked)
        found = read_last(session, dataset, asked.revision, keys, chosen)
        return with_future(session, dataset.id, chosen, found, {}, horizon=shape.horizon)

    if asked.keys is not None:
        for some in _parts(asked.keys):
            with database.read(workspace) as session:
                found = read(some)
            yield found
        return
    after, any_yet, last = None, False, False
    while not last:
        with database.read(workspace) as session:
            keys = datasets.next_keys(session, _dataset(session, asked).id, after, MANY)
            last = len(keys) < MANY
            found = read(Span(after, keys[-1] if keys else ""))
        after = keys[-1] if keys else after
        if len(found.series) or (last and not any_yet):
            any_yet = True
            yield found


def _dataset(session: Session, asked: Apart) -> DatasetRow:
    """The dataset that was asked for, not another that has its name by now."""
    found = datasets.get(session, asked.name)
    if found.id != asked.dataset:
        raise NotFound(f"Dataset {asked.name!r} was deleted while it was forecast.", code="no-such-dataset")
    return found


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[at : at + MANY] for at in range(0, len(keys), MANY))


def _slice(read: Read, start: int, stop: int) -> Read:
    """Some of what was read, with what is said about these series."""
    if start == 0 and stop >= len(read.series):
        return read
    notes: list[Note] = []
    for note in read.notes:
        mine = tuple(place - start for place in note.series if start <= place < stop)
        if mine or not note.series:
            notes.append(replace(note, series=mine))
    return replace(read, series=read.series[start:stop], dated=read.dated[start:stop], notes=notes)
