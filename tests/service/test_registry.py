"""The registry's rules on the real database: numbers, gates, moves, references."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import JobRow, MoveRow, VersionRow
from app.errors import Conflict, NotFound, PreconditionFailed
from app.services import leftovers, registry
from app.services.registry import Condition, Gate, NewVersion, Why

ME = Why("me", "because")


def new(model: str = "fuel", **changes: Any) -> NewVersion:
    facts: dict[str, Any] = {
        "folder": "job_a-1",
        "digest": "sha256:00",
        "frequency": "D",
        "time_zone": "UTC",
        "config": {"horizon": 7},
        "metrics": {"mase": 0.9},
        "baselines": {"naive": {"mase": 1.2}},
        "parameters": 10,
        "size_bytes": 100,
        "device": "cpu",
        "train_seconds": 1.5,
    }
    return NewVersion(model=model, **(facts | changes))


@pytest.fixture
def add(database: Database) -> Callable[..., int]:
    def added(model: str = "fuel", **changes: Any) -> int:
        with database.write("default") as session:
            return registry.add_version(session, new(model, **changes)).number

    return added


@pytest.fixture
def champion(database: Database) -> Callable[[], int]:
    def number() -> int:
        with database.read("default") as session:
            return registry.resolve(session, "fuel").version.number

    return number


def moves(database: Database, alias: str = "champion") -> list[tuple[int | None, int | None, str]]:
    with database.read("default") as session:
        rows = session.scalars(select(MoveRow).filter_by(alias=alias).order_by(MoveRow.seq))
        return [(row.from_version, row.to_version, row.reason) for row in rows]


def test_the_first_version_becomes_champion(add: Callable[..., int], database: Database) -> None:
    assert add() == 1
    assert moves(database) == [(None, 1, "first version")]


def test_the_first_version_does_not_become_champion_when_told_never(
    add: Callable[..., int], champion: Callable[[], int], database: Database
) -> None:
    assert add(promote="never") == 1
    with pytest.raises(NotFound, match="champion"):
        champion()
    assert add(promote="if_better") == 2  # nothing to beat
    assert champion() == 2
    assert moves(database) == [(None, 2, "first version")]


@pytest.mark.parametrize(
    ("gate", "promoted"),
    [
        (Gate("mase", 0.8, 1, 0.9), True),
        (Gate("mase", 0.9, 1, 0.9), False),  # not worse is not better
        (Gate("mase", 1.0, 1, 0.9), False),
        (Gate("mase", 0.8, 1, None), False),  # the champion could not be scored
        (Gate("mase", float("nan"), 1, 0.9), False),
        (Gate("mase", 0.8, 7, 0.9), False),  # compared with a version that is not champion now
        (Gate("mase", 0.8, 1, 0.9, refusal="too few values"), False),
        (None, False),
    ],
)
def test_the_gate_decides_who_is_champion(
    add: Callable[..., int], champion: Callable[[], int], gate: Gate | None, promoted: bool
) -> None:
    add()
    assert add(gate=gate) == 2
    assert champion() == (2 if promoted else 1)


def test_the_gate_is_kept_with_the_move(add: Callable[..., int], database: Database) -> None:
    add()
    add(gate=Gate("mase", 0.8, 1, 0.9, {"per_series": 1}), actor="job_7")
    with database.read("default") as session:
        row = session.scalars(select(MoveRow).filter_by(seq=2)).one()
    assert (row.from_version, row.to_version, row.actor) == (1, 2, "job_7")
    assert row.gate == {
        "metric": "mase",
        "value": 0.8,
        "champion": 1,
        "champion_value": 0.9,
        "origins": {"per_series": 1},
        "refusal": None,
        "passed": True,
    }


def test_always_and_never_ask_no_gate(add: Callable[..., int], champion: Callable[[], int]) -> None:
    add()
    add(promote="never", gate=Gate("mase", 0.1, 1, 0.9))
    assert champion() == 1
    add(promote="always", gate=Gate("mase", 9.9, 1, 0.9))
    assert champion() == 3


def test_a_number_is_never_used_again(add: Callable[..., int], database: Database) -> None:
    add()
    assert add(promote="never") == 2
    with database.write("default") as session:
        assert registry.delete_version(session, "fuel", 2) == "job_a-1"
    assert add(promote="never") == 3


def test_a_failed_transaction_leaves_no_gap_and_no_version(add: Callable[..., int], database: Database) -> None:
    add()
    try:
        with database.write("default") as session:
            registry.add_version(session, new())
            raise RuntimeError("the job's end could not be written")
    except RuntimeError:
        pass
    assert add() == 2


def test_nan_scores_are_kept_as_null(add: Callable[..., int], database: Database) -> None:
    add(metrics={"mase": float("nan"), "by": [float("inf"), 1.0]}, baselines={"naive": {"mase": float("nan")}})
    with database.read("default") as session:
        row = session.scalars(select(VersionRow)).one()
    assert row.metrics == {"mase": None, "by": [None, 1.0]}
    assert row.baselines == {"naive": {"mase": None}}


def test_a_version_in_use_is_not_deleted(add: Callable[..., int], database: Database) -> None:
    add()
    with database.write("default") as session, pytest.raises(Conflict, match="champion points to it"):
        registry.delete_version(session, "fuel", 1)
    with database.write("default") as session, pytest.raises(NotFound, match="no version 9"):
        registry.delete_version(session, "fuel", 9)


def test_references(add: Callable[..., int], database: Database) -> None:
    add()
    add(promote="never")
    with database.write("default") as session:
        registry.move(session, "fuel", "challenger", 2, ME)
    with database.read("default") as session:
        for reference, number, alias in (
            ("fuel", 1, "champion"),
            ("fuel@champion", 1, "champion"),
            ("fuel@challenger", 2, "challenger"),
            ("fuel/1", 1, None),
            ("fuel/2", 2, None),
        ):
            found = registry.resolve(session, reference)
            assert (found.version.number, found.alias, found.model.name) == (number, alias, "fuel"), reference
        for reference in (
            "nope",
            "fuel/3",
            "fuel@3",
            "fuel@nope",
            "fuel/0",
            "fuel/x",
            "fuel/",
            "",
            "fuel@",
            "f uel",
            "a/1/2",
        ):
            with pytest.raises(NotFound):
                registry.resolve(session, reference)


def test_a_missing_alias_says_which_there_are(add: Callable[..., int], database: Database) -> None:
    add()
    with database.read("default") as session, pytest.raises(NotFound, match="it has champion"):
        registry.resolve(session, "fuel@nope")


def test_workspaces_do_not_see_each_other(add: Callable[..., int], database: Database) -> None:
    add()
    with database.write(EVERY_WORKSPACE) as session:
        assert registry.add_version(session, new(workspace="other", folder="job_b-1")).number == 1
    with database.read("other") as session:
        assert registry.resolve(session, "fuel").version.folder == "job_b-1"
    with database.read("default") as session:
        assert registry.resolve(session, "fuel").version.folder == "job_a-1"
    with database.read("third") as session, pytest.raises(NotFound):
        registry.resolve(session, "fuel")


def test_versions_that_arrive_together_are_numbered_one_after_another(database: Database) -> None:
    """Eight jobs of a model that does not exist yet end at once."""
    numbers: list[int] = []
    start = threading.Barrier(8)

    def end(place: int) -> None:
        start.wait()
        with database.write("default") as session:
            numbers.append(registry.add_version(session, new(folder=f"job_{place}-1")).number)

    threads = [threading.Thread(target=end, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 9))
    assert len(moves(database)) == 1


def test_conditions() -> None:
    Condition().check(None)
    Condition().check('"3"')
    Condition(frozenset({'"2"', '"3"'})).check('"3"')
    Condition(frozenset({"*"})).check('"3"')
    Condition(none_match=frozenset({"*"})).check(None)
    for condition, tag in (
        (Condition(frozenset({'"2"'})), '"3"'),
        (Condition(frozenset({'"2"'})), None),
        (Condition(frozenset({"*"})), None),
        (Condition(frozenset()), '"3"'),
        (Condition(none_match=frozenset({"*"})), '"3"'),
        (Condition(none_match=frozenset({'"3"'})), '"3"'),
    ):
        with pytest.raises(PreconditionFailed):
            condition.check(tag)


def test_two_who_move_at_once_with_the_same_tag(add: Callable[..., int], database: Database) -> None:
    """One of them is told that somebody was quicker."""
    for _ in range(3):
        add(promote="never")
    with database.write("default") as session:
        registry.move(session, "fuel", "champion", 1, ME)
    start, outcomes = threading.Barrier(2), []

    def go(version: int) -> None:
        start.wait()
        try:
            with database.write("default") as session:
                registry.move(session, "fuel", "champion", version, ME, condition=Condition(frozenset({'"1"'})))
            outcomes.append("moved")
        except PreconditionFailed:
            outcomes.append("stale")

    threads = [threading.Thread(target=go, args=(version,)) for version in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["moved", "stale"]


def test_what_attempts_left_behind_is_rubbish(add: Callable[..., int], database: Database) -> None:
    with database.write("default") as session:
        for name, state, attempt in (("job_done", "succeeded", 3), ("job_now", "running", 2), ("job_off", "failed", 1)):
            session.add(JobRow(id=name, kind="train", state=state, attempt=attempt, spec={}))
    add(folder="job_done-3", job_id="job_done")
    folders = ["job_done-3", "job_done-2", "job_now-2", "job_now-1", "job_off-1", "job_unknown-1", "something"]
    with database.read(EVERY_WORKSPACE) as session:
        assert leftovers.rubbish(session, folders) == {"job_done-2", "job_now-1", "job_off-1"}
        assert leftovers.rubbish(session, []) == set()
        many = [f"job_done-{place}" for place in range(1200)]
        assert len(leftovers.rubbish(session, many)) == 1199
