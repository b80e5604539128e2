"""How seldom an idle worker asks for work, and that it asks whenever there may be some."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from app.db.session import EVERY_WORKSPACE, Database
from app.services import jobs
from app.worker.engine import Claims


def test_the_queue_is_asked_again_only_when_somebody_has_written(database: Database) -> None:
    answers: list[tuple[list[str], str | None]] = []
    queue = SimpleNamespace(name=jobs.QUEUE)

    def asked(answer: tuple[list[str], str | None], claims: Callable[..., Any]) -> bool:
        answers.append(answer)
        told = claims(queue, "worker")
        if not answers:
            assert told == answer
            return True
        answers.clear()
        assert told == ([], None)
        return False

    claims = Claims(lambda *_arguments, **_named: answers.pop(), database.stamp)
    assert asked(([], None), claims)
    assert not asked(([], None), claims)
    with database.write(EVERY_WORKSPACE) as session:
        jobs.beat(session, "host.0-1-1-a", [], [])
    assert asked((["one"], None), claims)
    assert asked(([], "worker_concurrency"), claims)  # full: what waits is not known
    assert asked(([], None), claims)
    assert not asked(([], None), claims)

    unknown = Claims(lambda *_arguments, **_named: answers.pop(), lambda: None)  # the database did not answer in time
    assert asked(([], None), unknown)
    assert asked(([], None), unknown)
