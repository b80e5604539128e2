"""Versions out as one file and in again: the same version arrives, and nothing else does."""

import base64
import io
import json
import os
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fastapi.testclient import TestClient
from onnx import TensorProto, helper

from app import store
from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import ArrivalRow
from app.main import sweep_store
from app.services import inspection, leftovers, parcels
from app.store import parcel
from models import Series, open_artifact

ZIP = {"Content-Type": "application/zip"}
LIMITS = {"json": 1 << 20, "file": 1 << 26, "context": 100_000, "horizon": 10_000}
Publish = Callable[..., int]


def exported(client: TestClient, path: str = "fuel/versions/1") -> bytes:
    answer = client.get(f"/v1/models/{path}/export")
    assert answer.status_code == 200, answer.text
    return answer.content


def give(client: TestClient, body: bytes, model: str = "other", **query: str) -> Any:
    return client.post(f"/v1/models/{model}/versions", content=body, headers=ZIP, params=query)


def asked(client: TestClient, model: str) -> Any:
    body = {"model": model, "inputs": [{"key": "a", "start": "2026-01-05", "target": [1.0, 2, 4, 3] * 9}]}
    answer = client.post("/v1/forecasts", json=body | {"frequency": "D", "horizon": 7})
    assert answer.status_code == 200, answer.text
    return answer.json()["forecasts"]


def contents(body: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: dict[str, bytes]) -> bytes:
    return b"".join(parcel.packed([(name, io.BytesIO(content)) for name, content in files.items()])[1])


def rewritten(body: bytes, **changes: bytes) -> bytes:
    """The archive with other files (by the name before the dot), every digest computed anew."""
    files = contents(body)
    for name in files:
        files[name] = changes.get(name.partition(".")[0], files[name])
    if {"weights", "forward"} & set(changes):
        manifest = json.loads(files["manifest.json"])
        for name in (store.WEIGHTS, store.GRAPH):
            manifest["files"][name] = {"sha256": sha256(files[name]).hexdigest(), "bytes": len(files[name])}
        files["manifest.json"] = json.dumps(manifest).encode()
    if "version" not in changes:
        said = json.loads(files["version.json"])
        said["digest"] = "sha256:" + sha256(files["manifest.json"]).hexdigest()
        files["version.json"] = json.dumps(said).encode()
    return packed(files)


# ---------------------------------------------------------------- there and back


def test_a_version_arrives_as_it_was(client: TestClient, publish: Publish, settings: Settings) -> None:
    publish("fuel", job_id="job_0", dataset="gasoline", revision=3, data_digest="sha256:" + "1" * 64, parent="old/2")
    body = exported(client)
    assert list(contents(body)) == ["version.json", "manifest.json", "weights.safetensors", "forward.onnx"]
    answer = give(client, body)
    assert answer.status_code == 201, answer.text
    found, before = answer.json(), client.get("/v1/models/fuel/versions/1").json()
    assert answer.headers["location"] == "/v1/models/other/versions/1"
    assert found == client.get("/v1/models/other/versions/1").json()
    same = ("config", "metrics", "baselines", "parameters", "size_bytes", "digest", "device", "train_seconds")
    assert {name: found[name] for name in same} == {name: before[name] for name in same}
    assert (found["frequency"], found["time_zone"], found["data_digest"]) == ("D", "UTC", "sha256:" + "1" * 64)
    assert (found["job"], found["dataset"], found["revision"], found["parent"]) == (None, None, None, None)
    origin = {"model": "fuel", "version": 1, "job": "job_0", "dataset": "gasoline", "revision": 3, "parent": "old/2"}
    assert found["origin"] == origin | {"created_at": before["created_at"]}
    assert found["aliases"] == ["champion"]  # the model's first
    assert asked(client, "other") == asked(client, "fuel")
    for name in store.FILES:
        kept = [client.get(f"/v1/models/{model}/versions/1/files/{name}").content for model in ("fuel", "other")]
        assert kept[0] == kept[1]
    assert exported(client, "other/versions/1") == body  # the same bytes from whatever server
    assert "made there as fuel/1" in client.get("/v1/models/other/versions/1/card").text
    move = client.get("/v1/models/other/aliases/champion/moves").json()["moves"][0]
    assert (move["to"], move["reason"]) == (1, "imported, made as fuel/1")
    assert list(settings.spool.iterdir()) == []


def test_an_export_does_not_change(client: TestClient, publish: Publish) -> None:
    publish()
    first = client.get("/v1/models/fuel/versions/1/export")
    assert first.headers["content-type"] == "application/zip"
    assert first.headers["content-disposition"] == 'attachment; filename="fuel-1.zip"'
    assert int(first.headers["content-length"]) == len(first.content)
    client.put("/v1/models/fuel/aliases/spare", json={"version": 1})
    assert exported(client, "fuel@spare/versions/1") == first.content
    again = client.get("/v1/models/fuel/versions/1/export", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/v1/models/fuel/versions/2/export").status_code == 404


def test_a_damaged_version_is_not_handed_out(client: TestClient, publish: Publish, settings: Settings) -> None:
    publish()
    (next(settings.store.iterdir()) / store.GRAPH).write_bytes(b"other")
    answer = client.get("/v1/models/fuel/versions/1/export")
    assert (answer.status_code, answer.json()["type"]) == (503, "/docs/errors#artifact-damaged")


def test_who_is_champion(client: TestClient, publish: Publish) -> None:
    publish("fuel")
    body = edited(exported(client), "manifest.json", lambda said: said.update(train_seconds=1.0))
    publish("mine")
    assert give(client, body, "mine").json()["aliases"] == []  # nothing can be compared
    assert give(client, body, "mine").status_code == 200  # the same bytes: no other version
    answer = give(client, body, "mine", promote="always")
    assert (answer.status_code, answer.json()["version"], answer.json()["aliases"]) == (200, 2, ["champion"])
    assert give(client, body, "never", promote="never").json()["aliases"] == []
    assert client.get("/v1/models/mine").json()["versions"] == 2
    assert give(client, body, "mine", promote="maybe").status_code == 422


def test_the_data_are_known_again_by_their_digest(
    client: TestClient, publish: Publish, stored: Callable[..., int]
) -> None:
    stored("mine", {"a": [1.0, 2.0]})
    digest = client.get("/v1/datasets/mine/revisions/1").json()["digest"]
    publish("fuel", dataset="theirs", revision=7, data_digest=digest)
    found = give(client, exported(client)).json()
    assert (found["dataset"], found["revision"], found["origin"]["dataset"]) == ("mine", 1, "theirs")
    assert client.delete("/v1/datasets/mine").status_code == 409  # the champion was trained on it


def test_a_key_gives_the_first_answer_again(client: TestClient, publish: Publish) -> None:
    publish()
    body = exported(client)
    headers = ZIP | {"Idempotency-Key": "one"}
    first = client.post("/v1/models/other/versions", content=body, headers=headers)
    again = client.post("/v1/models/other/versions", content=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["idempotent-replayed"] == "true"
    assert client.post("/v1/models/other/versions", content=body + b"x", headers=headers).status_code == 422


def test_the_base_goes_out_and_comes_in_under_another_name(client: TestClient, base: None) -> None:
    body = exported(client, "base/versions/1")
    answer = give(client, body, "base")
    assert (answer.status_code, answer.json()["type"]) == (409, "/docs/errors#model-read-only")
    found = give(client, body, "like-base")
    assert (found.status_code, found.json()["frequency"]) == (201, "any"), found.text
    assert asked(client, "like-base") == asked(client, "base")


def test_a_form_does_as_well(client: TestClient, publish: Publish) -> None:
    publish()
    files = {"file": ("fuel-1.zip", exported(client), "application/octet-stream")}
    assert client.post("/v1/models/other/versions", files=files).status_code == 201


# ---------------------------------------------------------------- hostile files


def test_nothing_of_a_refused_file_stays(client: TestClient, publish: Publish, settings: Settings) -> None:
    publish()
    body = exported(client)
    for sent, piece in (
        (rewritten(body, forward=b"not a graph"), "forward.onnx"),
        (b"PK\x05\x06" + bytes(18), "zip"),
        (b"", "ends early"),
    ):
        answer = give(client, sent)
        said = answer.json()
        assert (answer.status_code, said["type"]) == (422, "/docs/errors#invalid-version"), said
        assert piece in said["detail"]
        assert str(settings.data) not in answer.text
    assert client.get("/v1/models/other").status_code == 404
    assert len(store.names(settings.store)) == 1
    assert list(settings.spool.iterdir()) == []


def test_what_is_not_a_zip_is_not_read(client: TestClient, publish: Publish) -> None:
    for headers in ({"Content-Type": "text/csv"}, ZIP | {"Content-Encoding": "gzip"}):
        answer = client.post("/v1/models/other/versions", content=b"x", headers=headers)
        assert answer.status_code == 415
    assert client.post("/v1/models/a@b/versions", content=b"x", headers=ZIP).status_code == 422


def test_a_file_too_large_is_refused_before_it_is_read(client: TestClient, settings: Settings) -> None:
    headers = ZIP | {"Content-Length": str(settings.max_body_bytes + 1)}
    answer = client.post("/v1/models/other/versions", content=iter([b"x"]), headers=headers)
    assert answer.status_code == 413


def test_a_reader_that_dies_is_a_refusal(client: TestClient, publish: Publish) -> None:
    publish()
    body = exported(client)
    done = threading.Event()

    def kill() -> None:
        while not done.is_set():
            command = ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())]
            for line in subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines():
                if "app.services.inspection" in line:
                    os.kill(int(line.split()[0]), 9)
                    return
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    answer = give(client, body)
    done.set()
    killer.join()
    assert (answer.status_code, answer.json()["type"]) == (422, "/docs/errors#invalid-version")
    assert "killed by signal 9" in answer.json()["detail"]


@pytest.fixture
def look(client: TestClient, publish: Publish, tmp_path: Path) -> Callable[[bytes], Any]:
    """What the process that looks at a file makes of one, without the process."""
    publish()
    count = iter(range(100))

    def looked(body: bytes) -> Any:
        place = next(count)
        folder, archive = tmp_path / f"looked-{place}", tmp_path / f"parcel-{place}"
        folder.mkdir()
        archive.write_bytes(body)
        return inspection.look(archive, folder, LIMITS)

    return looked


def zipped(files: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """What another zip program makes of these files."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return held.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_only_what_an_export_writes_is_unpacked(client: TestClient, look: Callable[[bytes], Any]) -> None:
    body = exported(client)
    files = list(contents(body).items())
    about = files[0]
    bomb = ("version.json", b" " * 50_000_000)
    hostile = {
        "deflated": zipped(files, zipfile.ZIP_DEFLATED),
        "bomb": zipped([bomb, *files[1:]], zipfile.ZIP_DEFLATED),
        "huge": packed(dict([bomb, *files[1:]])),
        "path": zipped([("../version.json", about[1]), *files[1:]]),
        "absolute": zipped([("/etc/passwd", about[1]), *files[1:]]),
        "more": zipped([*files, ("more.py", b"print(1)")]),
        "fewer": zipped(files[:-1]),
        "twice": zipped([about, *files]),
        "order": zipped(files[::-1]),
        "behind": body + b"\n",
        "before": b"#!/bin/sh\n" + body,
        "short": body[:-1],
        "half": body[: len(body) // 2],
        "head": body[:10],
        "comment": body[:-2] + b"\x01\x00x",
        "bit": body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :],
        "directory": body.replace(b"forward.onnx", b"forwarD.onnx").replace(b"forwarD.onnx", b"forward.onnx", 1),
        "encrypted": body[:6] + b"\x01" + body[7:],
    }
    for kind, sent in hostile.items():
        with pytest.raises(ValueError, match=r"expected|ends early|not those"):
            print(kind, look(sent))
    assert look(body)["frequency"] == "D"


def edited(body: bytes, name: str, change: Callable[[Any], Any]) -> bytes:
    """The archive with one of its JSON files changed."""
    document = json.loads(contents(body)[name])
    change(document)
    return rewritten(body, **{name.partition(".")[0]: json.dumps(document).encode()})


def test_the_documents_have_to_fit(client: TestClient, look: Callable[[bytes], Any]) -> None:
    body = exported(client)
    manifest, version = "manifest.json", "version.json"
    changes: list[tuple[str, Callable[[Any], Any], str]] = [
        (version, lambda said: said.update(digest="sha256:" + "0" * 64), "digest"),
        (version, lambda said: said.update(format=2), "format"),
        (version, lambda said: said.update(model="../x"), "model"),
        (version, lambda said: said.update(version="1; drop table"), "version"),
        (version, lambda said: said.update(more=1), "more"),
        (version, lambda said: said["metrics"].update(mase=0.001), "metrics"),
        (manifest, lambda said: said.update(format=1), "format"),
        (manifest, lambda said: said.pop("files"), "files"),
        (manifest, lambda said: said.pop("members"), "members"),
        (manifest, lambda said: said.pop("dependence"), "dependence"),
        (manifest, lambda said: said["config"].update(horizon=9), "quantiles of shape"),
        (manifest, lambda said: said["config"].update(context=21), "does not answer"),
        (manifest, lambda said: said["config"].update(quantiles=[0.1, 0.5]), "does not answer"),
        (manifest, lambda said: said["config"].update(hack=1), "hack"),
        (manifest, lambda said: said["calendar"].update(frequency="fortnight"), "frequency"),
        (manifest, lambda said: said["calendar"].update(time_zone="../../etc"), "zone"),
        (manifest, lambda said: said.update(kind="base"), "inputs"),
        (manifest, lambda said: said["features"].update(static=[{"name": "x"}]), "manifest.json"),
        (manifest, lambda said: said["files"]["forward.onnx"].update(sha256="0" * 64), "SHA-256"),
        (manifest, lambda said: said.update(metrics={"mase": "<b>"}), "scores"),
    ]
    for name, change, piece in changes:
        with pytest.raises(ValueError, match=piece):
            print(piece, look(edited(body, name, change)))
    deep = b'{"format": 2, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for text in (b"[]", b"{", deep, b'{"format": 2, "train_seconds": NaN}'):
        with pytest.raises(ValueError, match=r"manifest\.json"):
            look(rewritten(body, manifest=text))
    for text in (b"", b"\x80\x04K\x01.", (5).to_bytes(8, "little") + b"[1,2]", contents(body)[store.WEIGHTS] + b"x"):
        with pytest.raises(ValueError, match="safetensors"):
            look(rewritten(body, weights=text))


def graph(change: Callable[[onnx.ModelProto], Any], body: bytes) -> bytes:
    """The archive with a changed graph."""
    model = onnx.load_model_from_string(contents(body)[store.GRAPH])
    change(model)
    return rewritten(body, forward=model.SerializeToString())


def outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def looping(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], [], body=inner))


def foreign(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"


def unknown(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Phone"


def renamed(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.input[:] = ["other" if name == "mask" else name for name in node.input]
    next(one for one in model.graph.input if one.name == "mask").name = "other"


def nothing(model: onnx.ModelProto) -> None:
    model.graph.ClearField("node")


def endless(model: onnx.ModelProto) -> None:
    """Wants 64 GB at the first question."""
    size = helper.make_tensor("huge", TensorProto.INT64, [1], [8 * 10**9])
    zero = helper.make_tensor("zero", TensorProto.DOUBLE, [1], [0.0])
    model.graph.initializer.append(size)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["filled"], value=zero))
    model.graph.node.append(helper.make_node("ReduceSum", ["filled"], ["sum"]))
    model.graph.node.append(helper.make_node("Add", ["sum", "quantiles_before"], ["quantiles"]))
    for node in model.graph.node[:-1]:
        node.output[:] = ["quantiles_before" if name == "quantiles" else name for name in node.output]


def forging(model: onnx.ModelProto) -> None:
    """Fails at the first question, which the runtime says with the node's name."""
    for node in model.graph.node:
        node.output[:] = ["quantiles_before" if name == "quantiles" else name for name in node.output]
    model.graph.initializer.append(helper.make_tensor("seven", TensorProto.INT64, [1], [7]))
    names = ["quantiles_before", "seven"]
    model.graph.node.append(helper.make_node("Reshape", names, ["quantiles"], name="\x1b[2Jforged"))


def test_graphs_that_lead_elsewhere_are_refused_unseen(client: TestClient, look: Callable[[bytes], Any]) -> None:
    body = exported(client)
    for change, piece in (
        (outside, "all data inside"),
        (looping, "no loops"),
        (foreign, "another domain"),
        (unknown, "cannot open"),
        (renamed, "does not answer"),
        (nothing, "expected an ONNX graph"),
    ):
        with pytest.raises(ValueError, match=piece):
            look(graph(change, body))
    whole = contents(body)[store.GRAPH]
    for content in (b"", whole[:-7], whole + b"\xff", b"\x08" * 500, base64.b64encode(whole)):
        with pytest.raises(ValueError, match=r"forward\.onnx"):
            look(rewritten(body, forward=content))


def posing(content: bytes) -> bytes:
    """The graph behind a field that nobody knows, whose bytes stand where ONNX Runtime looks for its own format."""
    return b"\xa2\x06\x05\x00ORTM" + content


def test_a_graph_is_read_as_what_was_walked(client: TestClient, look: Callable[[bytes], Any], tmp_path: Path) -> None:
    body = exported(client)
    sent = rewritten(body, forward=posing(contents(body)[store.GRAPH]))
    with pytest.raises(ValueError, match=r"forward\.onnx: expected an ONNX graph"):
        look(sent)
    folder = tmp_path / "posing"
    folder.mkdir()
    for name, content in contents(sent).items():
        (folder / name).write_bytes(content)
    series = [Series("a", np.arange(30.0), 0)]
    assert np.isfinite(open_artifact(folder).forecast(series, 3, [0.5]).mean).all()  # as ONNX, which it is too


def test_a_graph_that_wants_too_much_harms_nobody(client: TestClient, publish: Publish) -> None:
    publish()
    answer = give(client, graph(endless, exported(client)))
    assert (answer.status_code, answer.json()["type"]) == (422, "/docs/errors#invalid-version"), answer.text
    assert client.get("/v1/models/other").status_code == 404


def test_what_the_runtime_says_of_a_graph_stands_in_no_log(
    client: TestClient, publish: Publish, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()
    answer = give(client, graph(forging, exported(client)))
    assert (answer.status_code, "does not answer" in answer.json()["detail"]) == (422, True), answer.text
    assert "forged" not in capfd.readouterr().err


def test_an_import_does_not_wait_for_others_for_ever(
    client: TestClient, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    body = exported(client)
    seats = threading.BoundedSemaphore(1)
    monkeypatch.setattr(parcels, "_seats", seats)
    monkeypatch.setattr(parcels, "WAIT", 0.05)
    with seats:
        answer = give(client, body)
    assert (answer.status_code, answer.json()["type"]) == (503, "/docs/errors#unavailable"), answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert give(client, body).status_code == 201


# ---------------------------------------------------------------- what dies halfway


def test_what_an_import_left_behind_is_swept(
    client: TestClient, publish: Publish, settings: Settings, database: Database
) -> None:
    publish()
    give(client, exported(client))
    kept = store.names(settings.store)
    with database.write(EVERY_WORKSPACE) as session:  # as an import that dies before its commit
        leftovers.announce(session, "import-dead")
        leftovers.announce(session, "import-unborn")
    store.reserve(settings.store, "import-dead")
    sweep_store(settings, database, time.time())
    assert "import-dead" in store.names(settings.store)  # somebody may be at it
    sweep_store(settings, database, time.time() + 2 * 3600)
    assert store.names(settings.store) == kept
    sweep_store(settings, database, time.time() + 2 * 86_400)
    assert store.names(settings.store) == kept
    with database.read(EVERY_WORKSPACE) as session:
        assert session.query(ArrivalRow).count() == 0
