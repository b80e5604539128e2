"""A forecast as it leaves: the JSON document, or the long-form table behind CSV, Parquet, Arrow and NDJSON."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from app.errors import Complaint, Invalid
from app.services.ingest.arrow import pa
from models import Calendar, Forecast, Note

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NUMPY = orjson.OPT_SERIALIZE_NUMPY
STAMPED = 96  # steps whose times are kept as texts
WRITTEN = 64  # series written as one piece of a long JSON document
LISTED = 100  # keys named in one warning
LAST = 253_402_300_799_999_999  # the last microsecond of the year 9999 UTC, since 1970


@dataclass(frozen=True)
class Answer:
    """A forecast with what it was made from, a row of each for each series: `phases` (series,) on the calendar, and
    `dated` which of them have times: those with a start and a history."""

    model: str
    version: int
    alias: str | None
    dataset: str | None
    revision: int | None
    calendar: Calendar
    phases: Ints
    dated: Bools
    forecast: Forecast
    notes: Sequence[Note]

    @property
    def horizon(self) -> int:
        return self.forecast.mean.shape[1]


def level_name(level: float) -> str:
    """The shortest decimal of a quantile level: 0.1, 0.025, never 2.5e-2."""
    return np.format_float_positional(level, trim="-")


def document(answer: Answer, request_id: str | None, timestamps: bool) -> dict[str, Any]:
    """The JSON document; arrays stay numpy's, for a writer that takes them and turns NaN into null."""
    origins, stamps = _stamps(answer)
    forecast = answer.forecast
    levels = np.ascontiguousarray(forecast.quantiles.transpose(2, 0, 1))  # (level, series, horizon)
    names = [level_name(level) for level in forecast.levels]
    made: list[dict[str, Any]] = []
    for place, key in enumerate(forecast.keys):
        times = stamps[place]
        row: dict[str, Any] = {"key": key, "origin": origins[place], "start": times[0] if times else None}
        if timestamps:
            row["timestamps"] = times
        row["mean"] = forecast.mean[place]
        row["quantiles"] = {name: levels[level, place] for level, name in enumerate(names)}
        if forecast.samples is not None:
            row["samples"] = forecast.samples[place]
        made.append(row)
    return {**head(answer, request_id), "forecasts": made, "warnings": warnings(answer)}


def rows(answer: Answer, timestamps: bool) -> list[bytes]:
    """Each series' part of the JSON document, written: what `document` has under `forecasts`."""
    forecast, horizon = answer.forecast, answer.horizon
    if horizon > STAMPED or answer.calendar.frequency.is_integer:
        return [orjson.dumps(row, option=NUMPY) for row in document(answer, None, timestamps)["forecasts"]]
    levels = np.ascontiguousarray(forecast.quantiles.transpose(2, 0, 1))  # (level, series, horizon)
    names = _level_names(forecast.levels)
    written: list[bytes] = []
    clocks = zip(forecast.origins.tolist(), answer.phases.tolist(), answer.dated.tolist(), strict=True)
    for place, (key, (origin, phase, dated)) in enumerate(zip(forecast.keys, clocks, strict=True)):
        run = _run(answer.calendar, origin, phase, horizon) if dated else None
        row: dict[str, Any] = {"key": key, "origin": run and run[0], "start": run and run[1]}
        if timestamps:
            row["timestamps"] = run and run[1:]
        row["mean"] = forecast.mean[place]
        row["quantiles"] = {name: levels[level, place] for level, name in enumerate(names)}
        written.append(orjson.dumps(row, option=NUMPY))
    return written


def assembled(head: Mapping[str, Any], written: Iterable[bytes], warned: Sequence[Any]) -> bytes:
    """The JSON document from its parts: everything before `forecasts`, the rows, the warnings."""
    last = orjson.dumps(warned) if warned else b"[]"
    return b'%b,"forecasts":[%b],"warnings":%b}' % (orjson.dumps(head)[:-1], b",".join(written), last)


def json_pieces(answers: Iterable[Answer], request_id: str | None, timestamps: bool) -> Iterator[bytes]:
    """The JSON document of all series of these answers, of one answer at least, a piece at a time. What is said about
    them comes last, so it is all there."""
    before, told = b"", list[dict[str, Any]]()
    for answer in answers:
        before = before or orjson.dumps(head(answer, request_id))[:-1] + b',"forecasts":['
        made = document(answer, request_id, timestamps)
        told = gathered((told, made["warnings"]))
        for at in range(0, len(made["forecasts"]), WRITTEN):
            # The first piece is as long as the next: a short one tells those who pack it that the answer is short.
            yield before + orjson.dumps(made["forecasts"][at : at + WRITTEN], option=NUMPY)[1:-1]
            before = b","
    yield b'%b],"warnings":%b}' % (b"" if before == b"," else before, orjson.dumps(told))


def gathered(told: Iterable[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The warnings of several answers, each once, with how many series it is about and the first of them."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for said in itertools.chain.from_iterable(told):
        mine = found.setdefault((said["code"], said["message"]), {**said, "series": [], "series_count": 0})
        mine["series_count"] += said.get("series_count", 0)
        mine["series"] = (mine["series"] + said.get("series", []))[:LISTED]
    return [
        said if said["series_count"] else {"code": said["code"], "message": said["message"]} for said in found.values()
    ]


def head(answer: Answer, request_id: str | None) -> dict[str, Any]:
    """What stands before `forecasts` in the JSON document."""
    return {
        "model": {"name": answer.model, "version": answer.version, "alias": answer.alias},
        "dataset": answer.dataset,
        "revision": answer.revision,
        "frequency": answer.calendar.frequency.name,
        "request_id": request_id,
    }


@lru_cache(maxsize=256)
def _level_names(levels: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(level_name(level) for level in levels)


@lru_cache(maxsize=2048)
def _run(calendar: Calendar, origin: int, phase: int, horizon: int) -> tuple[str, ...]:
    """The origin and the times after it as texts: series of a dataset mostly end together. Raises Invalid as
    `_times`."""
    run = calendar.times(np.arange(origin, origin + horizon + 1), phase)
    if run.max() > LAST:
        raise Invalid("horizon: the forecast passes the year 9999.")
    return tuple(map(str, calendar.stamps(run)))


def warnings(answer: Answer) -> list[dict[str, Any]]:
    """What the notes say, ready for JSON: code, message and, where they are about some series, those."""
    return told(answer.notes, answer.forecast.keys)


def told(notes: Sequence[Note], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Notes about the series of these keys, ready for JSON."""
    return [_warning(note, keys) for note in notes]


def table(answer: Answer) -> Any:
    """An Arrow table, a row for each (series, step): key, timestamp, mean, q0.1 …, and sample1 … where asked for."""
    forecast, horizon = answer.forecast, answer.horizon
    runs, which = _times(answer)
    times = np.zeros((len(forecast.keys), horizon), np.int64)
    times[answer.dated] = runs[which, 1:]
    kind = pa.int64() if answer.calendar.frequency.is_integer else pa.timestamp("us", answer.calendar.time_zone)
    undated = None if answer.dated.all() else np.repeat(~answer.dated, horizon)
    columns: dict[str, Any] = {
        "key": pa.array(list(forecast.keys), pa.string()).take(pa.array(np.repeat(np.arange(len(times)), horizon))),
        "timestamp": pa.array(times.ravel(), pa.int64(), mask=undated).cast(kind),
        "mean": pa.array(forecast.mean.ravel()),
    }
    for place, level in enumerate(forecast.levels):
        columns[f"q{level_name(level)}"] = pa.array(np.ascontiguousarray(forecast.quantiles[:, :, place]).ravel())
    if forecast.samples is not None:
        for place, path in enumerate(np.moveaxis(forecast.samples, 1, 0)):  # (series, horizon) each
            columns[f"sample{place + 1}"] = pa.array(np.ascontiguousarray(path).ravel())
    return pa.table(columns)


def headers(answer: Answer) -> dict[str, str]:
    """What a table has no room for: the version, the data's revision and the warnings' codes."""
    said = {"Gatecast-Model": f"{answer.model}/{answer.version}"}
    if answer.revision is not None:
        said["Gatecast-Revision"] = str(answer.revision)
    if answer.notes:
        said["Gatecast-Warnings"] = ", ".join(dict.fromkeys(note.code for note in answer.notes))
    return said


def _warning(note: Note, keys: Sequence[str]) -> dict[str, Any]:
    said: dict[str, Any] = {"code": note.code, "message": note.message}
    if note.series:
        said |= {"series": [keys[place] for place in note.series[:LISTED]], "series_count": len(note.series)}
    return said


def _times(answer: Answer) -> tuple[Ints, Ints]:
    """The origins of the dated series with the times after them, (run, 1 + horizon): one for those that end together;
    and the run of each dated series.

    Raises Invalid when the times pass the year 9999, after which RFC 3339 has no words.
    """
    clocks = np.stack([answer.forecast.origins[answer.dated], answer.phases[answer.dated]], axis=1)
    distinct, which = _distinct(clocks)
    steps = distinct[:, :1] + np.arange(answer.horizon + 1)
    runs = answer.calendar.times(steps.ravel(), np.repeat(distinct[:, 1], steps.shape[1])).reshape(steps.shape)
    # The largest, not the last: far enough out, 64 bits of microseconds wrap around.
    if runs.size and not answer.calendar.frequency.is_integer and runs.max() > LAST:
        late = np.flatnonzero(answer.dated)[np.isin(which, np.flatnonzero(runs.max(axis=1) > LAST))]
        text = f"horizon: the forecast of series {answer.forecast.keys[late[0]]!r} passes the year 9999."
        raise Invalid(text, errors=[Complaint("horizon-too-far", text, pointer="/horizon")])
    return runs, which


def _distinct(rows: Ints) -> tuple[Ints, Ints]:
    """The rows (row, 2) that there are, and which of them each is."""
    if len(rows) and (rows == rows[0]).all():  # as mostly
        return rows[:1], np.zeros(len(rows), np.int64)
    found, which = np.unique(rows, axis=0, return_inverse=True)
    return found, which.reshape(-1)


def _stamps(answer: Answer) -> tuple[list[Any], list[list[Any] | None]]:
    """Each series' origin and forecast times as text (integers for `step`); None where it has no times."""
    origins: list[Any] = [None] * len(answer.dated)
    stamps: list[list[Any] | None] = [None] * len(answer.dated)
    runs, which = _times(answer)
    texts: list[Any] = list(answer.calendar.stamps(runs.ravel()))
    width = answer.horizon + 1
    apart = [texts[at : at + width] for at in range(0, len(texts), width)]
    for place, run in zip(np.flatnonzero(answer.dated).tolist(), which.tolist(), strict=True):
        origins[place], stamps[place] = apart[run][0], apart[run][1:]
    return origins, stamps
