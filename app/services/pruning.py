"""Stopping trials that will not be worth their time: at each twelfth of its learning a trial is compared with those
that have been through there, by Optuna's median rule, from a thread of its own, since training should not wait for the
database."""

import logging
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from sqlalchemy import update

from app.db.session import AWAY, EVERY_WORKSPACE
from app.db.tables import TrialRow
from app.services import attempts, jobs, trials
from app.services.attempts import Attempt, Fenced
from app.services.trials import COMPLETED, Trial
from models import Progress

log = logging.getLogger("gatecast.worker")

PARTS = 12  # of the first network's learning; it looks at the held-out steps about as often
LOOK_EVERY = 2.0  # seconds
STARTUP, EARLIEST = 4, 2  # completed trials before any is stopped, and the first part at which one may be
LOSS_METRICS = {"wql": "validation_loss"}  # all others go by the validation MASE


class Watch:
    """Beside one trial while it learns: writes its scores, reads those of the others, says when to stop and why."""

    def __init__(self, attempt: Attempt, earlier: Sequence[Any] = ()) -> None:
        self._attempt = attempt
        self._name = LOSS_METRICS.get(attempt.spec["metric"], "validation_mase")
        self._scores: dict[int, float] = {int(part): float(score) for part, score in earlier}
        self._written = len(self._scores)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)
        self.verdict: str | None = None  # why it is to stop

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    @property
    def scores(self) -> list[list[float]]:
        return [[part, score] for part, score in sorted(self._scores.copy().items())]

    def on_progress(self, progress: Progress) -> None:
        score = progress.metrics.get(self._name)
        if progress.learned is not None and score is not None:
            part = int(progress.learned * PARTS + 1e-9)
            if part > 0:
                self._scores[part] = score
        self._attempt.on_progress(progress)

    def should_stop(self) -> bool:
        return self.verdict is not None or self._attempt.should_stop()

    def _look_on(self) -> None:
        while not self._closed.wait(LOOK_EVERY):
            try:
                self._look()
            except AWAY as error:
                log.warning("job %s: not compared with other trials: %s", self._attempt.job, error)
            except Fenced:
                return  # whoever reports progress sees it too, and stops the work

    def _look(self) -> None:
        attempt, scores = self._attempt, self.scores
        if len(scores) > self._written:
            with attempt.database.write(EVERY_WORKSPACE) as session:
                attempts.load(session, attempt.job, attempt.number)
                session.execute(update(TrialRow).where(TrialRow.job_id == attempt.job).values(scores=scores))
            self._written = len(scores)
        with attempt.database.read(EVERY_WORKSPACE) as session:
            tune = jobs.get(session, attempt.spec["tune"])
            found = [one for one in trials.of(session, tune.id) if one.job.id != attempt.job]
            late = trials.out_of_time(tune, jobs.clock(session))
        if late and any(one.state == COMPLETED for one in found):
            self.verdict = "the tune's minutes are used up"
        elif worse(self._scores, found):
            part = max(self._scores)
            self.verdict = f"after {part}/{PARTS} of its learning it was worse than half of the trials were there"


def worse(scores: dict[int, float], others: Sequence[Trial]) -> bool:
    """Whether a trial with these scores so far should go no further."""
    completed = [one for one in others if one.state == COMPLETED and one.row.scores]
    if len(completed) < STARTUP or not scores or max(scores) < EARLIEST:
        return False
    import optuna
    from optuna.pruners import MedianPruner
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(logging.WARNING)
    pruner = MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=EARLIEST, n_min_trials=STARTUP)
    study = optuna.create_study(pruner=pruner)
    for one in completed:
        known = {int(part): float(score) for part, score in one.row.scores}
        study.add_trial(create_trial(value=one.row.value, intermediate_values=known))
    me = create_trial(state=TrialState.RUNNING, intermediate_values=dict(scores))
    return bool(pruner.prune(study, me))
