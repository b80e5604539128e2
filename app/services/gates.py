"""The gate: whether a new version is better than the champion, so that it may take its place unasked.

Versions of one model may be trained for different horizons, and a figure over another horizon says little: a champion
rolled out to 5,000 steps loses to anything that was trained for them, and a version trained for one step may win there
and be useless at the champion's 48. So both are scored over the steps that both were trained for, none of which either
has learned from, and a version that was trained for fewer must hold its own over the champion's as well."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app import store
from app.errors import AppError, Conflict, NotFound, StoreAway
from app.services import registry
from app.services.attempts import Attempt
from app.services.registry import CHAMPION, Gate
from models import BacktestPlan, Column, OpenArtifact, Progress, Series, TrainResult, backtest, open_artifact

log = logging.getLogger("gatecast.worker")

METRIC = "mase"  # what is compared
FEWEST = 6  # values that the figures must rest on: below, chance decides


@dataclass(frozen=True)
class Scores:
    """What a version and the naive forecasts scored over the version's own held-out origins."""

    metrics: Mapping[str, Any]
    baselines: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Champion:
    """The version that holds the alias, as far as it is compared."""

    number: int
    folder: str
    digest: str
    scores: Scores


Scored = tuple[OpenArtifact, Sequence[Series]]  # a version, and the series as it knows them


def compare(attempt: Attempt, series: Sequence[Series], columns: Sequence[Column], result: TrainResult) -> Gate | None:
    """The new version's figure beside the champion's, over the last steps of each series, whose covariates are
    `columns`, and in the new version's scale of errors; None when there is no champion or nobody asked."""
    if attempt.spec["promote"] != "if_better":
        return None
    try:
        with attempt.database.read(attempt.workspace) as session:
            row = registry.resolve(session, f"{attempt.spec['model']}@{CHAMPION}").version
            champion = Champion(row.number, row.folder, row.digest, Scores(row.metrics, row.baselines))
    except NotFound:
        return None
    attempt.on_progress(Progress(0, 0, f"comparing with version {champion.number}"))
    origins = dict(result.origins)
    ours = open_artifact(result.artifact)
    try:
        if not series:
            raise Conflict("The dataset was deleted meanwhile, so nothing is left to compare over.")
        path = store.verified(attempt.settings.store, champion.folder, champion.digest, store.PATIENCE)
        theirs = open_artifact(path)
        theirs = replace(theirs, config=theirs.config.replace(season=ours.config.season), calendar=ours.calendar)
        pair = [(one, one.recoded(series, columns)) for one in (ours, theirs)]
        horizon = min(ours.horizon, theirs.horizon)
        value, other, count = _figures(attempt, pair, horizon)
        if count < FEWEST:  # one series, one step ahead: earlier origins, that both have learned from, decide too
            value, other, count = _figures(attempt, pair, horizon, -(-FEWEST // max(1, count)))
        refusal = few(count) or beaten(Scores(result.metrics, result.baselines), champion.scores)
        if refusal is None and ours.horizon < theirs.horizon and other is not None and value < other:
            wide, other_wide, _ = _figures(attempt, pair, theirs.horizon)
            refusal = shorter((ours.horizon, theirs.horizon), wide, other_wide)
    except StoreAway:  # which says nothing of the champion
        raise
    except (AppError, ValueError) as error:
        log.warning("job %s: version %d cannot be scored: %s", attempt.job, champion.number, error)
        origins["champion_error"] = str(error)
        value = float(result.metrics.get(METRIC, math.inf))
        return Gate(METRIC, value, champion.number, None, origins)
    origins |= {"horizon": horizon, "step": horizon}
    return Gate(METRIC, value, champion.number, other, origins, refusal)


def _figures(
    attempt: Attempt, pair: Sequence[Scored], horizon: int, origins: int = 1
) -> tuple[float, float | None, int]:
    """The figure of each of the pair over the last `origins` times `horizon` steps, and the number of values it rests
    on."""
    plan = BacktestPlan(origins, horizon, horizon, ())
    ours, theirs = (backtest(opened, series, plan, should_stop=attempt.should_stop) for opened, series in pair)
    values = [next((row["value"] for row in found.scores if row["metric"] == METRIC), None) for found in (ours, theirs)]
    return math.inf if values[0] is None else values[0], values[1], ours.values


def few(count: int) -> str | None:
    """Why figures over `count` values decide nothing, if they do not."""
    return f"{count} values to compare over are too few, {FEWEST} are needed" if count < FEWEST else None


def beaten(ours: Scores, theirs: Scores) -> str | None:
    """Why a version whose own scores are `ours` may not be champion, if a naive forecast is better than it and none is
    better than the champion."""
    name = _better(ours)
    if name is None or METRIC not in theirs.metrics or _better(theirs) is not None:
        return None
    return f"{name} beats it on its held-out origins, and nothing so simple beat the champion on its own"


def _better(scores: Scores) -> str | None:
    """The naive baseline that is better than a version by the version's own scores, if one is."""
    own = scores.metrics.get(METRIC)
    found = {name: known[METRIC] for name, known in scores.baselines.items() if known.get(METRIC) is not None}
    best = min(found, key=lambda name: found[name], default=None)
    return best if best is not None and own is not None and found[best] < own else None


def shorter(horizons: tuple[int, int], value: float, other: float | None) -> str | None:
    """Why a version trained for fewer steps than the champion (`horizons`) may not replace it, if it is worse over the
    champion's. It has learned from some of the steps compared there, so that losing in spite of it is no accident."""
    if other is None or value <= other:
        return None
    return (
        f"trained for {horizons[0]} steps it is worse over the champion's {horizons[1]}: "
        f"{METRIC} {value:.4g} against {other:.4g}"
    )
