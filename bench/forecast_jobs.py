"""One forecast job over many short series, which is cut into shards: series a second with 1 and 2 workers, and the most
memory that one of their children takes (its own share, PSS).

    python bench/forecast_jobs.py [--series 20000] [--workers 1 2] [--database-url postgresql://…]

A worker's child computes on one core, so that more workers are faster only where cores are free: on a busy machine the
first column says little. The memory does not grow with the number of series. 16,000 series are not cut yet, 16,512 are:
what a shard costs is the difference.
"""

import argparse
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from throughput import database, house

STEPS = 48
AT_ONCE = 5000  # series in one upload


@dataclass(frozen=True)
class Run:
    """How long a job took, from the asking to the file, the most that a child took (MB), what the file holds."""

    seconds: float
    memory: float
    digest: str


def uploads(series: int) -> Iterator[str]:
    hours = [f"2026-01-{1 + hour // 24:02d}T{hour % 24:02d}:00" for hour in range(STEPS)]
    for first in range(0, series, AT_ONCE):
        lines = (
            f"s{number:07d},{hours[hour]},{(hour * (number % 7 + 1)) % 24}"
            for number in range(first, min(first + AT_ONCE, series))
            for hour in range(STEPS)
        )
        yield "key,timestamp,value\n" + "\n".join(lines) + "\n"


def children_memory(folder: Path) -> float:
    """The most that a worker's light child over this data folder takes now, MB."""
    most = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if b"app.worker.child" not in command or b"--light" not in command:
                continue
            if f"GATECAST_DATA={folder}\0".encode() not in (process / "environ").read_bytes():
                continue
            found = re.search(r"^Pss:\s+(\d+) kB", (process / "smaps_rollup").read_text(encoding="ascii"), re.M)
        except OSError:  # it has ended meanwhile
            continue
        most = max(most, int(found[1]) * 1024 / 1e6 if found else 0.0)
    return most


def forecast(client: httpx.Client, folder: Path) -> Run:
    memory, began = 0.0, time.monotonic()
    body = {"kind": "forecast", "dataset": "many", "horizon": 12}
    job = client.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    while (row := client.get(f"/v1/jobs/{job}").json())["state"] in ("pending", "running"):
        memory = max(memory, children_memory(folder))
        time.sleep(0.2)
    assert row["state"] == "succeeded", row["error"]
    return Run(time.monotonic() - began, memory, row["result"]["digest"])


def measure(series: int, workers: int, url: str | None) -> Run:
    with (
        tempfile.TemporaryDirectory() as folder,
        database(url) as (named, _),
        house(Path(folder), named, workers) as client,
    ):
        for lines in uploads(series):
            sent = client.post("/v1/datasets/many/revisions", content=lines, headers={"Content-Type": "text/csv"})
            sent.raise_for_status()
        return forecast(client, Path(folder, "data").absolute())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--database-url")
    asked = parser.parse_args()
    print(f"load when it began: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("| workers | series/s | of the first row's | a child's memory at most, MB |\n|---|---|---|---|")
    first: Run | None = None
    for workers in asked.workers:
        run = measure(asked.series, workers, asked.database_url)
        first = first or run
        assert run.digest == first.digest, "the file depends on the number of workers"
        share = first.seconds / run.seconds
        print(f"| {workers} | {asked.series / run.seconds:.0f} | {share:.2f} | {run.memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
