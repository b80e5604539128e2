"""Series of a dataset: list them, read their points back, erase one."""

from typing import Annotated, Any

from fastapi import Query, Request, Response

from app.api.datasets import stamp, text_after
from app.api.schemas.common import DatasetPath, KeyPath
from app.api.schemas.datasets import SeriesOut, SeriesPageOut
from app.http import routers
from app.http.formats import documented, negotiate, table_response
from app.http.pages import DEFAULT_SIZE, PageSize, PageToken, encode_token, next_link
from app.http.problems import problems
from app.http.sessions import ReadSession, WriteSession
from app.services import datasets, points, series
from models import Calendar

router = routers.router("Datasets", "/v1/datasets/{dataset}/series")

POINTS: dict[str, list[Any]] = {
    "key": ["us_gasoline"] * 3,
    "timestamp": ["1991-02-08T00:00:00+00:00", "1991-02-15T00:00:00+00:00", "1991-02-22T00:00:00+00:00"],
    "value": [6621, 6433, 6582],
}


@router.get("", summary="List series", responses=problems(404))
def list_series(
    *,
    dataset: DatasetPath,
    request: Request,
    response: Response,
    session: ReadSession,
    page_size: PageSize = DEFAULT_SIZE,
    page_token: PageToken = None,
    search: Annotated[
        str | None,
        Query(max_length=255, pattern="^[^\\x00]*$", description="Only keys that hold this text, in either case."),
    ] = None,
) -> SeriesPageOut:
    """Series of the newest revision by key, each with its first and last value's time, values and gaps."""
    row = datasets.get(session, dataset)
    found, last = series.list_page(session, row, text_after(request, page_token), page_size, search)
    calendar = Calendar.of(row.frequency or "D", row.time_zone)
    token = None if last is None else encode_token(request, [last])
    response.headers.update(next_link(request, token))
    page = [
        SeriesOut(
            key=one.key,
            start=stamp(calendar, one.start),
            end=stamp(calendar, one.end),
            points=one.points,
            missing=one.missing,
        )
        for one in found
    ]
    return SeriesPageOut(series=page, next_page_token=token)


@router.get(
    "/{key:path}/points",
    summary="Read points back",
    response_class=Response,
    responses={200: documented("One row a step, as the `Accept` header asks.", POINTS)} | problems(404, 406, 409),
)
def read_points(
    *,
    dataset: DatasetPath,
    key: KeyPath,
    request: Request,
    session: ReadSession,
    revision: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="As of this revision; left out: the newest.")
    ] = None,
    start: Annotated[
        str | None, Query(max_length=64, description="First time, included; without offset it is local.")
    ] = None,
    end: Annotated[
        str | None, Query(max_length=64, description="Last time, included; without offset it is local.")
    ] = None,
    limit: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Most rows: the first ones.")] = None,
) -> Response:
    """One series in time order: a row for each step from its first to its last value, steps without one as missing, and
    the covariates where there are any. JSON is one object of columns; CSV, Parquet, Arrow and NDJSON by `Accept`.
    Whatever comes out can be uploaded again."""
    media = negotiate(request)
    which = points.Range(start, end, limit)
    table = points.table_of(session, datasets.get(session, dataset), key, revision, which)
    return table_response(table, media)


@router.delete(
    "/{key:path}", status_code=204, response_class=Response, summary="Erase a series", responses=problems(404)
)
def delete_series(dataset: DatasetPath, key: KeyPath, session: WriteSession) -> None:
    """Erases a series from every revision, for good. The revisions' totals shrink; their digests stay."""
    series.erase(session, datasets.get(session, dataset), key)
