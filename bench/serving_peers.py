"""One small network behind our server, BentoML, LitServe and MLflow's server: requests a second.

    python bench/serving_peers.py [--keep FOLDER] [--environments FOLDER] [--rounds 3] [--seconds 3] [--json FILE]

All compute the same graph, that of one of our versions, with ONNX Runtime on one thread; each peer in the modes that
serve it best (`peer/serve_*.py`). `next` is the next step of one stored series: ours reads it from its database, theirs
from memory. `horizon` is 336 points sent and 48 steps x 9 quantiles back. All servers run at once, one is driven by wrk
at a time, in turn, round after round; the figure is the median of the ratios within the rounds, against the best of a
peer's modes. Ends with 1 when a bar is missed. Environments are made from `peer/*.txt` on first use.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fixtures
import httpx
import load
import runs
from fixtures import Place
from server import ROOT, free_port, gatecast, wait_ready

HERE = ROOT / "bench" / "peer"
PEERS = ("bentoml", "litserve", "mlflow")
MODES = {
    "next": [("bentoml", ""), ("litserve", ""), ("litserve", "batch"), ("mlflow", "")],
    "horizon": [("bentoml", ""), ("bentoml", "batch"), ("litserve", ""), ("litserve", "batch"), ("mlflow", "")],
}
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 300.0  # seconds to wait for a first answer
BARS = {32: (4.0, 7.0), 1: (2.0, 3.5)}


@dataclass(frozen=True)
class Target:
    """One server that answers a row: whose it is, its mode, where it is, what it is asked, its process."""

    name: str
    mode: str
    url: str
    ask: dict[str, Any]
    pid: int

    @property
    def label(self) -> str:
        return f"{self.name} {self.mode}".strip()


def command(name: str, row: str, port: int, python: Path, folder: Path) -> tuple[list[str], str, dict[str, Any]]:
    """What starts a peer, the path of its route, and the question of a row."""
    history = fixtures.wave(1, fixtures.CONTEXT)[0].tolist()
    beside = {program: str(python.with_name(program)) for program in ("bentoml", "mlflow")}
    if name == "bentoml":
        ask = {"series": "s0"} if row == "next" else {"context": [history]}
        started = [beside[name], "serve", "serve_bentoml:Forecaster", "--host", "127.0.0.1", "--port", str(port)]
        return started, f"/{row}", ask
    if name == "litserve":
        ask = {"series": "s0"} if row == "next" else {"context": history}
        return [str(python), "serve_litserve.py", "--port", str(port), "--row", row], f"/{row}", ask
    model = folder / f"mlflow-{port}"
    written = subprocess.run([str(python), "serve_mlflow.py", str(model)], cwd=HERE, capture_output=True, check=False)
    if written.returncode:
        raise SystemExit(f"mlflow wrote no model:\n{written.stderr.decode()[-2000:]}")
    started = [beside[name], "models", "serve", "-m", str(model), "--env-manager", "local", "-p", str(port)]
    return started, "/invocations", {"inputs": ["s0"] if row == "next" else [history]}


@contextmanager
def running(started: list[str], folder: Path, env: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A server in a session of its own, ours too: a system that shares time out by sessions gives each the same."""
    with log.open("wb") as output:
        server = subprocess.Popen(
            started, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield server
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def used(pid: int) -> float:
    """CPU seconds so far of a process and of all that it started, and they in turn."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        number = int(stat.parent.name)
        parents[number], ticks[number] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks.get(number, 0) for number in family) / TICKS


@contextmanager
def peer(options: argparse.Namespace, folder: Path, graph: Path, which: tuple[str, str], row: str) -> Iterator[Target]:
    """A peer's server, once it has answered."""
    name, mode = which
    place = runs.Place(Path(), options.environments.expanduser())
    port, python = free_port(), runs.environment(place, name)
    quiet = {"BENTOML_DO_NOT_TRACK": "true", "UVICORN_ACCESS_LOG": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    env = {**os.environ, **quiet, "GRAPH": str(graph), "MODE": mode, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    env["PATH"] = f"{python.parent}:{env['PATH']}"
    started, path, ask = command(name, row, port, python, folder)
    log = folder / f"{name}-{mode}-{row}.log"
    with running(started, HERE, env, log) as server:
        target = Target(name, mode, f"http://127.0.0.1:{port}{path}", ask, server.pid)
        wait(target, server, log, 3 if row == "next" else fixtures.HORIZON * len(fixtures.LEVELS))
        yield target


def wait(target: Target, server: "subprocess.Popen[bytes]", log: Path, expected: int) -> None:
    """Until the peer has answered rightly: as many numbers as asked for."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        try:
            answer = httpx.post(target.url, json=target.ask, timeout=60)
        except httpx.TransportError:
            time.sleep(0.2)
            continue
        if answer.is_success:
            if (found := numbers(answer.json())) != expected:
                raise SystemExit(f"{target.label} answered {found} numbers, expected {expected}")
            return
        if answer.status_code < 500:
            raise SystemExit(f"{target.label}: {answer.status_code} {answer.text[:500]}")
        time.sleep(0.2)
    raise SystemExit(f"{target.label} gave no answer:\n{log.read_text()[-3000:]}")


def numbers(document: Any) -> int:
    """How many numbers there are in an answer."""
    if isinstance(document, dict):
        return sum(map(numbers, document.values()))
    if isinstance(document, list):
        return sum(map(numbers, document))
    return int(isinstance(document, int | float))


@dataclass(frozen=True)
class Round:
    """Requests a second, and CPU milliseconds a request, which other work on the machine stretches less."""

    rate: float
    cpu: float


Found = dict[tuple[str, int], list[Round]]


def measured(targets: list[Target], options: argparse.Namespace, folder: Path) -> Found:
    """What each target did, round by round, at 32 connections and at one."""
    scripts = [load.bodies(folder / f"{place}.lua", [target.ask]) for place, target in enumerate(targets)]
    found: Found = {}
    for turn in range(options.rounds + 1):  # the first one warms
        for connections in BARS:
            for target, script in zip(targets, scripts, strict=True):
                before = used(target.pid)
                figures = load.drive(script, target.url, connections, options.seconds if turn else 1)
                if figures.errors:
                    print(f"  {target.label}: {figures.errors} of {figures.requests} requests went wrong or timed out")
                if turn and figures.requests:
                    cpu = 1000 * (used(target.pid) - before) / figures.requests
                    found.setdefault((target.label, connections), []).append(Round(figures.rate, cpu))
    return found


def compared(row: str, found: Found) -> Iterator[dict[str, Any]]:
    """The rows of the table: how many times as fast as the best mode of each peer."""
    for name in PEERS:
        for connections, (bar, reach) in BARS.items():
            ours = found["gatecast", connections]
            modes = {label: each for (label, count), each in found.items() if count == connections and name in label}
            best = max(modes, key=lambda label: statistics.median(one.rate for one in modes[label]))
            factor = statistics.median(one.rate / two.rate for one, two in zip(ours, modes[best], strict=False))
            rates = [statistics.median(one.rate for one in each) for each in (ours, modes[best])]
            cpus = [statistics.median(one.cpu for one in each) for each in (ours, modes[best])]
            said = f"{rates[0]:>7,.0f}/s of ours, {rates[1]:>6,.0f}/s of {best}"
            spent = f"CPU {cpus[0]:.2f} ms of ours, {cpus[1]:.2f} of theirs ({cpus[1] / cpus[0]:.1f} x)"
            verdict = "MISSED" if factor < bar else "held"
            where = f"{row}, {connections} connection{'s' if connections > 1 else ''}"
            print(
                f"{where:<24}{factor:>6.2f} x  {said:<46}{spent:<52}bar {bar:g}, reach {reach:g}: {verdict}", flush=True
            )
            yield {"row": row, "peer": best, "connections": connections, "factor": round(factor, 2)} | {
                "rates": [round(rate) for rate in rates],
                "cpu_ms": [round(cpu, 3) for cpu in cpus],
                "held": factor >= bar,
            }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder with what is trained and uploaded, as serving.py's")
    parser.add_argument("--environments", type=Path, default=runs.default_environments())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load.available()
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = Place((options.keep or folder) / "data")
        fixtures.prepare(place, None)
        port = free_port()
        started = gatecast("serve", "--no-worker", "--port", str(port))
        ours = stack.enter_context(running(started, ROOT, place.environment, folder / "api.log"))
        url = f"http://127.0.0.1:{port}"
        wait_ready(url, 300)
        graph = folder / "forward.onnx"
        graph.write_bytes(httpx.get(f"{url}/v1/models/{fixtures.MODEL}/versions/1/files/forward.onnx").content)
        asks = {"next": fixtures.stored("s0"), "horizon": fixtures.sent(fixtures.wave(1, fixtures.CONTEXT)[0])}
        for row, modes in MODES.items():
            with ExitStack() as servers:
                targets = [Target("gatecast", "", f"{url}/v1/forecasts", asks[row], ours.pid)]
                for which in modes:
                    targets.append(servers.enter_context(peer(options, folder, graph, which, row)))
                rows += compared(row, measured(targets, options, folder))
    print(f"load of the machine meanwhile: {os.getloadavg()[1]:.1f} on {os.cpu_count()} processors")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(not all(row["held"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
