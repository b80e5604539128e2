"""How many single-row commits a second a database takes, one after another, each safe from a power cut."""

import sqlite3
import time

import psycopg
from fixtures import Place


def durable_commits(place: Place, seconds: float) -> float:
    """Commits a second: SQLite in a file of its own beside the server's, with the server's pragmas; PostgreSQL in a
    table of its own in the same database."""
    return _postgres(place.database_url, seconds) if place.database_url else _sqlite(place, seconds)


def _sqlite(place: Place, seconds: float) -> float:
    file = place.data / "commits.db"
    connection = sqlite3.connect(file, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("create table if not exists points (id integer primary key, value real)")
    count, until = 0, time.perf_counter() + seconds
    began = time.perf_counter()
    while time.perf_counter() < until:
        connection.execute("begin immediate")
        connection.execute("insert into points (value) values (1.5)")
        connection.execute("commit")
        count += 1
    rate = count / (time.perf_counter() - began)
    connection.close()
    for each in file.parent.glob("commits.db*"):
        each.unlink()
    return rate


def _postgres(url: str, seconds: float) -> float:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("create table if not exists commits_bench (id bigserial primary key, value real)")
        count, began = 0, time.perf_counter()
        until = began + seconds
        while time.perf_counter() < until:
            connection.execute("insert into commits_bench (value) values (1.5)")
            count += 1
        rate = count / (time.perf_counter() - began)
        connection.execute("drop table commits_bench")
    return rate
