"""TrainConfig: everything that shapes a forecaster, in one frozen value. It travels in the job and then in the
manifest."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

Preset = Literal["fast", "balanced", "thorough"]
Cell = Literal["gru", "lstm", "rnn"]
Activation = Literal["tanh", "relu"]
Decoder = Literal["direct", "recursive", "seq2seq"]
HeadKind = Literal["quantile", "gaussian", "student_t", "negative_binomial"]
Scaling = Literal["std", "mean", "last", "log"]
Base = Literal["none", "naive", "seasonal", "mix", "smooth"]
Unfrozen = Literal["head", "recurrent", "all"]
NINE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class TrainConfig:
    """What to train. A field left None is picked by the preset from the data; the trained version's config has none
    left.

    `context`, `horizon`, `segment` and `season` are in steps; `minimum` and `maximum` bound the forecast in the
    data's units.
    """

    preset: Preset = "fast"
    cell: Cell | None = None
    activation: Activation = "tanh"  # of cell rnn
    layers: int | None = None
    hidden: int | None = None
    bidirectional: bool = False  # over the context
    decoder: Decoder = "direct"
    head: HeadKind | None = None
    horizon: int | None = None
    context: int | None = None
    read: int | None = None  # newest steps of the context that the network reads; its bases look at all of it
    segment: int | None = None  # steps eaten by one recurrent step; 1 = classic one-step input
    season: int | None = None
    scaling: Scaling | None = None
    base: Base | None = None
    quantiles: tuple[float, ...] = NINE
    steps: int | None = None  # most optimisation steps; 0 leaves the mix of bases as it is
    batch: int | None = None  # windows a step
    learning_rate: float | None = None
    clip: float = 1.0  # largest norm of the gradient
    truncate: int | None = None  # recurrent steps that gradients go back through; all when None
    patience: int | None = None  # evaluations without improvement before training stops
    aligned: float | None = None  # share of training origins that share the season's phase with the last origin
    members: int | None = None  # networks whose forecasts are averaged
    calendar: bool | None = None  # feed the place in the day, week and year on the local calendar
    covariates: bool | None = None  # feed the dataset's covariates, where it has any
    pretrained: bool | None = None  # the base that ships with the package: alone, left out, or as held-out steps say
    unfrozen: Unfrozen = "all"  # what a warm start goes on learning
    seed: int = 0
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in get_args(choices):
                raise ValueError(f"{name}: expected one of {', '.join(get_args(choices))}, got {value!r}")
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name}: expected {low} to {high}, got {value!r}")
        levels = self.quantiles
        if not levels or any(not 0 < level < 1 for level in levels) or list(levels) != sorted(set(levels)):
            raise ValueError(f"quantiles: expected ascending levels between 0 and 1, got {levels!r}")
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError(f"minimum: expected less than maximum {self.maximum}, got {self.minimum}")
        if self.head == "negative_binomial" and self.scaling == "log":
            raise ValueError("scaling: expected std, mean or last with head 'negative_binomial', got 'log'")
        for name in ("context", "read"):
            value = getattr(self, name)
            if value is not None and self.segment is not None and value % self.segment:
                raise ValueError(f"{name}: expected a multiple of segment {self.segment}, got {value}")
        if self.context is not None and self.read is not None and self.read > self.context:
            raise ValueError(f"read: expected at most context {self.context}, got {self.read}")

    def replace(self, **changes: Any) -> "TrainConfig":
        return dataclasses.replace(self, **changes)

    def document(self) -> dict[str, Any]:
        """The config as JSON-ready values, in field order."""
        return {**dataclasses.asdict(self), "quantiles": list(self.quantiles)}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "TrainConfig":
        """The config of a manifest. Raises ValueError on a field this program does not know or a value out of range."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(document) - known):
            raise ValueError(f"config: unknown field {unknown[0]!r}, expected one of {', '.join(sorted(known))}")
        values: dict[str, Any] = dict(document)
        if "quantiles" in values:
            values["quantiles"] = tuple(values["quantiles"])
        return cls(**values)


CHOICES: dict[str, Any] = {
    "preset": Preset,
    "cell": Cell,
    "activation": Activation,
    "decoder": Decoder,
    "head": HeadKind,
    "scaling": Scaling,
    "base": Base,
    "unfrozen": Unfrozen,
}
RANGES: dict[str, tuple[float, float]] = {
    "layers": (1, 8),
    "hidden": (4, 2048),
    "horizon": (1, 10_000),
    "context": (1, 100_000),
    "read": (1, 100_000),
    "segment": (1, 10_000),
    "season": (1, 100_000),
    "steps": (0, 1_000_000),
    "batch": (1, 65_536),
    "learning_rate": (1e-7, 1.0),
    "clip": (1e-6, 1e6),
    "truncate": (1, 100_000),
    "members": (1, 32),
    "patience": (1, 10_000),
    "aligned": (0.0, 1.0),
    "seed": (0, 2**31 - 1),
}


@dataclass(frozen=True)
class Progress:
    """Where a run is. `metrics` is empty or holds the latest losses (`train_loss`, `validation_mase`, …). `learned` is
    given while the first of the version's networks learns, and is where runs of other configs can be compared: short
    runs that try an option, and further networks, leave it out."""

    step: int
    total: int
    message: str
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    checkpoint: int = 0  # step of the newest checkpoint on disk
    unit: str = ""  # what a step works on: windows, series
    each: int = 1  # how many of them
    learned: float | None = None  # share of the first network's steps, 0 to 1


class Stopped(Exception):
    """The caller asked to stop. Training leaves a checkpoint in the run's folder that the next attempt goes on from."""


@dataclass(frozen=True)
class Run:
    """One training run's surroundings. `folder` holds its checkpoints and, at the end, `artifact/`; a folder with a
    checkpoint is resumed. `start` is the folder of the artifact that a warm start goes on from. `lineage` (dataset,
    revision, digest, job …) is copied into the manifest as it is."""

    folder: Path
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    on_progress: Callable[[Progress], None] = lambda _: None
    should_stop: Callable[[], bool] = lambda: False
    start: Path | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class TrainResult:
    """What a finished run made. `artifact` is the folder to publish. Scores are over the held-out origins named in
    `origins`."""

    artifact: Path
    config: TrainConfig  # complete: no field is None but bounds
    reasons: tuple[str, ...]  # what the preset picked and why, a sentence each
    metrics: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]  # naive, seasonal_naive -> the same metrics
    origins: Mapping[str, Any]
    parameters: int
    device: str
    seconds: float


@dataclass(frozen=True)
class BacktestPlan:
    """`origins` origins, `step` steps apart, the last one `horizon` steps before each series' end."""

    origins: int = 1
    horizon: int = 1
    step: int = 1
    baselines: tuple[str, ...] = ("naive", "seasonal_naive", "naive2")


@dataclass(frozen=True)
class BacktestResult:
    """`scores` rows {metric, value, forecaster}: the version's and each baseline's; `by_horizon` rows {horizon,
    metric, value, forecaster}; `by_series` rows {key, metric, value, forecaster}; `origins` rows {series, first,
    last} as absolute steps; `notes` sentences that a reader of the scores has to know; `values` the
    number of values that the version was scored over."""

    scores: list[dict[str, Any]]
    by_horizon: list[dict[str, Any]]
    by_series: list[dict[str, Any]]
    origins: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list[str])
    values: int = 0
