"""Which options suit the data: short runs, judged on held-out steps, one field after the other."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.calendar import Calendar
from models.calibration import Judges
from models.config import Progress, Run, TrainConfig
from models.course import Course, series_weights
from models.forecaster import Member
from models.learning import learn
from models.memory import give_back
from models.parent import Parent
from models.presets import Facts, bases_of, options
from models.series import Series
from models.splits import MANY, Split
from models.windows import Panel

Ints = NDArray[np.int64]

TRIAL_STEPS = 40  # of a short run that tries an option
LATER = {"aligned": 80}  # steps for what takes longer to show

CLOSE = 1.06  # times the best score: scalings up to it have a member


@dataclass(frozen=True)
class Material:
    """What every course of one run is made from. `name` is a fingerprint of the series, and of the version that the run
    starts from, its `parent`, where there is one."""

    series: Sequence[Series]
    panel: Panel
    calendar: Calendar
    device: torch.device
    name: str
    split: Split
    parent: Parent | None = None

    def course(self, config: TrainConfig, learned: Ints, until: Ints, place: int = 0) -> Course:
        """A course over the first `learned` (series,) steps of each series, that looks at those up to `until`: of a new
        network, or of the parent's network at `place`."""
        if self.parent is not None:
            member = self.parent.member(place, config)
            return self.parent.course(member, self.panel, learned, until, self.device)
        torch.manual_seed(config.seed)
        beside = self.panel.beside
        design = None if beside is None else beside.design.part(bool(config.calendar), bool(config.covariates))
        member = Member(config, bases_of(config, self.calendar), design)
        if member.beside is not None:
            member.beside.fit(self.panel, learned)
        return Course(member, self.panel, learned, until, self.device)

    def judges(self, windows: tuple[Ints, Ints], config: TrainConfig) -> Judges:
        """The windows (which, ends) to judge by, with their truth as far as it may be looked at."""
        which, ends = windows
        horizon = config.horizon or 1
        ahead = np.arange(horizon) < (self.split.judged[which] - ends)[:, None]
        truth = np.where(ahead, self.panel.cut(which, ends, 0, horizon), np.nan)
        units = series_weights(self.panel, self.split.judged, config.season or 1)[which]
        return Judges(self.panel, windows, truth, units, self._seen(which, ends), config.quantiles)

    def taught(self, again: bool) -> dict[str, int]:
        """Of few series, the absolute step up to which each was learned from, by the digest of its key: the next
        version to start from this one then knows what it can judge by. Of many, the same ones judge again."""
        if len(self.series) >= MANY:
            return {}
        ends = self._starts() + (self.split.judged if again else self.split.learned)
        return {_digest(one.key): int(end) for one, end in zip(self.series, ends, strict=True)}

    def _seen(self, which: Ints, ends: Ints) -> bool:
        """Whether the parent has learned from most of these windows' targets."""
        if self.parent is None or not len(which):
            return False
        taught = self.parent.manifest["taught"]
        until = np.array([taught.get(_digest(one.key), one.start) for one in self.series])
        return bool(np.mean(self._starts()[which] + ends < until[which]) > 0.5)

    def _starts(self) -> Ints:
        """The absolute step of each series' first in the panel."""
        return self.panel.skipped + np.array([one.start for one in self.series], np.int64)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Found:
    """What short runs said: the config, field -> reason, the scalings from the best to the worst (those close to the
    best), and the steps the runs took."""

    config: TrainConfig
    reasons: dict[str, str]
    scalings: tuple[str, ...]
    done: int


def try_options(material: Material, config: TrainConfig, asked: TrainConfig, facts: Facts, run: Run) -> Found:
    """The complete `config` with those options that `asked` left open and that do best in short runs. The same config
    comes back to the same folder: nothing is tried twice."""
    open_fields = options(asked, config, facts)
    scalings = (config.scaling or "std",)
    if (config.steps or 0) <= TRIAL_STEPS:
        return Found(config, {}, scalings, 0)
    reasons: dict[str, str] = {}
    lengths = {name: min(LATER.get(name, TRIAL_STEPS), config.steps or 1) for name in open_fields}
    total = sum(len(values) * lengths[name] for name, values in open_fields.items()) + (config.steps or 1)
    done = 0
    for name, values in open_fields.items():
        scores: list[float] = []
        for value in values:
            trial = config.replace(**{name: value}, steps=lengths[name])
            part = part_of(run, done, total, f"trying {name} {value}, ")
            folder = run.folder / "tried" / hashlib.sha256(json.dumps(trial.document()).encode()).hexdigest()[:16]
            course = material.course(trial, material.split.learned, material.split.judged)
            scores.append(learn(course, dataclasses.replace(part, folder=folder), material.name).score)
            give_back()
            done += lengths[name]
        if not all(math.isfinite(score) for score in scores):
            continue
        order = [int(place) for place in np.argsort(scores, kind="stable")]
        best = values[order[0]]
        tried = ", ".join(f"{value} {score:.3f}" for value, score in zip(values, scores, strict=True))
        config = config.replace(**{name: best})
        reasons[name] = f"{name} {best}: best in short runs on earlier held-out steps ({tried})."
        if name == "scaling":
            scalings = tuple(values[place] for place in order if scores[place] <= CLOSE * scores[order[0]])
    return Found(config, reasons, scalings, done)


def part_of(run: Run, done: int, total: int, message: str = "", *, first: bool = False) -> Run:
    """A part of a run, whose steps begin at `done` of `total`, so that progress and checkpoints only ever go up.
    `first`: it is the learning of the version's first network."""

    def tell(progress: Progress) -> None:
        text = f"{message}step {progress.step} of {progress.total}"
        known = {"step": done + progress.step, "total": total, "checkpoint": done + progress.checkpoint}
        learned = progress.step / progress.total if first and progress.total else None
        run.on_progress(dataclasses.replace(progress, message=text, learned=learned, **known))

    return dataclasses.replace(run, on_progress=tell)
