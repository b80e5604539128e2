"""The client commands against a real server with a real worker: what a person sees, what a program gets."""

import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import Result
from sqlalchemy import select
from typer.testing import CliRunner

from app.__main__ import root
from app.cli import demo, jobs
from app.cli.client import Failed
from app.config import Settings
from app.db.session import Database
from app.db.tables import VersionRow
from app.errors import Invalid
from app.services.registry import NewVersion, add_version

KEY = "correct-horse-battery"
QUICK = ["--horizon=13", "--context=52", "--hidden=8", "--steps=4", "--config=segment=13"]
Gatecast = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """A server with a key and a worker of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATECAST_")}
    command = [sys.executable, "-P", "-m", "app", "serve", "--port", "0", "--data", str(folder / "data")]
    process = subprocess.Popen(
        [*command, "--announce", str(folder / "address")], env=kept | {"GATECAST_API_KEY": KEY}, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (folder / "address").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield (folder / "address").read_text()
    process.terminate()
    assert process.wait(60) == 0


@pytest.fixture(scope="module")
def gatecast(url: str) -> Gatecast:
    """Run a command as a person would; it has to end with `status`."""

    def run(*arguments: str, status: int = 0, **environment: str) -> Result:
        settled = {"GATECAST_URL": url, "GATECAST_API_KEY": KEY, "COLUMNS": "120", **environment}
        result = CliRunner(env=settled).invoke(root, list(arguments))
        assert result.exit_code == status, result.output
        assert KEY not in result.output
        return result

    return run


@pytest.fixture(scope="module")
def trained(gatecast: Gatecast) -> str:
    """What `gatecast train` printed for the first version of the demo's model, over in a moment."""
    gatecast("upload", str(demo.FILE), "-d", demo.DATASET)
    return gatecast("train", "-d", demo.DATASET, "-m", demo.MODEL, "--cell", "lstm", *QUICK).output


@pytest.fixture(scope="module")
def second(folder: Path, trained: str) -> None:
    """A second version of the model: the first one's artifact once more."""
    database, settings = Database(f"sqlite:///{folder}/data/gatecast.db"), Settings(data=folder / "data")
    with database.write("default") as session:
        first = session.scalars(select(VersionRow).where(VersionRow.dataset == demo.DATASET)).one()
        kept = ("digest", "frequency", "time_zone", "config", "metrics", "baselines", "parameters", "size_bytes")
        facts = {name: getattr(first, name) for name in (*kept, "device", "train_seconds", "dataset", "revision")}
        shutil.copytree(settings.store / first.folder, settings.store / "copy-1")
        add_version(session, NewVersion(model=demo.MODEL, folder="copy-1", promote="never", **facts))
    database.close()


def said(result: Result) -> Any:
    return json.loads(result.stdout)


def test_an_upload_shows_what_was_stored(gatecast: Gatecast, tmp_path: Path) -> None:
    shown = gatecast("upload", str(demo.FILE), "-d", "fresh").stdout
    for piece in ("fresh, revision 1", "1,508", "W-FRI", "series", "gatecast train --dataset fresh"):
        assert piece in shown
    (tmp_path / "again.csv.gz").write_bytes(gzip.compress(demo.FILE.read_bytes()))
    (tmp_path / "again.csv.zst").write_bytes(zstandard.compress(demo.FILE.read_bytes()))
    for name in ("again.csv.gz", "again.csv.zst"):
        again = said(gatecast("upload", str(tmp_path / name), "-d", "fresh", "--json"))
        assert (again["revision"], again["inserted"], again["unchanged"]) == (1, 0, 1508)


def test_an_upload_shows_what_the_audit_warns_of(gatecast: Gatecast, tmp_path: Path) -> None:
    rows = ["date,value", *(f"2026-01-{day:02},{day}" for day in range(1, 21)), "2026-01-03,3"]
    (tmp_path / "twice.csv").write_text("\n".join(rows))
    shown = gatecast("upload", str(tmp_path / "twice.csv"), "-d", "twice").stdout
    assert "The audit warns (1)" in shown
    assert "22" in shown  # the line of the duplicate


def test_a_refused_file_is_said_by_line_and_column(gatecast: Gatecast, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("date,value\n2026-01-01,1\n2026-01-02,many\n2026-01-03,3\n")
    result = gatecast("upload", str(tmp_path / "bad.csv"), "-d", "bad", status=1)
    assert "line 3, column value" in result.stderr
    assert "many" in result.stderr
    assert result.stdout == ""
    gatecast("forecast", "-m", "fuel", "-d", "bad", status=1)  # nothing was stored


def test_training_is_followed_and_compared(trained: str) -> None:
    for piece in ("Leaderboard", "MASE", "seasonal naive", "fuel/1 is the champion", "gatecast forecast"):
        assert piece in trained


@pytest.mark.usefixtures("trained")
def test_a_training_can_start_from_a_version(gatecast: Gatecast) -> None:
    start = ["train", "-d", demo.DATASET, "-m", "other", "--warm-start-from"]
    assert "There is no model 'nobody'" in gatecast(*start, "nobody", status=1).stderr
    wider = gatecast(*start, f"{demo.MODEL}@champion", "--hidden", "64", status=1)
    assert "hidden: expected 8 as in the version to start from" in wider.stderr


def test_the_demo_shows_the_whole_way_and_takes_what_is_there(gatecast: Gatecast, trained: str, folder: Path) -> None:
    """Over the same data folder, with a server and a worker of its own that it stops again; no second training."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATECAST_")}
    command = [sys.executable, "-u", "-P", "-m", "app", "demo", "--data", str(folder / "data"), "--port", "0"]
    process = subprocess.Popen(
        command, env=kept | {"GATECAST_API_KEY": KEY}, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or "Ctrl-C stops it" not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], "".join(lines)
    own = re.search(r"http://\S+?:\d+", lines[-1])
    assert own is not None
    assert httpx.get(f"{own[0]}/docs").status_code == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    process.stdout.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{own[0]}/healthz")
    shown = "".join(lines)
    pieces = ["gasoline, revision 1", "1,508", "12 weeks at once", "base version 1", "2020-01-03", "2020-03-20", "░"]
    pieces += ["There is one from", "Leaderboard", "fuel/1", "The next week", "fuel version 1", "12 weeks, with"]
    places = [shown.find(piece) for piece in pieces]
    assert -1 not in places, pieces[places.index(-1)]
    assert places == sorted(places)
    assert KEY not in shown
    assert [job["spec"]["model"] for job in said(gatecast("jobs", "list", "--json"))].count(demo.MODEL) == 1


def test_forecasts_as_table_plot_and_file(gatecast: Gatecast, trained: str, tmp_path: Path) -> None:
    shown = gatecast("forecast", "-m", demo.MODEL, "-d", demo.DATASET, "-n", "4").stdout
    assert "2020-01-03" in shown
    assert "░" in shown  # the interval of the plot
    assert "2019-12-27" in shown  # its origin

    ask = ("forecast", "-m", f"{demo.MODEL}/1", "-d", demo.DATASET, "-s", "us_gasoline", "-n", "4", "-q", "0.25")
    answer = said(gatecast(*ask, "-q", "0.75", "--json"))
    assert list(answer["forecasts"][0]["quantiles"]) == ["0.25", "0.75"]
    lines = gatecast(*ask, "--csv").stdout.splitlines()
    assert lines[0] == "key,timestamp,mean,q0.25"
    assert len(lines) == 5
    gatecast(*ask, "--output", str(tmp_path / "f.parquet"))
    table = pq.read_table(tmp_path / "f.parquet")  # pyright: ignore[reportUnknownMemberType]
    assert table.column("mean").to_pylist() == pytest.approx(answer["forecasts"][0]["mean"])
    assert "expected a name ending in" in gatecast(*ask, "--output", str(tmp_path / "f.xls"), status=2).stderr

    assert "--output FILE.csv" in gatecast(*ask, "--job", status=2).stderr
    made = gatecast(*ask, "--job", "--output", str(tmp_path / "job.csv"))
    assert "4 rows of 1 series" in made.stderr
    assert (tmp_path / "job.csv").read_text().splitlines() == lines
    ids = [job["id"] for job in said(gatecast("jobs", "list", "--json")) if job["kind"] in ("forecast", "train")]
    gatecast("jobs", "result", ids[0], str(tmp_path / "again.csv"))
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "job.csv").read_bytes()
    assert "makes no file" in gatecast("jobs", "result", ids[-1], str(tmp_path / "no.csv"), status=1).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.csv", "f.parquet", "job.csv"]


def test_a_file_is_forecast_without_training(gatecast: Gatecast, tmp_path: Path) -> None:
    rows = [f"2026-{month:02}-{day:02},{100 + 10 * (day % 7)}" for month in (3, 4) for day in range(1, 31)]
    (tmp_path / "Sales (2026).csv").write_text("\n".join(["date,value", *rows, ""]))
    shown = gatecast("forecast", str(tmp_path / "Sales (2026).csv"), "--frequency", "D")
    for piece in ("base version 1, after 2026-04-30", "2026-05-12", "░"):
        assert piece in shown.stdout
    assert "Dataset Sales-2026, revision 1: 1 series, 60 points, frequency D" in shown.stderr
    again = said(gatecast("forecast", str(tmp_path / "Sales (2026).csv"), "-d", "Sales-2026", "-n", "3", "--json"))
    assert (again["dataset"], again["revision"], len(again["forecasts"][0]["mean"])) == ("Sales-2026", 1, 3)
    stored = said(gatecast("forecast", "-d", "Sales-2026", "--json"))
    assert stored["forecasts"][0]["mean"] == pytest.approx(again["forecasts"][0]["mean"][:1], rel=1e-6)
    (tmp_path / "Sales (2026).csv").write_text("\n".join(["date,value", *rows[:-1], "2026-04-30,0", ""]))
    assert "upsert" in gatecast("forecast", str(tmp_path / "Sales (2026).csv"), status=1).stderr


def test_a_file_whose_columns_cannot_be_told_says_which_option_tells_them(gatecast: Gatecast, tmp_path: Path) -> None:
    (tmp_path / "shops.csv").write_text("day,north,south\n2026-01-05,1,2\n2026-01-06,2,3\n2026-01-07,1,2\n")
    ask = ("forecast", str(tmp_path / "shops.csv"), "-d", "shops")
    refused = " ".join(gatecast(*ask, status=1).stderr.split())
    assert refused.count("could each be the target") == 1
    assert "pass --target-column, or --layout wide" in refused
    answer = said(gatecast(*ask, "--layout", "wide", "--json"))
    assert [row["key"] for row in answer["forecasts"]] == ["north", "south"]


def test_there_must_be_something_to_forecast(gatecast: Gatecast) -> None:
    assert "Name a file" in gatecast("forecast", status=2).stderr


def test_a_file_is_forecast_where_no_server_runs(tmp_path: Path) -> None:
    """One command, on a machine where nothing has been set up; nothing is left behind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATECAST_")}
    command = [sys.executable, "-P", "-m", "app", "forecast", str(demo.FILE), "--csv"]
    named = subprocess.run(
        [*command, "--url", f"http://127.0.0.1:{port}"],
        env=kept,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert named.returncode == 3  # whoever names a server wants that one
    assert "No server answers" in named.stderr
    if answers("http://127.0.0.1:8000"):
        pytest.skip("a server runs where the command looks for one")
    done = subprocess.run(command, env=kept, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "key,timestamp,mean,q0.1,q0.5,q0.9"
    assert len(lines) == 13
    assert "one is started for this command alone" in done.stderr.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def answers(url: str) -> bool:
    try:
        httpx.get(url)
    except httpx.HTTPError:
        return False
    return True


def test_the_shipped_model_is_listed_and_shown(gatecast: Gatecast) -> None:
    assert re.search(r"base +1 +champion → 1", gatecast("models").stdout)
    assert {"no data of", "this server"} <= set(
        re.findall("no data of|this server", gatecast("models", "show", "base").stdout)
    )
    shown = gatecast("models", "show", "base", "1").stdout
    for piece in ("base version 1", "any", "parameters", "sha256:"):
        assert piece in shown
    assert "read-only" in gatecast("models", "promote", "base", "1", status=1).stderr
    assert "read-only" in gatecast("train", "-d", demo.DATASET, "-m", "base", status=1).stderr


def test_models_are_listed_promoted_and_rolled_back(gatecast: Gatecast, second: None) -> None:
    model = demo.MODEL
    assert "champion → 1" in gatecast("models").stdout
    assert "version 2 now" in gatecast("models", "promote", model, "2", "--reason", "a test").stdout
    assert said(gatecast("models", "list", "--json"))[-1]["aliases"] == {"champion": 2}
    assert "version 1 again" in gatecast("models", "rollback", model).stdout
    rows = [line.split() for line in gatecast("models", "show", model).stdout.splitlines()]
    assert [row[0] for row in rows if "gasoline" in row] == ["2", "1"]
    record = said(gatecast("models", "show", model, "1", "--json"))
    assert (record["version"], record["config"]["hidden"], record["config"]["cell"]) == (1, 8, "lstm")
    assert "Leaderboard" in gatecast("models", "show", model, "1").stdout


def test_a_version_moves_in_one_file(gatecast: Gatecast, trained: str, folder: Path, monkeypatch: Any) -> None:
    model = demo.MODEL
    monkeypatch.chdir(folder)
    record = said(gatecast("models", "show", model, "1", "--json"))
    assert f"{model}-1.zip: {model} version 1" in gatecast("export", f"{model}/1").stdout
    assert "is there already" in gatecast("export", f"{model}/1", status=2).stderr
    written = said(gatecast("export", f"{model}/1", "-o", "again.zip", "--json"))
    assert (written["version"], written["digest"]) == (1, record["digest"])
    assert (folder / f"{model}-1.zip").read_bytes() == (folder / "again.zip").read_bytes()
    shown = gatecast("import", "again.zip", "-m", "moved").stdout
    assert "is moved version 1" in shown
    assert "It is the champion" in shown
    found = said(gatecast("import", "again.zip", "--json"))  # into the model it came from, which has it
    assert (found["model"], found["version"], found["digest"]) == (model, 1, record["digest"])
    assert f"{model}/1" in gatecast("models", "show", "moved", "1").stdout
    (folder / "bad.zip").write_bytes((folder / "again.zip").read_bytes()[:-100])
    assert "not a version" in gatecast("import", "bad.zip", "-m", "moved", status=1).stderr
    assert "not a version" in gatecast("import", str(demo.FILE), status=2).stderr
    for reference, piece in ((f"{model}/99", "no version 99"), ("nobody", "no model"), ("a/b/c", "not a version")):
        assert piece in gatecast("export", reference, status=2 if "/b/" in reference else 1).stderr
    assert "base version" in gatecast("export", "base", "-o", "base.zip").stdout
    assert sorted(path.name for path in folder.glob(".*")) == []


def test_jobs_are_listed_followed_cancelled_and_retried(gatecast: Gatecast, trained: str) -> None:
    endless = ["--horizon", "4", "--context", "52", "--steps", "1000000", "--config", "patience=10000"]
    job = gatecast("train", "-d", demo.DATASET, "-m", "endless", *endless, "--detach").stdout.strip()
    assert job.startswith("job_")
    assert job in gatecast("jobs").stdout
    assert "cancelled" in gatecast("jobs", "cancel", job).stdout
    assert said(gatecast("jobs", "show", job, "--json"))["state"] == "cancelled"
    assert "endless on gasoline" in gatecast("jobs", "show", job).stdout
    assert "was cancelled" in gatecast("jobs", "follow", job, status=1).stderr
    assert said(gatecast("jobs", "retry", job, "--json"))["state"] == "pending"
    gatecast("jobs", "cancel", job)
    done = said(gatecast("jobs", "list", "--state", "succeeded", "--json"))[-1]["id"]
    assert "/v1/models/fuel/versions/1" in gatecast("jobs", "follow", done).stdout


def test_an_ended_job_is_deleted(gatecast: Gatecast, trained: str) -> None:
    job = gatecast("train", "-d", demo.DATASET, "-m", "endless", "--steps", "1000000", "--detach").stdout.strip()
    assert "cancel it first" in " ".join(gatecast("jobs", "delete", job, status=1).stderr.split())
    gatecast("jobs", "cancel", job)
    assert "deleted" in gatecast("jobs", "delete", job).stdout
    assert "no job" in gatecast("jobs", "show", job, status=1).stderr


def test_schedules_are_added_paused_run_and_removed(gatecast: Gatecast, trained: str) -> None:
    assert "No schedules" in gatecast("schedules").stdout
    made = gatecast("schedules", "add", "nightly", "0 3 * * *", demo.DATASET, "--model", "fuel", "--horizon", "4")
    assert "nightly is due at" in made.stdout
    refused = gatecast("schedules", "add", "never", "at three", demo.DATASET, "--model", "fuel", status=1)
    assert "cron" in refused.stderr
    gatecast("schedules", "pause", "nightly")
    assert "paused" in gatecast("schedules").stdout
    assert "due at" in gatecast("schedules", "resume", "nightly").stdout
    job = said(gatecast("schedules", "run", "nightly", "--json"))["id"]
    listed = said(gatecast("schedules", "list", "--json"))
    assert [(one["name"], one["last_job"], one["job"]["kind"]) for one in listed] == [("nightly", job, "train")]
    gatecast("jobs", "cancel", job)
    gatecast("schedules", "remove", "nightly")
    gatecast("schedules", "add", "search", "0 4 * * 1", demo.DATASET, "--model", "fuel", "--kind", "tune", "--json")
    assert said(gatecast("schedules", "list", "--json"))[0]["job"]["kind"] == "tune"
    gatecast("schedules", "remove", "search")
    assert "no schedule" in gatecast("schedules", "run", "nightly", status=1).stderr


def test_a_tune_is_watched_and_its_trials_are_shown(gatecast: Gatecast, trained: str) -> None:
    quick = ["--config=context=52", "--config=steps=3", "--config=segment=13", "--config=scaling=std", "--horizon=13"]
    asked = ["tune", demo.DATASET, "tuned", *quick, "--space=hidden=4,8", "--space=learning_rate=0.001..0.01:log"]
    said = gatecast(*asked, "--trials=2").output
    for piece in ("trial 1: hidden", "best so far", "Trials, the best first", "0 *", "Leaderboard", "champion"):
        assert piece in said or (piece == "0 *" and "1 *" in said), said
    job = gatecast(*asked, "--trials=1", "--detach").stdout.strip()
    assert job in gatecast("jobs", "list", "--kind=tune").stdout
    gatecast("jobs", "follow", job)
    assert "completed" in gatecast("jobs", "trials", job).stdout
    assert "/space/hiden" in gatecast("tune", demo.DATASET, "x", "--space=hiden=4", status=1).stderr
    assert "name=values" in gatecast("tune", demo.DATASET, "x", "--space=hidden", status=2).stderr


def test_a_failed_job_is_said_with_its_reason() -> None:
    error = Invalid("Too short to learn from.", code="unfit-data").document()
    with pytest.raises(Failed) as failed:
        jobs.succeeded({"id": "job_1", "state": "failed", "error": error})
    assert failed.value.sentences[:2] == ["Job job_1 has failed.", "Too short to learn from."]
    assert "shorter horizon" in failed.value.sentences[2]


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (("train", "-d", "nowhere", "-m", "x"), ["There is no dataset 'nowhere'"]),
        (("train", "-d", "fresh", "-m", "x", "--layers", "99"), ["/config/layers"]),
        (("train", "-d", "fresh", "-m", "x", "--config", "hiden=3"), ["/config/hiden", "spelling"]),
        (("forecast", "-m", "nobody", "-d", "fresh"), ["nobody"]),
        (("models", "show", "a b"), ["path/model"]),
        (("jobs", "show", "job_0"), ["There is no job 'job_0'"]),
    ],
)
def test_a_refusal_is_a_sentence(gatecast: Gatecast, arguments: tuple[str, ...], pieces: list[str]) -> None:
    result = gatecast(*arguments, status=1)
    assert result.stdout == ""
    assert result.stderr.startswith("gatecast: ")
    for piece in pieces:
        assert piece in result.stderr


def test_what_is_wrong_on_this_side_is_said_before_anything_is_sent(gatecast: Gatecast, tmp_path: Path) -> None:
    odd = tmp_path / "data.xlsx"
    odd.write_bytes(b"x")
    assert ".parquet" in gatecast("upload", str(odd), "-d", "x", status=2).stderr
    assert "name=value" in gatecast("train", "-d", "x", "-m", "x", "--config", "hidden", status=2).stderr
    gatecast("upload", str(tmp_path / "nothing.csv"), "-d", "x", status=2)
    assert "not a server's address" in gatecast("jobs", "list", "--url", "ftp://x", status=2).stderr


def test_the_key_comes_from_the_environment_or_a_file(gatecast: Gatecast, tmp_path: Path) -> None:
    refused = gatecast("jobs", status=1, GATECAST_API_KEY="wrong-horse-battery").stderr
    assert "GATECAST_API_KEY" in refused
    assert "wrong-horse" not in refused
    (tmp_path / "key").write_text(KEY + "\n")
    gatecast("jobs", GATECAST_API_KEY="", GATECAST_API_KEY_FILE=str(tmp_path / "key"))
    missing = gatecast("jobs", status=2, GATECAST_API_KEY="", GATECAST_API_KEY_FILE="/no/key")
    assert "No such file" in missing.stderr


def test_a_server_that_is_not_there(gatecast: Gatecast) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = gatecast("models", "list", "--url", address, status=3)
    assert f"No server answers at {address}" in result.stderr
    assert "gatecast serve" in result.stderr


def test_help_explains_itself() -> None:
    result = CliRunner(env={"COLUMNS": "120"}).invoke(root, ["--help"])
    assert result.exit_code == 0
    client = ("upload", "train", "tune", "forecast", "jobs", "models", "schedules")
    for command in ("serve", "worker", "migrate", "demo", *client):
        assert f" {command} " in result.output
        shown = CliRunner(env={"COLUMNS": "120"}).invoke(root, [command, "--help"])
        assert shown.exit_code == 0
        assert "Usage" in shown.output
