"""The base that ships with the package as a part of training: offered, weighed, learned on, never lost to."""

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
    OpenArtifact,
    Run,
    Series,
    TrainConfig,
    TrainResult,
    base_folder,
    continued,
    open_artifact,
    train,
)
from models.adapting import base_for, shares_of
from models.artifact import load_forecaster
from models.forecaster import Inputs
from models.inference import read_manifest
from models.publishing import load_base
from models.shipped import Shipped
from models.tables import reach
from models.windows import latest

from .conftest import TINY, waves
from .test_training import in_pieces, same

SHORT = TrainConfig(steps=30, horizon=6)  # of the networks from nothing


def members(result: TrainResult) -> list[dict[str, Any]]:
    return read_manifest(result.artifact)["members"]


def said(result: TrainResult) -> str:
    """The sentence on the base."""
    (found,) = [reason for reason in result.reasons if reason.startswith("pretrained ")]
    return found


def shipped(config: TrainConfig, seasons: tuple[int, int] = (12, 12)) -> Shipped:
    base = load_base(base_folder())
    config = config.replace(hidden=base.network.hidden, context=reach(*seasons), horizon=config.horizon or 12)
    return Shipped(config, seasons, base).eval()


def odd(count: int, length: int) -> list[Series]:
    """Series that the base cannot know: each step is the one 7 before with its sign turned, round a level."""
    random = np.random.default_rng(5)
    found = []
    for number in range(count):
        values = list(random.normal(0, 1, 7))
        for _ in range(length - 7):
            values.append(-values[-7] + random.normal(0, 0.02))
        found.append(Series(f"o{number}", 20 + np.array(values)))
    return found


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, months: Calendar) -> TrainResult:
    return train(waves(30, 80), months, SHORT, Run(tmp_path_factory.mktemp("adapted"), device="cpu"))


# ---------------------------------------------------------------- the base as a member


@pytest.mark.parametrize("levels", [TrainConfig().quantiles, (0.5,), (0.05, 0.25, 0.5, 0.8), (0.025, 0.1, 0.5, 0.975)])
@pytest.mark.parametrize(("name", "seasons"), [("MS", (12, 12)), ("h", (24, 168)), ("YS", (1, 1))])
def test_it_answers_as_the_base_does(name: str, seasons: tuple[int, int], levels: tuple[float, ...]) -> None:
    base = open_artifact(base_folder()).at(Calendar.of(name))
    assert base.seasons == seasons
    series = [*waves(4, 400), *waves(2, 9), Series("down", -np.arange(40.0)), Series("gaps", waves(1, 90)[0].target)]
    series[-1].target[10:40] = np.nan
    values, present = latest(series, base.context)
    expected = base.at_levels(base.quantiles(values, present, 12), levels)
    member = shipped(TrainConfig(quantiles=levels), seasons)
    with torch.no_grad():
        found = member(Inputs(torch.from_numpy(values), torch.from_numpy(present).float())).numpy()
    scale = np.nanmax(np.abs(expected), axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-6)
    assert (np.diff(found, axis=-1) >= 0).all()


def test_a_window_may_be_shorter_than_what_it_can_read() -> None:
    member = shipped(TrainConfig())
    values, present = latest(waves(3, 50), 60)
    padded, there = latest(waves(3, 50), member.context)
    with torch.no_grad():
        short = member(Inputs(torch.from_numpy(values), torch.from_numpy(present).float()))
        whole = member(Inputs(torch.from_numpy(padded), torch.from_numpy(there).float()))
    torch.testing.assert_close(short, whole, rtol=0, atol=0)


def test_cells_that_stay_are_read_once_and_all_is_the_same() -> None:
    member = shipped(TrainConfig())
    values, present = latest(waves(5, 100), member.context)
    inputs = Inputs(torch.from_numpy(values), torch.from_numpy(present).float())
    with torch.no_grad():
        expected = member.scaled_quantiles(member.prepare(inputs)[0])
        network = member.network(_read_of(member, inputs))
    member.train().freeze("head")
    ready = member.prepare(inputs)[0]
    assert ready.state is not None
    assert ready.steps is None
    torch.testing.assert_close(member.scaled_quantiles(ready), expected)
    torch.testing.assert_close(expected[..., 4].float(), network[..., 5], rtol=1e-5, atol=1e-5)  # medians
    member.freeze("all")
    assert member.prepare(inputs)[0].state is None


def _read_of(member: Shipped, inputs: Inputs) -> Any:
    from models.universal import read_windows

    return read_windows(inputs.context, inputs.mask.double(), member.tables)[0]


@pytest.mark.parametrize(
    ("depth", "moves"),
    [("nothing", set()), ("head", {"ask", "think", "say", "gate"}), ("all", {"first", "steps", "embed", "cycles"})],
)
def test_what_may_be_learned_on(depth: str, moves: set[str]) -> None:
    member = shipped(TrainConfig())
    member.freeze(depth)
    found = {name.split(".")[0] for name, value in member.network.named_parameters() if value.requires_grad}
    assert moves <= found
    assert depth == "all" or found == moves


# ---------------------------------------------------------------- a run


def test_a_run_offers_it_and_says_what_became_of_it(adapted: TrainResult) -> None:
    kept = members(adapted)
    assert any(one["config"]["pretrained"] for one in kept)
    assert sum(one["share"] for one in kept) == pytest.approx(1.0)
    assert adapted.config.pretrained is True
    text = said(adapted)
    assert "the base as it is 0." in text
    assert "from nothing 0." in text
    assert [name for name, value in adapted.config.document().items() if value is None] == [
        "truncate",
        "minimum",
        "maximum",
    ]


def test_what_was_saved_is_what_answers(adapted: TrainResult) -> None:
    forecaster, opened = load_forecaster(adapted.artifact), open_artifact(adapted.artifact)
    assert any(isinstance(member, Shipped) for member in forecaster.members)
    assert opened.context % (adapted.config.segment or 1) == 0
    values, present = latest(waves(7, 80, seed=3), opened.context)
    with torch.no_grad():
        expected = forecaster(torch.from_numpy(values), torch.from_numpy(present).float()).numpy()
    np.testing.assert_allclose(opened.quantiles(values, present, 6), expected, rtol=1e-5, atol=1e-4)


def test_a_run_in_pieces_is_the_run_in_one_go(months: Calendar, tmp_path: Path) -> None:
    history = waves(3, 50)
    config = SHORT.replace(steps=12)
    whole = train(history, months, config, Run(tmp_path / "whole", device="cpu"))
    pieces = in_pieces(lambda run: train(history, months, config, run), tmp_path / "pieces", 25)
    assert same(whole, pieces)
    assert (whole.reasons, whole.metrics) == (pieces.reasons, pieces.metrics)


def counts(count: int, length: int) -> list[Series]:
    random = np.random.default_rng(2)
    return [
        Series(f"c{place}", random.poisson(0.4, length).astype(float) * random.integers(1, 4, length))
        for place in range(count)
    ]


@pytest.mark.parametrize(
    ("series", "name"),
    [
        (waves(1, 60), "MS"),
        (waves(50, 24), "QS"),
        ([Series(f"flat {level}", np.full(30, level)) for level in (0.0, 5.0, -2.5)], "D"),
        (counts(20, 90), "D"),
        ([Series("two", np.array([1.0, 2.0]))], "YS"),
    ],
    ids=["60 points", "50 short", "constants", "counts", "two points"],
)
def test_it_is_never_worse_than_the_base_on_what_judges(series: list[Series], name: str, tmp_path: Path) -> None:
    """The manifest has what each member scored; the base is among the candidates."""
    result = train(series, Calendar.of(name), TrainConfig(steps=20), Run(tmp_path, device="cpu"))
    judged = read_manifest(result.artifact)["judged"]
    assert judged["version"] <= judged["base"]
    opened = open_artifact(result.artifact)
    found = opened.forecast(series, opened.horizon, (0.1, 0.5, 0.9)).quantiles
    assert np.isfinite(found).all()
    if all((one.target >= 0).all() for one in series):
        assert (found >= 0).all()
    for place, one in enumerate(series):
        if np.ptp(one.target) == 0:
            np.testing.assert_allclose(found[place], one.target[0], atol=1e-9)


def test_what_the_base_scores_is_what_it_scores_alone(adapted: TrainResult, months: Calendar, tmp_path: Path) -> None:
    config = TrainConfig(pretrained=True, steps=0, horizon=SHORT.horizon)
    alone = train(waves(30, 80), months, config, Run(tmp_path, device="cpu"))
    assert read_manifest(adapted.artifact)["judged"]["base"] == pytest.approx(
        read_manifest(alone.artifact)["judged"]["base"]
    )


def test_learning_on_helps_where_the_base_cannot_know(tmp_path: Path) -> None:
    days = Calendar.of("D")
    config = TrainConfig(pretrained=True, horizon=7, steps=60, seed=1)
    result = train(odd(40, 90), days, config, Run(tmp_path, device="cpu"))
    judged = read_manifest(result.artifact)["judged"]
    assert judged["version"] < 0.8 * judged["base"]
    assert any(one["steps"] for one in members(result))


# ---------------------------------------------------------------- who asks for what


@pytest.mark.parametrize(
    "asked",
    [
        {"cell": "lstm"},
        {"hidden": 8},
        {"members": 1},
        {"scaling": "std"},
        {"head": "gaussian"},
        {"decoder": "seq2seq"},
        {"base": "naive"},
        {"calendar": True},
        {"steps": 0},
        {"pretrained": False},
    ],
)
def test_a_network_of_ones_own_has_no_base_beside_it(asked: dict[str, Any], months: Calendar) -> None:
    assert base_for(TrainConfig(**asked), months, None, "base") == (None, "")
    assert base_for(TrainConfig(horizon=3), months, None, "base")[0] is not None


def test_a_network_of_ones_own_stands_alone(months: Calendar, tmp_path: Path) -> None:
    config = TrainConfig(steps=5, horizon=3, calendar=True)
    result = train(waves(2, 40), months, config, Run(tmp_path, device="cpu"))
    assert result.config.pretrained is False
    assert not any(one["config"]["pretrained"] for one in members(result))
    assert not [reason for reason in result.reasons if "the base" in reason]


def test_the_base_alone_takes_no_network_fields(months: Calendar, tmp_path: Path) -> None:
    config = TrainConfig(pretrained=True, cell="lstm")
    with pytest.raises(ValueError, match="cell: expected none with the base alone, got 'lstm'"):
        train(waves(2, 40), months, config, Run(tmp_path, device="cpu"))


def test_a_season_of_ones_own_is_told(months: Calendar, tmp_path: Path) -> None:
    config = TrainConfig(pretrained=True, season=30, horizon=4, steps=0)
    result = train(waves(2, 60), months, config, Run(tmp_path, device="cpu"))
    assert read_manifest(result.artifact)["network"]["pretrained"][0]["seasons"] == [30, 30]


# ---------------------------------------------------------------- a warm start


def from_base(folder: Path) -> Run:
    return Run(folder, device="cpu", start=base_folder(), lineage={"warm_start_from": "base/1"})


def test_a_warm_start_from_the_base_is_the_base_learned_on(months: Calendar, tmp_path: Path) -> None:
    result = train(waves(10, 70), months, TrainConfig(steps=20, horizon=6), from_base(tmp_path))
    assert "base/1 as it is" in said(result)
    assert all(one["config"]["pretrained"] for one in members(result))
    judged = read_manifest(result.artifact)["judged"]
    assert judged["version"] <= judged["base"]
    assert result.config.horizon == 6


def test_it_reads_no_covariates_and_says_so(months: Calendar, tmp_path: Path) -> None:
    series = [
        Series(one.key, one.target, one.start, future={"price": np.arange(float(len(one.target) + 6))})
        for one in waves(2, 50)
    ]
    columns = [Column("price", "known")]
    result = train(series, months, TrainConfig(steps=0, horizon=6), from_base(tmp_path), columns)
    assert "covariates False: base/1 reads none; networks from nothing do." in result.reasons
    assert result.config.covariates is False


@pytest.mark.parametrize(("name", "value"), [("hidden", 32), ("scaling", "std"), ("calendar", True), ("read", 8)])
def test_it_refuses_to_start_another_network_from_it(name: str, value: Any) -> None:
    manifest = read_manifest(base_folder())
    with pytest.raises(ValueError, match=f"^{name}: expected none with the base alone, got {value!r}"):
        continued(TrainConfig(**{name: value}), manifest, Frequency.parse("D"))
    with pytest.raises(ValueError, match=r"^pretrained: expected True or none"):
        continued(TrainConfig(pretrained=False), manifest, Frequency.parse("D"))


def test_a_version_with_the_base_in_it_may_be_started_from(
    adapted: TrainResult, months: Calendar, tmp_path: Path
) -> None:
    run = Run(tmp_path, device="cpu", start=adapted.artifact, lineage={"warm_start_from": "load/1"})
    result = train(waves(30, 90), months, TrainConfig(steps=8), run)
    before, after = members(adapted), members(result)
    assert [one["config"]["pretrained"] for one in before] == [one["config"]["pretrained"] for one in after]
    assert result.config.context == adapted.config.context


# ---------------------------------------------------------------- shares


KINDS = ("network", "network", "base", "tuned")
THIRD, SIXTH = 1 / 3, 1 / 6


@pytest.mark.parametrize(
    ("losses", "count", "expected"),
    [
        ((1.0, 1.05, 1.0, 0.9), 1000, (SIXTH, SIXTH, THIRD, THIRD)),
        ((1.0, 1.2, 1.0, 0.9), 1000, (THIRD, 0.0, THIRD, THIRD)),  # a network far behind the other
        ((1.3, 1.4, 1.0, 0.9), 1000, (0.0, 0.0, 0.5, 0.5)),  # networks far behind what was learned on
        ((0.5, 0.52, 1.0, 0.9), 1000, (0.25, 0.25, 0.0, 0.5)),  # the base far behind
        ((1.4, 1.5, 1.0, 1.0), 1000, (0.0, 0.0, 1.0, 0.0)),  # learning on gained nothing
        ((1.12, 1.3, 1.0, 0.9), 3, (0.0, 0.0, 1.0, 0.0)),  # three windows say little
        ((0.7, 0.75, 1.0, 0.55), 3, (0.0, 0.0, 1.0, 0.0)),
        ((0.55, 0.7, 1.0, 0.45), 3, (THIRD, 0.0, THIRD, THIRD)),
        ((0.91, 99.0, 1.0, 0.4), 1, (0.0, 0.0, 1.0, 0.0)),  # and one next to nothing
        ((0.1, 0.3, 1.0, 0.12), 1, (0.5, 0.0, 0.0, 0.5)),
    ],
)
def test_shares(losses: tuple[float, ...], count: float, expected: tuple[float, ...]) -> None:
    np.testing.assert_allclose(shares_of(np.array(losses), KINDS, count), expected)


def test_where_points_are_plenty_most_is_the_networks() -> None:
    found = shares_of(np.array([0.9, 0.95, 1.0]), ("network", "network", "base"), 1000, plenty=True)
    np.testing.assert_allclose(found, (0.375, 0.375, 0.25))
    many = shares_of(np.array([0.9] * 9 + [1.0]), ("network",) * 9 + ("base",), 1000, plenty=True)
    np.testing.assert_allclose(many, 0.1)  # as one more network
    np.testing.assert_allclose(shares_of(np.array([2.0, 1.0]), ("network", "base"), 1000, plenty=True), (0.0, 1.0))


def test_without_networks_the_base_and_what_was_learned_on_are_half_each() -> None:
    np.testing.assert_allclose(shares_of(np.array([1.0, 0.9]), ("base", "tuned"), 1000, plenty=True), (0.5, 0.5))


def test_the_base_off_is_what_it_was(opened: OpenArtifact) -> None:
    """A version of networks alone reads as far back as they do."""
    assert opened.context == TINY.context
    assert json.loads(json.dumps(opened.manifest["network"]["pretrained"])) == [None]


def test_a_history_is_short_for_its_own_networks_alone(adapted: TrainResult) -> None:
    opened = open_artifact(adapted.artifact)
    pretrained = opened.manifest["network"]["pretrained"]
    own = [one["config"]["context"] for one, base in zip(members(adapted), pretrained, strict=True) if base is None]
    assert opened.learned == max(own, default=0)
    assert opened.learned < opened.context
    values = 10 + np.random.default_rng(3).normal(size=max(opened.learned, 3))
    assert not opened.forecast([Series("a", values)], 1, (0.5,)).notes


def test_the_base_alone_keeps_its_own_intervals_where_few_windows_judge(months: Calendar, tmp_path: Path) -> None:
    series = waves(1, 60)
    result = train(series, months, TrainConfig(pretrained=True, steps=0), Run(tmp_path, device="cpu"))
    assert any("too few windows" in reason for reason in result.reasons)
    opened = open_artifact(result.artifact)
    levels = (0.1, 0.5, 0.9)
    expected = open_artifact(base_folder()).at(months).forecast(series, opened.horizon, levels).quantiles
    np.testing.assert_allclose(opened.forecast(series, opened.horizon, levels).quantiles, expected, rtol=1e-5)


@pytest.mark.parametrize("levels", [(0.05, 0.5, 0.95), (0.001, 0.3, 0.77, 0.999)])
def test_levels_that_are_not_its_own_are_exported(levels: tuple[float, ...], months: Calendar, tmp_path: Path) -> None:
    config = TrainConfig(pretrained=True, steps=0, quantiles=levels, horizon=4)
    opened = open_artifact(train(waves(2, 60), months, config, Run(tmp_path, device="cpu")).artifact)
    found = opened.forecast(waves(2, 60), 4, levels).quantiles
    expected = open_artifact(base_folder()).at(months).forecast(waves(2, 60), 4, levels).quantiles
    assert opened.levels == levels
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_version_that_is_the_base_alone_stays_above_zero_as_it_does(months: Calendar, tmp_path: Path) -> None:
    wild = np.array([1, 30, 2, 1, 5, 60, 1, 2, 1, 9, 1, 3, 80, 2, 1, 1, 4, 2, 1, 25], np.float64)
    config = TrainConfig(pretrained=True, steps=0, horizon=6)
    opened = open_artifact(train(waves(1, 60), months, config, Run(tmp_path, device="cpu")).artifact)
    found = opened.forecast([Series("a", wild)], 40, (0.001, 0.025, 0.5), samples=30)
    assert found.samples is not None
    assert min(found.quantiles.min(), found.mean.min(), found.samples.min()) >= 0


def test_one_window_is_not_enough_to_leave_the_base_and_it_is_said(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    grown = Series("a", 400 * 1.1 ** np.arange(20.0) * np.exp(random.normal(0, 0.1, 20)))
    result = train([grown], Calendar.of("YS"), TrainConfig(horizon=4), Run(tmp_path, device="cpu"))
    assert [one["share"] for one in members(result)] == [1.0]
    assert "the base as it is" in said(result)
    assert "little judges (1 windows), so what has learned counts with 4 times its loss" in said(result)
