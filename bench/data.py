"""The way of points into the server and out of it: time, memory and size, beside what the machine does without it.

    python bench/data.py [--points 10000000] [--database-url URL] [--data FOLDER] [--only ROW ...] [--out FILE]

Starts `gatecast serve --no-worker` over an empty database and asks from another process, over HTTP. Rows:

upload   10,000 series with string ids, as CSV sorted by series, CSV sorted by time, and Parquet: points a second beside
         pandas reading the same file alone, the best of three; and the peak memory (PSS) of all processes above idle
read     all of it back as one Arrow stream: points a second, every key, time and value compared
arrays   the dataset as training reads it (`datasets.read_series`), in a process of its own
append   one point to every series in one request, alone; then with a forecast of each by the base
growth   ten times the series, or ten times the history: how much more each of the above costs
size     what the database grows by for each set of --data, and the payloads in it, against the better of zstd with and
         without byte shuffle of the same values, a series at a time

Ends with 1 when a bar is missed. On a PostgreSQL the database must be empty, and is not emptied afterwards.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import data_rows as rows
import runs
from base_latency import started
from data_files import Shape, pandas_seconds, write
from data_size import sizes
from server import ROOT, environment, gatecast, process

ROWS = ("upload", "read", "arrays", "append", "growth", "size")
READ = """
import sys, time
from app.db.session import Database
from app.services import datasets
opened = Database(sys.argv[1])
began = time.perf_counter()
with opened.read("default") as session:
    found = datasets.read_series(session, datasets.get(session, sys.argv[2]))
print(time.perf_counter() - began, sum(len(one.target) for one in found))
"""


class Report:
    """The rows as they come in, and whether each held its bar."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def add(
        self, name: str, figure: str, ratio: float | None = None, bar: float | None = None, up: bool = True
    ) -> None:
        """`ratio` must reach `bar` (`up`) or stay below it."""
        held = bar is None or ratio is None or (ratio >= bar if up else ratio <= bar)
        said = "" if ratio is None else f"{ratio:>9.3g}"
        judged = "" if bar is None else f"   bar {'≥' if up else '≤'} {bar:g}: {'held' if held else 'MISSED'}"
        print(f"{name:<44} {figure:<38} {said:>9}{judged}", flush=True)
        self.rows[name] = {"figure": figure, "ratio": ratio, "bar": bar, "held": held}


@contextmanager
def serving(folder: Path, database_url: str | None) -> Iterator[rows.Server]:
    """A server over an empty database of its own."""
    folder.mkdir()
    env = environment(folder / "data", database_url)
    subprocess.run(gatecast("migrate"), cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    announced, log = folder / "address", folder / "log"
    arguments = ("serve", "--no-worker", "--port", "0", "--announce", str(announced))
    with process(log, env, *arguments) as running:
        yield rows.Server(started(announced, log), running.pid, database_url, folder / "data")


def arrays(server: rows.Server, dataset: str, shape: Shape) -> float:
    """Seconds in which `read_series` gives the whole dataset as arrays."""
    url = server.database_url.replace("postgresql://", "postgresql+psycopg://")
    ask = [sys.executable, "-c", READ, url, dataset]
    done = subprocess.run(ask, cwd=ROOT, check=True, capture_output=True, text=True)
    seconds, count = done.stdout.split()
    if int(count) < shape.points:
        raise SystemExit(f"{dataset}: expected {shape.points} points as arrays, got {count}")
    return float(seconds)


def uploads(report: Report, server: rows.Server, folder: Path, shape: Shape) -> None:
    for name, by_time, suffix, bar in (
        ("CSV by series", False, ".csv", 0.35),
        ("CSV by time", True, ".csv", 0.35),
        ("Parquet", False, ".parquet", 0.25),
    ):
        path = write(shape, folder / f"{name.replace(' ', '-')}{suffix}", by_time)
        alone = pandas_seconds(path, 3)
        seconds, memory = rows.upload(server, name.replace(" ", "-"), path, shape)
        figure = f"{shape.points / seconds / 1e6:.2f} M points/s, {seconds:.1f} s (pandas {alone:.1f})"
        report.add(f"upload, {name}: share of pandas", figure, alone / seconds, bar)
        report.add(f"upload, {name}: MB", f"above {memory['idle']:.0f} MB idle", memory["peak"], 320, up=False)
        path.unlink()


def small(report: Report, server: rows.Server, only: list[str], shape: Shape) -> None:
    """What reads and extends the dataset that the first upload made."""
    if "read" in only:
        with server.watched() as memory:
            seconds = rows.read_back(server, "CSV-by-series", shape)
        rate = shape.points / seconds / 1e6
        report.add("read as Arrow: M points/s", f"{seconds:.2f} s, {memory['peak']:.0f} MB above idle", rate, 5)
    if "arrays" in only:
        seconds = arrays(server, "CSV-by-series", shape)
        report.add("as arrays: M points/s", f"{seconds:.2f} s", shape.points / seconds / 1e6)
    if "append" in only:
        seconds = rows.append(server, "CSV-by-series", shape)
        report.add("append of one point to each series: s", f"{shape.series:,} series", seconds)
        seconds = rows.append_and_forecast(server, "CSV-by-series", shape)
        report.add("append, and a forecast of each: s", f"{shape.series:,} series", seconds, 1, up=False)


def growth(report: Report, server: rows.Server, folder: Path, shape: Shape) -> None:
    """The same over a tenth of the series, over that with ten times the history, and over ten times the series."""
    few = Shape(max(10, shape.series // 10), max(10, shape.steps))
    found: dict[str, dict[str, float]] = {}
    for name, one in (
        ("base", few),
        ("series", Shape(10 * few.series, few.steps)),
        ("history", Shape(few.series, 10 * few.steps)),
    ):
        took: dict[str, list[float]] = {}
        for turn in range(3 if name == "base" else 2):
            dataset = f"growth-{name}-{turn}"
            path = write(one, folder / "growth.csv")
            took.setdefault("upload", []).append(rows.upload(server, dataset, path, one)[0])
            took.setdefault("read", []).append(rows.read_back(server, dataset, one))
            took.setdefault("arrays", []).append(arrays(server, dataset, one))
            took.setdefault("append", []).append(rows.append(server, dataset, one))
        found[name] = {what: min(seconds) for what, seconds in took.items()}
    for what, base in found["base"].items():
        for name in ("series", "history"):
            bar = 2 if (what, name) == ("append", "history") else 11
            figure = f"{base:.3f} s, then {found[name][what]:.3f} s"
            report.add(f"10 × the {name}, {what}", figure, found[name][what] / base, bar, up=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000_000)
    parser.add_argument("--database-url")
    parser.add_argument("--data", type=Path, help="folder of data sets, for the row `size`")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    shape = Shape(max(10, asked.points // 1000), 1000)
    report, only = Report(), list(asked.only)
    with tempfile.TemporaryDirectory() as name, serving(Path(name) / "served", asked.database_url) as server:
        folder = Path(name)
        if "size" in only and asked.data:
            sizes(report, server, asked.data)
        if "upload" in only:
            uploads(report, server, folder, shape)
        elif {"read", "arrays", "append"} & {*only}:
            rows.upload(server, "CSV-by-series", write(shape, folder / "points.parquet"), shape)
        small(report, server, only, shape)
        if "growth" in only:
            growth(report, server, folder, shape)
    runs.publish(asked.out, rows=report.rows, load=os.getloadavg())
    missed = [name for name, row in report.rows.items() if not row["held"]]
    print(f"missed: {', '.join(missed)}" if missed else "every bar was held")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
