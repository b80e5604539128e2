"""kill -9 at random, of anybody and of everybody at once: what was accepted ends once, whatever dies."""

import random
import subprocess
import time

import httpx
from chaos_stage import Stage, Submitter, family, kill, settle, upload, verify

WORKERS = 3


def storm(stage: Stage) -> None:
    """200 short jobs, three workers; every 2 to 4 s a worker, a child or the API dies, and is started again."""
    count = max(6, round(200 * stage.scale))
    server, workers = _open(stage)
    began = time.monotonic()
    submitter = Submitter(stage, count, 20, "storm")
    submitter.start()
    kills = dict.fromkeys(("worker", "child", "api"), 0)
    limit = began + 1500 * max(stage.scale, 0.1)
    while time.monotonic() < limit and (submitter.is_alive() or not _over(stage, submitter.jobs)):
        time.sleep(stage.random.uniform(2, 4))
        what = stage.random.choice(list(kills))
        kills[what] += 1
        if what == "api":
            kill(server.pid)
            server.wait()
            server = stage.start("serve", "--no-worker", "--port", str(stage.port))
        else:
            place = stage.random.randrange(WORKERS)
            workers[place] = _strike(stage, workers[place], what)
    submitter.join(600)
    settle(stage, submitter.jobs, 1800)
    seconds = time.monotonic() - began
    lost, doubled, damaged = verify(stage, submitter.jobs, count)
    said = ", ".join(f"{number} {what}" for what, number in kills.items())
    stage.row(
        f"{count} jobs, {WORKERS} workers, kill -9 every 2-4 s ({said})",
        f"{lost} lost, {doubled} doubled, {damaged} damaged, {seconds:.0f} s",
        "0, 0, 0",
        not (lost or doubled or damaged),
    )


def everything(stage: Stage) -> None:
    """Ten times: all of them at once, the API too."""
    rounds = max(2, round(10 * stage.scale))
    server, workers = _open(stage)
    submitter = Submitter(stage, rounds * 3, 20, "all")
    submitter.start()
    began = time.monotonic()
    for _ in range(rounds):
        time.sleep(stage.random.uniform(3, 10))
        everybody = [pid for process in (server, *workers) for pid in family(process)]
        kill(*everybody)
        for process in (server, *workers):
            process.wait()
        server = stage.start("serve", "--no-worker", "--port", str(stage.port))
        workers = [stage.start("worker") for _ in range(WORKERS)]
    submitter.join(600)
    settle(stage, submitter.jobs, 1800)
    lost, doubled, damaged = verify(stage, submitter.jobs, rounds * 3)
    stage.row(
        f"{rounds} times kill -9 of everything, {rounds * 3} jobs",
        f"{lost} lost, {doubled} doubled, {damaged} damaged, {time.monotonic() - began:.0f} s",
        "0, 0, 0",
        not (lost or doubled or damaged),
    )


def _open(stage: Stage) -> tuple[subprocess.Popen[bytes], list[subprocess.Popen[bytes]]]:
    server = stage.serve()
    with httpx.Client(base_url=stage.address, timeout=60) as client:
        upload(client, "hourly")
    return server, [stage.start("worker") for _ in range(WORKERS)]


def _strike(stage: Stage, worker: subprocess.Popen[bytes], what: str) -> subprocess.Popen[bytes]:
    """Kill one of a worker's children, or the worker; then start another."""
    children = [pid for pid in family(worker) if pid != worker.pid]
    if what == "child" and children:
        kill(random.Random(stage.random.random()).choice(children))
        return worker
    kill(worker.pid)
    worker.wait()
    return stage.start("worker")


def _over(stage: Stage, jobs: list[str]) -> bool:
    try:
        with httpx.Client(base_url=stage.address, timeout=10) as client:
            queue = client.get("/v1/system").raise_for_status().json()["queue"]
            return not (queue["pending"] or queue["running"]) and bool(jobs)
    except (httpx.HTTPError, KeyError):
        return False
