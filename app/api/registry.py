"""Models, versions and their files, aliases and their moves."""

import base64
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader
from typing import Annotated, Any, Literal, TypeVar

from fastapi import BackgroundTasks, Body, Depends, Header, Path, Request, Response
from fastapi.responses import StreamingResponse

from app import store
from app.api.schemas.common import AliasPath, ModelAliasPath, NumberPath
from app.api.schemas.registry import (
    AliasIn,
    AliasOut,
    ModelOut,
    ModelsOut,
    MoveOut,
    MovesOut,
    RollbackIn,
    VersionOut,
    VersionsOut,
)
from app.db.tables import AliasRow
from app.http import routers
from app.http.chores import attempt
from app.http.etags import is_known, tag_of, tags_in
from app.http.idempotency import IDEMPOTENT, idempotent
from app.http.pages import DEFAULT_SIZE, PageSize, PageToken, bad_token, decode_token, encode_token, next_link
from app.http.problems import problems
from app.http.sessions import ReadSession, WriteSession, actor
from app.services import registry, registry_pages

router = routers.router("Models", "/v1/models")
CHUNK = 1024 * 1024
TEXT = {"type": "string"}
CARD = "# fuel, version 1\n\n- Learned from: revision 1 of dataset gasoline (steps of W-FRI, UTC)\n"
Key = TypeVar("Key", int, str)
Row = TypeVar("Row")
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "Not changed since the tag in `If-None-Match`."}}


class Markdown(Response):
    media_type = "text/markdown"


class _Page:
    """One page's query, and what its answer says about the next one."""

    def __init__(
        self, request: Request, response: Response, page_size: PageSize = DEFAULT_SIZE, page_token: PageToken = None
    ) -> None:
        self.request, self.response, self.size, self.token = request, response, page_size, page_token

    def after(self, kind: type[Key]) -> Key | None:
        """The sort value of the last row of the page before. Raises Invalid when the token is not this route's."""
        if self.token is None:
            return None
        match decode_token(self.request, self.token):
            case [value] if type(value) is kind and not (isinstance(value, int) and abs(value) > 2**31):
                return value
            case _:
                raise bad_token()

    def cut(self, rows: Sequence[Row], key: Callable[[Row], Any]) -> tuple[Sequence[Row], str | None]:
        """The page's rows out of one more than it may have, and the next page's token, also set as a `Link`."""
        token = encode_token(self.request, [key(rows[self.size - 1])]) if len(rows) > self.size else None
        self.response.headers.update(next_link(self.request, token))
        return rows[: self.size], token


class _Mover:
    """Who moves an alias, and what must hold before it moves."""

    def __init__(
        self,
        request: Request,
        if_match: Annotated[
            str | None,
            Header(description="The ETag that the alias was read with; 412 when it has moved since.", max_length=1000),
        ] = None,
        if_none_match: Annotated[
            str | None, Header(description="`*`: only set the alias where there is none yet.", max_length=1000)
        ] = None,
    ) -> None:
        self.actor = actor(request)
        self.condition = registry.Condition(tags_in(if_match), tags_in(if_none_match) or frozenset())


Page = Annotated[_Page, Depends()]
Mover = Annotated[_Mover, Depends()]


# ---------------------------------------------------------------- models


@router.get("", summary="List models", responses=problems())
def list_models(session: ReadSession, page: Page) -> ModelsOut:
    """Models by name, with where their aliases point."""
    found = registry_pages.list_models(session, page.after(str), page.size + 1)
    rows, token = page.cut(found, lambda row: row.name)
    documents = registry_pages.model_documents(session, rows)
    return ModelsOut(models=[ModelOut(**document) for document in documents], next_page_token=token)


@router.get("/{model}", summary="Show a model", responses=problems(404))
def show_model(model: ModelAliasPath, session: ReadSession) -> ModelOut:
    """One model: how many versions it has and where its aliases point."""
    row = registry.model_of(session, model)
    return ModelOut(**registry_pages.model_documents(session, [row])[0])


# ---------------------------------------------------------------- versions


@router.get("/{model}/versions", summary="List versions", responses=problems(404))
def list_versions(model: ModelAliasPath, session: ReadSession, page: Page) -> VersionsOut:
    """A model's versions, newest first: the leaderboard, each beside the naive baselines on its held-out origins."""
    row = registry.model_of(session, model)
    found = registry_pages.list_versions(session, row, page.after(int), page.size + 1)
    rows, token = page.cut(found, lambda version: version.number)
    documents = registry_pages.version_documents(session, row, rows)
    return VersionsOut(versions=[VersionOut(**document) for document in documents], next_page_token=token)


@router.get(
    "/{model}/versions/{number}",
    summary="Show a version",
    response_model=VersionOut,
    responses=problems(404) | UNCHANGED,
)
def show_version(model: ModelAliasPath, number: NumberPath, request: Request, session: ReadSession) -> Response:
    """What a version was trained on and how, its scores beside the baselines', and the aliases that point to it."""
    row = registry.model_of(session, model)
    document = registry_pages.version_documents(session, row, [registry.find_version(session, row, number)])[0]
    body = VersionOut(**document).model_dump_json().encode()
    return _cached(request, tag_of(body), body)


@router.delete(
    "/{model}/versions/{number}",
    status_code=204,
    response_class=Response,
    summary="Delete a version",
    responses=problems(404, 409),
)
def delete_version(
    model: ModelAliasPath, number: NumberPath, request: Request, session: WriteSession, after: BackgroundTasks
) -> None:
    """Deletes a version and its files. Refused while an alias points to it, and for a model that comes with the server;
    its number is never used again."""
    folder = registry.delete_version(session, model, number)
    # Runs once the answer is out, so after the commit: a folder without a row is swept, a row without a folder is not.
    after.add_task(request.app.state.versions.drop, folder)
    after.add_task(attempt, store.remove, request.app.state.settings.store, folder)


@router.get(
    "/{model}/versions/{number}/card",
    summary="Read a version's card",
    response_class=Markdown,
    responses=problems(404, 503)
    | {200: {"description": "The card.", "content": {Markdown.media_type: {"schema": TEXT, "example": CARD}}}},
)
def read_card(model: ModelAliasPath, number: NumberPath, request: Request, session: ReadSession) -> Response:
    """What a version is, in words and Markdown: what it learned from, what it is good for, its scores."""
    row = registry.model_of(session, model)
    version = registry.find_version(session, row, number)
    manifest = store.read_manifest(request.app.state.settings.store, version.folder, version.digest)
    document = registry_pages.version_documents(session, row, [version])[0]
    return Markdown(registry_pages.card(document, manifest))


FileName = Annotated[
    Literal["weights.safetensors", "forward.onnx", "manifest.json"], Path(description="Which of the three files.")
]
MEDIA = {store.MANIFEST: "application/json"}


@router.head("/{model}/versions/{number}/files/{name}", include_in_schema=False)
@router.get(
    "/{model}/versions/{number}/files/{name}",
    summary="Download a file of a version",
    response_class=StreamingResponse,
    responses=problems(404, 503)
    | UNCHANGED
    | {200: {"description": "The file.", "content": {"application/octet-stream": {}, "application/json": {}}}},
)
def download(
    model: ModelAliasPath, number: NumberPath, name: FileName, request: Request, session: ReadSession
) -> Response:
    """One of the three files of a version. Its bytes are checked against the recorded digest first, and never change:
    `ETag` and `Repr-Digest` carry their sha256."""
    row = registry.find_version(session, registry.model_of(session, model), number)
    file, digest = store.open_file(request.app.state.settings.store, row.folder, name, row.digest)
    sha256 = digest.removeprefix("sha256:")
    headers = {
        "ETag": f'"{sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:",
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Length": str(file.seek(0, 2)),
    }
    file.seek(0)
    if is_known(request, headers["ETag"]) or request.method == "HEAD":
        file.close()
        if request.method == "HEAD":
            return Response(headers=headers, media_type=MEDIA.get(name, "application/octet-stream"))
        del headers["Content-Length"]
        return Response(status_code=304, headers=headers)
    return StreamingResponse(_chunks(file), headers=headers, media_type=MEDIA.get(name, "application/octet-stream"))


# ---------------------------------------------------------------- aliases


@router.get(
    "/{model}/aliases/{alias}", summary="Show an alias", response_model=AliasOut, responses=problems(404) | UNCHANGED
)
def show_alias(model: ModelAliasPath, alias: AliasPath, request: Request, session: ReadSession) -> Response:
    """Where an alias points. Its `ETag` is for `If-Match` when you move it."""
    row = registry.model_of(session, model)
    found = registry.find_alias(session, row, alias)
    return _cached(request, registry.tag(found), _alias_out(row.name, found).model_dump_json().encode())


@router.put(
    "/{model}/aliases/{alias}",
    summary="Move an alias",
    responses=problems(404, 409, 412) | {201: {"description": "The alias is new.", "model": AliasOut}},
)
def move_alias(
    *,
    model: ModelAliasPath,
    alias: AliasPath,
    ask: Annotated[AliasIn, Body(examples=[{"version": 1, "reason": "Better on last month."}])],
    response: Response,
    session: WriteSession,
    mover: Mover,
) -> AliasOut:
    """Points an alias at a version; the next request sees it, in every process. `champion` answers for the model's bare
    name. With `If-Match`, 412 when somebody moved it first. Refused for a model that comes with the server."""
    why = registry.Why(mover.actor, ask.reason)
    row, created = registry.move(session, model, alias, ask.version, why, condition=mover.condition)
    name = model.partition("@")[0]
    response.headers["ETag"] = registry.tag(row)
    if created:
        response.status_code = 201
        response.headers["Location"] = f"/v1/models/{name}/aliases/{alias}"
    return _alias_out(name, row)


@router.delete(
    "/{model}/aliases/{alias}",
    status_code=204,
    response_class=Response,
    summary="Remove an alias",
    responses=problems(404, 409, 412),
)
def delete_alias(model: ModelAliasPath, alias: AliasPath, session: WriteSession, mover: Mover) -> None:
    """Removes an alias, any but `champion`. Its moves stay."""
    registry.delete_alias(session, model, alias, registry.Why(mover.actor), condition=mover.condition)


@router.post(
    "/{model}/aliases/{alias}/rollback",
    summary="Roll an alias back",
    response_model=AliasOut,
    responses=problems(404, 409, 412),
    dependencies=[IDEMPOTENT],
)
def rollback(
    *,
    model: ModelAliasPath,
    alias: AliasPath,
    request: Request,
    session: WriteSession,
    mover: Mover,
    ask: Annotated[RollbackIn, Body(examples=[{"reason": "Too wide on holidays."}])] = RollbackIn(),
) -> Response:
    """Moves an alias back to where its last move came from. A rollback is a move too: rolled back twice, the alias is
    where it was. Send an `Idempotency-Key` if you may have to repeat the request."""

    def make() -> tuple[int, dict[str, str], dict[str, Any]]:
        why = registry.Why(mover.actor, ask.reason or "rollback")
        row = registry.rollback(session, model, alias, why, condition=mover.condition)
        return 200, {"ETag": registry.tag(row)}, _alias_out(model.partition("@")[0], row).model_dump()

    return idempotent(request, session, tag_of(ask.model_dump_json()), make)


@router.get("/{model}/aliases/{alias}/moves", summary="List an alias' moves", responses=problems(404))
def list_moves(model: ModelAliasPath, alias: AliasPath, session: ReadSession, page: Page) -> MovesOut:
    """Every move of an alias, newest first: from, to, who, when, why, and the gate's figures where a gate decided."""
    row = registry.model_of(session, model)
    found = registry_pages.list_moves(session, row, alias, page.after(int), page.size + 1)
    rows, token = page.cut(found, lambda move: move.seq)
    documents = [registry_pages.move_document(move) for move in rows]
    return MovesOut(moves=[MoveOut(**document) for document in documents], next_page_token=token)


# ---------------------------------------------------------------- inside


def _alias_out(model: str, alias: AliasRow) -> AliasOut:
    return AliasOut(model=model, alias=alias.name, version=alias.version)


def _cached(request: Request, tag: str, body: bytes) -> Response:
    headers = {"ETag": tag, "Cache-Control": "private, max-age=0, must-revalidate"}
    if is_known(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def _chunks(file: BufferedReader) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk
