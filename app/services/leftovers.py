"""What the store holds that no version will ever name: what attempts and imports left behind that died before their
commit. Said by what the database knows, never by what it does not know: a store may outlive the database it was filled
by, and serve two of them."""

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db.tables import ArrivalRow, JobRow, TrialRow, VersionRow

KEPT = dt.timedelta(days=1)  # much longer than a sweep waits for a folder to be forgotten by whoever writes it


def rubbish(session: Session, folders: Sequence[str]) -> set[str]:
    """Which of these folders of the store nobody needs. One named `{job}-{attempt}`: its job is known here, it is not
    the attempt at work, and no version names it, nor a tune as its best so far. One of an import: it was announced
    here, and no version names it."""
    jobs = {folder: folder.rpartition("-")[0] for folder in folders}
    query = select(JobRow.id, JobRow.attempt, JobRow.state)
    # Jobs first: one that has ended by now has its version by now.
    found = {row.id: row for part in _parts(jobs.values()) for row in session.execute(query.where(JobRow.id.in_(part)))}
    arrived: set[str] = set()
    named: set[str] = set()
    for part in _parts(folders):
        arrived |= set(session.scalars(select(ArrivalRow.folder).where(ArrivalRow.folder.in_(part))))
    for part in _parts(folders):
        # Trials first: a tune hands the folder of its best to a version in one commit.
        for column in (TrialRow.folder, VersionRow.folder):
            named |= {folder for folder in session.scalars(select(column).where(column.in_(part))) if folder}
    working = {f"{row.id}-{row.attempt}" for row in found.values() if row.state in ("pending", "running")}
    return ({folder for folder, job in jobs.items() if job in found} | arrived) - named - working


def announce(session: Session, folder: str) -> None:
    """Say that an import is about to fill a folder of the store."""
    session.add(ArrivalRow(folder=folder))


def arrived(session: Session, folder: str) -> None:
    """Say that a version names the folder now, in the transaction that records the version."""
    session.execute(delete(ArrivalRow).where(ArrivalRow.folder == folder))


def forget(session: Session, swept: Collection[str], now: dt.datetime) -> None:
    """Forget the imports whose folders have been swept, and those that never made one."""
    session.execute(delete(ArrivalRow).where(ArrivalRow.created_at < now - KEPT))
    for part in _parts(swept):
        session.execute(delete(ArrivalRow).where(ArrivalRow.folder.in_(part)))


def _parts(values: Iterable[str], size: int = 500) -> Iterator[list[str]]:
    """The distinct values, some at a time: a query takes only so many."""
    rest = iter(dict.fromkeys(values))
    while part := list(islice(rest, size)):
        yield part
