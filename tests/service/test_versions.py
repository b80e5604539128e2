"""Models, versions and their files over HTTP."""

import base64
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app import store
from app.config import Settings
from app.db.session import Database
from app.db.tables import JobRow
from app.main import sweep_store
from models import TrainResult

FILES = ("weights.safetensors", "forward.onnx", "manifest.json")


def test_an_empty_server_has_no_models(client: TestClient) -> None:
    assert client.get("/v1/models").json() == {"models": [], "next_page_token": None}
    for path in ("", "/versions", "/versions/1", "/versions/1/files/manifest.json", "/aliases/champion"):
        answer = client.get(f"/v1/models/fuel{path}")
        assert answer.status_code == 404
        assert answer.json()["status"] == 404


def test_models_come_in_pages_by_name(client: TestClient, publish: Callable[..., int]) -> None:
    for model in ("b", "a", "C", "d-1"):
        publish(model)
    first = client.get("/v1/models", params={"page_size": 3}).json()
    rest = client.get("/v1/models", params={"page_size": 3, "page_token": first["next_page_token"]}).json()
    names = [model["name"] for model in first["models"] + rest["models"]]
    assert sorted(names) == sorted(["b", "a", "C", "d-1"])
    assert len(first["models"]) == 3
    assert rest["next_page_token"] is None
    assert client.get("/v1/models/a").json()["aliases"] == {"champion": 1}


@pytest.mark.parametrize("token", ["x", "W10", "WyJhIl0", "WzEsMl0", "WzFlOTld"])
def test_a_token_of_another_route_is_refused(client: TestClient, publish: Callable[..., int], token: str) -> None:
    publish()
    answer = client.get("/v1/models/fuel/versions", params={"page_token": token})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "query/page_token"


def test_a_token_cannot_carry_what_the_database_does_not_take(client: TestClient) -> None:
    token = base64.urlsafe_b64encode(b'["\\u0000"]').decode().rstrip("=")
    assert client.get("/v1/models", params={"page_token": token}).status_code == 422


def test_versions_are_newest_first(client: TestClient, publish: Callable[..., int]) -> None:
    for _ in range(5):
        publish()
    first = client.get("/v1/models/fuel/versions", params={"page_size": 2})
    assert [version["version"] for version in first.json()["versions"]] == [5, 4]
    assert first.headers["link"].endswith('rel="next"')
    second = client.get("/v1/models/fuel/versions", params={"page_token": first.json()["next_page_token"]})
    assert [version["version"] for version in second.json()["versions"]] == [3, 2, 1]
    assert second.json()["versions"][-1]["aliases"] == ["champion"]
    assert client.get("/v1/models/fuel@champion/versions").json()["versions"][0]["version"] == 5


def test_a_version_says_what_made_it(
    client: TestClient, publish: Callable[..., int], tiny_version: TrainResult
) -> None:
    publish(dataset="gasoline", revision=3, data_digest="sha256:11", job_id="job_0")
    client.put("/v1/models/fuel/aliases/challenger", json={"version": 1})
    answer = client.get("/v1/models/fuel/versions/1")
    found = answer.json()
    assert found["aliases"] == ["challenger", "champion"]
    assert found["config"] == tiny_version.config.document()
    assert found["metrics"] == pytest.approx(dict(tiny_version.metrics))
    assert set(found["baselines"]) == {"naive", "seasonal_naive", "naive2"}
    expected = {"model": "fuel", "version": 1, "job": "job_0", "dataset": "gasoline", "revision": 3, "parent": None}
    assert expected.items() <= found.items()
    assert found["digest"].startswith("sha256:")
    tag = answer.headers["etag"]
    assert client.get("/v1/models/fuel/versions/1", headers={"If-None-Match": tag}).status_code == 304
    client.delete("/v1/models/fuel/aliases/challenger")  # the aliases are part of the document
    assert client.get("/v1/models/fuel/versions/1", headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize("number", ["0", "-1", "x", "99999999999"])
def test_what_is_no_number_is_refused(client: TestClient, publish: Callable[..., int], number: str) -> None:
    publish()
    assert client.get(f"/v1/models/fuel/versions/{number}").status_code == 422


@pytest.mark.parametrize("name", FILES)
def test_files_are_handed_out_as_published(
    client: TestClient, publish: Callable[..., int], tiny_version: TrainResult, name: str
) -> None:
    publish()
    path = f"/v1/models/fuel/versions/1/files/{name}"
    content = (tiny_version.artifact / name).read_bytes()
    answer = client.get(path)
    assert answer.content == content
    sha256 = hashlib.sha256(content)
    assert answer.headers["etag"] == f'"{sha256.hexdigest()}"'
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(sha256.digest()).decode()}:"
    assert answer.headers["content-length"] == str(len(content))
    assert "immutable" in answer.headers["cache-control"]
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(content))
    assert head.headers["etag"] == answer.headers["etag"]
    again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["secret", "..%2f..%2fgatecast.db", "manifest.json%00", "weights.pt"])
def test_only_the_three_files_are_handed_out(client: TestClient, publish: Callable[..., int], name: str) -> None:
    publish()
    assert client.get(f"/v1/models/fuel/versions/1/files/{name}").status_code in (404, 422)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_not_handed_out(
    client: TestClient, publish: Callable[..., int], settings: Settings, name: str
) -> None:
    publish()
    spoil(settings, name)
    answer = client.get(f"/v1/models/fuel/versions/1/files/{name}")
    assert answer.status_code == 503
    assert answer.json()["type"] == "/docs/errors#artifact-damaged"


def test_a_deleted_version_is_gone_and_its_number_too(
    client: TestClient, publish: Callable[..., int], settings: Settings
) -> None:
    publish()
    publish(promote="never")
    assert len(folders(settings)) == 2
    assert client.delete("/v1/models/fuel/versions/1").status_code == 409
    assert len(folders(settings)) == 2
    assert client.delete("/v1/models/fuel/versions/2").status_code == 204
    assert len(folders(settings)) == 1
    assert client.delete("/v1/models/fuel/versions/2").status_code == 404
    assert publish(promote="never") == 3
    assert client.get("/v1/models/fuel").json()["versions"] == 2
    assert client.get("/v1/models/fuel").json()["last_version"] == 3


def test_what_dead_attempts_left_is_swept(
    database: Database, publish: Callable[..., int], settings: Settings, client: TestClient
) -> None:
    publish()
    with database.write("default") as session:
        session.add(JobRow(id="job_x", kind="train", state="failed", attempt=2, spec={}))
    for name in ("job_x-1", "job_x-2", "job_unknown-1"):
        store.reserve(settings.store, name)
    sweep_store(settings, database, time.time())
    assert len(folders(settings)) == 4
    sweep_store(settings, database, time.time() + 2 * store.GRACE_S)
    assert sorted(folder.name for folder in folders(settings)) == [".reserved-job_unknown-1", "job_fuel-0"]
    assert client.get("/v1/models/fuel/versions/1/files/manifest.json").status_code == 200


def folders(settings: Settings) -> list[Path]:
    return [folder for folder in settings.store.iterdir() if folder.is_dir()]


def spoil(settings: Settings, name: str) -> None:
    """Flip one bit in the middle of a published file."""
    (folder,) = folders(settings)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
