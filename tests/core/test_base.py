"""The base that ships: its files, and what it is worth on series that nobody has learned from."""

import numpy as np
import pytest

from models import Calendar, Series, base_folder, open_artifact
from models.inference import GRAPH, WEIGHTS, OpenArtifact, read_manifest
from models.publishing import KINDS, TOLERANCE, difference, load_base

LEVELS = tuple(level / 10 for level in range(1, 10))


@pytest.fixture(scope="module")
def base() -> OpenArtifact:
    return open_artifact(base_folder())


def made(frequency: str, count: int, steps: int, seed: int) -> np.ndarray:
    """Series of trend, season, week and noise, made otherwise than what it learned from: (series, step)."""
    random = np.random.default_rng(seed)
    season = max(2, Calendar.of(frequency).frequency.season)
    time = np.arange(steps)
    level = 100 + random.normal(0, 0.4, (count, 1)) * time / season
    wave = 1 + 0.25 * np.sin(2 * np.pi * (time / season + random.random((count, 1))))
    bump = 0.15 * ((time + random.integers(0, season, (count, 1))) % season < season / 3)
    return level * (wave + bump) + random.normal(0, 3, (count, steps))


@pytest.mark.parametrize(
    ("frequency", "steps", "horizon"), [("MS", 84, 12), ("QS", 44, 8), ("h", 500, 48), ("D", 200, 14)]
)
def test_it_beats_naive_forecasts_on_series_it_never_saw(
    base: OpenArtifact, frequency: str, steps: int, horizon: int
) -> None:
    values = made(frequency, 40, steps + horizon, steps)
    season = Calendar.of(frequency).frequency.season
    known, truth = values[:, :-horizon], values[:, -horizon:]
    series = [Series(str(place), row) for place, row in enumerate(known)]
    found = base.at(Calendar.of(frequency)).forecast(series, horizon, LEVELS).quantiles
    repeated = known[:, -season:][:, np.arange(horizon) % season]
    error = np.abs(found[..., 4] - truth).mean()
    assert error < 0.9 * np.abs(repeated - truth).mean()
    assert error < 0.9 * np.abs(known[:, -1:] - truth).mean()
    inside = ((truth >= found[..., 0]) & (truth <= found[..., 8])).mean()
    assert 0.65 < inside < 0.95


def test_exact_repetition_goes_on(base: OpenArtifact) -> None:
    week = np.tile(np.concatenate([np.arange(24.0)] * 5 + [np.arange(24.0) / 3] * 2), 5)
    found = base.at(Calendar.of("h")).forecast([Series("a", week[:-48])], 48, (0.5,)).quantiles[0, :, 0]
    assert np.abs(found - week[-48:]).max() < 2.0


def test_growth_goes_on_and_is_doubted_more_ahead(base: OpenArtifact) -> None:
    random = np.random.default_rng(8)
    values = 50 + 2.0 * np.arange(60) + random.normal(0, 2, 60)
    found = base.at(Calendar.of("YS")).forecast([Series("a", values)], 8, (0.1, 0.5, 0.9)).quantiles[0]
    assert found[-1, 1] > values[-1] + 4
    assert (found[-1, 2] - found[-1, 0]) > (found[0, 2] - found[0, 0])


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[4]])
def test_its_graph_is_its_weights(kind: tuple[int, int]) -> None:
    assert difference(load_base(base_folder()), (base_folder() / GRAPH).read_bytes(), kind) <= TOLERANCE


def test_it_says_what_it_is_and_is_small() -> None:
    manifest = read_manifest(base_folder())
    assert "made-up" in manifest["card"]
    assert manifest["recipe"]["seed"] >= 0
    assert set(manifest["scores"]) == {"yearly", "quarterly", "monthly", "weekly", "daily", "hourly", "half-hourly"}
    assert sum((base_folder() / name).stat().st_size for name in (WEIGHTS, GRAPH)) < 12e6
