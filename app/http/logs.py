"""Log lines for people (text) or machines (JSON), each with the id of the request it belongs to."""

import asyncio
import datetime as dt
import logging
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import TextIO

import orjson

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
# Talkative libraries: their news is ours only when something is wrong.
QUIET = ("alembic", "asyncio", "dbos", "httpcore", "httpx", "sqlalchemy")


def configure(level: str, form: str) -> None:
    """Send every log line of the process to standard error, in one form; `level` as in `Settings.log_level`."""
    # What no line of ours says, and every record would look up.
    logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False
    handler = Lines(sys.stderr)
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


class Lines(logging.StreamHandler[TextIO]):
    """Writes the lines of one turn of an event loop in one go, once those who wait have been answered: a write for each
    would cost as much as the rest of a line. Warnings and what is worse are written at once, with all before them."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._turn: list[str] = []
        self._due: asyncio.AbstractEventLoop | None = None  # the loop that is to write them

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + self.terminator
        except (TypeError, ValueError, LookupError, AttributeError):  # what is wrong about a record
            self.handleError(record)
            return
        self.add(line, at_once=record.levelno >= logging.WARNING)

    def add(self, line: str, *, at_once: bool = False) -> None:
        """Write a line, which ends with a new one."""
        self.acquire()
        try:
            self._turn.append(line)
            if at_once or (loop := _loop()) is None:
                self.flush()
            elif loop is not self._due:  # one that has ended since writes nothing
                self._due = loop
                loop.call_soon(self.flush)
        finally:
            self.release()

    def flush(self) -> None:
        """Write what has come so far."""
        self.acquire()
        try:
            lines, self._turn, self._due = self._turn, [], None
            if lines:
                self.stream.write("".join(lines))
            super().flush()
        except (OSError, ValueError):  # nobody is there to read
            return
        finally:
            self.release()


def _loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def tell(logger: logging.Logger, level: int, message: str, fields: Mapping[str, object]) -> None:
    """Log what every request has to say: without a record, which costs more than the line, unless somebody beside us
    listens."""
    if not logger.isEnabledFor(level):
        return
    handlers = logging.root.handlers
    if (
        len(handlers) == 1
        and isinstance(own := handlers[0], Lines)
        and isinstance(own.formatter, TextLines | JsonLines)
    ):
        own.add(own.formatter.line(time.time(), level, logger.name, message, fields) + own.terminator)
        return
    record = logging.LogRecord(logger.name, level, __file__, 0, message, None, None)
    record.fields = fields
    logger.handle(record)


def _with_id(fields: Mapping[str, object]) -> Mapping[str, object]:
    request_id = REQUEST_ID.get()
    return fields if request_id is None else {**fields, "request_id": request_id}


class TextLines(logging.Formatter):
    """`time level logger message key=value …`, one line but for a traceback. A record's `fields` are what the caller
    passed as `extra={"fields": {…}}`, with the request's id."""

    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, object] = getattr(record, "fields", {})
        line = self.line(record.created, record.levelno, record.name, record.getMessage(), fields)
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"

    def line(self, when: float, level: int, name: str, message: str, fields: Mapping[str, object]) -> str:
        """One line, without its end."""
        extra = "".join([f" {key}={value}" for key, value in _with_id(fields).items()])
        said = f"{logging.getLevelName(level).lower():<7} {name.removeprefix('gatecast.')}: {_one_line(message)}"
        return f"{_clock(int(when))} {said}{extra}"


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the request's id, the record's fields, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, object] = getattr(record, "fields", {})
        trace = None if record.exc_info is None else self.formatException(record.exc_info)
        return self.line(record.created, record.levelno, record.name, record.getMessage(), fields, trace=trace)

    def line(
        self,
        when: float,
        level: int,
        name: str,
        message: str,
        fields: Mapping[str, object],
        *,
        trace: str | None = None,
    ) -> str:
        """One line, without its end."""
        line: dict[str, object] = {
            "time": dt.datetime.fromtimestamp(when, dt.UTC).isoformat(timespec="milliseconds"),
            "level": logging.getLevelName(level).lower(),
            "logger": name,
            "message": message,
            **_with_id(fields),
        }
        if trace is not None:
            line["traceback"] = trace
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
