"""A warm start: what is taken over, what may be said anew, and that it is never worse than what it started from."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import (
    Calendar,
    Column,
    Frequency,
    Run,
    Series,
    Stopped,
    TrainConfig,
    TrainResult,
    continued,
    open_artifact,
    train,
)
from models.artifact import load_forecaster
from models.config import RANGES
from models.parent import Parent
from models.warm import ANEW, FREE, gentler

from .conftest import TINY, waves
from .test_training import Switch, in_pieces, same, weights

LAZY = TrainConfig(steps=8)  # everything else as in the version


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory, months: Calendar) -> TrainResult:
    """Two networks with choices of their own, learned from long series."""
    config = TINY.replace(
        cell="lstm", members=2, scaling="last", base="naive", batch=16, quantiles=(0.1, 0.5, 0.9), clip=0.7
    )
    return train(waves(6, 150), months, config, Run(tmp_path_factory.mktemp("version"), device="cpu"))


@pytest.fixture(scope="module")
def manifest(version: TrainResult) -> dict[str, Any]:
    return json.loads((version.artifact / "manifest.json").read_bytes())


def started(version: TrainResult, folder: Path, **more: Any) -> Run:
    return Run(folder, device="cpu", start=version.artifact, lineage={"warm_start_from": "load/1"}, **more)


def others(count: int, length: int) -> list[Series]:
    """Series with a season of 8 steps, which the version has never seen and its base knows nothing of."""
    random, steps = np.random.default_rng(1), np.arange(length)
    levels = random.uniform(5, 50, count)
    return [
        Series(f"new {place}", level + 5 * np.sin(np.pi * steps / 4 + place) + random.normal(0, 0.2, length))
        for place, level in enumerate(levels)
    ]


# ---------------------------------------------------------------- the config


def test_what_is_left_open_is_as_in_the_version(manifest: dict[str, Any], version: TrainResult) -> None:
    asked = continued(TrainConfig(preset="balanced", seed=5), manifest, Frequency.parse("MS"))
    for name, value in dataclasses.asdict(asked).items():
        if name in ANEW:
            assert value == {"preset": "balanced", "seed": 5, "unfrozen": "all"}.get(name), name
        else:
            assert value == getattr(version.config, name), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cell", "gru"),
        ("hidden", 32),
        ("horizon", 7),
        ("context", 60),
        ("segment", 6),
        ("layers", 2),
        ("scaling", "mean"),
        ("base", "none"),
        ("quantiles", (0.5,)),
        ("decoder", "seq2seq"),
        ("bidirectional", True),
        ("members", 3),
        ("head", "student_t"),
        ("covariates", True),
    ],
)
def test_a_field_that_asks_for_another_network_is_refused(manifest: dict[str, Any], name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected .* as in the version to start from, or none, got "):
        continued(TrainConfig(**{name: value}), manifest, Frequency.parse("MS"))


def test_the_versions_own_network_may_be_named_and_learning_changed(
    manifest: dict[str, Any], version: TrainResult
) -> None:
    asked = TrainConfig(cell="lstm", hidden=16, horizon=6, members=2, batch=8, clip=0.5, patience=2, minimum=0.0)
    found = continued(asked, manifest, Frequency.parse("MS"))
    assert (found.batch, found.clip, found.patience, found.minimum) == (8, 0.5, 2, 0.0)
    assert found.scaling == "last"


def test_every_field_is_either_the_networks_or_the_learnings() -> None:
    """A field added to the config counts as the network's until somebody says otherwise."""
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    assert {*ANEW, *FREE} <= names
    assert {"cell", "hidden", "layers", "context", "horizon", "segment"} <= names - {*ANEW, *FREE}
    assert set(RANGES) <= names


@pytest.mark.parametrize("name", ["ME", "MS"])
def test_steps_of_the_same_length_fit(manifest: dict[str, Any], name: str) -> None:
    assert continued(LAZY, manifest, Frequency.parse(name)).hidden == 16


@pytest.mark.parametrize("name", ["D", "QS", "2MS", "h"])
def test_steps_of_another_length_do_not(manifest: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match="frequency: expected steps as long as the version's, MS, got "):
        continued(LAZY, manifest, Frequency.parse(name))


def test_a_version_of_another_format_is_refused(manifest: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"format: expected a version of format \d+, got 1"):
        continued(LAZY, manifest | {"format": 1}, Frequency.parse("MS"))


def test_it_is_short_and_gentle_unless_told_otherwise(manifest: dict[str, Any], version: TrainResult) -> None:
    usual = version.config.replace(steps=900, learning_rate=3e-3)
    open_ = continued(TrainConfig(), manifest, Frequency.parse("MS"))
    config, reasons = gentler(open_, usual, manifest, {})
    assert config.steps == 300
    assert config.learning_rate == pytest.approx(1e-3)
    assert set(reasons) == {"steps", "learning_rate"}
    given, none = gentler(open_.replace(steps=900, learning_rate=3e-3), usual, manifest, {})
    assert (given, none) == (usual, {})
    careful = manifest | {"config": manifest["config"] | {"learning_rate": 1e-5}}
    assert gentler(open_, usual, careful, {})[0].learning_rate == 1e-5


# ---------------------------------------------------------------- the networks


def test_it_learns_what_is_new_and_says_so(version: TrainResult, months: Calendar, tmp_path: Path) -> None:
    new = others(6, 150)
    warm = train(new, months, TrainConfig(steps=60, learning_rate=5e-3), started(version, tmp_path))
    cut = [dataclasses.replace(one, target=one.target[:-6]) for one in new]
    before = open_artifact(version.artifact).forecast(cut, 6, [0.5]).quantiles[..., 0]
    truth = np.stack([one.target[-6:] for one in new])
    assert warm.metrics["mae"] < 0.7 * np.abs(before - truth).mean()
    assert "warm start: from load/1, 2 networks (lstm, 16 units)" in " ".join(warm.reasons)
    assert "warm start: what was learned is kept" in " ".join(warm.reasons)
    manifest = json.loads((warm.artifact / "manifest.json").read_bytes())
    assert manifest["lineage"]["warm_start_from"] == "load/1"
    assert [one["config"]["scaling"] for one in manifest["members"]] == ["last", "last"]
    assert all(one["steps"] > 0 for one in manifest["members"])
    assert (warm.config.cell, warm.config.batch, warm.config.quantiles) == ("lstm", 16, (0.1, 0.5, 0.9))


def test_what_learning_made_worse_is_not_kept(result: TrainResult, months: Calendar, tmp_path: Path) -> None:
    """Steps that wreck a network: the version itself is published again, weights and calibration."""
    config = TrainConfig(steps=6, learning_rate=1.0, clip=1e6)
    warm = train(waves(8, 124), months, config, started(result, tmp_path))
    ours, theirs = weights(result), weights(warm)
    assert set(ours) == set(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert "the weights of load/1 stay" in " ".join(warm.reasons)
    manifest = json.loads((warm.artifact / "manifest.json").read_bytes())
    assert [one["steps"] for one in manifest["members"]] == [0]


def test_two_values_a_series_are_enough_to_go_on(version: TrainResult, months: Calendar, tmp_path: Path) -> None:
    warm = train([Series("a", np.array([3.0, 4.0]))], months, LAZY, started(version, tmp_path))
    ours, theirs = weights(version), weights(warm)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)  # nothing to judge by


@pytest.mark.parametrize(
    ("depth", "learns"),
    [("head", {"head", "gate"}), ("recurrent", {"head", "gate", "cell"}), ("all", {"head", "gate", "cell", "embed"})],
)
def test_only_what_is_unfrozen_asks_for_a_gradient(version: TrainResult, depth: Any, learns: set[str]) -> None:
    parent = Parent.load(version.artifact, "load/1")
    member = parent.member(0, parent.configs(version.config.replace(unfrozen=depth))[0])
    found = {name.split(".")[1] for name, each in member.named_parameters() if each.requires_grad and "." in name}
    assert found == learns
    assert member.trust.requires_grad


def test_what_is_frozen_stays(version: TrainResult, months: Calendar, tmp_path: Path) -> None:
    config = LAZY.replace(unfrozen="head", learning_rate=1e-2)
    warm = train(others(4, 100), months, config, started(version, tmp_path))
    ours, theirs = weights(version), weights(warm)
    moved = {name.split(".")[3] for name in ours if ".network." in name and (ours[name] != theirs[name]).any()}
    assert "head" in moved
    assert not moved & {"cell", "embed"}


def test_step_0_is_the_version_itself(version: TrainResult, months: Calendar) -> None:
    parent = Parent.load(version.artifact, "load/1")
    loaded = load_forecaster(version.artifact)
    config = parent.configs(version.config)[1]
    member = parent.member(1, config)
    for one, other in zip(member.parameters(), loaded.members[1].parameters(), strict=True):
        assert torch.equal(one, other)
    assert config.seed == version.config.seed + 1
    assert member.training  # which cuts of the gradient ask for
    next(member.parameters()).data.add_(1.0)  # a copy: the version stays as it is
    assert not torch.equal(next(member.parameters()), next(parent.forecaster.members[1].parameters()))


def test_a_warm_start_in_pieces_is_one_in_one_go(version: TrainResult, months: Calendar, tmp_path: Path) -> None:
    new = others(6, 150)
    whole = train(new, months, LAZY, started(version, tmp_path / "whole"))
    pieces = in_pieces(
        lambda run: train(new, months, LAZY, dataclasses.replace(run, start=version.artifact)), tmp_path / "pieces", 7
    )
    assert same(whole, pieces)


def test_a_checkpoint_of_a_start_from_elsewhere_is_left_alone(
    result: TrainResult, months: Calendar, tmp_path: Path
) -> None:
    new, config = waves(3, 80), TINY.replace(steps=6)
    with pytest.raises(Stopped, match="stopped at step 4"):
        train(new, months, config, started(result, tmp_path, should_stop=Switch(4)))
    with pytest.raises(Stopped, match="stopped at step 1"):
        train(new, months, config, Run(tmp_path, device="cpu", should_stop=Switch(1)))


def test_intervals_are_calibrated_anew_on_what_is_new_alone(
    version: TrainResult, months: Calendar, tmp_path: Path
) -> None:
    kept = train(waves(6, 151), months, LAZY, started(version, tmp_path / "grown"))
    assert "intervals: as calibrated for load/1" in " ".join(kept.reasons)
    np.testing.assert_array_equal(weights(kept)["stretch"], weights(version)["stretch"])
    new = train(others(6, 150), months, LAZY, started(version, tmp_path / "new"))
    assert "intervals: as calibrated" not in " ".join(new.reasons)


def test_a_version_that_does_not_fit_is_refused_before_anything_is_learned(
    version: TrainResult, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="frequency: expected steps as long as"):
        train(waves(2, 60), Calendar.of("D"), LAZY, started(version, tmp_path))
    (tmp_path / "torn").mkdir()
    with pytest.raises(ValueError, match=r"manifest\.json: expected a manifest"):
        train(waves(2, 60), Calendar.of("MS"), LAZY, Run(tmp_path, device="cpu", start=tmp_path / "torn"))


# ---------------------------------------------------------------- covariates


def promoted(seed: int, codes: tuple[float, float], scale: float = 1.0) -> list[Series]:
    """Series that a promotion lifts, with a category, whose text "a" has the first of `codes` and "b" the other."""
    random = np.random.default_rng(seed)
    found: list[Series] = []
    for number in range(4):
        promotion = (random.random(96) < 0.3) * scale
        target = 20 + 5 * promotion[:90] / scale + random.normal(0, 0.3, 90)
        static = {"kind": codes[number % 2]}
        found.append(Series(f"p{seed}{number}", target, future={"promotion": promotion}, static=static))
    return found


def columns(*categories: str) -> list[Column]:
    return [Column("promotion", "future"), Column("kind", "static", "category", categories)]


def test_covariates_mean_what_they_meant_to_the_version(months: Calendar, tmp_path: Path) -> None:
    """Means, deviations and codes stay the version's, whatever the new data's are; also when learned in pieces."""
    config = TINY.replace(steps=6, covariates=True, calendar=True)
    run = Run(tmp_path / "version", device="cpu")
    version = train(promoted(0, (1.0, 2.0)), months, config, run, columns("a", "b"))
    new, named = promoted(1, (2.0, 1.0), scale=7.0), columns("b", "a")

    def again(run: Run) -> TrainResult:
        asked = TrainConfig(steps=6, learning_rate=1e-2)
        return train(new, months, asked, dataclasses.replace(run, start=version.artifact), named)

    whole = again(Run(tmp_path / "whole", device="cpu"))
    ours, theirs = weights(version), weights(whole)
    fixed = [name for name in ours if name.endswith((".mean", ".deviation"))]
    assert fixed
    for name in fixed:
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert any((ours[name] != theirs[name]).any() for name in ours if ".categories." in name)
    before, after = (json.loads((run.artifact / "manifest.json").read_bytes())["features"] for run in (version, whole))
    assert before == after
    assert (whole.config.covariates, whole.config.calendar) == (True, True)
    assert same(whole, in_pieces(again, tmp_path / "pieces", 4))


def test_a_column_that_is_not_there_is_unknown(months: Calendar, tmp_path: Path) -> None:
    config = TINY.replace(steps=6, covariates=True, calendar=False)
    run = Run(tmp_path / "version", device="cpu")
    version = train(promoted(0, (1.0, 2.0)), months, config, run, columns("a", "b"))
    bare = train(waves(4, 80), months, LAZY, started(version, tmp_path / "bare"))
    assert bare.config.covariates
    assert np.isfinite(bare.metrics["mase"])
