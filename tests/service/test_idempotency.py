"""Idempotency keys against the real database: one run for each key, the same answer after, also for two at once."""

import datetime as dt
import threading
import time
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app.db.session import Database
from app.db.tables import IdempotencyRow, ModelRow, utc_now
from app.http.idempotency import IDEMPOTENT, idempotent, replay
from app.http.problems import install_problems
from app.http.sessions import WriteSession
from app.services.idempotency import purge


@pytest.fixture
def maker(database: Database) -> Iterator[TestClient]:
    """A route that makes one model row for each run, as slowly as the header X-Slow says."""
    app = FastAPI()
    app.state.database = database
    install_problems(app)

    @app.post("/things/{name}", dependencies=[IDEMPOTENT])
    def make_thing(name: str, request: Request, session: WriteSession) -> Response:
        def make() -> tuple[int, dict[str, str], dict[str, object]]:
            made = session.scalar(select(func.count()).select_from(ModelRow)) or 0
            session.add(ModelRow(name=f"{name}{made}"))
            session.flush()
            time.sleep(float(request.headers.get("x-slow", "0")))
            if "x-fail" in request.headers:
                raise RuntimeError("asked to")
            return 201, {"Location": f"/things/{made}"}, {"made": made, "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}

        return idempotent(request, session, request.headers.get("x-body", "same"), make)

    @app.get("/things/{name}")
    def look(name: str, request: Request, session: WriteSession) -> Response:
        return replay(request, session, "same") or Response(status_code=204)

    with TestClient(app) as client:
        yield client


def _made(database: Database) -> int:
    with database.read("default") as session:
        return session.scalar(select(func.count()).select_from(ModelRow)) or 0


def test_without_the_header_every_request_runs(maker: TestClient, database: Database) -> None:
    assert [maker.post("/things/a").json()["made"] for _ in range(2)] == [0, 1]
    assert _made(database) == 2


def test_repeated_with_the_same_key_gets_the_first_answer(maker: TestClient, database: Database) -> None:
    first = maker.post("/things/a", headers={"Idempotency-Key": "k1"})
    again = maker.post("/things/a", headers={"Idempotency-Key": "k1"})
    assert (first.status_code, first.headers["location"]) == (201, "/things/0")
    assert (again.status_code, again.headers["location"], again.json()) == (201, "/things/0", first.json())
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert _made(database) == 1


@pytest.mark.parametrize("path", ["/things/a?mode=append", "/things/a"])
def test_the_key_with_another_body_or_query_is_refused(maker: TestClient, database: Database, path: str) -> None:
    maker.post("/things/a", headers={"Idempotency-Key": "k1"})
    body = "other" if path == "/things/a" else "same"
    answer = maker.post(path, headers={"Idempotency-Key": "k1", "X-Body": body})
    assert answer.status_code == 422
    assert answer.json()["type"] == "/docs/errors#idempotency-key-reused"
    assert answer.json()["errors"][0]["pointer"] == "header/idempotency-key"
    assert _made(database) == 1


def test_a_key_belongs_to_its_route(maker: TestClient, database: Database) -> None:
    for name in ("a", "b"):
        maker.post(f"/things/{name}", headers={"Idempotency-Key": "k1"})
    assert _made(database) == 2


def test_a_request_that_failed_leaves_its_key_free(maker: TestClient, database: Database) -> None:
    with pytest.raises(RuntimeError, match="asked to"):
        maker.post("/things/a", headers={"Idempotency-Key": "k1", "X-Fail": "1"})
    assert _made(database) == 0
    assert maker.post("/things/a", headers={"Idempotency-Key": "k1"}).status_code == 201


def test_two_at_once_run_once(maker: TestClient, database: Database) -> None:
    answers: list[int] = []

    def post() -> None:
        answer = maker.post("/things/a", headers={"Idempotency-Key": "k1", "X-Slow": "0.2"})
        answers.append(answer.json()["made"])

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [0, 0, 0, 0]
    assert _made(database) == 1


def test_a_key_is_free_again_after_a_day(maker: TestClient, database: Database) -> None:
    maker.post("/things/a", headers={"Idempotency-Key": "k1"})
    with database.write("default") as session:
        session.execute(update(IdempotencyRow).values(created_at=utc_now() - dt.timedelta(hours=25)))
    assert maker.post("/things/a", headers={"Idempotency-Key": "k1"}).json()["made"] == 1


def test_purge_forgets_only_what_is_older_than_a_day(maker: TestClient, database: Database) -> None:
    for key in ("old", "new"):
        maker.post("/things/a", headers={"Idempotency-Key": key})
    with database.write("default") as session:
        session.execute(
            update(IdempotencyRow)
            .where(IdempotencyRow.key == "old")
            .values(created_at=utc_now() - dt.timedelta(hours=25))
        )
    with database.write("default") as session:
        purge(session)
    with database.read("default") as session:
        assert session.scalars(select(IdempotencyRow.key)).all() == ["new"]


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
def test_a_key_that_is_not_one_is_refused(maker: TestClient, key: str) -> None:
    answer = maker.post("/things/a", headers={"Idempotency-Key": key.encode()})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "header/Idempotency-Key"


def test_replay_looks_without_running(maker: TestClient, database: Database) -> None:
    assert maker.get("/things/a", headers={"Idempotency-Key": "k1"}).status_code == 204
    assert _made(database) == 0
