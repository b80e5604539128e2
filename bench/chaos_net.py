"""Networks that are cut, and machines that stop: another one takes over, and the first may not write any more."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
from chaos_line import Line
from chaos_outage import BOUND, besiege
from chaos_stage import Cluster, Stage, family, free_port, insist, kill, settle, show, training, until, upload, verify

TAKEN_WITHIN = 20.0  # seconds
SHORT, LONG = 5.0, 40.0  # seconds without a network


def takeover(stage: Stage) -> None:
    """A machine stands still, parent and child, in mid-training; another takes over; then the first wakes up."""
    stage.serve()
    client = httpx.Client(base_url=stage.address, timeout=60)
    upload(client, "hourly")
    taken: list[float] = []
    jobs: list[str] = []
    for number in range(max(1, round(3 * stage.scale))):
        first = elsewhere(stage, f"first-{number}")
        jobs.append(job := insist(client, training("hourly", 600), f"stand-{number}"))
        until(lambda job=job: (show(client, job)["progress"] or {}).get("step"), "training")
        second = elsewhere(stage, f"second-{number}")
        until(lambda: len(client.get("/v1/system").json()["workers"]) == 2, "the second worker")
        time.sleep(stage.random.uniform(0, 3))
        kill(*family(first), number=signal.SIGSTOP)
        began = time.monotonic()
        until(lambda job=job: show(client, job)["attempt"] == 2, "the second attempt", 120)
        taken.append(time.monotonic() - began)
        kill(*family(first), number=signal.SIGCONT)
        settle(stage, jobs, 600)
        time.sleep(3)  # whatever the first one would write, it has had the time for
        for worker in (first, second):
            worker.send_signal(signal.SIGTERM)
        for worker in (first, second):
            until(lambda worker=worker: worker.poll() is not None, "the workers to go", 60)
    lost, doubled, damaged = verify(stage, jobs, len(jobs))
    stage.row(
        f"a machine stands still in mid-training and wakes up later, {len(jobs)} times",
        f"taken over after {', '.join(f'{seconds:.1f}' for seconds in taken)} s, {lost} lost, {doubled} doubled",
        f"{TAKEN_WITHIN:.0f} s, 0, 0",
        max(taken) <= TAKEN_WITHIN and not (lost or doubled or damaged),
    )


def elsewhere(stage: Stage, name: str, url: str | None = None, **settings: str) -> subprocess.Popen[bytes]:
    """A worker in a pid namespace of its own, whose pids mean nothing here: to the others it is another machine."""
    from server import ROOT, environment

    folder = stage.data  # shared, as between machines of a cluster
    with (stage.folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            ["unshare", "--uts", "sh", "-c", f"hostname {name}; exec {sys.executable} -m app worker"],
            cwd=ROOT,
            env=environment(folder, url or stage.database.url) | stage.settings | settings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    stage.started.append(process)
    return process


# ---------------------------------------------------------------- cuts


def cuts(stage: Stage) -> None:
    """Cuts of 5 and 40 s, frozen and dropped: between a worker and the database, between the API and the database,
    and between a worker and the object store."""
    assert isinstance(stage.database, Cluster)
    with object_store() as (endpoint, credentials):
        stage.settings |= credentials | {"AWS_ENDPOINT_URL": endpoint}
        stage.migrate()
        database = Line(("127.0.0.1", stage.database.port))
        store = Line(("127.0.0.1", int(endpoint.rpartition(":")[2])))
        behind = Line(("127.0.0.1", stage.database.port))
        stage.serve(GATECAST_DATABASE_URL=stage.database.through(behind.port))
        client = httpx.Client(base_url=stage.address, timeout=60)
        upload(client, "hourly")
        near = elsewhere(
            stage, "near", stage.database.through(database.port), AWS_ENDPOINT_URL=f"http://127.0.0.1:{store.port}"
        )
        far = elsewhere(stage, "far")
        until(lambda: len(client.get("/v1/system").json()["workers"]) == 2, "two workers")
        for name, line in (("worker and database", database), ("worker and object store", store)):
            for mode, seconds in (("dropped", SHORT), ("frozen", SHORT), ("frozen", LONG)):
                cut_workers(stage, client, name, line, (mode, seconds * max(stage.scale, 0.2)))
        if near.poll() is not None or far.poll() is not None:
            stage.fault("a worker has ended")
        for mode in ("dropped", "frozen"):
            cut_api(stage, behind, mode)


def cut_workers(stage: Stage, client: httpx.Client, name: str, line: Line, how: tuple[str, float]) -> None:
    """Four jobs on two workers, the line of one of them cut meanwhile."""
    mode, seconds = how
    before = len(client.get("/v1/jobs", params={"page_size": 100}).json()["jobs"])
    jobs = [
        insist(client, training("hourly", 60), f"{name.replace(' ', '-')}-{mode}-{seconds}-{number}")
        for number in range(4)
    ]
    until(lambda: client.get("/v1/system").json()["queue"]["running"], "a job to run")
    time.sleep(stage.random.uniform(0.5, 3))
    line.cut(mode)
    time.sleep(seconds)
    line.mend()
    back = time.monotonic()
    settle(stage, jobs, 300)
    lost, doubled, damaged = verify(stage, jobs, len(jobs), before)
    stage.row(
        f"cut between {name}, {mode} for {seconds:.0f} s",
        f"{lost} lost, {doubled} doubled, all done {time.monotonic() - back:.0f} s after it was mended",
        "0, 0",
        not (lost or doubled or damaged),
    )


def cut_api(stage: Stage, line: Line, mode: str) -> None:
    """The API without its database for 20 s."""

    def away() -> None:
        time.sleep(1)
        line.cut(mode)
        time.sleep(20)
        line.mend()

    seen = besiege(stage.address, away)
    until(lambda: httpx.get(f"{stage.address}/readyz", timeout=30).status_code == 200, "the API", 60)
    for fault in seen.faults[:10]:
        stage.fault(fault)
    refused = sum(503 in statuses for statuses in seen.statuses.values())
    stage.row(
        f"cut between API and database, {mode} for 20 s",
        f"{refused} of {len(seen.statuses)} classes refused with 503, {len(seen.faults)} wrong answers, slowest "
        f"{seen.slowest:.1f} s, then ready",
        f"503, 0 wrong, <= {BOUND:.0f} s",
        refused >= 8 and not seen.faults and seen.slowest <= BOUND,
    )


@contextmanager
def object_store() -> Iterator[tuple[str, dict[str, str]]]:
    """An S3-compatible server with one bucket: its address, and the environment that leads to it."""
    port = free_port()
    quiet: Any = subprocess.DEVNULL
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=quiet, stderr=quiet
    )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        who = {"Authorization": "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request, Signature=any"}
        made = urllib.request.Request(f"{endpoint}/chaos", None, who, method="PUT")
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(made, timeout=10):
                break
            time.sleep(0.1)
        names = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1"}
        os.environ.update(names | {"AWS_ENDPOINT_URL": endpoint})  # for the check of the digests, in this process
        yield endpoint, names | {"GATECAST_STORE_URL": "s3://chaos/versions"}
    finally:
        server.kill()
        server.wait()
