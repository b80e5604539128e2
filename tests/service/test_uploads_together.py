"""Uploads at the same time, drafts that have grown stale, clients that go away: whole or absent, and nothing lost."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.config import Settings
from app.db.session import Database
from app.errors import AppError, Conflict
from app.services import datasets, series
from app.services.ingest import Audit, Upload
from app.services.sheets import Limits
from models import Calendar

DAYS = Calendar.of("D")


def upload(values: dict[str, dict[int, float]], calendar: Calendar = DAYS) -> Upload:
    """Series by key, values by step."""
    keys = sorted(values)
    rows = [(place, step, values[key][step]) for place, key in enumerate(keys) for step in sorted(values[key])]
    codes, steps, cells = (np.array(column) for column in zip(*rows, strict=True))
    return Upload(
        calendar=calendar,
        keys=keys,
        phases=np.zeros(len(keys), np.int64),
        offsets=np.searchsorted(codes, np.arange(len(keys) + 1)).astype(np.int64),
        steps=steps.astype(np.int64),
        values=cells.astype(np.float64),
        covariates={},
        statics={},
        columns={"target": "value"},
        audit=Audit(),
    )


def held(database: Database, name: str = "d", revision: int | None = None) -> dict[str, list[float]]:
    with database.read("default") as session:
        found = datasets.read_series(session, datasets.get(session, name), revision)
        return {one.key: one.target.tolist() for one in found}


def together(*works: Callable[[], None]) -> list[AppError]:
    """Run all at once; the refusals among their ends. Anything else that is raised fails the test."""
    refused: list[AppError] = []
    broken: list[BaseException] = []
    gate = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        try:
            gate.wait()
            work()
        except AppError as error:
            refused.append(error)
        except BaseException as error:  # noqa: BLE001
            broken.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
    return refused


def storing(settings: Settings, parts: list[Upload], mode: Any = "append") -> Callable[[], None]:
    """A client that uploads one part after another, as the route does: a draft first, then the transaction."""

    def work() -> None:
        with closing(Database(settings.url)) as database:
            for part in parts:
                with database.read("default") as session:
                    draft = datasets.draft(session, "d", part, mode)
                with database.write("default") as session:
                    datasets.store(session, "d", part, mode, draft=draft)

    return work


def test_nothing_is_lost_when_many_upload_at_once(settings: Settings, database: Database) -> None:
    """Each writes its own steps of one series and a series of its own, into a dataset that none of them made before."""
    clients, parts = 4, 6
    works = [
        storing(settings, [upload({"a": {n * clients + c: float(c)}, f"s{c}": {n: 1.0}}) for n in range(parts)])
        for c in range(clients)
    ]
    assert together(*works) == []
    assert held(database) == {
        "a": [0.0, 1.0, 2.0, 3.0] * parts,
        **{f"s{c}": [1.0] * parts for c in range(clients)},
    }
    with database.read("default") as session:
        dataset = datasets.get(session, "d")
        heads = [datasets.revision_of(session, dataset, n) for n in range(1, clients * parts + 1)]
    assert dataset.head == clients * parts
    assert [row.points for row in heads] == [2 * n for n in range(1, clients * parts + 1)]
    assert len({row.digest for row in heads}) == clients * parts


def test_of_two_appends_of_one_point_one_is_refused(settings: Settings, database: Database) -> None:
    refused = together(*(storing(settings, [upload({"a": {0: float(c)}})]) for c in range(3)))
    assert [type(error) for error in refused] == [Conflict, Conflict]
    assert len(held(database)["a"]) == 1


def test_of_two_first_uploads_with_other_calendars_one_is_refused(settings: Settings, database: Database) -> None:
    calendars = (DAYS, Calendar.of("h"))
    refused = together(*(storing(settings, [upload({"a": {0: 1.0}}, each)]) for each in calendars))
    assert [error.code for error in refused] == ["calendar-differs"]
    with database.read("default") as session:
        assert datasets.get(session, "d").head == 1


def drafted(database: Database, part: Upload, mode: Any, between: Callable[[], None]) -> datasets.Outcome:
    """Store `part` by a draft that was made before something else happened."""
    with database.read("default") as session:
        draft = datasets.draft(session, "d", part, mode)
    between()
    with database.write("default") as session:
        return datasets.store(session, "d", part, mode, draft=draft)


def store(database: Database, values: dict[str, dict[int, float]], mode: Any = "append") -> None:
    with database.write("default") as session:
        datasets.store(session, "d", upload(values), mode)


def test_a_draft_is_made_anew_when_the_head_has_moved(database: Database) -> None:
    store(database, {"a": {0: 1.0, 1: 2.0}})
    part = upload({"a": {0: 5.0, 3: 4.0}})
    drafted(database, part, "upsert", lambda: store(database, {"a": {1: 7.0, 2: 3.0}}, "upsert"))
    assert held(database) == {"a": [5.0, 7.0, 3.0, 4.0]}
    with pytest.raises(Conflict):
        drafted(database, upload({"a": {9: 1.0}}), "append", lambda: store(database, {"a": {9: 2.0}}))
    assert held(database, revision=4)["a"][-1] == 2.0


def test_a_draft_is_made_anew_when_a_series_was_erased(database: Database) -> None:
    store(database, {"a": {0: 1.0}, "b": {0: 1.0}})

    def erase() -> None:
        with database.write("default") as session:
            series.erase(session, datasets.get(session, "d"), "a")

    drafted(database, upload({"a": {1: 2.0}, "b": {1: 2.0}}), "append", erase)
    assert held(database) == {"a": [2.0], "b": [1.0, 2.0]}
    with database.read("default") as session:
        head = datasets.revision_of(session, datasets.get(session, "d"))
        assert (head.series, head.points) == (2, 3)


def test_a_draft_is_made_anew_when_the_dataset_was_deleted_and_made_again(database: Database) -> None:
    store(database, {"a": {0: 1.0}})

    def anew() -> None:
        with database.write("default") as session:
            datasets.remove(session, datasets.get(session, "d"))
        store(database, {"z": {5: 1.0}})

    drafted(database, upload({"a": {1: 2.0}}), "append", anew)
    assert held(database) == {"a": [2.0], "z": [1.0]}


def test_a_failure_in_the_transaction_leaves_nothing(database: Database) -> None:
    store(database, {"a": {0: 1.0}})

    def half() -> None:
        with database.write("default") as session:
            datasets.store(session, "d", upload({"a": {1: 2.0}, "b": {0: 1.0}}), "append")
            datasets.store(session, "new", upload({"a": {1: 2.0}}), "append")
            raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        half()
    assert held(database) == {"a": [1.0]}
    with database.read("default") as session:
        assert datasets.find(session, "new") is None
        assert datasets.get(session, "d").head == 1


def test_a_dataset_holds_so_many_series_and_no_more(database: Database) -> None:
    limits = Limits(series=2)
    with database.write("default") as session:
        datasets.store(session, "d", upload({"a": {0: 1.0}, "b": {0: 1.0}}), "append", limits=limits)
    with pytest.raises(AppError, match="3 series") as refused, database.write("default") as session:
        datasets.store(session, "d", upload({"c": {0: 1.0}}), "append", limits=limits)
    assert refused.value.status == 413
    with database.write("default") as session:
        datasets.store(session, "d", upload({"c": {0: 1.0}, "d": {0: 1.0}}), "replace", limits=limits)


# ---------------------------------------------------------------- clients that go away


def spoken(
    app: FastAPI, messages: list[dict[str, Any]], content_type: bytes = b"text/csv", length: int | None = None
) -> None:
    """One upload as a server would speak it to the application, message by message."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/datasets/d/revisions",
        "raw_path": b"/v1/datasets/d/revisions",
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [
            *[(b"host", b"test"), (b"content-type", content_type)],
            *([] if length is None else [(b"content-length", str(length).encode())]),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
        "state": {},
    }
    rest = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(rest)

    async def send(_message: Any) -> None:
        return None

    asyncio.run(app(scope, receive, send))


@pytest.mark.parametrize(
    ("content_type", "length"),
    [(b"text/csv", None), (b"text/csv", 5 << 20), (b"multipart/form-data; boundary=q", None)],
)
def test_a_client_that_goes_away_leaves_nothing(
    app: FastAPI, client: TestClient, settings: Settings, content_type: bytes, length: int | None
) -> None:
    part = (
        b'--q\r\nContent-Disposition: form-data; name="file"; filename="x.csv"\r\n\r\n' if b"q" in content_type else b""
    )
    body = part + b"key,timestamp,value\n" + b"a,2026-01-01,1\n" * 100_000
    for end in (len(body) // 2, len(body)):
        said = {"type": "http.request", "body": body[:end], "more_body": True}
        spoken(app, [said, {"type": "http.disconnect"}], content_type, length)
        assert list(settings.spool.iterdir()) == []
        assert client.get("/v1/datasets/d").status_code == 404
