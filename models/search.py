"""Which options suit the data: short runs, judged on held-out steps, one field after the other."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.calendar import Calendar
from models.config import Progress, Run, TrainConfig
from models.course import Course
from models.forecaster import Member
from models.learning import learn
from models.presets import Facts, bases_of, options
from models.splits import Split
from models.windows import Panel

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

TRIAL_STEPS = 60  # of a short run that tries an option


@dataclass(frozen=True)
class Material:
    """What every course of one run is made from. `name` is a fingerprint of the series."""

    panel: Panel
    calendar: Calendar
    device: torch.device
    name: str
    split: Split

    def course(self, config: TrainConfig, learned: Ints, until: Ints) -> Course:
        """A course over the first `learned` (series,) steps of each series, that looks at those up to `until`."""
        torch.manual_seed(config.seed)
        member = Member(config, bases_of(config, self.calendar))
        return Course(member, self.panel, learned, until, self.device)

    def truth(self, windows: tuple[Ints, Ints], horizon: int) -> Array:
        """The targets of windows (which, ends) as far as they may be looked at, (window, horizon), else NaN."""
        which, ends = windows
        left = self.split.judged[which] - ends
        return np.where(np.arange(horizon) < left[:, None], self.panel.cut(which, ends, 0, horizon), np.nan)


def try_options(
    material: Material, config: TrainConfig, asked: TrainConfig, facts: Facts, run: Run
) -> tuple[TrainConfig, dict[str, str], int]:
    """The complete `config` with those options that `asked` left open and that do best in short runs, field -> reason
    of each, and the steps the runs took. The same config comes back to the same folder: nothing is tried twice."""
    open_fields = options(asked, config, facts)
    steps = TRIAL_STEPS
    if not open_fields or steps >= (config.steps or 1):
        return config, {}, 0
    reasons: dict[str, str] = {}
    total = sum(len(values) for values in open_fields.values()) * steps + (config.steps or 1)
    done = 0
    for name, values in open_fields.items():
        scores: list[float] = []
        for value in values:
            trial = config.replace(**{name: value}, steps=steps)
            part = part_of(run, done, total, f"trying {name} {value}, ")
            folder = run.folder / "tried" / hashlib.sha256(json.dumps(trial.document()).encode()).hexdigest()[:16]
            course = material.course(trial, material.split.learned, material.split.judged)
            scores.append(learn(course, dataclasses.replace(part, folder=folder), material.name).score)
            done += steps
        if not all(math.isfinite(score) for score in scores):
            continue
        best = values[int(np.argmin(scores))]
        tried = ", ".join(f"{value} {score:.3f}" for value, score in zip(values, scores, strict=True))
        config = config.replace(**{name: best})
        reasons[name] = f"{name} {best}: best in short runs on earlier held-out steps ({tried})."
    return config, reasons, done


def part_of(run: Run, done: int, total: int, message: str = "") -> Run:
    """A part of a run, whose steps begin at `done` of `total`, so that progress and checkpoints only ever go up."""

    def tell(progress: Progress) -> None:
        text = f"{message}step {progress.step} of {progress.total}"
        known = {"step": done + progress.step, "total": total, "checkpoint": done + progress.checkpoint}
        run.on_progress(dataclasses.replace(progress, message=text, **known))

    return dataclasses.replace(run, on_progress=tell)
