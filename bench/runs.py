"""Peers and our own core as processes: environments, one measured run each, scores, and results that are kept.

A peer runs in a virtual environment of its own, made under `Place.environments` on first use. What it needed and what
it forecast is kept there in `results.json`, under the peer, its version and the data's digest, so that a long
comparison can be done in parts. Our own runs are never kept: the code moves."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sets

# Threads that spin while they wait cost a library several times its own CPU seconds on busy cores; the worker sets this
# too. Here for what a bench trains in its own process: it is read when torch is loaded, so import this first.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parent
OURS = "gatecast"
PEERS = {
    "statsforecast": ("SeasonalNaive", "AutoETS", "AutoTheta", "DynamicOptimizedTheta"),
    "neuralforecast": ("LSTM", "GRU", "GRU-tuned"),
    "gluonts": ("DeepAR",),
    OURS: ("base", "fast", "balanced", "thorough"),
}
NAMES = tuple(f"{library} {model}" for library, models in PEERS.items() for model in models)


@dataclass(frozen=True)
class Place:
    """Where runs happen. `again` runs peers whose results were kept; `limit_s` ends a run that takes longer."""

    scorer: Path
    environments: Path
    threads: int = 2
    again: bool = False
    limit_s: float = 3600.0


def default_environments() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gatecast-bench"


def result(place: Place, folder: Path, name: str, changes: list[str] | None = None) -> dict[str, Any]:
    """The figures of one peer, or of one of our presets with `changes` to its config, on one data set: kept ones if
    there are any. `new` says which; `failed` says why there are none."""
    library = name.split(maxsplit=1)[0]
    key = f"{name} {version(library)} {sets.digest(folder)} {place.threads}"
    kept = read(place)
    if library != OURS and not place.again and key in kept:
        found = {**kept[key], "new": False}
        forecasts = place.environments / "forecasts" / found["forecasts"]
        return {**found, **score(place.scorer, folder, forecasts)}
    print(f"running {name} on {folder.name}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="gatecast-bench-") as scratch:
        out = Path(scratch) / "forecasts.csv"
        found = {"peer": name, "version": version(library), "data": folder.name, "digest": sets.digest(folder)}
        found |= measured(place, command(place, folder, name, out) + (["--set", *changes] if changes else []))
        if "failed" in found:
            return {**found, "new": True}
        scores = score(place.scorer, folder, out)
        if library != OURS and "failed" not in scores:
            keep(place, key, found, out)
    return {**found, "new": True, **scores}


def version(library: str) -> str:
    """What is run: for peers the line of the requirements, for ours the commit, or that there are changes to it."""
    if library != OURS:
        lines = (HERE / "peer" / f"{library}.txt").read_text().splitlines()
        return next(line for line in lines if line.startswith(library))
    asked = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def command(place: Place, folder: Path, name: str, out: Path) -> list[str]:
    library, model = name.split()
    if library == OURS:
        return [sys.executable, str(HERE / "ours.py"), str(folder), "--out", str(out), "--preset", model]
    python = environment(place, library)
    return [str(python), str(HERE / "peer" / f"run_{library}.py"), str(folder), model, "--out", str(out)]


def environment(place: Place, library: str) -> Path:
    """The Python of a peer's virtual environment, which is made and filled on first use."""
    folder = place.environments / library
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    wanted = (HERE / "peer" / f"{library}.txt").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {library} into {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        requirements = str(HERE / "peer" / f"{library}.txt")
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", requirements], check=True)
        stamp.write_text(wanted)
    return python


def measured(place: Place, ask: list[str]) -> dict[str, Any]:
    """Run a script that prints a line of JSON at its end. That line, with what the system says of the whole process:
    CPU seconds (children included), peak memory of its largest process, seconds, and the load while it ended."""
    variables = {"OMP_NUM_THREADS": str(place.threads), "MKL_NUM_THREADS": str(place.threads)}
    variables["PYTHONPATH"] = str(HERE.parent) if ask[0] == sys.executable else ""
    began = datetime.now(UTC)
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            ask, stdout=said, stderr=errors, env={**os.environ, **variables}, start_new_session=True
        )
        timer = threading.Timer(place.limit_s, lambda: os.killpg(child.pid, signal.SIGKILL))
        timer.start()
        _, status, used = os.wait4(child.pid, 0)
        timer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        errors.seek(0)
        lines, complaint = said.read().strip().splitlines(), errors.read().strip().splitlines()
    found = {
        "date": began.strftime("%Y-%m-%d"),
        "seconds": round((datetime.now(UTC) - began).total_seconds(), 1),
        "whole_cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "whole_peak_mb": round(used.ru_maxrss / 1024),
        "load": round(os.getloadavg()[0], 1),
    }
    if child.returncode == -signal.SIGKILL:
        return {**found, "failed": f"ended after {found['seconds']:.0f} s, limit {place.limit_s:.0f} s"}
    if child.returncode or not lines:
        return {**found, "failed": (complaint or [f"exit status {child.returncode}"])[-1][:200]}
    return {**found, **json.loads(lines[-1])}


def score(scorer: Path, folder: Path, forecasts: Path) -> dict[str, Any]:
    ask = [sys.executable, str(scorer), str(folder), str(forecasts), "--json"]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": f"the scorer: {(done.stdout + done.stderr).strip()[-200:]}"}
    wanted = ("sMAPE", "MASE", "OWA", "wQL", "cov80", "crossing")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {name: round(found[name], 5) for name in wanted if name in found}


def read(place: Place) -> dict[str, Any]:
    path = place.environments / "results.json"
    return json.loads(path.read_text()) if path.exists() else {}


def keep(place: Place, key: str, found: dict[str, Any], out: Path) -> None:
    """Put a run's figures and forecasts where the next comparison finds them."""
    name = key.replace(" ", "_").replace("=", "") + ".csv"
    target = place.environments / "forecasts" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(out.read_bytes())
    everything = {**read(place), key: {**found, "forecasts": name}}
    part = place.environments / "results.json.part"
    part.write_text(json.dumps(everything, indent=1))
    part.replace(place.environments / "results.json")


def said() -> str:
    """The command line as it may be published: folders and files by their last name."""
    words = [word if not word.startswith(("/", "~", ".")) else Path(word).name for word in sys.argv[1:]]
    return shlex.join(["python", f"bench/{Path(sys.argv[0]).name}", *words])


def publish(path: Path | None, **facts: Any) -> None:
    """Write a bench's figures as JSON, with the command, the date and the load they were taken under."""
    if path:
        load = [round(one, 1) for one in os.getloadavg()]
        head = {"command": said(), "date": datetime.now(UTC).strftime("%Y-%m-%d"), "cores": os.cpu_count()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**head, "load_at_the_end": load, **facts}, indent=1) + "\n")
