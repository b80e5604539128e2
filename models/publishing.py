"""Writes the base's artifact, and reads it for those who learn on. The graph is compared with torch for every kind of
season before the folder counts."""

# torch's own annotations are incomplete:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
import torch
from safetensors.torch import load, save
from torch import Tensor

from models.artifact import BATCHES, LIBRARIES, library, write_file, write_manifest
from models.config import TrainConfig
from models.inference import BASE, FORMAT, GRAPH, MANIFEST, WEIGHTS, read_checked, read_manifest
from models.tables import TABLES, reach, tables_for
from models.universal import Answering, Universal

KINDS = ((1, 1), (4, 4), (7, 364), (12, 12), (24, 168), (48, 336), (52, 52), (60, 1440), (96, 672))
HORIZONS = (1, 13, 48)
TOLERANCE = 1e-5  # largest difference between graph and torch, as a share of the window's deviation


def write_base(folder: Path, answering: Answering, facts: Mapping[str, Any]) -> None:
    """Write `weights.safetensors`, `forward.onnx` and `manifest.json`. `facts` are the manifest's own entries. Raises
    ValueError when the graph does not agree with torch."""
    folder.mkdir(parents=True, exist_ok=True)
    answering = answering.to("cpu").eval()
    graph = export(answering)
    worst = max(difference(answering, graph, kind) for kind in KINDS)
    if not worst <= TOLERANCE:
        raise ValueError(f"{GRAPH}: expected to agree with torch within {TOLERANCE:g}, got {worst:.3g}")
    weights = save({name: value.contiguous() for name, value in answering.state_dict().items()})
    files: dict[str, Any] = {}
    for name, content in ((WEIGHTS, weights), (GRAPH, graph)):
        write_file(folder / name, content)
        files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    network = answering.network
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "kind": BASE,
        "config": TrainConfig(cell="gru", hidden=network.hidden, quantiles=network.levels).document(),
        "network": {"parameters": sum(part.numel() for part in network.parameters()), "agreement": worst},
        "calendar": None,
        "files": files,
        "libraries": {name: library(name) for name in LIBRARIES},
        **facts,
    }
    write_manifest(folder, manifest)


def load_base(folder: Path) -> Answering:
    """The torch module of the base's artifact, on the CPU. Raises ValueError when the folder is no whole base."""
    manifest = read_manifest(folder)
    if manifest.get("kind") != BASE:
        raise ValueError(f"{folder / MANIFEST}: expected kind {BASE!r}, got {manifest.get('kind')!r}")
    config = TrainConfig.parse(manifest["config"])
    answering = Answering(Universal(config.hidden or 1, config.quantiles))
    try:
        answering.load_state_dict(load(read_checked(folder, WEIGHTS, manifest)))
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS}: expected the weights of the manifest's config, got {error}") from error
    return answering.eval()


def export(answering: Answering) -> bytes:
    """The graph: any number of windows, any seasons, any steps ahead."""
    windows, tables = example((12, 12), 3, 13)
    names = ["context", "mask", *TABLES]
    axes: dict[str, dict[int, str]] = {"quantiles": {0: "batch", 1: "horizon"}}
    for name, part in zip(names, (*windows, *tables), strict=True):
        fixed = {1} if name in ("bins", "about", "ahead", "raw_phase", "recent") else set[int]()
        axes[name] = {axis: f"{name}_{axis}" for axis in range(part.ndim) if axis not in fixed}
    axes |= {"context": {0: "batch", 1: "time"}, "mask": {0: "batch", 1: "time"}}
    with TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # what the exporter warns of is compared
        path = Path(folder) / GRAPH
        torch.onnx.export(
            answering,
            (*windows, *tables),
            str(path),
            input_names=names,
            output_names=["quantiles"],
            dynamic_axes=axes,
            dynamo=False,
        )
        return path.read_bytes()


def example(kind: tuple[int, int], count: int, horizon: int) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
    """Windows of random walks with a season, some steps missing, some without a front, and the tables for them."""
    random = np.random.default_rng([*kind, count, horizon])
    length = reach(*kind)
    values = random.standard_normal((count, length)).cumsum(1) + 5.0 * np.sin(np.arange(length) * 2 * np.pi / kind[0])
    values[: count // 2 + 1] += 1.0 - values[: count // 2 + 1].min(1, keepdims=True)  # above 0
    known = random.random((count, length)) > 0.1 * (np.arange(count) % 2)[:, None]
    known[count // 3 :: 5, : length // 2] = False
    context = torch.from_numpy(np.where(known, values, 0.0))
    tables = tables_for(*kind, np.arange(1, horizon + 1))
    return (context, torch.from_numpy(known).float()), [torch.from_numpy(table) for table in tables.values()]


def difference(answering: Answering, graph: bytes, kind: tuple[int, int]) -> float:
    """The largest difference between the graph and torch, as a share of the window's deviation."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for count, horizon in zip(BATCHES, HORIZONS, strict=True):
        windows, tables = example(kind, count, horizon)
        with torch.no_grad():
            expected = answering(*windows, *tables)
        parts = zip(["context", "mask", *TABLES], (*windows, *tables), strict=True)
        found = torch.from_numpy(session.run(None, {name: part.numpy() for name, part in parts})[0])
        size = windows[0].std(1)[:, None, None]
        worst = max(worst, float(((found - expected).abs() / size).max())) if found.isfinite().all() else float("inf")
    return worst
