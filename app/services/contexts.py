"""The last steps of stored series, kept in memory where the next forecast finds them.

What is kept of a dataset holds as long as the database's stamp stands still. When it has moved, one query says whether
the dataset has, and one more brings what has come since to the series asked for: a few rows of segments, painted over
the end of what is there. Whatever is not a plain continuation is read anew."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session

from app.db.session import Stamp
from app.db.tables import ColumnRow, DatasetRow, RevisionRow, SegmentRow, SeriesRow
from app.services.growth import End, Growth, Head
from app.services.segments import BATCH, TARGET, Extent, batched, extents
from app.services.series import read_tails
from app.services.sums import Total, micros
from app.services.tails import Tail, painted
from models import Calendar, Series

KEPT_DATASETS = 256
MIB = 1024 * 1024
AHEAD = 224  # series continued together with those that are asked for
COLD = 16  # series read anew in one turn: the event loop may be what waits for them
NEWS = 1000  # segments that are known without having been read, of a dataset


class State(NamedTuple):
    """A dataset as it stands: what moves whenever anything of it that a forecast can see does. An erased series moves
    no head, but the totals."""

    id: int
    head: int
    revision: int  # the row's id
    digest: str
    series: int
    points: int


Row = tuple[int, bool, int, int, int, bytes]  # a segment: revision, base, start, length, codec, payload


@dataclass
class Dataset:
    """A dataset as the last look found it, or as it has become by what this process has written since that look: of the
    revisions from `since` on, `news` are all segments of the target, by key and oldest first."""

    name: str
    state: State
    total: Total
    live: list[str]
    calendar: Calendar
    covariates: bool  # whether it has, or ever had, any column beside the target
    stamp: Stamp
    since: int
    news: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])
    told: int = 0  # how many they are

    @property
    def head(self) -> Head:
        return Head(self.state.id, self.state.head, self.state.digest, self.total, self.live, self.calendar)

    def is_still(self, found: "Dataset") -> bool:
        mine, theirs = (self.state, self.calendar, self.covariates), (found.state, found.calendar, found.covariates)
        return mine == theirs

    def grown(self, move: "Move") -> "Dataset":
        """What it is after that move, of which this was the state before. What others hold on to stays as it is."""
        growth, before = move.growth, self.state
        state = before._replace(
            head=before.head + 1, revision=move.revision, digest=growth.digest, points=growth.total.points
        )
        after = replace(self, state=state, total=growth.total, stamp=move.after, told=self.told + len(growth.pieces))
        for piece in growth.pieces:
            row = (state.head, piece.base, piece.start, piece.length, piece.codec, piece.payload)
            self.news.setdefault(growth.keys[piece.owner], []).append(row)
        return after.trimmed() if after.told > NEWS else after

    def trimmed(self) -> "Dataset":
        """Without the older half of what is known of the last revisions: what has not been brought up to there is
        read."""
        since = sorted(row[0] for rows in self.news.values() for row in rows)[self.told // 2]
        news = {key: left for key, rows in self.news.items() if (left := [row for row in rows if row[0] > since])}
        return replace(self, since=since, news=news, told=sum(map(len, news.values())))


@dataclass(frozen=True)
class Move:
    """A commit of which all is known: it made a dataset grow, and nothing else happened between two stamps."""

    workspace: str
    name: str
    was: State
    growth: Growth
    revision: int  # the row's id
    before: Stamp
    after: Stamp


class Contexts:
    """The datasets and series asked for last, within a number of bytes. To be used by one thread at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._cold = COLD  # series that may still be read in this turn
        self._datasets: OrderedDict[tuple[str, str], Dataset] = OrderedDict()
        self._tails: OrderedDict[tuple[int, str], Tail] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tails)

    def begin(self, cold: int = COLD) -> None:
        """Another turn: so many series may be read anew again."""
        self._cold = cold

    def forget(self, workspace: str, name: str) -> None:
        """Let go of a dataset."""
        if (known := self._datasets.pop((workspace, name), None)) is not None:
            self._forget(known.state.id)

    def dataset(self, session: Session, name: str, stamp: Stamp) -> Dataset | None:
        """The dataset of this name as it is now; None when there is none or nothing is in it."""
        key = (session.info["workspace"], name)
        if (same := self.known(*key, stamp)) is not None:
            return same
        known = self._datasets.get(key)
        found = _look_up(session, name, stamp)
        if known is not None and found is not None and known.is_still(found):
            known.stamp, found = stamp, known  # with what is known of its last revisions
        elif known is not None and (found is None or not _continues(known.state, found.state)):
            self._forget(known.state.id)
        if found is None:
            self._datasets.pop(key, None)
            return None
        self._datasets[key] = found
        self._datasets.move_to_end(key)
        if len(self._datasets) > KEPT_DATASETS:
            _, left = self._datasets.popitem(last=False)
            self._forget(left.state.id)
        return found

    def known(self, workspace: str, name: str, stamp: Stamp) -> Dataset | None:
        """The dataset of this name, where nothing has been committed since it was looked up."""
        known = self._datasets.get((workspace, name))
        if known is None or stamp is None or known.stamp != stamp:
            return None
        self._datasets.move_to_end((workspace, name))
        return known

    def held(self, dataset: Dataset, keys: Sequence[str], steps: int) -> list[Tail] | None:
        """The ends of these series as they are kept, where all of them are, at the dataset's head and so long."""
        number, head = dataset.state.id, dataset.state.head
        found: list[Tail] = []
        for key in keys:
            tail = self._tails.get((number, key))
            if tail is None or tail.asked < steps or not (tail.revision == head or self._told(dataset, tail)):
                return None
            self._tails.move_to_end((number, key))
            found.append(tail)
        return found

    def tails(self, session: Session, dataset: Dataset, wanted: Collection[tuple[str, int]]) -> dict[str, Tail]:
        """The ends of these series, (key, steps) each, by key, at the dataset's head. Keys that it has not are left
        out, and those for which there is no time in this turn: asked for often enough, all of them get here."""
        steps: dict[str, int] = {}
        for key, count in wanted:
            steps[key] = max(count, steps.get(key, 0))
        head, number = dataset.state.head, dataset.state.id
        here = {key: tail for key in steps if (tail := self._tails.get((number, key))) is not None}
        behind = [tail for tail in here.values() if tail.revision != head]
        if stale := [tail for tail in behind if not self._told(dataset, tail)]:
            for tail in self._continued(session, number, [*stale, *self._others(number, head, stale)], head):
                here.pop(tail.series.key, None)
                self._drop((number, tail.series.key))
        short = {key for key, tail in here.items() if tail.asked < steps[key]}
        missing = [key for key in steps if key not in here or key in short]
        for key in missing:
            here.pop(key, None)
        if missing := missing[: self._cold]:
            self._cold -= len(missing)
            here |= self._read(session, dataset, missing, max(steps[key] for key in missing))
        for key in here:
            self._tails.move_to_end((number, key))
        self._shrink(keep=len(here))
        return here

    def move(self, move: Move) -> None:
        """Take note of a commit: what was so before it is so after it."""
        for key, known in self._datasets.items():
            if known.stamp != move.before:
                continue
            if key != (move.workspace, move.name):
                known.stamp = move.after
            elif known.state == move.was:
                self._datasets[key] = known.grown(move)

    def grow(self, dataset: Dataset, move: Move, tails: Mapping[str, Tail]) -> Dataset:
        """The dataset after a commit that is still to come, and the ends of all series that it names brought there."""
        after = dataset.grown(move)
        self._datasets[move.workspace, move.name] = after
        for key, extent in move.growth.extents.items():
            self._told(after, tails[key])
            tails[key].extent = extent
        return after

    def ends(self, session: Session, dataset: Dataset, tails: Mapping[str, Tail]) -> dict[str, End]:
        """What is stored of these series, which `tails` gave for the same dataset."""
        if unknown := {tail.id: tail for tail in tails.values() if tail.extent is None}:
            found = extents(session, list(unknown), dataset.state.head, [TARGET])
            for (series_id, _), extent in found.items():
                unknown[series_id].extent = extent
        return {key: End(tail.id, tail.series.phase, tail.extent or Extent(0, 0, 0)) for key, tail in tails.items()}

    # -------------------------------------------------------- inside

    def _told(self, dataset: Dataset, tail: Tail) -> bool:
        """Bring a tail to the head by what this process knows of its own writing. False where that is not enough."""
        if tail.revision < dataset.since:
            return False
        head = dataset.state.head
        rows = [row for row in dataset.news.get(tail.series.key, ()) if tail.revision < row[0] <= head]
        return self._brought(tail, rows, head)

    def _brought(self, tail: Tail, rows: Sequence[Any], head: int) -> bool:
        """Paint what has come over a tail, which is at the head then; False where it must be read anew."""
        if rows:
            before = tail.size
            if not painted(tail, rows):
                return False
            self._size += tail.size - before
            tail.extent = None
        tail.revision = head
        return True

    def _read(self, session: Session, dataset: Dataset, keys: Sequence[str], last: int) -> dict[str, Tail]:
        head = dataset.state.head
        found: dict[str, Tail] = {}
        for series_id, series in read_tails(session, dataset.state.id, head, keys, last):
            # A copy of what is needed: the array read may be the end of a far longer one.
            held = Series(series.key, series.target.copy(), series.start, series.phase)
            found[series.key] = Tail(series_id, held, last, head)
        for key, tail in found.items():
            self._drop((dataset.state.id, key))
            self._tails[dataset.state.id, key] = tail
            self._size += tail.size
        return found

    def _others(self, number: int, head: int, but: Sequence[Tail]) -> Iterable[Tail]:
        """Tails of the same dataset that were asked for lately and are not at its head either: the next turns will want
        them, and one query for all takes little longer than one for each turn."""
        asked = {tail.id for tail in but}
        lately = (tail for (mine, _), tail in reversed(self._tails.items()) if mine == number)
        return islice((tail for tail in lately if tail.revision != head and tail.id not in asked), AHEAD)

    def _continued(self, session: Session, dataset_id: int, stale: Sequence[Tail], head: int) -> Iterable[Tail]:
        """Bring tails to the head; gives those that must be read anew."""
        left = {tail.id: tail for tail in stale}
        for ids in batched(list(left), BATCH):
            since = min(left[series_id].revision for series_id in ids)
            rows = session.execute(_newer(dataset_id, ids, since, head))
            for series_id, mine in groupby(rows, key=lambda row: row[0]):
                tail = left[series_id]
                some = list(mine)
                fresh = [row[2:] for row in some if row[2] is not None and row[2] > tail.revision]
                if some[0][1] == tail.series.key and self._brought(tail, fresh, head):
                    del left[series_id]
        return list(left.values())  # those that have no row any more among them

    def _drop(self, key: tuple[int, str]) -> None:
        if (tail := self._tails.pop(key, None)) is not None:
            self._size -= tail.size

    def _forget(self, dataset_id: int) -> None:
        for key in [key for key in self._tails if key[0] == dataset_id]:
            self._drop(key)

    def _shrink(self, keep: int) -> None:
        while self._size > self._limit and len(self._tails) > keep:
            self._drop(next(iter(self._tails)))


def _newer(dataset_id: int, series_ids: Sequence[int], since: int, head: int) -> Select[*tuple[Any, ...]]:
    """What has come to each series after a revision: (id, key, revision, base, start, length, codec, payload), oldest
    first; of one to which nothing has, id and key alone, and of one that is gone nothing."""
    later = and_(
        SegmentRow.series_id == SeriesRow.id,
        SegmentRow.column == TARGET,
        SegmentRow.revision > since,
        SegmentRow.revision <= head,
    )
    columns = (
        SegmentRow.revision,
        SegmentRow.base,
        SegmentRow.start_step,
        SegmentRow.length,
        SegmentRow.codec,
        SegmentRow.payload,
    )
    wanted = select(SeriesRow.id, SeriesRow.key, *columns).join(SegmentRow, later, isouter=True)
    # An erased series' id may be that of another series by now, of this dataset or another one.
    wanted = wanted.where(SeriesRow.id.in_(series_ids), SeriesRow.dataset_id == dataset_id)
    return wanted.order_by(SeriesRow.id, SegmentRow.revision, SegmentRow.id)


def _continues(before: State, after: State) -> bool:
    """Whether what is kept of a dataset is still worth something: nothing was erased, or cannot have been."""
    return before.id == after.id and (after.head > before.head or before == after)


def _look_up(session: Session, name: str, stamp: Stamp) -> Dataset | None:
    row = session.execute(
        select(
            DatasetRow.id,
            DatasetRow.head,
            DatasetRow.frequency,
            DatasetRow.time_zone,
            RevisionRow.id,
            RevisionRow.digest,
            RevisionRow.series,
            RevisionRow.points,
            RevisionRow.start,
            RevisionRow.end,
            RevisionRow.columns,
            select(func.count()).where(ColumnRow.dataset_id == DatasetRow.id).scalar_subquery(),
        )
        .join(RevisionRow, and_(RevisionRow.dataset_id == DatasetRow.id, RevisionRow.number == DatasetRow.head))
        .where(DatasetRow.name == name)
    ).one_or_none()
    if row is None:
        return None
    number, head, frequency, time_zone, revision, digest, series, points, start, end, columns, covariates = row
    state = State(number, head, revision, digest, series, points)
    total, calendar = Total(series, points, micros(start), micros(end)), Calendar.of(frequency or "D", time_zone)
    return Dataset(name, state, total, columns["live"], calendar, covariates > 0, stamp, since=head)
