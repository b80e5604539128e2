"""The model that comes with the program: installed once, whole or not at all, moved on by a release, nobody's to
change."""

import hashlib
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app import store
from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import ModelRow, MoveRow, VersionRow
from app.errors import Conflict, Invalid, NotFound
from app.http import ready
from app.services import registry, shipped
from models import base_folder

URL = "/v1/models/base"
ONE = {"inputs": [{"key": "a", "target": [1.0, 2.0, 3.0, 2.0]}], "frequency": "D", "horizon": 3}


def folders(settings: Settings) -> list[str]:
    return sorted(folder.name for folder in settings.store.iterdir())


def installed(database: Database) -> VersionRow:
    with database.read(EVERY_WORKSPACE) as session:
        return session.scalars(select(VersionRow)).one()


@pytest.fixture
def older(settings: Settings, database: Database, tmp_path: Path) -> str:
    """The state that an earlier release left: a version with another digest. Gives that digest."""
    copy = tmp_path / "older"
    shutil.copytree(base_folder(), copy)
    manifest = json.loads((copy / store.MANIFEST).read_bytes())
    (copy / store.MANIFEST).write_text(json.dumps(manifest | {"card": "An older one."}))
    reserved = store.reserve(settings.store, "base-older")
    for name in store.FILES:
        shutil.copyfile(copy / name, reserved / name)
    path = store.publish(settings.store, reserved, "base-older")
    facts: dict[str, Any] = {"config": manifest["config"], "metrics": {}, "baselines": {}, "parameters": 1}
    facts |= {"size_bytes": 1, "device": "cpu", "train_seconds": 1.0, "frequency": registry.ANY, "time_zone": "UTC"}
    new = registry.NewVersion(model="base", folder="base-older", digest=store.digest(path), actor="gatecast", **facts)
    with database.write(EVERY_WORKSPACE) as session:
        registry.ship(session, new)
    return new.digest


# ---------------------------------------------------------------- installed


def test_it_is_a_model_like_any_other(client: TestClient, base: None) -> None:
    shown = client.get(URL).json()
    assert (shown["name"], shown["versions"], shown["aliases"]) == ("base", 1, {"champion": 1})
    assert [model["name"] for model in client.get("/v1/models").json()["models"]] == ["base"]
    (version,) = client.get(f"{URL}/versions").json()["versions"]
    assert version == client.get(f"{URL}/versions/1").json() == client.get(f"{URL}@champion/versions/1").json()
    nothing = ("job", "dataset", "revision", "data_digest", "parent")
    assert [version[name] for name in nothing] == [None] * 5
    assert (version["frequency"], version["aliases"]) == ("any", ["champion"])
    manifest = (base_folder() / "manifest.json").read_bytes()
    assert version["digest"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    assert version["parameters"] > 0
    assert version["config"]["season"] is None
    assert version["size_bytes"] == sum(file.stat().st_size for file in base_folder().iterdir())
    for name in store.FILES:
        assert client.get(f"{URL}/versions/1/files/{name}").content == (base_folder() / name).read_bytes()
    (move,) = client.get(f"{URL}/aliases/champion/moves").json()["moves"]
    assert (move["from"], move["to"], move["actor"]) == (None, 1, "gatecast")


def test_its_card_is_that_of_its_manifest(client: TestClient, base: None) -> None:
    answer = client.get(f"{URL}/versions/1/card")
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert answer.text == json.loads((base_folder() / "manifest.json").read_bytes())["card"]


def test_a_trained_version_has_a_card_too(client: TestClient, publish: Callable[..., int]) -> None:
    publish("fuel", dataset="gasoline", revision=2)
    card = client.get("/v1/models/fuel/versions/1/card").text
    for piece in ("# fuel, version 1", "revision 2 of dataset gasoline (steps of D, UTC)", "| mase | ", "naive"):
        assert piece in card
    assert client.get("/v1/models/fuel/versions/2/card").status_code == 404


def test_a_second_time_changes_nothing(settings: Settings, database: Database, base: None) -> None:
    before = installed(database)
    inode = (settings.store / before.folder / store.GRAPH).stat().st_ino
    assert shipped.install(settings, database) is None
    assert installed(database).id == before.id
    assert (settings.store / before.folder / store.GRAPH).stat().st_ino == inode
    with database.read(EVERY_WORKSPACE) as session:
        assert len(session.scalars(select(MoveRow)).all()) == 1


@pytest.mark.parametrize("state", ["reserved", "published", "published in part"])
def test_what_a_crash_left_is_used_or_replaced(
    client: TestClient, settings: Settings, database: Database, state: str
) -> None:
    """The process dies before its commit: there are files, and no row."""
    name = f"base-{store.digest(base_folder()).removeprefix('sha256:')[:16]}"
    reserved = store.reserve(settings.store, name)
    for file in store.FILES:
        shutil.copyfile(base_folder() / file, reserved / file)
    if state != "reserved":
        path = store.publish(settings.store, reserved, name)
        if state == "published in part":
            (path / store.GRAPH).write_bytes(b"half")
    assert client.post("/v1/forecasts", json=ONE).status_code == 404
    assert shipped.install(settings, database) is None
    assert folders(settings) == [name]
    assert client.post("/v1/forecasts", json=ONE).status_code == 200


@pytest.mark.parametrize("left", [(), (store.MANIFEST,), store.FILES])
def test_files_that_are_gone_are_put_back(
    client: TestClient, settings: Settings, database: Database, base: None, left: tuple[str, ...]
) -> None:
    """The database was restored without its store, or a disk lost something."""
    folder = settings.store / installed(database).folder
    for name in set(store.FILES) - set(left):
        (folder / name).unlink()
    if left == store.FILES:
        (folder / store.WEIGHTS).write_bytes(b"other")
    assert shipped.install(settings, database) is None
    assert client.post("/v1/forecasts", json=ONE).status_code == 200
    assert client.get(f"{URL}/versions/1/files/{store.WEIGHTS}").status_code == 200


def test_another_release_adds_a_version_and_moves_the_champion(
    client: TestClient, settings: Settings, database: Database, older: str
) -> None:
    assert client.get(f"{URL}/versions/1").json()["digest"] == older
    assert shipped.install(settings, database) is None
    assert client.get(URL).json()["aliases"] == {"champion": 2}
    moves = client.get(f"{URL}/aliases/champion/moves").json()["moves"]
    assert [(move["from"], move["to"], move["actor"]) for move in moves] == [(1, 2, "gatecast"), (None, 1, "gatecast")]
    assert client.get(f"{URL}/versions/1/card").text == "An older one."
    answers = [client.post("/v1/forecasts", json={"model": name, **ONE}).json() for name in ("base/1", "base/2")]
    assert answers[0]["forecasts"] == answers[1]["forecasts"]  # the same weights
    assert [answer["model"]["version"] for answer in answers] == [1, 2]


def test_a_release_taken_back_takes_the_champion_back(
    client: TestClient, settings: Settings, database: Database, base: None
) -> None:
    """The version that this release ships is there, and a later release has moved on."""
    facts = {name: getattr(installed(database), name) for name in ("config", "metrics", "baselines", "frequency")}
    facts |= {"time_zone": "UTC", "parameters": 1, "size_bytes": 1, "device": "cpu", "train_seconds": 1.0}
    with database.write(EVERY_WORKSPACE) as session:
        registry.ship(session, registry.NewVersion(model="base", folder="base-later", digest="sha256:1", **facts))
    assert client.get(URL).json()["aliases"] == {"champion": 2}
    assert shipped.install(settings, database) is None
    shown = client.get(URL).json()
    assert (shown["aliases"], shown["versions"]) == ({"champion": 1}, 2)
    moves = client.get(f"{URL}/aliases/champion/moves").json()["moves"]
    assert [(move["from"], move["to"]) for move in moves] == [(2, 1), (1, 2), (None, 1)]


def test_two_that_install_at_once_make_one(settings: Settings, database: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(shipped.install, settings, database) for _ in range(4)]
        assert [one.result() for one in done] == [None] * 4
    assert installed(database).number == 1
    assert folders(settings) == [installed(database).folder]


def test_every_workspace_sees_it(database: Database, base: None) -> None:
    for workspace in ("default", "another"):
        with database.read(workspace) as session:
            assert registry.resolve(session, "base").version.number == 1
    with database.write("another") as session, pytest.raises(Conflict):
        registry.move(session, "base", "champion", 1, registry.Why("somebody"))


# ---------------------------------------------------------------- nobody's to change


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize(
    "change",
    [
        ("DELETE", "/versions/1", None),
        ("DELETE", "/aliases/champion", None),
        ("PUT", "/aliases/champion", {"version": 1}),
        ("PUT", "/aliases/mine", {"version": 1}),
        ("POST", "/aliases/champion/rollback", {}),
    ],
)
def test_it_cannot_be_changed(client: TestClient, settings: Settings, change: tuple[str, str, Any]) -> None:
    before = folders(settings)
    method, path, body = change
    answer = client.request(method, f"{URL}{path}", json=body)
    assert answer.status_code == 409, answer.text
    assert answer.json()["type"] == "/docs/errors#model-read-only"
    assert "Train a model of another name" in answer.json()["detail"]
    assert client.get(URL).json()["aliases"] == {"champion": 1}
    assert folders(settings) == before


@pytest.mark.parametrize("there", [True, False])
def test_nobody_can_train_into_it(
    client: TestClient, settings: Settings, database: Database, hourly: str, there: bool
) -> None:
    if there:
        assert shipped.install(settings, database) is None
    answer = client.post("/v1/jobs", json={"kind": "train", "dataset": hourly, "model": "base"})
    assert answer.status_code == 409
    assert "warm_start_from: base" in answer.json()["detail"]
    assert client.get("/v1/jobs").json()["jobs"] == []


def test_a_job_from_before_cannot_either(database: Database, publish: Callable[..., int], base: None) -> None:
    """Asked for under an earlier release, done under this one."""
    with pytest.raises(Conflict, match="read-only"):
        publish("base")
    assert installed(database).number == 1


# ---------------------------------------------------------------- one's own model of the same name


@pytest.fixture
def own(publish: Callable[..., int], database: Database) -> None:
    """A model `base` that somebody trained before there was ours."""
    publish("mine")
    with database.write("default") as session:
        session.execute(update(ModelRow).values(name="base"))


@pytest.mark.usefixtures("own")
def test_ones_own_is_left_alone_and_said(
    client: TestClient, settings: Settings, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    ready.migrated(settings, database)
    assert "--own-base" in caplog.text
    assert client.get(f"{URL}/versions/1").json()["frequency"] == "D"
    assert len(folders(settings)) == 1
    assert client.post("/v1/forecasts", json=ONE).json()["model"] == {"name": "base", "version": 1, "alias": "champion"}
    assert client.put(f"{URL}/aliases/mine", json={"version": 1}).status_code == 201


@pytest.mark.usefixtures("own")
def test_ones_own_can_make_room(client: TestClient, settings: Settings, database: Database) -> None:
    for name in ("base", "a/b", "", "x" * 64):
        with pytest.raises(Invalid):
            ready.migrated(settings, database, own_base=name)
    ready.migrated(settings, database, own_base="ours")
    assert [model["name"] for model in client.get("/v1/models").json()["models"]] == ["base", "ours"]
    assert client.get("/v1/models/ours/versions/1").json()["frequency"] == "D"
    assert client.get(f"{URL}/versions/1").json()["frequency"] == "any"
    with pytest.raises(NotFound):
        ready.migrated(settings, database, own_base="again")


@pytest.mark.usefixtures("own")
def test_ones_own_takes_no_name_that_is_taken(
    settings: Settings, database: Database, publish: Callable[..., int]
) -> None:
    publish("ours")
    with pytest.raises(Conflict):
        ready.migrated(settings, database, own_base="ours")
