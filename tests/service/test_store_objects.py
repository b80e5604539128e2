"""The model store in a bucket of a real S3-compatible server: whole or absent, checked before use, copies that are
bounded and shared, swept without touching what is alive, and clear words when it is away."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app import store
from app.config import Bucket, Settings
from app.errors import NotFound, StoreAway, Unavailable
from models import TrainResult

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024
Shelf = Callable[..., Bucket]


@pytest.fixture
def shelf(object_store: Any, tmp_path: Path) -> Shelf:
    """The bucket as a machine of this name sees it, with copies of its own."""

    def make(machine: str = "one", limit: int = 100 * MIB) -> Bucket:
        settings = Settings(data=tmp_path / machine, store_url=object_store.url, cache_bytes=limit)
        assert isinstance(settings.store, Bucket)
        return settings.store

    return make


def filled(place: store.Place, name: str, result: TrainResult) -> Path:
    reserved = store.reserve(place, name)
    for file in store.FILES:
        shutil.copyfile(result.artifact / file, reserved / file)
    return reserved


def publish(place: store.Place, name: str, result: TrainResult) -> str:
    """Publish; gives the digest."""
    return store.digest(store.publish(place, filled(place, name, result), name))


def copies(place: Bucket) -> list[str]:
    return sorted(path.name for path in place.cache.iterdir() if path.is_dir())


# ---------------------------------------------------------------- whole or absent


def test_what_one_machine_publishes_another_opens(shelf: Shelf, object_store: Any, tiny_version: TrainResult) -> None:
    digest = publish(shelf("one"), "job_a-1", tiny_version)
    assert object_store.listed() == sorted(f"job_a-1/{file}" for file in store.FILES)
    path = store.verified(shelf("two"), "job_a-1", digest)
    assert path.is_relative_to(shelf("two").cache)
    for file in store.FILES:
        assert (path / file).read_bytes() == (tiny_version.artifact / file).read_bytes()
        opened, _ = store.open_file(shelf("two"), "job_a-1", file, digest)
        with opened:
            assert opened.read() == (tiny_version.artifact / file).read_bytes()
    assert store.read_manifest(shelf("two"), "job_a-1", digest)["files"].keys() >= {store.WEIGHTS, store.GRAPH}
    with pytest.raises(NotFound, match="expected one of"):
        store.open_file(shelf("two"), "job_a-1", "secret", digest)


def test_a_name_is_published_once(shelf: Shelf, object_store: Any, tiny_version: TrainResult) -> None:
    digest = publish(shelf("one"), "job_a-1", tiny_version)
    other = filled(shelf("two"), "job_a-1", tiny_version)
    (other / store.WEIGHTS).write_bytes(b"other")
    with pytest.raises(FileExistsError):
        store.publish(shelf("two"), other, "job_a-1")
    store.verified(shelf("three"), "job_a-1", digest)
    assert object_store.read(f"job_a-1/{store.WEIGHTS}") != b"other"


def test_a_folder_without_all_files_is_not_published(
    shelf: Shelf, object_store: Any, tiny_version: TrainResult
) -> None:
    reserved = filled(shelf(), "job_a-1", tiny_version)
    (reserved / store.GRAPH).unlink()
    with pytest.raises(ValueError, match=r"missing forward\.onnx"):
        store.publish(shelf(), reserved, "job_a-1")
    assert object_store.listed() == []


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "x" * 300])
def test_a_name_cannot_leave_the_prefix(shelf: Shelf, object_store: Any, name: str) -> None:
    object_store.write("../elsewhere/manifest.json", b"{}")
    acts: list[Callable[[Bucket, str], Any]] = [store.reserve, store.local, store.remove]
    acts.append(lambda place, name: store.sweep(place, [name], time.time() + 1e6))
    for act in acts:
        with pytest.raises(ValueError, match="version folder"):
            act(shelf(), name)


PUBLISH = """
import sys
from pathlib import Path
from app import store
from app.config import Settings
place = Settings().store
store.publish(place, Path(sys.argv[1]), "job_a-1")
"""


def test_killed_before_the_manifest_it_is_no_version(
    shelf: Shelf, object_store: Any, line_cut_at: Any, tiny_version: TrainResult, tmp_path: Path
) -> None:
    """kill -9 of a process that has sent all but the manifest."""
    line = line_cut_at(f"job_a-1/{store.MANIFEST}")
    reserved = filled(shelf("one"), "job_a-1", tiny_version)
    environment = os.environ | object_store.environment(line.endpoint)
    environment |= {"GATECAST_DATA": str(tmp_path / "one"), "GATECAST_STORE_URL": object_store.url}
    process = subprocess.Popen([sys.executable, "-c", PUBLISH, str(reserved)], cwd=ROOT, env=environment)
    try:
        assert line.cut.wait(60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert object_store.listed() == sorted([f"job_a-1/{store.WEIGHTS}", f"job_a-1/{store.GRAPH}"])
    two = shelf("two")
    with pytest.raises(Unavailable, match=r"manifest\.json is not in the object store") as caught:
        store.verified(two, "job_a-1", store.digest(tiny_version.artifact))
    assert caught.value.code == "artifact-damaged"
    assert copies(two) == []
    assert store.names(two) == ["job_a-1"]
    now = time.time()
    assert store.sweep(two, {"job_a-1"}, now) == []  # somebody may be at work on it
    assert store.sweep(two, {"other-1"}, now + 2 * store.GRACE_S) == []
    assert store.sweep(two, {"job_a-1"}, now + 2 * store.GRACE_S) == ["job_a-1"]
    assert object_store.listed() == []


def test_what_a_kill_left_does_not_stand_in_the_way(shelf: Shelf, object_store: Any, tiny_version: TrainResult) -> None:
    object_store.write(f"job_a-1/{store.WEIGHTS}", b"half")
    digest = publish(shelf("one"), "job_a-1", tiny_version)
    store.verified(shelf("two"), "job_a-1", digest)


def test_removing_is_done_once_and_asked_any_number_of_times(
    shelf: Shelf, object_store: Any, tiny_version: TrainResult
) -> None:
    digest = publish(shelf(), "job_a-1", tiny_version)
    publish(shelf(), "job_a-10", tiny_version)
    store.remove(shelf(), "job_a-1")
    store.remove(shelf(), "job_a-1")
    assert store.names(shelf()) == copies(shelf()) == ["job_a-10"]
    assert {key.partition("/")[0] for key in object_store.listed()} == {"job_a-10"}
    with pytest.raises(Unavailable, match="not in the object store"):
        store.verified(shelf(), "job_a-1", digest)


def test_a_sweep_takes_what_is_rubbish_and_old(shelf: Shelf, object_store: Any, tiny_version: TrainResult) -> None:
    for name in ("kept-1", "orphan-1"):
        publish(shelf(), name, tiny_version)
    object_store.write("dead-1/weights.safetensors", b"half")
    object_store.write("a-file", b"not a version")
    store.greet(shelf())
    assert store.names(shelf()) == ["dead-1", "kept-1", "orphan-1"]
    rubbish, later = {"orphan-1", "dead-1", "never"}, time.time() + 2 * store.GRACE_S
    assert store.sweep(shelf(), rubbish, time.time()) == []
    assert store.sweep(shelf(), rubbish, later) == ["dead-1", "orphan-1"]
    assert store.names(shelf()) == ["kept-1"]
    assert store.missing(shelf()) is None


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("file", store.FILES)
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_object_is_seen_before_use(
    shelf: Shelf, object_store: Any, tiny_version: TrainResult, file: str, how: str
) -> None:
    digest = publish(shelf("one"), "job_a-1", tiny_version)
    content = bytearray((tiny_version.artifact / file).read_bytes())
    if how == "gone":
        object_store.delete(f"job_a-1/{file}")
    elif how == "cut":
        object_store.write(f"job_a-1/{file}", bytes(content[:-1]))
    else:
        content[len(content) // 2] ^= 1
        object_store.write(f"job_a-1/{file}", bytes(content))
    for use in (
        lambda: store.verified(shelf("two"), "job_a-1", digest),
        lambda: store.open_file(shelf("two"), "job_a-1", file, digest),
    ):
        with pytest.raises(Unavailable, match=file.replace(".", r"\.")) as caught:
            use()
        assert caught.value.code == "artifact-damaged"
        assert object_store.bucket not in caught.value.detail
    store.verified(shelf("one"), "job_a-1", digest)  # whose copy is as published


def test_a_copy_that_rots_is_fetched_anew(shelf: Shelf, tiny_version: TrainResult) -> None:
    digest = publish(shelf(), "job_a-1", tiny_version)
    (store.local(shelf(), "job_a-1") / store.GRAPH).write_bytes(b"rot")
    (store.verified(shelf(), "job_a-1", digest) / store.MANIFEST).write_bytes(b"rot")
    assert store.read_manifest(shelf(), "job_a-1", digest)
    (store.local(shelf(), "job_a-1") / store.WEIGHTS).unlink()
    opened, _ = store.open_file(shelf(), "job_a-1", store.WEIGHTS, digest)
    opened.close()
    assert copies(shelf()) == ["job_a-1"]


# ---------------------------------------------------------------- copies


def test_copies_used_longest_ago_go_and_those_in_use_stay(shelf: Shelf, tiny_version: TrainResult) -> None:
    """Twelve versions where there is room for three: the process that reads keeps the eight it was given last; once
    another process publishes and has let go of them, three are left."""
    digests = {f"job-{n:02}": publish(shelf("one"), f"job-{n:02}", tiny_version) for n in range(12)}
    room = 3 * store.size(tiny_version.artifact) + 100
    two = shelf("two", max(room, MIB))
    limit = int(two.limit // store.size(tiny_version.artifact))
    for name, digest in digests.items():
        store.verified(two, name, digest)
        assert (two.cache / name).is_dir()
    assert copies(two)[-8:] == sorted(digests)[-8:]
    assert len(copies(two)) <= max(limit, 8) + 1


TRIM = """
from app.config import Settings
from app.store.cache import Cache
place = Settings().store
Cache(place.cache, int({limit})).trim()
"""


def trimmed_elsewhere(place: Bucket, limit: int) -> list[str]:
    """What another process leaves of the copies when there is room for `limit` bytes."""
    environment = os.environ | {"GATECAST_DATA": str(place.cache.parent), "GATECAST_STORE_URL": place.url}
    subprocess.run([sys.executable, "-c", TRIM.format(limit=limit)], cwd=ROOT, env=environment, check=True)
    return copies(place)


def test_another_process_deletes_the_oldest_but_nothing_that_is_read(shelf: Shelf, tiny_version: TrainResult) -> None:
    names = [f"job-{n:02}" for n in range(11)]
    digests = [publish(shelf("one"), name, tiny_version) for name in names]
    store.verified(shelf("one"), names[0], digests[0])  # the last one used now
    each = store.size(tiny_version.artifact)
    assert trimmed_elsewhere(shelf("one"), 10 * each) == [name for name in names if name != names[1]]
    assert trimmed_elsewhere(shelf("one"), 0) == sorted([names[0], *names[4:]])  # the eight given last are held


def test_what_a_kill_left_among_the_copies_goes_in_time(shelf: Shelf) -> None:
    place = shelf()
    for name, age in ((".reserved-a-1.x", 2.0), (".reserved-b-1.x", 0.0), (".removed-c-1.x", 2.0)):
        (place.cache / name).mkdir(parents=True)
        os.utime(place.cache / name, (time.time() - age * store.GRACE_S,) * 2)
    assert trimmed_elsewhere(place, 0) == [".reserved-b-1.x"]


def test_many_that_fetch_and_trim_at_once_all_read_whole_versions(shelf: Shelf, tiny_version: TrainResult) -> None:
    digests = {f"job-{n}": publish(shelf("one"), f"job-{n}", tiny_version) for n in range(4)}
    place = shelf("two")

    def read(start: int) -> None:
        for n in range(start, start + 8):
            name = f"job-{n % 4}"
            path = store.verified(place, name, digests[name])
            assert (path / store.GRAPH).read_bytes() == (tiny_version.artifact / store.GRAPH).read_bytes()

    with ThreadPoolExecutor(4) as threads:
        reading = [threads.submit(read, n) for n in range(4)]
        while not all(one.done() for one in reading):
            trimmed_elsewhere(place, 0)
    for one in reading:
        one.result()
    assert all(not name.startswith(".re") for name in copies(place))


# ---------------------------------------------------------------- away


def test_a_store_that_is_away_is_said_so_without_a_secret(
    object_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    place = Settings(data=tmp_path / "away", store_url=object_store.url).store
    for use in (store.greet, store.names, lambda place: store.verified(place, "a-1", "sha256:0")):
        with pytest.raises(StoreAway, match=r"cannot be used \(no connection\)") as caught:
            use(place)
        assert (caught.value.code, caught.value.status) == ("store-away", 503)
        assert "127.0.0.1" not in str(caught.value.document())
    assert "no connection" in str(store.missing(place))


def test_a_copy_answers_while_the_store_is_away(
    shelf: Shelf, tiny_version: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = publish(shelf("one"), "job_a-1", tiny_version)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = shelf("one", 50 * MIB)  # another bucket to the client, so that it looks at the environment again
    assert store.missing(away)
    store.verified(away, "job_a-1", digest)


def test_a_publish_waits_for_a_store_that_is_away(
    shelf: Shelf, line_cut_at: Any, tiny_version: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    cut_off = shelf("one", 50 * MIB)  # another bucket to the client, so that it looks at the environment again
    assert store.missing(cut_off)
    with ThreadPoolExecutor(1) as threads:
        publishing = threads.submit(publish, cut_off, "job_a-1", tiny_version)
        with pytest.raises(TimeoutError):
            publishing.result(1.0)
        line_cut_at("never", port)
        digest = publishing.result(60)
    store.verified(shelf("two"), "job_a-1", digest)


def test_a_bucket_that_does_not_exist_is_named_so(object_store: Any, tmp_path: Path) -> None:
    place = Settings(data=tmp_path / "away", store_url="s3://no-such-bucket-here/x").store
    for use in (store.greet, store.names, lambda place: store.verified(place, "a-1", "sha256:0")):
        with pytest.raises(StoreAway, match="NoSuchBucket"):
            use(place)


def test_a_bucket_without_the_marker_is_not_ready(shelf: Shelf) -> None:
    assert "marker" in str(store.missing(shelf()))
    store.greet(shelf())
    assert store.missing(shelf()) is None


@pytest.mark.parametrize(
    "url", ["bucket", "http://x/y", "s3://", "s3://KEY:secret@bucket/x", "s3://b ucket", "s3://buck/../x"]
)
def test_what_is_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected s3://bucket"):
        Settings(store_url=url)


def test_a_name_that_is_empty_means_the_folder(tmp_path: Path) -> None:
    assert Settings(data=tmp_path, store_url="").store == tmp_path / "models"


def test_the_slash_at_the_end_makes_no_difference(tmp_path: Path) -> None:
    one, two = (Settings(data=tmp_path, store_url=f"s3://bucket/x{end}").store for end in ("", "/"))
    assert one == two
