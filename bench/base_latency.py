"""How fast the model that comes with the server answers over HTTP, beside a route that does nothing.

    python bench/base_latency.py [--requests 300] [--series 10000] [--points 100]

Starts `gatecast serve --no-worker` over an empty folder and asks, from one client, as soon as it says that it is ready:
the first forecast of one series of 500 points 24 steps ahead, then many more, then all the series in one request. Each
is given in milliseconds and as a multiple of GET /healthz of the same server, which says what the machine and HTTP
themselves take. Ends with 1 when a bar is missed.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from server import environment, process

HOUR = "2026-01-01T00:00:00Z"
FIRST_MS, LATER_MS, MANY_S = 20.0, 3.0, 10.0  # bars


def history(count: int, points: int) -> list[dict[str, Any]]:
    """Hourly series with a day and a week in them, and noise."""
    steps, random = np.arange(points), np.random.default_rng(0)
    shape = 10 * np.sin(2 * np.pi * steps / 24) + 4 * np.sin(2 * np.pi * steps / 168)
    values = np.round(100 + shape + random.normal(0, 2, (count, points)), 2)
    return [{"key": f"s{place}", "start": HOUR, "target": row} for place, row in enumerate(values.tolist())]


def body(count: int, points: int) -> bytes:
    return json.dumps({"inputs": history(count, points), "frequency": "h", "horizon": 24}).encode()


def milliseconds(act: Callable[[], httpx.Response]) -> float:
    began = time.perf_counter()
    act().raise_for_status()
    return (time.perf_counter() - began) * 1000


def started(announced: Path, log: Path, patience: float = 60) -> str:
    """The server's address, once it has said that it is ready."""
    deadline = time.monotonic() + patience
    while not announced.exists():
        if time.monotonic() > deadline:
            raise SystemExit(f"the server was not ready within {patience:.0f} s:\n{log.read_text()}")
        time.sleep(0.005)
    return announced.read_text()


def measure(http: httpx.Client, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of each kind of request; the very first one goes first."""
    one, many = body(1, 500), body(options.series, options.points)
    headers = {"Content-Type": "application/json"}

    def forecast(content: bytes) -> httpx.Response:
        return http.post("/v1/forecasts", content=content, headers=headers)

    found = {"first forecast": milliseconds(lambda: forecast(one))}
    later = sorted(milliseconds(lambda: forecast(one)) for _ in range(options.requests))
    nothing = sorted(milliseconds(lambda: http.get("/healthz")) for _ in range(options.requests))
    found |= {
        "later forecasts, median": statistics.median(later),
        "later forecasts, 95 %": later[int(0.95 * len(later))],
    }
    found |= {"GET /healthz, median": statistics.median(nothing)}
    print(f"  Server-Timing of one: {forecast(one).headers['server-timing']}")
    answer = forecast(many)
    print(f"  Server-Timing of {options.series:,}: {answer.headers['server-timing']} ({len(many) / 1e6:.0f} MB asked)")
    assert len(answer.json()["forecasts"]) == options.series
    found[f"{options.series:,} series of {options.points} points"] = milliseconds(lambda: forecast(many))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=100, help="points of each of the many series")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        announced, log = Path(folder) / "address", Path(folder) / "log"
        arguments = ("serve", "--no-worker", "--port", "0", "--announce", str(announced))
        server = process(log, environment(Path(folder) / "data"), *arguments)
        with server, httpx.Client(base_url=started(announced, log), timeout=300) as http:
            http.get("/healthz")  # the connection itself
            found = measure(http, options)
    many = found[f"{options.series:,} series of {options.points} points"]
    bars = {"first forecast": FIRST_MS, "later forecasts, median": LATER_MS}
    bars[f"{options.series:,} series of {options.points} points"] = MANY_S * 1000
    nothing = found["GET /healthz, median"]
    for name, value in found.items():
        bar = f"   bar {bars[name]:,.0f} ms: {'held' if value <= bars[name] else 'MISSED'}" if name in bars else ""
        print(f"{name:<36} {value:>10,.2f} ms {value / nothing:>10,.1f} x /healthz{bar}")
    print(f"{options.series / many * 1000:,.0f} series a second in one request")
    return int(any(found[name] > bar for name, bar in bars.items()))


if __name__ == "__main__":
    sys.exit(main())
