"""Log lines for people (text) or machines (JSON), each with the id of the request it belongs to."""

import datetime as dt
import logging
import sys
from contextvars import ContextVar
from functools import lru_cache

import orjson

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
# Talkative libraries: their news is ours only when something is wrong.
QUIET = ("alembic", "asyncio", "dbos", "httpcore", "httpx", "sqlalchemy")


def configure(level: str, form: str) -> None:
    """Send every log line of the process to standard error, in one form; `level` as in `Settings.log_level`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    # The server's own start and stop lines; `serve` says both in its own words.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, root.level))


def _extra(record: logging.LogRecord) -> dict[str, object]:
    """What the caller passed as `extra={"fields": {…}}`, with the request's id."""
    fields: dict[str, object] = dict(getattr(record, "fields", {}))
    if (request_id := REQUEST_ID.get()) is not None:
        fields["request_id"] = request_id
    return fields


class TextLines(logging.Formatter):
    """`time level logger message key=value …`, one line but for a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        time = _clock(int(record.created))
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        message = _one_line(record.getMessage())
        line = f"{time} {record.levelname.lower():<7} {record.name.removeprefix('gatecast.')}: {message}{extra}"
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the request's id, the record's fields, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info is not None:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # a lone surrogate in something a client sent
            return orjson.dumps({key: ascii(value) for key, value in line.items()}).decode()


@lru_cache(maxsize=4)
def _clock(second: int) -> str:
    """Local date and time; many lines share a second."""
    return dt.datetime.fromtimestamp(second).strftime("%Y-%m-%d %H:%M:%S")


def _one_line(text: str) -> str:
    """What a client sent must not be able to write a line of its own."""
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in text)
