"""Forecasts on the wire: what is asked, and what is answered."""

from typing import Annotated, Literal

from pydantic import AfterValidator, FailFast, Field, GetPydanticSchema, Strict, model_validator
from pydantic_core import core_schema

from app.api.schemas.common import DatasetName, In, ModelReference, Out

MAX_KEY_BYTES = 255
BASE = "base"  # the model that comes with the server


def _one_of(choices: list[core_schema.CoreSchema], message: str) -> GetPydanticSchema:
    """A union that is refused with one sentence instead of one for each member. The first member should be the common
    one: a target has many values, and left to right stops there."""
    union = core_schema.union_schema(
        list(choices), mode="left_to_right", custom_error_type="value_type", custom_error_message=message
    )
    return GetPydanticSchema(lambda _source, _handler: union)


_NUMBER = core_schema.float_schema(strict=True, allow_inf_nan=False)
_MISSING = core_schema.none_schema()
Value = Annotated[
    float | Literal["NaN"] | None,
    _one_of([_NUMBER, _MISSING, core_schema.literal_schema(["NaN"])], 'Expected a finite number, null or "NaN"'),
]
Cell = Annotated[
    float | bool | str | None,
    _one_of(
        [_NUMBER, core_schema.bool_schema(strict=True), core_schema.str_schema(strict=True), _MISSING],
        "Expected a finite number, a text, true, false or null",
    ),
]
# A long list is refused at its first bad element: a complaint for each of a million would be larger than the body.
Values = Annotated[list[Value], FailFast()]
Columns = dict[str, Annotated[list[Cell], FailFast()]]
Integer = Annotated[int, Strict(), Field(ge=-(2**53), le=2**53)]
Level = Annotated[float, Field(gt=0, lt=1)]


def _is_key(value: str) -> str:
    if len(value.encode()) > MAX_KEY_BYTES:
        raise ValueError(f"a series key has at most {MAX_KEY_BYTES} bytes")
    return value


Key = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_KEY_BYTES,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Key of the series: at most 255 bytes, no control characters.",
        examples=["us_gasoline"],
    ),
    AfterValidator(_is_key),
]


def distinct(values: list[float]) -> list[float]:
    """Levels in order. Raises ValueError when one is there twice."""
    if len(set(values)) < len(values):
        raise ValueError("each quantile level may be asked for once")
    return sorted(values)


class _Shape(In):
    """What the two questions share."""

    horizon: int = Field(default=1, ge=1, description="How many steps to forecast; 1 is the next step.")
    quantiles: Annotated[list[Level], AfterValidator(distinct)] = Field(
        default=[0.1, 0.5, 0.9], max_length=999, description="Any levels between 0 and 1; none: the mean alone."
    )


class InputIn(In):
    """The history of one series, sent along."""

    key: Key
    start: str | Integer | None = Field(
        default=None,
        description="Time of the first value: RFC 3339, local to the time zone without an offset, an integer where the "
        "frequency is `step`. Left out, the answer has no times: `origin`, `start` and `timestamps` are null.",
        examples=["2025-01-03"],
    )
    target: Values = Field(description='The values, one a step; null or "NaN" where one is missing.')
    past_covariates: Columns = Field(
        default={}, description="Column -> one value for each of `target`. `base` ignores covariates, with a warning."
    )
    future_covariates: Columns = Field(default={}, description="Column -> at least `horizon` values after `target`.")
    static_covariates: dict[str, Cell] = Field(default={}, description="Column -> the series' value.")


class ForecastIn(_Shape):
    """A question: which model, which series, how far."""

    model: ModelReference = Field(
        default=BASE,
        description="A model: `name` (its champion), `name@alias` or `name/3`. Left out: `base`, which comes with the "
        "server and forecasts any series from its history alone, untrained.",
    )
    dataset: DatasetName | None = Field(
        default=None, description="Forecast series of this dataset; else send `inputs`."
    )
    series: Annotated[list[Key], Field(min_length=1, max_length=100_000, fail_fast=True)] | None = Field(
        default=None, description="Keys of the series; left out: all of the dataset's.", examples=[["us_gasoline"]]
    )
    revision: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="Forecast from this revision; left out: the newest."
    )
    inputs: Annotated[list[InputIn], Field(min_length=1, max_length=10_000)] | None = Field(
        default=None, description="History in the request, instead of `dataset`; ids never seen in training are fine."
    )
    frequency: str | None = Field(
        default=None,
        max_length=64,
        description="Of `inputs`, such as h, D, W-FRI or MS; left out: the one the version was trained on. `base` "
        "needs it beside a `start`; without both, it takes the values as steps without a season.",
        examples=["D"],
    )
    time_zone: str | None = Field(
        default=None,
        max_length=64,
        description="Of `inputs`; left out: the one the version was trained on, UTC for `base`.",
    )
    future_covariates: dict[Key, Columns] = Field(
        default={}, description="For stored series: key -> column -> at least `horizon` values that are not uploaded."
    )
    samples: int = Field(default=0, ge=0, le=1000, description="Sample paths for each series.")
    timestamps: bool = Field(default=True, description="Whether the JSON answer spells out every forecast time.")

    @model_validator(mode="after")
    def _one_source(self) -> "ForecastIn":
        if (self.dataset is None) == (self.inputs is None):
            raise ValueError("expected either dataset or inputs, got " + ("both" if self.dataset else "neither"))
        stray = ["series", "revision", "future_covariates"] if self.inputs else ["frequency", "time_zone"]
        if sent := [name for name in stray if getattr(self, name)]:
            raise ValueError(f"{sent[0]} goes with {'dataset' if self.inputs else 'inputs'} only")
        keys = self.series or [one.key for one in self.inputs or []]
        if len(set(keys)) < len(keys):
            seen: set[str] = set()
            twice = next(key for key in keys if key in seen or seen.add(key))
            raise ValueError(f"series {twice!r} is named twice")
        return self


class PointIn(In):
    """One value that has become known."""

    key: Key
    timestamp: str | Integer = Field(
        description="RFC 3339, local to the dataset's zone without an offset; an integer for `step`.",
        examples=["2020-01-03"],
    )
    value: Value = Field(description="The value; null says that it is missing.")


class NextIn(_Shape):
    """New points, and how far to forecast after them."""

    dataset: DatasetName
    points: list[PointIn] = Field(min_length=1, max_length=10_000)


class ModelUsedOut(Out):
    name: str
    version: int
    alias: str | None = Field(description="The alias that led to the version; null when its number was asked for.")


class SeriesForecastOut(Out):
    """One series' forecast: each list has a value a step."""

    key: str
    origin: str | int | None = Field(description="Time of the last known value; null without one.")
    start: str | int | None = Field(description="First forecast time.")
    timestamps: list[str] | list[int] | None = Field(default=None, description="All forecast times.")
    mean: list[float | None]
    quantiles: dict[str, list[float | None]] = Field(description="Level -> values; levels never cross.")
    samples: list[list[float | None]] | None = Field(default=None, description="Paths, where asked for.")


class WarningOut(Out):
    """Something that made the answer worse than it could be, but no reason to refuse it."""

    code: str
    message: str
    series: list[str] | None = Field(default=None, description="The first hundred it is about; left out: all.")
    series_count: int | None = None


class ForecastOut(Out):
    model: ModelUsedOut
    dataset: str | None
    revision: int | None
    frequency: str
    request_id: str | None
    forecasts: list[SeriesForecastOut]
    warnings: list[WarningOut]
