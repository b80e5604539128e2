"""Jobs on the wire."""

import datetime as dt
from dataclasses import fields
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    RootModel,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    with_config,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from app.api.schemas.common import DatasetName, In, ModelName, ModelReference, Out
from app.api.schemas.forecasts import BASE, Columns, Key, Level, distinct
from app.db.tables import JobRow
from app.services.backtests import BacktestAsk
from app.services.firing import Ask
from app.services.forecast_jobs import ForecastAsk
from app.services.queueing import INTERACTIVE, Priority, Standing, class_of
from app.services.registry import Promote
from app.services.training import TrainAsk
from app.services.trials import Trial
from app.services.tuning import MOST_MINUTES, MOST_TRIALS, USUAL_TRIALS, Metric, TuneAsk
from models import TrainConfig

Kind = Literal["train", "tune", "trial", "backtest", "forecast", "shard"]
Preset = Literal["fast", "balanced", "thorough"]
Number = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True)]
State = Literal["pending", "running", "succeeded", "failed", "cancelled"]
Baseline = Literal["naive", "seasonal_naive", "naive2", "auto_ets", "auto_theta", "auto_arima", "mstl"]
PRIORITY: Any = Field(
    INTERACTIVE,
    description="`batch` waits until no `interactive` job does. The jobs of schedules are `batch`. Within each, the "
    "workspaces take turns, and each one's jobs come in the order they were asked for.",
)
PROMOTE: Any = Field(
    "if_better",
    description="Whether the new version becomes the champion: if its MASE on its held-out origins is lower than "
    "the champion's there, over the steps that both were trained for; the job's `result.gate` has the figures, and "
    "why it stayed where they do not decide. A model's first version does, unless `never`.",
)
REVISION = Field(None, ge=1, le=2**31 - 1, description="Revision of the dataset; left out: its newest one.")

FUTURE_VALUES = 100_000  # they are kept in the job's row
NOT_SHOWN = ("dataset_id", "shard_parts", "future_covariates")  # of a spec: ours, and too long

FIELDS = {field.name for field in fields(TrainConfig)}

# The core's own class is the wire class: pydantic reads it and, told so, refuses fields it does not have.
with_config(ConfigDict(extra="forbid", allow_inf_nan=False))(TrainConfig)


def _point_at_the_field(value: Any, validate: ValidatorFunctionWrapHandler) -> TrainConfig:
    """The core's own refusals begin with the field's name: point there instead of at the whole config."""
    try:
        return validate(value)
    except ValidationError as error:
        lines: list[InitErrorDetails] = []
        for found in error.errors():
            name, _, message = found["msg"].removeprefix("Value error, ").partition(": ")
            if found["type"] == "value_error" and not found["loc"] and name in FIELDS:
                kind = PydanticCustomError("value_error", "{message}", {"message": message})
                given = cast(dict[str, Any], value).get(name) if isinstance(value, dict) else None
                lines.append(InitErrorDetails(type=kind, loc=(name,), input=given))
        if not lines:
            raise
        raise ValidationError.from_exception_data("TrainConfig", lines) from error


Config = Annotated[TrainConfig, WrapValidator(_point_at_the_field)]


class TrainWork(In):
    """Train a new version of a model."""

    kind: Literal["train"]
    model: ModelName
    revision: int | None = REVISION
    preset: Preset | None = Field(
        None, description="How much effort; what `config` leaves open is chosen by it from the data. Default: fast."
    )
    config: Config = Field(default_factory=TrainConfig, description="What to train, as far as you care to say.")
    warm_start_from: ModelReference | None = Field(
        None,
        description="The version to start from: its networks learn on, shortly and in small steps unless `config` says "
        "otherwise, and stay as they are where nothing learned does better. What `config` leaves open is as in that "
        "version; a field that asks for another network is refused. `config.unfrozen` says how much may change.",
    )
    promote: Promote = PROMOTE


class RangeIn(In):
    """Numbers between two ends, both of which are tried."""

    low: Number
    high: Number
    step: Number | None = Field(
        None, description="Distance between values; left out: 1, or none where there is a fraction."
    )
    log: bool = Field(False, description="Whether values are spread by their logarithms; not beside `step`.")


def _choices_or_range(value: Any, _validate: ValidatorFunctionWrapHandler) -> list[Any] | RangeIn:
    """Without the names that pydantic gives the parts of a union, which would stand in the pointer."""
    if isinstance(value, list):
        for place, one in enumerate(cast(list[Any], value)):
            if isinstance(one, list | dict) or (isinstance(one, str) and not one.isprintable()):
                kind = PydanticCustomError("choice", "expected a number, a word, true, false or null")
                raise ValidationError.from_exception_data(
                    "choices", [InitErrorDetails(type=kind, loc=(place,), input=0)]
                )
        return cast(list[Any], value)
    if isinstance(value, dict):
        return RangeIn.model_validate(value)
    raise PydanticCustomError("choices_or_range", "expected a list of choices, or a range with low and high")


Searched = Annotated[list[Any] | RangeIn, WrapValidator(_choices_or_range)]


class TuneWork(In):
    """Train many times with different values, and keep the best version."""

    kind: Literal["tune"]
    model: ModelName
    revision: int | None = REVISION
    preset: Preset | None = Field(None, description="As of a training, for what neither `config` nor `space` names.")
    config: Config = Field(default_factory=TrainConfig, description="What all trials have in common.")
    space: dict[str, Searched] | None = Field(
        None,
        description="What is searched: fields of `config`, each with a list of choices (`null`: left to the preset) or "
        "a range. Left out: cell, layers, hidden, learning_rate, batch and scaling, as far as `config` leaves them "
        "open. The first trial takes none of it and leaves all to the preset. `horizon`, `season` and `quantiles` "
        "cannot be searched, since trials could not be compared, nor `seed`.",
        examples=[{"hidden": [32, 64, 128], "learning_rate": {"low": 0.001, "high": 0.02, "log": True}}],
    )
    trials: int | None = Field(
        None,
        ge=1,
        le=MOST_TRIALS,
        description=f"Most trials. Left out: {USUAL_TRIALS}, or, beside `minutes`, {MOST_TRIALS}.",
    )
    minutes: float | None = Field(
        None,
        gt=0,
        le=MOST_MINUTES,
        description="No trial begins later than so many minutes after the first; those that still run are stopped as "
        "soon as one has been completed.",
    )
    metric: Metric = Field(
        "mase", description="What decides, on the origins that are held out from all trials; lower is better."
    )
    promote: Promote = PROMOTE


class BacktestWork(In):
    """Score a version at many origins, beside baselines."""

    kind: Literal["backtest"]
    model: ModelReference
    revision: int | None = REVISION
    origins: int = Field(1, ge=1, le=10_000, description="How many origins a series.")
    horizon: int | None = Field(
        None, ge=1, le=10_000, description="Steps ahead; left out: what the version was trained for."
    )
    step: int | None = Field(None, ge=1, le=100_000, description="Steps between origins; left out: the horizon.")
    baselines: list[Baseline] = Field(
        ["naive", "seasonal_naive", "naive2"],
        max_length=7,
        description="Scored beside it at the same origins. OWA is given where `naive2` is among them. The last four "
        "are those of `statsforecast`, which must be installed where the jobs run: they are fitted anew at each origin "
        "of each series, which takes from hundredths of a second to minutes.",
    )


class ForecastWork(In):
    """Forecast many series into a file."""

    kind: Literal["forecast"]
    model: ModelReference = Field(
        BASE, description="Which version answers; left out: `base`, which comes with the server."
    )
    series: Annotated[list[Key], Field(min_length=1, max_length=10_000, fail_fast=True)] | None = Field(
        None, description="Keys of the series; left out: all of the dataset's, however many."
    )
    revision: int | None = REVISION
    horizon: int | None = Field(
        None, ge=1, le=10_000, description="Steps ahead; left out: what the version was trained for."
    )
    quantiles: Annotated[list[Level], AfterValidator(distinct)] = Field(
        [0.1, 0.5, 0.9], max_length=999, description="Any levels between 0 and 1; none: the mean alone."
    )
    format: Literal["parquet", "csv"] = Field("parquet", description="Of the file.")
    samples: int = Field(0, ge=0, le=1000, description="Sample paths for each series, a column each: sample1, …")

    @field_validator("series")
    @classmethod
    def _each_once(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and len(set(value)) < len(value):
            seen: set[str] = set()
            twice = next(key for key in value if key in seen or seen.add(key))
            raise ValueError(f"series {twice!r} is named twice")
        return value


class TrainIn(TrainWork):
    __doc__ = TrainWork.__doc__
    dataset: DatasetName
    priority: Priority = PRIORITY


class TuneIn(TuneWork):
    __doc__ = TuneWork.__doc__
    dataset: DatasetName
    priority: Priority = PRIORITY


class BacktestIn(BacktestWork):
    __doc__ = BacktestWork.__doc__
    dataset: DatasetName
    priority: Priority = PRIORITY


class ForecastJobIn(ForecastWork):
    __doc__ = ForecastWork.__doc__
    dataset: DatasetName
    priority: Priority = PRIORITY
    future_covariates: dict[Key, Columns] = Field(
        {},
        description="Key -> column -> at least `horizon` values that are not uploaded; at most "
        f"{FUTURE_VALUES:,} values in all. Upload more of them: rows without a target after a series' last value.",
    )

    @field_validator("future_covariates")
    @classmethod
    def _not_too_many(cls, value: dict[str, Columns]) -> dict[str, Columns]:
        count = sum(len(values) for columns in value.values() for values in columns.values())
        if count > FUTURE_VALUES:
            raise ValueError(f"expected at most {FUTURE_VALUES:,} values, got {count:,}: upload them instead")
        return value


Work = TrainWork | TuneWork | BacktestWork | ForecastWork


class JobIn(RootModel[Annotated[TrainIn | TuneIn | BacktestIn | ForecastJobIn, Field(discriminator="kind")]]):
    """What to do; `kind` says which fields there are."""


def ask_of(work: Work, dataset: str) -> Ask:
    """What the services are asked."""
    if isinstance(work, TrainWork):
        config = work.config.replace(preset=work.preset) if work.preset else work.config
        return TrainAsk(dataset, work.model, config, work.revision, work.promote, work.warm_start_from)
    if isinstance(work, TuneWork):
        config = work.config.replace(preset=work.preset) if work.preset else work.config
        given = {name: getattr(work, name) for name in ("trials", "minutes", "metric", "revision", "promote")}
        return TuneAsk(dataset, work.model, config, _space(work), **given)
    if isinstance(work, BacktestWork):
        given = work.model_dump(exclude={"kind", "baselines", "dataset", "priority"})
        return BacktestAsk(dataset=dataset, **given, baselines=tuple(work.baselines))
    keys, levels = None if work.series is None else tuple(work.series), tuple(work.quantiles)
    future = work.future_covariates if isinstance(work, ForecastJobIn) else {}
    asked = (work.model, work.revision, keys, work.horizon, levels, work.format, work.samples)
    return ForecastAsk(dataset, *asked, future)


def _space(work: TuneWork) -> dict[str, Any] | None:
    if work.space is None:
        return None
    plain = {
        name: values.model_dump() if isinstance(values, RangeIn) else values for name, values in work.space.items()
    }
    return plain


class ProgressOut(Out):
    step: int = Field(description="Steps done.")
    total: int = Field(description="Steps at most; 0: not known yet.")
    fraction: float = Field(description="Share done, 0 to 1.")
    eta_s: float | None = Field(description="Seconds to go, if the pace holds.")
    steps_per_s: float | None = Field(None, description="Steps a second, since this run of them began.")
    rate: float | None = Field(None, description="What that comes to in `unit`s a second.")
    unit: str | None = Field(None, description="What a step works on: windows of history to learn from, or series.")
    message: str = Field(description="What is being done; while it is pending, where it stands in the queue.")


class JobOut(Out):
    """One piece of background work."""

    model_config = ConfigDict(ser_json_inf_nan="null")

    id: str
    kind: Kind
    state: State
    priority: Priority
    position: int | None = Field(
        description="While it is pending: its place among all jobs that wait, 1 is next. Others may still pass it."
    )
    spec: dict[str, Any] = Field(
        description="What was asked, revision and version pinned; without `future_covariates`."
    )
    progress: ProgressOut
    metrics: dict[str, float | None] = Field(description="The latest figures.")
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    attempt: int = Field(description="How often a worker has started it.")
    worker: str | None = Field(description="The worker that has, or had, it last.")
    device: str | None
    result: dict[str, Any] | None = Field(description="When it succeeded: where to look, in `href`.")
    error: dict[str, Any] | None = Field(description="When it failed: why, as a problem document.")

    @classmethod
    def of(cls, row: JobRow, standing: Standing | None = None) -> "JobOut":
        """`standing` is that of a pending job; its progress then says where it stands, not where it came to."""
        progress = ProgressOut(**row.progress) if row.progress else NO_PROGRESS
        if standing is not None:
            still: dict[str, Any] = {"message": standing.message, "eta_s": None, "steps_per_s": None, "rate": None}
            progress = progress.model_copy(update=still)
        return cls(
            id=row.id,
            kind=row.kind,  # pyright: ignore[reportArgumentType]
            state=row.state,  # pyright: ignore[reportArgumentType]
            priority=class_of(row.priority),
            position=None if standing is None else standing.place,
            spec={name: value for name, value in row.spec.items() if name not in NOT_SHOWN},
            progress=progress,
            metrics=row.metrics or {},
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            attempt=row.attempt,
            worker=row.worker,
            device=row.device,
            result=row.result,
            error=row.error,
        )


NO_PROGRESS = ProgressOut(
    step=0, total=0, fraction=0.0, eta_s=None, steps_per_s=None, rate=None, unit=None, message="waiting"
)


class JobsOut(Out):
    jobs: list[JobOut]
    next_page_token: str | None


class TrialOut(Out):
    """One trial of a tune."""

    number: int = Field(description="From 0, which left everything to the preset.")
    state: Literal["pending", "running", "completed", "pruned", "failed", "cancelled"] = Field(
        description="`pruned`: stopped early, since it was worse than others at the same point or the time was used up."
    )
    best: bool = Field(description="Whether its value is the lowest so far.")
    params: dict[str, Any] = Field(description="The values it tries.")
    value: float | None = Field(description="What decides; lower is better.")
    steps: int = Field(description="Optimisation steps done.")
    duration_s: float | None = Field(description="From its first attempt to its end.")
    reason: str | None = Field(description="Why it failed or was stopped.")
    job: str

    @classmethod
    def of(cls, trial: Trial, best: bool) -> "TrialOut":
        why = (trial.job.error or {}).get("detail") or (trial.job.result or {}).get("why")
        return cls(
            number=trial.row.number,
            state=trial.state,  # pyright: ignore[reportArgumentType]
            best=best,
            params=trial.row.params,
            value=trial.row.value,
            steps=(trial.job.progress or {}).get("step", 0),
            duration_s=None if trial.seconds is None else round(trial.seconds, 3),
            reason=why,
            job=trial.job.id,
        )


class TrialsOut(Out):
    trials: list[TrialOut]
    next_page_token: str | None
