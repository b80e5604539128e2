"""What a preset picks, and that it says why."""

import numpy as np
import pytest

from models import Calendar, TrainConfig
from models.bases import Base
from models.presets import Facts, bases_of, complete, options


def facts(frequency: str, *lengths: int) -> Facts:
    return Facts(Calendar.of(frequency), np.array(lengths, np.int64))


@pytest.mark.parametrize(
    ("frequency", "length", "expected"),
    [
        ("h", 960, (48, 336, 24, 24)),
        ("30min", 4000, (48, 672, 24, 48)),
        ("15min", 8000, (96, 1344, 24, 96)),
        ("min", 20_000, (60, 840, 20, 60)),
        ("D", 700, (14, 56, 7, 7)),
        ("W-FRI", 1565, (13, 156, 13, 52)),
        ("MS", 132, (12, 48, 12, 12)),
        ("QE", 60, (8, 16, 4, 4)),
        ("YE", 40, (6, 24, 1, 1)),
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
    assert [name for name, value in config.document().items() if value is None] == ["minimum", "maximum"]
    assert (config.hidden, config.horizon) == (7, 5)
    picked = {name for name, value in asked.document().items() if value is None} - {"minimum", "maximum"}
    assert set(reasons) == picked
    assert all(sentence.startswith(f"{name} ") and sentence.endswith(".") for name, sentence in reasons.items())


def test_a_higher_preset_learns_longer() -> None:
    steps = [complete(TrainConfig(preset=preset), facts("h", *[900] * 50))[0].steps for preset in ("fast", "balanced")]
    assert steps[0] < steps[1]


@pytest.mark.parametrize(
    "asked", [{"context": 35}, {"context": 47}, {"segment": 5}, {"segment": 500}, {"season": 1000}]
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
    assert bases_of(hours.replace(context=48), calendar) == (*day, last)
    assert bases_of(hours.replace(context=12, segment=12), calendar) == (last,)
    assert bases_of(hours.replace(base="seasonal"), calendar) == (day[0],)
    assert bases_of(hours.replace(base="naive"), calendar) == (last,)
    assert bases_of(hours.replace(base="none"), calendar) == ()


def test_only_what_is_open_is_tried_and_places_of_the_season_where_they_come_back_often() -> None:
    assert set(options(TrainConfig(), facts("h", 960))) == {"scaling", "aligned"}
    assert set(options(TrainConfig(), facts("MS", 130))) == {"scaling"}
    assert set(options(TrainConfig(scaling="std"), facts("h", 960))) == {"aligned"}
