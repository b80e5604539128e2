"""The database goes away for a while: requests are refused in time and in words, and work goes on afterwards."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from chaos_stage import Cluster, Stage, hourly, insist, settle, show, training, until, upload, verify

AWAY = 20.0  # seconds
BOUND = 25.0  # seconds until a request has its answer, whatever the database does
FORECAST = {"model": "base", "dataset": "hourly", "horizon": 3}


def ask(number: int) -> list[tuple[str, str, str, dict[str, Any]]]:
    """One request of each class: a name, and what to send."""
    csv = {"content": hourly(1, 30), "headers": {"Content-Type": "text/csv"}}
    return [
        ("list", "GET", "/v1/jobs", {}),
        ("show", "GET", "/v1/datasets/hourly", {}),
        ("points", "GET", "/v1/datasets/hourly/series/s0/points", {}),
        ("forecast", "POST", "/v1/forecasts", {"json": FORECAST}),
        ("system", "GET", "/v1/system", {}),
        ("ready", "GET", "/readyz", {}),
        ("alive", "GET", "/healthz", {}),
        ("submit", "POST", "/v1/jobs", {"json": training("nowhere", 1)}),
        ("create", "POST", "/v1/datasets", {"json": {"name": f"made-{number}"}}),
        ("upload", "POST", f"/v1/datasets/sent-{number}/revisions", csv),
        ("schedules", "GET", "/v1/schedules", {}),
        ("delete", "DELETE", "/v1/datasets/nowhere", {}),
    ]


@dataclass
class Seen:
    """What clients saw: class -> statuses, the slowest answer, and what broke the rules."""

    statuses: dict[str, set[int]] = field(default_factory=dict)
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)

    def note(self, name: str, answer: httpx.Response, seconds: float) -> None:
        self.statuses.setdefault(name, set()).add(answer.status_code)
        self.slowest = max(self.slowest, seconds)
        if answer.status_code == 500 or (
            answer.status_code >= 500 and "problem+json" not in answer.headers["content-type"]
        ):
            self.faults.append(f"{name}: {answer.status_code} {answer.text[:200]}")


def knock(address: str, name: str, request: tuple[str, str, dict[str, Any]], stop: threading.Event, seen: Seen) -> None:
    """Ask the same again and again until told to stop."""
    with httpx.Client(base_url=address, timeout=BOUND * 2) as client:
        while not stop.is_set():
            began = time.monotonic()
            try:
                answer = client.request(request[0], request[1], **request[2])
                seen.note(name, answer, time.monotonic() - began)
            except httpx.HTTPError as error:
                seen.faults.append(f"{name}: {type(error).__name__} after {time.monotonic() - began:.1f} s")
            stop.wait(0.3)


def besiege(address: str, during: Any) -> Seen:
    """What clients of every class see while `during()` runs."""
    seen, stop = Seen(), threading.Event()
    threads = [
        threading.Thread(target=knock, args=(address, name, (method, path, sent), stop, seen))
        for name, method, path, sent in ask(0)
    ]
    for thread in threads:
        thread.start()
    during()
    stop.set()
    for thread in threads:
        thread.join(BOUND * 2)
    return seen


def outage(stage: Stage) -> None:
    """The database away for 20 s while a job trains, one waits, and clients of every class ask."""
    stage.serve()
    client = httpx.Client(base_url=stage.address, timeout=60)
    upload(client, "hourly")
    stage.start("worker")
    jobs = [insist(client, training("hourly", 400), f"outage-{number}") for number in range(3)]
    until(lambda: (show(client, jobs[0])["progress"] or {}).get("step"), "the first job to train")

    def away() -> None:
        time.sleep(1)
        with stage.database.away():
            time.sleep(AWAY)

    seen = besiege(stage.address, away)
    back = time.monotonic()
    jobs.append(insist(client, training("hourly", 20), "after", 60))
    settle(stage, jobs, 600)
    lost, doubled, damaged = verify(stage, jobs, len(jobs))
    for fault in seen.faults[:10]:
        stage.fault(fault)
    reads = ("list", "show", "points", "forecast", "system", "schedules")
    for name, statuses in sorted(seen.statuses.items()):
        print(f"    {name:<10} {sorted(statuses)}")
    writes_refused = all(503 in seen.statuses[name] for name in ("submit", "create", "upload"))
    reads_right = isinstance(stage.database, Cluster) or all(503 not in seen.statuses[name] for name in reads)
    how = "stopped" if isinstance(stage.database, Cluster) else "write lock held"
    stage.row(
        f"database away for {AWAY:.0f} s ({how}), every class of request",
        f"{len(seen.faults)} wrong answers, slowest {seen.slowest:.1f} s, {lost} lost, {doubled} doubled, "
        f"all work done {time.monotonic() - back:.0f} s after",
        f"503 for what needs it, 0 wrong, <= {BOUND:.0f} s, 0, 0",
        writes_refused and reads_right and not (seen.faults or lost or doubled or damaged) and seen.slowest <= BOUND,
    )
