"""Two API processes and a worker on one database; eight clients that upload, append, train and forecast for a minute.

    python bench/concurrency.py [--seconds 60] [--clients 8] [--apis 2] [--database-url postgresql://…]

Afterwards every acknowledged point is read back and compared, every accepted job must have ended, and every job that
succeeded must have exactly one version. Ends with 1 when something was lost, or a request was refused or failed on the
wire: `database is locked` reaches nobody. The database is SQLite in a temporary folder, or the empty one that
--database-url names.
"""

import argparse
import datetime as dt
import random
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from server import serving, wait_job

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
TINY = {"horizon": 6, "context": 24, "hidden": 8, "steps": 40, "batch": 32}
SHARED, OWN_SERIES, SHARED_SERIES = "shared", 3, 1


@dataclass
class Account:
    """What all clients saw. `truth[dataset][key]` are the values that were acknowledged, hour by hour from START."""

    truth: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(dict))
    jobs: list[tuple[str, str]] = field(default_factory=list)  # (job, model)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, what: str, began: float, answer: httpx.Response) -> None:
        with self.lock:
            self.seconds[what].append(time.monotonic() - began)
            self.statuses[f"{what} {answer.status_code}"] += 1
            if answer.status_code >= 400 or "database is locked" in answer.text:
                self.faults.append(f"{what}: {answer.status_code} {answer.text[:300]}")

    def fault(self, text: str) -> None:
        with self.lock:
            self.faults.append(text)


class Client(threading.Thread):
    """One client with series of its own in a dataset of its own and in the one that all share."""

    def __init__(self, number: int, addresses: list[str], account: Account, until: float) -> None:
        super().__init__(name=f"client-{number}")
        self.number, self.account, self.until = number, account, until
        self.random = random.Random(number)
        self.clients = [httpx.Client(base_url=address, timeout=120) for address in addresses]
        self.own, self.model = f"own-{number}", f"model-{number}"
        self.keys = {
            self.own: [f"s{i}" for i in range(OWN_SERIES)],
            SHARED: [f"c{number}-{i}" for i in range(SHARED_SERIES)],
        }
        self.trained = 0
        self.serves = False

    def run(self) -> None:
        try:
            for dataset in (self.own, SHARED):
                self.append(dataset, 200)
            while time.monotonic() < self.until:
                self.turn()
        except httpx.HTTPError as error:
            self.account.fault(f"{self.name}: {type(error).__name__}: {error}")
        except (KeyError, ValueError, RuntimeError) as error:
            self.account.fault(f"{self.name}: {error!r}")
        finally:
            for client in self.clients:
                client.close()

    def turn(self) -> None:
        luck = self.random.random()
        if luck < (0.2 if not self.trained else 0.02 * (self.serves and self.trained < 2)):
            self.train()
        elif luck < 0.35:
            self.append(self.own, self.random.randint(1, 200))
        elif luck < 0.55:
            self.append(SHARED, self.random.randint(1, 50))
        elif luck < 0.65:
            self.upsert(self.own)
        elif luck < 0.75:
            self.ask("GET", f"/v1/datasets/{self.own}", "read")
        elif self.serves:
            self.next() if luck < 0.85 else self.forecast()
        else:
            self.look()

    def ask(self, method: str, url: str, what: str, **request: Any) -> httpx.Response:
        client = self.random.choice(self.clients)
        began = time.monotonic()
        answer = client.request(method, url, **request)
        self.account.note(what, began, answer)
        if answer.status_code >= 400:
            raise RuntimeError(f"{what} was refused; what is stored is no longer known")
        return answer

    def send(self, dataset: str, mode: str, rows: dict[str, tuple[int, list[float]]]) -> None:
        """rows: key -> (first hour, values). What was acknowledged becomes the truth."""
        lines = ["key,timestamp,value"]
        for key, (first, values) in rows.items():
            lines += [f"{key},{hour(first + i)},{value!r}" for i, value in enumerate(values)]
        body = "\n".join(lines) + "\n"
        headers = {"content-type": "text/csv", "idempotency-key": f"{self.name}-{self.random.getrandbits(64):x}"}
        url = f"/v1/datasets/{dataset}/revisions"
        self.ask("POST", url, mode, params={"mode": mode, "frequency": "h"}, content=body, headers=headers)
        for key, (first, values) in rows.items():
            truth = self.account.truth[dataset].setdefault(key, [])
            truth[first : first + len(values)] = values

    def append(self, dataset: str, count: int) -> None:
        """At first all series of the client at once, later one or more of them."""
        keys = self.keys[dataset]
        chosen = (
            keys
            if keys[0] not in self.account.truth[dataset]
            else self.random.sample(keys, self.random.randint(1, len(keys)))
        )
        self.send(dataset, "append", {key: self.fresh(dataset, key, count) for key in chosen})

    def fresh(self, dataset: str, key: str, count: int) -> tuple[int, list[float]]:
        first = len(self.account.truth[dataset].get(key, []))
        return first, [round(100 + 10 * (((first + i) % 24) / 24) + self.random.gauss(0, 1), 6) for i in range(count)]

    def upsert(self, dataset: str) -> None:
        key = self.random.choice(self.keys[dataset])
        known = len(self.account.truth[dataset][key])
        first = self.random.randrange(known - 20)
        self.send(dataset, "upsert", {key: (first, [round(self.random.uniform(50, 60), 6) for _ in range(20)])})

    def train(self) -> None:
        """The answer is asked for twice with one Idempotency-Key: one job, not two."""
        ask = {"kind": "train", "dataset": self.own, "model": self.model, "preset": "fast", "config": TINY}
        headers = {"idempotency-key": f"{self.name}-train-{self.trained}"}
        first = self.ask("POST", "/v1/jobs", "train", json=ask, headers=headers).json()["id"]
        second = self.ask("POST", "/v1/jobs", "train", json=ask, headers=headers).json()["id"]
        if first != second:
            self.account.fault(f"one Idempotency-Key made two jobs: {first} {second}")
        self.trained += 1
        with self.account.lock:
            self.account.jobs.append((first, self.model))

    def look(self) -> None:
        """Has the first version come?"""
        if self.trained:
            rows = self.ask("GET", "/v1/models", "models", params={"page_size": 1000}).json()["models"]
            self.serves = any(row["name"] == self.model for row in rows)
        else:
            self.ask("GET", "/v1/jobs", "jobs")

    def forecast(self) -> None:
        ask = {"model": self.model, "dataset": self.own, "horizon": self.random.choice((1, 6))}
        answer = self.ask("POST", "/v1/forecasts", "forecast", json=ask).json()
        for row in answer["forecasts"]:
            known = len(self.account.truth[self.own][row["key"]])
            if dt.datetime.fromisoformat(row["origin"]) != dt.datetime.fromisoformat(hour(known - 1)):
                self.account.fault(
                    f"{self.own} {row['key']}: forecast from {row['origin']}, acknowledged up to {hour(known - 1)}"
                )

    def next(self) -> None:
        key = self.random.choice(self.keys[self.own])
        first, (value,) = self.fresh(self.own, key, 1)
        ask = {"dataset": self.own, "points": [{"key": key, "timestamp": hour(first), "value": value}]}
        self.ask("POST", f"/v1/models/{self.model}/next", "next", json=ask)
        self.account.truth[self.own][key].append(value)


def hour(number: int) -> str:
    return (START + dt.timedelta(hours=number)).isoformat()


def check_points(client: httpx.Client, account: Account) -> int:
    """Every acknowledged point, read back. -> how many were right"""
    right = 0
    for dataset, series in account.truth.items():
        for key, values in series.items():
            url = f"/v1/datasets/{dataset}/series/{key}/points"
            lines = client.get(url, headers={"accept": "text/csv"}).raise_for_status().text.split()[1:]
            stored = [float(line.rsplit(",", 1)[1]) for line in lines]
            if stored != values:
                wrong = sum(a != b for a, b in zip(stored, values, strict=False))
                account.fault(f"{dataset} {key}: acknowledged {len(values)} points, read {len(stored)}, {wrong} differ")
            right += len(values) if stored == values else 0
    return right


def check_jobs(client: httpx.Client, account: Account) -> Counter[str]:
    """Every accepted job ends, and each that succeeded has one version; no version is anybody else's. -> states"""
    states: Counter[str] = Counter()
    ended = {job: wait_job(client, job, 900) for job, _ in account.jobs}
    made = Counter[str]()
    for model in sorted({model for _, model in account.jobs}):
        answer = client.get(f"/v1/models/{model}/versions", params={"page_size": 1000})
        made.update(version["job"] for version in (answer.json()["versions"] if answer.status_code == 200 else ()))
    for job, row in ended.items():
        states[row["state"]] += 1
        if row["state"] != "succeeded":
            account.fault(f"{job} ended as {row['state']}: {row['error']}")
        elif made[job] != 1:
            account.fault(f"{job} succeeded and has {made[job]} versions")
    if strangers := set(made) - set(ended):
        account.fault(f"versions of jobs that nobody was promised: {sorted(strangers)}")
    return states


def table(account: Account) -> None:
    print(f"\n{'operation':<12}{'requests':>9}{'median ms':>11}{'p95 ms':>9}{'worst ms':>10}")
    for what, seconds in sorted(account.seconds.items()):
        ordered = sorted(seconds)
        at = [1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95, 1)]
        print(f"{what:<12}{len(ordered):>9}{at[0]:>11.1f}{at[1]:>9.1f}{at[2]:>10.1f}")
    print("statuses    " + ", ".join(f"{name}: {count}" for name, count in sorted(account.statuses.items())))


def run(options: argparse.Namespace, folder: Path) -> bool:
    account = Account()
    with serving(folder / "data", apis=options.apis, database_url=options.database_url) as addresses:
        until = time.monotonic() + options.seconds
        clients = [Client(number, addresses, account, until) for number in range(options.clients)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        with httpx.Client(base_url=addresses[0], timeout=120) as reader:
            states = check_jobs(reader, account)
            right = check_points(reader, account)
    table(account)
    acknowledged = sum(len(values) for series in account.truth.values() for values in series.values())
    logs = "".join(log.read_text(errors="replace") for log in folder.glob("*.log"))
    locked, tracebacks = logs.count("database is locked"), logs.count("Traceback")
    print(f"points      {right:,} of {acknowledged:,} read back as acknowledged")
    print(f"jobs        {sum(states.values())} accepted: " + ", ".join(f"{n} {state}" for state, n in states.items()))
    print(f"logs        {locked} times 'database is locked', {tracebacks} tracebacks")
    for fault in account.faults[:20]:
        print(f"FAULT       {fault}")
    print("nothing lost, nothing refused" if not account.faults else f"{len(account.faults)} FAULTS")
    return not account.faults and bool(states)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--apis", type=int, default=2)
    parser.add_argument("--database-url")
    parser.add_argument("--keep", type=Path, help="folder to leave the data and the logs in")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        fine = run(options, options.keep)
    else:
        with tempfile.TemporaryDirectory(prefix="gatecast-concurrency-") as folder:
            fine = run(options, Path(folder))
    sys.exit(not fine)


if __name__ == "__main__":
    main()
