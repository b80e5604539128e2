"""Real processes for the benchmarks: `gatecast serve` and `gatecast worker` over one data folder."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
ENDED = ("succeeded", "failed", "cancelled")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(data: Path, database_url: str | None = None) -> dict[str, str]:
    """This process' environment with no Gatecast setting in it but the data folder and the database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATECAST_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # pip compiles what it installs, a checkout its first start
    kept |= {"GATECAST_DATA": str(data), "PYTHONUNBUFFERED": "1"}
    return kept | ({"GATECAST_DATABASE_URL": database_url} if database_url else {})


def gatecast(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "app", *arguments]


@contextmanager
def process(log: Path, env: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`gatecast …`, its output in `log`; asked to end when the block does, killed where it does not listen."""
    with log.open("wb") as output:
        started = subprocess.Popen(gatecast(*arguments), cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


@contextmanager
def serving(data: Path, *, apis: int = 1, database_url: str | None = None) -> Iterator[list[str]]:
    """So many API processes and a worker over one data folder; yields their addresses once they are ready."""
    data.mkdir(parents=True, exist_ok=True)
    env = environment(data, database_url)
    subprocess.run(gatecast("migrate"), cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    ports = [free_port() for _ in range(apis)]
    with ExitStack() as stack:
        for port in ports:
            log = data.parent / f"api-{port}.log"
            stack.enter_context(process(log, env, "serve", "--no-worker", "--port", str(port)))
        stack.enter_context(process(data.parent / "worker.log", env, "worker"))
        addresses = [f"http://127.0.0.1:{port}" for port in ports]
        for address in addresses:
            wait_ready(address)
        yield addresses


def wait_ready(address: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if httpx.get(f"{address}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"{address} was not ready within {seconds:.0f} s")
        time.sleep(0.1)


def wait_job(client: httpx.Client, job: str, seconds: float = 1800, *, say: bool = False) -> dict[str, Any]:
    """The job's row once it has ended; SystemExit when it has not within `seconds`."""
    deadline, shown = time.monotonic() + seconds, None
    while True:
        row = client.get(f"/v1/jobs/{job}").raise_for_status().json()
        progress = row["progress"] or {}
        mark = (row["state"], int(10 * (progress.get("fraction") or 0)))
        if say and mark != shown:
            print(f"  {row['state']:<10} {progress.get('message') or ''}", flush=True)
            shown = mark
        if row["state"] in ENDED:
            return row
        if time.monotonic() > deadline:
            raise SystemExit(f"{job} has not ended within {seconds:.0f} s: {row}")
        time.sleep(0.5)
