"""What the server says of itself."""

import datetime as dt
from typing import Any, Literal

from pydantic import Field

from app.api.schemas.common import Out


class AliveOut(Out):
    status: Literal["alive"] = "alive"


class ReadyOut(Out):
    status: Literal["ready"] = "ready"


class RunningOut(Out):
    """A job at work."""

    slot: str | None = Field(description="The device and the number of its slot.")
    job: str
    kind: str


class WorkerOut(Out):
    """A worker that has given a sign of life in the last seconds."""

    id: str
    host: str
    devices: list[Any] = Field(description="What it computes on: name, kind, memory.")
    slots: list[Any] = Field(description="Its places for jobs.")
    running: list[RunningOut] = Field(description="Your jobs that run there.")
    started_at: dt.datetime
    beat_at: dt.datetime = Field(description="Its last sign of life.")


class QueueOut(Out):
    pending: int = Field(description="Jobs that wait.")
    running: int = Field(description="Jobs that run.")


class SystemOut(Out):
    version: str = Field(description="Version of this program.")
    devices: list[Any] = Field(description="The devices of all living workers.")
    workers: list[WorkerOut]
    queue: QueueOut
