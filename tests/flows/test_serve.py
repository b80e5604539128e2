"""`gatecast serve` as people start it: real processes, found by their port, stopped by signals."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.db.session import Database

KEY = "correct-horse-battery"


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The process' environment: the test's database and data folder, and nothing of the caller's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATECAST_")}
    kept |= {"GATECAST_DATA": str(settings.data), "NO_COLOR": "1"}
    if settings.database_url is not None:
        kept["GATECAST_DATABASE_URL"] = settings.database_url.get_secret_value()
    return kept | more


def gatecast(settings: Settings, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A command run to its end."""
    command = [sys.executable, "-P", "-m", "app", *arguments]
    return subprocess.run(
        command, env=environment(settings, **more), capture_output=True, text=True, check=False, timeout=60
    )


class Server:
    """`gatecast serve` on a free port, in a session of its own."""

    def __init__(self, settings: Settings, folder: Path, *arguments: str, **more: str) -> None:
        announced = folder / "address"
        announced.unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "app", "serve", "--port", "0", "--announce", str(announced), *arguments]
        self.log = (folder / "log").open("a+")
        self.process = subprocess.Popen(
            command, env=environment(settings, **more), start_new_session=True, stdout=self.log, stderr=self.log
        )
        until(lambda: announced.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.text()
        self.url = announced.read_text()
        self.http = httpx.Client(base_url=self.url)

    def text(self) -> str:
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def workers(self) -> list[dict[str, Any]]:
        return self.http.get("/v1/system").json()["workers"]

    def children(self) -> list[int]:
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def serve(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server; what is left of it at the end is killed, and its worker sees that."""
    started: list[Server] = []

    def start(*arguments: str, **more: str) -> Server:
        started.append(Server(settings, tmp_path, *arguments, **more))
        return started[-1]

    yield start
    for server in started:
        server.http.close()
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        server.log.close()


def until(found: Callable[[], Any]) -> Any:
    """What `found` gives once it is truthy. Fails after a minute."""
    import time

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.05)
    pytest.fail("waited a minute in vain")


def _is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_server_and_worker_start_restart_and_stop_together(serve: Callable[..., Server]) -> None:
    server = serve()
    assert server.http.get("/readyz").json() == {"status": "ready"}
    first = until(server.workers)[0]["id"]
    (pid,) = server.children()
    os.kill(pid, signal.SIGKILL)
    until(lambda: any(worker["id"] != first for worker in server.workers()))
    (again,) = server.children()
    assert again != pid
    assert "starts again" in server.text()
    assert server.stop() == 0
    assert not _is_alive(again)
    assert server.url in server.text()


def test_a_worker_does_not_outlive_its_server(serve: Callable[..., Server]) -> None:
    server = serve()
    until(server.workers)
    (pid,) = server.children()
    server.process.kill()
    server.process.wait()
    until(lambda: not _is_alive(pid))


def test_without_a_worker_and_with_a_key(serve: Callable[..., Server], settings: Settings) -> None:
    server = serve("--no-worker", "--host", "0.0.0.0", GATECAST_API_KEY=KEY, GATECAST_LOG_FORMAT="json")
    assert server.http.get("/v1/system").status_code == 401
    said = server.http.get("/v1/system", headers={"x-api-key": KEY}).json()
    assert said["workers"] == []
    assert server.children() == []
    assert server.stop(signal.SIGINT) == 0
    assert KEY not in server.text()
    assert '"message":"200 GET /v1/system"' in server.text()


def test_a_stopping_server_ends_streams_and_lets_requests_finish(
    serve: Callable[..., Server], database: Database
) -> None:
    from app.db.tables import JobRow

    with database.write("default") as session:
        session.add(JobRow(id="job_x", kind="train", state="running", spec={}))
    server = serve("--no-worker")
    with server.http.stream("GET", "/v1/jobs/job_x/events", timeout=30) as stream:
        assert stream.status_code == 200
        assert server.stop() == 0
        assert list(stream.iter_lines()) == []


def test_a_folder_that_is_not_there_yet_is_made_and_migrated(tmp_path: Path) -> None:
    fresh = Settings(data=tmp_path / "a" / "b")
    server = Server(fresh, tmp_path, "--no-worker")
    try:
        assert server.http.get("/readyz").status_code == 200
    finally:
        server.http.close()
        assert server.stop() == 0
        server.log.close()
    assert (fresh.data / "gatecast.db").exists()


def test_a_port_in_use_gets_a_sentence(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = gatecast(settings, "serve", "--port", port, "--no-worker")
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 is in use." in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_does_not_open_itself_to_others_by_accident(settings: Settings) -> None:
    done = gatecast(settings, "serve", "--host", "0.0.0.0", "--no-worker")
    assert done.returncode == 2
    assert "GATECAST_API_KEY" in done.stderr
    assert "--allow-open" in done.stderr


def test_settings_that_are_not_right_are_named_without_their_value(settings: Settings) -> None:
    done = gatecast(settings, "serve", GATECAST_API_KEY="hush", GATECAST_PORT="much")
    assert done.returncode == 2
    assert "GATECAST_API_KEY: " in done.stderr
    assert "GATECAST_PORT: " in done.stderr
    assert "hush" not in done.stderr + done.stdout


def test_an_old_postgresql_is_not_migrated_in_passing(settings: Settings) -> None:
    if settings.database_url is None:
        done = gatecast(Settings(data=settings.data / "none"), "worker")
    else:
        assert gatecast(settings, "migrate", "--revision", "base").returncode == 0
        done = gatecast(settings, "serve", "--no-worker", "--port", "0")
    assert done.returncode == 1
    assert "gatecast migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_cannot_be_used_gets_a_sentence(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "gatecast.db").write_text("not a database, " * 100)
    done = gatecast(Settings(data=tmp_path / "odd"), "serve", "--no-worker", "--port", "0")
    assert done.returncode == 1
    assert "not a database" in done.stderr
    done = gatecast(settings, "worker", GATECAST_DATABASE_URL="postgresql://u:p4ss@127.0.0.1:1/x")
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "p4ss" not in done.stderr


def test_the_openapi_document_is_printed(settings: Settings) -> None:
    done = gatecast(settings, "openapi")
    assert json.loads(done.stdout)["info"]["title"] == "Gatecast"


def test_a_long_answer_that_cannot_go_on_is_cut(serve: Callable[..., Server], settings: Settings) -> None:
    """What a client has got of it then is no whole answer, whatever its status says, and the log has the cause."""
    assert gatecast(settings, "migrate").returncode == 0  # of PostgreSQL, where nothing else installs the base
    server = serve("--no-worker", GATECAST_MAX_VERSIONS_LOADED="1")
    days = [f"2026-01-{day:02d}" for day in range(1, 13)]
    rows = (f"s{place:05d},{day},{place % 7 + 1}" for place in range(5000) for day in days)
    content = "key,timestamp,value\n" + "\n".join(rows)
    csv = {"Content-Type": "text/csv"}
    server.http.post("/v1/datasets/many/revisions", content=content, headers=csv, timeout=60).raise_for_status()
    levels = [place / 100 for place in range(1, 100)]
    question = {"model": "base", "dataset": "many", "horizon": 48, "quantiles": levels}  # 24 million numbers
    plain = {"Accept-Encoding": "identity"}
    with server.http.stream("POST", "/v1/forecasts", json=question, headers=plain, timeout=60) as answer:
        assert answer.status_code == 200
        pieces = answer.iter_raw()
        assert next(pieces).startswith(b'{"model":')
        with httpx.Client(base_url=server.url) as other:
            other.delete("/v1/datasets/many").raise_for_status()
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in pieces:
                pass
    until(lambda: "There is no dataset 'many'" in server.text())
    assert server.http.get("/healthz").status_code == 200
