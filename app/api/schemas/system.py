"""What the server says of itself."""

import datetime as dt
from typing import Any, Literal

from pydantic import Field

from app.api.schemas.common import Out


class AliveOut(Out):
    status: Literal["alive"] = "alive"


class ReadyOut(Out):
    status: Literal["ready"] = "ready"


class WorkerOut(Out):
    """A worker that has given a sign of life in the last seconds."""

    id: str
    host: str
    devices: list[Any] = Field(description="What it computes on: name, kind, memory.")
    slots: list[Any] = Field(description="Its places for jobs, and the job in each.")
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
