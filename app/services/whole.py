"""The forecast of all series of a dataset that has too many to hold the ends of: read and computed so many at a time,
each in a transaction of its own. Memory holds the answer, and one part's history."""

from dataclasses import replace

import numpy as np

from app.db.session import Database
from app.db.tables import DatasetRow, RevisionRow
from app.services import datasets
from app.services.datasets import Span
from app.services.ends import KeptEnds
from app.services.forecast_answers import Answer
from app.services.forecasts import (
    Chosen,
    Read,
    Shape,
    Stored,
    answer,
    check_size,
    joined,
    merged,
    read_last,
    with_future,
)

MANY = 2048  # series read at a time


def is_for_parts(chosen: Chosen, ask: Stored, found: tuple[DatasetRow, RevisionRow], kept: KeptEnds) -> bool:
    """Whether a question is for all of a dataset whose ends cannot be kept. What comes beside the targets is read in
    one piece."""
    dataset, revision = found
    if ask.keys is not None or ask.future or chosen.opened.design.columns or revision.series <= MANY:
        return False
    context = chosen.on(datasets.calendar_of(dataset)).context
    return revision.number != dataset.head or not kept.fits(revision.series, context)


def answer_in_parts(
    database: Database, workspace: str, chosen: Chosen, dataset: tuple[str, int, int], shape: Shape
) -> Answer:
    """The forecast of all series of a dataset (name, revision, how many). Raises NotFound when it is deleted meanwhile,
    TooLarge when the answer would be."""
    check_size(dataset[2], shape)
    answers: list[Answer] = []
    after: str | None = None
    while True:
        read, after = _part(database, workspace, chosen, dataset, after=after, horizon=shape.horizon)
        if len(read.series) or not (answers or after):
            answers.append(answer(chosen, read, shape))
        if after is None:
            break
    first, sizes = answers[0], [len(one.dated) for one in answers]
    return replace(
        first,
        phases=np.concatenate([one.phases for one in answers]),
        dated=np.concatenate([one.dated for one in answers]),
        forecast=joined([one.forecast for one in answers]),
        notes=merged([one.notes for one in answers], sizes),
    )


def _part(
    database: Database,
    workspace: str,
    chosen: Chosen,
    dataset: tuple[str, int, int],
    *,
    after: str | None,
    horizon: int,
) -> tuple[Read, str | None]:
    """The series that follow a key, and the key to go on after; None after the last of them."""
    name, revision, _ = dataset
    with database.read(workspace) as session:
        row = datasets.get(session, name)
        keys = datasets.next_keys(session, row.id, after, MANY)
        read = read_last(session, row, revision, Span(after, keys[-1] if keys else ""), chosen)
        read = with_future(session, row.id, chosen, read, {}, horizon=horizon)
    return read, keys[-1] if len(keys) == MANY else None
