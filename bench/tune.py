"""A tune on several workers, some of which are killed at random moments with whatever they are at.

    python bench/tune.py [--trials 60] [--workers 4] [--kills 2] [--steps 240] [--seed 0] [--postgres] [--keep FOLDER]

Afterwards: each trial that was asked for has ended once, none is missing, none is there twice; the version that is kept
is the lowest of the table, with the digest that was published, and nothing else is in the store. Beside it what the
search found against its first trial, which is what a training would have made. The database is SQLite in a temporary
folder, or with --postgres a server of the run's own. Ends with 1 when a promise was broken.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from chaos_stage import FIRST, HOUR, Cluster, Sqlite, Stage, show, until
from server import ENDED
from sqlalchemy import func, select

from app import store
from app.config import Settings
from app.db.session import EVERY_WORKSPACE
from app.db.tables import JobEventRow, JobRow, TrialRow, VersionRow
from app.errors import Unavailable

SERIES, POINTS, HORIZON = 6, 400, 24
FIXED = {"horizon": HORIZON, "context": 96, "pretrained": False, "members": 1, "patience": 10_000, "batch": 32}
SPACE = {
    "cell": ["gru", "lstm"],
    "hidden": [8, 16, 32, 64],
    "learning_rate": {"low": 3e-4, "high": 3e-2, "log": True},
    "segment": [1, 4, 12, 24],
    "base": ["none", "naive", "seasonal", "mix"],
    "scaling": ["std", "last", "mean"],
}


def made(seed: int) -> str:
    """Hours of a day's and a week's season, a drift and noise, as CSV."""
    draw = np.random.default_rng(seed)
    hours = np.arange(POINTS)
    lines = ["unique_id,ds,y"]
    for one in range(SERIES):
        day = np.sin(2 * np.pi * (hours + 3 * one) / 24) + 0.4 * np.sin(4 * np.pi * hours / 24)
        week = 0.5 * np.sin(2 * np.pi * hours / 168)
        values = (
            20 + 4 * one + 5 * day + 3 * week + np.cumsum(draw.normal(0, 0.15, POINTS)) + draw.normal(0, 0.8, POINTS)
        )
        for hour, value in zip(hours, values, strict=True):
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(FIRST + int(hour) * HOUR))
            lines.append(f"s{one},{stamp},{value:.4f}")
    return "\n".join(lines)


def trials_of(client: httpx.Client, tune: str) -> list[dict[str, Any]]:
    return client.get(f"/v1/jobs/{tune}/trials", params={"page_size": 1000}).raise_for_status().json()["trials"]


def run(stage: Stage, asked: argparse.Namespace) -> tuple[str, float]:
    """Ask, kill, wait; the tune's id and the seconds it took."""
    stage.migrate()
    stage.serve()
    workers = [stage.start("worker", log=f"worker{number}") for number in range(asked.workers)]
    with httpx.Client(base_url=stage.address, timeout=120) as client:
        sent = {"Content-Type": "text/csv"}
        client.post("/v1/datasets/hours/revisions", content=made(asked.seed), headers=sent).raise_for_status()
        until(lambda: len(client.get("/v1/system").json()["workers"]) == asked.workers, "the workers", 600)
        body = {"kind": "tune", "dataset": "hours", "model": "load", "space": SPACE, "trials": asked.trials}
        answer = client.post("/v1/jobs", json=body | {"config": FIXED | {"steps": asked.steps}})
        tune, began = str(answer.raise_for_status().json()["id"]), time.monotonic()
        moments = sorted(stage.random.sample(range(2, max(4, asked.trials * 3 // 4)), asked.kills))
        told = time.monotonic()
        while (row := show(client, tune))["state"] not in ENDED:
            done = row["progress"]["step"]
            if moments and done >= moments[0]:
                moments.pop(0)
                time.sleep(stage.random.uniform(0, 4))
                victim = workers.pop(stage.random.randrange(len(workers)))
                os.killpg(victim.pid, signal.SIGKILL)
                victim.wait()
                print(f"  {time.monotonic() - began:6.1f} s: a worker is killed, {done} trials have ended", flush=True)
            if time.monotonic() - told > 30:
                told = time.monotonic()
                print(f"  {told - began:6.1f} s: {row['progress']['message']}", flush=True)
            time.sleep(0.25)
        return tune, time.monotonic() - began


def check(stage: Stage, tune: str, seconds: float, asked: argparse.Namespace) -> None:
    """The table of what was promised and what was seen."""
    with httpx.Client(base_url=stage.address, timeout=120) as client:
        row, table = show(client, tune), trials_of(client, tune)
    database = stage.open()
    with database.read(EVERY_WORKSPACE) as session:
        done = select(JobEventRow.job_id, func.count()).where(JobEventRow.kind == "done").group_by(JobEventRow.job_id)
        ends = dict(session.execute(done).all())
        # Beside the tune's there is that of the base, which comes with the program.
        versions = list(session.scalars(select(VersionRow).where(VersionRow.job_id.is_not(None))))
        named = set(session.scalars(select(VersionRow.folder)))
        attempts = dict(session.execute(select(JobRow.id, JobRow.attempt).where(JobRow.kind == "trial")).all())
        rows = session.scalar(select(func.count()).select_from(TrialRow)) or 0
    database.close()
    if row["state"] != "succeeded":
        stage.fault(f"the tune has {row['state']}: {row['error']}")
        return
    states = Counter(one["state"] for one in table)
    whole = states["completed"] + states["pruned"]
    stage.row("trials that ended", f"{whole} ({dict(states)})", f"{asked.trials}", whole == asked.trials)
    lost = asked.trials - len({one["number"] for one in table if one["state"] in ("completed", "pruned")})
    twice = rows - len({one["number"] for one in table}) + sum(ends.get(one["job"]) != 1 for one in table)
    stage.row("lost / doubled", f"{lost} / {twice}", "0 / 0", lost == twice == 0)
    taken = sum(number > 1 for number in attempts.values())
    stage.row("trials taken over after a kill", str(taken), "-", True)
    best = min((one for one in table if one["state"] == "completed"), key=lambda one: (one["value"], one["number"]))
    same = row["result"]["best"]["job"] == best["job"] and len(versions) == 1
    same = same and versions[0].job_id == tune and versions[0].metrics["mase"] == best["value"]
    stage.row("best stored, the lowest of the table", f"trial {best['number']}, {best['value']:.4f}", "it is", same)
    place = Settings(data=stage.data, database_url=stage.database.url).store
    try:
        store.verified(place, versions[0].folder, versions[0].digest)
        right = True
    except Unavailable as error:
        right = False
        stage.fault(error.detail)
    stage.row("its digest", "right" if right else "wrong", "right", right)
    left = [name for name in store.names(place) if name not in named]
    stage.row("other folders in the store", str(len(left)), f"at most {asked.kills}", len(left) <= asked.kills)
    first = table[0]["value"]
    told = "-" if first is None else f"{best['value']:.4f} / {first:.4f} = {best['value'] / first:.3f}"
    stage.row("best / first trial, the preset's own", told, "at most 1", first is None or best["value"] <= first)
    steps = sum(one["steps"] for one in table)
    stage.row("steps learned, short runs of the preset included", f"{steps:,}", "-", True)
    stage.row("seconds", f"{seconds:.0f}, {seconds / max(1, len(table)):.1f} a trial", "-", True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--keep", type=Path, help="a folder for the data and logs, kept afterwards")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gatecast-tune-") as made_here:
        folder = asked.keep or Path(made_here)
        folder.mkdir(exist_ok=True)
        stage = Stage(folder, Cluster(folder) if asked.postgres else Sqlite(folder), random.Random(asked.seed))
        print(
            f"{asked.trials} trials on {asked.workers} workers, {asked.kills} killed, {stage.database.name}", flush=True
        )
        try:
            tune, seconds = run(stage, asked)
            check(stage, tune, seconds, asked)
        finally:
            stage.end()
            stage.database.end()
    print(f"\n{len(stage.faults)} promises broken")
    return 1 if stage.faults or any(not row.held for row in stage.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
