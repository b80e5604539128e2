"""How fast the model that comes with the server answers over HTTP, beside a route that does nothing.

    python bench/base_latency.py [--requests 300] [--seconds 3] [--series 10000] [--points 100]

Starts `gatecast serve --no-worker` over an empty folder and asks, as soon as it says that it is ready: the first
forecast of one series of 500 points 24 steps ahead, then more of them one after the other, then all the series in one
request. The later ones are asked by wrk on one connection; what httpx sees of them, whose own work is Python as well,
stands beside it. Each is given in milliseconds and as a multiple of GET /healthz of the same server by wrk, which says
what the machine and HTTP themselves take. Ends with 1 when a bar is missed.
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
import load
import numpy as np
from server import environment, process

HOUR = "2026-01-01T00:00:00Z"
FIRST_MS, LATER_MS, MANY_S = 20.0, 3.0, 10.0  # bars
LATER, NOTHING = "later forecasts, p50", "GET /healthz, p50"


def history(count: int, points: int) -> list[dict[str, Any]]:
    """Hourly series with a day and a week in them, and noise."""
    steps, random = np.arange(points), np.random.default_rng(0)
    shape = 10 * np.sin(2 * np.pi * steps / 24) + 4 * np.sin(2 * np.pi * steps / 168)
    values = np.round(100 + shape + random.normal(0, 2, (count, points)), 2)
    return [{"key": f"s{place}", "start": HOUR, "target": row} for place, row in enumerate(values.tolist())]


def ask(count: int, points: int) -> dict[str, Any]:
    return {"inputs": history(count, points), "frequency": "h", "horizon": 24}


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


def first_asked(http: httpx.Client, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of the very first forecast, and of later ones from the same client."""
    content = json.dumps(ask(1, 500)).encode()

    def forecast() -> httpx.Response:
        return http.post("/v1/forecasts", content=content, headers={"Content-Type": "application/json"})

    found = {"first forecast": milliseconds(forecast)}
    later = [milliseconds(forecast) for _ in range(options.requests)]
    print(f"  Server-Timing of one: {forecast().headers['server-timing']}")
    return found | {"later forecasts as httpx sees them, median": statistics.median(later)}


def by_wrk(url: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of later forecasts and of what asks nothing, one after the other."""
    forecast = load.drive(load.bodies(folder / "ask.lua", [ask(1, 500)]), f"{url}/v1/forecasts", 1, options.seconds)
    nothing = load.drive(load.nothing(folder / "nothing.lua"), f"{url}/healthz", 1, options.seconds)
    if forecast.errors or nothing.errors:
        raise SystemExit(f"{forecast.errors + nothing.errors} requests went wrong")
    return {LATER: forecast.p50, "later forecasts, p99": forecast.p99, NOTHING: nothing.p50}


def all_at_once(http: httpx.Client, options: argparse.Namespace) -> float:
    """Milliseconds of one request for all the series."""
    many = json.dumps(ask(options.series, options.points)).encode()

    def forecast() -> httpx.Response:
        return http.post("/v1/forecasts", content=many, headers={"Content-Type": "application/json"})

    answer = forecast()
    print(f"  Server-Timing of {options.series:,}: {answer.headers['server-timing']} ({len(many) / 1e6:.0f} MB asked)")
    assert len(answer.json()["forecasts"]) == options.series
    return milliseconds(forecast)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300, help="later ones that httpx asks")
    parser.add_argument("--seconds", type=int, default=3, help="for which wrk asks")
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=100, help="points of each of the many series")
    options = parser.parse_args()
    load.available()
    many = f"{options.series:,} series of {options.points} points"
    with tempfile.TemporaryDirectory() as folder:
        announced, log = Path(folder) / "address", Path(folder) / "log"
        arguments = ("serve", "--no-worker", "--port", "0", "--announce", str(announced))
        server = process(log, environment(Path(folder) / "data"), *arguments)
        with server, httpx.Client(base_url=(url := started(announced, log)), timeout=300) as http:
            http.get("/healthz")  # the connection itself
            found = first_asked(http, options) | by_wrk(url, Path(folder), options)
            found[many] = all_at_once(http, options)
    bars = {"first forecast": FIRST_MS, LATER: LATER_MS, many: MANY_S * 1000}
    for name, value in found.items():
        bar = f"   bar {bars[name]:,.0f} ms: {'held' if value <= bars[name] else 'MISSED'}" if name in bars else ""
        print(f"{name:<44} {value:>10,.2f} ms {value / found[NOTHING]:>10,.1f} x /healthz{bar}")
    print(f"{options.series / found[many] * 1000:,.0f} series a second in one request")
    return int(any(found[name] > bar for name, bar in bars.items()))


if __name__ == "__main__":
    sys.exit(main())
