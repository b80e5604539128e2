"""Schedules on the wire."""

import datetime as dt
from typing import Annotated, Any

from pydantic import Field, model_validator

from app.api.schemas.common import NAME, DatasetName, In, Out
from app.api.schemas.jobs import BacktestWork, ForecastWork, TrainWork, TuneWork
from app.db.tables import DatasetRow, ScheduleRow

Cron = Annotated[
    str,
    Field(
        max_length=100,
        description="Five fields, minute, hour, day of month, month, day of week, on the clock of the dataset's time "
        "zone. Where clocks change, a fixed time that is skipped fires as much later as they were set forward, and one "
        "that comes twice fires at the first; a line whose hour begins with `*` goes by the hours that pass.",
        examples=["0 3 * * *"],
    ),
]


class ScheduleIn(In):
    """A job to ask for again and again."""

    name: Annotated[str, Field(pattern=NAME, description="Its name.", examples=["nightly"])]
    cron: Cron
    dataset: DatasetName
    job: Annotated[
        TrainWork | TuneWork | BacktestWork | ForecastWork,
        Field(
            discriminator="kind",
            description="As for `POST /v1/jobs`, without `dataset`; `revision` left out is the "
            "newest, and `model` without a number the champion, at each time.",
        ),
    ]


class ScheduleChangeIn(In):
    """What to change; what is left out stays."""

    paused: bool | None = Field(None, description="Whether it rests. What it misses meanwhile is not made up for.")
    cron: Cron | None = None

    @model_validator(mode="after")
    def _something(self) -> "ScheduleChangeIn":
        if self.paused is None and self.cron is None:
            raise ValueError("expected paused, cron or both, got neither")
        return self


class ScheduleOut(Out):
    """A job that is asked for again and again."""

    name: str
    cron: str
    dataset: str
    time_zone: str = Field(description="The dataset's: the clock that `cron` is about.")
    job: dict[str, Any] = Field(description="What is asked for.")
    paused: bool
    next_at: dt.datetime | None = Field(description="When it fires next; null while it is paused.")
    last_fired: dt.datetime | None = Field(description="When it fired last.")
    last_job: str | None = Field(description="The job it has asked for last.")
    last_error: dict[str, Any] | None = Field(description="Why the last firing made no job, as a problem document.")
    created_at: dt.datetime

    @classmethod
    def of(cls, row: ScheduleRow, dataset: DatasetRow) -> "ScheduleOut":
        return cls(
            name=row.name,
            cron=row.cron,
            dataset=dataset.name,
            time_zone=dataset.time_zone,
            job=row.job,
            paused=row.next_at is None,
            next_at=row.next_at,
            last_fired=row.last_fired,
            last_job=row.last_job,
            last_error=row.last_error,
            created_at=row.created_at,
        )


class SchedulesOut(Out):
    schedules: list[ScheduleOut]
    next_page_token: str | None
