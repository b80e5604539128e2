"""No room on the disk: for a version, for the database's file, for an upload on its way."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from chaos_stage import Sqlite, Stage, insist, show, training, until, upload, verify
from server import ENDED

TOLD = "/docs/errors#disk-full"
ROOM = "16m"


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 16 MB at this folder. Needs the rights to mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Take all room but `leave` bytes."""
    filler = folder / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(b"x" * 65536)
            file.flush()
    with filler.open("r+b") as file:
        file.truncate(max(0, filler.stat().st_size - leave))
    return filler


def disk(stage: Stage) -> None:
    publishing(stage)
    spooling(stage)
    if isinstance(stage.database, Sqlite):
        whole_folder(stage)


def publishing(stage: Stage) -> None:
    """The store is on a disk of its own that has room for half a version."""
    with small_disk(stage.data / "models") as models:
        stage.migrate()
        server, client = stage.serve(), httpx.Client(base_url=stage.address, timeout=60)
        upload(client, "hourly")
        filler = fill(models, leave=40_000)
        stage.start("worker")
        job = insist(client, training("hourly", 5), "publish")
        row = until(lambda: r if (r := show(client, job))["state"] in ENDED else None, "the job to end")
        left = [path.name for path in models.iterdir() if "job_" in path.name]
        listed = client.get("/v1/models/chaos").status_code
        filler.unlink()
        client.post(f"/v1/jobs/{job}/retry").raise_for_status()
        again = until(lambda: r if (r := show(client, job))["state"] in ENDED else None, "the job to end")
        verify(stage, [job], 1)
        told = (row["error"] or {}).get("type") == TOLD and row["attempt"] == 1
        stage.row(
            "disk full while publishing",
            f"{row['state']} ({(row['error'] or {}).get('type')}), {len(left)} folders left, server "
            f"{'lives' if server.poll() is None else 'died'}, retried with room: {again['state']}",
            "failed with that reason, 0, lives, succeeded",
            told and not left and listed == 404 and server.poll() is None and again["state"] == "succeeded",
        )
        stage.end()


def spooling(stage: Stage) -> None:
    """The spool has no room for an upload."""
    with small_disk(stage.data / "spool") as spool:
        server, client = stage.serve(), httpx.Client(base_url=stage.address, timeout=60)
        filler = fill(spool, leave=100_000)
        body = b"unique_id,ds,y\n" + b"".join(b"s,%d,1\n" % number for number in range(200_000))
        sent = {"content": body, "headers": {"Content-Type": "text/csv"}}
        refused = client.post("/v1/datasets/spooled/revisions", **sent)
        left = [path for path in spool.rglob("*") if path != filler]
        there = client.get("/v1/datasets/spooled").status_code
        filler.unlink()
        again = client.post("/v1/datasets/spooled/revisions", **sent).status_code
        right = refused.status_code == 503 and refused.json()["type"] == TOLD
        stage.row(
            "disk full while an upload arrives",
            f"{refused.status_code} ({refused.json()['type']}), {len(left)} files left, dataset {there}, "
            f"with room: {again}",
            "503 disk-full, 0, 404, 201",
            right and not left and there == 404 and again == 201 and server.poll() is None,
        )
        stage.end()


def whole_folder(stage: Stage) -> None:
    """Everything is on one disk that is full: SQLite cannot write, and a job waits until it can."""
    before = stage.folder
    with small_disk(stage.folder / "small") as folder:
        stage.folder = folder
        stage.migrate()
        server, client = stage.serve(), httpx.Client(base_url=stage.address, timeout=60)
        upload(client, "hourly")
        stage.start("worker")
        job = insist(client, training("hourly", 1_000_000), "whole")
        until(lambda: (show(client, job)["progress"] or {}).get("step"), "training")
        filler = fill(folder, leave=0)
        seen: set[tuple[int, str]] = set()
        for number in range(20):
            answer = client.post("/v1/datasets", json={"name": f"d{number}"})
            seen.add((answer.status_code, answer.headers["content-type"]))
            reads = client.get("/v1/jobs").status_code
            time.sleep(0.2)
        filler.unlink()
        until(lambda: client.post("/v1/datasets", json={"name": "later"}).status_code == 201, "room to be found", 60)
        until(lambda: client.post(f"/v1/jobs/{job}/cancel").status_code == 200, "a cancel", 60)
        after = insist(client, training("hourly", 3), "after")
        ended = until(lambda: r if (r := show(client, after))["state"] in ENDED else None, "the next job to end")
        wrong = {one for one in seen if one[0] == 500 or (one[0] >= 500 and "problem+json" not in one[1])}
        refused = any(status == 503 for status, _ in seen)
        stage.row(
            "disk full under SQLite's file",
            f"writes {sorted({status for status, _ in seen})}, reads {reads}, then {ended['state']}",
            "503 or done, reads 200, work goes on",
            refused and not wrong and reads == 200 and ended["state"] == "succeeded" and server.poll() is None,
        )
        stage.end()
    stage.folder = before
