"""The version that a warm start goes on from: its networks, to be learned on, and itself as the forecast to beat. What
a run starts from always comes as an artifact's folder, whoever made it."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.artifact import load_forecaster, members_of
from models.calibration import Judges, Mixture
from models.config import TrainConfig
from models.course import Course
from models.forecaster import AnyMember, Forecaster, Member
from models.inference import WEIGHTS, read_manifest
from models.shipped import Shipped
from models.warm import ANEW, FREE
from models.windows import Panel

Ints = NDArray[np.int64]


class WarmCourse(Course):
    """A course whose first weights are the loaded ones: step 0 is the version itself."""

    def start(self, random: np.random.Generator) -> None:
        """The weights stay as they are."""


@dataclass(frozen=True)
class Parent:
    """A version to start from. `name` is for people."""

    manifest: dict[str, Any]
    forecaster: Forecaster
    name: str

    @classmethod
    def load(cls, folder: Path, name: str) -> "Parent":
        """The version in `folder`. Raises ValueError when it is not a whole artifact of this format."""
        return cls(read_manifest(folder), load_forecaster(folder), name)

    @property
    def weights(self) -> str:
        """SHA-256 of its weights."""
        return self.manifest["files"][WEIGHTS]["sha256"]

    def said(self, config: TrainConfig) -> str:
        """What is carried over, as a reason."""
        networks = self._members()
        what = f"{len(networks)} networks" if len(networks) > 1 else "its network"
        learned = {"head": "its head alone", "recurrent": "cells and head", "all": "all weights"}[config.unfrozen]
        what = f"{what} ({config.cell}, {config.hidden} units)"
        return f"warm start: from {self.name}, {what}, its scaling and bases; {learned} may change."

    def configs(self, config: TrainConfig) -> list[TrainConfig]:
        """The configs of its networks, learned on as the complete `config` of the run says."""
        said = {name: getattr(config, name) for name in (*ANEW, *FREE) if name != "seed"}
        configs = [
            member.config.replace(**said, seed=config.seed + place) for place, member in enumerate(self._members())
        ]
        return [_as_it_learned(member, one) for member, one in zip(self._members(), configs, strict=True)]

    def member(self, place: int, config: TrainConfig) -> AnyMember[Any]:
        """A copy of one of its networks to learn on with a config of `configs`: what is to stay as it is asks for no
        gradient. Scaling, bases and what covariates are standardised by are the version's."""
        member = copy.deepcopy(self._members()[place]).train()
        member.config = config
        if isinstance(member, Shipped):
            member.freeze(config.unfrozen if config.steps else "nothing")
        if not isinstance(member, Member):
            return member
        member.network.shape = dataclasses.replace(member.network.shape, truncate=config.truncate)
        learned = {id(parameter) for parameter in member.network.unfrozen(config.unfrozen)}
        learned |= {id(parameter) for parameter in (member.trust, *member.head.parameters())}
        for parameter in member.parameters():
            parameter.requires_grad_(config.unfrozen == "all" or id(parameter) in learned)
        return member

    def course(self, member: AnyMember[Any], panel: Panel, learned: Ints, until: Ints, device: torch.device) -> Course:
        """A course that goes on with a `member`; the rest as in `Course`."""
        return WarmCourse(member, panel, learned, until, device)

    def weighed(self, found: Mixture, judges: Judges) -> tuple[Mixture, bool, list[str]]:
        """The better on what judges of the learned mixture and the version itself, whether it is the learned one, and
        reasons. Where the version has already learned from what judges, its own calibration stays: forecasts of what
        was learned are off by too little."""
        reasons: list[str] = []
        link = float(self.manifest["dependence"])
        if judges.seen:
            found = judges.taken(found.members, found.shares, self.forecaster, link)
            reasons.append(f"intervals: as calibrated for {self.name}, which has learned from most steps that judge.")
        own = judges.taken(self._members(), self.forecaster.shares.numpy(), self.forecaster, link)
        figures = f"{own.loss:.4g} before, {found.loss:.4g} after, on earlier held-out steps"
        if found.loss < own.loss:
            return found, True, [*reasons, f"warm start: what was learned is kept ({figures})."]
        return own, False, [f"warm start: the weights of {self.name} stay, nothing learned was better ({figures})."]

    def _members(self) -> list[AnyMember[Any]]:
        return members_of(self.forecaster)


def _as_it_learned(member: AnyMember[Any], config: TrainConfig) -> TrainConfig:
    """The config to learn on with: a member that never learned goes on so, the base moves as little as it did."""
    before = member.config
    if before.steps == 0:
        return config.replace(steps=0)
    if not isinstance(member, Shipped):
        return config
    rate = min(config.learning_rate or 1.0, before.learning_rate or 1.0)
    return config.replace(learning_rate=rate, unfrozen=before.unfrozen)
