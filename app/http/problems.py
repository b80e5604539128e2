"""Every refusal leaves as a problem document (RFC 9457), FastAPI's own 404, 405 and 422 too."""

import logging
import re
from collections.abc import Iterable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from app import errors
from app.db.session import AWAY
from app.errors import AppError
from app.http.complaints import complaints_of

log = logging.getLogger("gatecast.http")

MEDIA_TYPE = "application/problem+json"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ENDLESS = re.compile(".*/v1/jobs/[^/]+/events")  # below whatever root: answers as long as its job runs


def refusals() -> Iterable[type[AppError]]:
    """Every kind of refusal the server knows, lowest status first."""
    return sorted(AppError.__subclasses__(), key=lambda kind: (kind.status, kind.code))


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's `responses=`: the errors it can give, which are those named, and 401 and 422, which any can give."""
    return {status: _documented(status) for status in sorted({401, 422, *statuses})}


def _documented(status: int) -> dict[str, Any]:
    kind = next((kind for kind in refusals() if kind.status == status), AppError)
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {"description": f"{kind.title} (`{kind.code}`).", "content": {MEDIA_TYPE: schema}}


def problem_response(error: AppError, scope: Scope) -> Response:
    """The answer that says why not, in the request of this ASGI scope."""
    said = error.document(scope.get("state", {}).get("request_id"))
    said["type"] = scope.get("root_path", "") + said["type"]
    return Response(orjson.dumps(said), status_code=error.status, headers=error.headers, media_type=MEDIA_TYPE)


def invalid(request: Request, error: RequestValidationError) -> AppError:
    """The refusal of a request that does not fit its route: 415 when its body was not even sent as JSON, else 422."""
    media = request.headers.get("content-type", "")
    if isinstance(error.body, bytes):
        sent = media.partition(";")[0].strip() or "no Content-Type"
        return errors.UnsupportedMedia(f"Content-Type: expected application/json, got {sent[:80]}.")
    found = complaints_of(error.errors(), error.body)
    where = f" at {found[0].pointer}" if found[0].pointer else ""
    return errors.Invalid(f"{found[0].message}{where}.", errors=found)


def refusal_of(error: HTTPException, request: Request) -> AppError:
    """The refusal meant by an exception of the framework: an unknown path, a method not offered, a body cut short."""
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return errors.NotFound(f"There is nothing at {request.url.path}; /docs lists what there is.", headers=headers)
    if error.status_code == 405:
        allowed = ", ".join(_allowed(request))
        return errors.MethodNotAllowed(
            f"{request.method} is not offered at {request.url.path}; offered: {allowed}.", headers={"Allow": allowed}
        )
    if error.status_code == 413:
        return errors.TooLarge(str(error.detail), headers=headers)
    if error.status_code < 500:
        return errors.Invalid(f"{error.detail}.".replace("..", "."), code="unreadable-body", headers=headers)
    return AppError(str(error.detail), headers=headers)


def answers_head(path: str) -> bool:
    """Whether a path that offers GET answers HEAD."""
    return ENDLESS.fullmatch(path) is None


def _allowed(request: Request) -> list[str]:
    """The methods offered at the request's path, over all routes: the framework itself names only the first route's."""

    def offered(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)

    found = [method for method in METHODS if offered(method)]
    return ["GET", "HEAD", *found[1:]] if "GET" in found and answers_head(request.scope["path"]) else found


def install_problems(app: FastAPI) -> None:
    """Answer every exception that reaches the application with a problem document; those nobody foresaw are left to the
    outermost middleware (`requests`), which also logs them."""

    @app.exception_handler(AppError)
    async def _refuse(request: Request, error: AppError) -> Response:
        return problem_response(error, request.scope)

    @app.exception_handler(RequestValidationError)
    async def _refuse_validation(request: Request, error: RequestValidationError) -> Response:
        return problem_response(invalid(request, error), request.scope)

    @app.exception_handler(HTTPException)
    async def _refuse_http(request: Request, error: HTTPException) -> Response:
        if error.status_code < 400:
            return Response(status_code=error.status_code, headers=error.headers)
        return problem_response(refusal_of(error, request), request.scope)

    async def _refuse_for_now(request: Request, error: Exception) -> Response:
        return refused_for_now(error, request.scope)

    for kind in AWAY:
        app.add_exception_handler(kind, _refuse_for_now)


def refused_for_now(error: Exception, scope: Scope) -> Response:
    """The answer where the database gave none; it is logged."""
    # One line: while the database is away there is one for each request.
    log.error("the database does not answer: %s", " ".join(str(getattr(error, "orig", error)).split()))
    return problem_response(_away(error), scope)


def _away(error: Exception) -> AppError:
    """What to say when the database could not do its part."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    # PostgreSQL's class 53100, SQLite's SQLITE_FULL
    if getattr(cause, "sqlstate", "") == "53100" or getattr(cause, "sqlite_errorname", "") == "SQLITE_FULL":
        return errors.disk_full("the database could not store it, and nothing was changed")
    return errors.Unavailable("The database does not answer; nothing was changed.", headers={"Retry-After": "2"})
