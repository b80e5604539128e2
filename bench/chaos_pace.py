"""What waiting costs: submitting, beginning, doing nothing."""

import statistics
import time

import httpx
from chaos_stage import Stage, cpu_seconds, family, insist, show, training, until, upload

SUBMITS = 300
WAITING = 10_000
STARTS = 7


def submit(stage: Stage) -> None:
    """The latency of one submission, with an empty queue and with 10,000 jobs waiting; beside a route that reads."""
    stage.settings["GATECAST_MAX_QUEUE"] = "20000"
    stage.serve()
    client = httpx.Client(base_url=stage.address, timeout=60)
    upload(client, "hourly")
    waiting = round(WAITING * stage.scale)
    for wanted in (0, waiting):
        fill(client, wanted)
        taken = sorted(timed(client) for _ in range(SUBMITS))
        bare = statistics.median(bare_read(client) for _ in range(100))
        half, last = statistics.median(taken), taken[int(len(taken) * 0.99)]
        stage.row(
            f"submit, {wanted:,} jobs waiting",
            f"p50 {half * 1000:.1f} ms, p99 {last * 1000:.1f} ms (GET of one dataset {bare * 1000:.1f} ms)",
            "10 ms, 50 ms",
            half <= 0.010 and last <= 0.050,
        )


def fill(client: httpx.Client, wanted: int) -> None:
    there = client.get("/v1/system").json()["queue"]["pending"]
    for _ in range(wanted - there):
        client.post("/v1/jobs", json=training("hourly", 1)).raise_for_status()


def timed(client: httpx.Client) -> float:
    began = time.perf_counter()
    client.post("/v1/jobs", json=training("hourly", 1)).raise_for_status()
    return time.perf_counter() - began


def bare_read(client: httpx.Client) -> float:
    began = time.perf_counter()
    client.get("/v1/datasets/hourly").raise_for_status()
    return time.perf_counter() - began


def first_step(stage: Stage) -> None:
    """From the submission to the first step of training that the job tells, on a worker that waits."""
    stage.serve()
    client = httpx.Client(base_url=stage.address, timeout=60)
    upload(client, "hourly")
    worker = stage.start("worker")
    taken: list[float] = []
    stages: list[list[str]] = []
    for number in range(STARTS + 1):
        ready(client, worker.pid)
        began = time.time()
        job = insist(client, training("hourly", 100_000), f"first-{number}")
        until(lambda job=job: (show(client, job)["progress"] or {}).get("step"), "a first step", 60)
        taken.append(time.time() - began)
        text = client.get(f"/v1/jobs/{job}").json()
        stages.append([str(text["started_at"])])
        client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
        until(lambda: client.get("/v1/system").json()["queue"]["running"] == 0, "the slot")
        until(lambda: len(family(worker)) == 2, "the cancelled child to go and a spare to come", 60)
        time.sleep(4)  # the spare loads torch
    middle = statistics.median(taken[1:])
    stage.row(
        "submit to first training step, idle worker",
        f"median {middle:.2f} s, worst {max(taken[1:]):.2f} s of {STARTS}",
        "1.5 s",
        middle <= 1.5,
    )


def ready(client: httpx.Client, pid: int) -> None:
    """Once a worker is there and its children have stopped using the processor: torch is loaded."""
    until(lambda: client.get("/v1/system").json()["workers"], "the worker")
    children = [int(name) for name in _children(pid)]
    before = -1.0
    while (used := cpu_seconds(children)) - before > 0.02:
        before = used
        time.sleep(1.0)


def _children(pid: int) -> list[str]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        return file.read().split()


def idle(stage: Stage) -> None:
    """CPU time of a worker that has nothing to do, parent and spare, over a minute."""
    stage.serve()
    client = httpx.Client(base_url=stage.address, timeout=60)
    worker = stage.start("worker")
    ready(client, worker.pid)
    time.sleep(65 * min(1.0, stage.scale))  # the engine looks for schedules each second of its first minute
    pids, span = family(worker), 60 * stage.scale
    before, began = cpu_seconds(pids), time.monotonic()
    each = {pid: cpu_seconds([pid]) for pid in pids}
    time.sleep(span)
    used = (cpu_seconds(pids) - before) / (time.monotonic() - began)
    parts = ", ".join(f"{cpu_seconds([pid]) - each[pid]:.2f}" for pid in pids)
    stage.row(
        f"idle worker over {span:.0f} s", f"{used:.2%} of a core (CPU s: {parts})", "2 % (reach 1 %)", used <= 0.02
    )
