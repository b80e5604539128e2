"""Points that arrive together: who shares a transaction, and what is known afterwards without a look."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event

from app.api.plain import arrival_of
from app.db.session import Database
from app.services import contexts
from app.services.arrivals import Arrival
from app.services.codecs import encode
from app.services.tails import Tail, painted
from models import Series

HISTORY = [float(100 + step % 7) for step in range(30)]  # 2026-01-05 to 2026-02-03
KEYS = "abcdefgh"
FIRST = np.datetime64("2026-02-04")
LONG_WAY = {"accept": "application/json, */*"}  # nothing is plain about that


@pytest.fixture
def in_place(publish: Callable[..., int], stored: Callable[..., int]) -> None:
    publish("fuel")
    stored("gasoline", dict.fromkeys(KEYS, HISTORY))


def point(key: str, day: int, value: float) -> dict[str, Any]:
    row = {"key": key, "timestamp": str(FIRST + day), "value": value}
    return {"dataset": "gasoline", "points": [row]}


def arrival(key: str, day: int) -> Arrival:
    made = arrival_of(orjson.dumps(point(key, day, 100.0 + day)), "fuel", "r", 10_000)
    assert made is not None
    return made


@pytest.mark.usefixtures("in_place", "client")
def test_those_who_were_answered_together_share_the_next_transaction(app: FastAPI) -> None:
    arrivals = app.state.arrivals
    sizes: list[int] = []
    store = arrivals._stored

    def counted(batch: Sequence[Arrival]) -> Any:
        sizes.append(len(batch))
        return store(batch)

    async def ask(place: int) -> list[int]:
        found: list[int] = []
        for day in range(4):
            for _ in range(1 + place % 3):  # some take longer than others to ask again
                await asyncio.sleep(0)
            answer = await arrivals.ask(arrival(KEYS[place], day))
            found.append(orjson.loads(answer)["revision"])
        return found

    async def all_of_them() -> list[list[int]]:
        return await asyncio.gather(*(ask(place) for place in range(len(KEYS))))

    arrivals._stored = counted
    assert asyncio.run(all_of_them()) == [[2, 3, 4, 5]] * len(KEYS)
    assert sizes == [len(KEYS)] * 4


@pytest.mark.usefixtures("in_place")
def test_a_series_is_known_however_many_points_others_have_got(
    app: FastAPI, client: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "NEWS", 2 * len(KEYS))
    asked: set[str] = set()

    def note(_line: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.add(statement.split(maxsplit=1)[0])

    for day in range(2):
        for key in KEYS:
            client.post("/v1/models/fuel/next", json=point(key, day, 1.0)).raise_for_status()
    event.listen(app.state.database.engine, "before_cursor_execute", note)
    for day in range(2, 7):
        for key in KEYS:
            found = client.post("/v1/models/fuel/next", json=point(key, day, 1.0 + day)).raise_for_status()
            assert found.json()["forecasts"][0]["origin"][:10] == str(FIRST + day)
    if database.is_sqlite:  # on PostgreSQL others may be at work
        assert asked == {"BEGIN", "INSERT", "UPDATE"}
    rows = [{"model": "fuel", "dataset": "gasoline", "series": [key]} for key in KEYS]
    (short, long) = (
        [client.post("/v1/forecasts", json=row, headers=way).json()["forecasts"] for row in rows]
        for way in ({}, LONG_WAY)
    )
    assert short == long


def test_a_tail_is_what_a_series_painted_whole_ends_with() -> None:
    random = np.random.default_rng(7)
    continued = 0
    for _ in range(400):
        asked = int(random.integers(1, 7))
        whole = np.where(random.random(12) < 0.3, np.nan, random.integers(0, 9, 12).astype(float))
        whole[-1] = 1.0
        tail = Tail(1, end_of(whole, asked), asked, 1)
        rows: list[Any] = []
        stop = len(whole)
        for revision in range(2, 2 + int(random.integers(1, 4))):
            start = stop + int(random.choice([-2, 0, 0, 0, 1]))
            values = np.where(random.random(int(random.integers(1, 4))) < 0.2, np.nan, 5.0 + revision)
            whole = np.concatenate((whole, np.full(max(0, start + len(values) - len(whole)), np.nan)))
            whole[start : start + len(values)] = values
            stop = len(whole)
            rows.append((revision, False, start, len(values), *encode(values)))
        if painted(tail, rows):
            expected = end_of(whole, asked)
            assert tail.series.start == expected.start
            np.testing.assert_array_equal(tail.series.target, expected.target)
            continued += 1
    assert continued > 200


def end_of(whole: Any, asked: int) -> Series:
    """The last steps of a series that begins at step 0, from a value to a value."""
    stop = int(np.flatnonzero(~np.isnan(whole))[-1]) + 1
    low = max(0, stop - asked)
    low += int(np.flatnonzero(~np.isnan(whole[low:stop]))[0])
    return Series("a", whole[low:stop].copy(), low)
