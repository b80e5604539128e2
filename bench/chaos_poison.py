"""Jobs that kill what runs them, and what is stopped on purpose."""

import os
import signal
import subprocess
import time
from contextlib import suppress

import httpx
from chaos_stage import Stage, family, insist, kill, show, training, until, upload
from server import ENDED

ENDLESS = 1_000_000  # steps
TRIES = 5
CANCEL_S, STOP_S = 5.0, 20.0


def at_work(worker: subprocess.Popen[bytes]) -> list[int]:
    """Children that have been given a job: they have made themselves nice, the spare has not."""
    command = ["ps", "-o", "pid=,ni=", "--ppid", str(worker.pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid, nice in zip(found[::2], found[1::2], strict=True) if int(nice) > os.nice(0)]


def poison(stage: Stage) -> None:
    """A job whose process dies of a segmentation fault each time, one that wants more memory than there is, and one
    behind them that is sound."""
    stage.serve()
    client = httpx.Client(base_url=stage.address, timeout=60)
    upload(client, "hourly")
    worker = stage.start("worker")
    job = insist(client, training("hourly", ENDLESS), "poison")
    struck: set[int] = set()
    while (row := show(client, job))["state"] not in ENDED:
        for pid in at_work(worker):
            if pid not in struck:
                struck.add(pid)
                kill(pid, number=signal.SIGSEGV)
        time.sleep(0.02)
    error = row["error"] or {}
    stage.row(
        "a job whose process ends by a segmentation fault each time",
        f"{row['state']} after {row['attempt']} attempts: {error.get('detail')}",
        f"failed after {TRIES}, named",
        row["state"] == "failed" and row["attempt"] == TRIES and "SIGSEGV" in error.get("detail", ""),
    )
    greedy = training("hourly", 3)
    greedy["config"] = greedy["config"] | {"hidden": 2048, "layers": 4}
    stage.end()
    stage.serve()
    worker = stage.start("worker")
    with suppress(FileNotFoundError):
        limit = f"--as={3 * 1024**3}"
        until(lambda: len(family(worker)) > 1, "the spare")
        for pid in family(worker):
            subprocess.run(["prlimit", limit, "--pid", str(pid)], check=True)
    hungry = insist(client, greedy, "greedy")
    row = until(lambda: r if (r := show(client, hungry))["state"] in ENDED else None, "the greedy job", 300)
    error = row["error"] or {}
    stage.row(
        "a job that needs more memory than its worker may have (3 GB)",
        f"{row['state']} after {row['attempt']} attempts: {error.get('detail')}",
        "failed, memory named",
        row["state"] == "failed" and "memory" in error.get("detail", ""),
    )
    sound = insist(client, training("hourly", 3), "sound")
    until(lambda: show(client, sound)["state"] == "succeeded", "the job behind them", 120)


def cancel(stage: Stage) -> None:
    """A cancel frees the slot in time and keeps the checkpoint; a stopped worker hands its job back in time."""
    stage.serve()
    client = httpx.Client(base_url=stage.address, timeout=60)
    upload(client, "hourly")
    worker = stage.start("worker")
    took: list[float] = []
    for number in range(3):
        job = insist(client, training("hourly", ENDLESS), f"cancel-{number}")
        folder = stage.data / "checkpoints" / job
        until(lambda folder=folder: list(folder.rglob("*.safetensors")), "a checkpoint")
        client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
        began = time.monotonic()
        until(lambda: not at_work(worker), "the slot to be free")
        took.append(time.monotonic() - began)
        if not list(folder.rglob("*.safetensors")):
            stage.fault(f"{job}: cancelled, and its checkpoint is gone")
    job = insist(client, training("hourly", ENDLESS), "stop")
    until(lambda: (show(client, job)["progress"] or {}).get("step", 0) > 50, "training")
    step = show(client, job)["progress"]["step"]
    worker.send_signal(signal.SIGTERM)
    began = time.monotonic()
    status = worker.wait(60)
    stopped = time.monotonic() - began
    state = show(client, job)["state"]
    stage.start("worker")
    until(lambda: show(client, job)["attempt"] == 2 and show(client, job)["state"] == "running", "the next attempt")
    on = until(lambda: s if (s := (show(client, job)["progress"] or {}).get("step", 0)) else None, "a step")
    client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    stage.row(
        "cancel of a running job, until its process is gone",
        ", ".join(f"{seconds:.1f} s" for seconds in took),
        f"{CANCEL_S:.0f} s",
        max(took) <= CANCEL_S,
    )
    stage.row(
        "SIGTERM to a worker that trains",
        f"gone after {stopped:.1f} s, status {status}, job {state}, at step {step}, then {on}",
        f"{STOP_S:.0f} s, 0, pending, goes on",
        stopped <= STOP_S and status == 0 and state == "pending" and on >= step,
    )
