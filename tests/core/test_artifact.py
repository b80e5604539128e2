"""The version's folder: what is in it, that graph and torch agree, that damage is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from models import OpenArtifact, Series, TrainConfig, TrainResult, open_artifact
from models.artifact import compare, export, load_forecaster, write_manifest
from models.bases import Base
from models.forecaster import Forecaster, Inputs, Member
from models.windows import latest

FULL = TrainConfig(
    cell="gru", layers=1, hidden=8, horizon=7, context=24, segment=6, season=12, scaling="std", base="mix",
    steps=1, batch=1, learning_rate=1e-3, patience=1, aligned=0.0, head="quantile", members=1,
)  # fmt: skip

MIX = (Base("newest", 12), Base("mean", 12), Base("newest", 1))


def inputs(windows: torch.Tensor) -> Inputs:
    """Windows (window, context), NaN = missing, as inputs."""
    return Inputs(windows.nan_to_num(0.0), (~windows.isnan()).float())


@pytest.fixture
def copy(result: TrainResult, tmp_path: Path) -> Path:
    """A copy of the trained artifact that may be damaged."""
    return Path(shutil.copytree(result.artifact, tmp_path / "copy"))


def test_the_folder_holds_three_files_and_the_manifest_says_what_they_are(result: TrainResult) -> None:
    assert sorted(path.name for path in result.artifact.iterdir()) == [
        "forward.onnx",
        "manifest.json",
        "weights.safetensors",
    ]
    manifest = json.loads((result.artifact / "manifest.json").read_text())
    assert manifest["format"] == 2
    assert manifest["calendar"] == {"frequency": "MS", "time_zone": "UTC"}
    assert manifest["lineage"] == {"dataset": "waves"}
    assert manifest["metrics"] == result.metrics
    assert manifest["baselines"] == result.baselines
    assert manifest["origins"] == result.origins
    assert TrainConfig.parse(manifest["config"]) == result.config
    assert manifest["files"]["forward.onnx"]["bytes"] == (result.artifact / "forward.onnx").stat().st_size
    with safe_open(result.artifact / "weights.safetensors", framework="np") as weights:
        learned = set(weights.keys()) - {"shares", "skew", "stretch"}  # those are settled on held-out steps
        assert sum(weights.get_tensor(name).size for name in learned) == result.parameters


def test_graph_and_torch_give_one_answer(result: TrainResult, opened: OpenArtifact, history: list[Series]) -> None:
    values, present = latest(history, opened.context)
    with torch.no_grad():
        expected = load_forecaster(result.artifact)(torch.from_numpy(values), torch.from_numpy(present).float())
    np.testing.assert_allclose(opened.quantiles(values, present, opened.horizon), expected, rtol=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize(("layers", "segment", "base"), [(1, 6, "mix"), (2, 1, "none")])
def test_every_kind_of_network_is_exported(cell: str, layers: int, segment: int, base: str) -> None:
    torch.manual_seed(0)
    config = FULL.replace(cell=cell, layers=layers, segment=segment, base=base, minimum=-1.0)
    forecaster = Forecaster(config, [Member(config, () if base == "none" else MIX)]).eval()
    windows = torch.randn(40, 24, dtype=torch.float64)
    windows[torch.rand(40, 24) < 0.3] = torch.nan
    windows[0], windows[1] = torch.nan, 5.0
    assert compare(forecaster, export(forecaster, inputs(windows)), inputs(windows)) < 1e-5


def test_a_graph_of_other_weights_does_not_pass(result: TrainResult) -> None:
    forecaster = load_forecaster(result.artifact)
    windows = inputs(torch.randn(5, forecaster.config.context or 1, dtype=torch.float64))
    graph = (result.artifact / "forward.onnx").read_bytes()
    assert compare(forecaster, graph, windows) < 1e-5
    forecaster.members[0].network.head.bias.data.add_(0.01)
    assert compare(forecaster, graph, windows) > 1e-3
    assert compare(forecaster, b"no graph", windows) == float("inf")


@pytest.mark.slow
def test_the_slow_exporter_gives_the_same_graph() -> None:
    from models.artifact import _export

    forecaster = Forecaster(FULL, [Member(FULL, MIX)]).eval()
    windows = inputs(torch.randn(40, 24, dtype=torch.float64))
    assert compare(forecaster, _export(forecaster, windows, slow=True), windows) < 1e-5


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _changed(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(bytes(content))

    return change


def _format(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_without("manifest.json"), "manifest.json: expected a manifest"),
        (_without("forward.onnx"), "forward.onnx: expected a file of the artifact"),
        (_changed("forward.onnx"), "forward.onnx: expected content with SHA-256"),
        (_format, "expected format 2, got 99"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "expected format 2, got None"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "expected a manifest"),
    ],
)
def test_a_damaged_folder_is_refused(copy: Path, damage: Callable[[Path], None], complaint: str) -> None:
    damage(copy)
    with pytest.raises(ValueError, match=complaint):
        open_artifact(copy)


def test_changed_weights_are_refused(copy: Path) -> None:
    _changed("weights.safetensors")(copy)
    with pytest.raises(ValueError, match=r"weights.safetensors: expected content with SHA-256"):
        load_forecaster(copy)


def test_a_manifest_is_plain_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_manifest(tmp_path, {"mase": float("nan")})
