"""Series nobody wishes for: each is trained on, published and forecast; answers are finite, ordered, in scale."""

from collections.abc import Callable

import numpy as np
import pytest

from models import Calendar, OpenArtifact, Run, Series, TrainConfig, open_artifact, train

NAN = np.nan
RANDOM = np.random.default_rng(5)
STEPS = np.arange(150)
WAVE = 10 + 5 * np.sin(2 * np.pi * STEPS / 12) + RANDOM.normal(size=150)
GAPPED = np.where(RANDOM.random(150) < 0.5, NAN, WAVE)
LEVELS = (0.01, 0.1, 0.5, 0.9, 0.99)

CASES: dict[str, list[np.ndarray]] = {
    "twelve points": [WAVE[:12]],
    "two points": [np.array([1.0, 2.0])],
    "one point beside a long one": [np.array([3.0]), WAVE],
    "all missing beside a long one": [np.full(40, NAN), WAVE, np.zeros(0)],
    "half missing, and at both ends": [GAPPED, np.concatenate([np.full(20, NAN), WAVE, np.full(5, NAN)])],
    "negative and around zero": [-1000 * WAVE, WAVE - 10],
    "a huge offset": [1e9 + WAVE, 1e12 + WAVE],
    "tiny": [1e-12 * WAVE, 1e-200 * WAVE],
    "all scales at once": [1e-9 * WAVE, WAVE, 1e9 * WAVE, 1e250 * WAVE],
    "shorter than the horizon": [WAVE[:5], WAVE[:9]],
    "an outlier, and a step at the end": [np.where(STEPS == 100, 1e6, WAVE), np.where(STEPS < 148, 1.0, 500.0)],
    "mostly zeros": [np.where(STEPS % 9 == 0, 4.0, 0.0)],
}
Fit = Callable[..., OpenArtifact]


def named(values: list[np.ndarray]) -> list[Series]:
    return [Series(f"k{place}", row.astype(np.float64)) for place, row in enumerate(values)]


@pytest.mark.parametrize("case", CASES)
def test_it_is_trained_on_and_forecast(fit: Fit, case: str) -> None:
    series = named(CASES[case])
    opened = fit(series)
    found = opened.forecast(series, opened.horizon + 5, LEVELS, samples=3)
    for one, quantiles, mean, paths in zip(series, found.quantiles, found.mean, found.samples, strict=True):
        known = one.target[~np.isnan(one.target)]
        if not known.size:
            assert np.isnan(quantiles).all()
            continue
        assert np.isfinite(quantiles).all()
        assert np.isfinite(mean).all()
        assert np.isfinite(paths).all()
        assert (np.diff(quantiles, axis=1) >= 0).all()
        room = 30 * max(np.ptp(known), np.abs(known).max() if known.size == 1 else 0.0)
        assert (np.abs(quantiles[:, 2] - known.mean()) <= room).all()


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9])
def test_a_constant_goes_on(fit: Fit, value: float) -> None:
    series = named([np.full(100, value)])
    opened = fit(series)
    np.testing.assert_array_equal(opened.forecast(series, 20, (0.1, 0.5, 0.9)).quantiles, value)
    np.testing.assert_allclose(opened.forecast(series, 20, LEVELS).quantiles, value, rtol=1e-15)
    assert "mase" not in opened.manifest["metrics"]  # nothing to divide by
    assert opened.manifest["metrics"]["mae"] == 0.0


def test_twelve_points_are_close_to_a_naive_forecast(fit: Fit) -> None:
    series = named([WAVE[:12]])
    middle = fit(series, steps=200).forecast(series, 2, (0.5,)).quantiles[0, :, 0]
    assert (np.abs(middle - WAVE[11]) < 2 * WAVE[:12].std()).all()


def test_five_thousand_short_series(fit: Fit) -> None:
    lengths = RANDOM.integers(3, 30, 5000)
    series = named([RANDOM.random() * 100 * WAVE[:length] for length in lengths])
    opened = fit(series)
    assert opened.manifest["origins"]["series"] == 5000
    assert np.isfinite(opened.forecast(series, opened.horizon, (0.5,)).quantiles).all()


@pytest.mark.parametrize(
    "config",
    [
        {"horizon": 1, "quantiles": (0.5,)},
        {"cell": "lstm", "layers": 2, "batch": 1},
        {"cell": "rnn", "segment": 1, "context": 12},
        {"base": "none", "scaling": "last"},
        {"base": "seasonal", "season": 7, "quantiles": (0.05, 0.95)},
        {"context": 5, "season": 30},
    ],
)
def test_every_corner_of_the_config(fit: Fit, config: dict) -> None:
    opened = fit(named([WAVE, GAPPED]), **config)
    for name, value in config.items():
        assert getattr(opened.config, name) == value
    found = opened.forecast(named([WAVE]), 15, LEVELS)
    assert np.isfinite(found.quantiles).all()
    assert (np.diff(found.quantiles, axis=2) >= 0).all()


def test_bounds_hold_beyond_the_horizon_and_the_levels(fit: Fit) -> None:
    opened = fit(named([WAVE]), minimum=8.0, maximum=12.0)
    found = opened.forecast(named([WAVE]), opened.horizon * 3, LEVELS, samples=50)
    for values in (found.quantiles, found.mean, found.samples):
        assert values.min() >= 8.0
        assert values.max() <= 12.0


def test_integer_steps_have_no_season(tmp_path) -> None:
    series = named([WAVE])
    run = Run(tmp_path, device="cpu")
    opened = open_artifact(train(series, Calendar.of("step"), TrainConfig(steps=10, hidden=8), run).artifact)
    assert opened.config.season == 1
    assert np.isfinite(opened.forecast(series, 30, LEVELS).quantiles).all()
