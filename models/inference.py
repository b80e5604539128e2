"""Opens an artifact and answers with ONNX Runtime. No torch, no pandas: this is what an API process imports.

The graph gives the trained horizon at the trained levels in the data's units. Here are only: gathering contexts,
rolling out beyond the horizon, other levels, the mean, sample paths and the notes."""

# onnxruntime has no annotations:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import hashlib
import json
import zlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.calendar import Calendar
from models.config import TrainConfig
from models.features import Design, Floats, gather, lacking, recoded
from models.quantiles import evaluate, level_weights, mean_weights, paths
from models.series import Column, Forecast, Note, Series, dated_of, keys_of, origins_of
from models.tables import EARLIER, TABLES, Tables, earlier_tables, reach, seasons_of, tables_until, trained_horizon
from models.windows import latest

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

FORMAT = 2
BASE = "base"  # the manifest's kind of what answers for any frequency
WEIGHTS, GRAPH, MANIFEST = "weights.safetensors", "forward.onnx", "manifest.json"
CHUNK = 512  # windows a forward: bounds memory whatever is asked for
READ = 96  # the same with the base in the graph, which takes a seventh of a megabyte a window
BOUND = 64  # calendars that the base is kept ready for: to make one ready takes as long as to read a question
CELLS = 400_000  # steps a forward of the base, whose contexts may be long


@dataclass(frozen=True)
class OpenArtifact:
    """A trained version, ready to answer. Safe to use from several threads."""

    manifest: dict[str, Any]
    config: TrainConfig
    calendar: Calendar
    context: int  # steps of history it can use
    horizon: int  # steps it was trained for
    levels: tuple[float, ...]  # trained
    session: Any  # onnxruntime.InferenceSession, which has no types
    design: Design = field(default_factory=Design)  # what it reads beside the target
    seasons: tuple[int, int] | None = None  # that the base is told; None of a trained version
    learned: int | None = (
        None  # steps that its own networks want filled, fewer than `context` with the base beside them
    )
    told: frozenset[str] = frozenset()  # the tables that its graph asks for: a base made earlier knows fewer
    _bound: "dict[Calendar, OpenArtifact]" = field(
        default_factory=dict[Calendar, "OpenArtifact"], init=False, repr=False, compare=False
    )

    @property
    def any_frequency(self) -> bool:
        """Whether it answers for steps of any length: the base."""
        return self.seasons is not None

    @property
    def together(self) -> int:
        """Windows that one forward takes, so that memory stays bounded."""
        if self.learned is None or self.learned == self.context:
            return CHUNK
        return max(1, min(READ, CELLS // self.context))

    def at(self, calendar: Calendar) -> "OpenArtifact":
        """The version for series on `calendar`: a trained one as it is, the base with the seasons of these steps."""
        if not self.any_frequency:
            return self
        found = self._bound.get(calendar)
        if found is None:
            seasons = seasons_of(calendar.frequency)
            context, horizon = reach(*seasons), trained_horizon(seasons[0])
            config = self.config.replace(season=seasons[0])
            found = replace(self, calendar=calendar, seasons=seasons, context=context, horizon=horizon, config=config)
            if len(self._bound) >= BOUND:
                self._bound.clear()
            self._bound[calendar] = found
        return found

    def forecast(
        self, series: Sequence[Series], horizon: int, levels: Sequence[float], samples: int = 0, seed: int = 0
    ) -> Forecast:
        """Forecast `horizon` steps after the end of each series, whatever their number, order or company.

        A series without any known value is answered with NaN and the note `no_history`, one without a covariate that
        the version reads as if that were as usual, with the note `missing_covariates`. `samples` paths a series are
        drawn from the quantile functions with the dependence between steps measured in training; the same seed, key
        and quantiles give the same paths. Raises ValueError on a horizon below 1 or a level outside 0 to 1."""
        asked = _checked(horizon, levels, samples)
        values, present = latest(series, self.context)
        trained, lost = self._answered(series, values, present, horizon)
        drawn = self._draw(series, trained, samples, seed) if samples else None
        mean = self._bounded(trained @ mean_weights(self.levels))
        quantiles = self.at_levels(trained, asked)
        if (least := self.least(values)) is not None:
            mean, quantiles = np.maximum(mean, least[:, None]), np.maximum(quantiles, least[:, None, None])
            drawn = None if drawn is None else np.maximum(drawn, least[:, None, None])
        return Forecast(
            keys=keys_of(series),
            origins=origins_of(series),
            levels=asked,
            mean=mean,
            quantiles=quantiles,
            samples=drawn,
            notes=(*self._notes(present, horizon, asked), *lost),
        )

    def least(self, values: Array) -> Array | None:
        """What no forecast of windows with these known `values` (window, context; 0 where missing) may be below,
        (window,): 0 of the base and of a version that is the base alone, where they are not. None of other versions."""
        if self.learned != 0:
            return None
        return np.where(values.min(axis=1, initial=0.0) >= 0, 0.0, -np.inf)

    def reach(self, horizon: int) -> int:
        """The steps ahead whose features `quantiles` wants for a `horizon`: whole trained ones."""
        return -(-horizon // self.horizon) * self.horizon

    def recoded(self, series: Sequence[Series], columns: Sequence[Column]) -> list[Series]:
        """The series, whose covariates are `columns`, as this version knows them: categories by its own codes."""
        return recoded(series, columns, self.design)

    def _answered(
        self, series: Sequence[Series], values: Array, present: Bools, horizon: int
    ) -> tuple[Array, list[Note]]:
        """The quantiles of each series' newest window, and what was missing beside it."""
        if not self.design:
            return self.quantiles(values, present, horizon), []
        found: list[Array] = []
        lost: dict[str, list[int]] = {}
        for at in range(0, len(series), CHUNK):
            rows = slice(at, at + CHUNK)
            beside = gather(self.design, series[rows], self.calendar, self.context, self.reach(horizon))
            found.append(self.quantiles(values[rows], present[rows], horizon, beside))
            asked = beside[0][:, : self.context + horizon], beside[1]
            for name, missing in lacking(self.design, *asked, self.context).items():
                lost.setdefault(name, []).extend(at + int(place) for place in np.flatnonzero(missing))
        trained = np.concatenate(found) if found else np.zeros((0, horizon, len(self.levels)))
        notes: list[Note] = []
        if lost:
            named = ", ".join(map(repr, list(lost)[:5])) + (f" (and {len(lost) - 5} more)" if len(lost) > 5 else "")
            text = f"the version reads {named}: where values are missing it takes them to be as usual"
            notes.append(Note("missing_covariates", text, tuple(sorted(set().union(*lost.values())))))
        undated = tuple(np.flatnonzero(~dated_of(series)).tolist()) if self.design.calendar else ()
        if undated:
            text = "the version reads the calendar: without a start the place in it is unknown"
            notes.append(Note("missing_start", text, undated))
        return trained, notes

    def quantiles(
        self, values: Array, present: Bools, horizon: int, beside: tuple[Floats, Floats] | None = None
    ) -> Array:
        """Quantiles at the trained levels, (window, horizon, level), NaN for a window without a value. `values`
        (window, context) ends at the origin, 0 where not `present`; `beside` are the features of the steps (window,
        context + `reach`, column) and of the series (window, column), all unknown when left out.

        Beyond the trained horizon the medians are fed back as if they had been seen and the graph is asked again. The
        distance of each quantile from the median there is the root of the sum of squares of the graph's own and the
        one at the end of the part before: the errors of the parts are taken as independent."""
        known: Bools = np.any(present, axis=1)  # before anything is fed back
        least = self.least(values) if horizon > self.horizon else None
        if beside is None and self.design:
            count, steps = len(values), self.context + self.reach(horizon)
            features = np.full((count, steps, len(self.design.steps)), np.nan, np.float32)
            beside = features, np.full((count, len(self.design.static)), np.nan, np.float32)
        parts = [self._forward(values, present, beside, 0, horizon)]
        median = level_weights(self.levels, (0.5,))[0]
        while len(parts) * self.horizon < horizon:
            middle = parts[-1] @ median  # (window, trained horizon)
            values = np.concatenate([values, middle], axis=1)[:, -self.context :]
            present = np.concatenate([present, np.ones_like(middle, np.bool_)], axis=1)[:, -self.context :]
            done = len(parts) * self.horizon
            fresh = self._forward(values, present, beside, done, horizon - done)
            centre = (fresh @ median)[..., None]
            before = parts[-1][:, -1:, :] - middle[:, -1:, None]
            own = fresh - centre
            wider = np.sign(own + before) * np.hypot(own, before)
            fresh = self._bounded(np.maximum.accumulate(centre + wider, axis=2))
            parts.append(fresh if least is None else np.maximum(fresh, least[:, None, None]))
        found = np.concatenate(parts, axis=1)[:, :horizon] if len(parts) > 1 else parts[0][:, :horizon]
        return found if known.all() else np.where(known[:, None, None], found, np.nan)

    def _forward(
        self, values: Array, present: Bools, beside: tuple[Floats, Floats] | None, ahead: int, wanted: int
    ) -> Array:
        """The graph's answer for windows that end `ahead` steps after those that `beside` was gathered for: all
        trained steps, of the base the `wanted` ones."""
        steps = self.horizon if self.seasons is None else min(wanted, self.horizon)
        inputs: dict[str, NDArray[Any]] = {
            "context": np.ascontiguousarray(values),
            "mask": present.astype(np.float32),
        }
        if beside is not None and self.design.steps:
            inputs["features"] = np.ascontiguousarray(beside[0][:, ahead : ahead + self.context + self.horizon])
        if beside is not None and self.design.static:
            inputs["static"] = beside[1]
        size = self.together
        tables = {} if self.seasons is None else self._tables(*self.seasons, steps)
        if 0 < len(values) <= size:
            return self.session.run(None, inputs | tables)[0]
        answers = [
            self.session.run(None, {name: part[at : at + size] for name, part in inputs.items()} | tables)[0]
            for at in range(0, len(values), size)
        ]
        if not answers:
            return np.zeros((0, steps, len(self.levels)))
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def _tables(self, season: int, longer: int, steps: int) -> Tables:
        """What the base's graph asks for beside the values."""
        every = tables_until(season, longer, steps)
        if not self.told.isdisjoint(EARLIER):
            every = every | earlier_tables(season, longer, steps)
        return {name: table for name, table in every.items() if name in self.told}

    def at_levels(self, trained: Array, levels: tuple[float, ...]) -> Array:
        """Quantiles at `levels` (ascending) from those at the trained ones: (…, trained) -> (…, level), within the
        bounds."""
        if levels == self.levels:
            return trained
        found = trained @ level_weights(self.levels, levels).T
        return self._bounded(np.maximum.accumulate(found, axis=-1))

    def _bounded(self, values: Array) -> Array:
        low, high = self.config.minimum, self.config.maximum
        return values if low is None and high is None else np.clip(values, low, high)

    def _draw(self, series: Sequence[Series], trained: Array, samples: int, seed: int) -> Array:
        """Paths (series, sample, horizon). Each series has a stream of its own, so company does not change them."""
        dependence = float(self.manifest["dependence"])
        drawn = np.empty((len(series), samples, trained.shape[1]))
        for place, one in enumerate(series):
            random = np.random.default_rng([seed, zlib.crc32(one.key.encode())])
            scores = paths(random, (samples, trained.shape[1]), dependence)
            drawn[place] = evaluate(trained[place], self.levels, scores.T).T
        return self._bounded(drawn)

    def _notes(self, present: Bools, horizon: int, asked: tuple[float, ...]) -> list[Note]:
        notes: list[Note] = []
        if horizon > self.horizon:
            text = f"trained for {self.horizon} steps: later ones come from its own medians, with wider intervals"
            notes.append(Note("horizon_beyond_trained", text))
        if asked and (asked[0] < self.levels[0] or asked[-1] > self.levels[-1]):
            text = f"trained levels reach from {self.levels[0]:g} to {self.levels[-1]:g}: those beyond are extrapolated"
            notes.append(Note("level_beyond_trained", text))
        if present.all():
            return notes
        some: Bools = np.any(present, axis=1)
        own = self.context if self.learned is None else self.learned
        late = present[:, self.context - own :]
        known = late.sum(axis=1)
        span = np.where(known > 0, own - np.argmax(late, axis=1), 0) if own else known
        for code, rows, text in (
            ("no_history", ~some, "no known value in the history: there is no forecast"),
            ("short_history", some & (span < own), f"history shorter than {own} steps"),
            ("missing_history", some & (known < span), f"missing values in the last {own} steps"),
        ):
            if rows.any():
                notes.append(Note(code, text, tuple(int(place) for place in np.flatnonzero(rows))))
        return notes


def _checked(horizon: int, levels: Sequence[float], samples: int) -> tuple[float, ...]:
    if horizon < 1:
        raise ValueError(f"horizon: expected at least 1, got {horizon}")
    if samples < 0:
        raise ValueError(f"samples: expected at least 0, got {samples}")
    for level in levels:
        if not 0.0 < level < 1.0:
            raise ValueError(f"levels: expected numbers between 0 and 1, got {level!r}")
    return tuple(sorted(set(levels)))


def base_folder() -> Path:
    """Where the base that ships with the package lies."""
    return Path(__file__).parent / BASE


_AHEAD: dict[str, "Future[Any]"] = {}  # sessions of graphs that nobody has asked for yet, by the graph's SHA-256


def open_ahead(folder: Path) -> None:
    """Begin to load the graph in `folder`, in a thread, for the first `open_artifact` of the same one to take over: for
    a process that has more to load, since the runtime takes a quarter of a second for the base's and leaves the
    interpreter free. Raises ValueError as `open_artifact`."""
    manifest = read_manifest(folder)
    graph = read_checked(folder, GRAPH, manifest)
    pool = ThreadPoolExecutor(1)
    _AHEAD[manifest["files"][GRAPH]["sha256"]] = pool.submit(_session, graph)
    pool.shutdown(wait=False)  # it ends when it is done


def _session(graph: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a forward takes less than handing it to a second thread
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # By itself the runtime takes what looks like its own format, which `check_graph` does not read.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def open_artifact(folder: Path) -> OpenArtifact:
    """The version in `folder`. Raises ValueError when a file is missing or changed, or its format is not ours to
    read."""
    manifest = read_manifest(folder)
    graph = read_checked(folder, GRAPH, manifest)
    ahead = _AHEAD.pop(manifest["files"][GRAPH]["sha256"], None)
    session = _session(graph) if ahead is None else ahead.result()
    config = TrainConfig.parse(manifest["config"])
    if manifest.get("kind") == BASE:
        told = frozenset(one.name for one in session.get_inputs()) - {"context", "mask"}
        if odd := sorted(told.difference(TABLES, EARLIER) or {"ahead"} - told):
            named = ", ".join(odd)
            raise ValueError(f"{folder / GRAPH}: expected a base's inputs, our tables, got others or too few ({named})")
        step = Calendar.of("step")
        base = OpenArtifact(
            manifest, config, step, 1, 1, config.quantiles, session, seasons=(1, 1), learned=0, told=told
        )
        return base.at(step)
    calendar = Calendar.of(manifest["calendar"]["frequency"], manifest["calendar"]["time_zone"])
    return OpenArtifact(
        manifest=manifest,
        config=config,
        calendar=calendar,
        context=int(manifest["config"]["context"]),
        horizon=int(manifest["config"]["horizon"]),
        levels=config.quantiles,
        session=session,
        design=Design.parse(manifest["features"]),
        learned=_learned(manifest),
    )


def _learned(manifest: dict[str, Any]) -> int:
    """Steps that the networks of a version want filled: those of the base, which takes any history, are not counted."""
    members = manifest["members"]
    known = manifest["network"].get("pretrained") or [None] * len(members)
    own = [one["config"]["context"] for one, base in zip(members, known, strict=True) if base is None]
    return max(own, default=0)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in `folder`. Raises ValueError when it is missing, no JSON object or of another format."""
    try:
        manifest: Any = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / MANIFEST}: expected a manifest, got {error}") from error
    found: Any = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise ValueError(f"{folder / MANIFEST}: expected format {FORMAT}, got {found!r}")
    return manifest


def read_checked(folder: Path, name: str, manifest: dict[str, Any]) -> bytes:
    """The content of one of the artifact's files. Raises ValueError when it is missing or is not the one the manifest
    names."""
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise ValueError(f"{folder / name}: expected a file of the artifact, got {error}") from error
    expected, found = manifest["files"][name]["sha256"], hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(f"{folder / name}: expected content with SHA-256 {expected}, got {found}")
    return content
