"""Training: series and a config in, a published-ready artifact with honest scores out. The loop is `learn`."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.artifact import calendar_facts, write_artifact, write_manifest
from models.backtesting import backtest
from models.calendar import Calendar
from models.checkpoint import Checkpoint, gather, read_checkpoint, restore, write_checkpoint
from models.config import BacktestPlan, Progress, Run, Stopped, TrainConfig, TrainResult
from models.course import Course
from models.device import pick, threads_for
from models.forecaster import Forecaster
from models.inference import open_artifact
from models.presets import EVALUATIONS, Facts, bases_of, complete, options
from models.quantiles import scores_of
from models.series import Series
from models.windows import Panel, held, known_lengths

DECAY = 0.995  # of the average of the weights that is scored and kept
CHECKPOINT_SECONDS = 5.0
PROGRESS_SECONDS = 0.5
TRIAL_STEPS = 80  # of a short run that tries an option, at least
TRIED_ON = 100  # held-out steps a short run is scored on, over all series, where they are long enough


def train(series: Sequence[Series], calendar: Calendar, config: TrainConfig, run: Run) -> TrainResult:
    """Train a forecaster on `series` and write its artifact into `run.folder / "artifact"`.

    The last steps of each series (`windows.held`) are held out: never learned from, looked at for early stopping, and
    what the scores are over. The same series, config, seed and device give the same weights, also when the run was
    stopped and resumed. Raises ValueError when no series has two known values, Stopped when `run.should_stop` says
    so."""
    began = time.monotonic()
    device = pick(run.device)
    usable = [one for one in series if np.count_nonzero(~np.isnan(one.target)) >= 2]
    if not usable:
        raise ValueError(f"series: expected at least one with two known values, got none in {len(series)}")
    known = Facts(calendar, known_lengths(usable))
    full, reasons = complete(config, known)
    panel = Panel.of(usable, max(full.context or 1, full.horizon or 1))
    material = Material(panel, calendar, device, fingerprint(usable))
    with threads_for((full.batch or 1) * (full.hidden or 1)):
        full, tried, done = try_options(material, full, run, options(config, known))
        course = material.course(full, panel.lengths)
        state = learn(course, _part(run, done, done + (full.steps or 1)), material.name)
    facts = {
        "calendar": calendar_facts(calendar),
        "dependence": dependence(course),
        "reasons": list((reasons | tried).values()),
        "lineage": dict(run.lineage),
        "device": device.type,
    }
    return _publish(course, usable, run, facts, time.monotonic() - began + state.earlier)


@dataclass(frozen=True)
class Material:
    """What every course of one run is made from. `name` is a fingerprint of the series."""

    panel: Panel
    calendar: Calendar
    device: torch.device
    name: str

    def course(self, config: TrainConfig, until: NDArray[np.int64], horizons: int = 1) -> Course:
        """A course over the first `until` (series,) steps of each series, of which it holds out `horizons` horizons
        where a quarter of the series is as long, else what `windows.held` says."""
        out = np.maximum(held(until, config.horizon or 1), np.minimum(horizons * (config.horizon or 1), until // 4))
        torch.manual_seed(config.seed)
        forecaster = Forecaster(config, bases_of(config, self.calendar))
        return Course(forecaster, self.panel, until - out, until, self.device)


def try_options(
    material: Material, config: TrainConfig, run: Run, options: Mapping[str, Sequence[Any]]
) -> tuple[TrainConfig, dict[str, str], int]:
    """The config with those `options` (field -> values), one field after the other, that do best in short runs, field
    -> reason of each, and the steps the runs took. The same config comes back to the same folder: nothing is tried
    twice. The runs are scored on steps before those that the version is scored on; where these are too few, the
    config stays as it is."""
    horizon, lengths = config.horizon or 1, material.panel.lengths
    until = lengths - held(lengths, horizon)
    long = int(np.sum(until >= 4 * horizon))  # series that can do without another horizon
    horizons = min(8, max(1, -(-TRIED_ON // max(1, long * horizon))))
    steps = max(TRIAL_STEPS, (config.steps or 1) // 10)
    if long * horizons * horizon < TRIED_ON // 4 or steps >= (config.steps or 1):
        return config, {}, 0
    reasons: dict[str, str] = {}
    asides = sum(len(values) for values in options.values())
    done = 0
    for name, values in options.items():
        scores: list[float] = []
        for value in values:
            asked = config.replace(**{name: value}, steps=steps)
            part = _part(run, done, asides * steps + (config.steps or 1), f"trying {name} {value}")
            folder = run.folder / "tried" / hashlib.sha256(json.dumps(asked.document()).encode()).hexdigest()[:16]
            course = material.course(asked, until, horizons)
            scores.append(learn(course, dataclasses.replace(part, folder=folder), material.name).score)
            done += steps
        if not all(math.isfinite(score) for score in scores):
            continue
        best = values[int(np.argmin(scores))]
        tried = ", ".join(f"{value} {score:.3f}" for value, score in zip(values, scores, strict=True))
        config = config.replace(**{name: best})
        reasons[name] = f"{name} {best}: best in short runs on earlier held-out steps ({tried})."
    return config, reasons, done


def _part(run: Run, done: int, total: int, message: str = "") -> Run:
    """A part of a run, whose steps begin at `done` of `total`, so that progress and checkpoints only ever go up."""

    def tell(progress: Progress) -> None:
        text = message or f"step {progress.step} of {progress.total}"
        known = {"step": done + progress.step, "total": total, "checkpoint": done + progress.checkpoint}
        run.on_progress(dataclasses.replace(progress, message=text, **known))

    return dataclasses.replace(run, on_progress=tell)


@dataclass
class State:
    """What moves while a network learns. `random` draws the windows; `average` is the running mean of the weights,
    `best` the average at the best look so far; `stale` counts looks since then."""

    random: np.random.Generator
    optimiser: torch.optim.Optimizer
    average: list[Tensor]
    best: list[Tensor]
    batch: int
    step: int = 0
    score: float = math.inf
    mase: float = math.nan
    stale: int = 0
    seconds: float = 0.0  # spent learning, `earlier` of them by attempts before this one
    saved: int = 0
    earlier: float = 0.0
    loss: float = math.nan


def learn(course: Course, run: Run, name: str) -> State:
    """Train the course's forecaster in place and leave it with the weights that did best on the held-out steps; the
    untrained mix of bases counts as a candidate. Answers the state at the end.

    Adam with warm-up and cosine, gradients clipped, an exponential average of the weights; out of GPU memory halves the
    batch and goes on. A checkpoint in `run.folder` of the same config and data (`name`) is resumed. Raises Stopped."""
    config, parameters = course.config, list(course.forecaster.network.parameters())
    total, patience = config.steps or 1, config.patience or 1
    every = max(1, total // EVALUATIONS)
    examine = course.examination()
    state = _begin(course, run.folder, name)
    clock = told = saved = time.monotonic()
    if state.step == 0:
        _look(course, state, examine)
    while state.step < total and state.stale < patience and len(course.sampler.which):
        for group in state.optimiser.param_groups:
            group["lr"] = (config.learning_rate or 1e-3) * _rate(state.step, total)
        try:
            loss = course.loss(course.draw(state.random, state.batch))
            state.optimiser.zero_grad(set_to_none=True)
            loss.backward()
        except torch.OutOfMemoryError:
            if state.batch == 1:
                raise
            state.batch //= 2
            torch.cuda.empty_cache()
            continue
        torch.nn.utils.clip_grad_norm_(parameters, config.clip)
        state.optimiser.step()
        state.step += 1
        with torch.no_grad():
            decay = min(DECAY, (1 + state.step) / (10 + state.step))
            for average, parameter in zip(state.average, parameters, strict=True):
                average.lerp_(parameter, 1.0 - decay)
        if state.step % every == 0 or state.step == total:
            state.loss = float(loss.detach())
            _look(course, state, examine)
        now = time.monotonic()
        state.seconds = state.earlier + now - clock
        stop = run.should_stop()
        if stop or now - saved >= CHECKPOINT_SECONDS:
            _save(course, state, run.folder, name)
            saved = now
        if stop:
            raise Stopped(f"stopped at step {state.step} of {total}")
        if now - told >= PROGRESS_SECONDS:
            told = now
            run.on_progress(_progress(state, total))
    _save(course, state, run.folder, name)
    run.on_progress(_progress(state, total))
    with torch.no_grad():
        for parameter, best in zip(parameters, state.best, strict=True):
            parameter.copy_(best)
    return state


def _begin(course: Course, folder: Path, name: str) -> State:
    """A fresh state, or the one of the checkpoint in `folder`."""
    config, network = course.config, course.forecaster.network
    random = np.random.default_rng(config.seed)
    found = read_checkpoint(folder, _key(course, name))
    if found is None:
        course.start(random)
    optimiser = torch.optim.Adam(network.parameters(), fused=course.device.type != "mps")
    copies = [[p.detach().clone() for p in network.parameters()] for _ in range(2)]
    state = State(random, optimiser, copies[0], copies[1], config.batch or 1)
    if found is not None:
        with torch.no_grad():
            restore(found.tensors, network, optimiser, {"average": state.average, "best": state.best})
        random.bit_generator.state = found.facts.pop("random")
        for key, value in found.facts.items():
            setattr(state, key, value)
        state.earlier, state.saved = state.seconds, state.step
    return state


SAVED = ("batch", "step", "score", "mase", "stale", "seconds", "loss")


def _save(course: Course, state: State, folder: Path, name: str) -> None:
    facts: dict[str, Any] = {key: getattr(state, key) for key in SAVED}
    facts["random"] = state.random.bit_generator.state
    copies = {"average": state.average, "best": state.best}
    tensors = gather(course.forecaster.network, state.optimiser, copies)
    write_checkpoint(folder, Checkpoint(_key(course, name), facts, tensors))
    state.saved = state.step


def _key(course: Course, name: str) -> str:
    """What a checkpoint must bear to be resumed: the config beside the series' fingerprint."""
    return f"{name} {json.dumps(course.config.document(), sort_keys=True)}"


def _look(course: Course, state: State, examine: Any) -> None:
    """Score the averaged weights on the held-out origins and remember them if they are the best so far."""
    parameters = list(course.forecaster.network.parameters())
    with torch.no_grad():
        kept = [p.detach().clone() for p in parameters]
        for parameter, average in zip(parameters, state.average, strict=True):
            parameter.copy_(average)
        score, mase = examine()
        for parameter, own in zip(parameters, kept, strict=True):
            parameter.copy_(own)
    if not score >= state.score:  # NaN, nothing is held out: the newest weights are the best there is
        state.score, state.mase, state.stale = score, mase, 0
        for best, average in zip(state.best, state.average, strict=True):
            best.copy_(average)
    else:
        state.stale += 1


def _rate(step: int, total: int) -> float:
    """The share of the learning rate at a step: a short linear warm-up, then half a cosine down to 0."""
    warm = min(1.0, (step + 1) / max(10, total // 20))
    return warm * 0.5 * (1.0 + math.cos(math.pi * step / total))


def _progress(state: State, total: int) -> Progress:
    metrics = {"validation_loss": state.score, "validation_mase": state.mase, "train_loss": state.loss}
    metrics = {key: value for key, value in metrics.items() if math.isfinite(value)}
    return Progress(state.step, total, "", metrics, state.saved)


def fingerprint(series: Sequence[Series]) -> str:
    """A name for what the series hold: SHA-256 over keys, places and values."""
    digest = hashlib.sha256()
    for one in series:
        digest.update(f"{one.key}\0{one.start}\0{len(one.target)}\0".encode())
        digest.update(one.target.tobytes())
    return digest.hexdigest()


def dependence(course: Course) -> float:
    """How the normal scores of neighbouring steps' truths correlate under the forecasts at the held-out origins, 0 to
    0.99: what sample paths are drawn with."""
    usable = np.flatnonzero((course.limits >= 1) & (course.until > course.limits))[:1024]
    if not len(usable):
        return 0.0
    batch = course.batch(usable, course.limits[usable], course.until)
    with torch.no_grad():
        quantiles = course.forecaster.scaled_quantiles(batch.ready).cpu().double().numpy()
    truth = torch.where(batch.known > 0, batch.target, torch.nan).cpu().double().numpy()
    scores = scores_of(truth, quantiles, course.config.quantiles)
    first, second = scores[:, :-1].ravel(), scores[:, 1:].ravel()
    both = ~np.isnan(first) & ~np.isnan(second)
    if np.count_nonzero(both) < 8 or not first[both].std() or not second[both].std():
        return 0.0
    return float(np.clip(np.corrcoef(first[both], second[both])[0, 1], 0.0, 0.99))


def _publish(course: Course, series: Sequence[Series], run: Run, facts: dict[str, Any], seconds: float) -> TrainResult:
    """Write the artifact, score it as any backtest would, and put the scores into its manifest."""
    config, panel = course.config, course.panel
    which = np.linspace(0, len(panel.lengths) - 1, 33).astype(np.int64)
    windows = torch.from_numpy(panel.cut(which, panel.lengths[which], config.context or 1, 0))
    folder = run.folder / "artifact"
    write_artifact(folder, course.forecaster, windows, facts)
    opened = open_artifact(folder)
    plan = BacktestPlan(origins=1, horizon=config.horizon or 1, step=config.horizon or 1)
    result = backtest(opened, series, plan)
    scores: dict[str, dict[str, float]] = {}
    for row in result.scores:
        scores.setdefault(row["forecaster"], {})[row["metric"]] = row["value"]
    origins = {
        "origins": plan.origins,
        "horizon": plan.horizon,
        "step": plan.step,
        "series": len(result.origins),
        "first": min((row["first"] for row in result.origins), default=None),
        "last": max((row["last"] for row in result.origins), default=None),
    }
    metrics = scores.pop("version", {})
    manifest: dict[str, Any] = {
        **opened.manifest,
        "metrics": metrics,
        "baselines": scores,
        "origins": origins,
        "train_seconds": seconds,
    }
    write_manifest(folder, manifest)
    return TrainResult(
        artifact=folder,
        config=config,
        reasons=tuple(facts["reasons"]),
        metrics=metrics,
        baselines=scores,
        origins=origins,
        parameters=manifest["network"]["parameters"],
        device=str(course.device),
        seconds=seconds,
    )
