"""Long files read block by block are what they are when read whole, or left to whoever reads them whole."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from app.errors import Invalid, TooLarge
from app.services.ingest import Ask, Known, Upload, parse
from app.services.ingest.reading import parse_here
from app.services.ingest.streamed import read_streamed

CSV, PARQUET, ARROW = "text/csv", "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"
FEW = settings(
    derandomize=True, max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
HOUR = 3_600_000_000
ROWS = 7  # sorted at a time: a few rows make many blocks


def table(rows: list[tuple[str, int, float | None]], zone: str | None = None) -> pa.Table:
    keys, hours, values = zip(*rows, strict=True)
    times = pa.array([hour * HOUR for hour in hours], pa.int64()).cast(pa.timestamp("us", zone))
    return pa.table({"unique_id": list(keys), "ds": times, "y": pa.array(values, pa.float64())})


def body(kind: str, said: pa.Table) -> bytes:
    sink = io.BytesIO()
    if kind == CSV:
        pyarrow.csv.write_csv(said, sink)
    elif kind == PARQUET:
        parquet.write_table(said, sink, row_group_size=5)
    else:
        with pa.ipc.new_stream(sink, said.schema) as stream:
            stream.write_table(said, max_chunksize=3)
    return sink.getvalue()


def both(folder: Path, content: bytes, ask: Ask, known: Known | None = None) -> tuple[Upload | None, Upload]:
    path = folder / "body"
    path.write_bytes(content)
    for old in folder.glob("*.npy"):
        old.unlink()
    known = known or Known()
    whole = parse_here(path, folder, ask, known, streamed_bytes=1 << 40)
    return read_streamed(path, folder, ask, known, rows=ROWS), whole


def expect_same(one: Upload, other: Upload) -> None:
    assert (one.calendar, one.keys, one.columns) == (other.calendar, other.keys, other.columns)
    for name in ("phases", "offsets", "steps", "values"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    assert (one.covariates, one.statics, one.audit) == (other.covariates, other.statics, other.audit)


HOURLY = [(f"s{place}", 12 * place + hour, place + hour / 4) for place in range(9) for hour in range(11)]
BY_TIME = sorted(HOURLY, key=lambda row: (row[1], row[0]))
SHUFFLED = [HOURLY[place] for place in np.random.default_rng(0).permutation(len(HOURLY))]
ORDERS = {"by series": HOURLY, "by time": BY_TIME, "shuffled": SHUFFLED, "backwards": HOURLY[::-1]}


@pytest.mark.parametrize("kind", [CSV, PARQUET, ARROW])
@pytest.mark.parametrize("order", ORDERS)
def test_a_clean_file_is_read_block_by_block_as_whole(tmp_path: Path, kind: str, order: str) -> None:
    streamed, whole = both(tmp_path, body(kind, table(ORDERS[order])), Ask(kind))
    assert streamed is not None
    expect_same(streamed, whole)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_zones_phases_and_what_the_dataset_knows(tmp_path: Path, zone: str) -> None:
    gaps = [(key, hour, None if hour % 5 == 1 else value) for key, hour, value in HOURLY if hour % 7]
    for known in (Known(time_zone=zone), Known(time_zone=zone, takes_zone=True), Known("h", zone, {"s3": 0})):
        for kind, said in ((CSV, table(gaps)), (PARQUET, table(gaps)), (PARQUET, table(gaps, "America/New_York"))):
            streamed, whole = both(tmp_path, body(kind, said), Ask(kind), known)
            assert streamed is not None
            expect_same(streamed, whole)


def test_one_series_offsets_and_other_names(tmp_path: Path) -> None:
    lines = "".join(f"{place % 24:02}:00:00+02:00|{place}.25|01\n" for place in range(24))
    text = "when|what|number\n" + "".join(f"2026-05-03T{line}" for line in lines.splitlines(True))
    ask = Ask("text/csv; charset=utf-8", id_column="number", time_column="when", target_column="what")
    streamed, whole = both(tmp_path, text.encode(), ask)
    assert streamed is not None
    expect_same(streamed, whole)
    alone = "ds,y\n" + "".join(f"2026-05-{day:02},{day}\n" for day in range(1, 31))
    streamed, whole = both(tmp_path, alone.encode(), Ask(CSV, dataset="mine"))
    assert streamed is not None
    expect_same(streamed, whole)


# Whatever takes judgement: the reader of whole files warns, reads it in its own way, or refuses.
DAYS = "".join(f"a,2026-01-{day:02},{day}\n" for day in range(1, 30))
ODD = {
    "another column": "unique_id,ds,y,promo\n" + DAYS.replace("\n", ",1\n"),
    "equal duplicates": "unique_id,ds,y\n" + DAYS + "a,2026-01-03,3\n",
    "times in other spellings": "unique_id,ds,y\n" + DAYS + "a,2026-01-30 00:00,30\na,20260131,31\n",
    "whole numbers as times": "unique_id,ds,y\n" + "".join(f"a,{step},1\n" for step in range(30)),
    "missing in odd spellings": "unique_id,ds,y\n" + DAYS.replace(",7\n", ", nA \n"),
    "decimal commas": "unique_id;ds;y\n" + DAYS.replace(",", ";").replace(";7\n", ";7,5\n"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_files_are_left_to_the_reader_of_whole_files(tmp_path: Path, case: str) -> None:
    streamed, whole = both(tmp_path, ODD[case].encode(), Ask(CSV))
    assert streamed is None
    assert len(whole.steps) >= 29


BAD = {
    "conflicting duplicates": DAYS + "a,2026-01-03,4\n",
    "a word": DAYS.replace(",7\n", ",seven\n"),
    "no key": DAYS + ",2026-01-30,1\n",
    "a ragged row": DAYS + "a,2026-01-30\n",
    "an infinite value": DAYS.replace(",7\n", ",inf\n"),
    "off the grid": DAYS + "a,2026-01-30T12:30:00,1\n",
    "other steps": DAYS + "".join(f"b,2026-{month:02}-01,1\n" for month in range(1, 13)),
    "a time that never was": DAYS.replace("2026-01-07", "2026-02-30"),
    "far apart": DAYS + "a,9026-01-07,1\n",
    "not UTF-8": DAYS + "\udcff,2026-01-30,1\n",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_as_ever(tmp_path: Path, case: str) -> None:
    path = tmp_path / "body"
    path.write_bytes(("unique_id,ds,y\n" + BAD[case]).encode(errors="surrogateescape"))
    refusals: list[Any] = []
    for size in (0, 1 << 40):
        with pytest.raises(Invalid) as refused:
            parse_here(path, tmp_path, Ask(CSV), Known(), streamed_bytes=size)
        refusals.append((refused.value.detail, refused.value.errors, refused.value.error_count))
    assert refusals[0] == refusals[1]


@pytest.mark.parametrize("name", [b"cl\xe9", b"cl\0"])
def test_a_header_that_is_not_text_is_refused_as_ever(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / "body"
    path.write_bytes(name + b",ds,y\n" + DAYS.encode())
    for size in (0, 1 << 40):
        with pytest.raises(Invalid, match=r"not (UTF-8 )?text: byte 2 \(row 1\)"):
            parse_here(path, tmp_path, Ask(CSV, id_column="cl"), Known(), streamed_bytes=size)


@pytest.mark.parametrize("kind", [PARQUET, ARROW])
def test_what_unpacks_to_too_much_is_refused_as_ever(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "body"
    path.write_bytes(body(kind, table(HOURLY)))
    size = 8 * 3 * len(HOURLY) - 1
    for least in (0, 1 << 40):
        with pytest.raises(TooLarge, match=f"more than {size} bytes"):
            parse_here(path, tmp_path, Ask(kind, max_inflated_bytes=size), Known(), streamed_bytes=least)
    assert read_streamed(path, tmp_path, Ask(kind, max_inflated_bytes=1 << 20), Known()) is not None


def test_what_turns_out_odd_late_is_read_whole_by_the_same_process(tmp_path: Path) -> None:
    rows = [(f"s{place:03}", hour, place + hour / 4) for place in range(300) for hour in range(200)]
    path = tmp_path / "body"
    path.write_bytes(body(CSV, table([*rows, rows[-1]])))
    assert path.stat().st_size > 1 << 20
    upload = parse(path, Ask(CSV), Known())
    assert [each.code for each in upload.audit.warnings] == ["merged_duplicate"]
    assert np.array(upload.values).tolist() == [value for _, _, value in rows]
    path.write_bytes(body(CSV, table(rows)))
    expect_same(parse(path, Ask(CSV), Known()), both(tmp_path, path.read_bytes(), Ask(CSV))[1])


def test_a_step_told_from_some_series_must_fit_all(tmp_path: Path) -> None:
    """Every other day in one series of many is refused as it is where the file is read whole."""
    rows = [(f"s{place:02}", 24 * day, 1.0) for place in range(20) for day in range(20)]
    rows = [row for row in rows if row[0] != "s07"] + [("s07", 48 * day, 1.0) for day in range(20)]
    path = tmp_path / "body"
    path.write_bytes(body(PARQUET, table(rows)))
    assert read_streamed(path, tmp_path, Ask(PARQUET), Known(), rows=ROWS) is None
    with pytest.raises(Invalid, match="step differently"):
        parse_here(path, tmp_path, Ask(PARQUET), Known(), streamed_bytes=0)


@FEW
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abcde"), st.integers(0, 60), st.none() | st.floats(allow_infinity=False)),
        min_size=1,
        max_size=60,
        unique_by=lambda row: row[:2],
    ),
    kind=st.sampled_from([CSV, PARQUET, ARROW]),
)
def test_any_rows_are_read_alike(tmp_path: Path, rows: list[tuple[str, int, float | None]], kind: str) -> None:
    try:
        streamed, whole = both(tmp_path, body(kind, table(rows)), Ask(kind))
    except Invalid:
        assert read_streamed(tmp_path / "body", tmp_path, Ask(kind), Known(), rows=ROWS) is None
        return
    if streamed is not None:
        expect_same(streamed, whole)
