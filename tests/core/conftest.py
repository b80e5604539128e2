"""Small real things for the core's tests: seasonal series, a calendar, a forecaster trained in a second."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from models import Calendar, OpenArtifact, Run, Series, TrainConfig, TrainResult, open_artifact, train

torch.set_num_threads(1)

TINY = TrainConfig(
    steps=30,
    hidden=16,
    layers=1,
    members=1,
    base="mix",
    batch=32,
    learning_rate=2e-3,
    horizon=6,
    context=48,
    segment=12,
    season=12,
    seed=3,
)


def waves(count: int, length: int, seed: int = 0) -> list[Series]:
    """Series with a season of 12 steps, a level of their own and noise."""
    random = np.random.default_rng(seed)
    steps = np.arange(length)
    found = []
    for number in range(count):
        level, size = random.uniform(5, 50), random.uniform(1, 4)
        wave = np.sin(2 * np.pi * (steps / 12 + random.random()))
        values = level + size * (3 * wave + random.normal(0, 0.5, length))
        found.append(Series(f"s{number}", values, start=100 + number))
    return found


@pytest.fixture(scope="session")
def months() -> Calendar:
    return Calendar.of("MS")


@pytest.fixture(scope="session")
def history() -> list[Series]:
    return waves(8, 120)


@pytest.fixture(scope="session")
def result(tmp_path_factory: pytest.TempPathFactory, months: Calendar, history: list[Series]) -> TrainResult:
    """A small forecaster of `history`: 6 steps ahead, context 48."""
    return train(history, months, TINY, Run(tmp_path_factory.mktemp("run"), device="cpu", lineage={"dataset": "waves"}))


@pytest.fixture(scope="session")
def opened(result: TrainResult) -> OpenArtifact:
    return open_artifact(result.artifact)


@pytest.fixture
def fit(tmp_path: Path, months: Calendar):
    """Train in a folder of its own and open what came out: fit(series, **config)."""

    def run(series: Sequence[Series], **config: object) -> OpenArtifact:
        asked = TrainConfig(**{"steps": 10, "hidden": 8, **config})
        return open_artifact(train(series, months, asked, Run(tmp_path, device="cpu")).artifact)

    return run
