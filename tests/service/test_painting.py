"""Whatever is uploaded in whatever order, every revision reads back as a plain dictionary says it should."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from app.db.session import Database
from app.errors import Conflict
from app.services import datasets, segments
from app.services.ingest import Audit, Covariate, Upload
from models import Calendar, Series

Cell = tuple[float, float, float]  # target, temperature, weather (a category's code); NaN = missing
CALENDAR = Calendar.of("h", "Europe/Berlin")
WEATHER = ("sun", "rain", "snow")


def upload(rows: dict[tuple[str, int], Cell], *, covariates: bool = True, phase: int = 0) -> Upload:
    """The rows as ingest would give them; categories in an order of their own, as a file would bring them."""
    order = sorted(rows)
    keys = sorted({key for key, _ in order})
    cells = np.array([rows[at] for at in order], dtype=np.float64)
    codes = np.array([keys.index(key) for key, _ in order])
    columns: dict[str, Any] = {"id": "key", "time": "timestamp", "target": "value", "layout": "long"}
    beside: dict[str, Covariate] = {}
    if covariates:
        listed = ("snow", "sun", "rain")
        weather = np.array([0 if math.isnan(w) else listed.index(WEATHER[int(w)]) + 1 for w in cells[:, 2]], np.float64)
        beside = {
            "temperature": Covariate("past", "number", cells[:, 1], ~np.isnan(cells[:, 1])),
            "weather": Covariate("future", "category", weather, weather > 0, listed),
        }
    return Upload(
        calendar=CALENDAR,
        keys=keys,
        phases=np.full(len(keys), phase, np.int64),
        offsets=np.searchsorted(codes, np.arange(len(keys) + 1)).astype(np.int64),
        steps=np.array([step for _, step in order], np.int64),
        values=cells[:, 0].copy(),
        covariates=beside,
        statics={},
        columns=columns,
        audit=Audit(),
    )


@dataclass
class Model:
    """What the dataset should hold: the cells of each series that is part of it, missing ones left out."""

    series: dict[str, dict[int, Cell]] = field(default_factory=dict)

    def copy(self) -> "Model":
        return Model({key: dict(cells) for key, cells in self.series.items()})

    def apply(self, rows: dict[tuple[str, int], Cell], mode: str) -> None:
        if mode == "replace":
            self.series = {}
        for (key, step), cell in rows.items():
            self.series.setdefault(key, {})[step] = cell

    def refuses(self, rows: dict[tuple[str, int], Cell]) -> bool:
        for (key, step), cell in rows.items():
            for old, new in zip(self.series.get(key, {}).get(step, ()), cell, strict=False):
                if not math.isnan(old) and old != new:
                    return True
        return False


def check(read: list[Series], model: Model, codes: dict[float, float]) -> None:
    assert [one.key for one in read] == sorted(model.series)
    for one in read:
        cells = model.series[one.key]
        present = [step for step, cell in sorted(cells.items()) if not math.isnan(cell[0])]
        assert len(one.target) == (present[-1] - present[0] + 1 if present else 0)
        if not present:
            continue
        assert one.start == present[0]
        steps = range(one.start, one.origin + 1)
        nothing = (math.nan, math.nan, math.nan)
        np.testing.assert_array_equal(one.target, [cells.get(step, nothing)[0] for step in steps])
        np.testing.assert_array_equal(one.past["temperature"], [cells.get(step, nothing)[1] for step in steps])
        future = [codes.get(cells.get(one.start + i, nothing)[2], 0.0) for i in range(len(one.future["weather"]))]
        np.testing.assert_array_equal(one.future["weather"], future)
        known = [step for step, cell in cells.items() if not math.isnan(cell[2])]
        assert len(one.future["weather"]) >= max([*known, one.origin]) - one.start + 1


def random_rows(rng: np.random.Generator, wide: bool) -> dict[tuple[str, int], Cell]:
    rows: dict[tuple[str, int], Cell] = {}
    for key in rng.choice(["a", "b/ü", "c", "d"], size=rng.integers(1, 4), replace=False).tolist():
        start = int(rng.integers(-600, 600)) if wide else int(rng.integers(-30, 30))
        reach = 1500 if wide else 12
        for step in rng.integers(start, start + reach, size=rng.integers(1, 12)).tolist():
            target = math.nan if rng.random() < 0.15 else float(rng.integers(0, 4))
            temperature = math.nan if rng.random() < 0.3 else float(rng.integers(0, 3))
            weather = math.nan if rng.random() < 0.3 else float(rng.integers(0, 3))
            rows[key, step] = (target, temperature, weather)
    return rows


def codes_of(session: Any, dataset: Any) -> dict[float, float]:
    """Which stored code each weather has: 1, 2, … in the order in which the dataset met them."""
    (about,) = datasets.facts(session, [dataset])
    (weather,) = [column for column in about.covariates if column.name == "weather"]
    return {float(WEATHER.index(text)): float(code) for code, text in enumerate(weather.categories, start=1)}


@pytest.mark.parametrize("seed", range(6))
def test_every_revision_reads_as_a_dictionary_says(database: Database, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, history, refused = Model(), [Model()], 0
    for _ in range(40):
        rows = random_rows(rng, wide=bool(rng.random() < 0.2))
        mode = str(rng.choice(["append", "upsert", "replace"], p=[0.45, 0.45, 0.1]))
        if mode == "append" and model.refuses(rows):
            with pytest.raises(Conflict), database.write("default") as session:
                datasets.store(session, "d", upload(rows), "append")
            refused += 1
            mode = "upsert"
        with database.write("default") as session:
            outcome = datasets.store(session, "d", upload(rows), mode)  # type: ignore[arg-type]
        assert outcome.inserted + outcome.updated + outcome.unchanged == len(rows)
        model.apply(rows, mode)
        if outcome.created:
            history.append(model.copy())
        else:
            assert outcome.inserted == outcome.updated == 0
    assert refused > 0
    with database.read("default") as session:
        dataset = datasets.get(session, "d")
        assert dataset.head == len(history) - 1
        codes = codes_of(session, dataset)
        for number, then in enumerate(history[1:], start=1):
            check(datasets.read_series(session, dataset, revision=number), then, codes)
            check_total(datasets.revision_of(session, dataset, number), then)


def check_total(row: Any, model: Model) -> None:
    times = [
        int(CALENDAR.times(np.array([step]), 0)[0])
        for cells in model.series.values()
        for step, cell in cells.items()
        if not math.isnan(cell[0])
    ]
    assert (row.series, row.points) == (len(model.series), len(times))
    stored = [None if at is None else int(at.timestamp()) * 1_000_000 for at in (row.start, row.end)]
    assert stored == [min(times, default=None), max(times, default=None)]


def test_many_small_appends_get_a_fresh_base_and_old_revisions_stay(database: Database) -> None:
    count = segments.MOST * 2 + 10
    for step in range(count):
        with database.write("default") as session:
            rows = {("a", step * 2): (float(step), math.nan, math.nan), ("b", 0): (1.0, math.nan, math.nan)}
            datasets.store(session, "d", upload(rows, covariates=False), "append")
    with database.read("default") as session:
        dataset = datasets.get(session, "d")
        assert dataset.head == count
        extents = segments.extents(session, [1, 2], count)
        assert max(extent.segments for extent in extents.values()) <= segments.MOST
        for number in (1, segments.MOST, segments.MOST + 1, segments.MOST + 2, count):
            one, other = datasets.read_series(session, dataset, revision=number)
            expected = np.full(number * 2 - 1, np.nan)
            expected[::2] = np.arange(number)
            np.testing.assert_array_equal(one.target, expected)
            assert other.target.tolist() == [1.0]


@pytest.mark.parametrize("last", [1, 3, 500])
def test_the_last_steps_are_the_end_of_the_whole(database: Database, last: int) -> None:
    rng = np.random.default_rng(last)
    with database.write("default") as session:
        for _ in range(25):
            datasets.store(session, "d", upload(random_rows(rng, wide=True)), "upsert")
        ends = {("c", step): (math.nan, 1.0, math.nan) for step in range(560, 3000)}
        datasets.store(session, "d", upload(ends), "upsert")  # nulls over the end of a series: its origin moves back
    with database.read("default") as session:
        dataset = datasets.get(session, "d")
        whole = datasets.read_series(session, dataset)
        for one, cut in zip(whole, datasets.read_series(session, dataset, last=last), strict=True):
            assert cut.origin == one.origin
            present = np.flatnonzero(~np.isnan(one.target))
            ahead = int(present[present >= len(one.target) - last][0])
            np.testing.assert_array_equal(cut.target, one.target[ahead:])
            np.testing.assert_array_equal(cut.past["temperature"], one.past["temperature"][ahead:])
            np.testing.assert_array_equal(cut.future["weather"], one.future["weather"][ahead:])
