"""Parts of a file that are taken while the rest is read: what they say holds, or is taken back."""

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from fastapi.testclient import TestClient

from app.db.session import Database
from app.errors import Invalid
from app.services import datasets
from app.services.ingest import Ahead, Ask, Coming, Known, Retold, Upload
from app.services.ingest.reading import parse_here
from app.services.ingest.streamed import read_streamed

CSV, ARROW = "text/csv", "application/vnd.apache.arrow.stream"
HOUR = 3_600_000_000
Row = tuple[str, int, float]


def table(rows: list[Row]) -> pa.Table:
    keys, hours, values = zip(*rows, strict=True)
    times = pa.array([hour * HOUR for hour in hours], pa.int64()).cast(pa.timestamp("us"))
    return pa.table({"unique_id": list(keys), "ds": times, "y": pa.array(values, pa.float64())})


def as_arrow(rows: list[Row]) -> bytes:
    """Three rows a block, so that a few make many."""
    sink, said = io.BytesIO(), table(rows)
    with pa.ipc.new_stream(sink, said.schema) as stream:
        stream.write_table(said, max_chunksize=3)
    return sink.getvalue()


def as_csv(rows: list[Row]) -> bytes:
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table(rows), sink)
    return sink.getvalue()


SERIES = [(f"s{place:02}", place % 3 + hour, place + hour / 4) for place in range(20) for hour in range(11)]
BY_TIME = sorted(SERIES, key=lambda row: (row[1], row[0]))
RIFT = [*SERIES, ("s03", 900, 1.0)]  # in order, but for the last row
SLOW = [("a", 2 * step, 1.0) for step in range(6)]  # the first series says two hours, the others one
TWICE = [*SERIES, SERIES[-1]]


def read(folder: Path, rows: list[Row]) -> tuple[Coming, Upload, list[str]]:
    """What is told of the rows, as somebody takes it who comes only when all is over."""
    path = folder / "body"
    path.write_bytes(as_arrow(rows))
    whole = parse_here(path, folder, Ask(ARROW), Known(), streamed_bytes=1 << 40)
    letters: list[str] = []
    streamed = read_streamed(path, folder, Ask(ARROW), Known(), rows=7, tell=letters.append)
    return Coming(folder, iter(letters), lambda: streamed or whole), whole, letters


def expect_parts(parts: Iterator[tuple[int, Upload]], whole: Upload) -> int:
    """The parts put together are the whole; how many they are."""
    count, series, rows = 0, 0, 0
    for first, part in parts:
        assert first == series
        assert (part.calendar, part.keys) == (whole.calendar, whole.keys[first : first + len(part.keys)])
        stop = rows + len(part.steps)
        np.testing.assert_array_equal(part.offsets + rows, whole.offsets[first : first + len(part.keys) + 1])
        np.testing.assert_array_equal(part.phases, whole.phases[first : first + len(part.keys)])
        np.testing.assert_array_equal(part.steps, whole.steps[rows:stop])
        np.testing.assert_array_equal(part.values, whole.values[rows:stop])
        count, series, rows = count + 1, series + len(part.keys), stop
    assert series == len(whole.keys)
    return count


@pytest.mark.parametrize(("rows", "turn"), [(SERIES, "a"), (BY_TIME, "b"), (SERIES[::-1], "b")])
def test_parts_are_what_the_whole_is(tmp_path: Path, rows: list[Row], turn: str) -> None:
    coming, whole, letters = read(tmp_path, rows)
    assert set(letters) == {turn}
    assert expect_parts(coming.parts(), whole) == len(letters) > 5
    expect_parts(coming.whole().parts(7), whole)


@pytest.mark.parametrize("rows", [RIFT, TWICE, [*SLOW, *SERIES]], ids=["order", "odd", "frequency"])
def test_parts_that_do_not_hold_are_taken_back(tmp_path: Path, rows: list[Row]) -> None:
    coming, whole, letters = read(tmp_path, rows)
    assert len(set(letters)) > 1
    taken: list[int] = []
    with pytest.raises(Retold):
        taken.extend(first for first, _ in coming.parts())
    expect_parts(coming.whole().parts(7), whole)
    np.testing.assert_array_equal(coming.whole().values, whole.values)
    assert coming.whole().audit == whole.audit


def test_nothing_told_is_all_at_the_end(tmp_path: Path) -> None:
    _, whole, _ = read(tmp_path, SERIES)
    assert expect_parts(Coming(tmp_path, iter("0"), lambda: whole).parts(), whole) == 1
    assert expect_parts(Coming(tmp_path, iter(""), lambda: whole).parts(), whole) == 1


LONG = [(f"s{place:03}", hour, (place * 7 + hour) % 97 / 4) for place in range(300) for hour in range(600)]


def test_no_transaction_waits_for_a_part(tmp_path: Path, database: Database) -> None:
    _, whole, letters = read(tmp_path, SERIES)
    for _ in range(2):  # at first there is no dataset, then it has all of it
        with database.read("default") as session:

            def told() -> Iterator[str]:
                for letter in letters:
                    assert not session.in_transaction()
                    yield letter
                assert not session.in_transaction()

            draft = datasets.draft(session, "d", Coming(tmp_path, told(), lambda: whole), "upsert")
        with database.write("default") as session:
            outcome = datasets.store(session, "d", whole, "upsert", draft=draft)
    assert (outcome.inserted, outcome.unchanged) == (0, len(SERIES))


def test_parts_come_from_a_body_that_arrives(tmp_path: Path) -> None:
    body, path = as_csv(LONG), tmp_path / "body"
    assert len(body) > 5 << 20
    path.write_bytes(body)
    whole = parse_here(path, tmp_path, Ask(CSV), Known(), streamed_bytes=1 << 40)
    path.write_bytes(body[: len(body) // 2])
    ahead = Ahead.begin(path, len(body), Ask(CSV), Known())
    assert ahead is not None

    def arrive() -> None:
        with path.open("ab") as file:
            file.write(body[len(body) // 2 :])

    rest = threading.Timer(0.2, arrive)
    rest.start()
    try:
        assert expect_parts(ahead.coming().parts(), whole) > 1
        np.testing.assert_array_equal(ahead.answer().values, whole.values)
    finally:
        ahead.close()
        rest.join()


@pytest.mark.parametrize(
    "order",
    [
        lambda rows: rows,
        lambda rows: sorted(rows, key=lambda row: row[1]),
        lambda rows: [*rows[1:], rows[0]],
        lambda rows: rows[::-1],
    ],
    ids=["by series", "by time", "rift", "backwards"],
)
def test_an_upload_is_the_same_in_any_order(client: TestClient, order: Callable[[list[Row]], list[Row]]) -> None:
    """And so is what it changes in a dataset that holds some of it already."""
    for known in ([], LONG[::600]):
        digests: set[str] = set()
        for name, rows in (("one", LONG), ("other", order(LONG))):
            dataset = f"{name}-{bool(known)}"
            for sent in filter(None, (known, rows)):
                headers = {"Content-Type": CSV}
                url = f"/v1/datasets/{dataset}/revisions?frequency=h"
                answer = client.post(url, content=as_csv(sent), headers=headers)
                assert answer.status_code == 201, answer.text
            assert (answer.json()["series"], answer.json()["points"]) == (300, len(LONG))
            assert answer.json()["inserted"] == len(LONG) - len(known)
            digests.add(answer.json()["digest"])
        assert len(digests) == 1


def test_what_is_wrong_at_the_end_stores_nothing(client: TestClient) -> None:
    """The file is refused for itself, also where its first rows could not have been stored."""
    begun = client.post(
        "/v1/datasets/d/revisions?frequency=h", content=as_csv([("s000", 0, 5.0)]), headers={"Content-Type": CSV}
    )
    assert begun.status_code == 201
    body = as_csv(LONG) + b'"s299",2020-01-01 00:00:00,oops\n'
    answer = client.post("/v1/datasets/d/revisions?mode=append", content=body, headers={"Content-Type": CSV})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["row"] == len(LONG) + 2
    differs = client.post("/v1/datasets/d/revisions?mode=append", content=as_csv(LONG), headers={"Content-Type": CSV})
    assert (differs.status_code, differs.json()["errors"][0]["code"]) == (409, "value-changed")
    assert client.get("/v1/datasets/d").json()["points"] == 1


def test_a_refusal_comes_through_the_parts(tmp_path: Path) -> None:
    body, path = as_csv(LONG) + b'"s299",2020-01-01 00:00:00,oops\n', tmp_path / "body"
    path.write_bytes(body)
    ahead = Ahead.begin(path, len(body), Ask(CSV), Known())
    assert ahead is not None
    coming = ahead.coming()
    try:
        with pytest.raises((Retold, Invalid)):
            list(coming.parts())
        with pytest.raises(Invalid, match="1 problem"):
            coming.whole()
    finally:
        ahead.close()
