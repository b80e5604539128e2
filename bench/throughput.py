"""What the queue costs: jobs a second with 1, 2 and 4 workers, transactions a job, and what an idle worker asks.

    python bench/throughput.py [--database-url postgresql://…] [--jobs 20] [--workers 1 2 4] [--idle 4]

The jobs forecast one series of 48 points with the base, so nearly all of their time is the queue's and the start of
their process. Transactions and connections are PostgreSQL's own counts, which do not depend on how busy the machine is;
jobs a second do. The database named is only where another is made for each row, and dropped again.
"""

import argparse
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from server import environment, free_port, gatecast, process, subprocess, wait_ready
from sqlalchemy import create_engine, make_url, text

Count = Callable[[str], int]
BODY = {"kind": "forecast", "dataset": "one", "horizon": 1}
LINES = "key,timestamp,value\n" + "".join(
    f"s,2026-01-{1 + hour // 24:02d}T{hour % 24:02d}:00,{hour % 24}\n" for hour in range(48)
)


@contextmanager
def database(url: str | None) -> Iterator[tuple[str | None, Count | None]]:
    """An empty database of its own and a way to ask the server about it; SQLite has neither."""
    if url is None:
        yield None, None
        return
    server = create_engine(url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    name = f"throughput_{uuid.uuid4().hex[:10]}"

    def count(query: str) -> int:
        with server.connect() as connection:
            return int(connection.scalar(text(query), {"name": name}) or 0)

    with server.connect() as connection:
        connection.execute(text(f"create database {name}"))
    yield make_url(url).set(database=name).render_as_string(hide_password=False), count
    with server.connect() as connection:
        connection.execute(text(f"drop database {name} with (force)"))
    server.dispose()


def transactions(count: Count | None) -> int:
    query = "select xact_commit + xact_rollback from pg_stat_database where datname = :name"
    return 0 if count is None else count(query)


@contextmanager
def house(folder: Path, url: str | None, workers: int) -> Iterator[httpx.Client]:
    """A server and so many workers over an empty database, ready."""
    env = environment(folder / "data", url)
    subprocess.run(
        gatecast("migrate"), cwd=folder, env=env | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}, check=True
    )
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(process(folder / "api.log", env, "serve", "--no-worker", "--port", str(port)))
        for number in range(workers):
            stack.enter_context(process(folder / f"worker-{number}.log", env, "worker"))
        address = f"http://127.0.0.1:{port}"
        wait_ready(address, 300)
        client = stack.enter_context(httpx.Client(base_url=address, timeout=60))
        while len(client.get("/v1/system").json()["workers"]) < workers:
            time.sleep(0.2)
        yield client


def busy(url: str | None, workers: int, jobs: int) -> str:
    """Jobs a second and transactions a job."""
    with (
        tempfile.TemporaryDirectory() as folder,
        database(url) as (named, count),
        house(Path(folder), named, workers) as client,
    ):
        client.post(
            "/v1/datasets/one/revisions", content=LINES, headers={"Content-Type": "text/csv"}
        ).raise_for_status()
        before, began = transactions(count), time.monotonic()
        for _ in range(jobs):
            client.post("/v1/jobs", json=BODY).raise_for_status()
        asked = time.monotonic() - began
        while (queue := client.get("/v1/system").json()["queue"])["pending"] + queue["running"]:
            time.sleep(0.5)
        took = time.monotonic() - began
        time.sleep(1.5)  # PostgreSQL's counts come late
        done = client.get("/v1/jobs", params={"state": "succeeded"}).json()["jobs"]
        assert len(done) == min(jobs, 100), f"{len(done)} of {jobs} succeeded"
        each = f"{(transactions(count) - before) / jobs:.0f}" if count else "–"
    name = "PostgreSQL" if url else "SQLite"
    return f"| {name}, {workers} workers | {jobs / took:.2f} | {jobs / asked:.0f} | {each} |"


def idle(url: str, workers: int, seconds: float = 30.0) -> str:
    """What a worker with nothing to do asks: by counting with many and with none."""
    rates: list[float] = []
    held: list[int] = []
    for number in (0, workers):
        with (
            tempfile.TemporaryDirectory() as folder,
            database(url) as (named, count),
            house(Path(folder), named, number),
        ):
            assert count is not None
            time.sleep(10)  # until all that a start asks has been asked
            before, began = transactions(count), time.monotonic()
            time.sleep(seconds)
            rates.append((transactions(count) - before) / (time.monotonic() - began))
            held.append(count("select count(*) from pg_stat_activity where datname = :name"))
    each, lines = (rates[1] - rates[0]) / workers, (held[1] - held[0]) / workers
    return f"| an idle worker | {each:.1f} transactions/s | {lines:.1f} connections |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url")
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--idle", type=int, default=4)
    asked = parser.parse_args()
    print(f"load when it began: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if asked.database_url:
        print(idle(asked.database_url, asked.idle), flush=True)
    print("| | jobs/s | asked for, jobs/s | transactions a job |\n|---|---|---|---|")
    for url in (None, asked.database_url) if asked.database_url else (None,):
        for workers in asked.workers:
            print(busy(url, workers, asked.jobs), flush=True)


if __name__ == "__main__":
    main()
