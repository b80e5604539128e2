"""The M4 Hourly set through the server, over HTTP alone: upload as CSV and as Parquet, train, forecast, score.

    python bench/m4.py --data FOLDER [--scorer score.py] [--preset fast] [--keep FOLDER]

FOLDER holds `train.parquet` (unique_id, ds, y; 414 series, 353,500 points) and what the scorer reads. The scorer is any
program that takes FOLDER, a CSV of forecasts in long form and --json, and prints JSON with "OWA". Ends with 1 when a
figure misses its mark.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from server import serving, wait_job

HORIZON = 48
LEVELS = [0.025, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.975]
OWA_MARK, GAIN_MARK = 0.50, 0.15


def write_csv(source: Path, target: Path) -> None:
    table = pa.parquet.read_table(source)
    stamps = pa.compute.strftime(table["ds"].cast(pa.timestamp("s")), "%Y-%m-%dT%H:%M:%S")
    table = table.set_column(table.schema.get_field_index("ds"), "ds", stamps)
    pa.csv.write_csv(table, target, pa.csv.WriteOptions(quoting_style="none"))


def upload(client: httpx.Client, dataset: str, path: Path, media_type: str) -> tuple[dict[str, Any], float]:
    began = time.monotonic()
    with path.open("rb") as body:
        answer = client.post(f"/v1/datasets/{dataset}/revisions", content=body, headers={"content-type": media_type})
    if answer.status_code != 201:
        raise SystemExit(f"upload of {path.name}: {answer.status_code} {answer.text[:2000]}")
    return answer.json(), time.monotonic() - began


def train(client: httpx.Client, preset: str) -> tuple[dict[str, Any], dict[str, Any], float]:
    """-> the ended job, its version, seconds from asking to the version's being there."""
    began = time.monotonic()
    ask = {"kind": "train", "dataset": "m4-parquet", "model": "m4", "preset": preset, "config": {"horizon": HORIZON}}
    answer = client.post("/v1/jobs", json=ask)
    if answer.status_code != 202:
        raise SystemExit(f"train: {answer.status_code} {answer.text[:2000]}")
    job = wait_job(client, answer.json()["id"], say=True)
    seconds = time.monotonic() - began
    if job["state"] != "succeeded":
        raise SystemExit(f"the job ended as {job['state']}: {job['error']}")
    return job, client.get(job["result"]["href"]).raise_for_status().json(), seconds


def forecast(client: httpx.Client, target: Path) -> float:
    """All series, one request, as CSV. -> seconds"""
    ask = {"model": "m4", "dataset": "m4-parquet", "horizon": HORIZON, "quantiles": LEVELS}
    began = time.monotonic()
    answer = client.post("/v1/forecasts", json=ask, headers={"accept": "text/csv"})
    seconds = time.monotonic() - began
    if answer.status_code != 200:
        raise SystemExit(f"forecast: {answer.status_code} {answer.text[:2000]}")
    target.write_bytes(answer.content)
    return seconds


def score(scorer: Path, folder: Path, forecasts: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(scorer), str(folder), str(forecasts), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the scorer failed: {(done.stdout + done.stderr)[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def run(options: argparse.Namespace, folder: Path) -> bool:
    parquet, csv, answers = options.data / "train.parquet", folder / "train.csv", folder / "forecasts.csv"
    write_csv(parquet, csv)
    with serving(folder / "data") as (address,), httpx.Client(base_url=address, timeout=600) as client:
        one, csv_seconds = upload(client, "m4-csv", csv, "text/csv")
        two, parquet_seconds = upload(client, "m4-parquet", parquet, "application/vnd.apache.parquet")
        same = one["digest"] == two["digest"]
        job, version, train_seconds = train(client, options.preset)
        first = forecast(client, answers)
        again = forecast(client, answers)
    mase, naive = version["metrics"]["mase"], version["baselines"]["seasonal_naive"]["mase"]
    print(f"\nuploaded           {one['series']} series, {one['points']:,} points, frequency {one['frequency']}")
    print(f"  as CSV           {csv_seconds:.2f} s ({csv.stat().st_size / 1e6:.1f} MB)")
    print(f"  as Parquet       {parquet_seconds:.2f} s; digests {'agree' if same else 'DIFFER'}")
    print(
        f"trained            {train_seconds:.1f} s from request to version (preset {options.preset}, {job['device']})"
    )
    print(f"  parameters       {version['parameters']:,}; {version['size_bytes'] / 1e6:.1f} MB on disk")
    print(f"  held-out MASE    {mase:.3f}; seasonal naive {naive:.3f}: {1 - mase / naive:.1%} below")
    print(f"forecast, all      {first:.2f} s first, {again:.2f} s again ({one['series']} x {HORIZON}, CSV)")
    fine = same and one["series"] == 414 and one["points"] == 353_500 and 1 - mase / naive >= GAIN_MARK
    if options.scorer:
        scores = score(options.scorer, options.data, answers)
        print("scored             " + ", ".join(f"{k} {v:.4g}" for k, v in scores.items() if isinstance(v, float)))
        fine = fine and scores["OWA"] <= OWA_MARK
    print("all marks met" if fine else "A MARK WAS MISSED")
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scorer", type=Path)
    parser.add_argument("--preset", default="fast", choices=("fast", "balanced", "thorough"))
    parser.add_argument("--keep", type=Path, help="folder to leave the data, the logs and the forecasts in")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        fine = run(options, options.keep)
    else:
        with tempfile.TemporaryDirectory(prefix="gatecast-m4-") as folder:
            fine = run(options, Path(folder))
    sys.exit(not fine)


if __name__ == "__main__":
    main()
