"""Revisions: what an upload makes of a dataset, and what was noticed in it."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import Query, Request, Response
from starlette.concurrency import run_in_threadpool

from app.api.schemas.common import DatasetPath, NumberPath
from app.api.schemas.datasets import AuditLinkOut, AuditOut, FindingOut, RevisionOut, UploadQuery
from app.config import Settings
from app.db.session import AWAY
from app.db.tables import DatasetRow, RevisionRow
from app.errors import AppError, NotFound
from app.http import routers
from app.http.formats import ARROW, CSV, JSON, JSONL, NDJSON, PARQUET
from app.http.idempotency import IDEMPOTENT, idempotent, replay
from app.http.problems import problems
from app.http.sessions import AppSettings, ReadSession, database, workspace
from app.http.spool import MULTIPART, Spooled, spooled
from app.services import datasets
from app.services.datasets import Change, Limits, Outcome
from app.services.ingest import Ahead, Ask, Coming, Retold, Upload, parse

router = routers.router("Datasets", "/v1/datasets/{dataset}/revisions")

AHEAD_BYTES = 4 << 20  # a longer body is read while it arrives

EXAMPLE = "unique_id,ds,y\nus_gasoline,2020-01-03,8133\nus_gasoline,2020-01-10,8558\nus_gasoline,2020-01-17,8662\n"
RECORDS = (
    '{"key": "us_gasoline", "timestamp": "2020-01-03", "value": 8133}\n'
    '{"key": "us_gasoline", "timestamp": "2020-01-10", "value": 8558}\n'
)
COLUMNS = {"key": ["us_gasoline"] * 2, "timestamp": ["2020-01-03", "2020-01-10"], "value": [8133, 8558]}
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file itself, also packed (`Content-Encoding: gzip` or `zstd`), or a form with it in a part "
        "named `file`.",
        "content": {
            CSV: {"schema": {"type": "string"}, "example": EXAMPLE},
            PARQUET: BINARY,
            ARROW: BINARY,
            NDJSON: {"schema": {"type": "string"}, "example": RECORDS},
            JSONL: {"schema": {"type": "string"}, "example": RECORDS},
            JSON: {"schema": {"type": ["array", "object"]}, "example": COLUMNS},
            MULTIPART: {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}
UNCHANGED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Nothing in it was new: no revision was made, this is the newest one.", "model": RevisionOut}
}


def _out(dataset: DatasetRow, row: RevisionRow, counts: tuple[int, int, int]) -> RevisionOut:
    inserted, updated, unchanged = counts
    href = f"/v1/datasets/{dataset.name}/revisions/{row.number}/audit"
    return RevisionOut(
        dataset=dataset.name,
        revision=row.number,
        mode=row.mode,
        series=row.series,
        points=row.points,
        inserted=inserted,
        updated=updated,
        unchanged=unchanged,
        digest=row.digest,
        columns={name: value for name, value in row.columns.items() if name != "live"},
        frequency=dataset.frequency or "",
        audit=AuditLinkOut(errors=0, warnings=row.audit["warnings"], href=href),
        created_at=row.created_at,
    )


@router.post(
    "",
    status_code=201,
    summary="Upload a file",
    response_model=RevisionOut,
    responses=UNCHANGED | problems(409, 413, 415, 503),
    dependencies=[IDEMPOTENT],
    openapi_extra=BODY,
)
async def upload(
    request: Request, dataset: DatasetPath, query: Annotated[UploadQuery, Query()], settings: AppSettings
) -> Response:
    """Makes the file the dataset's next revision, and the dataset if there is none of this name.

    The file is CSV, Parquet, an Arrow stream, NDJSON or JSON (an array of records, or an object of equal-length
    columns), by `Content-Type`; plain or packed. Rows may come in any order. Columns are sniffed by their usual names
    (`unique_id, ds, y`; `item_id, timestamp, target`; `key, timestamp, value` …) and said in the answer; other columns
    are kept as covariates. Rows without a value after a series' last one carry its future covariates. Either all of
    the file is stored or nothing: what is wrong with it is said row by row.

    An upload that changes nothing is answered 200 with the newest revision.
    """

    def begin(path: Path, media_type: str, length: int) -> Ahead | None:
        return _begin(request, _ask(settings, dataset, query, media_type, None), query, path, length)

    async with spooled(request, settings.spool, begin) as body:
        return await run_in_threadpool(_store, request, dataset, query, body)


def _begin(request: Request, ask: Ask, query: UploadQuery, path: Path, length: int) -> Ahead | None:
    """Let a long file be read while it arrives. What is wrong with the question is said when it is there."""
    if length < AHEAD_BYTES:
        return None
    try:
        with database(request).read(workspace(request)) as session:
            known = datasets.known(session, ask.dataset, query.time_zone)
        return Ahead.begin(path, length, ask, known)
    except (AppError, OSError, *AWAY):
        return None


def _ask(settings: Settings, dataset: str, query: UploadQuery, media_type: str, encoding: str | None) -> Ask:
    return Ask(
        media_type=media_type,
        encoding=encoding,
        layout=query.layout,
        frequency=query.frequency,
        id_column=query.id_column,
        time_column=query.time_column,
        target_column=query.target_column,
        static_columns=tuple(query.static_columns),
        future_columns=tuple(query.future_columns),
        past_columns=tuple(query.past_columns),
        dataset=dataset,
        max_inflated_bytes=settings.max_inflated_bytes,
        max_columns=settings.max_columns,
        max_series=settings.max_series,
        max_span=settings.max_span,
    )


def _store(request: Request, dataset: str, query: UploadQuery, body: Spooled) -> Response:
    """Read the file and work out what it changes with no lock held, then write it in one transaction."""
    settings: Settings = request.app.state.settings
    opened, place = database(request), workspace(request)
    with opened.read(place) as session:
        if (kept := replay(request, session, body.digest)) is not None:
            return kept
        known = datasets.known(session, dataset, query.time_zone)
    ask = _ask(settings, dataset, query, body.media_type, body.encoding)
    limits = Limits(settings.max_series, settings.max_span)

    def drafted(upload: Upload | Coming) -> Change | None:
        with opened.read(place) as session:
            return datasets.draft(session, dataset, upload, query.mode, limits)

    if body.ahead is not None and body.ahead.fits(ask, known):
        coming = body.ahead.coming()
        try:
            draft = drafted(coming)
        except Retold:
            draft = drafted(coming.whole())
        except AppError:
            coming.whole()  # what is wrong with the file itself is said first
            raise
        parsed = coming.whole()
    else:
        parsed = parse(body.path, ask, known)
        draft = drafted(parsed)
    with opened.write(place) as session:

        def make() -> tuple[int, dict[str, str], dict[str, Any]]:
            outcome = datasets.store(session, dataset, parsed, query.mode, draft=draft, limits=limits)
            return _stored(outcome)

        answer = idempotent(request, session, body.digest, make)
    opened.refresh_statistics()
    return answer


def _stored(outcome: Outcome) -> tuple[int, dict[str, str], dict[str, Any]]:
    counts = (outcome.inserted, outcome.updated, outcome.unchanged)
    document = _out(outcome.dataset, outcome.revision, counts).model_dump(mode="json")
    location = f"/v1/datasets/{outcome.dataset.name}/revisions/{outcome.revision.number}"
    return 201 if outcome.created else 200, {"Location": location}, document


def _found(session: ReadSession, name: str, number: int) -> tuple[DatasetRow, RevisionRow]:
    dataset = datasets.get(session, name)
    if number > dataset.head:
        raise NotFound(f"Dataset {name!r} has no revision {number}; its newest is {dataset.head}.")
    return dataset, datasets.revision_of(session, dataset, number)


@router.get("/{number}", summary="Show a revision", responses=problems(404))
def show_revision(dataset: DatasetPath, number: NumberPath, session: ReadSession) -> RevisionOut:
    """What one upload changed, and what the dataset held after it."""
    found, row = _found(session, dataset, number)
    return _out(found, row, (row.inserted, row.updated, row.unchanged))


@router.get("/{number}/audit", summary="Show an upload's audit", responses=problems(404))
def show_audit(dataset: DatasetPath, number: NumberPath, session: ReadSession) -> AuditOut:
    """What was noticed in the file of a revision: merged duplicates, moved times, how a doubt was decided."""
    _, row = _found(session, dataset, number)
    findings = [FindingOut(**finding) for finding in row.audit["findings"]]
    return AuditOut(revision=number, errors=[], error_count=0, warnings=findings, warning_count=row.audit["warnings"])
