"""Files that are refused: what is said, with the row as a person counts it, the column, the value and a way out."""

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from app.errors import AppError, Invalid, TooLarge, UnsupportedMedia
from app.services.ingest import Ask, Known, parse

CSV = "text/csv"
JSON = "application/json"
NDJSON = "application/x-ndjson"
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"
Refuse = Callable[..., AppError]


@pytest.fixture
def refuse(tmp_path: Path) -> Refuse:
    def refused(body: str | bytes, media_type: str = CSV, known: Known | None = None, **ask: Any) -> AppError:
        path = tmp_path / "body"
        path.write_bytes(body.encode() if isinstance(body, str) else body)
        with pytest.raises(AppError) as caught:
            parse(path, Ask(media_type, **ask), known or Known())
        assert [entry.name for entry in tmp_path.iterdir()] == ["body"]
        error = caught.value
        assert error.error_count >= len(error.errors)
        return error

    return refused


def places(error: AppError) -> list[tuple[str, int | None, str | None, str | None]]:
    return [(each.code, each.row, each.column, each.value_preview) for each in error.errors]


HEAD = "unique_id,ds,y\nA,2026-01-01,1\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (HEAD + "A,2026-01-02,abc\n", ("not_a_number", 3, "y", "abc")),
        (HEAD + "A,2026-01-02,1 000\n", ("not_a_number", 3, "y", "1 000")),
        (HEAD + "A,2026-01-02,1_0\n", ("not_a_number", 3, "y", "1_0")),
        (HEAD + "A,2026-01-02,0x10\n", ("not_a_number", 3, "y", "0x10")),
        (HEAD + "A,2026-01-02,true\n", ("not_a_number", 3, "y", "true")),
        (HEAD + 'A,2026-01-02,"1,5"\n', ("not_a_number", 3, "y", "1,5")),
        (HEAD + "A,2026-01-02,inf\n", ("infinite", 3, "y", "inf")),
        (HEAD + "A,2026-01-02,-Infinity\n", ("infinite", 3, "y", "-Infinity")),
        (HEAD + "A,2026-01-02,1e999\n", ("infinite", 3, "y", "1e999")),
        (HEAD + f"A,2026-01-02,{'x' * 100}\n", ("not_a_number", 3, "y", "x" * 59 + "…")),
        (HEAD + "A,02/01/2026,1\n", ("not_a_time", 3, "ds", "02/01/2026")),
        (HEAD + "A,2026-02-30,1\n", ("not_a_time", 3, "ds", "2026-02-30")),
        (HEAD + "A,2026-13-01,1\n", ("not_a_time", 3, "ds", "2026-13-01")),
        (HEAD + "A,2026-01-02T25:00:00,1\n", ("not_a_time", 3, "ds", "2026-01-02T25:00:00")),
        (HEAD + "A,2026-01-02 00:00:00.0000001,1\n", ("not_a_time", 3, "ds", "2026-01-02 00:00:00.0000001")),
        (HEAD + "A,0000-01-02,1\n", ("not_a_time", 3, "ds", "0000-01-02")),
        (HEAD + "A,tomorrow,1\n", ("not_a_time", 3, "ds", "tomorrow")),
        (HEAD + "A,,1\n", ("missing_time", 3, "ds", None)),
        (HEAD + ",2026-01-02,1\n", ("missing_key", 3, "unique_id", None)),
        (HEAD + "A\x07,2026-01-02,1\n", ("bad_key", 3, "unique_id", "'A\\x07'")),
        (HEAD + "A\u0085,2026-01-02,1\n", ("bad_key", 3, "unique_id", "'A\\x85'")),
        (HEAD + f"{'é' * 128},2026-01-02,1\n", ("bad_key", 3, "unique_id", "'" + "\\xe9" * 14 + "\\x…")),
        (HEAD + "A,2026-01-02,1,2\n", ("ragged_row", 3, None, "A,2026-01-02,1,2")),
        (HEAD + "A,2026-01-02\n", ("ragged_row", 3, None, "A,2026-01-02")),
        (HEAD + "A,2026-01-02,1\nA,2026-01-02,2\n", ("conflicting_duplicate", 4, "y", "1.0 and 2.0")),
        (HEAD + "A,2026-01-02,1\nA,2026-01-01,\n", ("conflicting_duplicate", 4, "y", "1.0 and nothing")),
        ("\n\n" + HEAD + "\n\nA,2026-01-02,abc\n", ("not_a_number", 7, "y", "abc")),
        ('ds,y,note\n2026-01-01,1,"a\nb"\n\n2026-01-02,abc,""\n', ("not_a_number", 5, "y", "abc")),
        ("ds,y\r2026-01-01,1\r2026-01-02,abc\r", ("not_a_number", 3, "y", "abc")),
        ("a,a,y\n1,2,3\n", ("duplicate_column", 1, "a", None)),
        ("ds,,y\n1,2,3\n", ("bad_column_name", None, "''", None)),
        ("ds\n2026-01-01\n", ("one_column", 1, None, None)),
        ("A,2026-01-01,5\nA,2026-01-02,6\n", ("no_header", 1, None, None)),
        ("1,5\n2,6\n", ("no_header", 1, None, None)),
        ("", ("empty_file", None, None, None)),
        (" \n\n", ("empty_file", None, None, None)),
        ("ds,y\n", ("no_rows", None, None, None)),
        ("ds,y", ("no_rows", None, None, None)),
        ("ds,y\n2026-01-01,1\n", ("no_frequency", None, None, None)),
        (
            "ds,y\n1900-01-01 00:00:00,1\n1900-01-01 00:00:01,1\n2026-01-01 00:00:00,1\n",
            ("too_long", None, None, "series"),
        ),
        ("t,y\n1,1\n2,2\n", ("no_time_column", None, None, None)),
        ("ds,a,b\n2026-01-01,1,2\n", ("ambiguous_columns", None, None, None)),
        ("ds,Y,y\n2026-01-01,1,2\n", ("ambiguous_columns", None, None, None)),
        ("ds,date,y\n2026-01-01,2026-01-01,2\n", ("ambiguous_columns", None, None, None)),
        ("id,item_id,ds,y\n1,1,2026-01-01,2\n", ("ambiguous_columns", None, None, None)),
        ("shop,ds,y\nA,2026-01-01,1\nB,2026-01-01,2\n", ("no_frequency", None, None, None)),
        (
            "shop,ds,y\nA,2026-01-01,1\nA,2026-01-02,1\nB,2026-01-01,2\n",
            ("conflicting_duplicate", 4, "y", "1.0 and 2.0"),
        ),
    ],
)
def test_a_csv_file_is_refused(
    refuse: Refuse, body: str, expected: tuple[str, int | None, str | None, str | None]
) -> None:
    error = refuse(body)
    assert isinstance(error, Invalid)
    assert places(error) == [expected]
    assert error.error_count == 1
    assert "othing was stored" in error.detail


@pytest.mark.parametrize(
    ("body", "media_type", "expected"),
    [
        ('{"ds":"2026-01-01","y":1}\n\n{"ds":"2026-01-02","y":"x"}', NDJSON, ("not_a_number", 2, "y", "x")),
        ('{"ds":"2026-01-01","y":1}\n{"ds":"2026-01-02","y":true}', NDJSON, ("not_a_number", 2, "y", "true")),
        ('{"ds":"2026-01-01","y":true}\n{"ds":"2026-01-02","y":null}', NDJSON, ("not_a_number", 1, "y", "true")),
        ('{"ds":"2026-01-01","y":1}\n{"ds":"2026-01-02","y":Infinity}', NDJSON, ("infinite", 2, "y", "inf")),
        ('{"ds":"2026-01-01","y":1}\n{"ds":"2026-01-02","y":[1]}', NDJSON, ("nested_value", 2, "y", None)),
        ('{"ds":"2026-01-01","y":1}\n[1]\n', NDJSON, ("not_a_record", 2, None, "[1]")),
        ('{"ds":"2026-01-01","y":1}\n{"ds":\n', NDJSON, ("not_a_record", 2, None, '{"ds":')),
        ('{"ds":"2026-01-01","y":1}\n{"y":1}\n', NDJSON, ("missing_time", 2, "ds", None)),
        ('{"id":null,"ds":"2026-01-01","y":1}', NDJSON, ("missing_key", 1, "id", None)),
        ('{"id":1.5,"ds":"2026-01-01","y":1}', NDJSON, ("not_a_key", None, "id", None)),
        ('{"id":true,"ds":"2026-01-01","y":1}', NDJSON, ("not_a_key", None, "id", None)),
        ('{"id":"\\u0000","ds":"2026-01-01","y":1}', NDJSON, ("bad_key", 1, "id", "'\\x00'")),
        ("\n \n", NDJSON, ("no_rows", None, None, None)),
        ("{}\n{}", NDJSON, ("no_rows", None, None, None)),
        ('[{"ds":"2026-01-01","y":1},{"ds":"2026-01-02","y":"x"}]', JSON, ("not_a_number", 2, "y", "x")),
        ('[{"ds":"2026-01-01","y":1}{"ds":"2026-01-02","y":2}]', JSON, ("not_json", 1, None, None)),
        ('[{"ds":"2026-01-01","y":1},,{"ds":"2026-01-02","y":2}]', JSON, ("not_json", 1, None, None)),
        ('[{"ds":"2026-01-01","y":1},', JSON, ("not_json", None, None, None)),
        ('[{"ds":"2026-01-01","y":1}] x', JSON, ("not_json", 1, None, None)),
        ('[{"ds":"2026-01-01","y":1}, 5]', JSON, ("not_json", 1, None, None)),
        ('[{"ds":"2026-01-01","y":01}]', JSON, ("not_a_record", 1, None, '{"ds":"2026-01-01","y":01}')),
        ("[]", JSON, ("no_rows", None, None, None)),
        ("{}", JSON, ("no_rows", None, None, None)),
        ('{"ds":[],"y":[]}', JSON, ("no_rows", None, None, None)),
        ('{"ds":["2026-01-01"],"y":[1,2]}', JSON, ("unequal_columns", None, "y", None)),
        ('{"ds":"2026-01-01","y":1}', JSON, ("not_columns", None, "ds", None)),
        ('{"ds":["2026-01-01","x"],"y":[1,2]}', JSON, ("not_a_time", 2, "ds", "x")),
        ('{"ds":["2026-01-01"],"y":[{}]}', JSON, ("nested_value", 1, "y", None)),
        ('{"ds":["2026-01-01"],"y":[1', JSON, ("not_json", None, None, None)),
        ("5", JSON, ("not_records", None, None, None)),
        ("[" * 100_000, JSON, ("not_json", 1, None, None)),
        ("[" * 100_000, NDJSON, ("not_a_record", 1, None, "[" * 59 + "…")),
        ("", JSON, ("empty_file", None, None, None)),
        ("", PARQUET, ("empty_file", None, None, None)),
        ("", ARROW, ("empty_file", None, None, None)),
        ("PAR1 and so on PAR1", PARQUET, ("unreadable", None, None, None)),
        ("no arrow at all", ARROW, ("unreadable", None, None, None)),
    ],
)
def test_a_file_of_another_format_is_refused(
    refuse: Refuse, body: str, media_type: str, expected: tuple[str, int | None, str | None, str | None]
) -> None:
    error = refuse(body, media_type)
    assert isinstance(error, Invalid)
    assert places(error) == [expected]


def as_parquet(table: pa.Table, path: Path) -> bytes:
    parquet.write_table(table, path / "made.parquet")
    body = (path / "made.parquet").read_bytes()
    (path / "made.parquet").unlink()
    return body


DAYS = pa.array(["2026-01-01", "2026-01-02", "2026-01-03"])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"ds": DAYS, "y": pa.array([1.0, float("inf"), 2.0])}, ("infinite", 2, "y", "inf")),
        ({"ds": DAYS, "y": pa.array([True, None, False])}, ("not_a_number", 1, "y", "true")),
        ({"ds": DAYS, "y": pa.array(["1", "2", "x"])}, ("not_a_number", 3, "y", "x")),
        ({"ds": DAYS, "y": pa.array(["1", "2", "x"]).dictionary_encode()}, ("not_a_number", 3, "y", "x")),
        ({"ds": DAYS, "y": pa.array([[1], [2], [3]])}, ("nested_value", None, "y", None)),
        ({"ds": DAYS, "y": pa.array([1, 2, 3], pa.timestamp("s"))}, ("not_a_number", None, "y", None)),
        ({"ds": pa.array([0, None, 1], pa.timestamp("s")), "y": pa.array([1, 2, 3])}, ("missing_time", 2, "ds", None)),
        ({"ds": pa.array([True, False, True]), "y": pa.array([1, 2, 3])}, ("not_a_time", None, "ds", None)),
        (
            {"ds": pa.array([0, 1001, 2000], pa.timestamp("ns")), "y": pa.array([1, 2, 3])},
            ("not_a_time", 2, "ds", "1001"),
        ),
        (
            {"ds": pa.array([0, 1, 2**61], pa.timestamp("s")), "y": pa.array([1, 2, 3])},
            ("not_a_time", 3, "ds", str(2**61)),
        ),
        (
            {"ds": DAYS, "y": pa.array([1, 2, 3]), "note": pa.array([b"a", b"\xff", b"b"])},
            ("encoding", None, "note", None),
        ),
        ({"ds": DAYS, " y ": pa.array([1, 2, 3]), "y": pa.array([1, 2, 3])}, ("duplicate_column", None, "y", None)),
        ({"id": pa.array([1.0, 2.5, None]), "ds": DAYS, "y": pa.array([1, 2, 3])}, ("not_a_key", None, "id", None)),
        (
            {"id": pa.array([1, 2, 3], pa.date32()), "ds": DAYS, "y": pa.array([1, 2, 3])},
            ("not_a_key", None, "id", None),
        ),
    ],
)
def test_typed_columns_are_refused(
    refuse: Refuse, columns: dict[str, pa.Array], expected: tuple[str, int | None, str | None, str | None]
) -> None:
    table = pa.table(columns)
    with pa.BufferOutputStream() as sink:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        body = sink.getvalue().to_pybytes()
    assert places(refuse(body, ARROW))[:1] == [expected]


def test_every_check_of_the_values_speaks_at_once(refuse: Refuse) -> None:
    error = refuse("key,ds,y,temp\nA,x,1,inf\n,2026-01-02,oops,1\nA,2026-01-03,inf,1\n")
    assert places(error) == [
        ("not_a_time", 2, "ds", "x"),
        ("infinite", 2, "temp", "inf"),
        ("missing_key", 3, "key", None),
        ("not_a_number", 3, "y", "oops"),
        ("infinite", 4, "y", "inf"),
    ]
    assert error.detail.startswith("5 problems in the file, nothing was stored; the first (row 2, column 'ds')")
    assert "expected a time, got 'x'" in error.detail
    assert "Rows are numbered as the lines of the file, the header is row 1." in error.detail


@pytest.mark.parametrize("media_type", [CSV, NDJSON])
def test_a_hundred_are_listed_and_all_counted(refuse: Refuse, media_type: str) -> None:
    bodies = {CSV: "ds,y\n" + "2026-01-01,x\n" * 70_000, NDJSON: '{"ds":"2026-01-01","y":"x"}\n' * 70_000}
    error = refuse(bodies[media_type], media_type)
    assert (error.error_count, len(error.errors)) == (70_000, 100)
    first = 2 if media_type == CSV else 1
    assert [each.row for each in error.errors] == list(range(first, first + 100))


def test_rows_deep_in_a_file_are_found(refuse: Refuse) -> None:
    lines = ["ds,y"] + [f"{step},{step}" for step in range(200_000)]
    lines[150_000] = "149999,-"
    lines[190_000] = "x,1"
    lines[199_999] = ",1"
    assert places(refuse("\n".join(lines))) == [
        ("not_a_number", 150_001, "y", "-"),
        ("not_a_time", 190_001, "ds", "x"),
        ("missing_time", 200_000, "ds", None),
    ]


def test_mixed_frequencies_name_the_rows(refuse: Refuse) -> None:
    body = "key,ds,y\n" + "".join(f"A,2026-01-{day:02},1\n" for day in range(1, 29)) + "A,2026-02-01 06:00,1\n"
    error = refuse(body)
    assert places(error) == [("off_grid", 30, "ds", "2026-02-01T06:00:00+00:00")]
    assert "mix frequencies" in str(error.errors[0].hint)


def test_another_frequency_than_the_datasets(refuse: Refuse) -> None:
    known = Known("h", "UTC")
    assert places(refuse(HEAD, known=known, frequency="D")) == [("other_frequency", None, None, None)]
    assert places(refuse("ds,y\n1,1\n", known=known)) == [("not_a_time", 2, "ds", "1")]
    assert places(refuse(HEAD, known=Known("step"))) == [("not_a_time", 2, "ds", "2026-01-01")]
    assert places(refuse(HEAD, frequency="fortnight"))[0][0] == "bad_frequency"
    assert places(refuse(HEAD, known=Known(time_zone="Mars/Olympus")))[0][0] == "bad_time_zone"


def test_a_static_column_that_changes(refuse: Refuse) -> None:
    body = "key,ds,y,region\nA,2026-01-01,1,north\nA,2026-01-02,1,\nA,2026-01-03,1,south\n"
    error = refuse(body, static_columns=("region",))
    assert places(error) == [("not_static", 4, "region", "south")]
    assert "row 2 of series 'A' has 'north'" in error.errors[0].message


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        ({"id_column": "shop"}, "no_such_column"),
        ({"past_columns": ("shop",)}, "no_such_column"),
        ({"static_columns": ("y",), "target_column": "y"}, "two_roles"),
        ({"past_columns": ("y",), "future_columns": ("y",)}, "two_roles"),
        ({"layout": "tall"}, "bad_layout"),
        ({"layout": "wide", "target_column": "y"}, "not_wide"),
        ({"layout": "wide", "time_column": "when"}, "no_such_column"),
    ],
)
def test_parameters_that_do_not_fit(refuse: Refuse, ask: dict[str, Any], code: str) -> None:
    assert places(refuse(HEAD, **ask))[0][0] == code


def test_media_types_and_encodings_that_are_not_read(refuse: Refuse) -> None:
    for media_type in ("application/xml", "", "text/csv; charset=latin-1"):
        assert isinstance(refuse(HEAD, media_type), UnsupportedMedia)
    assert isinstance(refuse(HEAD, encoding="br"), UnsupportedMedia)
    assert "PAR1" not in refuse(b"PAR1\xff\xff").detail
    assert "application/vnd.apache.parquet" in refuse(b"PAR1\xff\xff").detail


@pytest.mark.parametrize(
    ("body", "row", "said"),
    [
        ("ds,y\n2026-01-01,1\nZürich,1\n".encode("latin-1"), 3, "byte 19 (row 3) is fc"),
        ("ds,y\n2026-01-01,1\n".encode("utf-16"), 1, "UTF-16"),
        ("ds,y\n2026-01-01,1\n".encode("utf-16-le"), 1, "byte 1 (row 1) is 00"),
        (b"ds,y\n2026-01-01,1\n2026-01-02,\xe2\x82", 3, "byte 29 (row 3) is e2 82"),
        (b"ds,y\n" + b"x" * (1 << 20) + b"\n\xff", 3, f"byte {5 + (1 << 20) + 1} (row 3) is ff"),
    ],
)
def test_a_wrong_encoding_is_placed(refuse: Refuse, body: bytes, row: int, said: str) -> None:
    error = refuse(body)
    assert places(error)[0][:2] == ("encoding", row)
    assert said in error.detail


# ---------------------------------------------------------------- limits


def test_a_million_columns_cost_nothing(refuse: Refuse) -> None:
    body = "ds," + ",".join(f"c{place}" for place in range(1_000_000)) + "\n"
    small = "ds," + ",".join("c" for _ in range(20_000)) + "\n"
    for text in (body, small):
        error = refuse(text, layout="wide")
        assert isinstance(error, TooLarge)
        assert "10000" in error.detail
    tracemalloc.start()
    refuse(small)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_too_many_columns_of_other_formats(refuse: Refuse, tmp_path: Path) -> None:
    record = "{" + ",".join(f'"c{place}":1' for place in range(20)) + "}"
    grown = "\n".join(f'{{"c{place}":1}}' for place in range(200))
    table = pa.table({f"c{place}": [1] for place in range(20)})
    bodies = ((record, NDJSON), (grown, NDJSON), (f"[{record}]", JSON), (as_parquet(table, tmp_path), PARQUET))
    for body, media_type in (*bodies, ('{"a":[],' + record[1:], JSON)):
        assert isinstance(refuse(body, media_type, max_columns=10), TooLarge), media_type


def test_too_many_series(refuse: Refuse) -> None:
    body = "key,ds,y\n" + "".join(f"{key},2026-01-01,1\n" for key in range(11))
    assert isinstance(refuse(body, max_series=10, frequency="D"), TooLarge)
    wide = "ds," + ",".join(f"s{key}" for key in range(11)) + "\n2026-01-01" + ",1" * 11 + "\n"
    assert isinstance(refuse(wide, layout="wide", max_series=10, frequency="D"), TooLarge)


def test_series_that_span_too_much(refuse: Refuse) -> None:
    body = "key,step,y\nA,0,1\nA,100,1\nB,0,1\nB,99,1\n"
    error = refuse(body, max_span=100)
    assert places(error) == [("too_long", None, None, "A")]
    sparse = "key,step,y\nA,0,1\nA,10200,1\n"
    assert "at most 10200 steps" in refuse(sparse).errors[0].message


def test_bombs_are_refused_before_they_fill_the_disk(refuse: Refuse) -> None:
    body = b"ds,y\n" + b"2026-01-01,1\n" * 4_000_000
    for encoding, packed in (("gzip", gzip.compress(body)), ("zstd", zstandard.compress(body))):
        error = refuse(packed, encoding=encoding, max_inflated_bytes=1_000_000)
        assert isinstance(error, TooLarge), encoding
    table = pa.table({"ds": pa.nulls(3_000_000, pa.int64()), "y": pa.nulls(3_000_000, pa.float64())})
    with pa.BufferOutputStream() as sink:
        parquet.write_table(table, sink)
        bomb = sink.getvalue().to_pybytes()
    assert isinstance(refuse(bomb, PARQUET, max_inflated_bytes=10_000_000), TooLarge)


def test_a_column_that_claims_a_hundred_million_rows(refuse: Refuse) -> None:
    table = pa.table({"ds": pa.nulls(10**8), "y": pa.nulls(10**8)})
    with pa.BufferOutputStream() as sink:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        body = sink.getvalue().to_pybytes()
    assert len(body) < 1000
    assert isinstance(refuse(body, ARROW, max_inflated_bytes=10**9), TooLarge)


def test_records_that_lack_most_fields(refuse: Refuse) -> None:
    first = "{" + ",".join(f'"c{place}":1' for place in range(1000)) + "}"
    for odd in ("", '{"c1":"x"}\n'):  # the quick reader, and the one that looks at each record
        assert isinstance(refuse(first + "\n" + odd + "{}\n" * 20_000, NDJSON), TooLarge)
    assert isinstance(refuse("[" + first + ",{}" * 20_000 + "]", JSON), TooLarge)


def test_a_column_of_endless_texts(refuse: Refuse) -> None:
    body = "ds,y,note\n" + "".join(f"{step},1,text {step}\n" for step in range(10_001))
    assert places(refuse(body, time_column="ds")) == [("too_many_categories", None, "note", None)]
    long = f"ds,y,note\n1,1,a\n2,1,{'x' * 300}\n"
    assert places(refuse(long))[0][:3] == ("bad_category", 3, "note")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_broken_packed_bodies(refuse: Refuse, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zstandard.compress
    packed = pack(b"ds,y\n" + b"2026-01-01,1\n" * 1000)
    for broken in (packed[:-6], packed[: len(packed) // 2], packed + b"rest", b"ds,y\n", b""):
        assert places(refuse(broken, encoding=encoding))[0][0] in ("broken_encoding", "empty_file"), broken
