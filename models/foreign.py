"""Looks at an artifact that came from elsewhere, before it counts as a version. Nothing in it is believed: not that it
is whole, not that its files belong together, not that they answer. To be run in a process that may die, with its time
and memory limited: a graph is a program."""

# onnxruntime has no annotations:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from onnxruntime.capi import onnxruntime_pybind11_state as refusals  # pyright: ignore

from models.calendar import Calendar
from models.config import TrainConfig
from models.graphs import check_graph
from models.inference import GRAPH, MANIFEST, WEIGHTS, OpenArtifact, open_artifact, read_checked
from models.series import Series
from models.warm import continued

FAULTS = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError, MemoryError)
REFUSALS: tuple[type[Exception], ...] = (
    *(refusals.EPFail, refusals.Fail, refusals.InvalidArgument, refusals.InvalidGraph, refusals.InvalidProtobuf),
    *(refusals.ModelLoadCanceled, refusals.NoModel, refusals.NoSuchFile, refusals.NotImplemented),
    refusals.RuntimeException,
)
BATCHES = (1, 5, 33)
SCORE = re.compile(r"[A-Za-z0-9][\w.@%-]{0,63}", re.ASCII)
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def inspected(folder: Path) -> OpenArtifact:
    """The artifact in `folder`, opened and asked. Raises ValueError, naming the file and what was expected, unless
    manifest, weights and graph are whole, belong together, hold nothing that runs or leads elsewhere, and answer."""
    manifest = _manifest(folder)
    check_weights(read_checked(folder, WEIGHTS, manifest))
    graph = read_checked(folder, GRAPH, manifest)
    try:
        check_graph(graph)
    except ValueError as error:
        raise ValueError(f"{GRAPH}: {error}") from error
    try:
        opened = open_artifact(folder)
        continued(TrainConfig(), manifest, opened.calendar.frequency)  # what training may go on from it reads
    except REFUSALS as error:
        raise ValueError(f"{GRAPH}: ONNX Runtime cannot open it ({_first_line(error)})") from error
    except FAULTS as error:
        raise ValueError(f"{MANIFEST}: it cannot be understood ({_named(error)})") from error
    try:
        if opened.any_frequency:
            opened = opened.at(Calendar.of("h"))
        for count in BATCHES:
            _probe(opened, count)
    except REFUSALS as error:
        raise ValueError(f"{GRAPH}: it does not answer as {MANIFEST} says ({_first_line(error)})") from error
    except FAULTS as error:
        raise ValueError(f"{GRAPH}: it does not answer as {MANIFEST} says ({_named(error)})") from error
    return opened


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest as strict JSON, its scores numbers. Raises ValueError."""

    def refuse(word: str) -> float:
        raise ValueError(f"expected JSON, which has no {word}")

    try:
        found = json.loads((folder / MANIFEST).read_bytes(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{MANIFEST}: it is not JSON ({_named(error)})") from error
    try:
        for name in (WEIGHTS, GRAPH):
            if not re.fullmatch(r"[0-9a-f]{64}", found["files"][name]["sha256"]):
                raise ValueError(f"the digest of {name}")
        figures(found.get("metrics", {}))
        for one in found.get("baselines", {}).values():
            figures(one)
        if any(not SCORE.fullmatch(name) for name in found.get("baselines", {})):
            raise ValueError("the baselines' names")
        if not isinstance(found["network"]["parameters"], int) or not 0 <= found["network"]["parameters"] < 2**40:
            raise ValueError("the number of parameters")
        float(found["dependence"])
    except FAULTS as error:
        raise ValueError(f"{MANIFEST}: it cannot be understood ({_named(error)})") from error
    return found


def figures(scores: Any) -> None:
    """Raises ValueError unless these are scores by name: numbers, or null where there is none."""
    for name, value in cast(dict[object, object], scores).items():
        number = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        if not (isinstance(name, str) and SCORE.fullmatch(name) and number):
            raise ValueError("the scores")


def check_weights(content: bytes) -> None:
    """Raises ValueError unless the bytes are a safetensors file: its header's tensors lie one after another and fill
    the rest exactly."""
    size = int.from_bytes(content[:8], "little")
    try:
        if len(content) < 8 or size > len(content) - 8:
            raise ValueError("it ends early")
        header: Mapping[str, Any] = json.loads(content[8 : 8 + size])
        spans: list[tuple[int, int]] = []
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            begin, end = tensor["data_offsets"]
            if math.prod(tensor["shape"]) * WIDTHS[tensor["dtype"]] != end - begin:
                raise ValueError(f"the size of {name[:60]!r}")
            spans.append((begin, end))
        at = 0
        for begin, end in sorted(spans):
            if begin != at or end < begin:
                raise ValueError("the places of its tensors")
            at = end
        if at != len(content) - 8 - size:
            raise ValueError("its length")
    except FAULTS as error:
        raise ValueError(f"{WEIGHTS}: expected a safetensors file, got other bytes ({_named(error)})") from error


def _probe(opened: OpenArtifact, count: int) -> None:
    """Ask for forecasts of made-up series, some short, some with gaps, to the horizon and one step beyond it. Raises
    ValueError, and what ONNX Runtime raises."""
    random = np.random.default_rng(count)
    series: list[Series] = []
    for place in range(count):
        steps = np.arange(max(1, opened.context - place), dtype=np.float64)
        values = 100.0 + 10.0 * np.sin(steps / 4) + random.normal(size=len(steps))
        if place % 3 == 1:
            values[::5] = np.nan
        series.append(Series(f"s{place}", values, start=10_000))
    beyond = int(count == 1 and not opened.any_frequency)
    found = opened.forecast(series, opened.horizon + beyond, (0.1, 0.5, 0.9), samples=2 * beyond)
    expected = (count, opened.horizon + beyond, 3)
    if found.quantiles.shape != expected:
        raise ValueError(f"expected quantiles of shape {expected}, got {found.quantiles.shape}")
    if not np.isfinite(found.quantiles[[not np.isnan(one.target).all() for one in series]]).all():
        raise ValueError("expected finite quantiles")


def _named(error: BaseException) -> str:
    """A fault of somebody's JSON in a few words."""
    text = "too large" if isinstance(error, MemoryError) else str(error)
    return (f"{text} is missing" if isinstance(error, KeyError) else text)[:300]


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]
