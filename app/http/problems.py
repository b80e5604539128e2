"""Every refusal leaves as a problem document (RFC 9457, `application/problem+json`), FastAPI's own 404 and 422 too."""

import orjson
from fastapi import FastAPI, Request, Response

from app.errors import AppError


def problem_response(error: AppError, instance: str | None = None) -> Response:
    return Response(
        orjson.dumps(error.document(instance)),
        status_code=error.status,
        headers=error.headers,
        media_type="application/problem+json",
    )


def install_problems(app: FastAPI) -> None:
    @app.exception_handler(AppError)
    async def _refuse(request: Request, error: AppError) -> Response:
        return problem_response(error, getattr(request.state, "request_id", None))
