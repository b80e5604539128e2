"""The `Idempotency-Key` header: declared on a route by `IDEMPOTENT`, obeyed by `idempotent` in its transaction."""

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

import orjson
from fastapi import Depends, Header, Request, Response
from sqlalchemy.orm import Session

from app.db.session import EVERY_WORKSPACE, Database
from app.services import idempotency

Answer = tuple[int, dict[str, str], dict[str, Any] | None]


async def _declared(
    _key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=255,
            pattern=r"^[!-~]+$",
            description="A name of your own for this request, such as a UUID. Sent again with the same body within 24 "
            "hours it gets the first answer back and does nothing; with another body it is refused.",
        ),
    ] = None,
) -> None:
    pass


IDEMPOTENT: Any = Depends(_declared)  # for a route's `dependencies=`: checks the header and documents it


def idempotent(request: Request, session: Session, body_digest: str, make: Callable[[], Answer]) -> Response:
    """The answer of `make() -> (status, headers, body)`, run once for each Idempotency-Key in the caller's transaction.

    Repeated with the same body, path and query, the stored answer comes back with `Idempotent-Replayed: true`. Without
    the header, `make` simply runs. Raises Invalid when the key was used for another body or query.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return _respond(make())
    route, digest = _identity(request, body_digest)
    if (row := idempotency.claim(session, key, route, digest)) is not None:
        return _respond((row.status, row.headers, row.body), replayed=True)
    answer = make()
    idempotency.keep(session, key, route, (answer[0], answer[1], orjson.loads(orjson.dumps(answer[2]))))
    return _respond(answer)


def replay(request: Request, session: Session, body_digest: str) -> Response | None:
    """The stored answer, if there is one: a route whose work is dear looks before it starts. Raises as `idempotent`."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    row = idempotency.find(session, key, *_identity(request, body_digest))
    return None if row is None else _respond((row.status, row.headers, row.body), replayed=True)


def tidy(database: Database) -> None:
    """Forget answers older than a day."""
    with database.write(EVERY_WORKSPACE) as session:
        idempotency.purge(session)


def _identity(request: Request, body_digest: str) -> tuple[str, str]:
    query = "&".join(sorted(request.url.query.split("&")))
    digest = hashlib.sha256(f"{body_digest}\n{query}".encode()).hexdigest()
    return f"{request.method} {request.url.path}", f"sha256:{digest}"


def _respond(answer: Answer, replayed: bool = False) -> Response:
    status, headers, body = answer
    if replayed:
        headers = {**headers, "Idempotent-Replayed": "true"}
    content = None if body is None else orjson.dumps(body)
    return Response(content, status_code=status, headers=headers, media_type="application/json")
