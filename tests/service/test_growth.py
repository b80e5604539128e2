"""Points at the ends of series: stored on their short way as on the long one, and without a look at what is known."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event, literal, select

from app.db.session import Database, Stamp
from app.db.tables import RevisionRow, SegmentRow, SeriesRow
from app.errors import NotFound
from app.services import datasets, revisions
from app.services.growth import ends_of
from app.services.segments import TARGET, extents
from app.services.series import erase

URL = "/v1/models/fuel/next"
LONG_WAY = {"accept": "application/json, */*"}  # nothing is plain about that
HISTORY = [float(100 + step % 7) for step in range(30)]  # 2026-01-05 to 2026-02-03
FIRST = 20_488  # days to 2026-02-04, the one after
UNLOCKED = select(literal(1))
Points = list[tuple[str, int, float]]


@contextmanager
def counted(app: FastAPI) -> Generator[list[str]]:
    """The statements of the application's database."""
    found: list[str] = []

    def note(_line: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    event.listen(app.state.database.engine, "before_cursor_execute", note)
    yield found
    event.remove(app.state.database.engine, "before_cursor_execute", note)


def whole(database: Database, name: str) -> list[Any]:
    """All that is stored of a dataset, in words that do not depend on its rows' ids."""
    told = [column for column in RevisionRow.__table__.c if column.name not in ("id", "dataset_id", "created_at")]
    kept = [column for column in SegmentRow.__table__.c if column.name not in ("id", "series_id")]
    with database.read("default") as session:
        dataset = datasets.get(session, name)
        rows = session.execute(select(*told).where(RevisionRow.dataset_id == dataset.id).order_by(RevisionRow.number))
        segments = session.execute(
            select(SeriesRow.key, *kept)
            .join(SegmentRow, SegmentRow.series_id == SeriesRow.id)
            .where(SeriesRow.dataset_id == dataset.id)
            .order_by(SeriesRow.key, SegmentRow.revision, SegmentRow.start_step)
        )
        return [dataset.head, [tuple(row) for row in rows], [tuple(row) for row in segments]]


def sent(name: str, points: Points) -> dict[str, Any]:
    times = [str(np.datetime64(day, "D")) for _, day, _ in points]
    rows = [
        {"key": key, "timestamp": time, "value": value} for (key, _, value), time in zip(points, times, strict=True)
    ]
    return {"dataset": name, "points": rows}


def random_points(random: np.random.Generator, ends: dict[str, int]) -> Points:
    """Mostly the next step of some series; now and then a gap of any size, an old time, a new key, a time twice."""
    points: Points = []
    for key in random.choice([*ends], size=int(random.integers(1, 4)), replace=bool(random.random() < 0.5)).tolist():
        day = ends[key] + int(random.choice([0, 0, 0, 0, 0, 1, 5, 40, 300, -1, -9]))
        points.append((key, day, float(random.choice([1.5, -0.0, 7.25, 1e300, 0.1]))))
        ends[key] = max(ends[key], day + 1)
    if random.random() < 0.05:
        ends[f"new{len(ends)}"] = FIRST
    return points


@pytest.fixture
def in_place(publish: Callable[..., int], stored: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Three datasets alike, in which the same series get their fresh bases at once."""

    def most(series_id: Any) -> Any:
        return 20 + 0 * series_id

    publish("fuel")
    for place in ("sheets", "growth"):
        monkeypatch.setattr(f"app.services.{place}.most_segments", most)
    for name in ("long", "short", "kept"):
        stored(name, dict.fromkeys("abc", HISTORY), time_zone="Europe/Berlin")


@pytest.mark.usefixtures("in_place")
def test_every_way_stores_the_same(client: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    ends = dict.fromkeys("abc", FIRST)
    refused = 0
    for _ in range(150):
        points = random_points(random, ends)
        answers: list[int] = []
        for name, few in (("long", 0), ("short", 1000)):
            body = sent(name, points)
            monkeypatch.setattr(revisions, "FEW", few)
            answers.append(client.post(URL, json=body, headers=LONG_WAY).status_code)
        answers.append(client.post(URL, json=sent("kept", points)).status_code)
        assert len({*answers}) == 1, (answers, points)
        refused += answers[0] != 200
    expected = whole(database, "long")
    assert refused
    assert expected[0] > 60
    assert sum(segment[3] for segment in expected[2]) > len(ends)  # fresh bases, too
    assert whole(database, "short") == expected
    assert whole(database, "kept") == expected


@pytest.mark.usefixtures("in_place")
def test_an_upload_of_the_next_points_is_stored_the_same(
    client: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["key,timestamp,value"]
    bodies = [rows, [*rows, "a,2026-02-04,1.5"], [*rows, "b,2026-02-04,2", "a,2026-02-06,3", "a,2026-02-05,-0.0"]]
    bodies += [[*rows, "a,2026-02-06,3", "c,2026-02-04,1"], [*rows, "a,2026-02-07,"], [*rows, "a,2026-02-06,4"]]
    for name, few in (("long", 0), ("short", 1000)):
        monkeypatch.setattr(revisions, "FEW", few)
        for lines, status in zip(bodies, (422, 201, 201, 201, 200, 409), strict=True):
            answer = client.post(
                f"/v1/datasets/{name}/revisions",
                params={"mode": "append"},
                content="\n".join(lines),
                headers={"content-type": "text/csv"},
            )
            assert answer.status_code == status, answer.text
    assert whole(database, "short") == whole(database, "long")


@pytest.mark.usefixtures("in_place")
def test_the_ends_that_are_kept_are_those_that_are_stored(app: FastAPI, client: TestClient, database: Database) -> None:
    for day in range(80):
        client.post(URL, json=sent("kept", [("a", FIRST + day, 1.0)])).raise_for_status()
    tails = app.state.arrivals._contexts._tails
    with database.read("default") as session:
        dataset = datasets.get(session, "kept")
        stored = ends_of(session, dataset.id, dataset.head, ["a"])["a"]
        assert stored.extent == extents(session, [stored.series_id], dataset.head)[stored.series_id, TARGET]
    assert tails[dataset.id, "a"].extent == stored.extent


# ---------------------------------------------------------------- what is known needs no look


@pytest.fixture
def on_sqlite(database: Database) -> None:
    if not database.is_sqlite:
        pytest.skip("PostgreSQL numbers the transactions of all its databases: others may be at work")


def origins(client: TestClient, *keys: str) -> list[str]:
    answer = client.post("/v1/forecasts", json={"model": "fuel", "dataset": "kept", "series": [*keys]})
    return [row["origin"][5:10] for row in answer.raise_for_status().json()["forecasts"]]


@pytest.mark.usefixtures("in_place", "on_sqlite")
def test_a_point_after_another_is_stored_without_a_question(app: FastAPI, client: TestClient) -> None:
    for day in range(2):
        client.post(URL, json=sent("kept", [("a", FIRST + day, 1.0)])).raise_for_status()
    with counted(app) as statements:
        client.post(URL, json=sent("kept", [("a", FIRST + 2, 1.0)])).raise_for_status()
    assert [statement.split()[0] for statement in statements] == ["BEGIN", "INSERT", "INSERT", "UPDATE"]


@pytest.mark.usefixtures("in_place", "on_sqlite")
def test_a_forecast_after_a_point_asks_nothing(app: FastAPI, client: TestClient) -> None:
    client.post(URL, json=sent("kept", [("a", FIRST, 1.0)])).raise_for_status()
    assert origins(client, "a", "b") == ["02-04", "02-03"]
    with counted(app) as statements:
        client.post(URL, json=sent("kept", [("a", FIRST + 1, 2.0)])).raise_for_status()
        client.post(URL, json=sent("kept", [("a", FIRST + 2, 3.0)])).raise_for_status()
        written = len(statements)
        found = client.post("/v1/forecasts", json={"model": "fuel", "dataset": "kept", "series": ["a", "b"]}).json()
        assert len(statements) == written
    assert found["revision"] == 4
    again = {"model": "fuel", "dataset": "kept", "series": ["a", "b"]}
    expected = client.post("/v1/forecasts", json=again, headers=LONG_WAY).json()
    for one, other in zip(found["forecasts"], expected["forecasts"], strict=True):
        assert one["origin"] == other["origin"]
        np.testing.assert_allclose(one["mean"], other["mean"], rtol=1e-5)


@pytest.mark.usefixtures("in_place")
def test_whatever_happens_between_two_points_is_seen(
    app: FastAPI, client: TestClient, database: Database, stored: Callable[..., int], publish: Callable[..., int]
) -> None:
    def arrived(key: str, day: int, value: float = 1.0) -> dict[str, Any]:
        answer = client.post(URL, json=sent("kept", [(key, FIRST + day, value)]))
        return answer.json() | {"status": answer.status_code}

    assert arrived("a", 0)["revision"] == 2
    assert origins(client, "a", "b") == ["02-04", "02-03"]
    stored("kept", {"b": [*HISTORY, 9.0]}, time_zone="Europe/Berlin")  # as another process does it
    assert arrived("a", 1)["revision"] == 4
    assert origins(client, "a", "b") == ["02-05", "02-04"]
    assert arrived("b", 0, 8.0)["status"] == 409  # 9 is stored
    publish("fuel", promote="always")
    assert arrived("a", 2)["model"]["version"] == 2
    with database.write("default") as session:
        erase(session, datasets.get(session, "kept"), "c")
        datasets.append_points(session, datasets.get(session, "kept"), [("d", 86_400_000_000 * FIRST, 5.0)])
    assert client.post("/v1/forecasts", json={"dataset": "kept", "series": ["c"]}).status_code == 404
    assert arrived("c", 5)["status"] == 200  # a new series
    found = client.post("/v1/forecasts", json={"model": "fuel", "dataset": "kept", "series": ["c", "d"]}).json()
    assert [row["origin"][5:10] for row in found["forecasts"]] == ["02-09", "02-04"]


@pytest.mark.usefixtures("in_place", "on_sqlite")
def test_a_series_that_took_the_place_of_an_erased_one_is_another(client: TestClient, database: Database) -> None:
    client.post(URL, json=sent("kept", [("c", FIRST, 1.0)])).raise_for_status()
    assert origins(client, "c") == ["02-04"]
    with database.write("default") as session:  # SQLite gives the highest row's id to the next
        erase(session, datasets.get(session, "kept"), "c")
        datasets.append_points(session, datasets.get(session, "kept"), [("d", 86_400_000_000 * FIRST, 5.0)])
    asked = {"model": "fuel", "dataset": "kept", "series": ["c"]}
    assert client.post("/v1/forecasts", json=asked).status_code == 404
    assert origins(client, "d") == ["02-04"]


# ---------------------------------------------------------------- how a commit is known to be alone


@pytest.mark.usefixtures("on_sqlite")
def test_a_commit_alone_is_told_with_both_stamps(database: Database) -> None:
    told: list[tuple[Stamp, Stamp]] = []
    writer = database.writer()
    for place in range(2):
        with writer.write("default", UNLOCKED) as written:
            datasets.create(written.session, f"d{place}", ("D", "UTC"), {})
            written.alone = lambda before, after: told.append((before, after))
    assert told[0][0] != told[0][1] == told[1][0] != told[1][1] == database.stamp()
    writer.close()


@pytest.mark.usefixtures("on_sqlite")
def test_a_commit_that_another_one_followed_at_once_is_not(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Stamp, Stamp]] = []
    writer, other, look = database.writer(), Database(database.url), database.stamp
    looks = 0

    def late() -> Stamp:
        nonlocal looks
        looks += 1
        if looks == 2:  # after our commit, before the stamp is read
            with other.write("default") as session:
                datasets.create(session, "theirs", ("D", "UTC"), {})
        return look()

    monkeypatch.setattr(database, "stamp", late)
    with writer.write("default", UNLOCKED) as written:
        datasets.create(written.session, "ours", ("D", "UTC"), {})
        written.alone = lambda before, after: told.append((before, after))
        before = written.stamp
    assert (looks, told) == (2, [])
    with writer.write("default", UNLOCKED) as written:
        assert written.stamp != before  # and the writer hears of it
    writer.close()
    other.close()


def test_a_writer_hears_of_others_and_not_of_itself(database: Database) -> None:
    told: list[tuple[Stamp, Stamp]] = []
    writer = database.writer()

    def written(name: str) -> Stamp:
        with writer.write("default", UNLOCKED) as mine:
            if database.is_sqlite:  # where only what was written is a commit
                datasets.create(mine.session, name, ("D", "UTC"), {})
            mine.alone = lambda before, after: told.append((before, after))
        return mine.stamp

    def undisturbed(place: int) -> bool:
        """Two commits in a row, told of as such. PostgreSQL counts those of its other databases, too."""
        looked, told[:] = database.stamp(), []
        one, other = written(f"a{place}"), written(f"b{place}")
        told.insert(0, (None, looked))
        told.append((database.stamp(), None))
        return one == other and len(told) == 4 and all(left[1] == right[0] for left, right in pairwise(told))

    assert any(undisturbed(place) for place in range(1000))
    before = written("c")
    with database.write("default") as session:
        datasets.create(session, "theirs", ("D", "UTC"), {})
    assert written("d") != before
    writer.close()


def test_who_is_in_the_middle_of_something_is_not_taken_for_gone(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("nobody can be, while another one writes")
    told: list[tuple[Stamp, Stamp]] = []
    writer = database.writer()
    with database.write("default") as session:
        datasets.create(session, "theirs", ("D", "UTC"), {})
        session.flush()
        with writer.write("default", UNLOCKED) as written:
            datasets.create(written.session, "ours", ("D", "UTC"), {})
            written.alone = lambda before, after: told.append((before, after))
    with writer.write("default", UNLOCKED) as later:
        assert later.stamp != written.stamp
        assert datasets.find(later.session, "theirs") is not None
    assert told == []
    writer.close()


def test_a_block_that_fails_writes_nothing_and_tells_nobody(database: Database) -> None:
    told: list[tuple[Stamp, Stamp]] = []
    writer = database.writer()

    def fail() -> None:
        with writer.write("default", UNLOCKED) as written:
            datasets.create(written.session, "d", ("D", "UTC"), {})
            written.alone = lambda before, after: told.append((before, after))
            datasets.get(written.session, "nope")

    with pytest.raises(NotFound):
        fail()
    assert told == []
    with writer.write("default", UNLOCKED) as written:
        assert datasets.find(written.session, "d") is None
    writer.close()
