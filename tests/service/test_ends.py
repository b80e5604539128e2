"""The kept ends of whole datasets are those that the database has."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.db.session import Database
from app.errors import NotFound
from app.services import datasets
from app.services.ends import KeptEnds, size
from app.services.series import erase, read_series
from models import Ends

LAST = 6


def ends(database: Database, kept: KeptEnds, keys: list[str] | None = None, last: int = LAST) -> Ends | None:
    """What is kept, after a comparison with what is read from the segments."""
    with database.read("default") as session:
        row = datasets.get(session, "many")
        found = kept.read(session, (row, datasets.revision_of(session, row)), keys, last)
        expected = read_series(session, row, None, keys, last, beside=())
    if found is None:
        return None
    assert list(found.keys) == [one.key for one in expected]
    for mine, one in zip(found, expected, strict=True):
        tail = mine.target[-last:]
        tail = tail[np.cumsum(~np.isnan(tail)) > 0]  # more may be kept than was asked for
        np.testing.assert_array_equal(tail, one.target, err_msg=one.key)
        assert not len(one.target) or (mine.origin, mine.phase) == (one.origin, one.phase)
    return found


@pytest.fixture
def append(database: Database) -> Callable[..., None]:
    def appended(*points: tuple[str, int, float]) -> None:
        """Points of (key, day, value); a day counts from 2026-01-05 on."""
        day = 86_400_000_000
        first = int(np.datetime64("2026-01-05", "us").astype(np.int64))
        with database.write("default") as session:
            row = datasets.get(session, "many")
            datasets.append_points(session, row, [(key, first + at * day, value) for key, at, value in points])

    return appended


def test_whatever_comes_is_painted_over_them(
    database: Database, stored: Callable[..., int], append: Callable[..., None]
) -> None:
    nan = float("nan")
    stored("many", {"a": [1.0, 2.0, 3.0], "b": [float(day) for day in range(40)], "c": [nan, nan], "d": [5.0] * 9})
    kept = KeptEnds(2**20)
    first = ends(database, kept)
    assert ends(database, kept) is first
    for points in (
        [("a", 3, 4.0), ("b", 40, 7.0), ("d", 9, 1.0)],
        [("b", day, float(day)) for day in range(41, 60)],  # more than is kept, packed
        [("a", day, day / 7) for day in range(4, 30)],
        [("d", 10, nan)],  # says that the newest is missing
        [("d", 11, nan), ("d", 12, 3.0), ("d", 13, nan)],
        [("a", 35, 1.0)],  # beyond a gap
        [("b", 500, 1.0)],  # and a wide one
        [("c", 2, 1.0)],  # the first value of its series
        [("e", 0, 1.0), ("a", 36, 2.0)],  # a new one
    ):
        append(*points)
        found = ends(database, kept)
        assert found is not None, points
    assert ends(database, kept, ["e", "a"]) is not None
    assert ends(database, kept, last=2 * LAST) is not None
    assert ends(database, kept) is not None
    with pytest.raises(NotFound):
        ends(database, kept, ["a", "x", "b"])


def test_a_small_append_reads_only_itself(
    database: Database, stored: Callable[..., int], append: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored("many", {"a": [1.0, 2.0, 3.0], "b": [float(day) for day in range(40)]})
    kept = KeptEnds(2**20)
    ends(database, kept)
    monkeypatch.delattr("app.services.ends._read")
    append(("a", 3, 1.0), ("b", 40, 2.0))
    append(("a", 4, float("nan")), ("b", 41, 2.0))
    assert ends(database, kept) is not None
    monkeypatch.setattr("app.services.segments.MOST", 4)  # then a series gets a fresh base
    for day in range(5, 10):
        append(("a", day, day / 3))
    append(("a", 10, 1.0), ("b", 42, 3.0))
    assert ends(database, kept) is not None


def test_what_is_erased_is_gone(database: Database, stored: Callable[..., int], append: Callable[..., None]) -> None:
    stored("many", {key: [1.0, 2.0, 3.0] for key in "abc"})
    kept = KeptEnds(2**20)
    assert ends(database, kept) is not None
    for after in ([], [("d", 0, 1.0)]):
        with database.write("default") as session:
            erase(session, datasets.get(session, "many"), "c" if not after else "b")
        if after:
            append(*after)
        found = ends(database, kept)
        assert found is not None
        assert list(found.keys) == (["a", "b"] if not after else ["a", "d"])


def test_they_stay_within_their_bounds(database: Database, stored: Callable[..., int]) -> None:
    everything: dict[str, Any] = {f"s{place}": [1.0, 2.0] for place in range(9)}
    stored("many", everything)
    assert ends(database, KeptEnds(size(9, LAST) - 1)) is None
    kept = KeptEnds(size(9, LAST))
    assert ends(database, kept, ["s3"]) is None  # a few are read alone
    assert len(kept) == 0
    assert ends(database, kept, ["s3", "s1", "s8"]) is not None
    stored("other", everything)
    with database.read("default") as session:
        row = datasets.get(session, "other")
        assert kept.read(session, (row, datasets.revision_of(session, row)), None, LAST) is not None
    assert len(kept) == 1


def test_too_many_to_keep_are_answered_in_parts(
    app: FastAPI,
    client: TestClient,
    publish: Callable[..., int],
    stored: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish("fuel")
    nan = float("nan")
    everything = {f"s{place}": [float(place + day % 5) for day in range(3 + 5 * place)] for place in range(7)}
    stored("many", everything | {"s3": [nan, nan], "s5": [*everything["s5"], nan]})
    question = {"model": "fuel", "dataset": "many", "horizon": 3}
    together = client.post("/v1/forecasts", json=question)
    monkeypatch.setattr("app.services.whole.MANY", 2)
    app.state.ends = KeptEnds(0)
    monkeypatch.delattr("app.services.forecasts.read_stored")
    apart = client.post("/v1/forecasts", json=question)
    assert apart.status_code == 200, apart.text
    assert apart.headers["etag"] == together.headers["etag"]
    (found, expected) = (answer.json() for answer in (apart, together))
    assert [row["key"] for row in found["forecasts"]] == sorted(everything)
    assert {warning["code"] for warning in found["warnings"]} == {"no_history", "short_history"}
    for mine, other in zip(found["forecasts"], expected["forecasts"], strict=True):
        if other["mean"][0] is not None:
            assert mine.pop("mean") == pytest.approx(other.pop("mean"))
            for level, values in mine.pop("quantiles").items():
                assert values == pytest.approx(other["quantiles"][level])
            other.pop("quantiles")
        assert mine == other
    by_code = [sorted(answer["warnings"], key=lambda one: one["code"]) for answer in (found, expected)]
    assert by_code[0] == by_code[1]
