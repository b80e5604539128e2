"""The training loop: one member, its course, a folder for checkpoints. `learn` is all of it, top to bottom."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.checkpoint import Checkpoint, gather, read_checkpoint, restore, write_checkpoint
from models.config import Progress, Run, Stopped, TrainConfig
from models.course import REUSED, Batch, Course

EVALUATIONS = 12  # looks at the held-out steps in a whole run
BETAS = (0.9, 0.999)
DECAY = 0.99  # of the average of the weights that is scored and kept
CHECKPOINT_SECONDS = 5.0
PROGRESS_SECONDS = 0.5


@dataclass
class State:
    """What moves while a network learns. `random` draws the windows; `average` is the running mean of the weights,
    `best` the average at the best look so far (`best_step`); `stale` counts looks since then."""

    random: np.random.Generator
    moments: tuple[list[Tensor], list[Tensor]]
    average: list[Tensor]
    best: list[Tensor]
    batch: int
    step: int = 0
    score: float = math.inf
    mase: float = math.nan
    best_step: int = 0
    stale: int = 0
    seconds: float = 0.0  # spent learning, `earlier` of them by attempts before this one
    saved: int = 0
    earlier: float = 0.0
    loss: float = math.nan
    first: float = math.nan  # score before the first step


def learn(course: Course, run: Run, name: str, last: int | None = None) -> State:
    """Train the course's member in place and leave it with the weights that did best on the held-out steps; the
    untrained mix of bases counts as a candidate. With `last`, stop after that step and keep what is there. Answers
    the state at the end.

    Adam with warm-up and cosine, gradients clipped, an exponential average of the weights; out of GPU memory halves the
    batch and goes on. A checkpoint in `run.folder` of the same config and data (`name`) is resumed. Raises Stopped."""
    config, parameters = course.config, [p for p in course.member.parameters() if p.requires_grad]
    total, patience = config.steps or 0, config.patience or 1
    end = total if last is None else min(last, total)
    every = max(1, total // EVALUATIONS)
    examine = course.examination() if last is None else _no_score
    state = _begin(course, run.folder, name)
    clock = told = saved = time.monotonic()
    if state.step == 0:
        _look(course, state, examine)
        state.first = state.score
    pool: tuple[int, Batch] | None = None
    while state.step < end and state.stale < patience and len(course.sampler.which):
        try:
            number = state.step * (config.batch or 1) // (course.pooled * REUSED)
            if pool is None or pool[0] != number:
                pool = None  # both at once would be twice the memory
                pool = number, course.pool(config.seed * 1_000_003 + number)
            chosen = torch.from_numpy(state.random.integers(course.pooled, size=state.batch)).to(course.device)
            loss = course.loss(pool[1].rows(chosen))
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        except torch.OutOfMemoryError:
            if state.batch == 1:
                raise
            state.batch //= 2
            torch.cuda.empty_cache()
            continue
        _advance(state, parameters, gradients, config, (config.learning_rate or 1e-3) * _rate(state.step, total))
        looked = state.step % every == 0 or state.step == end
        if looked:
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
        if looked or now - told >= PROGRESS_SECONDS:
            told = now
            run.on_progress(_progress(state, total))
    _save(course, state, run.folder, name)
    run.on_progress(_progress(state, total))
    with torch.no_grad():
        for parameter, best in zip(parameters, state.best, strict=True):
            parameter.copy_(best)
    return state


def _advance(
    state: State, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], config: TrainConfig, rate: float
) -> None:
    """One step of Adam (Kingma and Ba 2015, algorithm 1) with clipped gradients, and of the weights' average. By hand:
    torch's first optimiser loads its compiler, which takes longer than a small forecaster needs to learn."""
    found = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    with torch.no_grad():
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(found)))  # pyright: ignore
        torch._foreach_mul_(found, (config.clip / (norm + 1e-6)).clamp_max(1.0))  # pyright: ignore
        state.step += 1
        first, second = state.moments
        torch._foreach_lerp_(first, found, 1.0 - BETAS[0])  # pyright: ignore
        torch._foreach_mul_(second, BETAS[1])  # pyright: ignore
        torch._foreach_addcmul_(second, found, found, 1.0 - BETAS[1])  # pyright: ignore
        room = torch._foreach_sqrt(second)  # pyright: ignore
        torch._foreach_div_(room, math.sqrt(1.0 - BETAS[1] ** state.step))  # pyright: ignore
        torch._foreach_add_(room, 1e-8)  # pyright: ignore
        torch._foreach_addcdiv_(parameters, first, room, -rate / (1.0 - BETAS[0] ** state.step))  # pyright: ignore
        decay = min(DECAY, (1 + state.step) / (10 + state.step))
        torch._foreach_lerp_(state.average, parameters, 1.0 - decay)  # pyright: ignore


def _no_score() -> tuple[float, float]:
    return math.nan, math.nan


def _begin(course: Course, folder: Path, name: str) -> State:
    """A fresh state, or the one of the checkpoint in `folder`."""
    config, member = course.config, course.member
    random = np.random.default_rng(config.seed)
    found = read_checkpoint(folder, _key(course, name))
    if found is None:
        course.start(random)
    parameters = [p for p in member.parameters() if p.requires_grad]
    copies = [[p.detach().clone() for p in parameters] for _ in range(2)]
    moments = [[torch.zeros_like(p) for p in parameters] for _ in range(2)]
    state = State(random, (moments[0], moments[1]), copies[0], copies[1], config.batch or 1)
    if found is not None:
        with torch.no_grad():
            restore(found.tensors, member, _copies(state))
        random.bit_generator.state = found.facts.pop("random")
        for key, value in found.facts.items():
            setattr(state, key, value)
        state.earlier, state.saved = state.seconds, state.step
    return state


SAVED = ("batch", "step", "score", "mase", "best_step", "stale", "seconds", "loss", "first")


def _save(course: Course, state: State, folder: Path, name: str) -> None:
    facts: dict[str, Any] = {key: getattr(state, key) for key in SAVED}
    facts["random"] = state.random.bit_generator.state
    tensors = gather(course.member, _copies(state))
    write_checkpoint(folder, Checkpoint(_key(course, name), facts, tensors))
    state.saved = state.step


def _copies(state: State) -> dict[str, list[Tensor]]:
    return {"average": state.average, "best": state.best, "first": state.moments[0], "second": state.moments[1]}


def _key(course: Course, name: str) -> str:
    """What a checkpoint must bear to be resumed: the config and what is held out beside the series' fingerprint."""
    parts = f"{int(course.limits.sum())}/{int(course.until.sum())}"
    return f"{name} {parts} {json.dumps(course.config.document(), sort_keys=True)}"


def _look(course: Course, state: State, examine: Callable[[], tuple[float, float]]) -> None:
    """Score the averaged weights on the held-out origins and remember them if they are the best so far."""
    parameters = [p for p in course.member.parameters() if p.requires_grad]
    with torch.no_grad():
        kept = [p.detach().clone() for p in parameters]
        for parameter, average in zip(parameters, state.average, strict=True):
            parameter.copy_(average)
        score, mase = examine()
        for parameter, own in zip(parameters, kept, strict=True):
            parameter.copy_(own)
    if not score >= state.score:  # NaN, nothing is held out: the newest weights are the best there is
        state.score, state.mase, state.stale, state.best_step = score, mase, 0, state.step
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
    return Progress(state.step, total, "", metrics, state.saved, "windows", state.batch)
