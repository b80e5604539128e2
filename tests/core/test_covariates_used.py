"""Covariates and the calendar in use: learned from on made series where they matter, and what happens without them."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from models import (
    BacktestPlan,
    Calendar,
    Column,
    OpenArtifact,
    Run,
    Series,
    Stopped,
    TrainConfig,
    backtest,
    open_artifact,
    train,
)

BERLIN = Calendar.of("h", "Europe/Berlin")
DAYS = Calendar.of("D")
SMALL = TrainConfig(
    steps=100, cell="gru", hidden=16, layers=1, batch=32, horizon=6, context=28, segment=7, season=7,
    learning_rate=5e-3, scaling="std", base="mix", aligned=0.0, calendar=False, members=1, seed=1,
)  # fmt: skip
EXTRA = 20  # steps ahead that covariates are known for
COLUMNS = (Column("region", "static", "category", ("north", "south")),)

Fit = Callable[..., OpenArtifact]


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Train on series and open what came out: fit(series, **config)."""

    def run(series: Sequence[Series], clock: Calendar = DAYS, **config: object) -> OpenArtifact:
        run = Run(tmp_path_factory.mktemp("run"), "cpu")
        return open_artifact(train(series, clock, SMALL.replace(**config), run, COLUMNS).artifact)

    return run


@pytest.fixture(scope="module")
def shop(fit: Fit) -> tuple[OpenArtifact, list[Series], np.ndarray]:
    """A forecaster of daily sales that a promotion, known ahead, doubles; the series; their levels without,
    (series,)."""
    random = np.random.default_rng(0)
    levels = random.uniform(20, 100, 12)
    found: list[Series] = []
    for number, level in enumerate(levels):
        promo = (random.random(150 + EXTRA) < 0.2).astype(float)
        sales = level * (1 + promo[:150]) + random.normal(0, 0.02 * level, 150)
        found.append(Series(f"s{number}", sales, 100, future={"promo": promo}))
    return fit(found), found, levels


Shop = tuple[OpenArtifact, list[Series], np.ndarray]


def test_what_is_known_of_the_future_is_used(shop: Shop, fit: Fit) -> None:
    opened, series, levels = shop
    without = fit(series, covariates=False)
    assert [one.name for one in opened.design.steps] == ["promo"]
    assert not without.design
    mase, other = opened.manifest["metrics"]["mase"], without.manifest["metrics"]["mase"]
    assert mase < 0.5 * other
    assert "covariates True: promo." in opened.manifest["reasons"]
    for promo in (0.0, 1.0):  # what the request says of the future decides
        asked = [dataclasses.replace(one, future={"promo": np.append(one.future["promo"][:150], [promo] * 6)})
                 for one in series]  # fmt: skip
        found = opened.forecast(asked, 6, [0.5])
        np.testing.assert_allclose(found.mean / levels[:, None], 1 + promo, atol=0.5)
        assert not found.notes
    # The scores in the manifest are those of a backtest, which knows the promotions after each origin.
    again = backtest(opened, series, BacktestPlan(1, 6, 6, ()))
    assert [row["value"] for row in again.scores if row["metric"] == "mase"] == [mase]
    # Beyond the trained horizon the later steps' promotions count too.
    late = [0.0] * 8 + [1.0] * 4
    asked = [dataclasses.replace(one, future={"promo": np.append(one.future["promo"][:150], late)}) for one in series]
    far = opened.forecast(asked, 12, [0.5]).mean / levels[:, None]
    assert far[:, 8:].mean() > 1.5 * far[:, :8].mean()


def test_what_is_missing_is_said_and_taken_as_usual(shop: Shop) -> None:
    opened, series, levels = shop
    blind = [dataclasses.replace(one, future={}) if place % 2 else one for place, one in enumerate(series)]
    found = opened.forecast(blind, 6, [0.5])
    (note,) = found.notes
    assert (note.code, note.series) == ("missing_covariates", (1, 3, 5, 7, 9, 11))
    assert "'promo'" in note.message
    assert (np.abs(found.mean[1::2] / levels[1::2, None] - 1.3) < 0.7).all()
    # Company and order change nothing.
    for place in (0, 5):
        alone = opened.forecast([blind[place]], 6, [0.5])
        np.testing.assert_allclose(alone.mean[0], found.mean[place], rtol=1e-6)
    back = opened.forecast(blind[::-1], 6, [0.5])
    np.testing.assert_allclose(back.mean[::-1], found.mean, rtol=1e-6)
    # The newest value moves the first step.
    moved = [dataclasses.replace(one, target=np.append(one.target[:-1], 1.5 * one.target[-1])) for one in series]
    assert (np.abs(opened.forecast(moved, 1, [0.5]).mean / opened.forecast(series, 1, [0.5]).mean - 1) > 1e-4).all()


def test_a_past_covariate_that_leads_is_used(fit: Fit) -> None:
    random = np.random.default_rng(1)
    series: list[Series] = []
    for number in range(12):
        orders = random.normal(size=152)  # each delivered two days later
        series.append(Series(f"s{number}", 10 + orders[:150], past={"orders": orders[2:]}))
    config = {"base": "naive", "horizon": 2, "context": 7, "steps": 160, "learning_rate": 1e-2}
    opened, without = (fit(series, covariates=uses, **config) for uses in (True, False))
    assert opened.manifest["metrics"]["mae"] < 0.6 * without.manifest["metrics"]["mae"]


def test_a_static_category_is_used_and_an_unknown_one_works(fit: Fit) -> None:
    random = np.random.default_rng(3)
    series: list[Series] = []
    for number in range(24):  # up in one region, down in the other
        steps = random.normal(0.5 - number % 2, 1, 80)
        series.append(Series(f"s{number}", 50 + np.cumsum(steps), static={"region": 1.0 + number % 2}))
    opened = fit(series, base="naive", context=7, scaling="last")
    new = [Series(f"new{number}", 50 + np.cumsum(random.normal(size=20))) for number in range(10)]
    found = {
        region: opened.forecast([dataclasses.replace(one, static={"region": region}) for one in new], 6, [0.5]).mean
        for region in (1.0, 2.0, 0.0, 7.0, -3.0)
    }
    apart = found[1.0][:, -1] - found[2.0][:, -1]
    assert (apart > 0).all()
    assert apart.mean() > 0.5
    assert all(np.isfinite(mean).all() for mean in found.values())
    np.testing.assert_array_equal(found[7.0], found[0.0])
    np.testing.assert_array_equal(found[-3.0], found[0.0])


def test_opening_hours_follow_the_clock_when_it_is_moved(fit: Fit) -> None:
    first = int(np.datetime64("2025-12-01T00:00", "h").astype(int))
    steps = first + np.arange(24 * 110)
    hours = BERLIN.to_local(BERLIN.times(steps, 0)) // 3_600_000_000 % 24
    values = 1.0 + ((hours >= 8) & (hours < 18))
    random = np.random.default_rng(0)
    series = [Series(f"s{n}", values + random.normal(0, 0.02, len(values)), first) for n in range(3)]
    opened = fit(series, BERLIN, calendar=True, base="naive", context=12, segment=6, season=24, horizon=12, steps=250)
    assert opened.design.calendar[:2] == ("day_sin", "day_cos")
    for day in ("2026-03-25", "2026-03-30"):  # before and after the night of the 29th
        midnight = int(BERLIN.locate(BERLIN.to_utc(np.array([np.datetime64(day, "us").astype(np.int64)]))[0])[0][0])
        night = Series("night", np.ones(12), midnight - 12)  # eight hours before the doors open
        found = opened.forecast([night], 12, [0.5])
        assert (np.flatnonzero(found.mean[0] > 1.5)[:1] == [8]).all(), day
        unknown = opened.forecast([dataclasses.replace(night, dated=False)], 12, [0.5])
        assert [note.code for note in unknown.notes] == ["missing_start"]


def test_stopped_and_gone_on_or_begun_from_a_version(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    promos = (random.random((6, 66)) < 0.2).astype(float)
    series = [
        Series(f"s{number}", 50 * (1 + promo[:60]) + random.normal(size=60), future={"promo": promo},
               static={"region": 1.0 + number % 2})
        for number, promo in enumerate(promos)
    ]  # fmt: skip
    config = SMALL.replace(steps=8, context=14)
    whole = train(series, DAYS, config, Run(tmp_path / "whole", "cpu"), COLUMNS)
    asked = iter(range(100))
    with pytest.raises(Stopped):
        train(series, DAYS, config, Run(tmp_path / "parts", "cpu", should_stop=lambda: next(asked) == 4), COLUMNS)
    parts = train(series, DAYS, config, Run(tmp_path / "parts", "cpu"), COLUMNS)
    ours, theirs = (load_file(one.artifact / "weights.safetensors") for one in (whole, parts))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    # A version goes on with its own codes, whatever those of the data are.
    other = [Column("region", "static", "category", ("south", "north"))]
    swapped = [dataclasses.replace(one, static={"region": 3 - one.static["region"]}) for one in series]
    on = train(swapped, DAYS, TrainConfig(steps=2), Run(tmp_path / "on", "cpu", start=whole.artifact), other)
    assert open_artifact(on.artifact).design == open_artifact(whole.artifact).design
    fresh = backtest(open_artifact(whole.artifact), series, BacktestPlan(1, 6, 6, ()))
    mase = next(row["value"] for row in fresh.scores if row["metric"] == "mase")
    assert on.metrics["mase"] == pytest.approx(mase, rel=0.1)
