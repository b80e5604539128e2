"""A training run's state on disk: one safetensors file, replaced whole, tensors beside a JSON header. No pickle."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from models.artifact import write_file

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors and JSON-ready facts of a run at one step. `fingerprint` names data and config it belongs to."""

    fingerprint: str
    facts: dict[str, Any]
    tensors: dict[str, Tensor]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in `folder`."""
    header = {"fingerprint": checkpoint.fingerprint, "facts": json.dumps(checkpoint.facts)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / CHECKPOINT, save(tensors, header))


def read_checkpoint(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The checkpoint in `folder`, or None when there is none, or it is torn or of other data or another config."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:  # pyright: ignore[reportUnknownVariableType]
            header: dict[str, str] = file.metadata() or {}
            if header.get("fingerprint") != fingerprint:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping
    except SafetensorError:
        return None
    return Checkpoint(fingerprint, json.loads(header["facts"]), tensors)


def gather(module: nn.Module, copies: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """Every tensor of a run by name: the module's, and the `copies` beside its parameters (name -> list)."""
    tensors = {f"network.{name}": value for name, value in module.state_dict().items()}
    for name, values in copies.items():
        tensors |= {f"{name}.{place}": value for place, value in enumerate(values)}
    return {name: value.clone() for name, value in tensors.items()}


def restore(tensors: dict[str, Tensor], module: nn.Module, copies: dict[str, list[Tensor]]) -> None:
    """Put back in place what `gather` gathered."""
    own = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    module.load_state_dict(own)
    for name, values in copies.items():
        for place, value in enumerate(values):
            value.copy_(tensors[f"{name}.{place}"])
