"""Load from another process: wrk with requests made beforehand, and what it said."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAD = 'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
TAIL = """
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("FIGURES %f %f %f %d %d %d\\n", summary.requests / summary.duration * 1e6,
    latency:percentile(50), latency:percentile(99), summary.requests, summary.bytes,
    e.status + e.connect + e.read + e.write + e.timeout))
end
"""
# Requests in turn, made once: the strings wrk sends are ready before the first second begins.
IN_TURN = """
local ready, at = {}, 0
function init()
  for line in io.lines(%(file)s) do ready[#ready + 1] = wrk.format(nil, nil, nil, line) end
end
function request()
  at = at %% #ready + 1
  return ready[at]
end
"""
# One new point after another, %(series)d series in turn.
POINTS = """
local at = 0
function request()
  local key, hour = at %% %(series)d, %(first)d + math.floor(at / %(series)d)
  at = at + 1
  return wrk.format(nil, nil, nil, string.format(
    '{"dataset":"points","points":[{"key":"s%%d","timestamp":"%%s","value":%%d.5}]}',
    key, os.date("!%%Y-%%m-%%dT%%H:00:00Z", %(epoch)d + hour * 3600), 100 + hour %% 24))
end
"""


@dataclass(frozen=True)
class Figures:
    """What one round of load found: requests a second, milliseconds, and how many requests went wrong."""

    rate: float
    p50: float
    p99: float
    requests: int
    size: float  # bytes an answer, headers included
    errors: int
    cpu: float = 0.0  # milliseconds of the server's for each request


def available() -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark drives its servers with wrk: install it (Debian: apt-get install wrk)")


def bodies(script: Path, asks: Sequence[dict[str, Any]]) -> Path:
    """A script that sends these questions in turn."""
    lines = script.with_suffix(".jsonl")
    lines.write_text("".join(json.dumps(ask) + "\n" for ask in asks))
    script.write_text(HEAD + IN_TURN % {"file": json.dumps(str(lines))} + TAIL)
    return script


def nothing(script: Path) -> Path:
    """A script that sends what wrk sends by itself."""
    script.write_text(TAIL)
    return script


def points(script: Path, series: int, first: int, epoch: int) -> Path:
    """A script that sends one new point after another, from hour `first` after `epoch` on."""
    script.write_text(HEAD + POINTS % {"series": series, "first": first, "epoch": epoch} + TAIL)
    return script


def drive(script: Path, url: str, connections: int, seconds: int, pid: int | None = None) -> Figures:
    """A round of load on a server; with its process' id, what it cost it."""
    before = cpu_s(pid)
    said = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"FIGURES (.*)", said)
    if found is None:
        raise SystemExit(f"wrk said nothing of use:\n{said}")
    rate, p50, p99, requests, size, errors = map(float, found[1].split())
    count = max(requests, 1)
    cpu = 1000 * (cpu_s(pid) - before) / count
    return Figures(rate, p50 / 1000, p99 / 1000, int(requests), size / count, int(errors), cpu)


def cpu_s(pid: int | None) -> float:
    """Seconds of processor time that a process has used, in all its threads."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
