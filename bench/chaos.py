"""Everything that may die dies here: processes, databases, networks, disks; and what waiting costs.

    python bench/chaos.py [--on sqlite|postgresql|both] [--only ROW …] [--seed 0] [--scale 1.0]

Prints a table, a line for each thing that was tried, and ends with 1 when a bar was missed or a promise broken. Each
row has a data folder and a database of its own: a SQLite file, or a PostgreSQL server that is started for it. `--scale`
makes less of everything that is counted.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import chaos_disk
import chaos_kills
import chaos_net
import chaos_outage
import chaos_pace
import chaos_poison
import chaos_storm
import httpx
from chaos_stage import Cluster, Row, Sqlite, Stage
from sqlalchemy.exc import SQLAlchemyError

ROWS: dict[str, Callable[[Stage], None]] = {
    "outage": chaos_outage.outage,
    "disk": chaos_disk.disk,
    "submit": chaos_pace.submit,
    "first-step": chaos_pace.first_step,
    "idle": chaos_pace.idle,
    "takeover": chaos_net.takeover,
    "cuts": chaos_net.cuts,
    "poison": chaos_poison.poison,
    "cancel": chaos_poison.cancel,
    "workers": chaos_kills.kill_workers,
    "uploads": chaos_kills.kill_servers,
    "everything": chaos_storm.everything,
    "storm": chaos_storm.storm,
}
BROKEN = (SystemExit, OSError, ValueError, LookupError, TypeError)
BROKEN += (httpx.HTTPError, subprocess.SubprocessError, SQLAlchemyError)
POSTGRESQL_ONLY = ("takeover", "cuts")  # one machine's SQLite has no network, and no other machine


def run(name: str, on: str, asked: argparse.Namespace) -> Stage:
    with tempfile.TemporaryDirectory(prefix="gatecast-chaos-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        database = Cluster(folder) if on == "postgresql" else Sqlite(folder)
        stage = Stage(folder, database, random.Random(asked.seed), asked.scale)
        print(f"\n{name} on {database.name}, load {os.getloadavg()[0]:.1f}", flush=True)
        try:
            stage.migrate()
            ROWS[name](stage)
        except BROKEN as error:  # the other rows are still worth their time
            stage.fault(f"{name}: {type(error).__name__} {error}")
        finally:
            stage.end()
            database.end()
        if stage.faults:
            for log in sorted(folder.glob("*.log")):
                print(f"\n--- end of {log.name}\n{log.read_text(errors='replace')[-3000:]}")
    return stage


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", choices=("sqlite", "postgresql", "both"), default="sqlite")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))  # what was started is ended all the same
    table: list[tuple[str, Row]] = []
    broken = 0
    for on in ("sqlite", "postgresql") if asked.on == "both" else (asked.on,):
        for name in asked.only:
            if on == "sqlite" and name in POSTGRESQL_ONLY:
                continue
            stage = run(name, on, asked)
            table += [(stage.database.name, row) for row in stage.rows]
            broken += len(stage.faults) + sum(not row.held for row in stage.rows)
    print(f"\n{time.strftime('%Y-%m-%d')}, seed {asked.seed}, scale {asked.scale}, load {os.getloadavg()[0]:.1f}\n")
    print("| database | what | bar | seen | |\n|---|---|---|---|---|")
    for name, row in table:
        print(f"| {name} | {row.name} | {row.bar} | {row.seen} | {'held' if row.held else 'MISSED'} |")
    print(f"\n{broken} promises broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
