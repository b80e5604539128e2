"""kill -9 of one process at a time: workers in mid-training, servers in mid-upload, at random moments.

Afterwards every job must have ended once (one `done` among its events, one version) and every upload must be whole or
absent: totals and points equal what was sent, nothing left in the spool. Kills hit the parent alone and its whole
process group in turn.
"""

import os
import signal
import subprocess
import threading
import time

import httpx
from chaos_stage import FIRST, HOUR, TINY, Stage, family, show, until
from server import ENDED, wait_job

MODES = ("parent", "group")
STEPS = 400
SERIES, BLOCK = 200, 1000  # series and points of each, in one upload


def kill(process: subprocess.Popen[bytes], mode: str) -> None:
    """kill -9 of a process, or of its whole group."""
    if mode == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def expect_no_orphans(stage: Stage, process: subprocess.Popen[bytes]) -> None:
    """Children of a killed parent must notice and go."""
    deadline = time.monotonic() + 10
    while family(process):
        if time.monotonic() > deadline:
            stage.fault(f"processes {family(process)} outlived their parent")
            os.killpg(process.pid, signal.SIGKILL)
            return
        time.sleep(0.05)


# ---------------------------------------------------------------- workers


def block(number: int) -> str:
    """The number-th thousand points of every series, as CSV."""
    lines = ["unique_id,ds,y"]
    for one in range(SERIES):
        for step in range(number * BLOCK, (number + 1) * BLOCK):
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(FIRST + step * HOUR))
            lines.append(f"s{one:03},{stamp},{value(one, step)}")
    return "\n".join(lines)


def value(one: int, step: int) -> float:
    return (one * 31 + step * 7919) % 10_007 / 8  # exact in binary, different everywhere


def upload(client: httpx.Client, dataset: str, body: str, key: str) -> httpx.Response:
    headers = {"Content-Type": "text/csv", "Idempotency-Key": key}
    return client.post(f"/v1/datasets/{dataset}/revisions", content=body, headers=headers, timeout=120)


def train(client: httpx.Client) -> str:
    body = {"kind": "train", "dataset": "trained", "model": "chaos", "config": TINY | {"hidden": 16, "steps": STEPS}}
    return client.post("/v1/jobs", json=body).raise_for_status().json()["id"]


def kill_workers(stage: Stage) -> None:
    """Kill a worker in mid-training, start another, see the job end; sometimes kill that one too."""
    kills = max(2, round(20 * stage.scale))
    server = stage.serve()
    client = httpx.Client(base_url=stage.address, timeout=60)
    upload(client, "trained", block(0), "trained").raise_for_status()
    worker = stage.start("worker")
    job = train(client)
    begun = running(client, job, 1)
    wait_job(client, job)
    span = time.monotonic() - begun
    jobs = [job]
    print(f"\nworkers: a job runs {span:.1f} s undisturbed\n")
    print(f"{'kill':>4} {'mode':<7} {'after s':>8} {'at step':>8} {'next attempt s':>15} {'attempts':>9}  then")
    number = 0
    while number < kills:
        jobs.append(job := train(client))
        attempt, again = 1, True
        while again and number < kills:
            running(client, job, attempt)
            wait = stage.random.uniform(0, span)
            time.sleep(wait)
            before = show(client, job)
            if before["state"] in ENDED:
                break
            number += 1
            mode = MODES[number % 2]
            kill(worker, mode)
            at = time.monotonic()
            expect_no_orphans(stage, worker)
            worker = stage.start("worker")
            attempt += 1
            taken = running(client, job, attempt) - at
            again = attempt < 4 and stage.random.random() < 0.4
            row = show(client, job) if again and number < kills else wait_job(client, job)
            step = before["progress"]["step"]
            print(f"{number:>4} {mode:<7} {wait:>8.2f} {step:>8} {taken:>15.1f} {row['attempt']:>9}  {row['state']}")
    for job in jobs:
        wait_job(client, job)
    check_jobs(stage, client, jobs)
    worker.terminate()
    if worker.wait(30) != 0:
        stage.fault(f"the last worker ended with status {worker.returncode}")
    stop(server)
    stage.row(f"{kills} kills of workers in mid-training", f"{len(stage.faults)} broken", "0", not stage.faults)


def running(client: httpx.Client, job: str, attempt: int) -> float:
    """When the job's attempt of this number had begun."""
    until(
        lambda: (row := show(client, job))["attempt"] >= attempt or row["state"] in ENDED, f"attempt {attempt} of {job}"
    )
    return time.monotonic()


def check_jobs(stage: Stage, client: httpx.Client, jobs: list[str]) -> None:
    """Each job ended once and made one version."""
    made: list[str] = []
    token = None
    while True:
        query = {"page_token": token} if token else {}
        page = client.get("/v1/models/chaos/versions", params=query).raise_for_status().json()
        made += [version["job"] for version in page["versions"]]
        token = page["next_page_token"]
        if token is None:
            break
    for job in jobs:
        row = show(client, job)
        done = client.get(f"/v1/jobs/{job}/events").text.count("event: done\n")
        if (row["state"], done, made.count(job)) != ("succeeded", 1, 1):
            stage.fault(f"{job}: {row['state']}, `done` {done} times, {made.count(job)} versions, error {row['error']}")
    if len(made) != len(jobs):
        stage.fault(f"{len(jobs)} jobs made {len(made)} versions")
    folders = {folder.name for folder in (stage.data / "models").iterdir()}
    print(f"\n{len(jobs)} jobs, {len(made)} versions, {len(folders) - len(made)} folders to sweep")


# ---------------------------------------------------------------- uploads


def kill_servers(stage: Stage) -> None:
    """Kill the server while it takes an upload, start it again, look; then send the same again, as a client would."""
    kills = max(2, round(20 * stage.scale))
    server = stage.serve()
    client = httpx.Client(base_url=stage.address, timeout=120)
    began = time.monotonic()
    upload(client, "grown", block(0), "grown-0").raise_for_status()
    span = time.monotonic() - began
    print(f"\nuploads: {SERIES * BLOCK:,} points take {span:.1f} s undisturbed\n")
    print(f"{'kill':>4} {'mode':<7} {'what':<7} {'after s':>8}  {'the client saw':<15} then found")
    blocks = 1
    for number in range(1, kills + 1):
        fresh = number % 4 < 2
        dataset, which = (f"fresh-{number}", 0) if fresh else ("grown", blocks)
        body, key = block(which), f"{dataset}-{which}"
        seen: list[str] = []
        sender = threading.Thread(target=send, args=(stage.address, dataset, body, key, seen))
        sender.start()
        wait = stage.random.uniform(0, span * 1.1)
        time.sleep(wait)
        mode = MODES[number % 2]
        kill(server, mode)
        sender.join()
        expect_no_orphans(stage, server)
        server = stage.serve()
        found = look(stage, client, dataset, which)
        if found == "absent" and seen[0] == "201":
            stage.fault(f"{key}: acknowledged and gone")
        print(f"{number:>4} {mode:<7} {'new' if fresh else 'append':<7} {wait:>8.2f}  {seen[0]:<15} {found}")
        answer = upload(client, dataset, body, key)
        if answer.status_code not in (200, 201):
            stage.fault(f"{key}: sent again, refused with {answer.status_code}: {answer.text[:200]}")
        if look(stage, client, dataset, which) != "whole":
            stage.fault(f"{key}: sent again, and not there")
        blocks += not fresh
    check_points(stage, client, blocks)
    kill(server, "parent")
    check_spool(stage)
    stage.row(f"{kills} kills of servers in mid-upload", f"{len(stage.faults)} broken", "0", not stage.faults)


def send(address: str, dataset: str, body: str, key: str, seen: list[str]) -> None:
    """What a client sees of its upload: a status, or that nobody answered."""
    try:
        with httpx.Client(base_url=address) as client:
            seen.append(str(upload(client, dataset, body, key).status_code))
    except httpx.TransportError as error:
        seen.append(type(error).__name__)


def look(stage: Stage, client: httpx.Client, dataset: str, which: int) -> str:
    """Whether block `which` of the dataset is whole or absent; a fault when it is neither."""
    answer = client.get(f"/v1/datasets/{dataset}")
    if answer.status_code == 404:
        return "absent"
    row = answer.raise_for_status().json()
    size = SERIES * BLOCK
    state = {which * size: "absent", (which + 1) * size: "whole"}.get(row["points"], "broken")
    series = SERIES if row["points"] else 0
    if state == "broken" or row["series"] != series or row["revision"] != row["points"] // size:
        stage.fault(f"{dataset}: {row['points']} points, {row['series']} series, revision {row['revision']}")
    return state


def check_points(stage: Stage, client: httpx.Client, blocks: int) -> None:
    """Every point of the dataset that grew, read back."""
    wrong = 0
    for one in range(SERIES):
        rows = client.get(f"/v1/datasets/grown/series/s{one:03}/points", headers={"Accept": "text/csv"})
        read = [float(line.rpartition(",")[2]) for line in rows.raise_for_status().text.splitlines()[1:]]
        wrong += read != [value(one, step) for step in range(blocks * BLOCK)]
    print(f"\n{blocks * SERIES * BLOCK:,} points in {blocks} revisions read back, {wrong} series differ")
    if wrong:
        stage.fault(f"{wrong} series of the dataset that grew are not what was sent")


def check_spool(stage: Stage) -> None:
    """What killed requests left in the spool is dropped by a later start, once it is old enough to be nobody's."""
    left = [path for path in (stage.data / "spool").rglob("*") if path.is_file()]
    print(f"{len(left)} spooled bodies were left behind; aged by a day and the server started again:", end=" ")
    for path in [*left, *(stage.data / "spool").iterdir()]:
        os.utime(path, (time.time() - 86_400,) * 2)
    server = stage.serve()
    still = list((stage.data / "spool").iterdir())
    print(f"{len(still)}")
    if still:
        stage.fault(f"still in the spool: {', '.join(path.name for path in still[:5])}")
    stop(server)


def stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    server.wait(30)
