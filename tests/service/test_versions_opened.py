"""Versions kept open: read once, checked once, shared by threads, let go of when there are too many."""

import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import run

import pytest

from app import store
from app.config import Settings
from app.errors import Unavailable
from app.services.opened import OpenVersions
from models import TrainResult
from models.inference import FORMAT

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shelf(tmp_path: Path, tiny_version: TrainResult) -> tuple[Path, str]:
    """A store with three versions, and their digest."""
    for name in ("one", "two", "three"):
        reserved = store.reserve(tmp_path, name)
        for file in store.FILES:
            shutil.copyfile(tiny_version.artifact / file, reserved / file)
        store.publish(tmp_path, reserved, name)
    return tmp_path, store.digest(tmp_path / "one")


def test_a_version_is_opened_once(shelf: tuple[Path, str]) -> None:
    folder, digest = shelf
    versions = OpenVersions(folder, 2)
    start, found = threading.Barrier(8), []

    def get() -> None:
        start.wait()
        found.append(versions.get("one", digest))

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in found}) == 1


def test_the_one_not_asked_for_longest_is_let_go(shelf: tuple[Path, str]) -> None:
    folder, digest = shelf
    versions = OpenVersions(folder, 2)
    one, two = versions.get("one", digest), versions.get("two", digest)
    assert versions.get("one", digest) is one
    versions.get("three", digest)
    assert len(versions) == 2
    assert versions.get("one", digest) is one
    assert versions.get("two", digest) is not two


def test_a_dropped_version_is_read_again(shelf: tuple[Path, str]) -> None:
    folder, digest = shelf
    versions = OpenVersions(folder, 2)
    one = versions.get("one", digest)
    versions.drop("one")
    versions.drop("never")
    assert len(versions) == 0
    assert versions.get("one", digest) is not one


def test_another_digest_is_another_version(shelf: tuple[Path, str]) -> None:
    folder, digest = shelf
    versions = OpenVersions(folder, 2)
    versions.get("one", digest)
    with pytest.raises(Unavailable, match="other bytes"):
        versions.get("one", "sha256:" + "0" * 64)
    assert len(versions) == 1


def test_what_this_release_cannot_read_is_said(shelf: tuple[Path, str]) -> None:
    """Whole and undamaged, but of a format that is not ours."""
    folder, _ = shelf
    manifest = folder / "one" / store.MANIFEST
    manifest.write_text(manifest.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(Unavailable, match="format") as caught:
        OpenVersions(folder, 2).get("one", store.digest(folder / "one"))
    assert str(folder) not in caught.value.detail


CODE = """
import sys
from app.config import Settings
from app.main import create_app
from fastapi.testclient import TestClient

with TestClient(create_app(Settings())) as client:
    body = {"model": "fuel", "dataset": "gasoline", "horizon": 9, "samples": 2}
    kinds = ["application/json", "text/csv", "application/x-ndjson"]
    kinds += ["application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"]
    for accept in kinds:
        answer = client.post("/v1/forecasts", json=body, headers={"Accept": accept})
        assert answer.status_code == 200, answer.text
    points = [{"key": "a", "timestamp": "2026-02-04", "value": 1.0}]
    answer = client.post("/v1/models/fuel/next", json={"dataset": "gasoline", "points": points})
    assert answer.status_code == 200, answer.text
print(sorted({"torch", "pandas", "scipy", "onnx", "safetensors"} & set(sys.modules)))
"""


def test_a_process_that_forecasts_holds_neither_torch_nor_pandas(
    settings: Settings, publish: Callable[..., int], stored: Callable[..., int]
) -> None:
    publish("fuel")
    stored("gasoline", {"a": [float(step % 7) for step in range(30)]})
    environment = {"GATECAST_DATA": str(settings.data), "PATH": "/usr/bin:/bin"}
    if settings.database_url:
        environment["GATECAST_DATABASE_URL"] = settings.database_url.get_secret_value()
    done = run(
        [sys.executable, "-W", "ignore", "-c", CODE],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == "[]"
