"""Workers that die or are stopped: another one finishes what they had begun, once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.config import Settings

ENDLESS = 1_000_000  # steps: hours


def test_what_dead_and_stopped_workers_leave_is_finished_once(
    jobs: Any, start_worker: Callable[[], Any], settings: Settings
) -> None:
    """kill -9 of the parent alone while its child works: the child goes too, and the next worker ends the job. That one
    is told to stop in the middle of another job: it hands it back with its checkpoint."""
    job, endless = jobs.train(30), jobs.train(ENDLESS)
    first = start_worker()
    child = first.until_at_work()
    first.kill()
    second = start_worker()
    ended = jobs.wait(job, "succeeded", "failed")
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2)
    assert not Path(f"/proc/{child}").exists()
    assert jobs.kinds(job).count("done") == 1
    assert jobs.versions() == [job]

    jobs.wait_for_step(endless, 1)
    assert not (settings.checkpoints / job).exists()  # removed after the job's end was committed
    assert second.stop() == 0
    handed = jobs.show(endless)
    assert (handed["state"], handed["worker"]) == ("pending", None)
    assert list((settings.checkpoints / endless).rglob("*.safetensors"))
    assert "done" not in jobs.kinds(endless)
