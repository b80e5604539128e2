"""The worker: a light parent that takes jobs from the queue, and a child process for each attempt at one."""

from app.config import Settings


def run_worker(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then hand the jobs back and exit; does not return. The database is migrated."""
    from app.worker.parent import Parent  # not at import time: the child, a module of this package, needs no queue

    Parent(settings).run()
