"""The model store on a real folder: whole or absent, checked before use, swept without touching what is alive."""

import os
import time
from pathlib import Path

import pytest

from app import store
from app.errors import NotFound, Unavailable
from models import TrainResult


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return tmp_path / "models"


def filled(shelf: Path, name: str, result: TrainResult) -> Path:
    reserved = store.reserve(shelf, name)
    for file in store.FILES:
        (reserved / file).write_bytes((result.artifact / file).read_bytes())
    return reserved


def test_a_reserved_folder_is_not_a_version_until_it_is_published(shelf: Path, tiny_version: TrainResult) -> None:
    reserved = filled(shelf, "job_a-1", tiny_version)
    assert not (shelf / "job_a-1").exists()
    published = store.publish(shelf, reserved, "job_a-1")
    assert published == store.local(shelf, "job_a-1")
    assert sorted(file.name for file in published.iterdir()) == sorted(store.FILES)
    assert not reserved.exists()
    store.verify(published, store.digest(published))
    assert store.size(published) == sum((tiny_version.artifact / file).stat().st_size for file in store.FILES)


def test_reserving_again_starts_empty(shelf: Path) -> None:
    (store.reserve(shelf, "job_a-1") / "half").write_bytes(b"left by a crash")
    assert list(store.reserve(shelf, "job_a-1").iterdir()) == []


def test_a_folder_without_all_files_is_not_published(shelf: Path, tiny_version: TrainResult) -> None:
    reserved = filled(shelf, "job_a-1", tiny_version)
    (reserved / store.GRAPH).unlink()
    with pytest.raises(ValueError, match=r"missing forward\.onnx"):
        store.publish(shelf, reserved, "job_a-1")
    assert not (shelf / "job_a-1").exists()


def test_a_name_is_published_once(shelf: Path, tiny_version: TrainResult) -> None:
    store.publish(shelf, filled(shelf, "job_a-1", tiny_version), "job_a-1")
    with pytest.raises(FileExistsError):
        store.publish(shelf, filled(shelf, "job_a-1", tiny_version), "job_a-1")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a\x00b", "x" * 300])
def test_a_name_cannot_leave_the_store(shelf: Path, name: str) -> None:
    for act in (store.reserve, store.local, store.remove):
        with pytest.raises(ValueError, match="version folder"):
            act(shelf, name)


@pytest.mark.parametrize("file", store.FILES)
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_damage_to_any_file_is_seen_before_use(shelf: Path, tiny_version: TrainResult, file: str, how: str) -> None:
    published = store.publish(shelf, filled(shelf, "job_a-1", tiny_version), "job_a-1")
    digest = store.digest(published)
    content = bytearray((published / file).read_bytes())
    if how == "gone":
        (published / file).unlink()
    elif how == "cut":
        (published / file).write_bytes(content[:-1])
    else:
        content[len(content) // 2] ^= 1
        (published / file).write_bytes(content)
    for use in (lambda: store.verify(published, digest), lambda: store.open_file(shelf, "job_a-1", file, digest)):
        with pytest.raises(Unavailable, match=file.replace(".", r"\.")) as caught:
            use()
        assert caught.value.code == "artifact-damaged"
        assert str(shelf) not in caught.value.detail


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b'{"files": {}}', b'{"files": {"forward.onnx": 1}}'])
def test_a_manifest_without_digests_vouches_for_nothing(
    shelf: Path, tiny_version: TrainResult, manifest: bytes
) -> None:
    reserved = filled(shelf, "job_a-1", tiny_version)
    (reserved / store.MANIFEST).write_bytes(manifest)
    published = store.publish(shelf, reserved, "job_a-1")
    with pytest.raises(Unavailable, match="manifest"):
        store.verify(published, store.digest(published))


@pytest.mark.parametrize("file", store.FILES)
def test_a_file_is_opened_with_its_digest(shelf: Path, tiny_version: TrainResult, file: str) -> None:
    published = store.publish(shelf, filled(shelf, "job_a-1", tiny_version), "job_a-1")
    opened, digest = store.open_file(shelf, "job_a-1", file, store.digest(published))
    with opened:
        assert opened.read() == (tiny_version.artifact / file).read_bytes()
    assert digest.startswith("sha256:")
    assert len(digest) == 71


@pytest.mark.parametrize("file", ["../job_a-1/manifest.json", "secret", "", "/etc/passwd"])
def test_only_the_three_files_are_opened(shelf: Path, tiny_version: TrainResult, file: str) -> None:
    published = store.publish(shelf, filled(shelf, "job_a-1", tiny_version), "job_a-1")
    with pytest.raises(NotFound, match="expected one of"):
        store.open_file(shelf, "job_a-1", file, store.digest(published))


def test_removing_is_done_once_and_asked_any_number_of_times(shelf: Path, tiny_version: TrainResult) -> None:
    store.publish(shelf, filled(shelf, "job_a-1", tiny_version), "job_a-1")
    store.remove(shelf, "job_a-1")
    store.remove(shelf, "job_a-1")
    assert list(shelf.iterdir()) == []


def test_a_sweep_takes_what_is_rubbish_and_old(shelf: Path, tiny_version: TrainResult) -> None:
    for name in ("kept-1", "orphan-1"):
        store.publish(shelf, filled(shelf, name, tiny_version), name)
    for name in ("alive-1", "dead-1"):
        filled(shelf, name, tiny_version)
    (shelf / ".removed-gone-1").mkdir()
    (shelf / "a-file").write_text("not a folder")
    assert store.names(shelf) == ["alive-1", "dead-1", "kept-1", "orphan-1"]
    now = time.time()
    rubbish = {"orphan-1", "dead-1", "a-file", "never"}
    assert store.sweep(shelf, rubbish, now) == []
    assert store.sweep(shelf, rubbish, now + 2 * store.GRACE_S) == [".removed-gone-1", ".reserved-dead-1", "orphan-1"]
    assert sorted(folder.name for folder in shelf.iterdir()) == [".reserved-alive-1", "a-file", "kept-1"]


def test_a_sweep_leaves_a_folder_that_is_being_written(shelf: Path, tiny_version: TrainResult) -> None:
    """An old folder whose files are fresh: somebody is at work in it."""
    reserved = filled(shelf, "busy-1", tiny_version)
    os.utime(reserved, (0, 0))
    assert store.sweep(shelf, {"busy-1"}, time.time()) == []
    assert store.sweep(shelf, {"busy-1"}, time.time() + 2 * store.GRACE_S) == [".reserved-busy-1"]


def test_a_store_that_does_not_exist_yet_has_nothing_to_sweep(shelf: Path) -> None:
    assert store.names(shelf) == []
    assert store.sweep(shelf, {"x"}, time.time()) == []
