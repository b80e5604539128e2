"""The document's examples run as they stand, in the order a person would go, and answer as the document says."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.cli.demo import FILE
from app.config import Settings
from app.db.session import Database
from app.db.tables import BacktestRow, JobRow

EXAMPLES = json.loads((Path(__file__).parents[2] / "app" / "api" / "examples.json").read_bytes())
ORDER = [
    "create_dataset",
    "upload",
    "list_datasets",
    "show_dataset",
    "change_dataset",
    "show_revision",
    "show_audit",
    "list_series",
    "read_points",
    "read_all_points",
    "download_result",
    "create_job",
    "list_jobs",
    "show_job",
    "list_trials",
    "cancel_job",
    "retry_job",
    "cancel_job",
    "follow_job",
    "create_schedule",
    "list_schedules",
    "show_schedule",
    "change_schedule",
    "run_schedule",
    "list_models",
    "show_model",
    "list_versions",
    "show_version",
    "read_card",
    "download",
    "export_version",
    "import_version",
    "show_alias",
    "move_alias",
    "rollback",
    "list_moves",
    "forecast",
    "forecast_next",
    "list_backtests",
    "show_backtest",
    "list_backtest_series",
    "healthz",
    "readyz",
    "system",
    "delete_job",
    "delete_schedule",
    "delete_alias",
    "delete_version",
    "delete_series",
    "delete_dataset",
]


@pytest.fixture
def seeded(
    client: TestClient, database: Database, settings: Settings, publish: Callable[..., int], base: None
) -> TestClient:
    """As after `gatecast demo`, a backtest and a forecast job: dataset `gasoline`, model `fuel` with two versions."""
    upload = {"content": FILE.read_bytes(), "headers": {"Content-Type": "text/csv"}}
    assert client.post("/v1/datasets/gasoline/revisions", **upload).status_code == 201  # type: ignore[arg-type]
    publish("fuel", frequency="W-FRI")
    publish("fuel", frequency="W-FRI", promote="always")
    with database.write("default") as session:
        shown = EXAMPLES["show_backtest"]
        session.add(JobRow(id=shown["id"], kind="backtest", state="succeeded", spec={}))
        session.flush()
        kept = {name: value for name, value in shown.items() if name not in ("created_at", "by_series")}
        session.add(BacktestRow(**kept, by_series=EXAMPLES["list_backtest_series"]["series"]))
        operation = client.app.openapi()["paths"]["/v1/jobs/{job}/result"]["get"]  # type: ignore[attr-defined]
        job = operation["parameters"][0]["schema"]["examples"][0]
        shown = operation["responses"]["200"]["content"]["text/csv"]["example"].encode()
        said = {
            "file": f"{job}-1.csv",
            "size_bytes": len(shown),
            "digest": f"sha256:{hashlib.sha256(shown).hexdigest()}",
        }
        session.add(JobRow(id=job, kind="forecast", state="succeeded", spec={"format": "csv"}, result=said))
    (settings.data / "results").mkdir()
    (settings.data / "results" / said["file"]).write_bytes(shown)
    return client


class Replay:
    """Sends the examples of one operation after the other; what one answers names things for the next."""

    def __init__(self, document: dict[str, Any], client: TestClient) -> None:
        self.document, self.client = document, client
        self.places = {
            operation["operationId"]: (method, path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        self.names = {"backtest": EXAMPLES["show_backtest"]["id"], "alias": "champion"}

    def url(self, path: str, operation: dict[str, Any]) -> str:
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                schema, name = parameter["schema"], parameter["name"]
                name, sign = ("tune", "job") if operation["operationId"] == "list_trials" else (name, name)
                shown = self.names.get(name) or (schema.get("examples") or schema["enum"])[0]
                path = path.replace("{" + sign + "}", str(shown))
        return path

    def bodies(self, operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What to send: each example of each media type, or nothing."""
        content = operation.get("requestBody", {}).get("content", {})
        if not content:
            yield {}
        for media, said in content.items():
            shown = (
                [said["example"]] if "example" in said else [one["value"] for one in said.get("examples", {}).values()]
            )
            for example in shown or said["schema"].get("examples", []):
                text = example if isinstance(example, str) else json.dumps(example)
                yield {"content": text.encode(), "headers": {"Content-Type": media}}

    def run(self, name: str) -> int:
        method, path, operation = self.places[name]
        sent = 0
        for body in self.bodies(operation):
            for accept in self.answers(operation):
                headers = body.get("headers", {}) | ({"Accept": accept} if accept else {})
                answer = self.client.request(method, self.url(path, operation), **{**body, "headers": headers})
                self.check(name, operation, answer, accept)
                sent += 1
        return sent

    def answers(self, operation: dict[str, Any]) -> list[str | None]:
        """Each media type that can be asked for, where there is a choice."""
        content = operation["responses"].get("200", {}).get("content", {})
        return list(content) if {"text/csv", "application/json"} <= set(content) else [None]

    def check(self, name: str, operation: dict[str, Any], answer: Any, accept: str | None) -> None:
        assert answer.status_code < 300, (name, answer.text)
        said = operation["responses"][str(answer.status_code)].get("content", {})
        media = answer.headers.get("content-type", "").partition(";")[0]
        assert (media in said) if said else not answer.content, (name, media)
        assert accept in (None, media), name
        if media == "application/json" and "schema" in said.get(media, {}):
            schema = {**said[media]["schema"], "components": self.document["components"]}
            jsonschema_rs.Draft202012Validator(schema).validate(answer.json())
        if name == "create_job" and (kind := answer.json()["kind"]) in ("train", "tune"):
            self.names["job" if kind == "train" else kind] = answer.json()["id"]


def test_every_example_runs_and_answers_as_documented(seeded: TestClient, app: FastAPI) -> None:
    replay = Replay(app.openapi(), seeded)
    assert set(ORDER) == set(replay.places), "a new operation needs its place in the order"
    assert replay.run("create_dataset") == 1
    sent = 0
    for name in ORDER[1:]:
        if name.startswith("delete_"):
            break
        sent += replay.run(name)
    assert sent > 50
    # The champion cannot be removed, so another alias takes its place.
    replay.names["alias"] = "spare"
    assert seeded.put("/v1/models/fuel/aliases/spare", json={"version": 1}).status_code == 201
    for name in ("delete_job", "delete_schedule", "delete_alias", "delete_version", "delete_series", "delete_dataset"):
        replay.run(name)
