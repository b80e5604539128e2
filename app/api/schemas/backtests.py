"""Backtests on the wire."""

import datetime as dt
from typing import Any

from pydantic import Field

from app.api.schemas.common import Out
from app.db.tables import BacktestRow


class ScoreOut(Out):
    metric: str = Field(
        description="mase, smape (0 to 200), mae, rmse, wql (nine deciles), owa (where Naive2 was asked for), and "
        "of the 80 % interval coverage_80, interval_80 (the interval score) and msis_80 (in units of the scale of "
        "MASE); those of 95 % too where the version was trained so far out.",
        examples=["mase"],
    )
    value: float | None
    baseline: str | None = Field(description="Whose score: null is the version's own, else the baseline's name.")


class HorizonScoreOut(ScoreOut):
    horizon: int = Field(description="Steps ahead of the origin.")


class OriginsOut(Out):
    first: str | int = Field(description="First origin: time of the last value that was known.")
    last: str | int
    series: int = Field(description="How many series were scored over just these.")


class LinkOut(Out):
    href: str


class BacktestBriefOut(Out):
    """A version's scores over a dataset's past."""

    id: str = Field(description="The id of the job that made it.")
    dataset: str
    revision: int
    model: str
    version: int
    horizon: int
    step: int = Field(description="Steps between two origins.")
    scores: list[ScoreOut]
    created_at: dt.datetime

    @staticmethod
    def brief(row: BacktestRow) -> dict[str, Any]:
        names = ("id", "dataset", "revision", "model", "version", "horizon", "step", "scores", "created_at")
        return {name: getattr(row, name) for name in names}


class BacktestOut(BacktestBriefOut):
    by_horizon: list[HorizonScoreOut]
    by_series: LinkOut
    origins: list[OriginsOut] = Field(description="Over which origins the scores were taken.")


class BacktestsOut(Out):
    backtests: list[BacktestBriefOut]
    next_page_token: str | None


class SeriesScoresOut(Out):
    key: str
    first: str | int = Field(description="Its first origin.")
    last: str | int
    scores: list[ScoreOut]


class SeriesScoresPageOut(Out):
    series: list[SeriesScoresOut]
    next_page_token: str | None
