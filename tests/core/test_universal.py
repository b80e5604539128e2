"""The pre-trained base: tables, graph and answers. One set of weights for any seasons, history and horizon."""

import hashlib
import json
import shutil

import numpy as np
import onnx
import pytest
import torch

from models import Calendar, Run, Series, TrainConfig, base_folder, open_artifact, train
from models.combining import BASES, LOOKED, MOVED, STEADY
from models.inference import BOUND, GRAPH, MANIFEST, WEIGHTS, OpenArtifact
from models.pretraining import LEVELS, Recipe, cut, lessons, loss_of, pretrain
from models.publishing import KINDS, TOLERANCE, difference, example, export, load_base, write_base
from models.synthetic import make
from models.tables import (
    EARLIER,
    TABLES,
    ahead_tables,
    drift_lags,
    drift_weights,
    earlier_tables,
    reach,
    resampling,
    seasons_of,
    tables_for,
    trained_horizon,
)
from models.universal import (
    FEW,
    SURE,
    Answering,
    Read,
    Universal,
    apart,
    drift,
    read_windows,
)

FREQUENCIES = ["YS", "QS", "MS", "W", "D", "B", "h", "30min", "15min", "min", "s", "2h", "step", "7D", "3h"]


@pytest.fixture(scope="module")
def answering() -> Answering:
    torch.manual_seed(3)
    return Answering(Universal(8, LEVELS)).eval()


@pytest.fixture(scope="module")
def base(answering: Answering, tmp_path_factory: pytest.TempPathFactory) -> OpenArtifact:
    folder = tmp_path_factory.mktemp("base")
    write_base(folder, answering, {"dependence": 0.4, "card": "a base of no worth"})
    return open_artifact(folder)


def answer(base: OpenArtifact, target: list[float], frequency: str = "MS", horizon: int = 6) -> np.ndarray:
    one = Series("a", np.array(target, np.float64))
    return base.at(Calendar.of(frequency)).forecast([one], horizon, (0.1, 0.5, 0.9)).quantiles[0]


def read(values: np.ndarray, seasons: tuple[int, int], horizon: int) -> Read:
    """One window that ends with the values, as the network is given it."""
    return read_windows(*window(values, seasons, horizon))[0]


def window(
    values: np.ndarray, seasons: tuple[int, int], horizon: int
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    context = torch.zeros(1, reach(*seasons), dtype=torch.float64)
    mask = torch.zeros_like(context)
    values = values[-context.shape[1] :]
    context[0, -len(values) :], mask[0, -len(values) :] = torch.from_numpy(values), 1.0
    tables = tables_for(*seasons, np.arange(1, horizon + 1))
    return context, mask, {name: torch.from_numpy(table) for name, table in tables.items()}


@pytest.fixture(scope="module")
def graph(answering: Answering) -> bytes:
    return export(answering)


@pytest.mark.parametrize("kind", KINDS[::2])
def test_one_graph_agrees_with_torch_for_any_seasons(answering: Answering, graph: bytes, kind: tuple[int, int]) -> None:
    assert difference(answering, graph, kind) <= TOLERANCE


def test_a_graph_of_other_weights_is_noticed(graph: bytes) -> None:
    torch.manual_seed(4)
    assert difference(Answering(Universal(8, LEVELS)).eval(), graph, (12, 12)) > TOLERANCE


def test_what_was_written_is_what_is_read(answering: Answering, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("again")
    write_base(folder, answering, {"dependence": 0.4})
    again = load_base(folder)
    windows, tables = example((7, 364), 5, 9)
    with torch.no_grad():
        assert torch.equal(again(*windows, *tables), answering(*windows, *tables))
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="SHA-256"):
        load_base(folder)
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, GRAPH, MANIFEST}


@pytest.mark.parametrize("frequency", FREQUENCIES)
@pytest.mark.parametrize("count", [1, 2, 5, 40, 700])
def test_any_frequency_and_any_length_of_history(base: OpenArtifact, frequency: str, count: int) -> None:
    random = np.random.default_rng(count)
    found = answer(base, list(random.normal(size=count).cumsum() - 5), frequency, 7)
    assert found.shape == (7, 3)
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=1) >= 0).all()


def test_a_million_steps_cost_no_more_than_those_it_reads(base: OpenArtifact) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=1_000_000).cumsum()
    length = base.at(Calendar.of("h")).context
    assert np.array_equal(answer(base, list(values), "h"), answer(base, list(values[-length:]), "h"))


def test_constants_go_on_exactly(base: OpenArtifact) -> None:
    for value in (0.0, 7.25, -3.0, 1e12, 1e-12):
        assert (answer(base, [value] * 30) == value).all()
        assert np.isfinite(answer(base, [value])).all()


def test_few_values_that_are_all_alike_may_yet_differ(base: OpenArtifact) -> None:
    widths = [float(np.ptp(answer(base, [150.0] * count), axis=1).min()) for count in range(1, FEW + 1)]
    assert all(width > 0 for width in widths[:-1])
    assert widths[-1] == 0
    assert widths[1] > 2 * widths[4]


def test_few_values_do_not_promise_to_be_close() -> None:
    for count in (1, 2, 3, 6, 12):
        found = read(10.0 + 2.0 * np.arange(count), (12, 12), 6)
        assert float(found.unit) >= 0.999 / count**2


def test_what_drifts_is_told_from_what_comes_back() -> None:
    random = np.random.default_rng(12)
    for values, low, high in ((np.arange(400.0), 1.7, 2.1), (random.normal(size=400), 0.0, 0.2)):
        context, mask, given = window(values, (7, 364), 56)
        farther, _ = drift(apart((context - context.mean()) / context.std(), mask, given), given)
        assert float(farther[0, :7].max()) == 0  # up to a season ahead
        assert low <= float(farther[0, -1, 0]) <= high  # at eight seasons, a line is log(8) times as far
        assert (farther[..., 0].diff() >= -0.1).all()
    weights = drift_weights(7, np.array([1, 7, 14, 21, 28, 56, 90]))
    assert np.allclose(weights.sum(0), 1.0)
    assert weights[:, 3].tolist() == [0.0, 1 - weights[2, 3], weights[2, 3], 0.0]
    assert drift_lags(7).tolist() == [7, 14, 28, 56]
    assert drift_lags(24).tolist() == [24, 48, 96, 96]


def test_a_year_of_days_is_trusted_the_more_the_farther_ahead() -> None:
    random, days = np.random.default_rng(13), np.arange(1100)
    values = 20 + 10 * np.sin(2 * np.pi * days / 365.25) + random.normal(0, 1.5, len(days))
    yearly = [BASES - LOOKED + place for place in (*STEADY, *MOVED)]

    def share(values: np.ndarray) -> np.ndarray:
        doubts = read(values, (7, 364), 56).doubts[0]
        return torch.softmax(-SURE * doubts, -1)[:, yearly].sum(-1).numpy()

    found = share(values)
    assert found[-1] > 0.5 > found[0]
    assert (np.diff(found) >= 0).all()
    assert share(values[-200:])[-1] < 0.05  # a year ago is not known


def test_nothing_is_below_zero_where_the_history_is_not(base: OpenArtifact) -> None:
    random = np.random.default_rng(1)
    counts = random.poisson(0.4, 80).astype(float)
    assert (answer(base, list(counts)) >= 0).all()
    assert (answer(base, [5.0, 4.0, 3.0, 2.0, 1.0, 0.0], horizon=24) >= 0).all()
    assert answer(base, list(counts - 1.0)).min() < 0


def test_what_is_made_of_the_quantiles_is_not_below_zero_either(base: OpenArtifact) -> None:
    counts = Series("a", np.array([0.0, 0.0, 3.0, 0.0, 1.0] * 10))
    found = base.at(Calendar.of("D")).forecast([counts], 90, (0.001, 0.01, 0.5), samples=20)
    assert found.samples is not None
    assert min(found.mean.min(), found.quantiles.min(), found.samples.min()) >= 0
    less = base.at(Calendar.of("D")).forecast([Series("a", counts.target - 1)], 90, (0.001, 0.5), samples=20)
    assert less.quantiles.min() < 0


def test_a_graph_that_wants_other_tables_is_refused(
    base: OpenArtifact, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("other")
    random = np.random.default_rng(0)
    calendar = Calendar.of("MS")
    series = [Series("a", random.normal(size=40))]
    run = Run(folder)
    trained = train(series, calendar, TrainConfig(horizon=2, steps=0, members=1, cell="gru"), run).artifact
    manifest = json.loads((trained / MANIFEST).read_bytes())
    (trained / MANIFEST).write_text(json.dumps({**manifest, "kind": "base"}))
    with pytest.raises(ValueError, match="tables"):
        open_artifact(trained)
    assert not open_artifact(base_folder()).design


def test_a_base_made_earlier_is_told_what_it_asks_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its graph does not ask for what it was not told; here what the drift of months needs is inside it instead. It
    asks for what is told otherwise today."""
    whole = tmp_path_factory.mktemp("whole")
    torch.manual_seed(3)
    write_base(whole, Answering(Universal(8, LEVELS)).eval(), {"dependence": 0.4})
    earlier = shutil.copytree(whole, tmp_path_factory.mktemp("earlier") / "base")
    model = onnx.load(whole / GRAPH)
    tables = tables_for(12, 12, np.arange(1, 7))
    kept = [one for one in model.graph.input if one.name not in ("drifted", "drifts")]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(tables[name], name) for name in ("drifted", "drifts"))
    for name, table in earlier_tables(12, 12, 6).items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(table.dtype)
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, table.shape))
    content = model.SerializeToString()
    manifest = json.loads((earlier / MANIFEST).read_bytes())
    manifest["files"][GRAPH] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (earlier / GRAPH).write_bytes(content)
    (earlier / MANIFEST).write_text(json.dumps(manifest))
    values = list(np.random.default_rng(4).normal(size=80).cumsum())
    opened = open_artifact(earlier)
    assert opened.told == {*TABLES, *EARLIER} - {"drifted", "drifts"}
    assert np.array_equal(answer(opened, values), answer(open_artifact(whole), values))


def test_what_was_told_earlier_is_part_of_what_is_told_now() -> None:
    earlier, now = earlier_tables(24, 168, 30), tables_for(24, 168, np.arange(1, 31))
    assert tuple(sorted(earlier)) == EARLIER
    length, place = reach(24, 168), np.arange(30)
    assert np.array_equal(earlier["look_season"][1], length - 48 + place % 24)
    assert np.array_equal(earlier["look_longer"][2], length - 3 * 168 + place)
    assert np.array_equal(earlier["look_before"][0], length - 168 + place - 24 * (1 + place // 24))
    assert np.array_equal(earlier["checked"][now["latest"]], now["agos"][0])
    ends = len(now["ends"])
    assert np.array_equal(earlier["sums"][:, -ends:], now["counts"][:, earlier["sums"].shape[1] - ends :][:, :ends])


def test_the_calendar_decides_the_season(base: OpenArtifact) -> None:
    assert [base.at(Calendar.of(name)).config.season for name in ("MS", "h", "D", "YS")] == [12, 24, 7, 1]


def test_a_calendar_asked_for_again_is_at_hand_and_not_all_that_ever_were(base: OpenArtifact) -> None:
    hours = base.at(Calendar.of("h"))

    assert base.at(Calendar.of("h")) is hours
    found = [base.at(Calendar.of(f"{count}min")).config.season for count in range(1, 2 * BOUND)]
    assert len(base._bound) <= BOUND
    assert found == [seasons_of(Calendar.of(f"{count}min").frequency)[0] for count in range(1, 2 * BOUND)]
    assert base.at(Calendar.of("h")).config == hours.config


def test_units_do_not_matter(base: OpenArtifact) -> None:
    random = np.random.default_rng(2)
    values = 20 + random.normal(size=90).cumsum()
    plain = answer(base, list(values))
    assert np.allclose(answer(base, list(values * 1000.0)), plain * 1000.0, rtol=1e-5)
    assert np.allclose(answer(base, list(values - 500.0)), answer(base, list(values - 900.0)) + 400.0, rtol=1e-5)


def test_missing_values_are_not_zeros(base: OpenArtifact) -> None:
    values = [100.0 + step % 12 for step in range(120)]
    gappy = [np.nan if step % 7 == 3 else value for step, value in enumerate(values)]
    assert np.abs(answer(base, gappy) - answer(base, values)).max() < 20


def test_no_known_value_is_no_forecast(base: OpenArtifact) -> None:
    found = base.at(Calendar.of("D")).forecast([Series("a", np.array([np.nan, np.nan]))], 3, (0.5,))
    assert np.isnan(found.quantiles).all()
    assert [note.code for note in found.notes] == ["no_history"]


def test_company_changes_nothing(base: OpenArtifact) -> None:
    random = np.random.default_rng(5)
    series = [Series(str(n), random.normal(size=int(random.integers(1, 300))).cumsum()) for n in range(40)]
    bound = base.at(Calendar.of("D"))
    together = bound.forecast(series, 20, (0.1, 0.5, 0.9)).quantiles
    for place in (0, 7, 39):
        alone = bound.forecast([series[place]], 20, (0.1, 0.5, 0.9)).quantiles[0]
        assert np.allclose(alone, together[place], atol=1e-4)


def test_more_steps_do_not_change_the_first(base: OpenArtifact) -> None:
    random = np.random.default_rng(6)
    values = list(random.normal(size=200).cumsum())
    long = answer(base, values, "YS", 60)
    assert np.allclose(long[:10], answer(base, values, "YS", 10), atol=1e-5)
    assert np.isfinite(long).all()
    assert trained_horizon(1) < 60


def test_the_newest_value_moves_the_next_step(base: OpenArtifact) -> None:
    random = np.random.default_rng(7)
    values = list(random.normal(size=60))
    assert not np.allclose(answer(base, values)[0], answer(base, [*values[:-1], values[-1] + 3.0])[0])


def test_tables_point_inside_the_context() -> None:
    for frequency in FREQUENCIES:
        seasons = seasons_of(Calendar.of(frequency).frequency)
        length = reach(*seasons)
        tables = tables_for(*seasons, np.arange(1, trained_horizon(seasons[0]) + 1))
        assert tuple(tables) == TABLES
        for name in ("raws", "agos", "read", "looked", "drifts"):
            assert tables[name].min() >= 0
            assert tables[name].max() < length


def test_looking_up_finds_the_same_place_of_the_season() -> None:
    length = reach(12, 12)
    found = ahead_tables(12, 12, np.array([1, 5, 12, 13]), length)["looked"]
    assert found[0].tolist() == [length - 12, length - 8, length - 1, length - 12]
    assert found[1].tolist() == [length - 24, length - 20, length - 13, length - 24]


@pytest.mark.parametrize("season", [1, 4, 7, 24, 48, 1440])
def test_resampling_keeps_constants_and_means(season: int) -> None:
    weights = resampling(season, 24)
    assert np.allclose(weights.sum(0), 1.0, atol=1e-5)
    if season >= 24:
        line = np.arange(season, dtype=np.float64)
        assert np.isclose((line @ weights).mean(), line.mean())


def test_training_learns_and_repeats_itself() -> None:
    recipe = Recipe(hidden=8, steps=40, batch=64, pool=512, rate=5e-3, average=0.9)
    device = torch.device("cpu")
    first = pretrain(recipe, device, lambda *_: None)
    second = pretrain(recipe, device, lambda *_: None)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    torch.manual_seed(recipe.seed)
    fresh = Universal(recipe.hidden, LEVELS)
    random = np.random.default_rng(99)
    unseen = [lessons(random, kind) for kind in ((1, 0), (12, 0), (24, 168))]
    levels = torch.tensor(LEVELS)
    with torch.no_grad():
        before, after = (sum(float(loss_of(net, one, levels)) for one in unseen) for net in (fresh, first))
    assert after < before


def test_windows_hold_what_came_after() -> None:
    random = np.random.default_rng(11)
    series = make(random, (12, 0), 8)
    lesson = cut(random, series, 2, np.arange(1, 25))
    assert lesson.truth.shape == (16, 24)
    assert lesson.read.bases.shape[:2] == (16, 24)
    assert all(bool(torch.isfinite(part).all()) for part in lesson.parts())
    assert float(lesson.known.mean()) > 0.5


def test_a_year_of_days_is_told_to_days_alone() -> None:
    found = {name: seasons_of(Calendar.of(name).frequency) for name in ("D", "B", "2D", "h", "W")}
    assert found == {"D": (7, 364), "B": (5, 260), "2D": (7, 7), "h": (24, 168), "W": (52, 52)}
