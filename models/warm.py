"""A warm start, without torch: what a run takes over from the version it starts from, and what it may say anew."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from models.config import TrainConfig
from models.frequency import Frequency
from models.inference import BASE, FORMAT

# Said anew for each run: what the version was learned with does not count.
ANEW = ("preset", "steps", "learning_rate", "seed", "unfrozen")
# How it learns and where it ends: the version's own goes on unless the run says otherwise. All other fields say what
# the network is; its weights mean something with those alone.
FREE = ("batch", "clip", "truncate", "patience", "aligned", "minimum", "maximum")
# What a network from nothing is, and the base that ships with the package is not asked for.
NETWORK = (
    *("cell", "activation", "layers", "hidden", "bidirectional", "decoder", "head", "context", "read", "segment"),
    *("scaling", "base", "truncate", "members", "calendar", "covariates"),
)
SHORTER = 3  # a warm start takes this part of a preset's steps and of the usual learning rate


def names_network(asked: TrainConfig) -> bool:
    """Whether a config asks for a network of its own rather than for the best forecast: a field of NETWORK is given, or
    nothing is to be learned."""
    return asked.steps == 0 or _named(asked, NETWORK) is not None


def _named(asked: TrainConfig, names: Sequence[str]) -> str | None:
    """The first of these fields that is given; one that leaves something out counts as open."""
    fields = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    return next((name for name in names if getattr(asked, name) not in (fields[name], False)), None)


def continued(asked: TrainConfig, manifest: Mapping[str, Any] | None, frequency: Frequency) -> TrainConfig:
    """The config `asked` for a run that starts from the version of `manifest`, on series of `frequency`: what it leaves
    open, or at the default, is as in the version; `steps` and `learning_rate` stay open. None: from nothing, or from
    the base where the config asks for it.

    The base that ships with the package fits steps of any length; what it is learned on for stays open, and covariates
    may be asked for, though it reads none.

    Raises ValueError, naming the field, when the version is of another format or has steps of another length, or a
    field asks for another network than the version's."""
    if manifest is None:
        return from_base(asked) if asked.pretrained else asked
    if manifest.get("format") != FORMAT:
        raise ValueError(f"format: expected a version of format {FORMAT}, got {manifest.get('format')!r}")
    if manifest.get("kind") == BASE:
        return from_base(asked)
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


def from_base(asked: TrainConfig) -> TrainConfig:
    """The config `asked` for a run of the pre-trained base alone. Raises ValueError, naming the field, when it asks for
    a network from nothing."""
    name = _named(asked, [name for name in NETWORK if name != "covariates"])
    if name is not None:
        raise ValueError(f"{name}: expected none with the base alone, got {getattr(asked, name)!r}")
    if asked.pretrained is False:
        raise ValueError("pretrained: expected True or none to start from the base, got False")
    return asked.replace(pretrained=True)


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
