"""Forecast jobs, run in this process: the file says what the answers say, whatever happened on the way to it."""

import hashlib
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from app import store
from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.errors import AppError, Conflict, NotFound, Unavailable
from app.main import create_app
from app.services import attempts, forecast_runs, jobs
from app.services.attempts import Attempt, Fenced
from models import Stopped

ASK: dict[str, Any] = {"kind": "forecast", "dataset": "gasoline", "model": "fuel", "horizon": 9}
CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
MANY = 1098  # with the two others: parts of 512, 512 and 76
SERIES = {f"s{n:04d}": [float((step * (n + 3)) % 11) for step in range(20 + n % 5)] for n in range(MANY)}


@pytest.fixture(autouse=True)
def in_place(publish: Callable[..., int], stored: Callable[..., int]) -> None:
    publish("fuel")
    stored("gasoline", {**SERIES, 'b,"ö"': [1.0, 2.0], "empty": [None]}, time_zone="Europe/Berlin")


@pytest.fixture
def begin(client: TestClient, database: Database, settings: Settings) -> Callable[..., Attempt]:
    """Ask for a job over the API and begin an attempt at it, or at one asked for before."""

    def begun(body: dict[str, Any], job: str | None = None, enqueued: int = 1) -> Attempt:
        if job is None:
            answer = client.post("/v1/jobs", json=body)
            assert answer.status_code == 202, answer.text
            job = answer.json()["id"]
        with database.write(EVERY_WORKSPACE) as session:
            number = attempts.begin(session, job, enqueued, "worker", "cpu")
            assert number is not None
            row = attempts.load(session, job, number)
            return Attempt(database, settings, job, number, row.kind, row.workspace, row.spec, "cpu")

    return begun


def stopping_after(parts: int) -> Callable[[], bool]:
    """A `should_stop` that lets so many parts pass."""
    left = iter(range(parts))
    return lambda: next(left, None) is None


def result(client: TestClient, attempt: Attempt) -> dict[str, Any]:
    job = client.get(f"/v1/jobs/{attempt.job}").json()
    assert job["state"] == "succeeded", job
    return job["result"]


@pytest.mark.parametrize(("kind", "media"), [("csv", CSV), ("parquet", PARQUET)])
def test_the_file_says_what_the_answer_says(
    client: TestClient, begin: Callable[..., Attempt], settings: Settings, kind: str, media: str
) -> None:
    more = {"quantiles": [0.5, 0.025], "samples": 2, "future_covariates": {"s0700": {"moon": [1.0] * 9}}}
    attempt = begin(ASK | more | {"format": kind})
    forecast_runs.run(attempt)
    said = result(client, attempt)
    sent = client.get(said["href"])
    assert (sent.status_code, sent.headers["content-type"].partition(";")[0]) == (200, media)
    ask = {"model": "fuel", "dataset": "gasoline", "horizon": 9, **more}
    answer = client.post("/v1/forecasts", json=ask, headers={"Accept": media})
    if kind == "csv":
        assert sent.text == answer.text
    else:
        file, direct = pq.read_table(io.BytesIO(sent.content)), pq.read_table(io.BytesIO(answer.content))
        assert file.schema == direct.schema
        assert file.equals(direct)
        assert file.column_names == ["key", "timestamp", "mean", "q0.025", "q0.5", "sample1", "sample2"]
    assert (said["series"], said["rows"], said["size_bytes"]) == (1100, 1100 * 9, len(sent.content))
    assert said["digest"] == "sha256:" + hashlib.sha256(sent.content).hexdigest()
    assert "empty" in next(one for one in said["warnings"] if one["code"] == "no_history")["series"]
    assert "'moon'" in next(one for one in said["warnings"] if one["code"] == "unknown_covariates")["message"]
    assert not (settings.checkpoints / attempt.job).exists()
    job = client.get(f"/v1/jobs/{attempt.job}").json()
    assert (job["spec"]["version"], job["spec"]["revision"], job["spec"]["samples"]) == (1, 1, 2)
    assert "future_covariates" not in job["spec"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_attempt_goes_on_where_the_last_one_stopped(
    client: TestClient, begin: Callable[..., Attempt], settings: Settings, kind: str
) -> None:
    """Stopped after two parts, then while the file is written: the bytes are those of a run that never was."""
    forecast_runs.run(whole := begin(ASK | {"format": kind}))
    attempt = begin(ASK | {"format": kind})
    with pytest.raises(Stopped):
        forecast_runs.run(replace(attempt, should_stop=stopping_after(2)))
    folder = settings.checkpoints / attempt.job
    first = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(first) == 2
    (folder / ".part-000003.1").write_bytes(b"half")  # what a kill in mid-write leaves
    attempt = begin({}, attempt.job)
    with pytest.raises(Stopped):
        forecast_runs.run(replace(attempt, should_stop=stopping_after(3)))
    assert {name: folder.joinpath(name).stat().st_mtime_ns for name in first} == first
    forecast_runs.run(begin({}, attempt.job))
    assert client.get(result(client, attempt)["href"]).content == client.get(result(client, whole)["href"]).content
    assert result(client, attempt)["warnings"] == result(client, whole)["warnings"]
    files = sorted(path.name for path in (settings.data / "results").iterdir())
    assert files == sorted([f"{whole.job}-1.{kind}", f"{attempt.job}-3.{kind}"])


def test_series_that_are_named_come_in_that_order(client: TestClient, begin: Callable[..., Attempt]) -> None:
    names = [*sorted(SERIES, reverse=True)[:600], 'b,"ö"']
    attempt = begin(ASK | {"series": names, "quantiles": [], "horizon": 1, "format": "csv"})
    forecast_runs.run(attempt)
    lines = client.get(result(client, attempt)["href"]).text.splitlines()
    assert lines[0] == "key,timestamp,mean"
    assert [line.partition(",2026")[0] for line in lines[1:-1]] == names[:-1]
    assert result(client, attempt)["series"] == 601


def test_version_and_revision_are_those_of_the_asking(
    client: TestClient, begin: Callable[..., Attempt], publish: Callable[..., int], stored: Callable[..., int]
) -> None:
    """A series that came later and a champion of later on have no part in it."""
    attempt = begin(ASK | {"format": "csv"})
    stored("gasoline", {"a-later-one": [1.0, 2.0]}, time_zone="Europe/Berlin")
    publish("fuel", promote="always")
    forecast_runs.run(attempt)
    said = result(client, attempt)
    assert said["series"] == 1100
    assert "a-later-one" not in client.get(said["href"]).text
    assert client.get(f"/v1/jobs/{attempt.job}").json()["spec"]["version"] == 1


@pytest.mark.usefixtures("base")
def test_the_base_answers_where_no_model_is_named(client: TestClient, begin: Callable[..., Attempt]) -> None:
    attempt = begin({"kind": "forecast", "dataset": "gasoline", "series": ["s0000"]})
    assert attempt.spec["model"] == "base"
    forecast_runs.run(attempt)
    table = pq.read_table(io.BytesIO(client.get(result(client, attempt)["href"]).content))
    assert table.num_rows == attempt.spec["horizon"] > 1
    assert table.schema.field("timestamp").type == pa.timestamp("us", "Europe/Berlin")


# ---------------------------------------------------------------- the download


def test_a_download_can_go_on(client: TestClient, begin: Callable[..., Attempt]) -> None:
    attempt = begin(ASK | {"format": "csv", "horizon": 200})
    forecast_runs.run(attempt)
    href = result(client, attempt)["href"]
    whole = client.get(href)
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["etag"].strip('"') == result(client, attempt)["digest"].removeprefix("sha256:")
    part = client.get(href, headers={"Range": "bytes=100-", "Accept-Encoding": "gzip"})
    assert (part.status_code, part.content) == (206, whole.content[100:])
    assert part.headers["content-range"] == f"bytes 100-{len(whole.content) - 1}/{len(whole.content)}"
    assert "content-encoding" not in part.headers
    assert client.get(href, headers={"Range": "bytes=-7"}).content == whole.content[-7:]
    for odd in ("bytes=9-1", "lines=1-2", "bytes=0-1,4-5"):
        assert client.get(href, headers={"Range": odd}).content == whole.content
    beyond = client.get(href, headers={"Range": f"bytes={len(whole.content)}-"})
    assert (beyond.status_code, beyond.json()["type"]) == (416, "/docs/errors#no-such-range")
    assert client.get(href, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    head = client.head(href)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", whole.headers["etag"])


def test_no_file_before_the_end_and_none_of_other_kinds(
    client: TestClient, begin: Callable[..., Attempt], settings: Settings
) -> None:
    attempt = begin(ASK)
    href = f"/v1/jobs/{attempt.job}/result"
    early = client.get(href)
    assert (early.status_code, early.json()["type"]) == (404, "/docs/errors#no-result")
    assert "running" in early.json()["detail"]
    other = client.post("/v1/jobs", json={"kind": "backtest", "dataset": "gasoline", "model": "fuel"}).json()["id"]
    assert "of kind backtest" in client.get(f"/v1/jobs/{other}/result").json()["detail"]
    assert client.get("/v1/jobs/job_none/result").status_code == 404
    forecast_runs.run(attempt)
    (settings.data / "results" / result(client, attempt)["file"]).write_bytes(b"short")
    lost = client.get(href)
    assert (lost.status_code, lost.json()["type"]) == (503, "/docs/errors#result-lost")


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"dataset": "nothing"}, 404, "nothing"),
        ({"model": "nobody"}, 404, "nobody"),
        ({"model": "fuel/9"}, 404, "9"),
        ({"series": ["s0000", "gone"]}, 404, "'gone'"),
        ({"series": ["s0000", "s0000"]}, 422, "twice"),
        ({"series": []}, 422, "series"),
        ({"revision": 7}, 422, "got 7"),
        ({"horizon": 0}, 422, "horizon"),
        ({"quantiles": [0.5, 0.5]}, 422, "once"),
        ({"quantiles": [1.0]}, 422, "quantiles"),
        ({"format": "xlsx"}, 422, "format"),
        ({"samples": 1001}, 422, "samples"),
        ({"future_covariates": {"gone": {"price": [1.0] * 9}}}, 422, "/future_covariates/gone"),
        ({"future_covariates": {"s0000": {"price": [1.0] * 8}}}, 422, "at least 9"),
        ({"future_covariates": {"s0000": {"price": [1.0] * 100_001}}}, 422, "at most 100,000 values"),
    ],
)
def test_what_cannot_be_forecast_is_refused(
    client: TestClient, changes: dict[str, Any], status: int, says: str
) -> None:
    answer = client.post("/v1/jobs", json=ASK | changes)
    assert answer.status_code == status
    assert says in answer.text


def test_what_went_away_meanwhile_is_named(client: TestClient, begin: Callable[..., Attempt]) -> None:
    named, rest = begin(ASK | {"series": ["s0001", "s0002"]}), begin(ASK)
    assert client.delete("/v1/datasets/gasoline/series/s0002").status_code == 204
    with pytest.raises(NotFound, match="'s0002'"):
        forecast_runs.run(named)
    forecast_runs.run(rest)
    assert result(client, rest)["series"] == 1099
    last = begin(ASK)
    assert client.delete("/v1/datasets/gasoline?force=true").status_code == 204
    with pytest.raises(NotFound, match="gasoline"):
        forecast_runs.run(last)


def test_a_dataset_made_anew_is_another(
    client: TestClient, begin: Callable[..., Attempt], stored: Callable[..., int]
) -> None:
    attempt = begin(ASK)
    client.delete("/v1/datasets/gasoline?force=true")
    stored("gasoline", {"s0000": [1.0, 2.0]})
    with pytest.raises(Conflict, match="made anew"):
        forecast_runs.run(attempt)


def test_one_that_lost_its_job_drops_nothing_and_ends_nothing(
    client: TestClient, database: Database, begin: Callable[..., Attempt], settings: Settings
) -> None:
    late = begin(ASK)
    forecast_runs.run(begin({}, late.job))
    said = result(client, late)
    with pytest.raises(Fenced):
        forecast_runs.run(late)
    assert result(client, late) == said
    assert client.get(said["href"]).status_code == 200
    other = begin(ASK)
    with database.write("default") as session:
        jobs.cancel(session, other.job)
    with pytest.raises(Fenced):
        forecast_runs.run(other)
    assert [path.name for path in (settings.data / "results").iterdir()] == [said["file"]]


def test_a_folder_that_takes_no_files_is_said(begin: Callable[..., Attempt], settings: Settings) -> None:
    attempt = begin(ASK)
    Path(settings.checkpoints / attempt.job).write_text("in the way")
    with pytest.raises(Unavailable, match="cannot be written") as refused:
        forecast_runs.run(attempt)
    assert isinstance(refused.value, AppError)


# ---------------------------------------------------------------- in an object store


def test_a_file_in_the_object_store_is_handed_out_by_any_server(
    object_store: Any, settings: Settings, database: Database, tmp_path: Path
) -> None:
    """Made by one machine, downloaded from another that has nothing of it: whole and in parts; gone with its job."""
    shared = {
        "store_url": object_store.url,
        "database_url": settings.database_url or f"sqlite:///{settings.data}/gatecast.db",
    }
    one, two = (Settings(data=tmp_path / name, **shared) for name in ("one", "two"))
    source = next(settings.store.iterdir())
    reserved = store.reserve(one.store, source.name)
    for file in source.iterdir():
        shutil.copyfile(file, reserved / file.name)
    store.publish(one.store, reserved, source.name)
    with TestClient(create_app(two)) as client:
        job = client.post("/v1/jobs", json=ASK | {"format": "csv"}).json()["id"]
        with database.write(EVERY_WORKSPACE) as session:
            number = attempts.begin(session, job, 1, "worker", "cpu")
            assert number is not None
            row = attempts.load(session, job, number)
            attempt = Attempt(database, one, job, number, row.kind, row.workspace, row.spec, "cpu")
        forecast_runs.run(attempt)
        key = f".results/{job}/{job}-1.csv"
        assert [name for name in object_store.listed() if name.startswith(".results")] == [key]
        assert not list((tmp_path / "one" / "results").iterdir())
        said, href = client.get(f"/v1/jobs/{job}").json()["result"], f"/v1/jobs/{job}/result"
        whole = client.get(href)
        assert (whole.status_code, len(whole.content)) == (200, said["size_bytes"])
        assert "sha256:" + hashlib.sha256(whole.content).hexdigest() == said["digest"]
        for asked, span in (("100-199", slice(100, 200)), ("100-", slice(100, None)), ("-7", slice(-7, None))):
            part = client.get(href, headers={"Range": f"bytes={asked}"})
            assert (part.status_code, part.content) == (206, whole.content[span])
            assert part.headers["content-range"].endswith(f"/{said['size_bytes']}")
        stale = client.get(href, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
        assert (stale.status_code, len(stale.content)) == (200, said["size_bytes"])
        head = client.head(href)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(said["size_bytes"]))
        assert client.delete(f"/v1/jobs/{job}").status_code == 204
        assert [name for name in object_store.listed() if name.startswith(".results")] == []
