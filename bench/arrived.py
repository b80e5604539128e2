"""What points that came one by one cost whoever reads their series for the first time.

    python bench/arrived.py [--series 200] [--points 10 100 1000] [--database-url postgresql://…]

Starts `gatecast serve --no-worker`, uploads series of 100 hours, and appends one point to each of them again and again.
After so many points, a server that has read nothing yet forecasts one of them and all of them by the base. Beside each
stands what the same forecasts take whose series were uploaded in one go, so that the ratio is what appending costs.
Ends with 1 when a ratio is over its bar.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from server import environment, free_port, process, wait_ready

BASE, HOUR, START = 100, 3_600_000_000, 1_750_000_000_000_000 // 3_600_000_000 * 3_600_000_000
BAR = 3.0  # times: what was appended lies in segments of its own, up to 64 of them


def rows(series: int, first: int, stop: int) -> bytes:
    """Hours [first, stop) of all series as a Parquet file."""
    hours, keys = np.arange(first, stop), [f"s{place}" for place in range(series)]
    values = np.round(100 + 10 * np.sin(hours * 2 * np.pi / 24) + np.arange(series)[:, None] % 7, 2)
    times = np.tile(START + hours * HOUR, series).astype("datetime64[us]")
    table = pa.table({"unique_id": np.repeat(keys, len(hours)), "ds": times, "y": values.ravel()})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


@contextmanager
def fresh(folder: Path, database_url: str | None) -> Any:
    """A client of a server that has read nothing yet."""
    port = free_port()
    env = environment(folder / "data", database_url)
    with process(folder / "log", env, "serve", "--no-worker", "--port", str(port)):
        url = f"http://127.0.0.1:{port}"
        wait_ready(url)
        with httpx.Client(base_url=url, timeout=600) as http:
            yield http


def upload(http: httpx.Client, dataset: str, body: bytes) -> None:
    headers = {"content-type": "application/vnd.apache.parquet"}
    http.post(f"/v1/datasets/{dataset}/revisions", content=body, headers=headers).raise_for_status()


def forecast(http: httpx.Client, dataset: str, keys: Sequence[str]) -> tuple[float, list[Any]]:
    """Milliseconds, and the means."""
    began = time.perf_counter()
    answer = http.post("/v1/forecasts", json={"dataset": dataset, "series": list(keys), "horizon": 1})
    took = (time.perf_counter() - began) * 1000
    return took, [row["mean"] for row in answer.raise_for_status().json()["forecasts"]]


def measured(folder: Path, options: argparse.Namespace, dataset: str) -> dict[int, float]:
    """Milliseconds of the first forecast of one series, and of all, on a server of its own each."""
    found: dict[int, float] = {}
    for count in (1, options.series):
        with fresh(folder, options.database_url) as http:
            forecast(http, "other", ["s0"])  # what any first question loads
            found[count] = forecast(http, dataset, [f"s{place}" for place in range(count)])[0]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--points", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--database-url")
    options = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory() as name:
        folder, done = Path(name), 0
        with fresh(folder, options.database_url) as http:
            for dataset in ("arrived", "other"):
                upload(http, dataset, rows(options.series, 0, BASE))
        for points in sorted(options.points):
            with fresh(folder, options.database_url) as http:
                for point in range(done, points):
                    upload(http, "arrived", rows(options.series, BASE + point, BASE + point + 1))
                upload(http, f"whole-{points}", rows(options.series, 0, BASE + points))
                keys = [f"s{place}" for place in range(options.series)]
                if forecast(http, "arrived", keys)[1] != forecast(http, f"whole-{points}", keys)[1]:
                    raise SystemExit("another forecast than of the same series uploaded in one go")
            done = points
            one_by_one, whole = (measured(folder, options, each) for each in ("arrived", f"whole-{points}"))
            for count, took in one_by_one.items():
                ratio = took / whole[count]
                missed |= ratio > BAR
                said = f"{took:8.1f} ms, in one go {whole[count]:8.1f} ms, {ratio:.2f} x (bar {BAR:g})"
                print(f"{points:>6,} points one by one, {count:>4} series read: {said}", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
