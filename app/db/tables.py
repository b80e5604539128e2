"""Every table. A noun is a `…Row`; what was uploaded or trained is written once and numbered, and only a job's state
and an alias change afterwards."""

import datetime as dt
from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, LargeBinary, String, Text, false, text
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import Mapped, mapped_column

from app.db.columns import Base, Id, InWorkspace, utc_now

# ---------------------------------------------------------------- datasets


class DatasetRow(InWorkspace, Base):
    __tablename__ = "datasets"
    # An id is never used again: what was worked out against a dataset that is gone must not fit the next one.
    __table_args__ = (Unique("workspace", "name"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    frequency: Mapped[str | None] = mapped_column(String(32))  # canonical name; None until the first upload decides
    time_zone: Mapped[str] = mapped_column(String(64), default="UTC")
    head: Mapped[int] = mapped_column(Integer, default=0)  # number of the newest revision; 0 = none yet
    bounds: Mapped[dict[str, Any] | None]
    description: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[dt.datetime] = mapped_column(default=utc_now)


class RevisionRow(Base):
    __tablename__ = "revisions"
    __table_args__ = (Unique("dataset_id", "number"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    number: Mapped[int]
    mode: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(String(80))
    # totals of the whole dataset at this revision, then what this upload changed
    series: Mapped[int]
    points: Mapped[int] = mapped_column(BigInteger)
    start: Mapped[dt.datetime | None]
    end: Mapped[dt.datetime | None]
    inserted: Mapped[int] = mapped_column(BigInteger)
    updated: Mapped[int] = mapped_column(BigInteger)
    unchanged: Mapped[int] = mapped_column(BigInteger)
    columns: Mapped[dict[str, Any]]
    audit: Mapped[dict[str, Any]]
    created_at: Mapped[dt.datetime] = mapped_column(default=utc_now)


class SeriesRow(Base):
    __tablename__ = "series"
    __table_args__ = (Unique("dataset_id", "key"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    # In the order of code points, as Python and SQLite sort; a PostgreSQL database may have another collation.
    key: Mapped[str] = mapped_column(String(255).with_variant(String(255, collation="C"), "postgresql"))
    phase: Mapped[int] = mapped_column(BigInteger, default=0)  # see models.calendar
    revision: Mapped[int]  # the revision that brought it


class SegmentRow(Base):
    """Final values of one column of one series over a span; a later revision paints over an earlier one."""

    __tablename__ = "segments"
    __table_args__ = (
        # Covers what a merge asks of the segments it does not read: how many there are, and the steps they reach.
        Index("ix_segments_extents", "series_id", "column", "revision", "start_step", "length"),
        Index(
            "ix_segments_bases",
            "series_id",
            "column",
            "revision",
            sqlite_where=text("base"),
            postgresql_where=text("base"),
        ),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id", ondelete="CASCADE"))
    column: Mapped[str] = mapped_column(String(255), default="")  # '' = the target, else a covariate's name
    revision: Mapped[int]
    base: Mapped[bool]  # True: reads at or after this revision start here
    start_step: Mapped[int] = mapped_column(BigInteger)
    length: Mapped[int]
    codec: Mapped[int]
    payload: Mapped[bytes] = mapped_column(LargeBinary)


class ColumnRow(Base):
    """A covariate column of a dataset. `categories` lists the strings behind codes 1, 2, …; code 0 is the unknown."""

    __tablename__ = "columns"
    __table_args__ = (Unique("dataset_id", "name"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(8))  # future, past, static
    kind: Mapped[str] = mapped_column(String(8))  # number, category
    categories: Mapped[list[Any]]


class StaticRow(Base):
    __tablename__ = "statics"
    __table_args__ = (Unique("series_id", "column", "revision"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id", ondelete="CASCADE"))
    column: Mapped[str] = mapped_column(String(255))
    revision: Mapped[int]
    value: Mapped[float | None] = mapped_column(Float)  # a number, or the code of a category


# ---------------------------------------------------------------- jobs


def _only(state: str) -> dict[str, Any]:
    """An index of the rows in one state."""
    return dict.fromkeys(("sqlite_where", "postgresql_where"), text(f"state = '{state}'"))


class JobRow(InWorkspace, Base):
    """The truth about one piece of work: pending -> running -> succeeded / failed / cancelled."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_state", "state", "id", "workspace"),  # a page of those in one state, newest first
        # Small, whatever has been done: who is next, a workspace's last, how many run. See `services.queueing`. SQLite
        # answers from such an index alone only if it holds the column of its own condition too.
        Index("ix_jobs_turns", "state", "priority", "id", **_only("pending")),
        Index("ix_jobs_waiting", "workspace", "state", "priority", "id", **_only("pending")),
        Index("ix_jobs_running", "state", "workspace", **_only("running")),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # job_ + UUIDv7: newest last
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), default="pending")
    spec: Mapped[dict[str, Any]]
    priority: Mapped[int] = mapped_column(default=100)  # its turn: see `services.queueing`
    parked: Mapped[bool] = mapped_column(default=False, server_default=false())  # pending, but out of the queue
    attempt: Mapped[int] = mapped_column(default=0)  # the fence: every write of an attempt names it
    tries: Mapped[int] = mapped_column(default=0)  # attempts in a row that ended without a new checkpoint
    enqueued: Mapped[int] = mapped_column(
        default=1
    )  # n of the engine's workflow id `{job}:{n}`; a retry takes the next
    checkpoint_step: Mapped[int] = mapped_column(default=0)
    progress: Mapped[dict[str, Any] | None]
    metrics: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    worker: Mapped[str | None] = mapped_column(String(255))
    device: Mapped[str | None] = mapped_column(String(64))
    slot: Mapped[str | None] = mapped_column(String(64))  # which of the device's
    created_at: Mapped[dt.datetime] = mapped_column(default=utc_now)
    started_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]


class JobEventRow(Base):
    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # progress, metric, log, done
    data: Mapped[dict[str, Any]]
    created_at: Mapped[dt.datetime] = mapped_column(default=utc_now)


class TrialRow(Base):
    """One try of a tune: a job of kind `trial`, and the values that it tries."""

    __tablename__ = "trials"
    __table_args__ = (Unique("tune_id", "number"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    tune_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]  # 0: what a training would do that searches nothing
    params: Mapped[dict[str, Any]]
    scores: Mapped[list[Any]]  # [part of the first network's learning, best validation score so far]
    outcome: Mapped[str | None] = mapped_column(String(16))  # completed, pruned; cancelled: it alone, not its tune
    value: Mapped[float | None] = mapped_column(Float)  # what decides; lower is better
    # The best trial of a tune that has not succeeded, so one at most: its folder in the store, which no sweep may take
    # while it is named here, and what its version is recorded with.
    folder: Mapped[str | None] = mapped_column(String(255), index=True)
    made: Mapped[dict[str, Any] | None]


class ShardRow(Base):
    """One range of the series of a forecast job; a job of kind `shard` makes its parts. See `services.shards`."""

    __tablename__ = "shards"

    forecast_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    # None: not asked for yet.
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), unique=True)
    first: Mapped[int]  # how many series come before it
    series: Mapped[int]  # as they were counted when the job was cut, then as many as it has made
    done: Mapped[int] = mapped_column(default=0)  # of those
    # The keys from the one after the first of these to the second; None: no end there. Of named series both are.
    after: Mapped[str | None] = mapped_column(String(255))
    until: Mapped[str | None] = mapped_column(String(255))


class ScheduleRow(InWorkspace, Base):
    """A job to ask for again and again. `next_at` None: paused."""

    __tablename__ = "schedules"
    __table_args__ = (Unique("workspace", "name"), Index(None, "next_at"))

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    cron: Mapped[str] = mapped_column(String(100))
    job: Mapped[dict[str, Any]]  # what would be sent to POST /v1/jobs, without the dataset
    next_at: Mapped[dt.datetime | None]
    last_fired: Mapped[dt.datetime | None]
    last_job: Mapped[str | None] = mapped_column(String(64))
    last_error: Mapped[dict[str, Any] | None]  # why the last firing made no job
    created_at: Mapped[dt.datetime] = mapped_column(default=utc_now)


class WorkerRow(Base):
    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    devices: Mapped[list[Any]]
    slots: Mapped[list[Any]]
    started_at: Mapped[dt.datetime] = mapped_column(default=utc_now)
    beat_at: Mapped[dt.datetime] = mapped_column(default=utc_now)


# ---------------------------------------------------------------- models


class ModelRow(InWorkspace, Base):
    __tablename__ = "models"
    __table_args__ = (Unique("workspace", "name"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    last_version: Mapped[int] = mapped_column(
        default=0
    )  # a counter: a number is never used again, not even after a delete
    created_at: Mapped[dt.datetime] = mapped_column(default=utc_now)


class VersionRow(Base):
    __tablename__ = "versions"
    __table_args__ = (Unique("model_id", "number"), Unique("job_id"))

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    number: Mapped[int]
    job_id: Mapped[str | None] = mapped_column(String(64))
    dataset_id: Mapped[int | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    dataset: Mapped[str | None] = mapped_column(String(63))  # its name then: kept after the dataset is gone
    revision: Mapped[int | None]
    data_digest: Mapped[str | None] = mapped_column(String(80))
    frequency: Mapped[str] = mapped_column(String(32))
    time_zone: Mapped[str] = mapped_column(String(64))
    config: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any]]
    baselines: Mapped[dict[str, Any]]
    parameters: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(80))  # over the manifest, which holds the digest of every other file
    folder: Mapped[str] = mapped_column(String(255))  # name inside the store
    device: Mapped[str] = mapped_column(String(64))
    train_seconds: Mapped[float]
    parent: Mapped[str | None] = mapped_column(String(80))
    origin: Mapped[dict[str, Any] | None]  # of an imported one: what it is where it was made
    created_at: Mapped[dt.datetime] = mapped_column(default=utc_now)


class ArrivalRow(Base):
    """A folder of the store that an import is about to fill: gone when a version names it, else rubbish one day."""

    __tablename__ = "arrivals"

    folder: Mapped[str] = mapped_column(String(255), primary_key=True)
    created_at: Mapped[dt.datetime] = mapped_column(default=utc_now)


class AliasRow(Base):
    __tablename__ = "aliases"
    __table_args__ = (Unique("model_id", "name"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(63))
    version: Mapped[int]
    moves: Mapped[int] = mapped_column(default=1)  # how often it was set: its ETag


class MoveRow(Base):
    __tablename__ = "moves"
    __table_args__ = (Unique("model_id", "alias", "seq"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    alias: Mapped[str] = mapped_column(String(63))
    seq: Mapped[int]
    from_version: Mapped[int | None]
    to_version: Mapped[int | None]  # None: the alias was removed
    actor: Mapped[str] = mapped_column(String(255))
    reason: Mapped[str] = mapped_column(Text, default="")
    gate: Mapped[dict[str, Any] | None]
    created_at: Mapped[dt.datetime] = mapped_column(default=utc_now)


class BacktestRow(InWorkspace, Base):
    __tablename__ = "backtests"

    id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    dataset: Mapped[str] = mapped_column(String(63))
    revision: Mapped[int]
    model: Mapped[str] = mapped_column(String(63))
    version: Mapped[int]
    horizon: Mapped[int]
    step: Mapped[int]
    scores: Mapped[list[Any]]
    by_horizon: Mapped[list[Any]]
    by_series: Mapped[list[Any]]
    origins: Mapped[list[Any]]
    created_at: Mapped[dt.datetime] = mapped_column(default=utc_now)


# ---------------------------------------------------------------- the service itself


class IdempotencyRow(InWorkspace, Base):
    """The stored answer of a POST that creates; written in that request's own transaction, kept for 24 h."""

    __tablename__ = "idempotency"
    __table_args__ = (Unique("workspace", "key", "route"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(255))
    route: Mapped[str] = mapped_column(String(512))
    body_digest: Mapped[str] = mapped_column(String(80))
    status: Mapped[int]
    headers: Mapped[dict[str, Any]]
    body: Mapped[dict[str, Any] | None]
    created_at: Mapped[dt.datetime] = mapped_column(default=utc_now)
