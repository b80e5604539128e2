"""Training: series and a config in, a published-ready artifact with honest scores out."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.adapting import Base, Based, assembled, base_for, judged, weigh
from models.artifact import calendar_facts, design_of, write_artifact, write_manifest
from models.backtesting import backtest
from models.calendar import Calendar
from models.calibration import Mixture
from models.config import BacktestPlan, Progress, Run, TrainConfig, TrainResult
from models.course import Course
from models.device import pick, threads_for
from models.features import beside, offer, recoded
from models.forecaster import AnyMember, Forecaster, inputs_of
from models.inference import BASE, open_artifact, read_manifest
from models.learning import State, learn
from models.memory import give_back
from models.parent import Parent
from models.presets import Facts, complete, members_of, options
from models.search import Material, part_of, try_options
from models.series import Column, Series
from models.splits import split
from models.warm import continued, gentler
from models.windows import Panel

SCORED = 1_000  # steps ahead in one forward of the finished version, which takes up to nine kilobytes for each


def train(
    series: Sequence[Series], calendar: Calendar, config: TrainConfig, run: Run, columns: Sequence[Column] = ()
) -> TrainResult:
    """Train a forecaster on `series` and write its artifact into `run.folder / "artifact"`. `columns` says which of
    their covariates are categories.

    The last steps of each series (`windows.held`) are held out for the scores: never learned from nor looked at. The
    steps before them choose options, stop the learning and calibrate the intervals (`splits`). The same series, config,
    seed and device give the same weights, also when the run was stopped and resumed. With `run.start` the networks of
    that version are learned on (`warm`), and it is published anew if nothing learned beats it. Else the base that ships
    with the package is a candidate, unless the config asks for a network of its own (`adapting`). Raises ValueError
    when no series has two known values, the config asks for what values below 0 do not fit, or the version to start
    from does not fit, Stopped when `run.should_stop` says so."""
    began = time.monotonic()
    device = pick(run.device)
    usable = [one for one in series if np.count_nonzero(~np.isnan(one.target)) >= 2]
    if not usable:
        raise ValueError(f"series: expected at least one with two known values, got none in {len(series)}")
    _refuse_negative(config, usable)
    sources = Sources.of(config, calendar, run)
    asked, parent, base, alone = sources.asked, sources.parent, sources.base, sources.alone
    known = Facts.of(calendar, usable)
    full, reasons = complete(asked, known)
    if parent is not None:
        full, reasons = gentler(asked, full, parent.manifest, reasons | {"start": parent.said(full)})
    full = full.replace(pretrained=False)  # each network's own; the base says otherwise
    bases = [] if base is None else base.configs(asked, full, known.lengths)
    longest = 1 if alone else max(one.context or 1 for one in members_of(asked, full, known, ()))
    panel = Panel.of(usable, max(longest, full.horizon or 1, *(one.context or 1 for one in bases)))
    name, parts = fingerprint(usable) + sources.weights, split(panel.lengths, full.horizon or 1)
    material: Material = Based(usable, panel, calendar, device, name, parts, parent, base)
    if not alone:
        offered = "calendar" in options(asked, full, known)
        material, full, missing = with_features(material, columns, full, offered)
        reasons |= missing
    configs, done = list[TrainConfig](), 0
    with threads_for((full.batch or 1) * (full.hidden or 1)):
        if parent is not None:
            configs = parent.configs(full)
        elif not alone:
            options_found = try_options(material, full, asked, known, run)
            full, done = options_found.config, options_found.done
            reasons |= options_found.reasons
            configs = members_of(asked, full, known, options_found.scalings)
            full = full.replace(context=longest)
        forecaster, found = fit(material, full, [*configs, *bases], run, done)
    if base is not None and not found["networks"]:
        reasons = base.reasons(config, known, reasons)
    facts = {
        "calendar": calendar_facts(calendar),
        "dependence": found["dependence"],
        "taught": found["taught"],
        "judged": found["judged"],
        "members": found["members"],
        "reasons": [*reasons.values(), *filter(None, [sources.missing]), *found["reasons"]],
        "lineage": dict(run.lineage),
        "device": device.type,
    }
    return _publish(forecaster, material, run, facts, time.monotonic() - began + found["earlier"])


@dataclass(frozen=True)
class Sources:
    """What a run starts from: the config with what is taken over, a version to learn on, or the base where it is a
    candidate or all there is (`alone`); `missing` says why it is not though it should be."""

    asked: TrainConfig
    parent: Parent | None = None
    base: Base | None = None
    missing: str = ""

    @classmethod
    def of(cls, config: TrainConfig, calendar: Calendar, run: Run) -> "Sources":
        """Those of a run. Raises ValueError where the version or the base to start from does not fit."""
        if run.start is None:
            asked = continued(config, None, calendar.frequency)
            return cls(asked, None, *base_for(asked, calendar, None, "the base"))
        named = run.lineage.get("warm_start_from", "the version")
        manifest = read_manifest(run.start)
        asked = continued(config, manifest, calendar.frequency)
        if manifest.get("kind") == BASE:
            return cls(asked, None, *base_for(asked, calendar, run.start, named))
        return cls(asked, Parent.load(run.start, named))

    @property
    def alone(self) -> bool:
        return self.base is not None and bool(self.asked.pretrained)

    @property
    def weights(self) -> str:
        """What their weights are, for checkpoints to be told apart."""
        return "".join(one.weights for one in (self.parent, self.base) if one)


def _refuse_negative(config: TrainConfig, series: Sequence[Series]) -> None:
    """Raise ValueError where the config asks for what is for values from 0 on and there are others: all of them would
    be taken for about 0."""
    least = min(float(np.nanmin(one.target)) for one in series)
    for name, value in (("scaling", "log"), ("head", "negative_binomial")):
        if least < 0 and getattr(config, name) == value:
            raise ValueError(f"{name}: expected values of at least 0 for {value!r}, got {least:g}")


def with_features(
    material: Material, columns: Sequence[Column], config: TrainConfig, offered: bool
) -> tuple[Material, TrainConfig, dict[str, str]]:
    """The material with what its series have beside the target: the calendar where the config asks for it or it is
    `offered` to short runs. The config without what is asked for and not there, and field -> reason of that."""
    wanted = material.calendar if config.calendar or offered else None
    series, pad = material.series, int(material.panel.firsts[0])  # its first cells are those before the first series
    if material.parent is not None:
        design = design_of(material.parent.forecaster)
        series = recoded(series, columns, design)
        found = beside(series, material.panel, material.calendar, design, pad)
    else:
        design = offer(series, columns, wanted).part(calendar=True, covariates=bool(config.covariates))
        found = beside(series, material.panel, material.calendar, design, pad)
        found = found.part(found.usable(material.panel, material.split.judged))
    there = {"calendar": bool(found.design.calendar), "covariates": bool(found.design.covariates)}
    why = {"calendar": "no cycle that the series show twice", "covariates": "none that varies in what is learned from"}
    lost = [name for name, has in there.items() if getattr(config, name) and not has]
    reasons = {name: f"{name} False: {why[name]}." for name in lost}
    if config.covariates and there["covariates"]:
        names = ", ".join(one.name for one in found.design.covariates)
        reasons["covariates"] = f"covariates True: {names}."
    panel = dataclasses.replace(material.panel, beside=found)
    config = config.replace(**dict.fromkeys(lost, False))
    return dataclasses.replace(material, series=series, panel=panel), config, reasons


def fit(
    material: Material, config: TrainConfig, configs: Sequence[TrainConfig], run: Run, done: int
) -> tuple[Forecaster, dict[str, Any]]:
    """The members of `configs` learned, weighed and calibrated on the held-out steps, and those that count learned once
    more from these too where they are much of the whole. Beside the forecaster: facts of the manifest. `done` steps of
    progress were made before."""
    split = material.split
    total = done + sum(one.steps or 0 for one in configs) * (2 if split.again else 1)
    states: list[State] = []
    members: list[AnyMember[Any]] = []
    course: Course | None = None
    for place, one in enumerate(configs):
        course = material.course(one, split.learned, split.judged, place)
        folder = run.folder / "members" / str(place) if len(configs) > 1 else run.folder
        part = part_of(run, done, total, _named(place, len(configs)), first=place == 0)
        part = dataclasses.replace(part, folder=folder)
        states.append(learn(course, part, material.name))
        give_back()
        members.append(course.member)
        done += one.steps or 0
    assert course is not None
    judges = material.judges(course.examined(), config)  # all members look at the same
    better, reasons = True, list[str]()
    if isinstance(material, Based) and material.base is not None:
        mixture, reasons = weigh(judges, members, [state.best_step for state in states], material.base)
    else:
        mixture = judges.mixture(members)
    if material.parent is not None:
        mixture, better, reasons = material.parent.weighed(mixture, judges)
    members = list(mixture.members)
    counted = [place for place, share in enumerate(mixture.shares) if share > 0]
    again = better and split.again
    give_back()
    for place in counted if again else []:
        course = material.course(configs[place], split.judged, split.judged, place)
        folder = run.folder / "again" / str(place)
        part = dataclasses.replace(part_of(run, done, total, "once more from all, "), folder=folder)
        learn(course, part, material.name, states[place].best_step)
        give_back()
        members[place] = course.member
        done += configs[place].steps or 0
    run.on_progress(Progress(total, total, "writing the version", checkpoint=total))
    batch, cramped = _fitting(config, configs, states)
    forecaster = assembled(config.replace(batch=batch), [members[place] for place in counted])
    forecaster.shares.copy_(torch.from_numpy(mixture.shares[counted] / mixture.shares.max()))
    forecaster.skew.fill_(mixture.skew)
    forecaster.stretch.copy_(torch.from_numpy(mixture.stretch))
    return forecaster, {
        "dependence": mixture.dependence,
        "members": [_told(members[place], mixture, place, states if better else []) for place in counted],
        "reasons": [*reasons, *cramped],
        "judged": judged(mixture.members, mixture),
        "networks": sum(not configs[place].pretrained for place in counted),
        "taught": material.taught(again),
        "earlier": sum(state.earlier for state in states),
    }


def _fitting(config: TrainConfig, configs: Sequence[TrainConfig], states: Sequence[State]) -> tuple[int, list[str]]:
    """The batch that the version's networks of `configs` could be learned with, and sentences where it is less than
    asked for."""
    found = sorted({(one.batch or 1, state.batch) for one, state in zip(configs, states, strict=True)})
    reasons = [
        f"batch {batch}: the device's memory was too small for {asked} windows at once."
        for asked, batch in found
        if batch < asked
    ]
    own = config.batch or 1
    return min((batch for asked, batch in found if asked == own), default=own), reasons


def _told(member: AnyMember[Any], mixture: Mixture, place: int, states: Sequence[State]) -> dict[str, Any]:
    """What the manifest says of a member: `states` are those of the learning, none where an older one stays."""
    loss, config = float(mixture.losses[place]), member.config
    if states:
        config = config.replace(batch=states[place].batch)
    return {
        "config": config.document(),
        "share": float(mixture.shares[place]),
        "loss": loss if np.isfinite(loss) else None,
        "steps": states[place].best_step if states else 0,
    }


def _named(place: int, count: int) -> str:
    return f"member {place + 1} of {count}, " if count > 1 else ""


def fingerprint(series: Sequence[Series]) -> str:
    """A name for what the series hold: SHA-256 over keys, places and values."""
    digest = hashlib.sha256()
    for one in series:
        digest.update(f"{one.key}\0{one.start}\0{len(one.target)}\0".encode())
        digest.update(one.target.tobytes())
        for role, values in (("past", one.past), ("future", one.future), ("static", one.static)):
            for column in sorted(values):
                digest.update(f"{role}\0{column}\0".encode() + np.asarray(values[column]).tobytes())
    return digest.hexdigest()


def _publish(
    forecaster: Forecaster, material: Material, run: Run, facts: dict[str, Any], seconds: float
) -> TrainResult:
    """Write the artifact, score it as any backtest would, and put the scores into its manifest."""
    config, panel = forecaster.config, material.panel
    which = np.linspace(0, len(panel.lengths) - 1, 33).astype(np.int64)
    ends = np.maximum(panel.lengths[which] - (config.horizon or 1), 1)
    windows = inputs_of(panel, (which, ends), (config.context or 1, config.horizon or 1), design_of(forecaster))
    folder = run.folder / "artifact"
    give_back()
    with threads_for(1):
        write_artifact(folder, forecaster, windows, facts)
    give_back()
    opened = open_artifact(folder)
    plan = BacktestPlan(origins=1, horizon=config.horizon or 1, step=config.horizon or 1)
    result = backtest(opened, material.series, plan, together=max(8, SCORED // (config.horizon or 1)))
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
        device=facts["device"],
        seconds=seconds,
    )
