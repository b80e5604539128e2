"""Models, versions, aliases and moves on the wire."""

import datetime as dt
from typing import Annotated, Any

from pydantic import Field

from app.api.schemas.common import In, Out

Reason = Annotated[
    str,
    Field(
        max_length=2000,
        pattern=r"^[^\x00]*$",  # PostgreSQL keeps no text with a NUL in it
        description="Why the alias moves; kept with the move.",
        examples=["Better on last month."],
    ),
]


class ModelOut(Out):
    """A named line of versions."""

    name: str
    versions: int = Field(description="How many versions there are.")
    last_version: int = Field(description="The highest number given so far; a number is never used again.")
    aliases: dict[str, int] = Field(description="Alias -> version it points to.", examples=[{"champion": 1}])
    created_at: dt.datetime


class ModelsOut(Out):
    models: list[ModelOut]
    next_page_token: str | None


class OriginOut(Out):
    """Where an imported version was made, in the words of that server."""

    model: str
    version: int
    created_at: dt.datetime
    job: str | None
    dataset: str | None
    revision: int | None
    parent: str | None = Field(description="The version that training started from there.")


class VersionOut(Out):
    """The record of one immutable version: trained here, imported, or come with the server."""

    model: str
    version: int
    created_at: dt.datetime
    job: str | None = Field(description="Id of the job that trained it; null: it came with the server or from another.")
    dataset: str | None = Field(
        description="What it was trained on; the name stays when the dataset is gone. Null: no dataset of this server."
    )
    revision: int | None
    data_digest: str | None
    frequency: str = Field(description="Of its data; `any`: it answers for every one.")
    time_zone: str
    config: dict[str, Any] = Field(
        description="Everything that shaped it; null is left open by a version that answers for any frequency."
    )
    metrics: dict[str, Any] = Field(description="Scores over held-out origins; lower is better but for coverage.")
    baselines: dict[str, Any] = Field(description="The same scores of naive and seasonal-naive.")
    parameters: int
    size_bytes: int
    digest: str = Field(description="sha256 of manifest.json, which holds the digest of the other files.")
    device: str
    train_seconds: float
    parent: str | None = Field(description="The version that training started from.")
    origin: OriginOut | None = Field(description="Where an imported version was made; null: here.")
    aliases: list[str] = Field(description="Aliases that point here now.")


class VersionsOut(Out):
    versions: list[VersionOut]
    next_page_token: str | None


class AliasIn(In):
    """Where an alias shall point."""

    version: int = Field(ge=1, le=2**31 - 1, description="Number of the version.", examples=[1])
    reason: Reason = ""


class RollbackIn(In):
    reason: Reason = ""


class AliasOut(Out):
    """A movable name of a version."""

    model: str
    alias: str
    version: int


class MoveOut(Out):
    """One recorded change of an alias."""

    from_: int | None = Field(alias="from", description="Version before; null: the alias was new.")
    to: int | None = Field(description="Version after; null: the alias was removed.")
    actor: str
    reason: str
    at: dt.datetime
    gate: dict[str, Any] | None = Field(
        description="What a promotion gate compared, where one did: metric, value, champion, champion_value, passed, "
        "the origins and the horizon in them, and in `refusal` why the figures did not decide."
    )


class MovesOut(Out):
    moves: list[MoveOut]
    next_page_token: str | None
