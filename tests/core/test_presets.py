"""What a preset picks, and that it says why."""

from pathlib import Path

import numpy as np
import pytest

from models import Calendar, Progress, Run, Series, TrainConfig, train
from models.bases import Base
from models.presets import Facts, bases_of, complete, members_of, options

OPTIONAL = (
    "truncate",
    "pretrained",
    "minimum",
    "maximum",
)  # None means none, of `pretrained` that held-out steps decide


def facts(frequency: str, *lengths: int) -> Facts:
    return Facts(Calendar.of(frequency), np.array(lengths, np.int64))


@pytest.mark.parametrize(
    ("frequency", "length", "expected"),
    [
        ("h", 960, (48, 336, 24, 24)),
        ("30min", 4000, (48, 672, 24, 48)),
        ("15min", 8000, (96, 1344, 24, 96)),
        ("min", 20_000, (60, 840, 20, 60)),
        ("D", 700, (14, 112, 7, 7)),
        ("W-FRI", 1565, (13, 156, 13, 52)),
        ("MS", 132, (12, 72, 12, 12)),
        ("QE", 60, (8, 48, 4, 4)),
        ("YE", 40, (6, 32, 1, 1)),
        ("step", 2000, (12, 96, 4, 1)),
        ("h", 100, (33, 48, 24, 24)),
        ("h", 12, (4, 8, 8, 24)),
        ("MS", 1, (1, 1, 1, 12)),
    ],
)
def test_it_follows_frequency_and_length(frequency: str, length: int, expected: tuple[int, int, int, int]) -> None:
    config, _ = complete(TrainConfig(), facts(frequency, length))
    assert (config.horizon, config.context, config.segment, config.season) == expected


@pytest.mark.parametrize("preset", ["fast", "balanced", "thorough"])
def test_nothing_stays_open_and_every_pick_has_a_reason(preset: str) -> None:
    asked = TrainConfig(preset=preset, hidden=7, horizon=5)
    config, reasons = complete(asked, facts("D", 300, 400))
    assert [name for name, value in config.document().items() if value is None] == list(OPTIONAL)
    assert (config.hidden, config.horizon) == (7, 5)
    picked = {name for name, value in asked.document().items() if value is None} - set(OPTIONAL)
    assert set(reasons) == picked
    assert all(sentence.startswith(f"{name} ") and sentence.endswith(".") for name, sentence in reasons.items())


def test_a_higher_preset_learns_longer() -> None:
    steps = [complete(TrainConfig(preset=preset), facts("h", *[900] * 50))[0].steps for preset in ("fast", "balanced")]
    assert steps[0] < steps[1]


@pytest.mark.parametrize(
    "asked",
    [
        {"context": 35},
        {"context": 47},
        {"segment": 5},
        {"segment": 500},
        {"season": 1000},
        {"read": 13},
        {"read": 400},
        {"context": 48, "read": 9},
    ],
)
def test_segment_and_context_always_fit(asked: dict[str, int]) -> None:
    config, _ = complete(TrainConfig(**asked), facts("MS", 130))
    assert config.context % config.segment == 0
    for name, value in asked.items():
        assert getattr(config, name) == value


def test_bases_are_those_the_context_holds() -> None:
    hours, _ = complete(TrainConfig(), facts("h", 960))
    calendar = Calendar.of("h")
    day = [Base("newest", 24), Base("mean", 24)]
    week = [Base("newest", 168), Base("mean", 168)]
    last = Base("newest", 1)
    assert bases_of(hours, calendar) == (*day, *week, last)
    assert bases_of(hours.replace(context=48, read=48), calendar) == (*day, last)
    assert bases_of(hours.replace(context=12, read=12, segment=12), calendar) == (last,)
    assert bases_of(hours.replace(base="seasonal"), calendar) == (day[0],)
    assert bases_of(hours.replace(base="naive"), calendar) == (last,)
    assert bases_of(hours.replace(base="none"), calendar) == ()
    months, _ = complete(TrainConfig(), facts("MS", 130))
    assert bases_of(months, Calendar.of("MS")) == (Base("smooth", 12), Base("newest", 12))


def tried(asked: TrainConfig, known: Facts) -> set[str]:
    return set(options(asked, complete(asked, known)[0], known))


def test_only_what_is_open_is_tried_and_places_of_the_season_where_they_come_back_often() -> None:
    assert tried(TrainConfig(), facts("h", 960)) == {"scaling", "aligned"}
    assert tried(TrainConfig(), facts("MS", 130)) == {"scaling", "base"}
    assert tried(TrainConfig(scaling="std"), facts("h", 960)) == {"aligned"}
    assert tried(TrainConfig(scaling="std", base="mix"), facts("MS", 130)) == set()


@pytest.mark.parametrize(("length", "smoothed"), [(40, False), (48, False), (60, True)])
def test_no_season_is_smoothed_that_is_seen_only_when_asked(length: int, smoothed: bool) -> None:
    known, asked = facts("MS", *[length] * 50), TrainConfig(preset="balanced")
    full, _ = complete(asked, known)
    bases = {one.base for one in members_of(asked, full, known, ("last",))}
    assert (full.base, "base" in tried(asked, known)) == ("smooth" if smoothed else "mix", smoothed)
    assert bases == ({"smooth", "mix"} if smoothed else {"mix"})


def hours(count: int, seed: int = 0) -> list[Series]:
    """Thirty days of hourly series with a day's shape, whose height changes from day to day."""
    random = np.random.default_rng(seed)
    day = np.maximum(0.0, np.sin(2 * np.pi * (np.arange(24) - 6) / 24))
    found = []
    for number in range(count):
        heights = random.uniform(1.0, 3.0, 30).repeat(24)
        found.append(Series(f"s{number}", heights * np.tile(day, 30) + random.normal(0, 0.05, 720) + 5.0))
    return found


@pytest.mark.parametrize(("steps", "tried"), [(60, 60), (100, 80)])
def test_what_is_slow_to_show_is_tried_for_longer_than_the_rest(steps: int, tried: int, tmp_path: Path) -> None:
    told: list[Progress] = []
    asked = TrainConfig(steps=steps, hidden=4, batch=8, horizon=6, scaling="std", context=48)
    result = train(hours(2), Calendar.of("h"), asked, Run(tmp_path, device="cpu", on_progress=told.append))
    trials = [one.total for one in told if one.message.startswith("trying aligned")]
    assert set(trials) == {2 * tried + steps}
    assert any(reason.startswith(f"aligned {result.config.aligned}: best in short runs") for reason in result.reasons)


def test_logarithms_are_for_positive_values_and_counts_for_small_whole_numbers() -> None:
    def known(*values: float) -> Facts:
        return Facts.of(Calendar.of("MS"), [Series("a", np.array(values * 10))])

    asked = TrainConfig()
    for values, log, count, least in (
        ((1.5, 2.0, 3.0), True, False, None),
        ((1.0, 2.0, 3.0), False, True, None),
        ((0.0, 2.0, 3.0), False, True, 0.0),
        ((0.0, 2.5, 3.0), False, False, 0.0),
        ((-1.0, 2.0, 3.0), False, False, None),
    ):
        full, _ = complete(asked, found := known(*values))
        offered = options(asked, full, found)
        assert ("log" in offered["scaling"], "head" in offered, full.minimum) == (log, count, least)


def test_networks_differ_in_what_was_left_open_and_one_learns_nothing() -> None:
    known = facts("MS", *[130] * 20)
    full, _ = complete(asked := TrainConfig(preset="balanced"), known)
    lined = members_of(asked, full, known, ("last", "log"))
    assert [one.steps == 0 for one in lined] == [False] * 8 + [True]
    assert {one.cell for one in lined} == {"gru", "lstm"}
    assert {one.scaling for one in lined} == {"last", "log"}
    assert {one.base for one in lined} == {"smooth", "mix"}
    assert len({one.seed for one in lined[:8]}) == 8
    told = TrainConfig(preset="balanced", cell="rnn", scaling="std", base="mix", read=24, members=3)
    full, _ = complete(told, known)
    lined = members_of(told, full, known, ("std",))
    assert [one.replace(seed=0, members=3) for one in lined] == [full] * 3


def test_a_network_reads_what_most_windows_fill() -> None:
    for lengths, read in (([72] * 50, 24), ([700] * 50, 72)):
        config, _ = complete(TrainConfig(), facts("MS", *lengths))
        assert (config.context, config.read) == (72, read)


@pytest.mark.parametrize("least", [0, 1])
def test_small_counts_train_whatever_the_short_runs_choose(least: int, tmp_path: Path) -> None:
    """Logarithms and the head for counts refuse each other: no run may try both."""
    random = np.random.default_rng(0)
    series = [Series(f"s{place}", (random.poisson(3, 60) + least).astype(float)) for place in range(3)]
    known = Facts.of(months := Calendar.of("MS"), series)
    full, _ = complete(asked := TrainConfig(preset="balanced"), known)
    offered = options(asked, full, known)
    assert "negative_binomial" in offered["head"]
    for scaling in offered["scaling"]:
        for head in offered["head"]:
            chosen = full.replace(scaling=scaling, head=head)
            assert members_of(asked, chosen, known, offered["scaling"])
    config = TrainConfig(steps=41, hidden=4, batch=8, horizon=3)
    assert train(series, months, config, Run(tmp_path, device="cpu")).metrics
