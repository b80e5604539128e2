"""Datasets on the wire."""

import datetime as dt
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, model_validator

from app.api.schemas.common import DatasetName, In, Out

FREQUENCY = Field(
    None,
    min_length=1,
    max_length=64,
    description="Time between points: `h`, `15min`, `D`, `W-FRI`, `MS`, `QE-DEC`, an ISO 8601 duration, or `step` for "
    "an integer time column. Left out: the first upload decides it.",
    examples=["W-SUN"],
)


class Bounds(In):
    """What no value can be below or above: forecasts are kept inside."""

    min: float | None = Field(None, strict=True, description="Least value possible.")
    max: float | None = Field(None, strict=True, description="Greatest value possible.")

    @model_validator(mode="after")
    def _in_order(self) -> "Bounds":
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min must be below max, got {self.min:g} and {self.max:g}")
        return self

    def document(self) -> dict[str, float] | None:
        """The bounds that are set; None when none is."""
        return self.model_dump(exclude_none=True) or None


class DatasetIn(In):
    name: DatasetName
    frequency: str | None = FREQUENCY
    time_zone: str = Field(
        "UTC",
        min_length=1,
        max_length=64,
        description="IANA name of the zone whose calendar the steps follow, and of times sent without an offset.",
        examples=["Europe/Berlin"],
    )
    bounds: Bounds | None = None
    description: str = Field("", max_length=10_000)


class DatasetPatchIn(In):
    """What may change in a dataset; a field left out stays as it is, `null` clears it."""

    bounds: Bounds | None = None
    description: str | None = Field(None, max_length=10_000)


class CovariateOut(Out):
    name: str
    role: Literal["future", "past", "static"] = Field(
        description="Known ahead of time, known up to the present, or one value a series."
    )
    kind: Literal["number", "category"]


class BoundsOut(Out):
    min: float | None = None
    max: float | None = None


class DatasetOut(Out):
    """A dataset as its newest revision has it."""

    name: str
    frequency: str | None = Field(description="Null until the first upload decides it.")
    time_zone: str
    revision: int | None = Field(description="Number of the newest revision; null before the first upload.")
    series: int
    points: int = Field(description="Values that are there, over all series.")
    start: str | int | None = Field(description="Time of the first value.")
    end: str | int | None = Field(description="Time of the last value.")
    covariates: list[CovariateOut]
    bounds: BoundsOut | None
    description: str
    created_at: dt.datetime


class DatasetsOut(Out):
    datasets: list[DatasetOut]
    next_page_token: str | None


class AuditLinkOut(Out):
    errors: int = Field(description="Always 0: a file with an error is refused whole.")
    warnings: int
    href: str


class RevisionOut(Out):
    """One upload, and the dataset after it."""

    dataset: str
    revision: int
    mode: str = Field(description="How it was sent: append, upsert or replace.")
    series: int = Field(description="Series of the dataset at this revision.")
    points: int = Field(description="Values of the dataset at this revision.")
    inserted: int = Field(description="Rows of the upload that were not there.")
    updated: int = Field(description="Rows that were there with other values.")
    unchanged: int = Field(description="Rows that were there just so.")
    digest: str = Field(description="SHA-256 over the revision before and what changed; the same for every format.")
    columns: dict[str, Any] = Field(description="How each column of the file was understood.")
    frequency: str
    audit: AuditLinkOut
    created_at: dt.datetime


class FindingOut(Out):
    code: str
    message: str
    row: int | None = None
    column: str | None = None
    value_preview: str | None = None
    hint: str | None = None
    pointer: str | None = None


class AuditOut(Out):
    """What was noticed in an upload that was taken."""

    revision: int
    errors: list[FindingOut] = Field(description="Always empty: a file with an error is refused whole.")
    error_count: int
    warnings: list[FindingOut] = Field(description="The first hundred.")
    warning_count: int


class SeriesOut(Out):
    key: str
    start: str | int | None = Field(description="Time of the first value.")
    end: str | int | None = Field(description="Time of the last value: the origin of a forecast.")
    points: int = Field(description="Values that are there.")
    missing: int = Field(description="Steps between the first and the last value that have none.")


class SeriesPageOut(Out):
    series: list[SeriesOut]
    next_page_token: str | None


def _split(given: object) -> object:
    """Names with commas between, as separate names."""
    if not isinstance(given, list):
        return given
    texts = [text for text in cast(list[object], given) if isinstance(text, str)]
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


ColumnName = Annotated[str, Field(max_length=255)]
ColumnNames = Annotated[list[ColumnName], BeforeValidator(_split), Field(default_factory=list[str], max_length=200)]


class UploadQuery(In):
    """How to read a file, and what to do with it."""

    mode: Literal["append", "upsert", "replace"] = Field(
        "append",
        description="`append` adds rows and refuses to change a stored value, `upsert` also overwrites, `replace` "
        "makes the file the whole new content.",
    )
    layout: Literal["long", "wide"] = Field(
        "long", description="`long`: one row for each series and time; `wide`: one column for each series."
    )
    frequency: str | None = Field(
        None, max_length=64, description="Of a dataset that has none yet; left out: found from the times."
    )
    time_zone: str | None = Field(None, max_length=64, description="IANA name; of a dataset that this upload makes.")
    id_column: ColumnName | None = Field(None, description="Column of the series' keys; left out: sniffed.")
    time_column: ColumnName | None = Field(None, description="Column of the times; left out: sniffed.")
    target_column: ColumnName | None = Field(None, description="Column of the values; left out: sniffed.")
    static_columns: ColumnNames = Field(description="One value a series. Repeated, or names with commas between.")
    future_columns: ColumnNames = Field(description="Covariates known ahead of time.")
    past_columns: ColumnNames = Field(description="Covariates known up to the present.")
