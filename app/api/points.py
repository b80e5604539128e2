"""Points of a whole dataset: read back as one stream."""

from typing import Annotated, Any

from fastapi import Query, Request, Response

from app.api.schemas.common import DatasetPath
from app.api.series import POINTS
from app.http import routers
from app.http.formats import STREAMS, documented, negotiate, tables_response
from app.http.problems import problems
from app.http.sessions import database, workspace
from app.services import datasets, points

router = routers.router("Datasets", "/v1/datasets/{dataset}/points")


def _streamed() -> dict[str, Any]:
    said = documented("The rows, as the `Accept` header asks.", POINTS)
    return {**said, "content": {media: said["content"][media] for media in STREAMS}}


@router.get(
    "",
    summary="Read all points back",
    response_class=Response,
    responses={200: _streamed()} | problems(404, 406, 409),
)
def read_all_points(
    dataset: DatasetPath,
    request: Request,
    revision: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="As of this revision; left out: the newest.")
    ] = None,
) -> Response:
    """Every series of the dataset by key, each as its own points are read: CSV, Parquet, an Arrow stream or NDJSON by
    `Accept`, sent while it is read. It is what one revision holds, whatever is uploaded meanwhile; a series that is
    erased meanwhile may be missing. Whatever comes out can be uploaded again."""
    media = negotiate(request, tuple(STREAMS))
    opened = database(request)
    with opened.read(workspace(request)) as session:
        row = datasets.get(session, dataset)
        pages = points.pages(opened, row, datasets.revision_of(session, row, revision).number)
    return tables_response(pages, media)
