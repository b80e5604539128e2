"""A warm start, without torch: what a run takes over from the version it starts from, and what it may say anew."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.config import TrainConfig
from models.frequency import Frequency
from models.inference import FORMAT

# Said anew for each run: what the version was learned with does not count.
ANEW = ("preset", "steps", "learning_rate", "seed", "unfrozen")
# How it learns and where it ends: the version's own goes on unless the run says otherwise. All other fields say what
# the network is; its weights mean something with those alone.
FREE = ("batch", "clip", "truncate", "patience", "aligned", "minimum", "maximum")
SHORTER = 3  # a warm start takes this part of a preset's steps and of the usual learning rate


def continued(asked: TrainConfig, manifest: Mapping[str, Any], frequency: Frequency) -> TrainConfig:
    """The config `asked` for a run that starts from the version of `manifest`, on series of `frequency`: what it leaves
    open, or at the default, is as in the version; `steps` and `learning_rate` stay open.

    Raises ValueError, naming the field, when the version is of another format or has steps of another length, or a
    field asks for another network than the version's."""
    if manifest.get("format") != FORMAT:
        raise ValueError(f"format: expected a version of format {FORMAT}, got {manifest.get('format')!r}")
    own = Frequency.parse(manifest["calendar"]["frequency"])
    if not own.agrees(frequency):
        raise ValueError(f"frequency: expected steps as long as the version's, {own.name}, got {frequency.name}")
    before = TrainConfig.parse(manifest["config"]).replace(members=len(manifest["members"]))
    kept: dict[str, Any] = {}
    for field in dataclasses.fields(TrainConfig):
        value, its = getattr(asked, field.name), getattr(before, field.name)
        if field.name in ANEW:
            continue
        if value == field.default:
            kept[field.name] = its
        elif field.name not in FREE and value != its:
            raise ValueError(f"{field.name}: expected {its!r} as in the version to start from, or none, got {value!r}")
    return asked.replace(**kept)


def gentler(
    asked: TrainConfig, full: TrainConfig, manifest: Mapping[str, Any], reasons: Mapping[str, str]
) -> tuple[TrainConfig, dict[str, str]]:
    """The complete config `full` with shorter and smaller steps where `asked` leaves them open, and field -> reason:
    what was learned before shall be adjusted, not overwritten."""
    changes: dict[str, Any] = {}
    why = dict(reasons)
    if asked.steps is None:
        changes["steps"] = max(1, (full.steps or 1) // SHORTER)
        why["steps"] = f"steps {changes['steps']}: a warm start is short, preset {full.preset} divided by {SHORTER}."
    if asked.learning_rate is None:
        usual, before = full.learning_rate or 1e-3, manifest["config"]["learning_rate"]
        changes["learning_rate"] = min(usual / SHORTER, before)
        why["learning_rate"] = f"learning_rate {changes['learning_rate']:.2g}: a warm start takes small steps."
    return full.replace(**changes), why
