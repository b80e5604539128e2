"""Where chaos happens: a data folder, a database that can be taken away, processes that can be killed, a client that
repeats what was not answered, and the check at the end that nothing was lost and nothing done twice."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from server import ENDED, ROOT, environment, free_port, gatecast, wait_ready
from sqlalchemy import func, select

from app import store
from app.config import Settings
from app.db.session import EVERY_WORKSPACE, Database
from app.db.tables import JobEventRow, JobRow, VersionRow
from app.errors import Unavailable

TINY = {"horizon": 12, "context": 48, "segment": 12, "hidden": 8, "layers": 1, "batch": 8, "scaling": "std"}
TINY |= {"patience": 10_000, "pretrained": False}
HOUR = 3600
FIRST = 1_700_000_400  # a full hour, in seconds since 1970


@dataclass
class Row:
    """One line of the table: what was done, what was seen, the bar, and whether it held."""

    name: str
    seen: str
    bar: str
    held: bool


@dataclass
class Stage:
    """One database and one data folder; what is started here is ended with it."""

    folder: Path
    database: "Sqlite | Cluster"
    random: random.Random
    scale: float = 1.0
    faults: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)  # of every process started
    port: int = field(default_factory=free_port)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *arguments: str, log: str | None = None, **settings: str) -> subprocess.Popen[bytes]:
        """`gatecast …` in a session, so a process group, of its own."""
        with (self.folder / f"{log or arguments[0]}.log").open("ab") as output:
            process = subprocess.Popen(
                gatecast(*arguments),
                cwd=ROOT,
                env=environment(self.data, self.database.url) | self.settings | settings,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def serve(self, **settings: str) -> subprocess.Popen[bytes]:
        server = self.start("serve", "--no-worker", "--port", str(self.port), **settings)
        wait_ready(self.address, 120)
        return server

    def migrate(self) -> None:
        self.data.mkdir(exist_ok=True)
        subprocess.run(
            gatecast("migrate"),
            cwd=ROOT,
            env=environment(self.data, self.database.url) | self.settings,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def open(self) -> Database:
        return Database(Settings(data=self.data, database_url=self.database.url).url)

    def fault(self, text: str) -> None:
        self.faults.append(text)
        print(f"  BROKEN: {text}", flush=True)

    def row(self, name: str, seen: str, bar: str, held: bool) -> None:
        """Add a line to the table; a bar that was missed is a fault."""
        self.rows.append(Row(name, seen, bar, held))
        print(f"  {name}: {seen}  [{bar}]{'' if held else '  MISSED'}", flush=True)

    def end(self) -> None:
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.started.clear()


# ---------------------------------------------------------------- databases


class Sqlite:
    """The file in the data folder."""

    name = "SQLite"
    url: str | None = None

    def __init__(self, folder: Path) -> None:
        self.file = folder / "data" / "gatecast.db"

    @contextmanager
    def away(self) -> Iterator[None]:
        """Another process' write lock; readers go on."""
        other = sqlite3.connect(self.file, isolation_level=None, timeout=30)
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
            other.close()

    def end(self) -> None:
        pass


class Cluster:
    """A PostgreSQL server of this run's own, on loopback."""

    name = "PostgreSQL"

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            raise SystemExit("no PostgreSQL server here: install your system's package postgresql")
        self.programs, self.folder, self.port = found[-1].parent, folder / "cluster", free_port()
        self.folder.mkdir()
        folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "gatecast", "-A", "trust", "-E", "UTF8")
        self.url: str | None = self.through(self.port)
        self.start()

    def through(self, port: int) -> str:
        """Its URL through this port of this machine."""
        return f"postgresql://gatecast@127.0.0.1:{port}/postgres"

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses=127.0.0.1 -p {self.port} -c max_connections=200"
        self._run(
            "pg_ctl", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-w", "-o", options, "start"
        )

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stopped at once, as by a crash."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def end(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self.stop()

    def _run(self, program: str, *arguments: str) -> None:
        who = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it refuses to run as root
        command = [*who, str(self.programs / program), *arguments]
        subprocess.run(command, cwd="/", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# ---------------------------------------------------------------- processes


def family(process: subprocess.Popen[bytes]) -> list[int]:
    """What lives of a process' session, itself and its children."""
    command = ["ps", "-o", "pid=,stat=", "-s", str(process.pid)]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if not line.split()[1].startswith("Z")]


def kill(*pids: int, number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes so far."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def until(found: Callable[[], Any], what: str, seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if answer := found():
                return answer
        time.sleep(0.05)
    raise SystemExit(f"waited {seconds:.0f} s in vain for {what}")


# ---------------------------------------------------------------- a client


def hourly(series: int = 2, points: int = 200) -> str:
    """A small dataset as CSV."""
    lines = ["unique_id,ds,y"]
    for one in range(series):
        for step in range(points):
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(FIRST + step * HOUR))
            lines.append(f"s{one},{stamp},{10 + (one * 31 + step * 7919) % 24 / 8}")
    return "\n".join(lines)


def upload(client: httpx.Client, dataset: str) -> None:
    headers = {"Content-Type": "text/csv", "Idempotency-Key": dataset}
    client.post(f"/v1/datasets/{dataset}/revisions", content=hourly(), headers=headers, timeout=120).raise_for_status()


def training(dataset: str, steps: int, model: str = "chaos") -> dict[str, Any]:
    return {"kind": "train", "dataset": dataset, "model": model, "config": TINY | {"steps": steps}}


def insist(client: httpx.Client, body: dict[str, Any], key: str, seconds: float = 600) -> str:
    """The job of this key, asked for again and again until somebody accepts it, as a careful client does."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = client.post("/v1/jobs", json=body, headers={"Idempotency-Key": key})
            if answer.status_code == 202:
                return str(answer.json()["id"])
            if answer.status_code not in (429, 503):
                raise SystemExit(f"{key}: {answer.status_code} {answer.text[:500]}")
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"{key}: not accepted within {seconds:.0f} s")
        time.sleep(0.2)


def show(client: httpx.Client, job: str) -> dict[str, Any]:
    return client.get(f"/v1/jobs/{job}").raise_for_status().json()


def settle(stage: Stage, jobs: list[str], seconds: float) -> None:
    """Wait until every job has ended; read from the database, for the API may be down."""
    database = stage.open()

    def ended() -> bool:
        with suppress(Exception), database.read(EVERY_WORKSPACE) as session:
            query = select(func.count()).where(JobRow.id.in_(jobs), JobRow.state.in_(ENDED))
            return (session.scalar(query) or 0) >= len(jobs)
        return False

    until(ended, f"{len(jobs)} jobs to end", seconds)
    database.close()


def verify(stage: Stage, jobs: list[str], submitted: int, others: int = 0) -> tuple[int, int, int]:
    """Lost, doubled, and damaged among the jobs: each has to have ended well and once, with one version whose files
    are those that were published, and there has to be no job beside them and `others`."""
    url = stage.settings.get("GATECAST_STORE_URL")
    settings = Settings(data=stage.data, database_url=stage.database.url, store_url=url)
    database = stage.open()
    lost = doubled = damaged = 0
    with database.read(EVERY_WORKSPACE) as session:
        rows = {row.id: row for row in session.scalars(select(JobRow).where(JobRow.kind == "train"))}
        versions = list(session.scalars(select(VersionRow).where(VersionRow.job_id.in_(jobs))))
        done = select(JobEventRow.job_id, func.count()).where(JobEventRow.kind == "done").group_by(JobEventRow.job_id)
        ends = dict(session.execute(done).all())
    made: dict[str, int] = {}
    for version in versions:
        made[str(version.job_id)] = made.get(str(version.job_id), 0) + 1
        try:
            store.verified(settings.store, version.folder, version.digest)
        except Unavailable as error:
            damaged += 1
            stage.fault(f"version {version.folder}: {error.detail}")
    for job in jobs:
        row = rows.get(job)
        if row is None or row.state != "succeeded" or not made.get(job):
            lost += 1
            stage.fault(f"{job}: {row and (row.state, row.attempt, row.tries, row.error)}, {made.get(job, 0)} versions")
        elif made[job] > 1 or ends.get(job) != 1:
            doubled += 1
            stage.fault(f"{job}: {made[job]} versions, `done` {ends.get(job)} times")
    doubled += max(0, len(set(jobs)) - submitted)
    if len(set(jobs)) != submitted or len(rows) != submitted + others:
        stage.fault(f"{submitted} submissions made {len(set(jobs))} jobs, the database has {len(rows)}")
    database.close()
    return lost, doubled, damaged


class Submitter(threading.Thread):
    """Asks for `count` jobs, one after the other, as a client that repeats what was not answered."""

    def __init__(self, stage: Stage, count: int, steps: int, name: str) -> None:
        super().__init__(daemon=True)
        self.stage, self.count, self.steps, self.key, self.jobs = stage, count, steps, name, list[str]()

    def run(self) -> None:
        with httpx.Client(base_url=self.stage.address, timeout=30) as client:
            for number in range(self.count):
                self.jobs.append(insist(client, training("hourly", self.steps), f"{self.key}-{number}"))
