"""Answers of an open artifact: alone and in company, short and gappy, beyond what it was trained for."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from models import Forecast, OpenArtifact, Series, open_ahead, open_artifact

LEVELS = (0.1, 0.5, 0.9)


def codes(forecast: Forecast) -> dict[str, tuple[int, ...]]:
    return {note.code: note.series for note in forecast.notes}


def edited(series: Series, **places: float) -> Series:
    target = series.target.copy()
    for place, value in places.items():
        target[int(place[1:])] = value
    return dataclasses.replace(series, target=target)


def test_a_forecast_has_its_shapes_and_order(opened: OpenArtifact, history: list[Series]) -> None:
    found = opened.forecast(history, 6, [0.9, 0.1, 0.5, 0.5])
    assert found.levels == LEVELS
    assert found.quantiles.shape == (8, 6, 3)
    assert found.mean.shape == (8, 6)
    assert found.samples is None
    assert list(found.keys) == [one.key for one in history]
    np.testing.assert_array_equal(found.origins, [one.start + 119 for one in history])
    assert (np.diff(found.quantiles, axis=2) >= 0).all()
    assert found.notes == ()


def test_company_and_order_change_nothing(opened: OpenArtifact, history: list[Series]) -> None:
    together = opened.forecast(history, 15, LEVELS, samples=4, seed=7)
    backwards = opened.forecast(history[::-1], 15, LEVELS, samples=4, seed=7)
    np.testing.assert_allclose(backwards.quantiles[::-1], together.quantiles, rtol=1e-5)
    for place, one in enumerate(history):
        alone = opened.forecast([one], 15, LEVELS, samples=4, seed=7)
        np.testing.assert_allclose(alone.quantiles[0], together.quantiles[place], rtol=1e-5)
        np.testing.assert_allclose(alone.mean[0], together.mean[place], rtol=1e-5)
        np.testing.assert_allclose(alone.samples[0], together.samples[place], rtol=1e-5)


def test_a_key_never_seen_is_answered_by_its_history_alone(opened: OpenArtifact, history: list[Series]) -> None:
    renamed = dataclasses.replace(history[0], key="never seen", start=0)
    expected = opened.forecast(history[:1], 6, LEVELS).quantiles
    np.testing.assert_array_equal(opened.forecast([renamed], 6, LEVELS).quantiles, expected)


def test_only_the_context_matters(opened: OpenArtifact, history: list[Series]) -> None:
    cut = [dataclasses.replace(one, target=one.target[-opened.context :]) for one in history]
    expected = opened.forecast(history, 6, LEVELS).quantiles
    np.testing.assert_array_equal(opened.forecast(cut, 6, LEVELS).quantiles, expected)


def test_more_windows_than_one_pass_takes(opened: OpenArtifact, history: list[Series]) -> None:
    many = opened.forecast(history * 80, 6, LEVELS).quantiles
    np.testing.assert_allclose(many[-8:], opened.forecast(history, 6, LEVELS).quantiles, rtol=1e-5)


def test_no_series_is_an_empty_answer(opened: OpenArtifact) -> None:
    assert opened.forecast([], 9, LEVELS, samples=2).quantiles.shape == (0, 9, 3)


def test_notes_name_the_series_they_are_about(opened: OpenArtifact, history: list[Series]) -> None:
    short = Series("short", history[1].target[:5])
    gappy = edited(history[2], p110=np.nan)
    ends_missing = edited(history[3], p119=np.nan)
    silent, empty = Series("silent", np.full(60, np.nan)), Series("empty", np.zeros(0))
    old = edited(history[4], p3=np.nan)  # before the context: no matter
    asked = [history[0], short, gappy, ends_missing, silent, empty, old]
    found = opened.forecast(asked, 6, LEVELS)
    assert codes(found) == {"short_history": (1,), "missing_history": (2, 3), "no_history": (4, 5)}
    assert np.isnan(found.quantiles[4:6]).all()
    assert np.isnan(found.mean[4:6]).all()
    assert np.isfinite(np.delete(found.quantiles, [4, 5], axis=0)).all()


def test_one_known_value_is_enough(opened: OpenArtifact) -> None:
    found = opened.forecast([Series("one", np.array([7.0]))], 20, LEVELS, samples=3)
    assert np.isfinite(found.quantiles).all()
    assert found.quantiles[0, :, 1] == pytest.approx(7.0, abs=7.0)


def test_a_constant_history_goes_on(opened: OpenArtifact) -> None:
    found = opened.forecast([Series("flat", np.full(60, 0.1)), Series("none", np.zeros(60))], 20, LEVELS)
    np.testing.assert_array_equal(found.quantiles[0], 0.1)
    np.testing.assert_array_equal(found.quantiles[1], 0.0)


@pytest.mark.parametrize(("size", "offset"), [(1e-12, 0.0), (-3.0, 0.0), (1.0, 1e9), (1e100, 0.0)])
def test_units_of_any_size(opened: OpenArtifact, history: list[Series], size: float, offset: float) -> None:
    plain = opened.forecast(history, 12, (0.5,)).quantiles
    moved = [dataclasses.replace(one, target=size * one.target + offset) for one in history]
    found = (opened.forecast(moved, 12, (0.5,)).quantiles - offset) / size
    if size > 0:
        np.testing.assert_allclose(found, plain, rtol=1e-3)
    else:
        assert np.isfinite(found).all()  # upside down is another series


def test_beyond_the_trained_horizon_intervals_widen_and_never_cross(
    opened: OpenArtifact, history: list[Series]
) -> None:
    near, far = opened.forecast(history, 6, LEVELS), opened.forecast(history, 40, LEVELS)
    assert codes(far) == {"horizon_beyond_trained": ()}
    np.testing.assert_array_equal(far.quantiles[:, :6], near.quantiles)
    assert (np.diff(far.quantiles, axis=2) >= 0).all()
    width = (far.quantiles[..., 2] - far.quantiles[..., 0]).mean(axis=0)
    assert width[6:12].mean() > width[:6].mean()
    assert width[-6:].mean() > width[6:12].mean()


def test_the_second_part_is_the_forecast_after_the_first_ones_medians(
    opened: OpenArtifact, history: list[Series]
) -> None:
    far = opened.forecast(history, 12, (0.5,)).quantiles[..., 0]
    longer = [
        dataclasses.replace(one, target=np.concatenate([one.target, far[place, :6]]))
        for place, one in enumerate(history)
    ]
    np.testing.assert_allclose(opened.forecast(longer, 6, (0.5,)).quantiles[..., 0], far[:, 6:], rtol=1e-6)


def test_levels_beyond_the_trained_are_extrapolated_and_said(opened: OpenArtifact, history: list[Series]) -> None:
    found = opened.forecast(history, 6, [0.005, 0.1, 0.33, 0.9, 0.995])
    assert codes(found) == {"level_beyond_trained": ()}
    assert (np.diff(found.quantiles, axis=2) > 0).all()
    same = opened.forecast(history, 6, [0.1, 0.9]).quantiles
    np.testing.assert_array_equal(found.quantiles[..., [1, 3]], same)


def test_paths_follow_the_quantiles_and_the_seed(opened: OpenArtifact, history: list[Series]) -> None:
    found = opened.forecast(history[:1], 6, LEVELS, samples=4000, seed=1)
    assert found.samples is not None
    assert found.samples.shape == (1, 4000, 6)
    drawn = np.quantile(found.samples[0], LEVELS, axis=0).T
    spread = found.quantiles[0, :, 2] - found.quantiles[0, :, 0]
    assert (np.abs(drawn - found.quantiles[0]).max(axis=1) < 0.1 * spread).all()
    again, other = (opened.forecast(history[:1], 6, LEVELS, samples=5, seed=seed).samples for seed in (1, 2))
    np.testing.assert_array_equal(again, opened.forecast(history[:1], 6, LEVELS, samples=5, seed=1).samples)
    assert not np.array_equal(again, other)


@pytest.mark.parametrize(
    ("horizon", "levels", "samples", "complaint"),
    [
        (0, LEVELS, 0, "horizon: expected at least 1, got 0"),
        (1, [0.5, 1.0], 0, "levels: expected numbers between 0 and 1, got 1.0"),
        (1, [float("nan")], 0, "levels: expected"),
        (1, LEVELS, -1, "samples: expected at least 0, got -1"),
    ],
)
def test_impossible_questions_are_refused(
    opened: OpenArtifact, horizon: int, levels: list[float], samples: int, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        opened.forecast([], horizon, levels, samples)


def test_answering_loads_neither_torch_nor_pandas(opened: OpenArtifact, result) -> None:
    code = (
        "import sys, numpy, pathlib, models\n"
        "assert not {'torch', 'onnxruntime', 'pandas'} & set(sys.modules)\n"
        "opened = models.open_artifact(pathlib.Path(sys.argv[1]))\n"
        "opened.forecast([models.Series('a', numpy.arange(60.0))], 9, [0.5], samples=2)\n"
        "models.backtest(opened, [models.Series('a', numpy.arange(60.0))], models.BacktestPlan(2, 6, 3))\n"
        "assert not {'torch', 'pandas'} & set(sys.modules), 'torch or pandas was loaded'\n"
    )
    subprocess.run([sys.executable, "-c", code, str(result.artifact)], check=True)


def test_a_graph_loaded_ahead_is_taken_over_once(result, history: list[Series]) -> None:
    open_ahead(result.artifact)
    first, second = open_artifact(result.artifact), open_artifact(result.artifact)
    assert first.session is not second.session
    again = [one.forecast(history, 3, (0.5,)).quantiles for one in (first, second)]
    np.testing.assert_array_equal(again[0], again[1])
    with pytest.raises(ValueError, match=r"manifest\.json"):
        open_ahead(result.artifact.parent / "nothing")
