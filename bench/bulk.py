"""Forecasts of all series of a dataset in one request: how much memory the server takes for the answer, and how long.

    python bench/bulk.py [--series 10000 40000] [--horizon 48] [--folder FOLDER] [--database-url URL] [--base]

Starts `gatecast serve --no-worker` over datasets of so many hourly series of 100 points and asks for all of them by one
small network (or `--base`), 48 steps x 9 quantiles, in each format, each of a server that has answered one short
question before. The client reads the answer as it comes and keeps nothing. Memory is the server's and its children's
share (PSS) above what it had before the request. With --folder what was uploaded and trained is kept there, and found
by the next run.
"""

import argparse
import http.client
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import orjson
from base_latency import started
from data_rows import Server
from fixtures import LEVELS, MODEL, SERIES, Place, long, train, upload, wave
from server import ROOT, free_port, gatecast, process, wait_ready

POINTS = 100
FEW = 300  # series of the request before the one that counts
AT_ONCE = 20_000  # series in one upload
MEDIA = {
    "json": "application/json",
    "csv": "text/csv",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}


def prepare(place: Place, counts: list[int], base: bool) -> None:
    """The datasets, and a version of the small network."""
    place.data.mkdir(parents=True, exist_ok=True)
    log, port = place.data.parent, free_port()
    subprocess.run(gatecast("migrate"), cwd=ROOT, env=place.environment, check=True, stdout=subprocess.DEVNULL)
    with (
        process(log / "prepare.log", place.environment, "serve", "--no-worker", "--port", str(port)),
        process(log / "worker.log", place.environment, "worker"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client,
    ):
        wait_ready(f"http://127.0.0.1:{port}")
        if not base and client.get(f"/v1/models/{MODEL}/versions").status_code == 404:
            upload(client, "hours", long(wave(SERIES, 1000)))
            train(client, 0)
            client.put(f"/v1/models/{MODEL}/aliases/champion", json={"version": 1}).raise_for_status()
        for count in (FEW, *counts):
            if client.get(f"/v1/datasets/many{count}").status_code == 404:
                for first in range(0, count, AT_ONCE):
                    values = wave(min(AT_ONCE, count - first), POINTS, seed=first)
                    upload(client, f"many{count}", long(values, keys_from=first))


def ask(server: Server, count: int, media: str, options: argparse.Namespace) -> tuple[int, float, float, int]:
    """Status, seconds to the first byte and to the last, and bytes of one answer, of which nothing is kept."""
    question = {"model": "base" if options.base else MODEL, "dataset": f"many{count}", "horizon": options.horizon}
    body = orjson.dumps(question | {"quantiles": LEVELS})
    opened = http.client.HTTPConnection(server.host, timeout=1800)
    began, size = time.perf_counter(), 0
    opened.request("POST", "/v1/forecasts", body, {"Accept": media, "Content-Type": "application/json"})
    answer = opened.getresponse()
    first = time.perf_counter() - began
    while piece := answer.read(1 << 16):
        size += len(piece)
    opened.close()
    return answer.status, first, time.perf_counter() - began, size


def processor(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(int(each) for each in fields[11:13]) / os.sysconf("SC_CLK_TCK")


def measure(place: Place, options: argparse.Namespace) -> None:
    for form in options.formats:
        for count in options.series:
            announced, log = place.data.parent / f"address-{form}-{count}", place.data.parent / "serve.log"
            announced.unlink(missing_ok=True)
            arguments = ("serve", "--no-worker", "--port", "0", "--announce", str(announced))
            with process(log, place.environment, *arguments) as running:
                server = Server(started(announced, log), running.pid, place.database_url, place.data)
                ask(server, FEW, MEDIA[form], options)  # modules, threads and the version
                with server.watched() as memory:
                    cpu = processor(running.pid)
                    status, first, whole, size = ask(server, count, MEDIA[form], options)
                    cpu = processor(running.pid) - cpu
            told = f"{status} | {size / 1e6:.1f} | {first:.2f} | {whole:.2f} | {cpu:.2f} | {memory['peak']:.0f} |"
            print(f"| {form} | {count:,} | {told}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, nargs="+", default=[10_000, 40_000])
    parser.add_argument("--formats", nargs="+", choices=MEDIA, default=list(MEDIA))
    parser.add_argument("--horizon", type=int, default=48)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--database-url")
    parser.add_argument("--base", action="store_true", help="ask the model that comes with the server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Place((options.folder or Path(name)).absolute() / "data", options.database_url)
        prepare(place, options.series, options.base)
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {options.horizon} steps x {len(LEVELS)}")
        print("| | series | status | MB | first byte, s | last, s | CPU, s | memory above idle, MB |")
        print("|---|---|---|---|---|---|---|---|")
        measure(place, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
