"""Backtests: how good a version would have been over a dataset's past, beside the naive forecasts."""

from typing import Annotated

from fastapi import Path, Request, Response

from app.api.schemas.backtests import BacktestBriefOut, BacktestOut, BacktestsOut, LinkOut, SeriesScoresPageOut
from app.http import routers
from app.http.pages import DEFAULT_SIZE, PageSize, PageToken, bad_token, decode_token, encode_token, next_link
from app.http.problems import problems
from app.http.sessions import ReadSession
from app.services import backtests

router = routers.router("Backtests", "/v1/backtests")

BacktestPath = Annotated[
    str,
    Path(max_length=64, description="Id of the backtest's job.", examples=["job_019a8c5e-7b1c-7d3e-9f00-3c2b1a098765"]),
]


@router.get("", summary="List backtests", responses=problems())
def list_backtests(
    request: Request,
    response: Response,
    session: ReadSession,
    page_size: PageSize = DEFAULT_SIZE,
    page_token: PageToken = None,
) -> BacktestsOut:
    """All backtests with their scores, newest first. Start one with `POST /v1/jobs`, kind `backtest`."""
    before = None
    if page_token is not None:
        match decode_token(request, page_token):
            case [str(value)] if len(value) <= 64:
                before = value
            case _:
                raise bad_token()
    rows = backtests.list_page(session, before, page_size + 1)
    token = encode_token(request, [rows[page_size - 1].id]) if len(rows) > page_size else None
    response.headers.update(next_link(request, token))
    found = [BacktestBriefOut(**BacktestBriefOut.brief(row)) for row in rows[:page_size]]
    return BacktestsOut(backtests=found, next_page_token=token)


@router.get("/{backtest}", summary="Show a backtest", responses=problems(404))
def show_backtest(backtest: BacktestPath, session: ReadSession) -> BacktestOut:
    """Scores over all series and origins, the same by steps ahead, and over which origins they were taken. MASE's scale
    is the error of the seasonal naive forecast before a series' first origin. Where values had to be filled for a
    baseline, or one could not be fitted, the job's `result.notes` says so."""
    row = backtests.get(session, backtest)
    link = LinkOut(href=f"/v1/backtests/{row.id}/series")
    brief = BacktestBriefOut.brief(row)
    return BacktestOut.model_validate(
        {**brief, "by_horizon": row.by_horizon, "by_series": link, "origins": row.origins}
    )


@router.get("/{backtest}/series", summary="List a backtest's scores by series", responses=problems(404))
def list_backtest_series(
    *,
    backtest: BacktestPath,
    request: Request,
    response: Response,
    session: ReadSession,
    page_size: PageSize = DEFAULT_SIZE,
    page_token: PageToken = None,
) -> SeriesScoresPageOut:
    """The scores of each series by itself, in key order."""
    first = 0
    if page_token is not None:
        match decode_token(request, page_token):
            case [int(value)] if 0 < value < 2**31:
                first = value
            case _:
                raise bad_token()
    found = backtests.get(session, backtest, by_series=True).by_series
    after = first + page_size
    token = encode_token(request, [after]) if len(found) > after else None
    response.headers.update(next_link(request, token))
    return SeriesScoresPageOut(series=found[first:after], next_page_token=token)
