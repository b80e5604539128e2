"""Forecasts over HTTP beside a route that does nothing, points that arrive beside durable commits.

    python bench/serving.py [--data M4-FOLDER] [--keep FOLDER] [--database-url postgresql://…]
                            [--rounds 3] [--seconds 3] [--only NAME …] [--json FILE]

One `gatecast serve --no-worker`, as it comes, with versions of one small GRU (`fixtures.py`), beside a FastAPI
`async def` route that returns prebuilt bytes of the same size (`noop.py`), both driven by wrk in turn, round after
round. The figure of a row is the median over the rounds of the ratio within each. Answers are compared with what was
answered one by one before, and with forecasts from the same history sent in the request. The rows: `next` (one stored
series, one step), `horizon` (336 points sent, 48 steps x 9 quantiles), `mixed` (both over 200 series and 5 versions in
turn while points arrive), `points` (/next), `bulk` (M4 Hourly, 10,000 series). Ends with 1 when a bar is missed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fixtures
import httpx
import load
import numpy as np
from commits import durable_commits
from fixtures import CONTEXT, HORIZON, LEVELS, MANY, SERIES, START, VERSIONS, Place
from load import Figures
from server import ROOT, free_port, process, wait_ready

ROWS = ("next", "horizon", "mixed", "points", "bulk")
ARRIVING = 10  # points a second that arrive while `mixed` runs


@dataclass
class Table:
    """The rows as they are found: name, figure, unit, bar; and whether a bar was missed."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, figure: float, unit: str, bar: float | None, reach: float | None = None) -> None:
        more = unit in ("%", "x commits")  # else the less the better
        missed = bar is not None and (figure < bar if more else figure > bar)
        self.rows.append({"name": name, "figure": figure, "unit": unit, "bar": bar, "reach": reach, "missed": missed})
        sign = ">=" if more else "<="
        said = "" if bar is None else f"  bar {sign} {bar:g}, reach {reach:g}: {'MISSED' if missed else 'held'}"
        print(f"{name:<62} {figure:>9.2f} {unit:<9}{said}", flush=True)

    def figure(self, name: str) -> float | None:
        return next((row["figure"] for row in self.rows if row["name"] == name), None)


@dataclass
class Bench:
    """What every row needs."""

    http: httpx.Client
    url: str
    folder: Path
    place: Place
    options: argparse.Namespace
    pid: int
    table: Table = field(default_factory=Table)

    def ask(self, ask: dict[str, Any], **headers: str) -> httpx.Response:
        return self.http.post("/v1/forecasts", json=ask, headers=headers).raise_for_status()


def values(document: dict[str, Any]) -> np.ndarray:
    """All numbers of an answer in one line."""
    rows = document["forecasts"]
    return np.array([[row["mean"], *row["quantiles"].values()] for row in rows], np.float64).ravel()


def same(found: dict[str, Any], expected: dict[str, Any], what: str) -> None:
    """SystemExit unless two answers hold the same numbers (float32 inside: to 1e-5 of their size)."""
    if not np.allclose(values(found), values(expected), rtol=1e-5, atol=1e-5):
        raise SystemExit(f"{what}: another forecast than the one asked for alone")


def answered(figures: Figures, size: float, what: str) -> Figures:
    """SystemExit when a request of a round went wrong, or answers were not as long as they must be."""
    if figures.errors or not figures.requests:
        raise SystemExit(f"{what}: {figures.errors} of {figures.requests} requests went wrong")
    if abs(figures.size - size) > 0.05 * size:
        raise SystemExit(f"{what}: answers of {figures.size:.0f} bytes, expected about {size:.0f}")
    return figures


@contextmanager
def nothing(bench: Bench, body: bytes) -> Iterator[tuple[str, int]]:
    """A route that answers with these bytes."""
    file, port = bench.folder / "answer.json", free_port()
    file.write_bytes(body)
    started = subprocess.Popen([sys.executable, str(ROOT / "bench" / "noop.py"), str(file), "--port", str(port)])
    try:
        url = f"http://127.0.0.1:{port}/"
        for _ in range(200):
            try:
                httpx.post(url)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield url, started.pid
    finally:
        started.terminate()
        started.wait()


# ---------------------------------------------------------------- beside a route that does nothing


def in_turn(bench: Bench, asks: list[dict[str, Any]], name: str) -> dict[str, list[tuple[Figures, Figures]]]:
    """Rounds of (ours, the no-op's) figures, at 32 connections and at one."""
    script, url = load.bodies(bench.folder / f"{name}.lua", asks), f"{bench.url}/v1/forecasts"
    expected = [bench.ask(ask) for ask in asks]
    size = statistics.mean(len(each.content) + head_size(each) for each in expected)
    found: dict[str, list[tuple[Figures, Figures]]] = {"32": [], "1": []}
    with nothing(bench, expected[0].content) as (still, pid):
        for connections in (32, 1):
            load.drive(script, url, connections, 1)
            load.drive(script, still, connections, 1)
        for _ in range(bench.options.rounds):
            for connections in (32, 1):
                ours = answered(load.drive(script, url, connections, bench.options.seconds, bench.pid), size, name)
                base = load.drive(script, still, connections, bench.options.seconds, pid)
                found[str(connections)].append((ours, base))
                if name != "mixed":
                    same(bench.ask(asks[0]).json(), expected[0].json(), name)
    return found


def head_size(answer: httpx.Response) -> int:
    return sum(len(key) + len(value) + 4 for key, value in answer.headers.raw) + 19


def alone(bench: Bench, name: str, asks: list[dict[str, Any]], bars: tuple[float, float]) -> None:
    rounds = in_turn(bench, asks, name)
    many, one = rounds["32"], rounds["1"]
    share = statistics.median(100 * ours.rate / base.rate for ours, base in many)
    bench.table.add(f"{name}: requests/s at 32 connections, share of the no-op", share, "%", *bars)
    rates = [statistics.median(pair[side].rate for pair in many) for side in (0, 1)]
    cost = [1000 * statistics.median(pair[side].cpu for pair in many) for side in (0, 1)]
    print(f"  {rates[0]:,.0f}/s of {rates[1]:,.0f}/s; CPU {cost[0]:.0f} us a request of the no-op's {cost[1]:.0f} us")
    # What others do on the machine moves rates apart, but not what a request costs.
    bench.table.add(f"{name}: the no-op's CPU a request, of ours", 100 * cost[1] / cost[0], "%", None)
    p50 = statistics.median(ours.p50 - base.p50 for ours, base in one)
    p99 = statistics.median(ours.p99 - base.p99 for ours, base in one)
    bench.table.add(f"{name}: p50 at one connection above the no-op's", p50, "ms", 0.6, 0.2)
    bench.table.add(f"{name}: p99 at one connection above the no-op's", p99, "ms", 1.5, 0.4)
    print(f"  the no-op's {statistics.median(base.p50 for _, base in one):.3f} ms at one connection")
    tail = statistics.median(ours.p99 / (base.p99 / (ours.rate / base.rate)) for ours, base in many)
    bench.table.add(f"{name}: p99 at 32 connections, over the no-op's / share", tail, "x", 1.3, 1.1)


def next_step(bench: Bench) -> None:
    alone(bench, "next", [fixtures.stored("s0")], (50, 75))


def horizon(bench: Bench) -> None:
    alone(bench, "horizon", [fixtures.sent(fixtures.wave(1, CONTEXT)[0])], (40, 55))


# ---------------------------------------------------------------- many series and versions in turn


def mixed(bench: Bench) -> None:
    """Both questions over 200 series and 5 versions in turn, points arriving; against the same question alone."""
    history = fixtures.wave(SERIES, CONTEXT, seed=9)
    pairs = [(place, 1 + place % VERSIONS) for place in range(SERIES)]
    cases = {
        "next": [fixtures.stored(f"s{place}", "hours", version) for place, version in pairs],
        "horizon": [fixtures.sent(history[place], version) for place, version in pairs],
    }
    single = {"next": [fixtures.stored("s0")], "horizon": [fixtures.sent(history[0])]}
    for name, asks in cases.items():
        alone_, url = load.bodies(bench.folder / "single.lua", single[name]), f"{bench.url}/v1/forecasts"
        script = load.bodies(bench.folder / "mixed.lua", asks)
        answers = [bench.ask(ask) for ask in asks]
        size = statistics.mean(len(each.content) + head_size(each) for each in answers)
        shares: list[float] = []
        for _ in range(bench.options.rounds):
            base = load.drive(alone_, url, 32, bench.options.seconds)
            with arriving(bench) as count:
                ours = load.drive(script, url, 32, bench.options.seconds)
            shares.append(100 * answered(ours, size, f"mixed {name}").rate / base.rate)
        bench.table.add(
            f"mixed: {name} over 200 series, 5 versions, of the single one", statistics.median(shares), "%", 80, 100
        )
        print(f"  {ours.rate:,.0f}/s of {base.rate:,.0f}/s, {count[0]} points arrived in the last round")
        check_mixed(bench, asks, name)


@contextmanager
def arriving(bench: Bench) -> Iterator[list[int]]:
    """Points that arrive one by one at the end of one series after another of `hours`, ten a second."""
    stop, count = threading.Event(), [0]
    row = bench.http.get("/v1/datasets/hours").json()
    first = int(np.datetime64(row["end"][:19], "h").astype(int)) + 1

    def arrive() -> None:
        with httpx.Client(base_url=bench.url, timeout=60) as http:
            while not stop.wait(1 / ARRIVING):
                place = count[0] % SERIES
                when = str(np.datetime64(first + count[0] // SERIES, "h")) + ":00:00Z"
                point = {"key": f"s{place}", "timestamp": when, "value": 100.0 + place}
                body = {"dataset": "hours", "points": [point]}
                http.post(f"/v1/models/{fixtures.MODEL}/next", json=body).raise_for_status()
                count[0] += 1

    thread = threading.Thread(target=arrive)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()


def check_mixed(bench: Bench, asks: list[dict[str, Any]], name: str) -> None:
    """Every series' answer against the forecast of its history as the server hands it out, sent in the request."""
    if name != "next":
        return
    for ask in asks[:: SERIES // 20]:
        key = ask["series"][0]
        points = bench.http.get(f"/v1/datasets/hours/series/{key}/points").raise_for_status().json()
        (times, target) = (points[column][-CONTEXT:] for column in ("timestamp", "value"))
        one = {"key": key, "start": times[0], "target": target}
        again = {"model": ask["model"], "inputs": [one], "frequency": "h", "horizon": 1}
        same(bench.ask(ask).json(), bench.ask(again).json(), f"mixed {key}")


# ---------------------------------------------------------------- points that arrive


def points(bench: Bench) -> None:
    """/next at 32 connections beside single-row durable commits of the same database."""
    ratios: list[float] = []
    url = f"{bench.url}/v1/models/{fixtures.MODEL}/next"
    for _ in range(bench.options.rounds + 1):
        row = bench.http.get("/v1/datasets/points").json()
        first = int(np.datetime64(row["end"][:19], "h").astype(int)) + 1
        epoch = int(START.timestamp())
        script = load.points(bench.folder / "points.lua", SERIES, first - epoch // 3600, epoch)
        ours = load.drive(script, url, 32, bench.options.seconds)
        if ours.errors:
            raise SystemExit(f"points: {ours.errors} of {ours.requests} requests went wrong")
        commits = durable_commits(bench.place, bench.options.seconds)
        ratios.append(ours.rate / commits)
    after = bench.http.get("/v1/datasets/points").json()["points"]
    if after - row["points"] < ours.requests:
        raise SystemExit(f"points: {ours.requests} answered, {after - row['points']} stored")
    ratio = statistics.median(ratios[1:])
    bench.table.add("points: /next at 32 connections, over single-row durable commits", ratio, "x commits", 1, 3)
    print(f"  {ours.rate:,.0f}/s, p99 {ours.p99:.1f} ms; {commits:,.0f} commits/s")


# ---------------------------------------------------------------- many at once


def timed(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def bulk(bench: Bench) -> None:
    """M4 Hourly in one request as Parquet; one point to each of 10,000 series and a forecast of each."""
    ask = {"model": fixtures.MODEL, "dataset": "m4", "horizon": HORIZON, "quantiles": LEVELS}
    first = timed(lambda: bench.ask(ask, accept=fixtures.PARQUET))
    took = statistics.median(timed(lambda: bench.ask(ask, accept=fixtures.PARQUET)) for _ in range(7))
    bench.table.add("bulk: 414 series of M4 Hourly, 48 x 9, Parquet", took, "ms", 150, 60)
    print(f"  the first time {first:.0f} ms")
    rounds: list[float] = []
    for _ in range(3):
        row = bench.http.get("/v1/datasets/many").json()
        hour = int(np.datetime64(row["end"][:19], "h").astype(int)) + 1 - int(START.timestamp()) // 3600
        body = fixtures.long(fixtures.wave(MANY, 1, seed=hour), hour)
        each = {"model": fixtures.MODEL, "dataset": "many", "horizon": 1}
        answers: list[httpx.Response] = []

        def both(body: bytes = body, each: dict[str, Any] = each, answers: list[Any] = answers) -> None:
            fixtures.upload(bench.http, "many", body)
            answers.append(bench.ask(each, accept=fixtures.PARQUET))

        rounds.append(timed(both))
    bench.table.add("bulk: a point to each of 10,000 series, then a forecast of each", min(rounds) / 1000, "s", 1, 0.3)
    print("  rounds " + ", ".join(f"{each:,.0f} ms" for each in rounds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the train.parquet of M4 Hourly")
    parser.add_argument("--keep", type=Path, help="folder for what is trained and uploaded, used again if it is there")
    parser.add_argument("--database-url")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load.available()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = Place((options.keep or folder) / "data", options.database_url)
        fixtures.prepare(place, options.data)
        port = free_port()
        arguments = ("serve", "--no-worker", "--port", str(port))
        server = stack.enter_context(process(folder / "api.log", place.environment, *arguments))
        url = f"http://127.0.0.1:{port}"
        wait_ready(url)
        bench = Bench(
            stack.enter_context(httpx.Client(base_url=url, timeout=600)), url, folder, place, options, server.pid
        )
        acts = dict(zip(ROWS, (next_step, horizon, mixed, points, bulk), strict=True))
        for name in options.only:
            acts[name](bench)
    if options.json:
        options.json.write_text(json.dumps(bench.table.rows, indent=1) + "\n")
    return int(any(row["missed"] for row in bench.table.rows))


if __name__ == "__main__":
    sys.exit(main())
