"""Which slot a job gets, and whether it may have one now: on a GPU that others use, only where memory allows."""

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.worker.slots import Slot

Memory = tuple[int, int]  # of a GPU: free, and in all; in any unit
SETTLES = 20.0  # seconds after which a job on a GPU has taken the memory that it needs
ASKED_EVERY = 5.0  # the same question of one GPU
WAITS = 1.0
PROMISED = 10.0  # seconds in which a job that was claimed comes for its slot; later it is another's to see to


class Rooms:
    """The slots of a worker. A GPU without a job takes one; beside others it takes the next one when the last of them
    has had time to take its memory, and a slot's share of the whole is free then. Where nobody can tell how much is
    free, the number of slots alone decides."""

    def __init__(
        self,
        slots: Sequence[Slot],
        memory: Callable[[str], Memory | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = len(slots)
        self._free = list(slots)
        self._all = Counter(slot.device for slot in slots)
        self._memory, self._clock = memory, clock
        self._began: dict[str, float] = {}  # device -> when its last job did
        self._promised: list[float] = []  # when jobs were claimed that have no slot yet
        self._changed = threading.Condition()

    def open(self) -> int:
        """How many more jobs may be claimed now."""
        with self._changed:
            late = self._clock() - PROMISED
            self._promised = [at for at in self._promised if at > late]
            return max(0, sum(self._room_on(device) for device in self._all) - len(self._promised))

    def promise(self, count: int) -> None:
        """Keep room for jobs that have been claimed: on a busy machine the next look comes before their threads do."""
        with self._changed:
            self._promised += [self._clock()] * count

    def take(self) -> Slot:
        """A slot, on the device with the fewest jobs; waits for one."""
        with self._changed:
            while not (found := [slot for slot in self._free if self._room_on(slot.device)]):
                self._changed.wait(WAITS)
            busy = Counter(self._all)
            busy.subtract(slot.device for slot in self._free)
            slot = min(found, key=lambda one: busy[one.device])
            del self._promised[:1]
            self._free.remove(slot)
            self._began[slot.device] = self._clock()
            return slot

    def give(self, slot: Slot) -> None:
        with self._changed:
            self._free.append(slot)
            self._changed.notify()

    def _room_on(self, device: str) -> int:
        free, slots = sum(slot.device == device for slot in self._free), self._all[device]
        if not device.startswith("cuda") or slots == 1 or not free:
            return free
        if free == slots:
            return 1
        settled = self._clock() - self._began[device] >= SETTLES
        return 1 if settled and allows(self._memory(device), slots) else 0


def allows(memory: Memory | None, slots: int) -> bool:
    """Whether one more job may begin on a GPU that is shared by so many slots and has this much memory free."""
    return memory is None or memory[0] * slots >= memory[1]


class Meter:
    """How much memory of each GPU is free, as the driver's own program tells it."""

    def __init__(self, devices: Sequence[Mapping[str, Any]]) -> None:
        self._ids = {one["name"]: one.get("uuid") for one in devices}
        self._told: dict[str, tuple[float, Memory | None]] = {}

    def __call__(self, device: str) -> Memory | None:
        at, memory = self._told.get(device, (-ASKED_EVERY, None))
        if time.monotonic() - at >= ASKED_EVERY:
            uuid = self._ids.get(device)
            memory = None if uuid is None else _asked(uuid)
            self._told[device] = time.monotonic(), memory
        return memory


def _asked(uuid: str) -> Memory | None:
    query = ["nvidia-smi", "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits", "-i", uuid]
    try:
        return told(subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout)
    except (OSError, subprocess.SubprocessError):
        return None


def told(line: str) -> Memory | None:
    """What `nvidia-smi` says of one GPU, `80000, 81559`; None for anything else."""
    parts = [part.strip() for part in line.split(",")]
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 and all(part.isdigit() for part in parts) else None
