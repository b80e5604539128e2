"""Datasets: create, list, show, change, delete."""

import hashlib
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import Body, Header, Query, Request, Response

from app.api.schemas.common import DatasetPath
from app.api.schemas.datasets import CovariateOut, DatasetIn, DatasetOut, DatasetPatchIn, DatasetsOut
from app.db.tables import DatasetRow
from app.errors import PreconditionFailed
from app.http import routers
from app.http.etags import is_known, tag_of, tags_in
from app.http.idempotency import IDEMPOTENT, idempotent
from app.http.pages import DEFAULT_SIZE, PageSize, PageToken, bad_token, decode_token, encode_token, next_link
from app.http.problems import problems
from app.http.sessions import ReadSession, WriteSession
from app.services import datasets
from app.services.datasets import Facts
from app.services.sums import micros
from models import Calendar

router = routers.router("Datasets", "/v1/datasets")

CREATE: dict[str, Any] = {
    "name": "shop-sales",
    "frequency": "D",
    "time_zone": "Europe/Berlin",
    "bounds": {"min": 0},
    "description": "Daily sales of each shop.",
}
IfMatch = Annotated[
    str | None,
    Header(description="The `ETag` the dataset was read with; 412 when it has changed since.", max_length=1000),
]


def dataset_out(facts: Facts) -> DatasetOut:
    """A dataset as its answers say it."""
    row, head = facts.dataset, facts.head
    start = end = None
    if head is not None and row.frequency is not None:
        calendar = Calendar.of(row.frequency, row.time_zone)
        start, end = (stamp(calendar, micros(at)) for at in (head.start, head.end))
    covariates = [CovariateOut(name=c.name, role=c.role, kind=c.kind) for c in facts.covariates]  # pyright: ignore[reportArgumentType]
    return DatasetOut(
        name=row.name,
        frequency=row.frequency,
        time_zone=row.time_zone,
        revision=row.head or None,
        series=head.series if head else 0,
        points=head.points if head else 0,
        start=start,
        end=end,
        covariates=covariates,
        bounds=row.bounds,  # pyright: ignore[reportArgumentType]
        description=row.description,
        created_at=row.created_at,
    )


def stamp(calendar: Calendar, time: int | None) -> str | int | None:
    """A time (µs, or an integer of `step`) as answers say it."""
    return None if time is None else calendar.stamps(np.array([time]))[0]


def _document(session: ReadSession, row: DatasetRow) -> tuple[bytes, str]:
    """The dataset's answer, and its tag."""
    body = dataset_out(datasets.facts(session, [row])[0]).model_dump_json().encode()
    return body, tag_of(body)


def _answer(body: bytes, tag: str, status: int = 200) -> Response:
    headers = {"ETag": tag, "Cache-Control": "private, max-age=0, must-revalidate"}
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def _check(session: ReadSession, row: DatasetRow, if_match: str | None) -> None:
    """Raises PreconditionFailed when the dataset is no longer as the client read it."""
    wanted = tags_in(if_match)
    if wanted is not None and "*" not in wanted and _document(session, row)[1] not in wanted:
        raise PreconditionFailed(f"Dataset {row.name!r} has changed since it was read.")


@router.post(
    "",
    status_code=201,
    summary="Create a dataset",
    response_model=DatasetOut,
    responses=problems(409),
    dependencies=[IDEMPOTENT],
)
def create_dataset(
    request: Request,
    session: WriteSession,
    body: Annotated[
        DatasetIn,
        Body(openapi_examples={"Daily": {"summary": "Daily series that cannot fall below zero", "value": CREATE}}),
    ],
) -> Response:
    """Makes a dataset without data. An upload to a name that does not exist makes one too, so this is only needed to
    say more about it: the frequency and time zone beforehand, bounds, a description."""

    def make() -> tuple[int, dict[str, str], dict[str, Any]]:
        about = {"bounds": body.bounds and body.bounds.document(), "description": body.description}
        row = datasets.create(session, body.name, (body.frequency, body.time_zone), about)
        document, tag = _document(session, row)
        return 201, {"Location": f"/v1/datasets/{row.name}", "ETag": tag}, orjson.loads(document)

    return idempotent(request, session, hashlib.sha256(body.model_dump_json().encode()).hexdigest(), make)


@router.get("", summary="List datasets", responses=problems())
def list_datasets(
    request: Request,
    response: Response,
    session: ReadSession,
    page_size: PageSize = DEFAULT_SIZE,
    page_token: PageToken = None,
) -> DatasetsOut:
    """All datasets, by name, each as its newest revision has it."""
    rows, last = datasets.list_page(session, text_after(request, page_token), page_size)
    token = None if last is None else encode_token(request, [last])
    response.headers.update(next_link(request, token))
    return DatasetsOut(datasets=[dataset_out(facts) for facts in datasets.facts(session, rows)], next_page_token=token)


def text_after(request: Request, token: str | None) -> str | None:
    """The text a page goes on from. Raises Invalid when the token is not one of a page ordered by a text."""
    if token is None:
        return None
    match decode_token(request, token):
        case [str(text)] if "\0" not in text:
            return text
        case _:
            raise bad_token()


@router.get(
    "/{dataset}",
    summary="Show a dataset",
    response_model=DatasetOut,
    responses=problems(404) | {304: {"description": "Not changed since the tag in `If-None-Match`."}},
)
def show_dataset(dataset: DatasetPath, request: Request, session: ReadSession) -> Response:
    """One dataset as its newest revision has it. `points` counts the values that are there, `start` and `end` are the
    times of the first and last of them. `ETag` changes with any of it."""
    body, tag = _document(session, datasets.get(session, dataset))
    if is_known(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return _answer(body, tag)


@router.patch("/{dataset}", summary="Change a dataset", response_model=DatasetOut, responses=problems(404, 412))
def change_dataset(
    dataset: DatasetPath,
    session: WriteSession,
    body: Annotated[
        DatasetPatchIn,
        Body(openapi_examples={"Bounds": {"summary": "Nothing below zero", "value": {"bounds": {"min": 0}}}}),
    ],
    if_match: IfMatch = None,
) -> Response:
    """Changes the bounds or the description. A version trained before keeps the bounds it was trained with."""
    row = datasets.get(session, dataset)
    _check(session, row, if_match)
    if "bounds" in body.model_fields_set:
        row.bounds = body.bounds.document() if body.bounds else None
    if "description" in body.model_fields_set:
        row.description = body.description or ""
    session.flush()
    return _answer(*_document(session, row))


@router.delete(
    "/{dataset}",
    status_code=204,
    response_class=Response,
    summary="Delete a dataset",
    responses=problems(404, 409, 412),
)
def delete_dataset(
    dataset: DatasetPath,
    session: WriteSession,
    force: Annotated[bool, Query(description="Delete it even if a version in use was trained on it.")] = False,
    if_match: IfMatch = None,
) -> None:
    """Deletes a dataset with all its series and revisions. Refused while an alias points to a version that was trained
    on it, unless `force=true`; such a version stays and keeps answering."""
    row = datasets.get(session, dataset)
    _check(session, row, if_match)
    datasets.remove(session, row, force)
