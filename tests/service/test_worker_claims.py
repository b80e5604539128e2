"""How seldom an idle worker asks for work, and that it asks whenever there may be some."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from app.db.session import EVERY_WORKSPACE, Database
from app.services import jobs
from app.worker.engine import Claims
from app.worker.rooms import Rooms
from app.worker.slots import slots_of


def test_the_queue_is_asked_again_only_when_somebody_has_written(database: Database) -> None:
    answers: list[tuple[list[str], str | None]] = []
    queue = SimpleNamespace(name=jobs.QUEUE)

    def asked(answer: tuple[list[str], str | None], claims: Callable[..., Any]) -> bool:
        answers.append(answer)
        told = claims(queue, "worker", "1", None, 0)
        if not answers:
            assert told == answer
            return True
        answers.clear()
        assert told == ([], None)
        return False

    def ask(*arguments: Any, **_named: Any) -> tuple[list[str], str | None]:
        running.append(arguments[4])
        return answers.pop()

    running: list[int] = []
    rooms = Rooms(slots_of([{"name": "cpu", "kind": "cpu"}], "cpu", 3), lambda _: None)
    claims = Claims(ask, database.stamp, rooms)
    assert asked(([], None), claims)
    assert not asked(([], None), claims)
    with database.write(EVERY_WORKSPACE) as session:
        jobs.beat(session, "host.0-1-1-a", [], [])
    assert asked((["one"], None), claims)
    assert asked(([], "worker_concurrency"), claims)  # full: what waits is not known
    assert asked(([], None), claims)
    assert not asked(([], None), claims)

    rooms.take()
    unknown = Claims(ask, lambda: None, rooms)  # the database did not answer in time
    assert asked(([], None), unknown)
    assert asked(([], None), unknown)
    assert running[-3:] == [1, 1, 1]
    assert asked((["two"], None), unknown)
    assert asked(([], None), unknown)  # what was claimed has not come for its slot yet
    rooms.take()
    assert asked(([], None), unknown)
    assert running[-2:] == [2, 2]
