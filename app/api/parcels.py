"""Versions that move between servers: one out as a file, one in from a file."""

from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from app.api.schemas.common import ModelAliasPath, ModelPath, NumberPath
from app.api.schemas.registry import VersionOut
from app.errors import UnsupportedMedia
from app.http import routers
from app.http.etags import is_known, tag_of
from app.http.idempotency import IDEMPOTENT, idempotent, replay
from app.http.problems import problems
from app.http.sessions import AppSettings, ReadSession, actor, database, workspace
from app.http.spool import MULTIPART, UNTOLD, Spooled, spooled
from app.services import parcels, registry, registry_pages
from app.services.parcels import Arrival
from app.services.registry import Promote

router = routers.router("Models", "/v1/models")

ZIP = "application/zip"
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
FORM = {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file as the export gave it, or a form with it in a part named `file`.",
        "content": {ZIP: BINARY, MULTIPART: {"schema": FORM}},
    }
}
UNCHANGED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The model has this very version already: no other was made.", "model": VersionOut}
}
PromoteQuery = Annotated[
    Promote,
    Query(
        description="Whether it becomes the champion. The data that could judge it are not here, so `if_better` makes "
        "it the champion only where the model has none; `always` does at once, `never` leaves that to you.",
        examples=["never"],
    ),
]


@router.get(
    "/{model}/versions/{number}/export",
    summary="Export a version",
    response_class=StreamingResponse,
    responses=problems(404, 413, 503)
    | {304: {"description": "Not changed since the tag in `If-None-Match`."}}
    | {200: {"description": "The version as one file.", "content": {ZIP: BINARY}}},
)
def export_version(model: ModelAliasPath, number: NumberPath, request: Request, session: ReadSession) -> Response:
    """A version as one file, for another server to import: a zip archive, entries stored as they are, of its three
    files and `version.json`, which says where it was made. All bytes are checked against the recorded digest first. The
    same version gives the same bytes, also from a server that imported it. The model that comes with the server can be
    exported too."""
    found = registry.model_of(session, model)
    row = registry.find_version(session, found, number)
    headers = {"ETag": tag_of(parcels.about(found, row)), "Cache-Control": "private, max-age=0, must-revalidate"}
    if is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    sent = parcels.parcel(request.app.state.settings.store, found, row)
    headers["Content-Length"] = str(sent.size)
    headers["Content-Disposition"] = f'attachment; filename="{sent.name}"'
    return StreamingResponse(sent.pieces, headers=headers, media_type=ZIP)


@router.post(
    "/{model}/versions",
    status_code=201,
    summary="Import a version",
    response_model=VersionOut,
    responses=UNCHANGED | problems(409, 413, 415, 503),
    dependencies=[IDEMPOTENT],
    openapi_extra=BODY,
)
async def import_version(
    *, model: ModelPath, request: Request, settings: AppSettings, promote: PromoteQuery = "if_better"
) -> Response:
    """Makes an exported version the model's next one, and the model if there is none of this name.

    Nothing in the file is believed. It has to be as an export writes it; every digest is computed anew; the graph has
    to keep to standard operators and to itself, and is opened and asked for forecasts in a process of its own before
    the version exists. What is wrong is said, and nothing of it is stored.

    The version's `origin` says where it was made. Where a dataset here holds the same data, told by their digest, it is
    named too. Bytes that the model has already are answered 200 with that version.
    """
    async with spooled(request, settings.spool) as body:
        return await run_in_threadpool(_arrive, request, model, promote, body)


def _arrive(request: Request, model: str, promote: Promote, body: Spooled) -> Response:
    """Look at the file and put it into the store with no lock held, then record it in one transaction."""
    _check_media(body)
    settings, opened, place = request.app.state.settings, database(request), workspace(request)
    with opened.read(place) as session:
        if (kept := replay(request, session, body.digest)) is not None:
            return kept
        registry.refuse_shipped(session, model)
    ask = Arrival(model, promote, actor(request), place)
    with parcels.received(settings, body.path) as found:
        with opened.read(place) as session:
            there = parcels.held(session, model, found.digest) is not None
        folder = None if there else parcels.publish(settings, opened, found)
        with opened.write(place) as session:

            def make() -> tuple[int, dict[str, str], dict[str, Any]]:
                row, created = parcels.record(session, found, folder, ask)
                document = registry_pages.version_documents(session, registry.find_model(session, model), [row])[0]
                headers = {"Location": f"/v1/models/{model}/versions/{row.number}"}
                return 201 if created else 200, headers, VersionOut(**document).model_dump(mode="json")

            return idempotent(request, session, body.digest, make)


def _check_media(body: Spooled) -> None:
    """Raises UnsupportedMedia unless the body is said to be a zip archive, or said to be nothing in particular."""
    media = body.media_type.partition(";")[0].strip().lower()
    if media not in (ZIP, "application/x-zip-compressed", *UNTOLD):
        raise UnsupportedMedia(f"Content-Type: expected {ZIP}, got {media[:80]!r}.")
    if body.encoding not in (None, "", "identity"):
        raise UnsupportedMedia(f"Content-Encoding: expected none for this request, got {body.encoding[:80]!r}.")
