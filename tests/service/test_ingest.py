"""Files that are taken: layouts, column names, delimiters, numbers, covariates, duplicates."""

import gzip
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard

from app.errors import Complaint, Invalid
from app.services.ingest import Ask, Known, Upload, parse
from app.services.ingest.reading import parse_here

CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
NDJSON = "application/x-ndjson"
Read = Callable[..., Upload]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def parsed(body: str | bytes, media_type: str = CSV, known: Known | None = None, **ask: Any) -> Upload:
        path = tmp_path / "body"
        path.write_bytes(body.encode() if isinstance(body, str) else body)
        upload = parse(path, Ask(media_type, **ask), known or Known())
        assert [entry.name for entry in tmp_path.iterdir()] == ["body"]  # nothing is left beside it
        return upload

    return parsed


def rows(upload: Upload) -> list[tuple[str, Any, float | None]]:
    """Every row as (key, stamp, value)."""
    found = []
    for place, key in enumerate(upload.keys):
        span = slice(upload.offsets[place], upload.offsets[place + 1])
        times = upload.calendar.times(upload.steps[span], int(upload.phases[place]))
        values = [None if math.isnan(value) else value for value in upload.values[span].tolist()]
        found += list(zip([key] * len(values), upload.calendar.stamps(times), values, strict=True))
    return found


def warnings(upload: Upload) -> list[tuple[str, int | None, str | None]]:
    return [(warning.code, warning.row, warning.column) for warning in upload.audit.warnings]


TWO = [
    ("A", "2026-01-01T00:00:00+00:00", 1.0),
    ("A", "2026-01-02T00:00:00+00:00", 2.5),
    ("B", "2026-01-02T00:00:00+00:00", None),
    ("B", "2026-01-03T00:00:00+00:00", -4.0),
]


def test_a_plain_file(read: Read) -> None:
    upload = read("unique_id,ds,y\nA,2026-01-01,1\nA,2026-01-02,2.5\nB,2026-01-02,\nB,2026-01-03,-4\n")
    assert rows(upload) == TWO
    assert upload.calendar.frequency.name == "D"
    assert upload.offsets.tolist() == [0, 2, 4]
    assert upload.phases.tolist() == [0, 0]
    assert upload.columns == {
        "layout": "long",
        "id": "unique_id",
        "time": "ds",
        "target": "y",
        "future": [],
        "past": [],
        "static": [],
    }
    assert upload.audit.document() == {"errors": 0, "warnings": 0, "findings": []}


@pytest.mark.parametrize(
    "body",
    [
        "unique_id;ds;y\nA;2026-01-01;1\nA;2026-01-02;2.5\nB;2026-01-02;\nB;2026-01-03;-4",
        "unique_id\tds\ty\nA\t2026-01-01\t1\nA\t2026-01-02\t2.5\nB\t2026-01-02\t\nB\t2026-01-03\t-4\n",
        "unique_id|ds|y\r\nA|2026-01-01|1\r\nA|2026-01-02|2.5\r\nB|2026-01-02|\r\nB|2026-01-03|-4\r\n",
        "unique_id,ds,y\rA,2026-01-01,1\rA,2026-01-02,2.5\rB,2026-01-02,\rB,2026-01-03,-4\r",
        "\ufeffunique_id,ds,y\nA,2026-01-01,1\nA,2026-01-02,2.5\nB,2026-01-02,\nB,2026-01-03,-4\n",
        '\n\n"unique_id","ds","y"\n"A","2026-01-01","1"\n\nA,2026-01-02,"2.5"\nB,2026-01-02,""\nB,2026-01-03,-4\n\n',
        "unique_id, ds , y\nA, 2026-01-01, 1\nA,2026-01-02 ,2.5 \nB, 2026-01-02,  \nB,2026-01-03, -4\n",
        "unique_id;ds;y\nA;2026-01-01;1\nA;2026-01-02;2,5\nB;2026-01-02;\nB;2026-01-03;-4,0",
        "y,unique_id,ds\n-4,B,2026-01-03\n2.5,A,2026-01-02\nNA,B,2026-01-02\n+1.0e0,A,2026-01-01\n",
        ",unique_id,ds,y\n0,A,2026-01-01,1\n1,A,2026-01-02,2.5\n2,B,2026-01-02,\n3,B,2026-01-03,-4\n",
    ],
    ids=["semicolon", "tab", "pipe", "returns", "mark", "quotes", "blanks", "comma", "order", "index"],
)
def test_ways_to_write_the_same_csv(read: Read, body: str) -> None:
    assert rows(read(body)) == TWO


@pytest.mark.parametrize(
    "text", ["", "  ", "NA", "na", "N/A", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", '""']
)
def test_ways_to_write_a_missing_number(read: Read, text: str) -> None:
    upload = read(f"ds,y\n2026-01-01,1\n2026-01-02,{text}\n2026-01-03,3\n")
    assert [value for *_, value in rows(upload)] == [1, None, 3]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7.25", -7.25),
        ("1e3", 1000),
        ("1E-3", 0.001),
        (".5", 0.5),
        ("5.", 5),
        ("+5", 5),
        ("-0", 0),
        ("007", 7),
    ],
)
def test_ways_to_write_a_number(read: Read, text: str, value: float) -> None:
    for odd in ("2", "  2 "):  # the quick way, and the one that looks at each row
        upload = read(f"ds,y\n2026-01-01,{text}\n2026-01-02,{odd}\n")
        assert upload.values.tolist() == [value, 2]


@pytest.mark.parametrize(
    ("header", "roles"),
    [
        ("unique_id,ds,y", ("unique_id", "ds", "y")),
        ("UNIQUE_ID,DS,Y", ("UNIQUE_ID", "DS", "Y")),
        ("item_id,timestamp,target", ("item_id", "timestamp", "target")),
        ("series,time,value", ("series", "time", "value")),
        ("key,timestamp,value", ("key", "timestamp", "value")),
        ("id,date,sales", ("id", "date", "sales")),
        ("Series_ID,datetime,demand", ("Series_ID", "datetime", "demand")),
        ("key,period,value", ("key", "period", "value")),
    ],
)
def test_names_are_recognised(read: Read, header: str, roles: tuple[str, str, str]) -> None:
    upload = read(f"{header}\n7,2026-01-01,1\n7,2026-01-02,2\n")
    assert (upload.columns["id"], upload.columns["time"], upload.columns["target"]) == roles
    assert upload.keys == ["7"]


def test_the_known_trio_wins_over_single_names(read: Read) -> None:
    upload = read("unique_id,ds,y,value,id\nA,2026-01-01,1,5,9\nA,2026-01-02,2,6,8\n")
    assert (upload.columns["id"], upload.columns["target"], upload.columns["past"]) == (
        "unique_id",
        "y",
        ["value", "id"],
    )


def test_columns_named_by_the_sender(read: Read) -> None:
    body = "unique_id,ds,y,shop,day,sold\nx,1,1,A,2026-01-01,1\nx,1,1,A,2026-01-02,2\n"
    upload = read(body, id_column="shop", time_column="day", target_column="sold", past_columns=("y",))
    assert [row[2] for row in rows(upload)] == [1, 2]
    assert upload.columns["past"] == ["ds", "y"]
    assert upload.columns["static"] == ["unique_id"]


def test_one_date_column_and_one_number_column(read: Read) -> None:
    upload = read("when,gallons\n2026-01-02,1\n2026-01-09,2\n", dataset="gasoline")
    assert rows(upload) == [("gasoline", "2026-01-02T00:00:00+00:00", 1), ("gasoline", "2026-01-09T00:00:00+00:00", 2)]
    assert upload.calendar.frequency.name == "W-FRI"
    assert upload.columns["id"] is None


def test_the_mean_of_a_forecast_is_its_target(read: Read) -> None:
    upload = read("key,timestamp,mean,q0.1,sample1\nA,2026-01-01,1,0.5,3\nA,2026-01-02,2,0.7,2\n")
    assert (upload.columns["target"], list(upload.covariates)) == ("mean", ["q0.1", "sample1"])


def test_keys_are_any_text(read: Read) -> None:
    keys = ["Zoë, the 2nd", 'say "hi"', "a/b", "007", " x", "NA", "ключ", "Z" * 255]
    body = "key,timestamp,value\n" + "".join(f'"{key.replace(chr(34), chr(34) * 2)}",2026-01-01,1\n' for key in keys)
    assert read(body, frequency="D").keys == sorted(keys)


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        ('{"id":10,"ds":"2026-01-01","y":1}\n{"id":9,"ds":"2026-01-01","y":2}', NDJSON),
        ('[{"id":10,"ds":"2026-01-01","y":1},{"id":9.0,"ds":"2026-01-01","y":2}]', JSON),
        ('{"id":[10,9],"ds":["2026-01-01","2026-01-01"],"y":[1,2]}', JSON),
        ('{"id":["10",9],"ds":["2026-01-01","2026-01-01"],"y":["1",2]}', JSON),
    ],
)
def test_numbers_as_keys_become_their_text(read: Read, body: str, media_type: str) -> None:
    upload = read(body, media_type, frequency="D")
    assert upload.keys == ["10", "9"]
    assert upload.values.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (
            '{"ds":"2026-01-01","y":1}\n\n{"ds":"2026-01-02","y":null}\r\n{"y":"3","ds":"2026-01-03"}',
            "application/jsonl",
        ),
        ('{"ds":"2026-01-01","y":1}\n{"ds":"2026-01-02"}\n{"ds":"2026-01-03","y":3.0}', NDJSON),
        ('{"ds":"2026-01-01","y":1}\n{"ds":"2026-01-02","y":NaN}\n{"ds":"2026-01-03","y":3}', NDJSON),
        ('\ufeff[{"ds":"2026-01-01","y":1},\n {"ds":"2026-01-02","y":"NaN"},\n {"ds":"2026-01-03","y":3}]\n', JSON),
        ('[{"ds":\n"2026-01-01","y":1}  ,{"ds":"2026-01-02", "y" :null},{"ds":"2026-01-03","y":3}]', JSON),
        ('{"ds":["2026-01-01","2026-01-02","2026-01-03"],"y":[1,null,3]}', JSON),
        ('{"ds":["2026-01-01","2026-01-02","2026-01-03"],"y":[1,"NA","3"]}', JSON),
    ],
)
def test_json_in_all_its_shapes(read: Read, body: str, media_type: str) -> None:
    assert [value for *_, value in rows(read(body, media_type))] == [1, None, 3]


def test_json_text_may_hold_what_splits_it(read: Read) -> None:
    key = 'a "quoted\\" },{ [x], \\'
    body = '[{"key":%s,"ds":"2026-01-01","y":1},{"key":"b","ds":"2026-01-01","y":2}]'
    upload = read(body % '"a \\"quoted\\\\\\" },{ [x], \\\\"', JSON, frequency="D")
    assert upload.keys == [key, "b"]


def test_wide_layout(read: Read) -> None:
    body = "month,B,A,empty\n2026-03,3,30,\n2026-01,1,,\n2026-02,,20,\n"
    upload = read(body, layout="wide")
    assert rows(upload) == [
        ("A", "2026-02-01T00:00:00+00:00", 20),
        ("A", "2026-03-01T00:00:00+00:00", 30),
        ("B", "2026-01-01T00:00:00+00:00", 1),
        ("B", "2026-03-01T00:00:00+00:00", 3),
    ]
    assert upload.calendar.frequency.name == "MS"
    assert upload.columns["layout"] == "wide"
    assert upload.columns["time"] == "month"
    assert warnings(upload) == [("empty_series", None, "empty")]


def test_wide_layout_with_its_time_column_named(read: Read) -> None:
    body = '[{"1": 5, "t": 10, "2": null}, {"1": 6, "t": 11, "2": 8}]'
    upload = read(body, JSON, layout="wide", time_column="t")
    assert rows(upload) == [("1", 10, 5), ("1", 11, 6), ("2", 11, 8)]
    assert upload.calendar.frequency.name == "step"


def test_what_the_server_hands_out_can_be_uploaded_again(read: Read) -> None:
    first = read(
        "key,timestamp,value\nA,2026-03-28 23:00,1\nA,2026-03-29 00:00,2\n", known=Known(time_zone="Europe/Berlin")
    )
    body = "key,timestamp,value\n" + "".join(f"{key},{stamp},{value}\n" for key, stamp, value in rows(first))
    second = read(body, known=Known(time_zone="Europe/Berlin"))
    assert rows(second) == rows(first)
    assert second.steps.tolist() == first.steps.tolist()


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_packed_bodies(read: Read, pack: Callable[[bytes], bytes]) -> None:
    one = b"ds,y\n2026-01-01,1\n"
    two = b"2026-01-02,2\n"
    encoding = "gzip" if pack is gzip.compress else "zstd"
    assert read(pack(one + two), encoding=encoding).values.tolist() == [1, 2]
    assert read(pack(one) + pack(two), encoding=encoding).values.tolist() == [
        1,
        2,
    ]  # members and frames follow each other
    assert read(pack(one + two)).values.tolist() == [1, 2]  # nobody said so


def test_equal_duplicates_are_merged_with_a_warning(read: Read) -> None:
    upload = read("key,timestamp,value\nA,2026-01-02,2\nA,2026-01-01,1\nA,2026-01-02,2.0\nA,2026-01-02T00:00:00Z,2\n")
    assert upload.values.tolist() == [1, 2]
    assert warnings(upload) == [("merged_duplicate", 4, None), ("merged_duplicate", 5, None)]
    assert upload.audit.warning_count == 2
    assert "rows 2 and 4" in upload.audit.warnings[0].message


def test_warnings_are_all_counted_and_a_hundred_listed(read: Read) -> None:
    body = "ds,y\n" + "".join(f"{np.datetime64('2026-01-01') + day},1\n" * 2 for day in range(150))
    audit = read(body).audit
    assert (audit.warning_count, len(audit.warnings)) == (150, 100)
    assert isinstance(audit.warnings[0], Complaint)
    assert len(audit.document()["findings"]) == 100


# ---------------------------------------------------------------- covariates

COVARIATES = """key,timestamp,value,region,promo,temp,mood
A,2026-01-01,1,north,0,5.5,good
A,2026-01-02,2,north,1,,bad
A,2026-01-03,,north,1,,
B,2026-01-01,4,south,0,7,bad
B,2026-01-02,5,south,0,8,
"""


def test_a_number_that_is_the_same_everywhere_may_vary_later(read: Read) -> None:
    """A flag that has not been raised yet: as a static column, its first rise would be refused."""
    upload = read("key,timestamp,value,promo,size\nA,2026-01-01,1,0,3\nA,2026-01-02,2,0,3\nB,2026-01-01,4,0,5\n")
    assert (upload.columns["past"], upload.columns["static"]) == (["promo"], ["size"])


def test_extra_columns_become_covariates(read: Read) -> None:
    upload = read(COVARIATES)
    assert (upload.columns["future"], upload.columns["past"], upload.columns["static"]) == (
        ["promo"],
        ["temp", "mood"],
        ["region"],
    )
    promo, temp, mood = (upload.covariates[name] for name in ("promo", "temp", "mood"))
    region = upload.statics["region"]
    assert (promo.kind, promo.values.tolist(), promo.present.all()) == ("number", [0, 1, 1, 0, 0], True)
    assert temp.present.tolist() == [True, False, False, True, True]
    assert (mood.kind, mood.categories, mood.values.tolist()) == ("category", ("bad", "good"), [2, 1, 0, 1, 0])
    assert (region.categories, region.values.tolist(), region.role) == (("north", "south"), [1, 2], "static")
    assert rows(upload)[2] == ("A", "2026-01-03T00:00:00+00:00", None)  # carries the future, is no observation


def test_named_roles_win_over_guesses(read: Read) -> None:
    upload = read(COVARIATES, static_columns=("region",), past_columns=("promo",), future_columns=("temp", "mood"))
    assert (upload.columns["future"], upload.columns["past"]) == (["temp", "mood"], ["promo"])


def test_the_datasets_roles_win_over_all(read: Read) -> None:
    known = Known("D", "UTC", {"A": 0}, {"promo": ("past", "category"), "region": ("static", "category")})
    upload = read(COVARIATES, known=known, future_columns=("promo",))
    assert upload.covariates["promo"].role == "past"
    assert upload.covariates["promo"].categories == ("0", "1")
    assert warnings(upload) == [("role_kept", None, "promo")]


def test_truths_are_numbers_and_empty_columns_are_ignored(read: Read) -> None:
    upload = read("ds,y,open,nothing\n2026-01-01,1,true,\n2026-01-02,2,FALSE,\n2026-01-03,3,,NA\n")
    assert upload.covariates["open"].kind == "number"
    assert upload.covariates["open"].values.tolist()[:2] == [1, 0]
    assert warnings(upload) == [("ignored_column", None, "nothing")]
    body = '{"ds":"2026-01-01","y":1,"open":true}\n{"ds":"2026-01-02","y":1,"open":false}'
    assert read(body, NDJSON).covariates["open"].values.tolist() == [1, 0]


# ---------------------------------------------------------------- typed columns


def test_typed_columns_of_every_kind(tmp_path: Path) -> None:
    days = ["2026-01-01", "2026-01-02"]
    for values in (
        pa.array([1.5, 2.0], pa.float16()),
        pa.array([Decimal("1.5"), Decimal("2.0")], pa.decimal128(10, 2)),
        pa.array(["1.5", "2"]).dictionary_encode(),
        pa.array(["1.5", "2"], pa.string_view()),
        pa.array([b"1.5", b"2"]),
    ):
        for keys in (["A", "A"], pa.array([b"A", b"A"]), pa.array(["A", "A"]).dictionary_encode()):
            table = pa.table({"key": keys, "ds": pa.array(days), "y": values})
            assert [row[0::2] for row in rows(read_table(tmp_path, table))] == [("A", 1.5), ("A", 2)]


def test_dictionaries_that_differ_between_batches(tmp_path: Path) -> None:
    def batch(keys: list[str]) -> pa.RecordBatch:
        return pa.record_batch(
            {"key": pa.array(keys).dictionary_encode(), "ds": pa.array([1, 1]), "y": pa.array([1, 2])}
        )

    table = pa.Table.from_batches([batch(["b", "c"]), batch(["a", "d"])])
    assert [row[0::2] for row in rows(read_table(tmp_path, table))] == [("a", 1), ("b", 1), ("c", 2), ("d", 2)]


def test_the_file_form_of_arrow_is_taken_too(read: Read) -> None:
    table = pa.table({"ds": [1, 2], "y": [3, 4]})
    with pa.BufferOutputStream() as sink:
        with pa.ipc.new_file(sink, table.schema) as file:
            file.write_table(table)
        body = sink.getvalue().to_pybytes()
    assert read(body, ARROW).values.tolist() == [3, 4]


def read_table(folder: Path, table: pa.Table) -> Upload:
    """In this process: dozens of others would take their time."""
    with pa.OSFile(str(folder / "table"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return parse_here(folder / "table", folder, Ask(ARROW), Known())


# ---------------------------------------------------------------- an existing dataset


def test_an_existing_dataset_gives_frequency_and_phases(read: Read) -> None:
    known = Known("W-MON", "UTC", {"A": 4 * 86_400_000_000})
    upload = read("key,timestamp,value\nA,2026-01-02,1\n", known=known, frequency="W")
    assert upload.calendar.frequency.name == "W-MON"
    assert rows(upload) == [("A", "2026-01-02T00:00:00+00:00", 1)]


def test_months_keep_the_day_a_series_means(read: Read) -> None:
    known = Known("ME", "UTC")
    body = "key,timestamp,value\nA,2026-01-31,1\nA,2026-02-28,2\nB,2026-01-30,1\nB,2026-02-28,2\nB,2026-03-30,3\n"
    upload = read(body, known=known)
    again = Known("ME", "UTC", dict(zip(upload.keys, upload.phases.tolist(), strict=True)))
    assert rows(read("key,timestamp,value\nB,2024-02-29,2\n", known=again)) == [("B", "2024-02-29T00:00:00+00:00", 2)]


def test_a_word_among_the_numbers_of_an_unnamed_target_is_named(read: Read) -> None:
    with pytest.raises(Invalid) as caught:
        read("date,store,sold\n2026-01-01,A,1\n2026-01-02,A,2\n2026-01-03,A,oops\n", id_column="store")
    assert [(each.code, each.row, each.column) for each in caught.value.errors] == [("not_a_number", 4, "sold")]
