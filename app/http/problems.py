"""Every refusal leaves as a problem document (RFC 9457), FastAPI's own 404, 405 and 422 too."""

from collections.abc import Iterable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app import errors
from app.errors import AppError
from app.http.complaints import complaints_of

MEDIA_TYPE = "application/problem+json"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


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


def problem_response(error: AppError, instance: str | None = None) -> Response:
    """The answer that says why not. `instance` is the request's id."""
    return Response(
        orjson.dumps(error.document(instance)), status_code=error.status, headers=error.headers, media_type=MEDIA_TYPE
    )


def request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


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


def _allowed(request: Request) -> list[str]:
    """The methods offered at the request's path, over all routes: the framework itself names only the first route's."""

    def offered(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)

    return [method for method in METHODS if offered(method)]


def install_problems(app: FastAPI) -> None:
    """Answer every exception that reaches the application with a problem document; those nobody foresaw are left to the
    outermost middleware (`requests`), which also logs them."""

    @app.exception_handler(AppError)
    async def _refuse(request: Request, error: AppError) -> Response:
        return problem_response(error, request_id(request))

    @app.exception_handler(RequestValidationError)
    async def _refuse_validation(request: Request, error: RequestValidationError) -> Response:
        found = complaints_of(error.errors(), error.body)
        first = found[0]
        where = f" at {first.pointer}" if first.pointer else ""
        return problem_response(errors.Invalid(f"{first.message}{where}.", errors=found), request_id(request))

    @app.exception_handler(HTTPException)
    async def _refuse_http(request: Request, error: HTTPException) -> Response:
        if error.status_code < 400:
            return Response(status_code=error.status_code, headers=error.headers)
        return problem_response(refusal_of(error, request), request_id(request))
