"""Which slot a job gets. The figures of the GPUs' memory are given; no GPU is needed."""

import threading

import pytest

from app.worker.rooms import SETTLES, Meter, Rooms, told
from app.worker.slots import slots_of

GPUS = [{"name": "cuda:0", "kind": "cuda"}, {"name": "cuda:1", "kind": "cuda"}, {"name": "cpu", "kind": "cpu"}]


def rooms(free: dict[str, int | None], clock: list[float], each: int = 2) -> Rooms:
    """`each` slots on two GPUs of 80."""

    def memory(device: str) -> tuple[int, int] | None:
        amount = free[device]
        return None if amount is None else (amount, 80)

    return Rooms(slots_of(GPUS, "cuda", each), memory, lambda: clock[0])


def test_each_gpu_gets_one_job_before_any_gets_two() -> None:
    found = rooms({"cuda:0": 80, "cuda:1": 80}, now := [0.0])
    assert found.open() == 2
    first, second = found.take(), found.take()
    assert {first.device, second.device} == {"cuda:0", "cuda:1"}
    assert found.open() == 0  # what the two need is not known yet
    now[0] = SETTLES
    assert found.open() == 2
    found.take()
    found.give(second)
    assert found.take().device == second.device


@pytest.mark.parametrize(("free", "open_"), [(80, 1), (40, 1), (39, 0), (0, 0), (None, 1)])
def test_beside_another_a_job_begins_where_a_slots_share_is_free(free: int | None, open_: int) -> None:
    found = rooms({"cuda:0": free, "cuda:1": 0}, now := [0.0])
    found.take()
    found.take()
    now[0] = SETTLES
    assert found.open() == open_


def test_a_job_that_was_taken_too_early_waits_for_memory() -> None:
    found = rooms(free := {"cuda:0": 10, "cuda:1": 10}, now := [0.0])
    slots = [found.take(), found.take()]
    now[0] = SETTLES
    waiting = threading.Thread(target=lambda: slots.append(found.take()), daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert len(slots) == 2
    found.give(slots[0])
    waiting.join(10)
    assert slots[2].device == slots[0].device
    assert free["cuda:0"] == 10


def test_one_slot_a_gpu_and_cpus_ask_for_no_memory() -> None:
    assert rooms({}, [0.0], each=1).open() == 2
    found = Rooms(slots_of(GPUS, "cpu", 3), lambda _: (0, 80))
    found.take()
    assert found.open() == 2


@pytest.mark.parametrize(
    ("line", "memory"), [("80000, 81559\n", (80000, 81559)), ("[N/A], [N/A]", None), ("No devices were found", None)]
)
def test_what_the_driver_says(line: str, memory: tuple[int, int] | None) -> None:
    assert told(line) == memory
    assert Meter([{"name": "cuda:0", "uuid": "GPU-none-such"}])("cuda:0") is None
