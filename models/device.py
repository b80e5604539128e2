"""Where training runs. Imports torch: only worker children ask."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

SMALL = 256 * 256


def pick(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA, then MPS, then the CPU. Raises ValueError when it is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    present = [device["name"] for device in devices()]
    if name in present or (name == "cuda" and "cuda:0" in present):
        return torch.device(name)
    raise ValueError(f"device: expected auto or one of {', '.join(present)}, got {name!r}")


@contextmanager
def threads_for(cells: int) -> Generator[None]:
    """Inside, torch computes with few threads on the CPU, never more than the caller allows: one where a step works
    on no more than `SMALL` numbers, else two. Layers this small gain nothing from more, and on busy cores threads
    that wait for each other at every layer cost many times what they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, 1 if cells <= SMALL else 2))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def devices() -> list[dict[str, Any]]:
    """What training can run on here: {"name": "cuda:0", "kind": "cuda", "model": …, "memory": bytes or None}, a CUDA
    device with its `uuid`, the fastest first, the CPU always last."""
    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        about = {"model": properties.name, "memory": properties.total_memory, "uuid": f"GPU-{properties.uuid}"}
        found.append({"name": f"cuda:{index}", "kind": "cuda", **about})
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "kind": "mps", "model": "Apple", "memory": None})
    return [*found, {"name": "cpu", "kind": "cpu", "model": "", "memory": None}]
