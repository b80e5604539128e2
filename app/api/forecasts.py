"""Forecasts: the question comes as bytes, is validated in one step and answered off the event loop."""

import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import orjson
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from app.api.schemas.common import ModelAliasPath
from app.api.schemas.forecasts import ForecastIn, ForecastOut, InputIn, NextIn, Values
from app.db.tables import RevisionRow
from app.http import routers
from app.http.bodies import documented, json_bytes, parse
from app.http.etags import is_known, tag_of
from app.http.formats import JSON, negotiate, streamed, table_response, tables_response
from app.http.formats import documented as table_documented
from app.http.idempotency import IDEMPOTENT, idempotent
from app.http.problems import problems
from app.http.sessions import database, workspace
from app.services import forecast_answers, forecasts, whole
from app.services.forecast_inputs import Input

router = routers.router("Forecasts")

HISTORY = {"key": "mine", "target": [112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118, 115, 126, 141]}
INSTANT = {"inputs": [HISTORY], "frequency": "MS", "horizon": 6}
# What a server asks itself before anybody else does: without times and with them.
FIRST = (INSTANT, {"inputs": [{**HISTORY, "start": "2026-01-01"}], "frequency": "h", "horizon": 24})
STORED = {"model": "fuel", "dataset": "gasoline", "horizon": 12, "quantiles": [0.1, 0.5, 0.9]}
SENT = {
    "model": "fuel",
    "inputs": [{"key": "mine", "start": "2025-01-03", "target": [8100, 8350, None, 8420, 8500, 8390, 8610, 8700]}],
    "horizon": 4,
    "quantiles": [0.05, 0.95],
}
NEXT = {
    "dataset": "gasoline",
    "points": [{"key": "us_gasoline", "timestamp": "2020-01-03", "value": 8133}],
    "quantiles": [0.1, 0.9],
}
LONG = {
    "key": ["us_gasoline", "us_gasoline"],
    "timestamp": ["2020-01-03T00:00:00+00:00", "2020-01-10T00:00:00+00:00"],
    "mean": [8512.5, 8590.1],
    "q0.1": [8301.0, 8354.4],
    "q0.9": [8730.2, 8818.8],
}
TABLES = {media: said for media, said in table_documented("", LONG)["content"].items() if media != JSON}


class Stopwatch:
    """Where the time of one request went, for its `Server-Timing` header."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._parts: list[str] = []

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._parts.append(f"{name};dur={(now - self._last) * 1000:.2f}")
        self._last = now

    @property
    def header(self) -> dict[str, str]:
        return {"Server-Timing": ", ".join(self._parts)}


@router.post(
    "/v1/forecasts",
    summary="Forecast",
    response_model=ForecastOut,
    responses=problems(404, 406, 409, 413, 415, 503)
    | {200: {"description": "The forecasts.", "content": TABLES}}
    | {304: {"description": "The same answer as `If-None-Match` names."}},
    openapi_extra=documented(
        ForecastIn, {"Untrained": INSTANT, "Stored series": STORED, "History in the request": SENT}
    ),
)
async def forecast(request: Request) -> Response:
    """Forecasts the next step or a whole horizon, with any quantiles, for stored series (`dataset`) or for history in
    the request (`inputs`). Without a `model` of yours, `base` answers: it comes with the server and needs no training.

    As JSON, or in long form (`key,timestamp,mean,q0.1,…`) as CSV, Parquet, Arrow or NDJSON by `Accept`; there the
    headers `Gatecast-Model`, `Gatecast-Revision` and `Gatecast-Warnings` say what JSON says in its body. Ids never seen
    in training, short histories, gaps, a horizon or a level beyond the trained ones are answered with `warnings`, and a
    series without any value with nulls. `ETag` stands for version, data and question: with `If-None-Match`, an answer
    that would be the same is 304 and costs no forecast.

    An answer of over a million numbers, or about more series of a dataset than memory may hold, is sent while it is
    made, at one revision, and without `Content-Length`: one that breaks off is not whole. There `Gatecast-Warnings`
    names what is said about its first series alone; JSON ends with all of it.
    """
    raw = await json_bytes(request)
    return await run_in_threadpool(_forecast, request, raw)


@router.post(
    "/v1/models/{model}/next",
    summary="Add points and forecast the next step",
    response_model=ForecastOut,
    responses=problems(404, 406, 409, 413, 415, 503),
    dependencies=[IDEMPOTENT],
    openapi_extra=documented(NextIn, {"One point": NEXT}),
)
async def forecast_next(model: ModelAliasPath, request: Request) -> Response:
    """Appends points to a dataset (one revision) and forecasts what comes after them, for the series named, in one
    round trip and one transaction: if the forecast fails, nothing is appended.

    A point that is there already with the same value changes nothing, with another value it is refused (409). A key
    that the dataset does not have yet becomes a new series.
    """
    raw = await json_bytes(request)
    return await run_in_threadpool(_next, request, model, raw)


def _forecast(request: Request, raw: bytes) -> Response:
    watch, state = Stopwatch(), request.app.state
    media = negotiate(request)
    ask = parse(ForecastIn, raw)
    shape = forecasts.Shape(ask.horizon, tuple(ask.quantiles), ask.samples)
    forecasts.check(shape, state.settings.max_horizon)
    with database(request).read(workspace(request)) as session:
        meant = state.meant.get(workspace(request), ask.model, partial(forecasts.look_up, session, ask.model))
        chosen = forecasts.take(state.versions, meant)
        watch.lap("load")
        stored = _stored(ask)
        found = None if stored is None else forecasts.locate(session, stored)
        tag = _tag(chosen, None if found is None else found[1], media, raw)
        kept = {"ETag": tag, "Cache-Control": "private, max-age=0, must-revalidate", "Vary": "Accept"}
        if is_known(request, tag):
            return Response(status_code=304, headers=kept)
        if stored is None or found is None:
            read = forecasts.read_sent(session, chosen, _sent(ask), shape)
        elif apart := whole.apart(session, chosen, stored, found, shape, kept=state.ends):
            read = whole.reads(database(request), workspace(request), chosen, apart, shape)
        else:
            read = forecasts.read_stored(session, chosen, stored, found, shape, kept=state.ends)
        watch.lap("read")
    if not isinstance(read, forecasts.Read) or whole.is_long(read, shape):
        answers = whole.answers(chosen, iter([read]) if isinstance(read, forecasts.Read) else read, shape)
        return _in_parts(request, answers, media, ask.timestamps, headers=kept, watch=watch)
    answer = forecasts.answer(chosen, read, shape)
    watch.lap("model")
    if media != JSON:
        made = table_response(forecast_answers.table(answer), media, kept | forecast_answers.headers(answer))
        watch.lap("write")
        made.headers.update(watch.header)
        return made
    body = _dump(forecast_answers.document(answer, request.state.request_id, ask.timestamps))
    watch.lap("write")
    return Response(body, headers=kept | watch.header, media_type=JSON)


def _in_parts(
    request: Request,
    answers: Iterator[forecast_answers.Answer],
    media: str,
    timestamps: bool,
    *,
    headers: dict[str, str],
    watch: Stopwatch,
) -> Response:
    """Answers as one, sent while the next is made; what the first of them raises is refused as ever."""
    first = next(answers)
    watch.lap("model")
    answers = chain([first], answers)
    if media == JSON:
        pieces = forecast_answers.json_pieces(answers, request.state.request_id, timestamps)
        return streamed(pieces, JSON, headers | watch.header)
    told = headers | forecast_answers.headers(first) | watch.header
    return tables_response(map(forecast_answers.table, answers), media, told)


def _next(request: Request, model: str, raw: bytes) -> Response:
    watch, state = Stopwatch(), request.app.state
    negotiate(request, [JSON])
    ask = parse(NextIn, raw)
    shape = forecasts.Shape(ask.horizon, tuple(ask.quantiles))
    forecasts.check(shape, state.settings.max_horizon)
    points = [forecasts.Arrived(point.key, point.timestamp, _number(point.value)) for point in ask.points]
    with database(request).read(workspace(request)) as session:
        forecasts.take(state.versions, forecasts.look_up(session, model))  # loaded before the write lock is held
    watch.lap("load")

    with database(request).write(workspace(request)) as session:

        def make() -> tuple[int, dict[str, str], dict[str, Any]]:
            chosen = forecasts.take(state.versions, forecasts.look_up(session, model))
            read = forecasts.append(session, chosen, ask.dataset, points, shape)
            watch.lap("append")
            answer = forecasts.answer(chosen, read, shape)
            watch.lap("model")
            body = orjson.loads(_dump(forecast_answers.document(answer, request.state.request_id, timestamps=True)))
            return 200, watch.header, body

        return idempotent(request, session, tag_of(raw), make)


def _tag(chosen: forecasts.Chosen, revision: RevisionRow | None, media: str, raw: bytes) -> str:
    data = (None,) if revision is None else (revision.id, revision.digest, revision.series, revision.points)
    return tag_of(chosen.digest, chosen.model, chosen.version, *data, media, raw)


def _stored(ask: ForecastIn) -> forecasts.Stored | None:
    if ask.dataset is None:
        return None
    keys = None if ask.series is None else tuple(ask.series)
    return forecasts.Stored(ask.dataset, keys, ask.revision, ask.future_covariates)


def _sent(ask: ForecastIn) -> forecasts.Sent:
    return forecasts.Sent(tuple(map(_input, ask.inputs or [])), ask.frequency, ask.time_zone)


def _input(sent: InputIn) -> Input:
    past, future, static = sent.past_covariates, sent.future_covariates, sent.static_covariates
    return Input(sent.key, _numbers(sent.target), sent.start, past, future, static)


def _numbers(values: Values) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(n,) float64, NaN where a value is null or "NaN"."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _number(value: float | str | None) -> float:
    return float("nan") if value is None else float(value)


def _dump(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
