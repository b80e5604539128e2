"""Sessions and the process' shared things as FastAPI dependencies.

`scope="function"`: the block after `yield` must run before the answer is sent, or a failing commit would still say 201.
Such a dependency is closed before a stream's first row, so a streaming route opens short sessions of its own from
`database(request)`.
"""

from collections.abc import Generator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.config import Settings
from app.db.session import Database
from app.services.jobs import Engine

WORKSPACE = "default"


def database(request: Request) -> Database:
    return request.app.state.database


def workspace(_request: Request) -> str:
    """The caller's workspace. One for all until keys are rows."""
    return WORKSPACE


def actor(request: Request) -> str:
    """Who asks, for the record of moves."""
    return "api-key" if request.app.state.settings.api_key else "anonymous"


# Asynchronous, for the framework hands whatever is not to a thread, a tenth of a millisecond each.
async def _settings(request: Request) -> Settings:
    return request.app.state.settings


async def _engine(request: Request) -> Engine:
    return request.app.state.engine


def _read_session(request: Request) -> Generator[Session]:
    with database(request).read(workspace(request)) as session:
        yield session


def _write_session(request: Request) -> Generator[Session]:
    with database(request).write(workspace(request)) as session:
        yield session


ReadSession = Annotated[Session, Depends(_read_session, scope="function")]
WriteSession = Annotated[Session, Depends(_write_session, scope="function")]
JobEngine = Annotated[Engine, Depends(_engine)]
AppSettings = Annotated[Settings, Depends(_settings)]
