"""Covariates and the calendar: gathered alike on all ways, used where they matter, harmless where they are missing."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from models import (
    Calendar,
    Column,
    Series,
    TrainConfig,
)
from models.artifact import compare, export
from models.bases import Base
from models.covariates import Encoder, Store
from models.features import (
    Design,
    Feature,
    beside,
    calendar_columns,
    calendar_names,
    cycles_of,
    gather,
    lacking,
    offer,
    recoded,
)
from models.forecaster import Forecaster, Inputs, Member, inputs_of
from models.windows import Panel

BERLIN = Calendar.of("h", "Europe/Berlin")
DAYS = Calendar.of("D")
SMALL = TrainConfig(
    steps=100, cell="gru", hidden=16, layers=1, batch=32, horizon=6, context=28, segment=7, season=7,
    learning_rate=5e-3, scaling="std", base="mix", aligned=0.0, calendar=False, members=1, seed=1,
)  # fmt: skip
EXTRA = 20  # steps ahead that covariates are known for


def mixed(count: int = 5, length: int = 60) -> list[Series]:
    """Series of different lengths and starts with covariates of every role and kind, with gaps."""
    random = np.random.default_rng(2)
    found: list[Series] = []
    for number in range(count):
        time = length + 3 * number
        target = random.normal(size=time)
        target[: number % 3] = np.nan
        price, visits = random.normal(5, 2, time + EXTRA), random.normal(size=time)
        price[random.random(len(price)) < 0.1] = np.nan
        found.append(
            Series(
                f"s{number}", target, 400_000 + 7 * number, 0,
                past={"visits": visits},
                future={"price": price, "kind": random.integers(0, 4, time + EXTRA).astype(float)},
                static={"size": float(number), "region": float(number % 3)},
            )
        )  # fmt: skip
    return found


COLUMNS = (
    Column("visits", "past"),
    Column("price", "future"),
    Column("kind", "future", "category", ("a", "b", "c")),
    Column("size", "static"),
    Column("region", "static", "category", ("north", "south")),
)


def known(series: Sequence[Series], calendar: Calendar = BERLIN, pad: int = 40) -> Panel:
    """The panel of `series` with all its features."""
    panel = Panel.of(series, pad)
    names = calendar_names(("day", "week"))
    design = offer(series, COLUMNS, None)
    design = Design((*(Feature(name, "calendar") for name in names), *design.steps), design.static)
    found = beside(series, panel, calendar, design, pad)
    return dataclasses.replace(panel, beside=found.part(found.usable(panel, panel.lengths)))


# ---------------------------------------------------------------- the calendar


def test_the_hour_is_what_the_local_clock_shows() -> None:
    summer = np.datetime64("2026-03-29T00:00", "h").astype(int) + np.arange(4)  # UTC; at 01:00 clocks go on from 2 to 3
    angle = np.arctan2(*calendar_columns(BERLIN, calendar_names(("day",)), summer).T)
    np.testing.assert_allclose(np.round(angle / (2 * np.pi) * 24) % 24, [1, 3, 4, 5])
    week = calendar_columns(BERLIN, ("week_sin", "week_cos"), np.array([-2, -1]) + summer[0])
    saturday, sunday = (np.round(np.arctan2(*row) / (2 * np.pi) * 7) % 7 for row in week)
    assert (saturday, sunday) == (5, 6)  # midnight in Berlin is 23:00 UTC the day before


@pytest.mark.parametrize(
    ("frequency", "steps", "cycles"),
    [
        ("15min", 100_000, ("hour", "day", "week", "year")),
        ("h", 1000, ("day", "week")),
        ("D", 200, ("week", "month")),
        ("D", 1000, ("week", "month", "year")),
        ("B", 1000, ("week", "month", "year")),
        ("W", 200, ("year",)),
        ("MS", 20, ()),
        ("ME", 30, ("year",)),
        ("QS", 30, ("year",)),
        ("YE", 90, ()),
        ("step", 9999, ()),
    ],
)
def test_cycles_are_longer_than_a_step_and_seen_twice(frequency: str, steps: int, cycles: tuple[str, ...]) -> None:
    assert cycles_of(Calendar.of(frequency), steps) == cycles


def test_series_far_apart_cost_no_table_of_all_the_time_between() -> None:
    near = mixed(3)
    far = [dataclasses.replace(one, start=one.start + 50_000_000 * place) for place, one in enumerate(near)]
    panel = known(far)
    assert panel.beside is not None
    assert len(panel.beside.table) < 1000
    for place, one in enumerate(far):
        steps = one.origin + np.arange(-9, 6)
        own, _ = panel.beside.cut(panel, (np.array([place]), panel.lengths[[place]]), 10, 5)
        np.testing.assert_array_equal(own[0, :, :4], calendar_columns(BERLIN, panel.beside.design.calendar, steps))


# ---------------------------------------------------------------- gathered


def test_a_panel_and_a_question_gather_the_same() -> None:
    series = mixed()
    panel = known(series)
    assert panel.beside is not None
    ends = panel.lengths - 8
    own, static = panel.beside.cut(panel, (np.arange(5), ends), 20, 6)
    cut = [dataclasses.replace(one, target=one.target[:-8]) for one in series]
    features, statics = gather(panel.beside.design, cut, BERLIN, 20, 6)
    np.testing.assert_array_equal(own, features)
    np.testing.assert_array_equal(static, statics)
    past = [place for place, one in enumerate(panel.beside.design.steps) if one.role == "past"]
    assert np.isnan(own[:, 20:, past]).all()
    assert not np.isnan(own[:, :20, past]).any()


def test_the_store_gives_what_the_graph_computes() -> None:
    panel = known(mixed())
    assert panel.beside is not None
    encoder = Encoder(panel.beside.design)
    encoder.fit(panel, panel.lengths)
    which, ends = np.array([0, 1, 2, 4, 4]), np.array([3, 30, 50, 60, 25])  # some reach over their series' ends
    inputs = inputs_of(panel, (which, ends), (20, 6), panel.beside.design)
    assert inputs.features is not None
    assert inputs.static is not None
    mask = inputs.mask.clone()
    mask[3, :9] = 0  # a front taken away in learning
    store = Store(encoder, panel, torch.arange(-20, 6))
    features, static = store.gather(store.places(which, ends), mask, None)
    torch.testing.assert_close(features, encoder.plain(inputs.features, mask))
    torch.testing.assert_close(static, encoder.static.plain(inputs.static))
    assert features is not None
    assert (features[3, :9] == 0).all()
    assert (features[0, :17] == 0).all()
    blind = torch.ones(5, store.categories, dtype=torch.bool)
    unknowing, _ = store.gather(store.places(which, ends), mask, blind)
    assert unknowing is not None
    assert (unknowing[..., store.codes] == 0).all()
    assert (features[..., store.codes] > 0).any()


def test_numbers_are_standardised_and_strange_codes_unknown() -> None:
    panel = known(mixed())
    assert panel.beside is not None
    encoder = Encoder(panel.beside.design)
    encoder.fit(panel, panel.lengths)
    raw = torch.from_numpy(panel.beside.cells[panel.beside.learned(panel, panel.lengths)])
    plain = encoder.steps.plain(raw)  # price, visits, whether there is a price, kind
    assert plain.shape[1] == 4
    there = plain[:, 2] == 1
    assert 0.7 < there.float().mean() < 0.99
    assert (plain[~there, 0] == 0).all()
    assert plain[there, 0].mean().abs() < 1e-5
    assert (plain[there, 0].std() - 1).abs() < 0.01
    strange = torch.tensor([[1.0, torch.nan, 0.0], [7.0, 9.0, 1e12], [-1.0, 2.0, torch.nan]])
    assert encoder.steps.codes == [0]  # kind, price, visits
    assert encoder.steps.plain(strange[:, [2, 0, 1]])[:, 3].tolist() == [0.0, 0.0, 0.0]


def test_a_number_on_another_level_in_each_series_counts_from_its_own() -> None:
    random = np.random.default_rng(5)
    prices = [level * random.uniform(0.8, 1.0, 80) for level in (1.0, 30.0, 900.0)]
    series = [Series(f"s{n}", random.normal(size=60), future={"price": price}) for n, price in enumerate(prices)]
    panel = Panel.of(series, 30)
    found = beside(series, panel, DAYS, offer(series, COLUMNS, None), 30)
    panel = dataclasses.replace(panel, beside=found.part(found.usable(panel, panel.lengths)))
    assert panel.beside is not None
    (price,) = panel.beside.design.steps
    assert (price.own, price.log, price.gaps) == (True, True, False)
    encoder = Encoder(panel.beside.design)
    encoder.fit(panel, panel.lengths)
    inputs = inputs_of(panel, (np.arange(3), np.full(3, 40)), (20, 6), panel.beside.design)
    assert inputs.features is not None
    seen = [encoder.embed(encoder.plain(factor * inputs.features, inputs.mask)) for factor in (1.0, 7.0)]
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-4, atol=1e-4)  # all prices seven times as high: nothing new
    logs = np.log([own[20:46] for own in prices])
    expected = (logs - logs.mean(axis=1, keepdims=True)) / float(encoder.steps.deviation[0])
    np.testing.assert_allclose(seen[0][..., 0], expected, atol=1e-4)
    assert (seen[0][..., 1] == 1).all()  # whether it is there


def test_columns_that_never_change_are_left_out() -> None:
    series = [dataclasses.replace(one, future={**one.future, "open": np.ones(90)}) for one in mixed()]
    for one in series:
        one.future["late"] = np.where(np.arange(90) < 50, 1.0, 2.0)
    panel = Panel.of(series, 20)
    found = beside(series, panel, BERLIN, offer(series, COLUMNS, None), 20)
    assert [one.name for one in found.usable(panel, np.full(5, 45)).covariates] == [
        "kind", "price", "visits", "region", "size",
    ]  # fmt: skip
    assert "late" in [one.name for one in found.usable(panel, np.full(5, 60)).covariates]


def test_categories_are_found_by_their_texts() -> None:
    design = Design((), (Feature("region", "static", "category", 3, ("south", "north")), Feature("size", "static")))
    series = mixed(3)  # of no region, north, south
    told = recoded(series, COLUMNS, design)
    assert [one.static["region"] for one in told] == [0, 2, 1]
    assert [one.static["size"] for one in told] == [0, 1, 2]
    other = recoded(series, [Column("size", "static", "category", ("x",))], design)
    assert np.isnan([one.static["size"] for one in other]).all()  # a name of that kind is another column


def test_what_is_lacking_is_said() -> None:
    one = mixed(1)[0]
    design = Design((Feature("price", "future", gaps=True), Feature("kind", "future", "category", 4)),
                    (Feature("size", "static"),))  # fmt: skip
    series = [one, dataclasses.replace(one, future={}), dataclasses.replace(one, static={})]
    series.append(dataclasses.replace(one, future={name: own[:63] for name, own in one.future.items()}))
    features, static = gather(design, series, BERLIN, 20, 6)
    found = {name: np.flatnonzero(rows).tolist() for name, rows in lacking(design, features, static, 20).items()}
    assert found == {"price": [1], "kind": [1, 3], "size": [2]}


# ---------------------------------------------------------------- in the graph

STEPS = (
    Feature("day_sin", "calendar"),
    Feature("price", "future"),
    Feature("promo", "future", "category", 4),
    Feature("visits", "past", gaps=True),
)
STATIC = (Feature("size", "static", gaps=True), Feature("region", "static", "category", 5))


@pytest.mark.parametrize(
    ("decoder", "design"),
    [
        ("direct", Design(STEPS, STATIC)),
        ("recursive", Design(STEPS, STATIC)),
        ("seq2seq", Design(STEPS, STATIC)),
        ("direct", Design((), STATIC)),
    ],
)
def test_graph_and_torch_agree_with_features(decoder: str, design: Design) -> None:
    torch.manual_seed(0)
    config = SMALL.replace(
        decoder=decoder, hidden=8, horizon=8, context=12, segment=6, season=6, head="quantile", minimum=-50.0,
        covariates=True, calendar=True, patience=1,
    )  # fmt: skip
    bases = (Base("newest", 6), Base("mean", 6), Base("newest", 1))
    members = [Member(config.replace(seed=seed), bases, design) for seed in range(2)]
    for parameter in torch.nn.ModuleList(members).parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    mask = (torch.rand(40, 12) > 0.3).float()
    mask[0], mask[1, :9] = 0, 0
    features, static = torch.randn(40, 20, 4), torch.stack([torch.randn(40), torch.arange(40.0) - 2], dim=1)
    features[..., 2] = torch.randint(-1, 6, (40, 20)).float()
    features[torch.rand_like(features) < 0.3] = torch.nan
    static[::3, 0], static[5, 1] = torch.nan, torch.nan
    context = 7 + torch.randn(40, 12, dtype=torch.float64)
    windows = Inputs(context * mask, mask, features if design.steps else None, static)
    forecaster = Forecaster(config, members).eval()
    assert compare(forecaster, export(forecaster, windows), windows) < 1e-5
