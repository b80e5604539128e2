"""What waiting costs: submitting, beginning, doing nothing."""

import statistics
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

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
    spare: list[int] = []
    for number in range(STARTS + 1):
        spare = ready(client, worker.pid, spare)
        began = time.time()
        job = insist(client, training("hourly", 100_000), f"first-{number}")
        until(lambda job=job: (show(client, job)["progress"] or {}).get("step"), "a first step", 60)
        taken.append(time.time() - began)
        client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    middle = statistics.median(taken[1:])
    stage.row(
        "submit to first training step, idle worker",
        f"median {middle:.2f} s, worst {max(taken[1:]):.2f} s of {STARTS}",
        "1.5 s",
        middle <= 1.5,
    )


def ready(client: httpx.Client, pid: int, but: Collection[int] = ()) -> list[int]:
    """Wait until a worker is there with one child, none of `but`, that has loaded torch and stopped using the
    processor: its spare. Gives that child."""
    until(lambda: client.get("/v1/system").json()["workers"], "the worker")
    before = -1.0
    while True:
        spare = children(pid)
        used = cpu_seconds(spare)
        if len(spare) == 1 and spare[0] not in but and has_torch(spare[0]) and used - before <= 0.01:
            return spare
        before = used
        time.sleep(1.0)


def has_torch(pid: int) -> bool:
    with suppress(OSError):
        return "libtorch_cpu" in Path(f"/proc/{pid}/maps").read_text()
    return False


def children(pid: int) -> list[int]:
    return [int(name) for name in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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
