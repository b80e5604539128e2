"""The short way of a forecast: a plain question goes from bytes to bytes without the framework between.

It stands in front of the routes and answers `POST /v1/forecasts` and `…/next` where nothing about the question is
unusual. All else, and whatever the short way cannot answer, goes on to the route as it came: that one validates,
refuses, converts."""

import math
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.schemas.common import MODEL, NAME, REFERENCE
from app.api.schemas.forecasts import BASE, MAX_KEY_BYTES
from app.config import Settings
from app.db.session import AWAY
from app.http.encodings import LEAST, packing
from app.http.etags import tag_of
from app.http.formats import JSON
from app.http.problems import refused_for_now
from app.http.requests import route_path
from app.http.sessions import WORKSPACE
from app.services.arrivals import Arrival, Arrivals
from app.services.forecasts import Arrived, Shape
from app.services.questions import Question, Reply, Sent
from app.services.turns import Turns

PATH, ENDINGS = "/v1/forecasts", ("/v1/forecasts", "/next")
NEXT = re.compile("/v1/models/(" + MODEL.strip("^$") + ")/next")
POINTS = 64  # most points of a plain /next
DIGITS = 5  # of the length of a body that the event loop may read by itself: below 100 kB
WINDOWS, NUMBERS = 64, 50_000  # most series and numbers in a plain answer
UNUSUAL = (b"if-none-match", b"content-encoding", b"transfer-encoding", b"idempotency-key")
TAKEN = (b"*/*", b"application/json")
IS_JSON = (b"content-type", JSON.encode())
KEPT = [IS_JSON, (b"cache-control", b"private, max-age=0, must-revalidate")]
KEPT.append((b"vary", b"Accept"))
NAMED, REFERRED = re.compile(NAME), re.compile(REFERENCE)
KEY = re.compile(r"[^\x00-\x1f\x7f]+")


class PlainInput(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    target: list[float | None]
    start: str | None = None


class PlainAsk(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of `ForecastIn` that a plain question has."""

    model: str = BASE
    dataset: str | None = None
    series: list[str] | None = None
    inputs: list[PlainInput] | None = None
    frequency: str | None = None
    time_zone: str | None = None
    horizon: int = 1
    quantiles: list[float] = msgspec.field(default_factory=lambda: [0.1, 0.5, 0.9])
    timestamps: bool = True


class PlainPoint(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    timestamp: str
    value: float


class PlainNext(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of `NextIn` as plain points have them."""

    dataset: str
    points: list[PlainPoint]
    horizon: int = 1
    quantiles: list[float] = msgspec.field(default_factory=lambda: [0.1, 0.5, 0.9])


LEVELS = 99  # quantiles; more go the long way, for each list of them is kept in memory
# What msgspec makes of other bodies; those that are not UTF-8 it refuses with the ValueError of Python itself.
REFUSED = (msgspec.MsgspecError, ValueError, RecursionError)
_decode = msgspec.json.Decoder(PlainAsk).decode
_decode_next = msgspec.json.Decoder(PlainNext).decode


class PlainForecasts:
    """Middleware in front of what looks at bodies: a plain one is short and sent as it is."""

    def __init__(self, app: ASGIApp, turns: Turns, arrivals: Arrivals, settings: Settings) -> None:
        self.app, self.turns, self.arrivals = app, turns, arrivals
        self.max_horizon, self.max_bytes = settings.max_horizon, settings.max_json_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith(ENDINGS) or not _is_plain(scope, self.max_bytes):
            await self.app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body", False):
            messages.append(await receive())
        if all(message["type"] == "http.request" for message in messages):
            parts = [message.get("body", b"") for message in messages]
            raw = parts[0] if len(parts) == 1 else b"".join(parts)
            path, request_id = route_path(scope), scope["state"]["request_id"]
            if path == PATH:
                question = question_of(raw, request_id, self.max_horizon)
                if question is not None and (reply := await self.turns.ask(question)) is not None:
                    outwards = send if len(reply.body) < LEAST else packing(scope, send)
                    await _send(reply.body, [*KEPT, *_about(reply, raw)], outwards)
                    return
            elif (model := NEXT.fullmatch(path)) is not None:
                arrival = arrival_of(raw, model[1], request_id, self.max_horizon)
                try:
                    body = None if arrival is None else await self.arrivals.ask(arrival)
                except AWAY as error:
                    await refused_for_now(error, scope)(scope, receive, send)
                    return
                if body is not None:
                    await _send(body, [IS_JSON], send)
                    return
        await self.app(scope, _again(messages, receive), send)


def _is_plain(scope: Scope, max_bytes: int) -> bool:
    """Whether there is nothing about the request, its body aside, that others would have to look at."""
    if scope["method"] != "POST" or scope["query_string"]:
        return False
    is_json = False
    for name, value in scope["headers"]:
        if name == b"content-type":
            is_json = value == b"application/json"
        elif name == b"accept":
            if value not in TAKEN:
                return False
        elif name == b"content-length":
            if len(value) > DIGITS or not value.isdigit() or int(value) > max_bytes:
                return False
        elif name in UNUSUAL:
            return False
    return is_json


def question_of(raw: bytes, request_id: str, max_horizon: int) -> Question | None:
    """The question in a body, where it is plain and all about it is in order; else None."""
    try:
        ask = _decode(raw)
    except REFUSED:
        return None
    levels = levels_of(tuple(ask.quantiles)) if len(ask.quantiles) <= LEVELS else None
    fine = levels is not None and 1 <= ask.horizon <= max_horizon and REFERRED.fullmatch(ask.model)
    if levels is None or not fine:
        return None
    question = Question(WORKSPACE, ask.model, Shape(ask.horizon, levels), ask.timestamps, request_id)
    named = _stored(ask, question) if ask.inputs is None else _sent(ask, ask.inputs, question)
    return question if named and len(named) * ask.horizon * (1 + len(levels)) <= NUMBERS and _are_keys(named) else None


def _stored(ask: PlainAsk, question: Question) -> list[str] | None:
    """The keys of a question about stored series."""
    stray = ask.frequency is not None or ask.time_zone is not None
    if stray or ask.series is None or ask.dataset is None or not NAMED.fullmatch(ask.dataset):
        return None
    question.dataset, question.keys = ask.dataset, tuple(ask.series)
    return ask.series


def _sent(ask: PlainAsk, inputs: list[PlainInput], question: Question) -> list[str] | None:
    """The keys of the history in a question."""
    if ask.dataset is not None or ask.series is not None:
        return None
    question.frequency, question.time_zone = ask.frequency, ask.time_zone
    question.sent = tuple(_history(one) for one in inputs)
    fine = all(one.whole or not np.isinf(one.values).any() for one in question.sent)
    return [one.key for one in inputs] if fine else None


def _history(one: PlainInput) -> Sent:
    count = len(one.target)
    try:
        values = np.frombuffer(struct.pack(f"{count}d", *one.target))  # in half the time that `np.array` takes
    except struct.error:  # None, which stands for a missing value
        return Sent(one.key, np.array(one.target, np.float64), one.start, whole=False)
    return Sent(one.key, values, one.start, whole=count > 0 and bool(np.isfinite(values).all()))


@lru_cache(maxsize=256)
def levels_of(levels: tuple[float, ...]) -> tuple[float, ...] | None:
    """Quantile levels in order; None where the route has something to say about them."""
    fine = len(set(levels)) == len(levels) and all(0 < level < 1 for level in levels)
    return tuple(sorted(levels)) if fine else None


def _are_keys(keys: Sequence[str]) -> bool:
    fine = all(len(key) <= MAX_KEY_BYTES // 4 and KEY.fullmatch(key) for key in keys)
    return fine and len(keys) <= WINDOWS and len(set(keys)) == len(keys)


def arrival_of(raw: bytes, model: str, request_id: str, max_horizon: int) -> Arrival | None:
    """The points in a body, where they are plain; else None."""
    try:
        ask = _decode_next(raw)
    except REFUSED:
        return None
    levels = levels_of(tuple(ask.quantiles)) if len(ask.quantiles) <= LEVELS else None
    keys = list({point.key for point in ask.points})
    if levels is None or not 1 <= ask.horizon <= max_horizon or not NAMED.fullmatch(ask.dataset):
        return None
    if (
        not 1 <= len(ask.points) <= POINTS
        or not _are_keys(keys)
        or len(keys) * ask.horizon * (1 + len(levels)) > NUMBERS
    ):
        return None
    if not all(math.isfinite(point.value) for point in ask.points):
        return None
    points = tuple(Arrived(point.key, point.timestamp, point.value) for point in ask.points)
    return Arrival(WORKSPACE, model, ask.dataset, points, Shape(ask.horizon, levels), request_id)


def _about(reply: Reply, raw: bytes) -> list[tuple[bytes, bytes]]:
    timing = f"read;dur={reply.seconds[0] * 1000:.2f}, model;dur={reply.seconds[1] * 1000:.2f}"
    return [(b"etag", tag_of(*reply.stands_for, JSON, raw).encode()), (b"server-timing", timing.encode())]


async def _send(body: bytes, headers: list[tuple[bytes, bytes]], send: Send) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _again(messages: list[Message], receive: Receive) -> Receive:
    """What was received, once more, then what comes after it."""
    rest: Any = iter(messages)

    async def replayed() -> Message:
        message = next(rest, None)
        return await receive() if message is None else message

    return replayed
