"""schemathesis against a running server: no 500, no status or body that the OpenAPI document does not tell of.

    python bench/contract.py [--examples 50] [--seed 0] [--include REGEX]

Starts `gatecast serve` with a worker on a fresh folder and puts the names in place that the document's examples use:
dataset `gasoline`, model `fuel` with two versions, a challenger, a backtest. Then schemathesis runs over every
operation twice: with those names, so that requests meet something, and with whatever it makes up. Exits 1 when it finds
anything.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

FILE = Path(__file__).parents[1] / "app" / "cli" / "data" / "us_gasoline_weekly.csv"
QUICK = {"cell": "gru", "horizon": 12, "context": 48, "segment": 12, "hidden": 8, "steps": 10}
PATIENCE_S = 180.0
KEY = "contract-contract-contract"
# Every check schemathesis has is made of every answer, but for:
# - that a request which fits the schema is taken: the names in it have to exist, and the state has to allow it;
# - where a key may hold slashes, that DELETE of the key `x/points` is not offered where GET reads the points of `x`;
# - at the stream of events, whose only parameter is a header, that an unknown header is refused. HTTP ignores those.
CONFIG = f"""
[auth.openapi.bearer]
bearer = "{KEY}"
[auth.openapi.header]
api_key = "{KEY}"
[checks.positive_data_acceptance]
enabled = false
[[operations]]
include-path = "/v1/jobs/{{job}}/events"
checks.negative_data_rejection.enabled = false
[[operations]]
include-path = "/v1/datasets/{{dataset}}/series/{{key}}/points"
# A key may end in "/points": DELETE there is the erasure of such a series, which takes no query.
checks.allow_header_conformance.enabled = false
checks.unsupported_method.enabled = false
"""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """A server with a key and a worker; its address."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATECAST_")}
    settings = {"GATECAST_API_KEY": KEY, "GATECAST_LOG_LEVEL": "warning", "GATECAST_MAX_QUEUE": "20"}
    command = [sys.executable, "-P", "-m", "app", "serve", "--port", "0", "--data", str(folder / "data")]
    address = folder / "address"
    process = subprocess.Popen([*command, "--announce", str(address)], env=kept | settings)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not address.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the server did not start")
            time.sleep(0.1)
        yield address.read_text(encoding="utf-8")
    finally:
        process.terminate()
        if process.wait() != 0:
            print(f"the server ended with status {process.returncode}", file=sys.stderr)


def seed(http: httpx.Client) -> dict[str, Any]:
    """Put the examples' names in place; parameters by their place in a request."""
    upload = "/v1/datasets/gasoline/revisions"
    http.post(upload, content=FILE.read_bytes(), headers={"Content-Type": "text/csv"}).raise_for_status()
    train = {"kind": "train", "dataset": "gasoline", "model": "fuel"}
    job, _ = (_run(http, {**train, "config": {**QUICK, "seed": seed}, "promote": "always"}) for seed in (0, 1))
    backtest = _run(http, {"kind": "backtest", "dataset": "gasoline", "model": "fuel", "origins": 4, "horizon": 12})
    http.put("/v1/models/fuel/aliases/challenger", json={"version": 1}).raise_for_status()
    names = {"dataset": "gasoline", "model": "fuel", "alias": "champion", "number": 1, "key": "us_gasoline"}
    return {f"path.{name}": value for name, value in {**names, "job": job, "backtest": backtest}.items()}


def _run(http: httpx.Client, body: dict[str, Any]) -> str:
    """Start a job and wait for its success; its id."""
    answer = http.post("/v1/jobs", json=body).raise_for_status().json()
    deadline = time.monotonic() + PATIENCE_S
    while answer["state"] in ("pending", "running"):
        if time.monotonic() > deadline:
            raise SystemExit(f"job {answer['id']} did not end")
        time.sleep(0.2)
        answer = http.get(f"/v1/jobs/{answer['id']}").raise_for_status().json()
    if answer["state"] != "succeeded":
        raise SystemExit(f"job {answer['id']} {answer['state']}: {answer['error']}")
    return answer["id"]


def cancel_all(http: httpx.Client, done: threading.Event) -> None:
    """Cancel what schemathesis starts, or each stream of events would last as long as a training."""
    while not done.wait(0.3):
        for state in ("pending", "running"):
            for job in http.get("/v1/jobs", params={"state": state}).json()["jobs"]:
                http.post(f"/v1/jobs/{job['id']}/cancel")


def examined(url: str, folder: Path, parameters: dict[str, Any], arguments: Sequence[str]) -> int:
    """One run of schemathesis; its exit status."""
    lines = [f'"{name}" = {json.dumps(value)}' for name, value in parameters.items()]
    (folder / "schemathesis.toml").write_text("\n".join([CONFIG, "[parameters]", *lines, ""]), encoding="utf-8")
    program = str(Path(sys.executable).parent / "schemathesis")
    command = [program, "--config-file", str(folder / "schemathesis.toml"), "run", f"{url}/openapi.json"]
    command += [
        "--request-timeout",
        "30",
        "--suppress-health-check",
        "all",
        "--warnings",
        "off",
        "--continue-on-failure",
        *arguments,
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "contract_hooks", "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(command, cwd=folder, env=os.environ | hooks, check=False).returncode


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--examples", type=int, default=50, help="most cases an operation and phase")
    options.add_argument("--seed", type=int, default=0, help="same seed, same cases")
    options.add_argument("--include", help="only operations whose path matches this regular expression")
    chosen = options.parse_args()
    common = ["--max-examples", str(chosen.examples), "--seed", str(chosen.seed)]
    common += ["--include-path-regex", chosen.include] if chosen.include else []
    with tempfile.TemporaryDirectory() as name, served(Path(name)) as url:
        folder = Path(name)
        with httpx.Client(base_url=url, headers={"x-api-key": KEY}, timeout=60) as http:
            parameters = seed(http)
            done = threading.Event()
            watch = threading.Thread(target=cancel_all, args=(http, done))
            watch.start()
            try:
                print("\n== with names that are there", flush=True)
                kept = ["--phases", "examples,coverage,fuzzing", "--exclude-method", "DELETE"]
                first = examined(url, folder, parameters, [*common, *kept])
                print("\n== with any names", flush=True)
                second = examined(url, folder, {}, common)
            finally:
                done.set()
                watch.join()
            alive = http.get("/readyz").status_code
    if first or second or alive != 200:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
