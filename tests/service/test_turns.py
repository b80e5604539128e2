"""Plain forecasts: answered together, from what is kept in memory, and always what the long way would say."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event, func, select

from app.api.plain import arrival_of, question_of
from app.config import Settings
from app.db.session import Database, Stamp
from app.db.tables import RevisionRow
from app.main import create_app
from app.services import datasets
from app.services.arrivals import Arrival, Arrivals, fitting
from app.services.contexts import COLD, Contexts
from app.services.forecasts import Arrived, Shape
from app.services.questions import Question, Reply, calendar_of, located
from app.services.series import erase
from app.services.tails import ENTRY
from app.services.turns import PASSES, STALL_S, WINDOW_S

URL = "/v1/forecasts"
LONG_WAY = {"accept": "application/json, */*"}  # nothing is plain about that
HISTORY = [float(100 + step % 7 + step % 3) for step in range(30)]  # 2026-01-05 to 2026-02-03
NEXT_DAY = 20_488  # days to 2026-02-04


@pytest.fixture(autouse=True)
def in_place(publish: Callable[..., int], stored: Callable[..., int]) -> None:
    publish("fuel")
    stored("gasoline", {key: [value + place for value in HISTORY] for place, key in enumerate("abc")})


def ask(*keys: str, **more: Any) -> dict[str, Any]:
    return {"model": "fuel", "dataset": "gasoline", "series": list(keys), **more}


def sent(**more: Any) -> dict[str, Any]:
    one = {"key": "mine", "start": "2026-01-05", "target": HISTORY}
    return {"model": "fuel", "inputs": [one], "horizon": 7, "quantiles": [0.1, 0.25, 0.5], **more}


def numbers(document: dict[str, Any]) -> Any:
    return np.array([[row["mean"], *row["quantiles"].values()] for row in document["forecasts"]], float)


def check(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same document, its numbers as close as a batch of another size leaves them."""
    np.testing.assert_allclose(numbers(found), numbers(expected), rtol=1e-6)
    for document in (found, expected):
        document.pop("request_id")
        for row in document["forecasts"]:
            row["mean"], row["quantiles"] = len(row["mean"]), list(row["quantiles"])
    assert found == expected


def both(client: TestClient, question: dict[str, Any]) -> dict[str, Any]:
    """The answer of the short way, which must be that of the long one."""
    found, expected = (client.post(URL, json=question, headers=way) for way in ({}, LONG_WAY))
    assert found.status_code == expected.status_code, (found.text, expected.text)
    if found.status_code != 200:
        return found.json()
    assert found.headers["etag"] == expected.headers["etag"]
    assert {*expected.headers} == {*found.headers}
    check(found.json(), expected.json())
    return found.json()


def test_the_short_way_and_the_long_one_agree(app: FastAPI, client: TestClient) -> None:
    short = {"key": "new", "start": "2026-01-05T00:00:00+01:00", "target": HISTORY[:3]}
    gap = {"key": "gap", "start": "2026-01-05", "target": [1.0, None, 3.0, 2.0]}
    for question in (
        ask("a"),
        ask("c", "a", horizon=7, quantiles=[0.9, 0.05]),
        ask("b", horizon=20, timestamps=False, quantiles=[]),
        sent(),
        sent(inputs=[short, gap, {"key": "undated", "target": HISTORY}]),
        sent(frequency="h", time_zone="Europe/Berlin"),
    ):
        assert both(client, question)["forecasts"]
        both(client, question)  # once more, from what was kept
    assert len(app.state.turns.contexts) == 3  # the short way was taken


def test_what_is_refused_is_refused_in_the_same_words(client: TestClient) -> None:
    for question in (
        ask("a", "nope"),
        ask("a", "a"),
        ask("a", dataset="nope"),
        ask("a", model="nope"),
        ask("a", horizon=0),
        ask("a", quantiles=[0.5, 0.5]),
        ask("a", strange=1),
        sent(inputs=[{"key": "far", "start": "9999-12-30", "target": [1.0, 2.0]}]),
        sent(frequency="nope"),
        sent(inputs=[{"key": "x", "start": "tomorrow", "target": [1.0]}]),
    ):
        answers = [client.post(URL, json=question, headers=way) for way in ({}, LONG_WAY)]
        assert answers[0].status_code >= 400
        first, second = ({**answer.json(), "instance": ""} for answer in answers)
        assert first == second


def test_an_append_elsewhere_is_seen(client: TestClient, stored: Callable[..., int], database: Database) -> None:
    before = both(client, ask("a", "b"))
    stored("gasoline", {"a": [*HISTORY, 130.0, 90.0]})  # a connection that knows nothing of the server's
    after = both(client, ask("a", "b"))
    assert [row["origin"][:10] for row in after["forecasts"]] == ["2026-02-05", "2026-02-03"]
    assert (before["revision"], after["revision"]) == (1, 2)
    assert both(client, ask("a", revision=1))["forecasts"][0]["origin"][:10] == "2026-02-03"
    with database.write("default") as session:
        erase(session, datasets.get(session, "gasoline"), "b")
    assert both(client, ask("a", "b"))["status"] == 404
    assert both(client, ask("a"))["revision"] == 2


def test_a_corrected_past_is_seen(client: TestClient) -> None:
    rows = {"key": ["a", "b"], "timestamp": ["2026-02-01", "2026-02-03"], "value": [180.0, None]}
    both(client, ask("a", "b", "c"))
    for mode, body in (("upsert", rows), ("replace", {"key": ["a"], "timestamp": ["2026-02-03"], "value": [5.0]})):
        made = client.post("/v1/datasets/gasoline/revisions", params={"mode": mode}, json=body)
        assert made.status_code == 201, made.text
        for key in "abc":
            both(client, ask(key))


def test_what_is_said_of_a_series_is_kept_with_its_forecast(
    app: FastAPI, client: TestClient, stored: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored("gasoline", {key: [*HISTORY[:-3], None, *HISTORY[-2:]] for key in "xy"})
    for keys in (["x"], ["x"], ["y"], ["x", "y"], ["y", "a"]):  # of several, each is told about its own place
        document = both(client, ask(*keys))
        assert [one["series"] for one in document["warnings"]] == [[key for key in keys if key in "xy"]]
    both(client, ask("x"))
    monkeypatch.delattr("app.services.turns.computed")
    assert client.post(URL, json=ask("x")).json()["warnings"][0]["series"] == ["x"]


def test_the_ends_of_its_neighbours_are_continued_with_a_series(
    app: FastAPI, client: TestClient, stored: Callable[..., int], database: Database
) -> None:
    for _ in range(2):  # the first one opens the version
        both(client, ask("a", "b", "c"))
    stored("gasoline", {"b": [*(value + 1 for value in HISTORY), 130.0]})
    both(client, ask("a"))
    contexts: Contexts = app.state.turns.contexts
    with database.read("default") as session:
        known = contexts.dataset(session, "gasoline", None)
    assert known is not None
    tails = contexts.held(known, ["b", "c"], 5)
    assert tails is not None
    assert [tail.series.target[-1] for tail in tails] == [130.0, HISTORY[-1] + 2]


def test_a_fresh_base_is_painted_over_what_is_kept(
    app: FastAPI,
    client: TestClient,
    stored: Callable[..., int],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.services.segments.MOST", 2)  # so many segments, then the series is written anew
    values = list(HISTORY)
    for _ in range(2):  # the first one opens the version
        both(client, ask("a"))
    monkeypatch.delattr(Contexts, "_read")  # what is kept has to do
    for value in (5.0, 6.0, 7.0, 8.0, 9.0, 10.0):
        values.append(value)
        stored("gasoline", {"a": values})
        both(client, ask("a"))
        contexts: Contexts = app.state.turns.contexts
        with database.read("default") as session:
            known = contexts.dataset(session, "gasoline", None)
        assert known is not None
        tails = contexts.held(known, ["a"], 5)
        assert tails is not None  # the short way answered
        assert tails[0].series.target[-5:].tolist() == values[-5:]


def test_a_dataset_made_anew_under_the_same_name(
    client: TestClient, stored: Callable[..., int], database: Database
) -> None:
    both(client, ask("a"))
    with database.write("default") as session:
        datasets.remove(session, datasets.get(session, "gasoline"), force=True)
    assert both(client, ask("a"))["status"] == 404
    stored("gasoline", {"a": [value * 3 for value in HISTORY]})
    assert both(client, ask("a"))["forecasts"][0]["mean"][0] > 250


def test_a_moved_alias_is_seen(client: TestClient, publish: Callable[..., int]) -> None:
    assert both(client, ask("a"))["model"]["version"] == 1
    publish("fuel", promote="always")
    assert both(client, ask("a"))["model"] == {"name": "fuel", "version": 2, "alias": "champion"}
    assert both(client, ask("a", model="fuel/1"))["model"]["version"] == 1


def test_what_is_kept_stays_within_its_bounds(database: Database) -> None:
    kept = Contexts(limit=2 * ENTRY + 1000)
    with database.read("default") as session:
        for key in "abcab":
            dataset = kept.dataset(session, "gasoline", 1)
            assert dataset is not None
            found = kept.tails(session, dataset, [(key, 14)])
            assert found[key].series.target[-1] == HISTORY[-1] + "abc".index(key)
            assert len(kept) <= 2


async def _asked(app: FastAPI, questions: list[dict[str, Any]], url: str = URL) -> list[httpx.Response]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return list(await asyncio.gather(*(http.post(url, json=question) for question in questions)))


def test_together_is_as_one_by_one(app: FastAPI, client: TestClient, publish: Callable[..., int]) -> None:
    publish("fuel", promote="never")
    questions = [
        question
        for number in range(12)
        for question in (
            ask("abc"[number % 3], model=f"fuel/{1 + number % 2}", horizon=1 + number % 4),
            sent(model=f"fuel/{1 + number % 2}", inputs=[{"key": "x", "target": HISTORY[number:]}]),
            ask("nope"),
        )
    ]
    for question, found in zip(questions, asyncio.run(_asked(app, questions)), strict=True):
        alone = client.post(URL, json=question, headers=LONG_WAY)
        assert found.status_code == alone.status_code == (404 if question.get("series") == ["nope"] else 200)
        if alone.status_code == 200:
            check(found.json(), alone.json())


@pytest.mark.usefixtures("client")  # which ends what the application has begun
def test_a_client_that_leaves_takes_nobody_along(app: FastAPI) -> None:
    async def some() -> list[Any]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            tasks = [asyncio.create_task(http.post(URL, json=ask(key))) for key in "abcabc"]
            await asyncio.sleep(0)
            tasks[2].cancel()
            return list(await asyncio.gather(*tasks, return_exceptions=True))

    found = asyncio.run(some())
    assert isinstance(found[2], asyncio.CancelledError)
    assert [one.status_code for place, one in enumerate(found) if place != 2] == [200] * 5


# ---------------------------------------------------------------- what the event loop leaves to others


def plain(app: FastAPI, *bodies: dict[str, Any]) -> tuple[list[Question], list[Reply | None]]:
    """Questions of one turn, and its answers to them: None for what is left to the long way."""
    questions = [question for body in bodies if (question := question_of(orjson.dumps(body), "r", 10_000)) is not None]
    assert len(questions) == len(bodies)

    async def asked() -> list[Reply | None]:
        return list(await asyncio.gather(*(app.state.turns.ask(question) for question in questions)))

    return questions, asyncio.run(asked())


def test_a_version_that_is_not_in_memory_is_not_loaded_in_a_turn(app: FastAPI, client: TestClient) -> None:
    before = len(app.state.versions)
    assert plain(app, ask("a"), sent())[1] == [None, None]
    assert len(app.state.versions) == before
    client.post(URL, json=ask("a")).raise_for_status()
    assert None not in plain(app, ask("a"), sent())[1]


def test_a_long_forecast_is_left_to_a_thread(app: FastAPI, client: TestClient) -> None:
    client.post(URL, json=ask("a")).raise_for_status()
    for _ in range(5):
        assert plain(app, sent())[1] != [None]  # now the version is known to be quick
    for body in (ask("a", horizon=200), sent(horizon=8), ask("a", "b", horizon=97, timestamps=False)):
        (question,), (reply,) = plain(app, body)
        assert question.elsewhere
        assert reply is not None


def test_a_large_graph_stays_on_the_loop_for_a_lone_question(app: FastAPI, client: TestClient) -> None:
    both(client, sent())
    (reply,) = plain(app, sent())[1]
    assert reply is not None

    def elsewhere(window_s: float, *bodies: dict[str, Any]) -> set[bool]:
        app.state.turns._cost[reply.stands_for[0]] = window_s
        return {question.elsewhere for question in plain(app, *bodies)[0]}

    assert elsewhere(WINDOW_S / 2, sent(), sent(horizon=6)) == {False}
    assert elsewhere(WINDOW_S * 1.5, sent()) == {False}
    assert elsewhere(WINDOW_S * 1.5, sent(), sent(horizon=6)) == {True}
    assert elsewhere(STALL_S * 1.5, sent()) == {True}


def test_a_long_plain_answer_is_packed_for_those_who_take_it(client: TestClient) -> None:
    inputs = [{"key": f"k{place}", "target": HISTORY} for place in range(40)]
    question = sent(inputs=inputs, quantiles=[place / 100 for place in range(1, 60)])
    both(client, question)
    for coding in ("gzip", "identity"):
        answer = client.post(URL, json=question, headers={"accept-encoding": coding})
        assert answer.headers.get("content-encoding", "identity") == coding
        assert len(answer.json()["forecasts"]) == 40
    assert "content-encoding" not in client.post(URL, json=sent(), headers={"accept-encoding": "gzip"}).headers


def test_a_plain_body_has_the_same_limit(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"max_json_bytes": 200}))) as client:
        answers = [client.post(URL, json=sent(), headers=way) for way in ({}, LONG_WAY)]
        assert [answer.status_code for answer in answers] == [413, 413]
        assert answers[0].json()["detail"] == answers[1].json()["detail"]
        assert client.post(URL, json=ask("a")).status_code == 200


def test_a_turn_waits_for_those_who_come_meanwhile_and_not_for_ever(
    app: FastAPI, client: TestClient, database: Database
) -> None:
    client.post(URL, json=ask("a")).raise_for_status()
    turns, sizes = app.state.turns, list[int]()
    at_hand = turns._reader.at_hand

    def counted(questions: Sequence[Question], stamp: Stamp) -> Any:
        sizes.append(len(questions))
        return at_hand(questions, stamp)

    async def one_a_pass(count: int) -> list[Reply | None]:
        asked: list[asyncio.Future[Reply | None]] = []
        for _ in range(count):
            question = question_of(orjson.dumps(ask("a")), "r", 10_000)
            assert question is not None
            asked.append(turns.ask(question))
            await asyncio.sleep(0)
        return list(await asyncio.gather(*asked))

    turns._reader.at_hand = counted
    for count in (1, 2, 10):
        assert None not in asyncio.run(one_a_pass(count))
    assert sizes[:2] == [1, 2]
    assert sum(sizes[2:]) == 10
    if database.is_sqlite:
        assert sizes[2] <= 1 + PASSES  # those who come while it is read wait for the next one


def test_who_comes_while_the_database_is_asked_comes_along(
    app: FastAPI, client: TestClient, database: Database
) -> None:
    """With a look of their own: what they ask about may have changed since the first one."""
    if database.is_sqlite:
        pytest.skip("it answers at once")
    client.post(URL, json=ask("a")).raise_for_status()
    turns, sizes, looks = app.state.turns, list[int](), list[int]()
    at_hand, stamp = turns._reader.at_hand, turns._reader.stamp

    async def two() -> list[Reply | None]:
        loop, asked = asyncio.get_running_loop(), list[asyncio.Future[Reply | None]]()

        def put() -> None:
            question = question_of(orjson.dumps(ask("a")), "r", 10_000)
            assert question is not None
            asked.append(turns.ask(question))

        def slow() -> Stamp:
            found = stamp()
            looks.append(len(asked))
            if len(looks) == 1:
                with database.write("default") as session:
                    datasets.append_points(
                        session, datasets.get(session, "gasoline"), [("a", 86_400_000_000 * NEXT_DAY, 5.0)]
                    )
                loop.call_soon_threadsafe(put)
            return found

        turns._reader.stamp = slow
        put()
        while len(asked) < 2:
            await asyncio.sleep(0)
        return list(await asyncio.gather(*asked))

    turns._reader.at_hand = lambda questions, found: (sizes.append(len(questions)), at_hand(questions, found))[1]
    replies = [orjson.loads(reply.body) for reply in asyncio.run(two()) if reply is not None]
    assert (sizes, looks) == ([2], [1, 2])
    assert [reply["revision"] for reply in replies] == [2, 2]


def test_one_turn_reads_few_series_anew(app: FastAPI, client: TestClient, stored: Callable[..., int]) -> None:
    keys = [f"s{number}" for number in range(COLD + 4)]
    stored("many", dict.fromkeys(keys, HISTORY))
    client.post(URL, json=ask("a")).raise_for_status()
    kept = len(app.state.turns.contexts)
    many, first = ask(*keys, dataset="many"), ask("s1", dataset="many")
    replies = plain(app, first, many, sent())[1]
    assert [reply is None for reply in replies] == [False, True, False]
    assert len(app.state.turns.contexts) == kept + COLD
    assert None not in plain(app, many)[1]
    both(client, many)


def test_a_series_that_is_no_more_takes_no_other_question_along(app: FastAPI, client: TestClient) -> None:
    client.post(URL, json=ask("a", "b")).raise_for_status()
    rows = {"key": ["a"] * 3, "timestamp": ["2026-02-01", "2026-02-02", "2026-02-03"], "value": [5.0, 6.0, 7.0]}
    client.post("/v1/datasets/gasoline/revisions", params={"mode": "replace"}, json=rows).raise_for_status()
    replies = plain(app, ask("a"), ask("b"), ask("a", "b"), sent(), ask("a", horizon=2))[1]
    assert [reply is None for reply in replies] == [False, True, True, False, False]
    assert both(client, ask("b"))["status"] == 404
    assert both(client, ask("a"))["revision"] == 2


def test_long_texts_are_no_keys_of_a_cache(app: FastAPI, client: TestClient) -> None:
    client.post(URL, json=ask("a")).raise_for_status()
    plain(app, sent())
    before = calendar_of.cache_info().currsize, located.cache_info().currsize
    start = {"key": "mine", "start": "2026-01-05" + " " * 90_000, "target": HISTORY}
    bodies = sent(inputs=[start]), sent(frequency="W" * 90_000), sent(time_zone="Europe/" * 10_000)
    assert plain(app, *bodies)[1] == [None] * 3
    assert (calendar_of.cache_info().currsize, located.cache_info().currsize) == before


# ---------------------------------------------------------------- points that arrive together


def point(key: str, day: int, value: float) -> dict[str, Any]:
    return {"dataset": "gasoline", "points": [{"key": key, "timestamp": f"2026-02-{day:02}", "value": value}]}


def gathered(arrivals: Arrivals, *some: Arrival | None) -> list[bytes | None]:
    async def asked() -> list[bytes | None]:
        return list(await asyncio.gather(*(arrivals.ask(one) for one in some if one is not None)))

    return asyncio.run(asked())


def test_points_that_come_together_share_a_commit(app: FastAPI, client: TestClient, database: Database) -> None:
    bodies = [point("abc"[place % 3], 4 + place // 3, 100.0 + place) for place in range(15)]
    bodies[7] = point("a", 1, -1.0)  # is there with another value
    found = asyncio.run(_asked(app, bodies, "/v1/models/fuel/next"))
    assert [answer.status_code for answer in found] == [409 if place == 7 else 200 for place in range(15)]
    with database.read("default") as session:
        revisions = session.scalar(select(func.count()).select_from(RevisionRow))
    assert revisions is not None
    assert revisions < 1 + 14
    for answer in found[:7] + found[8:]:
        (row,) = answer.json()["forecasts"]
        again = client.post(URL, json=ask(row["key"], revision=answer.json()["revision"]))
        check(answer.json(), again.json() | {"request_id": None})


@pytest.mark.usefixtures("base")
def test_what_is_to_be_said_to_one_takes_no_other_out_of_the_batch(app: FastAPI, client: TestClient) -> None:
    rows = "key,timestamp,value,price\na,2026-01-05,1,2.5\na,2026-01-06,2,3.5\n"
    made = client.post("/v1/datasets/covered/revisions", content=rows, headers={"content-type": "text/csv"})
    made.raise_for_status()
    bodies = [
        {"dataset": "covered", "points": [{"key": key, "timestamp": "2026-01-07", "value": 3.0}]} for key in "abcd"
    ]
    asked = zip(bodies, ("base", "fuel", "fuel", "fuel"), strict=True)
    arrivals = [arrival_of(orjson.dumps(body), model, "r", 10_000) for body, model in asked]
    answers = gathered(app.state.arrivals, *arrivals)
    assert [answer and orjson.loads(answer)["revision"] for answer in answers] == [None, 2, 2, 2]
    (found,) = asyncio.run(_asked(app, bodies[:1], "/v1/models/base/next"))
    assert found.status_code == 200
    assert [warning["code"] for warning in found.json()["warnings"]] == ["covariates_ignored"]


def test_a_locked_database_is_waited_for_once(app: FastAPI, client: TestClient, database: Database) -> None:
    if not database.is_sqlite:
        pytest.skip("one lock for all writers is SQLite's")
    stored_in = app.state.database.engine
    begun: list[str] = []
    event.listen(stored_in, "checkout", lambda line, *_: line.execute("PRAGMA busy_timeout=50"))
    event.listen(stored_in, "before_cursor_execute", lambda _c, _l, statement, *_: begun.append(statement))
    with database.write("default") as session:
        session.connection()  # now it is locked
        found = asyncio.run(_asked(app, [point("a", 4, 1.0), point("b", 4, 1.0)], "/v1/models/fuel/next"))
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in found] == [(503, "2")] * 2
    assert begun.count("BEGIN IMMEDIATE") <= 2  # the second may not have come in time for the first one's batch
    assert both(client, ask("a"))["revision"] == 1


def test_a_batch_is_only_so_much_work() -> None:
    def arrival(horizon: int) -> Arrival:
        return Arrival("default", "fuel", "gasoline", (Arrived("a", "2026-02-04", 1.0),), Shape(horizon, (0.5,)), "r")

    assert fitting([arrival(1)] * 300) == 256
    assert fitting([arrival(1), *[arrival(25_000)] * 9]) == 4
    assert fitting([arrival(10**6), arrival(1)]) == 1


def test_points_that_come_after_the_end_are_left_to_the_other_way(app: FastAPI, database: Database) -> None:
    closed = Arrivals(database, app.state.versions, Contexts(2**20))
    closed.close()
    arrivals = [arrival_of(orjson.dumps(point(key, 4, 1.0)), "fuel", "r", 10_000) for key in "ab"]
    assert gathered(closed, *arrivals) == [None, None]


def test_a_point_without_a_forecast_is_not_kept(app: FastAPI, client: TestClient) -> None:
    bodies = [point("a", 4, 1.0) | {"horizon": 10_001}, point("b", 4, 1.0), {**point("c", 4, 1.0), "dataset": "nope"}]
    found = asyncio.run(_asked(app, bodies, "/v1/models/fuel/next"))
    assert [answer.status_code for answer in found] == [422, 200, 404]
    origins = [row["origin"][:10] for row in both(client, ask("a", "b"))["forecasts"]]
    assert origins == ["2026-02-03", "2026-02-04"]


def test_what_was_read_before_a_failed_commit_is_forgotten(
    app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def arrived(day: int, value: float) -> bytes | None:
        arrival = arrival_of(orjson.dumps(point("a", day, value)), "fuel", "r", 10_000)
        return gathered(app.state.arrivals, arrival)[0]

    assert arrived(4, 1.0) is not None
    with monkeypatch.context() as patch:
        patch.delattr("app.services.arrivals._answers")
        assert arrived(5, 999.0) is None
    client.post("/v1/models/fuel/next", json=point("a", 5, 2.0), headers=LONG_WAY).raise_for_status()
    answer = arrived(6, 3.0)
    assert answer is not None
    check(orjson.loads(answer), client.post(URL, json=ask("a"), headers=LONG_WAY).json())
