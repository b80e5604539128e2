"""Training: it learns, it can be stopped and resumed, it keeps its hands off what is held out."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from models import Calendar, Progress, Run, Series, Stopped, TrainConfig, TrainResult, open_artifact, train
from models.course import Batch, Course, series_weights
from models.forecaster import Member
from models.learning import learn
from models.presets import Facts, bases_of, complete
from models.search import TRIAL_STEPS, Ints, Material
from models.splits import split
from models.training import fit
from models.windows import Panel

from .conftest import TINY, waves


def weights(result: TrainResult) -> dict[str, np.ndarray]:
    return load_file(result.artifact / "weights.safetensors")


def same(one: TrainResult, other: TrainResult) -> bool:
    ours, theirs = weights(one), weights(other)
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


def in_pieces(train_in: Callable[[Run], TrainResult], folder: Path, every: int) -> TrainResult:
    """A run that is stopped each time it has asked `every` times whether it should, until it is through."""
    for _ in range(100):
        try:
            return train_in(Run(folder, device="cpu", should_stop=Switch(every)))
        except Stopped:
            torch.manual_seed(99)  # what others did to torch's own random numbers meanwhile does not matter
    raise AssertionError("it never ends")


class Switch:
    """Says stop at the `when`-th question."""

    def __init__(self, when: int) -> None:
        self.when, self.asked = when, 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked == self.when


def test_it_beats_naive_forecasts_on_what_is_held_out(result: TrainResult) -> None:
    assert result.metrics["mase"] < 0.9 * result.baselines["seasonal_naive"]["mase"]
    assert result.metrics["wql"] < 0.5 * result.baselines["naive"]["wql"]
    assert {"mase", "smape", "mae", "rmse", "wql", "coverage_80", "msis_80"} <= set(result.metrics)
    assert 0.5 < result.metrics["coverage_80"] <= 1.0


def test_the_result_says_what_was_done(result: TrainResult, history: list[Series]) -> None:
    open_fields = [name for name, value in result.config.document().items() if value is None]
    assert open_fields == ["truncate", "minimum", "maximum"]
    assert result.origins == {
        "origins": 1,
        "horizon": 6,
        "step": 6,
        "series": 8,
        "first": history[0].start + 113,
        "last": history[7].start + 113,
    }
    assert result.device == "cpu"
    assert result.seconds > 0
    assert all(reason.endswith(".") for reason in result.reasons)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    result: TrainResult, history: list[Series], months: Calendar, tmp_path: Path
) -> None:
    assert same(result, train(history, months, TINY, Run(tmp_path / "again", device="cpu")))
    assert not same(result, train(history, months, TINY.replace(seed=4), Run(tmp_path / "other", device="cpu")))


@pytest.mark.parametrize("every", [8, 21])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    result: TrainResult, history: list[Series], months: Calendar, tmp_path: Path, every: int
) -> None:
    """Stopped while it learns, and while it learns once more from all."""
    resumed = in_pieces(lambda run: train(history, months, TINY, run), tmp_path, every)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.safetensors", "again", "artifact"}
    assert same(result, resumed)
    assert resumed.metrics == result.metrics
    assert resumed.reasons == result.reasons


def test_members_learned_in_pieces_are_those_learned_in_one_go(
    history: list[Series], months: Calendar, tmp_path: Path
) -> None:
    config = TINY.replace(members=2, steps=15)
    whole = train(history, months, config, Run(tmp_path / "whole", device="cpu"))
    pieces = in_pieces(lambda run: train(history, months, config, run), tmp_path / "pieces", 13)
    assert same(whole, pieces)
    assert whole.reasons == pieces.reasons
    assert whole.metrics == pieces.metrics


def test_a_checkpoint_of_other_data_or_a_torn_one_is_left_alone(
    history: list[Series], months: Calendar, tmp_path: Path
) -> None:
    def stopped_at(step: int, data: list[Series], asked: int) -> None:
        with pytest.raises(Stopped, match=f"stopped at step {step} of"):
            train(data, months, TINY, Run(tmp_path, device="cpu", should_stop=Switch(asked)))

    stopped_at(5, [dataclasses.replace(one, target=one.target + 1) for one in history], 5)
    stopped_at(3, history, 3)
    stopped_at(4, history, 1)  # its own is resumed
    (tmp_path / "checkpoint.safetensors").write_bytes(b"torn")
    stopped_at(2, history, 2)


def test_a_checkpoint_is_plain_tensors_and_json(history: list[Series], months: Calendar, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(history, months, TINY, Run(tmp_path, device="cpu", should_stop=Switch(10)))
    with safe_open(tmp_path / "checkpoint.safetensors", framework="np") as file:
        facts = json.loads(file.metadata()["facts"])
        names = set(file.keys())
    assert facts["step"] == 10
    assert {"network.network.head.weight", "average.0", "best.0"} <= names


def test_progress_ends_with_the_last_step(history: list[Series], months: Calendar, tmp_path: Path) -> None:
    told: list[Progress] = []
    train(history, months, TINY, Run(tmp_path, device="cpu", on_progress=told.append))
    assert (told[-1].step, told[-1].total) == (60, 60)  # 30 steps, and 30 once more from all
    told_of = set[str]().union(*(one.metrics for one in told))
    assert {"train_loss", "validation_loss", "validation_mase"} <= told_of
    assert [one.step for one in told] == sorted(one.step for one in told)


def test_options_are_tried_before_and_resumed_too(months: Calendar, tmp_path: Path) -> None:
    history = waves(2, 60)
    config = TINY.replace(steps=TRIAL_STEPS + 1, hidden=4, batch=8, aligned=0.0)
    told: list[Progress] = []
    whole = train(history, months, config, Run(tmp_path / "whole", device="cpu", on_progress=told.append))
    tried = [reason for reason in whole.reasons if "best in short runs" in reason]
    assert any(reason.startswith(f"scaling {whole.config.scaling}: ") for reason in tried)
    assert told[-1].step == told[-1].total
    assert [one.step for one in told] == sorted(one.step for one in told)
    assert [one.checkpoint for one in told] == sorted(one.checkpoint for one in told)
    pieces = in_pieces(lambda run: train(history, months, config, run), tmp_path / "pieces", 90)
    assert same(whole, pieces)
    assert whole.reasons == pieces.reasons


def test_learning_stops_when_nothing_gets_better(months: Calendar, tmp_path: Path) -> None:
    noise = [Series("n", np.random.default_rng(0).normal(size=80))]
    told: list[Progress] = []
    config = TINY.replace(steps=600, patience=1, learning_rate=0.5, base="none", hidden=4)
    train(noise, months, config, Run(tmp_path, device="cpu", on_progress=told.append))
    assert max(one.checkpoint for one in told if one.message.startswith("step")) < 600


@pytest.mark.parametrize("values", [[], [np.nan] * 30, [1.0], [np.nan, 3.0, np.nan]])
def test_too_little_to_learn_from_is_refused(months: Calendar, tmp_path: Path, values: list[float]) -> None:
    with pytest.raises(ValueError, match="expected at least one with two known values, got none in 1"):
        train([Series("a", np.array(values, float))], months, TrainConfig(), Run(tmp_path, device="cpu"))


@pytest.mark.parametrize("asked", [{"scaling": "log"}, {"head": "negative_binomial"}])
def test_what_is_for_values_from_zero_on_refuses_others(
    months: Calendar, tmp_path: Path, asked: dict[str, str]
) -> None:
    (name, value) = next(iter(asked.items()))
    with pytest.raises(ValueError, match=f"{name}: expected values of at least 0 for '{value}', got -5"):
        train([Series("a", np.arange(-5.0, 20.0))], months, TINY.replace(**asked), Run(tmp_path, device="cpu"))


def test_a_device_that_is_not_there_is_refused(history: list[Series], months: Calendar, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"device: expected auto or one of .*cpu, got 'cuda:99'"):
        train(history, months, TINY, Run(tmp_path, device="cuda:99"))


def course_of(history: list[Series], months: Calendar, learned: int, until: int, config: TrainConfig = TINY) -> Course:
    """A course over the first `learned` steps of each series, scored up to `until`."""
    lengths = np.array([len(one.target) for one in history])
    full, _ = complete(config, Facts(months, lengths))
    panel = Panel.of(history, 48)
    torch.manual_seed(0)
    member = Member(full, bases_of(full, months))
    limits = np.full(len(history), learned)
    return Course(member, panel, limits, np.full(len(history), until), torch.device("cpu"))


def test_nothing_held_out_is_ever_a_target_or_in_a_context(months: Calendar) -> None:
    history = waves(3, 60)
    spoiled = [dataclasses.replace(one, target=one.target.copy()) for one in history]
    for one in spoiled:
        one.target[-6:] = 1e9
    clean, dirty = (course_of(data, months, 54, 60).pool(0) for data in (history, spoiled))
    torch.testing.assert_close(clean.ready.context, dirty.ready.context, rtol=0, atol=0)
    torch.testing.assert_close(clean.target * clean.known, dirty.target * dirty.known, rtol=0, atol=0)


def test_missing_targets_teach_nothing(months: Calendar) -> None:
    """The loss of windows with gaps is the loss over what is there, whatever stands in the gaps."""
    full = waves(1, 60)[0]
    gapped = dataclasses.replace(full, target=full.target.copy())
    gapped.target[55] = np.nan
    course = course_of([gapped], months, 60, 60)
    batch = course.batch(np.array([0]), np.array([54]), course.limits)
    assert batch.known.tolist() == [[1, 0, 1, 1, 1, 1]]
    before = course.loss(batch)
    batch.target[0, 1] = 50.0
    assert course.loss(batch) == before


def test_gaps_and_short_histories_are_learned_from_whole_series(months: Calendar) -> None:
    course = course_of(waves(1, 200), months, 194, 200)
    ready = course.pool(0).ready
    assert 0.05 < (ready.mask[:, -24:] == 0).any(dim=1).float().mean() < 0.4
    assert (ready.context[ready.mask == 0] == 0).all()
    which, ends = course.examined()
    assert (course.batch(which, ends, course.until).ready.mask == 1).all()  # what is scored is left whole


class Cramped(Course):
    """A course on a device that has room for 8 windows at once."""

    def loss(self, batch: Batch) -> torch.Tensor:
        if len(batch.target) > 8:
            raise torch.OutOfMemoryError("no room")
        return super().loss(batch)


class Full(Course):
    """A course on a device that has no room at all."""

    def loss(self, batch: Batch) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")


def test_a_batch_that_does_not_fit_is_halved_until_it_does(months: Calendar, tmp_path: Path) -> None:
    plain = course_of(waves(3, 60), months, 48, 54)
    cramped = Cramped(plain.member, plain.panel, plain.limits, plain.until, plain.device)
    state = learn(cramped, Run(tmp_path / "whole"), "data")
    assert state.batch == 8
    torch.manual_seed(0)
    again = course_of(waves(3, 60), months, 48, 54)
    again = Cramped(again.member, again.panel, again.limits, again.until, again.device)
    with pytest.raises(Stopped):
        learn(again, Run(tmp_path / "halves", should_stop=Switch(7)), "data")
    learn(again, Run(tmp_path / "halves"), "data")
    for one, other in zip(cramped.member.parameters(), again.member.parameters(), strict=True):
        assert torch.equal(one, other)


class CrampedMaterial(Material):
    """What a run is made from on such a device."""

    def course(self, config: TrainConfig, learned: Ints, until: Ints, place: int = 0) -> Course:
        plain = super().course(config, learned, until, place)
        return Cramped(plain.member, plain.panel, learned, until, plain.device)


def test_a_version_says_which_batch_fitted(months: Calendar, tmp_path: Path) -> None:
    history = waves(3, 60)
    panel = Panel.of(history, 48)
    config, _ = complete(TINY.replace(steps=4), Facts.of(months, history))
    material = CrampedMaterial(history, panel, months, torch.device("cpu"), "data", split(panel.lengths, 6))
    forecaster, facts = fit(material, config, [config], Run(tmp_path), 0)
    assert forecaster.config.batch == 8
    assert facts["members"][0]["config"]["batch"] == 8
    assert "batch 8: the device's memory was too small for 32 windows at once." in facts["reasons"]


def test_a_device_without_room_for_one_window_is_an_error(months: Calendar, tmp_path: Path) -> None:
    plain = course_of(waves(3, 60), months, 48, 54)
    with pytest.raises(torch.OutOfMemoryError):
        learn(Full(plain.member, plain.panel, plain.limits, plain.until, plain.device), Run(tmp_path), "data")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_learns_what_the_cpu_learns(history: list[Series], months: Calendar, tmp_path: Path) -> None:
    on_cpu = train(history, months, TINY, Run(tmp_path / "cpu", device="cpu"))
    on_gpu = train(history, months, TINY, Run(tmp_path / "gpu", device="cuda"))
    assert on_gpu.device == "cuda"
    one, other = (open_artifact(run.artifact).forecast(history, 6, [0.1, 0.5, 0.9]) for run in (on_cpu, on_gpu))
    np.testing.assert_allclose(other.quantiles, one.quantiles, rtol=0.02)
    assert on_gpu.metrics["mase"] == pytest.approx(on_cpu.metrics["mase"], rel=0.05)


def test_values_too_small_to_divide_by_count_nothing() -> None:
    panel = Panel.of([Series("a", np.full(20, 5e-324)), Series("b", np.arange(20.0))], 4)
    weights = series_weights(panel, panel.lengths, 1)
    assert weights[0] == 0.0
    assert 0.0 < weights[1] < np.inf
