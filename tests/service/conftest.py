"""What the tests of the service share: one tiny trained version, and the ways to put it and some series in place."""

import json
import math
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from app import store
from app.config import Settings
from app.db.session import Database
from app.services import datasets, shipped
from app.services.registry import NewVersion, add_version
from models import Calendar, Run, Series, TrainConfig, TrainResult

DAY = "2026-01-05"  # a Monday


def wave(length: int, level: float = 100.0) -> list[float]:
    """A week's pattern around a level: smooth, so that nothing in a test hangs on chance."""
    return [round(level + 10 * math.sin(2 * math.pi * step / 7) + step % 3, 2) for step in range(length)]


@pytest.fixture(scope="session")
def tiny_version(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A real GRU, trained for a few steps on daily series: context 14, horizon 7, levels 0.1 to 0.9."""
    import torch

    from models import train

    torch.set_num_threads(1)
    series = [Series(f"s{level}", np.array(wave(120, 100.0 + level)), start=20_000) for level in range(3)]
    config = TrainConfig(steps=4, hidden=8, context=14, horizon=7, segment=7, batch=16)
    return train(series, Calendar.of("D"), config, Run(tmp_path_factory.mktemp("tiny"), device="cpu"))


@pytest.fixture
def publish(settings: Settings, database: Database, tiny_version: TrainResult) -> Callable[..., int]:
    """Publishes the tiny version once more and records it: `publish("fuel", promote="always")` gives its number."""

    def published(model: str = "fuel", **changes: Any) -> int:
        folder = f"job_{model}-{len(list(settings.store.iterdir()))}"
        reserved = store.reserve(settings.store, folder)
        for name in store.FILES:
            shutil.copyfile(tiny_version.artifact / name, reserved / name)
        path = store.publish(settings.store, reserved, folder)
        calendar = json.loads((path / store.MANIFEST).read_bytes())["calendar"]
        facts: dict[str, Any] = {
            "frequency": calendar["frequency"],
            "time_zone": calendar["time_zone"],
            "config": tiny_version.config.document(),
            "metrics": tiny_version.metrics,
            "baselines": tiny_version.baselines,
            "parameters": tiny_version.parameters,
            "size_bytes": store.size(path),
            "device": tiny_version.device,
            "train_seconds": tiny_version.seconds,
        }
        new = NewVersion(model=model, folder=folder, digest=store.digest(path), **(facts | changes))
        with database.write("default") as session:
            return add_version(session, new).number

    return published


@pytest.fixture
def base(settings: Settings, database: Database) -> None:
    """The model that comes with the program, as `gatecast migrate` installs it."""
    assert shipped.install(settings, database) is None


@pytest.fixture
def stored(database: Database) -> Callable[..., int]:
    """Stores daily series that begin on DAY: `stored("gasoline", {"a": wave(30)})`; None or NaN is an explicit null."""

    def store_series(name: str, series: dict[str, list[Any]], time_zone: str = "UTC", frequency: str = "D") -> int:
        calendar = Calendar.of(frequency, time_zone)
        with database.write("default") as session:
            row = datasets.find(session, name) or datasets.create(session, name, (frequency, time_zone), {})
            first = 0 if frequency == "step" else int(np.datetime64(DAY, "us").astype(np.int64))
            if frequency != "step":
                first = int(calendar.to_utc(np.array([first]))[0][0])
            start, phase = (int(each[0]) for each in calendar.locate(np.array([first])))
            points = [
                (key, int(time), value)
                for key, values in series.items()
                for time, value in zip(
                    calendar.times(np.arange(start, start + len(values)), phase), values, strict=True
                )
            ]
            return datasets.append_points(session, row, points).revision.number

    return store_series
