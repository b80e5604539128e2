"""The same data in every format is the same Upload; rubbish is refused, whatever it is; the reading process may die."""

import gzip
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from app.errors import AppError, Invalid, Unavailable
from app.services.ingest import MEDIA_TYPES, Ahead, Ask, Known, Upload, parse
from app.services.ingest.apart import spare
from app.services.ingest.array import split_array
from app.services.ingest.reading import parse_here

CSV, PARQUET, ARROW, NDJSON, JSONL, JSON = MEDIA_TYPES
FEW = settings(
    derandomize=True, max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def as_csv(columns: dict[str, list[Any]]) -> bytes:
    def field(value: Any) -> str:
        text = "" if value is None else repr(value) if isinstance(value, float) else str(value)
        return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in '",;\t| \n') else text

    lines = [",".join(field(value) for value in row) for row in zip(*columns.values(), strict=True)]
    return ("\n".join([",".join(columns), *lines]) + "\n").encode()


def as_parquet(columns: dict[str, list[Any]]) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.table(columns), sink, row_group_size=3)
    return sink.getvalue()


def as_arrow(columns: dict[str, list[Any]]) -> bytes:
    table = pa.table(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=3)
    return sink.getvalue()


def records(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def as_ndjson(columns: dict[str, list[Any]]) -> bytes:
    return b"\n".join(orjson.dumps(record) for record in records(columns))


def as_records(columns: dict[str, list[Any]]) -> bytes:
    return json.dumps(records(columns), indent=1).encode()


WRITERS = (
    (CSV, as_csv),
    (PARQUET, as_parquet),
    (ARROW, as_arrow),
    (NDJSON, as_ndjson),
    (JSON, as_records),
    (JSON, orjson.dumps),
)


def read_here(folder: Path, body: bytes, media_type: str, **ask: Any) -> Upload:
    path = folder / "body"
    path.write_bytes(body)
    return parse_here(path, folder, Ask(media_type, **ask), Known())


def facts(upload: Upload) -> dict[str, Any]:
    """All of an Upload in values that compare; NaN as None, rows of warnings aside (each format counts its own way)."""

    def plain(values: np.ndarray) -> list[Any]:
        return [None if isinstance(value, float) and math.isnan(value) else value for value in values.tolist()]

    def covariate(each: Any) -> tuple[Any, ...]:
        return (each.role, each.kind, each.categories, plain(each.values), plain(each.present))

    return {
        "calendar": upload.calendar,
        "keys": upload.keys,
        "columns": upload.columns,
        **{name: plain(getattr(upload, name)) for name in ("phases", "offsets", "steps", "values")},
        "covariates": {name: covariate(each) for name, each in upload.covariates.items()},
        "statics": {name: covariate(each) for name, each in upload.statics.items()},
        "warnings": [(each.code, each.column) for each in upload.audit.warnings],
    }


key = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12).filter(lambda text: text.strip())
number = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Long columns: a few keys, days or hours with gaps, numbers with nulls, two covariates; rows in any order."""
    hours = draw(st.sampled_from([24, 1]))
    places = draw(
        st.lists(
            st.tuples(st.sampled_from(draw(st.lists(key, min_size=1, max_size=3))), st.integers(0, 40)),
            min_size=1,
            max_size=25,
            unique=True,
        )
    )
    start = np.datetime64("2026-01-01T00")
    stamps = [str(start + np.timedelta64(hours * step, "h")) + ":00:00" for _, step in places]
    size = {"min_size": len(places), "max_size": len(places)}
    return {
        "key": [each for each, _ in places],
        "timestamp": stamps,
        "value": draw(st.lists(number, **size)),
        "extra": draw(st.lists(st.none() | st.floats(-5, 5), **size)),
        "mood": draw(st.lists(st.sampled_from([None, "good", "bad", "so so"]), **size)),
    }


@FEW
@given(columns=tables())
def test_every_format_says_the_same(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    columns["value"] = [None if value is None else float(value) for value in columns["value"]]
    found = [facts(read_here(tmp_path, write(columns), media, frequency="h")) for media, write in WRITERS]
    assert all(each == found[0] for each in found[1:])
    assert len(found[0]["steps"]) == len(columns["key"])


@FEW
@given(columns=tables())
def test_the_order_of_rows_says_nothing(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    turned = {name: values[::-1] for name, values in columns.items()}
    first, second = (facts(read_here(tmp_path, as_csv(each), CSV, frequency="h")) for each in (columns, turned))
    assert first == second


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_an_array_is_split_the_same_in_blocks_of_any_size(tmp_path: Path, size: int) -> None:
    odd = ["\\", '\\\\"', '"', "},{", "[", "]\\", ",", 'é"\n', "\\u0022", "{}"]
    lines = [{"key": text + "x", "nested": [[{}], {"a": [text]}], "value": place} for place, text in enumerate(odd)]
    (tmp_path / "array").write_text(json.dumps(lines, indent=2) + "\n", encoding="utf-8")
    split_array(tmp_path / "array", 0, tmp_path / "lines", size)
    found = [line for line in (tmp_path / "lines").read_bytes().split(b"\n") if line.strip()]
    assert [orjson.loads(line) for line in found] == lines


# ---------------------------------------------------------------- rubbish

GOOD = {
    "key": ["a", "a", "b"],
    "timestamp": ["2026-01-01", "2026-01-02", "2026-01-01"],
    "value": [1.5, None, 3.0],
    "mood": ["x", "y", "x"],
}


def read_or_refuse(folder: Path, body: bytes, media_type: str, **ask: Any) -> None:
    """Anything but a clean refusal fails the test."""
    try:
        read_here(folder, body, media_type, **ask)
    except AppError as error:
        assert error.status < 500  # noqa: PT017


@FEW
@given(body=st.binary(max_size=200), layout=st.sampled_from(["long", "wide"]))
def test_random_bytes_are_refused(tmp_path: Path, body: bytes, layout: str) -> None:
    for media in MEDIA_TYPES:
        read_or_refuse(tmp_path, body, media, layout=layout)


@FEW
@given(
    text=st.text(st.sampled_from('ab01-:,;"\n\r\t{}[] .eTZ\\|é'), max_size=120),
    layout=st.sampled_from(["long", "wide"]),
)
def test_random_text_is_refused_or_read(tmp_path: Path, text: str, layout: str) -> None:
    for media in (CSV, NDJSON, JSON):
        for body in (text, "key,timestamp,value\n" + text, "ds,y\n" + text, '{"ds":"2026-01-01","y":1}\n' + text):
            read_or_refuse(tmp_path, body.encode(), media, layout=layout)


@settings(FEW, max_examples=150)
@given(data=st.data())
def test_damaged_files_are_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    media, write = data.draw(st.sampled_from(WRITERS))
    body = bytearray(write(GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del body[data.draw(st.integers(0, len(body) - 1)) :]
    read_or_refuse(tmp_path, bytes(body), media, max_inflated_bytes=10_000_000)


# ---------------------------------------------------------------- a process of its own


def big() -> bytes:
    """Over a megabyte of CSV: it is read in a process of its own."""
    days = [f"a,{step},{step * 0.5},{step % 3},{'xy'[step % 2]}" for step in range(60_000)]
    return ("key,step,value,promo,mood\n" + "\n".join(days) + "\nb,5,,1,x\n").encode()


def test_a_process_of_its_own_gives_the_same(tmp_path: Path) -> None:
    body = big()
    path = tmp_path / "body"
    path.write_bytes(body)
    assert len(body) > 1 << 20
    apart = parse(path, Ask(CSV), Known())
    assert [entry.name for entry in tmp_path.iterdir()] == ["body"]
    here = parse_here(path, tmp_path, Ask(CSV), Known())
    assert facts(apart) == facts(here)
    path.write_bytes(gzip.compress(body))
    assert facts(parse(path, Ask(CSV, encoding="gzip"), Known())) == facts(here)
    known = Known("step", "UTC", {"a": 0, "é": 3}, {"promo": ("past", "number")})
    path.write_bytes(body)
    assert parse(path, Ask(CSV), known).covariates["promo"].role == "past"


def test_a_refusal_crosses_over_whole(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(big() + b"b,x,oops,1,x\n" * 200)
    found: list[AppError] = []
    for parse_it in (parse, lambda *question: parse_here(path, tmp_path, *question[1:])):
        with pytest.raises(Invalid) as caught:
            parse_it(path, Ask(CSV), Known())
        found.append(caught.value)
    assert found[0].document() == found[1].document()
    assert found[0].error_count == 400


def children() -> list[int]:
    """Processes that this one started and that read uploads."""
    found = subprocess.run(["ps", "-eww", "-o", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 2) for line in found.splitlines()[1:]]
    return [int(pid) for pid, parent, args in lines if int(parent) == os.getpid() and "ingest.process" in args]


def test_a_killed_process_is_a_clean_refusal(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(big() * 40)  # long to read: time enough to be seen and killed
    spare.drop()
    caught: list[AppError] = []

    def read() -> None:
        try:
            parse(path, Ask(CSV), Known())
        except AppError as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    while not (running := children()):
        assert thread.is_alive(), "the body was read before its process was seen"
        time.sleep(0.01)
    os.kill(running[0], signal.SIGKILL)
    thread.join()
    assert isinstance(caught[0], Unavailable)
    assert "killed by signal 9" in caught[0].detail
    assert [entry.name for entry in tmp_path.iterdir()] == ["body"]


def clean() -> bytes:
    """Over four megabytes of CSV that can be read block by block."""
    steps = [
        f"2026-01-{1 + step // 1440:02}T{step // 60 % 24:02}:{step % 60:02}:00,{step % 977}.5" for step in range(36_000)
    ]
    rows = [f"{key},{step}" for key in "abcd" for step in steps]
    return ("key,timestamp,value\n" + "\n".join(rows) + "\n").encode()


@pytest.mark.parametrize("make", [clean, lambda: clean() + b"a,2026-01-09,oops\n"], ids=["clean", "wrong"])
def test_a_body_is_read_while_it_arrives(tmp_path: Path, make: Any) -> None:
    path, body = tmp_path / "body", make()
    path.write_bytes(body)
    whole = answered(lambda: parse_here(path, tmp_path / "..", Ask(CSV), Known()))
    path.write_bytes(b"")
    ahead = Ahead.begin(path, len(body), Ask(CSV), Known())
    assert ahead is not None
    assert Ahead.begin(path, len(body), Ask(CSV), Known()) is None  # one at a time
    for start in range(0, len(body), 1 << 20):
        with path.open("ab") as file:
            file.write(body[start : start + (1 << 20)])
    assert answered(ahead.answer) == whole
    assert ahead.fits(Ask(CSV), Known())
    assert not ahead.fits(Ask(CSV), Known(frequency="h"))
    ahead.close()
    path.write_bytes(b"")
    again = Ahead.begin(path, len(body), Ask(CSV), Known())  # the rest of it never comes
    assert again is not None
    again.close()
    spare.drop()
    assert not children()
    assert [entry.name for entry in tmp_path.iterdir()] == ["body"]


def answered(ask: Any) -> Any:
    try:
        return facts(ask())
    except AppError as error:
        return error.document()


def test_the_process_ends_with_the_server(tmp_path: Path) -> None:
    """Its standard input ends when the server is gone: it does not read on for nobody."""
    os.mkfifo(tmp_path / "body")  # a body that never comes
    question = {"path": str(tmp_path / "body"), "folder": str(tmp_path)}
    question |= {"ask": {"media_type": CSV}, "known": {"columns": {}}}
    command = [sys.executable, "-m", "app.services.ingest.process"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE)
    child.communicate(orjson.dumps(question) + b"\n", timeout=60)
    unasked = subprocess.Popen(command, stdin=subprocess.PIPE)
    unasked.communicate(timeout=60)
    assert [entry.name for entry in tmp_path.iterdir()] == ["body"]


def test_short_bodies_are_read_by_one_process_and_a_long_one_ends_it(tmp_path: Path) -> None:
    held = np.ones(40_000_000)  # what the server holds is none of the process' memory
    spare.drop()
    short, path = (
        as_parquet({"ds": ["2026-01-01", "2026-01-02", "2026-01-03"], "y": [1.0, 2.0, 3.5]}),
        tmp_path / "body",
    )
    path.write_bytes(short)
    first = facts(parse(path, Ask(PARQUET), Known()))
    (waiting,) = children()
    path.write_bytes(as_parquet({"ds": ["2026-01-01", "no day"], "y": [1.0, 2.0]}))
    with pytest.raises(Invalid):
        parse(path, Ask(PARQUET), Known())
    path.write_bytes(short)
    assert facts(parse(path, Ask(PARQUET), Known())) == first
    assert children() == [waiting]
    os.kill(waiting, signal.SIGKILL)
    os.waitid(os.P_PID, waiting, os.WEXITED | os.WNOWAIT)
    assert facts(parse(path, Ask(PARQUET), Known())) == first
    (another,) = children()
    assert another != waiting
    path.write_bytes(orjson.dumps([{"ds": step, "y": step * 0.5, "note": "x" * 200} for step in range(200_000)]))
    assert len(parse(path, Ask(JSON), Known()).values) == 200_000  # read in one piece
    assert another not in children()
    assert held.any()
    spare.drop()
    assert [entry.name for entry in tmp_path.iterdir()] == ["body"]


def test_a_process_waits_for_the_next_long_body(tmp_path: Path) -> None:
    """It is there soon after one, answers the next, and is made anew where somebody has killed it."""
    path, body = tmp_path / "body", clean()
    path.write_bytes(body)
    expected = answered(lambda: parse_here(path, tmp_path / "..", Ask(CSV), Known()))
    waiting: list[int] = []
    for is_killed in (False, False, True):
        if is_killed:
            os.kill(waiting[0], signal.SIGKILL)
            os.waitid(os.P_PID, waiting[0], os.WEXITED | os.WNOWAIT)
        ahead = Ahead.begin(path, len(body), Ask(CSV), Known())
        assert ahead is not None
        assert not waiting or (children() == waiting) is not is_killed
        assert answered(ahead.answer) == expected
        ahead.close()
        deadline = time.monotonic() + 60
        while not (waiting := children()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(waiting) == 1
    spare.drop()
    assert not children()


def test_reading_needs_neither_pandas_nor_torch(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from app.services.ingest import MEDIA_TYPES, Ask, Known, parse
for media in MEDIA_TYPES:
    parse(Path(sys.argv[1]) / media.replace("/", "-"), Ask(media), Known())
print(sorted({"pandas", "torch"} & set(sys.modules)))
"""
    for media, write in (*WRITERS, (JSONL, as_ndjson)):
        (tmp_path / media.replace("/", "-")).write_bytes(write(GOOD))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr[-2000:]
