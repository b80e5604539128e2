"""What `serving.py` asks about: datasets, and versions of one small network, put into a server over HTTP and kept in a
folder, so that a second run finds them."""

import datetime as dt
import io
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from server import ROOT, environment, free_port, gatecast, process, wait_job, wait_ready

START = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
HORIZON, CONTEXT, VERSIONS, SERIES, MANY = 48, 336, 5, 200, 10_000
LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
# 336 points scaled by their mean, 14 segments of 24, one GRU of 128, 48 steps x 9 quantiles: `pretrained` and the
# bases are left out, so that other servers can be given the same network.
NETWORK = {
    "horizon": HORIZON,
    "context": CONTEXT,
    "segment": 24,
    "hidden": 128,
    "layers": 1,
    "cell": "gru",
    "members": 1,
    "scaling": "mean",
    "base": "none",
    "calendar": False,
    "pretrained": False,
    "steps": 60,
}
MODEL = "small"
PARQUET = "application/vnd.apache.parquet"


@dataclass(frozen=True)
class Place:
    """Where a server's data are: its folder, and its database where that is not SQLite in there."""

    data: Path
    database_url: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.data, self.database_url)


def wave(count: int, points: int, seed: int = 0) -> np.ndarray:
    """(count, points) hourly values: a level of each series' own, a daily cycle, noise."""
    random = np.random.default_rng(seed)
    level = random.uniform(50, 500, (count, 1))
    day = 0.3 * np.sin(2 * np.pi * np.arange(points) / 24)
    return (level * (1 + day + 0.05 * random.standard_normal((count, points)))).round(2)


def long(values: np.ndarray, first: int = 0, keys_from: int = 0) -> bytes:
    """The values as a Parquet file in long form, from hour `first` after START on, keys s0, s1, …, or from another
    number on."""
    count, points = values.shape
    hours = np.tile(np.arange(first, first + points), count) * 3_600_000_000 + int(START.timestamp() * 1e6)
    names = [f"s{keys_from + place}" for place in range(count)]
    keys = pa.array(names).take(pa.array(np.repeat(np.arange(count), points)))
    table = pa.table({"key": keys, "timestamp": pa.array(hours, pa.timestamp("us", "UTC")), "value": values.ravel()})
    sink = io.BytesIO()
    pa.parquet.write_table(table, sink)
    return sink.getvalue()


def m4(folder: Path | None) -> bytes:
    """The 414 series of M4 Hourly as Parquet; without a folder that has them, as many of the same lengths."""
    if folder is not None:
        return (folder / "train.parquet").read_bytes()
    return long(wave(414, 854, seed=4))


def upload(http: httpx.Client, dataset: str, body: bytes) -> None:
    http.post(f"/v1/datasets/{dataset}/revisions", content=body, headers={"content-type": PARQUET}).raise_for_status()


def train(http: httpx.Client, seed: int) -> None:
    ask = {"kind": "train", "dataset": "hours", "model": MODEL, "promote": "never", "config": NETWORK | {"seed": seed}}
    job = wait_job(http, http.post("/v1/jobs", json=ask).raise_for_status().json()["id"])
    if job["state"] != "succeeded":
        raise SystemExit(f"training ended as {job['state']}: {job['error']}")


def prepare(place: Place, data: Path | None) -> None:
    """The datasets, and versions 1 to 5 of one network, the first of them champion."""
    if (place.data / "prepared").exists():
        return
    place.data.mkdir(parents=True, exist_ok=True)
    subprocess.run(gatecast("migrate"), cwd=ROOT, env=place.environment, check=True, stdout=subprocess.DEVNULL)
    with ExitStack() as stack:
        port = free_port()
        log = place.data.parent
        stack.enter_context(
            process(log / "prepare.log", place.environment, "serve", "--no-worker", "--port", str(port))
        )
        stack.enter_context(process(log / "worker.log", place.environment, "worker"))
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600))
        wait_ready(f"http://127.0.0.1:{port}")
        for dataset, body in (
            ("hours", long(wave(SERIES, 1000))),
            ("steady", long(wave(SERIES, 1000, seed=1))),
            ("points", long(wave(SERIES, 1000, seed=2))),
            ("m4", m4(data)),
            ("many", long(wave(MANY, CONTEXT, seed=3))),
        ):
            upload(http, dataset, body)
        for seed in range(VERSIONS):
            train(http, seed)
        http.put(f"/v1/models/{MODEL}/aliases/champion", json={"version": 1}).raise_for_status()
    (place.data / "prepared").touch()


# ---------------------------------------------------------------- questions


def stored(key: str, dataset: str = "steady", version: int | None = None, **more: Any) -> dict[str, Any]:
    """R1: the next step of a stored series, from the champion or a version."""
    return {"model": _named(version), "dataset": dataset, "series": [key], "horizon": 1, **more}


def sent(history: np.ndarray, version: int | None = None, horizon: int = HORIZON) -> dict[str, Any]:
    """R2: 336 points of history in the request, 48 steps x 9 quantiles back."""
    one = {"key": "A", "start": START.isoformat(), "target": history.tolist()}
    ask = {"model": _named(version), "inputs": [one], "frequency": "h", "horizon": horizon}
    return ask | {"quantiles": LEVELS}


def _named(version: int | None) -> str:
    return MODEL if version is None else f"{MODEL}/{version}"
