"""Writes a version's folder: weights, graph, manifest. The graph is compared with torch before the folder counts."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import json
import math
import os
import sys
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as refusals  # pyright: ignore
from safetensors.torch import load, save
from torch import Tensor

from models.bases import Base
from models.calendar import Calendar
from models.config import TrainConfig
from models.features import Design
from models.forecaster import AnyMember, Forecaster, Inputs, Member
from models.inference import FORMAT, GRAPH, MANIFEST, WEIGHTS, read_checked, read_manifest
from models.memory import give_back
from models.shipped import Shipped

LIBRARIES = ("gatecast", "torch", "onnx", "onnxruntime", "safetensors", "numpy")
REFUSALS = (
    refusals.Fail,
    refusals.InvalidArgument,
    refusals.InvalidGraph,
    refusals.InvalidProtobuf,
    refusals.NotImplemented,
    refusals.RuntimeException,
)
BATCHES = (1, 5, 33)
TOLERANCE = (
    1e-4  # largest difference between graph and torch, as a share of the value in the window's scale (at least 1)
)


def write_artifact(folder: Path, forecaster: Forecaster, windows: Inputs, facts: Mapping[str, Any]) -> None:
    """Write `weights.safetensors`, `forward.onnx` and `manifest.json` into `folder`, made if it is not there.

    `windows` are real ones to compare torch and the graph on. `facts` are the manifest's own entries. Raises
    ValueError when no exporter's graph agrees with torch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    forecaster = forecaster.to("cpu").eval()
    weights = save({name: value.contiguous() for name, value in forecaster.state_dict().items()})
    graph = export(forecaster, windows)
    files = {}
    for name, content in ((WEIGHTS, weights), (GRAPH, graph)):
        write_file(folder / name, content)
        files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest = {
        "format": FORMAT,
        "config": forecaster.config.document(),
        "network": {
            "bases": [[list(base) for base in one.kinds] for one in members_of(forecaster)],
            "pretrained": [_base_facts(one) for one in members_of(forecaster)],
            "parameters": sum(p.numel() for p in forecaster.parameters()),
        },
        "features": design_of(forecaster).document(),
        "files": files,
        "libraries": {name: library(name) for name in LIBRARIES},
        **facts,
    }
    write_manifest(folder, manifest)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write or replace the manifest. Raises ValueError on a value JSON has no word for, NaN among them."""
    text = json.dumps(manifest, indent=1, allow_nan=False, ensure_ascii=False)
    write_file(folder / MANIFEST, text.encode())


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that its name only ever means whole content: fsynced beside it, then renamed."""
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def calendar_facts(calendar: Calendar) -> dict[str, str]:
    """The calendar as the manifest holds it."""
    return {"frequency": calendar.frequency.name, "time_zone": calendar.time_zone}


def library(name: str) -> str | None:
    """The installed version of a library."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def load_forecaster(folder: Path) -> Forecaster:
    """The torch module of an artifact, on the CPU. Raises ValueError when the folder is not a whole artifact of this
    format."""
    manifest = read_manifest(folder)
    weights = load(read_checked(folder, WEIGHTS, manifest))
    design, network = Design.parse(manifest["features"]), manifest["network"]
    members: list[AnyMember[Any]] = []
    for one, bases, base in zip(
        manifest["members"], network["bases"], network.get("pretrained", repeat(None)), strict=False
    ):
        config = TrainConfig.parse(one["config"])
        if base is None:
            members.append(Member(config, tuple(Base(*kind) for kind in bases), design))
        else:
            members.append(Shipped.blank(config, tuple(base["seasons"]), tuple(base["levels"])))
    forecaster = Forecaster(TrainConfig.parse(manifest["config"]), members)
    try:
        forecaster.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS}: expected the weights of the manifest's config, got {error}") from error
    return forecaster.eval()


def members_of(forecaster: Forecaster) -> list[AnyMember[Any]]:
    """Its members, by their type."""
    return [member for member in forecaster.members if isinstance(member, AnyMember)]


def _base_facts(member: AnyMember[Any]) -> dict[str, Any] | None:
    """What the manifest says of a member that is the pre-trained base; None of a network from nothing."""
    if not isinstance(member, Shipped):
        return None
    return {"seasons": list(member.seasons), "levels": list(member.network.levels)}


def design_of(forecaster: Forecaster) -> Design:
    """The columns that a forecaster reads beside the target: the same for all its members but the pre-trained base,
    which reads none."""
    return max((member.design for member in members_of(forecaster)), key=bool)


def export(forecaster: Forecaster, windows: Inputs) -> bytes:
    """The forecaster as an ONNX graph that takes any number of windows. torch's quick exporter (0.1 s) is tried
    first; it bakes the batch size into some graphs, so where its graph fails the comparison the slow one (seconds)
    is."""
    findings: list[str] = []
    for slow in (False, True):
        graph = _export(forecaster, windows, slow)
        give_back()
        worst = compare(forecaster, graph, windows)
        if worst <= TOLERANCE:
            return graph
        findings.append(f"{worst:.3g}")
    raise ValueError(f"forward.onnx: expected to agree with torch within {TOLERANCE:g}, got {' and '.join(findings)}")


def _export(forecaster: Forecaster, windows: Inputs, slow: bool) -> bytes:
    example = named(some(windows, 3))
    names: dict[str, Any] = {"input_names": list(example), "output_names": ["quantiles"], "kwargs": example}
    if slow:
        axes = {name: {0: "batch"} for name in example}
        names |= {"dynamo": True, "external_data": False, "dynamic_shapes": axes, "verbose": False}
    else:
        names |= {"dynamo": False, "dynamic_axes": {name: {0: "batch"} for name in (*example, "quantiles")}}
    with TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # each exporter warns of what the comparison then checks
        path = Path(folder) / GRAPH
        torch.onnx.export(forecaster, (), str(path), **names)
        return path.read_bytes()


def some(windows: Inputs, count: int) -> Inputs:
    """So many of the windows, over and over where there are fewer."""
    rows = torch.arange(count) % len(windows.context)
    features, static = (part if part is None else part[rows] for part in (windows.features, windows.static))
    return Inputs(windows.context[rows], windows.mask[rows], features, static)


def named(inputs: Inputs) -> dict[str, Tensor]:
    """The graph's inputs by name: those that there are."""
    parts = {"context": inputs.context, "mask": inputs.mask, "features": inputs.features, "static": inputs.static}
    return {name: part for name, part in parts.items() if part is not None}


def compare(forecaster: Forecaster, graph: bytes, windows: Inputs) -> float:
    """The largest difference between the graph and torch over `windows` at batches of 1, 5 and 33, as a share of the
    value in the window's scale (at least 1); infinite where the graph cannot be run."""
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what it would say of a graph that it cannot run is found below
        options.intra_op_num_threads = 1  # a second one costs more to wait for than it does
        options.enable_cpu_mem_arena = False  # it takes powers of two, and three forwards have no use for it
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return max(_difference(forecaster, session, some(windows, size)) for size in BATCHES)
    except REFUSALS:
        return math.inf


def _difference(forecaster: Forecaster, session: Any, windows: Inputs) -> float:
    inputs = named(windows)
    with torch.no_grad():
        expected = forecaster(**inputs)
        scale = torch.stack([member.prepare(windows)[0].unit for member in members_of(forecaster)]).amax(0)
    found = torch.from_numpy(session.run(None, {name: part.numpy() for name, part in inputs.items()})[0])
    if found.shape != expected.shape or not found.isfinite().all():
        return math.inf
    # Rounding of the network's float32 shows in the window's scale, rounding of the window itself in the data's units.
    newest = windows.context.abs().amax(1, keepdim=True)
    room = torch.maximum(scale[..., None], (expected.abs() - newest[..., None]).abs()) + 1e-9 * expected.abs()
    return float(((found - expected).abs() / room.clamp_min(sys.float_info.min)).max())
