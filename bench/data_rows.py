"""The measurements of bench/data.py, each of a running server over HTTP, each with its answer checked."""

import http.client
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

import numpy as np
import orjson
import pyarrow as pa
import zstandard
from data_files import BEGIN, CSV, HOUR, PARQUET, Shape

ARROW = "application/vnd.apache.arrow.stream"


def family(process: int) -> Iterator[int]:
    """The process and all that descend from it."""
    yield process
    for tasks in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = tasks.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from family(int(child))


class Server:
    """A server's address, and the processes that belong to it."""

    def __init__(self, address: str, process: int, database_url: str | None, data: Path) -> None:
        self.host, self.process = address.removeprefix("http://"), process
        self.database_url = database_url or f"sqlite:///{data / 'gatecast.db'}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Status and body of one request over a connection of its own."""
        opened = http.client.HTTPConnection(self.host, timeout=1800, blocksize=1 << 20)
        try:
            opened.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = opened.getresponse()
            return answer.status, answer.read()
        finally:
            opened.close()

    def upload(self, dataset: str, body: BinaryIO | bytes, media: str, **query: str) -> dict[str, Any]:
        """The revision that the body made. SystemExit when it was refused."""
        size = os.fstat(body.fileno()).st_size if not isinstance(body, bytes) else len(body)
        path = f"/v1/datasets/{dataset}/revisions?{urlencode(query)}"
        status, said = self.ask("POST", path, body, Content_Type=media, Content_Length=str(size))
        if status not in (200, 201):
            raise SystemExit(f"{dataset}: {status} {said[:500]!r}")
        return orjson.loads(said)

    def memory(self) -> float:
        """MB of memory (PSS) of the server and all that it started: a shared page counts once."""
        total = 0
        for one in family(self.process):
            try:
                lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            except OSError:  # it ended just now
                continue
            total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
        return total / 1024

    @contextmanager
    def watched(self) -> Iterator[dict[str, float]]:
        """MB above what the server had before the block, at its highest."""
        before, found, over = self.memory(), {"idle": 0.0, "peak": 0.0}, threading.Event()
        found["idle"] = before

        def look() -> None:
            while not over.wait(0.1):  # a look takes the locks that the server takes for each new page
                found["peak"] = max(found["peak"], self.memory() - before)

        looker = threading.Thread(target=look)
        looker.start()
        try:
            yield found
        finally:
            over.set()
            looker.join()


def upload(server: Server, dataset: str, path: Path, shape: Shape) -> tuple[float, dict[str, float]]:
    """Seconds and memory of one upload of the file."""
    media = CSV if path.suffix == ".csv" else PARQUET
    with path.open("rb") as file, server.watched() as memory:
        began = time.perf_counter()
        made = server.upload(dataset, file, media)
        seconds = time.perf_counter() - began
    got = (made["series"], made["points"], made["inserted"])
    if got != (shape.series, shape.points, shape.points):
        raise SystemExit(f"{dataset}: expected {shape}, got {got}")
    return seconds, memory


def read_back(server: Server, dataset: str, shape: Shape) -> float:
    """Seconds to read all points as one Arrow stream; SystemExit when they are not what was sent."""
    began = time.perf_counter()
    status, body = server.ask("GET", f"/v1/datasets/{dataset}/points", Accept=ARROW)
    seconds = time.perf_counter() - began
    if status == 404:  # a server without that route: series by series, a few of them
        return _read_each(server, dataset, shape)
    with pa.ipc.open_stream(body) as stream:
        place = 0
        for batch in stream:
            rows = place + np.arange(len(batch))
            owners, steps = rows // shape.steps, rows % shape.steps
            if not (np.asarray(batch[1].cast(pa.int64())) == BEGIN + HOUR * steps).all():
                raise SystemExit(f"{dataset}: times differ near row {place}")
            first, last = int(owners[0]), int(owners[-1]) + 1
            sent = shape.values(first, last).reshape(-1)[place - first * shape.steps :][: len(batch)]
            if not (np.asarray(batch[2]) == sent).all():
                raise SystemExit(f"{dataset}: values differ near row {place}")
            keys = [shape.key(owner) for owner in dict.fromkeys(owners.tolist())]
            if batch[0].dictionary_decode().unique().to_pylist() != keys:
                raise SystemExit(f"{dataset}: keys differ near row {place}")
            place += len(batch)
    if place != shape.points:
        raise SystemExit(f"{dataset}: expected {shape.points} points back, got {place}")
    return seconds


def _read_each(server: Server, dataset: str, shape: Shape, most: int = 300) -> float:
    some = range(0, shape.series, max(1, shape.series // most))
    opened = http.client.HTTPConnection(server.host, timeout=600)
    seconds = 0.0
    for place in some:
        began = time.perf_counter()
        opened.request("GET", f"/v1/datasets/{dataset}/series/{shape.key(place)}/points", headers={"Accept": ARROW})
        body = opened.getresponse().read()
        seconds += time.perf_counter() - began
        values = np.asarray(pa.ipc.open_stream(body).read_all()["value"])
        if not (values == shape.values(place, place + 1)[0]).all():
            raise SystemExit(f"{dataset}: series {place} is not what was sent")
    print(f"  read by series, {len(some)} of {shape.series:,}; the rest is taken to cost the same", flush=True)
    return seconds * shape.series / len(some)


def append(server: Server, dataset: str, shape: Shape, repeats: int = 5) -> float:
    """The median time of one request that adds one point to every series."""
    keys = [shape.key(place) for place in range(shape.series)]
    found = []
    for later in range(repeats):
        stamp = np.datetime64(BEGIN + HOUR * (shape.steps + later), "us").astype("datetime64[s]")
        lines = "".join(f"{key},{stamp},{later}.5\n" for key in keys)
        began = time.perf_counter()
        made = server.upload(dataset, f"unique_id,ds,y\n{lines}".encode(), CSV)
        found.append(time.perf_counter() - began)
        if made["inserted"] != shape.series:
            raise SystemExit(f"{dataset}: expected {shape.series} new points, got {made['inserted']}")
    return float(np.median(found))


def append_and_forecast(server: Server, dataset: str, shape: Shape) -> float:
    """The same with a forecast of the next step of every series by the base, asked in a second request; the third of
    three such rounds, each counted from the append to the last byte of the forecast."""
    seconds = 0.0
    for later in range(5, 8):
        stamp = np.datetime64(BEGIN + HOUR * (shape.steps + later), "us").astype("datetime64[s]")
        lines = "".join(f"{shape.key(place)},{stamp},{later}.5\n" for place in range(shape.series))
        ask = {"model": "base", "dataset": dataset, "horizon": 1}
        began = time.perf_counter()
        server.upload(dataset, f"unique_id,ds,y\n{lines}".encode(), CSV)
        status, body = server.ask(
            "POST", "/v1/forecasts", orjson.dumps(ask), Content_Type="application/json", Accept=ARROW
        )
        seconds = time.perf_counter() - began
        if status != 200 or pa.ipc.open_stream(body).read_all().num_rows != shape.series:
            raise SystemExit(f"forecasts of {dataset}: {status} {body[:300]!r}")
    return seconds


def best_zstd(columns: list[np.ndarray[Any, Any]]) -> int:
    """Bytes of the values by zstd with and without byte shuffle, a series at a time: the smaller of the two sums."""
    packer = zstandard.ZstdCompressor()
    plain = sum(len(packer.compress(one.tobytes())) for one in columns)
    shuffled = sum(len(packer.compress(one.view(np.uint8).reshape(-1, 8).T.tobytes())) for one in columns)
    return min(plain, shuffled)
