"""One forecast job over many short series, which is cut into shards: series a second with 1 and 2 workers, and the most
memory that one of their children takes (its own share, PSS).

    python bench/forecast_jobs.py [--series 20000] [--workers 1 2] [--kill] [--database-url postgresql://…]

A worker's child computes on one core, so that more workers are faster only where cores are free: on a busy machine the
first column says little. The memory does not grow with the number of series. 16,000 series are not cut yet, 16,512 are:
what a shard costs is the difference. With --kill a worker is ended by SIGKILL at a third of the way, and does not come
back. The file is looked at: each series must be in it, with all of its steps.
"""

import argparse
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pyarrow.parquet
from throughput import database, house

STEPS, HORIZON = 48, 12
AT_ONCE, UPLOADS = 5000, 20  # series in one upload at least, and uploads at most


@dataclass(frozen=True)
class Run:
    """How long a job took, from the asking to the file, the most that a child took (MB), what the file holds."""

    seconds: float
    memory: float
    digest: str


def uploads(series: int) -> Iterator[str]:
    hours = [f"2026-01-{1 + hour // 24:02d}T{hour % 24:02d}:00" for hour in range(STEPS)]
    at_once = max(AT_ONCE, -(-series // UPLOADS))
    for first in range(0, series, at_once):
        lines = (
            f"s{number:07d},{hours[hour]},{(hour * (number % 7 + 1)) % 24}"
            for number in range(first, min(first + at_once, series))
            for hour in range(STEPS)
        )
        yield "key,timestamp,value\n" + "\n".join(lines) + "\n"


def processes(folder: Path, *words: str) -> Iterator[Path]:
    """Those over this data folder whose command has these words."""
    place = f"GATECAST_DATA={folder}\0".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            if all(word.encode() in command for word in words) and place in (process / "environ").read_bytes():
                yield process
        except OSError:  # it has ended meanwhile
            continue


def children_memory(folder: Path) -> float:
    """The most that a worker's light child over this data folder takes now, MB."""
    most = 0.0
    for process in processes(folder, "app.worker.child", "--light"):
        try:
            found = re.search(r"^Pss:\s+(\d+) kB", (process / "smaps_rollup").read_text(encoding="ascii"), re.M)
        except OSError:
            continue
        most = max(most, int(found[1]) * 1024 / 1e6 if found else 0.0)
    return most


def forecast(client: httpx.Client, folder: Path, series: int, *, is_killing: bool) -> Run:
    memory, began = 0.0, time.monotonic()
    body = {"kind": "forecast", "dataset": "many", "horizon": HORIZON}
    job = client.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    while (row := client.get(f"/v1/jobs/{job}").json())["state"] in ("pending", "running"):
        memory = max(memory, children_memory(folder))
        if is_killing and (row["progress"] or {}).get("fraction", 0) > 1 / 3:
            worker = next(processes(folder, "worker"))
            os.kill(int(worker.name), signal.SIGKILL)
            print(f"worker {worker.name} killed after {time.monotonic() - began:.0f} s", flush=True)
            is_killing = False
        time.sleep(0.2)
    assert row["state"] == "succeeded", row["error"]
    assert not is_killing, "the job ended before anybody was killed"
    run = Run(time.monotonic() - began, memory, row["result"]["digest"])
    file = folder / "result.parquet"
    with client.stream("GET", row["result"]["href"]) as answer, file.open("wb") as target:
        for part in answer.iter_bytes():
            target.write(part)
    keys = pyarrow.parquet.read_table(file, columns=["key"])["key"].value_counts()
    assert len(keys) == series, f"{len(keys)} series of {series} in the file"
    assert set(keys.field("counts").to_pylist()) == {HORIZON}, "a series has too few steps, or too many"
    return run


def measure(series: int, workers: int, url: str | None, *, is_killing: bool) -> Run:
    with (
        tempfile.TemporaryDirectory() as folder,
        database(url) as (named, _),
        house(Path(folder), named, workers) as client,
    ):
        began = time.monotonic()
        for lines in uploads(series):
            sent = client.post(
                "/v1/datasets/many/revisions", content=lines, headers={"Content-Type": "text/csv"}, timeout=600
            )
            sent.raise_for_status()
        print(f"made and uploaded in {time.monotonic() - began:.0f} s", flush=True)
        return forecast(client, Path(folder, "data").absolute(), series, is_killing=is_killing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kill", action="store_true", help="end a worker by SIGKILL at a third of the way")
    parser.add_argument("--database-url")
    asked = parser.parse_args()
    print(f"load when it began: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("| workers | series/s | of the first row's | a child's memory at most, MB |\n|---|---|---|---|")
    first: Run | None = None
    for workers in asked.workers:
        run = measure(asked.series, workers, asked.database_url, is_killing=asked.kill)
        first = first or run
        assert run.digest == first.digest, "the file depends on the number of workers"
        share = first.seconds / run.seconds
        print(f"| {workers} | {asked.series / run.seconds:.0f} | {share:.2f} | {run.memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
