"""How long an API process takes to start and what memory it takes, beside FastAPI with ONNX Runtime and nothing else.

    python bench/footprint.py [--rounds 5] [--seconds 5] [--json FILE]

`gatecast serve --no-worker` over a folder that has been served before, and `bare.py`, one after the other, round after
round: seconds, and CPU seconds, from the start of the process to its first forecast; megabytes (PSS) when it has
answered once, and while 32 connections ask for forecasts. The figures are medians; ratios are of the same round. PSS
divides what processes share, so where others run the same libraries it reads low: RSS, which counts those whole, stands
beside it. A busy machine stretches seconds, not CPU seconds. Ends with 1 when a bar is missed. Linux only; wants wrk.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import load
from server import ROOT, environment, free_port, gatecast, process

ASK = {"inputs": [{"key": "a", "target": [float(1 + step % 24) for step in range(336)]}], "frequency": "h"}
TICKS = os.sysconf("SC_CLK_TCK")
BARS = {"start, s": (1.5, 0.8), "idle, MB": (160, 140), "under load, MB": (220, 180)}
Figures = dict[str, float]


def memory(pid: int) -> tuple[float, float]:
    """PSS and RSS in megabytes."""
    said = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    pss, rss = (re.search(rf"^{name}:\s+(\d+) kB", said, re.M) for name in ("Pss", "Rss"))
    assert pss is not None
    assert rss is not None
    return int(pss[1]) * 1024 / 1e6, int(rss[1]) * 1024 / 1e6


def used(pid: int) -> float:
    """CPU seconds of the process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def first_answer(url: str, ask: dict[str, Any], started: "subprocess.Popen[bytes]", patience: float = 300.0) -> None:
    deadline = time.monotonic() + patience
    with httpx.Client(timeout=patience) as http:
        while True:
            try:
                http.post(url, json=ask).raise_for_status()
                return
            except httpx.TransportError:
                if started.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"no answer at {url}") from None
                time.sleep(0.005)


def measured(
    start: Callable[[int], AbstractContextManager["subprocess.Popen[bytes]"]], path: str, options: argparse.Namespace
) -> Figures:
    """One process from its start to load and end."""
    port = free_port()
    url = f"http://127.0.0.1:{port}{path}"
    began = time.perf_counter()
    with start(port) as started, tempfile.TemporaryDirectory() as folder:
        first_answer(url, ASK, started)
        found = {"start, s": time.perf_counter() - began, "start, CPU s": used(started.pid)}
        time.sleep(1)
        found["idle, MB"], found["idle, MB RSS"] = memory(started.pid)
        script = load.bodies(Path(folder) / "ask.lua", [ASK])
        driven = subprocess.Popen(
            ["wrk", "-t1", "-c32", f"-d{options.seconds}s", "--timeout", "60s", "-s", str(script), url],
            stdout=subprocess.PIPE,
            text=True,
        )
        peaks: list[tuple[float, float]] = []
        while driven.poll() is None:
            peaks.append(memory(started.pid))
            time.sleep(0.2)
        assert driven.stdout is not None
        said = driven.stdout.read()
        if not re.search(r"FIGURES .* [1-9]\d* \d+ 0\n", said):
            raise SystemExit(f"requests went wrong:\n{said}")
        found["under load, MB"], found["under load, MB RSS"] = (max(one) for one in zip(*peaks, strict=True))
        return found


def bare(log: Path) -> Callable[[int], AbstractContextManager["subprocess.Popen[bytes]"]]:
    class Bare(AbstractContextManager["subprocess.Popen[bytes]"]):
        def __init__(self, port: int) -> None:
            command = [sys.executable, str(ROOT / "bench" / "bare.py"), "--port", str(port)]
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            with log.open("wb") as output:
                self.process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)

        def __enter__(self) -> "subprocess.Popen[bytes]":
            return self.process

        def __exit__(self, *_: object) -> None:
            self.process.terminate()
            self.process.wait()

    return Bare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of load")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load.available()
    pairs: list[tuple[Figures, Figures]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = environment(folder / "data")
        subprocess.run(gatecast("migrate"), cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)

        def ours(port: int) -> AbstractContextManager["subprocess.Popen[bytes]"]:
            return process(folder / "log", env, "serve", "--no-worker", "--port", str(port))

        for _ in range(options.rounds + 1):
            mine = measured(ours, "/v1/forecasts", options)
            pairs.append((mine, measured(bare(folder / "bare"), "/", options)))
    missed = False
    rows: list[dict[str, Any]] = []
    for name in pairs[0][0]:
        mine, theirs = (statistics.median(pair[side][name] for pair in pairs[1:]) for side in (0, 1))
        ratio = statistics.median(one[name] / other[name] for one, other in pairs[1:])
        said = ""
        if name in BARS:
            bar, reach = BARS[name]
            missed |= mine > bar
            said = f"  bar <= {bar:g}, reach {reach:g}: {'MISSED' if mine > bar else 'held'}"
        print(f"{name:<20}{mine:>9.2f}   bare {theirs:>8.2f}   {ratio:>6.2f} x{said}")
        rows.append({"name": name, "ours": round(mine, 3), "bare": round(theirs, 3), "ratio": round(ratio, 3)})
    print(f"load of the machine meanwhile: {os.getloadavg()[1]:.1f} on {os.cpu_count()} processors")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
