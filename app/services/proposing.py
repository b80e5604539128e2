"""What to try next: Optuna's TPE over the trials there are. The study is made anew from rows each time, and its seed
from the number of the trial that is asked for, so that the same history gives the same proposal, whoever asks."""

import itertools
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.services import spaces
from app.services.spaces import Space
from app.services.trials import COMPLETED, PRUNED, Trial

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

AGAIN = 20  # proposals refused because they were tried already, before one is drawn from those that were not
LISTED = 100_000  # combinations, up to which they are listed for that
STARTUP = 10  # trials drawn at random before any model of them is worth having, of short tunes a third


def propose(space: Space, found: Sequence[Trial], trials: int, seed: int) -> Iterator[dict[str, Any]]:
    """Values for the next trials, of which no two are the same and none was tried; ends when all have been. `trials`
    is how many there will be in all."""
    study = _study(found, space, max(4, min(STARTUP, trials // 3)))
    known = {_key(one.row.params) for one in found if one.counts}
    for number in itertools.count(max((one.row.number for one in found), default=-1) + 1):
        study.sampler = _sampler(max(4, min(STARTUP, trials // 3)), seed + number)
        params = _fresh(study, space, known, seed + number)
        if params is None:
            return
        known.add(_key(params))
        yield params


def _fresh(study: "Study", space: Space, known: set[str], seed: int) -> dict[str, Any] | None:
    from optuna.trial import TrialState

    wanted = {name: distribution(name, values) for name, values in space.items()}
    for _ in range(AGAIN):
        asked = study.ask(wanted)
        if _key(asked.params) not in known:
            return asked.params
        study.tell(asked, state=TrialState.FAIL)
    if spaces.size(space) > LISTED:
        return study.ask(wanted).params
    untried = [params for params in spaces.combinations(space) if _key(params) not in known]
    return random.Random(seed).choice(untried) if untried else None  # noqa: S311 -- no secret


def frozen(trial: Trial, space: Space) -> "FrozenTrial | None":
    """A trial as Optuna sees it; None for what says nothing: one that failed, or that tried no value of the space."""
    from optuna.trial import TrialState, create_trial

    if set(trial.row.params) != set(space):
        return None
    state = {COMPLETED: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}.get(trial.state)
    if trial.open:
        state = TrialState.RUNNING
    scores = {int(step): float(score) for step, score in trial.row.scores}
    if state is None or (state == TrialState.PRUNED and not scores):
        return None
    return create_trial(
        state=state,
        params=trial.row.params,
        distributions={name: distribution(name, values) for name, values in space.items()},
        value=trial.row.value if state == TrialState.COMPLETE else None,
        intermediate_values=scores,
    )


def distribution(name: str, values: Any) -> "BaseDistribution":
    """A field's choices or range as Optuna names them."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not spaces.is_range(values):
        return CategoricalDistribution(tuple(values))
    low, high, step, log = (values.get(part) for part in ("low", "high", "step", "log"))
    if step:
        high = low + int((high - low) / step + 1e-9) * step
    if spaces.is_whole(name):
        return IntDistribution(int(low), int(high), bool(log), int(step or 1))
    return FloatDistribution(float(low), float(high), bool(log), None if step is None else float(step))


def _study(found: Sequence[Trial], space: Space, startup: int) -> "Study":
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    study = optuna.create_study(sampler=_sampler(startup, 0))
    study.add_trials([one for one in (frozen(trial, space) for trial in found) if one is not None])
    return study


def _sampler(startup: int, seed: int) -> Any:
    from optuna.samplers import TPESampler

    return TPESampler(n_startup_trials=startup, multivariate=True, seed=seed % 2**31)


def _key(params: Mapping[str, Any]) -> str:
    return repr(sorted(params.items()))
