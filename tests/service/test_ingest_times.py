"""Times: every way to write one, clock changes, frequencies told and inferred."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from app.errors import Invalid
from app.services.ingest import Ask, Known, Upload, parse
from app.services.ingest.reading import parse_here
from models import Calendar

CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
Read = Callable[..., Upload]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def parsed(lines: list[str], zone: str = "UTC", frequency: str | None = None, **ask: Any) -> Upload:
        path = tmp_path / "body.csv"
        path.write_text("\n".join(lines), encoding="utf-8")
        return parse(path, Ask(CSV, **ask), Known(frequency, zone))

    return parsed


@pytest.fixture
def read_arrow(tmp_path: Path) -> Read:
    def parsed(zone: str = "UTC", frequency: str | None = None, **columns: pa.Array) -> Upload:
        path = tmp_path / "body.arrow"
        table = pa.table(columns)
        with pa.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table)
        return parse_here(path, tmp_path, Ask(ARROW), Known(frequency, zone))

    return parsed


def stamps(upload: Upload, series: int = 0) -> list[Any]:
    span = slice(upload.offsets[series], upload.offsets[series + 1])
    return list(upload.calendar.stamps(upload.calendar.times(upload.steps[span], int(upload.phases[series]))))


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("2026-03-01", "2026-03-01T00:00:00+00:00"),
        ("20260301", "2026-03-01T00:00:00+00:00"),
        ("2026-03", "2026-03-01T00:00:00+00:00"),
        ("2026/03/01", "2026-03-01T00:00:00+00:00"),
        ("2026-Q2", "2026-04-01T00:00:00+00:00"),
        ("2026q2", "2026-04-01T00:00:00+00:00"),
        ("2026-03-01 05", "2026-03-01T05:00:00+00:00"),
        ("2026-03-01 05:06", "2026-03-01T05:06:00+00:00"),
        ("2026-03-01T05:06:07", "2026-03-01T05:06:07+00:00"),
        ("20260301T050607", "2026-03-01T05:06:07+00:00"),
        ("20260301T050607Z", "2026-03-01T05:06:07+00:00"),
        ("2026-03-01 05:06:07.5", "2026-03-01T05:06:07.5+00:00"),
        ("2026-03-01 05:06:07,5", "2026-03-01T05:06:07.5+00:00"),
        ("2026-03-01 05:06:07.000000000", "2026-03-01T05:06:07+00:00"),
        ("2026-03-01T05:06:07Z", "2026-03-01T05:06:07+00:00"),
        ("2026-03-01t05:06:07z", "2026-03-01T05:06:07+00:00"),
        ("2026-03-01 05:06:07 UTC", "2026-03-01T05:06:07+00:00"),
        ("2026-03-01 05:06:07+01:00", "2026-03-01T04:06:07+00:00"),
        ("2026-03-01T05:06:07-0330", "2026-03-01T08:36:07+00:00"),
        ("2026-03-01T05:06:07 +01", "2026-03-01T04:06:07+00:00"),
        ("0001-01-01", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31 23:59:59", "9999-12-31T23:59:59+00:00"),
    ],
)
def test_ways_to_write_a_time(read: Read, text: str, stamp: str) -> None:
    assert stamps(read(["ds,y", f'"{text}",1'], frequency="s")) == [stamp]  # alone, Arrow reads most of them
    beside = read(["key,ds,y", f'a,"{text}",1', "b, 2026-01-01T00:00:00.0+00:00 ,1"], frequency="s")
    assert stamps(beside) == [stamp]  # in company of another form, row by row


@pytest.mark.parametrize(
    "text", ["2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+01:60", "2026-1-1", "1.5", "٢٠٢٦-٠١-٠١"]
)
def test_what_is_no_time(read: Read, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(["ds,y", f"{text},1"], frequency="s")
    assert [(each.code, each.row, each.value_preview) for each in caught.value.errors] == [("not_a_time", 2, text)]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_timestamps_of_every_unit(read_arrow: Read, unit: str, zone: str | None) -> None:
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    column = pa.array([1_767_225_600 * factor, 1_767_229_200 * factor], pa.timestamp(unit, zone))
    upload = read_arrow("Europe/Berlin", ds=column, y=pa.array([1, 2]))
    start = "2026-01-01T00:00:00+01:00" if zone is None else "2026-01-01T01:00:00+01:00"
    assert stamps(upload)[0] == start
    assert upload.calendar.frequency.name == "h"


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64(), pa.string(), pa.large_string(), pa.string_view()])
def test_dates_of_every_type(read_arrow: Read, kind: pa.DataType) -> None:
    texts = ["2026-01-01", "2026-01-02"]
    column = pa.array(texts, kind) if pa.types.is_string_view(kind) else pa.array(texts).cast(kind)
    upload = read_arrow("Asia/Tokyo", ds=column, y=pa.array([1, 2]))
    assert stamps(upload) == ["2026-01-01T00:00:00+09:00", "2026-01-02T00:00:00+09:00"]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64(), pa.float64(), pa.string()])
def test_whole_numbers_are_steps(read_arrow: Read, kind: pa.DataType) -> None:
    upload = read_arrow(ds=pa.array([3, 5, 4]).cast(kind), y=pa.array([3, 5, 4]))
    assert upload.calendar.frequency.name == "step"
    assert (stamps(upload), upload.values.tolist()) == ([3, 4, 5], [3, 4, 5])


def test_whole_numbers_are_years_where_the_frequency_is_yearly(read: Read) -> None:
    lines = ["ds,y", "1949,1", "1951,2", "1950,3"]
    assert stamps(read(lines)) == [1949, 1950, 1951]
    with pytest.raises(Invalid):
        read(lines, frequency="h")
    assert stamps(read(lines, frequency="YE"))[0] == "1949-01-01T00:00:00+00:00"
    assert stamps(read(lines, frequency="YE")) == stamps(read(["ds,y", "1949-01-01,1", "1950-01-01,3", "1951-01-01,2"]))


def test_a_column_called_year_is_the_time_where_nothing_else_is(read: Read) -> None:
    lines = ["country,Year,gdp", "A,1949,1", "B,1949,3", "A,1950,2"]
    upload = read(lines, id_column="country")
    assert (upload.calendar.frequency.name, stamps(upload)[0]) == ("YS-JAN", "1949-01-01T00:00:00+00:00")
    assert stamps(read(lines, id_column="country", frequency="step")) == [1949, 1950]
    assert stamps(read(["Year,gdp", "9,1", "10,2"])) == [9, 10]  # no year of ours
    dated = read(["date,year,sales", "2026-01-05,2026,1", "2026-01-06,2026,2"], target_column="sales")
    assert (list(dated.covariates), dated.calendar.frequency.name) == (["year"], "D")


def test_numbers_that_are_dates_are_dates(read: Read) -> None:
    assert stamps(read(["ds,y", "20260228,1", "20260301,2"])) == [
        "2026-02-28T00:00:00+00:00",
        "2026-03-01T00:00:00+00:00",
    ]
    assert stamps(read(["ds,y", "20260228,1", "20260301,2"], frequency="step")) == [20260228, 20260301]
    assert read(["ds,y", "20260228,1", "20260230,2"]).calendar.frequency.name == "step"


def test_epoch_numbers_are_refused_with_a_way_out(read: Read) -> None:
    with pytest.raises(Invalid) as caught:
        read(["ds,y", "1767225600,1", "1767229200,2", "1767312000,2"])
    assert caught.value.errors[0].code == "too_long"
    assert "plain steps" in str(caught.value.errors[0].hint)


# ---------------------------------------------------------------- clock changes of Berlin: 2026-03-29 and 2026-10-25

BERLIN = "Europe/Berlin"


def test_a_local_hour_shown_twice_is_the_first_then_the_second(read: Read) -> None:
    hours = ["00:00", "01:00", "02:00", "02:00", "03:00", "04:00"]
    lines = ["key,ds,y"] + [f"A,2026-10-25 {hour},{place}" for place, hour in enumerate(hours)]
    upload = read(lines, BERLIN)
    assert stamps(upload)[2:5] == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]
    assert upload.values.tolist() == [0, 1, 2, 3, 4, 5]
    found = [(each.code, each.row, each.value_preview) for each in upload.audit.warnings]
    assert found == [("ambiguous_time", 4, "2026-10-25T02:00:00"), ("ambiguous_time", 5, "2026-10-25T02:00:00")]
    assert "first" in upload.audit.warnings[0].message
    assert "second" in upload.audit.warnings[1].message


def test_quarter_hours_shown_twice(read: Read) -> None:
    times = ["01:45", "02:00", "02:15", "02:30", "02:45", "02:00", "02:15", "02:30", "02:45", "03:00"]
    upload = read(["ds,y"] + [f"2026-10-25 {time},{place}" for place, time in enumerate(times)], BERLIN)
    assert upload.values.tolist() == list(range(10))
    assert (upload.steps - upload.steps[0]).tolist() == list(range(10))


def test_a_file_that_runs_backwards(read: Read) -> None:
    hours = ["04:00", "03:00", "02:00", "02:00", "01:00"]
    upload = read(["ds,y"] + [f"2026-10-25 {hour},{place}" for place, hour in enumerate(hours)], BERLIN)
    assert upload.values.tolist() == [4, 3, 2, 1, 0]


def test_each_series_has_its_own_second_hour(read: Read) -> None:
    lines = ["key,ds,y"]
    for hour in ("01:00", "02:00", "02:00", "03:00"):
        lines += [f"{key},2026-10-25 {hour},1" for key in "AB"]
    upload = read(lines, BERLIN)
    assert stamps(upload, 0) == stamps(upload, 1)
    assert (upload.steps - upload.steps[0]).tolist() == [0, 1, 2, 3] * 2


def test_a_single_ambiguous_hour_is_the_first(read: Read) -> None:
    upload = read(["ds,y", "2026-10-25 01:00,1", "2026-10-25 02:00,2"], BERLIN)
    assert stamps(upload)[1] == "2026-10-25T02:00:00+02:00"
    assert upload.audit.warning_count == 1


def test_offsets_say_which_hour_is_meant(read: Read) -> None:
    upload = read(["ds,y", "2026-10-25T02:00:00+01:00,2", "2026-10-25T02:00:00+02:00,1", "2026-10-25 03:00,3"], BERLIN)
    assert upload.values.tolist() == [1, 2, 3]
    assert upload.audit.warning_count == 0


def test_a_local_time_that_never_was(read: Read) -> None:
    with pytest.raises(Invalid) as caught:
        read(["ds,y", "2026-03-29 01:00,1", "2026-03-29 02:00,2", "2026-03-29 02:30,2", "2026-03-29 03:00,3"], BERLIN)
    found = [(each.code, each.row, each.column, each.value_preview) for each in caught.value.errors]
    assert found == [
        ("nonexistent_time", 3, "ds", "2026-03-29T02:00:00"),
        ("nonexistent_time", 4, "ds", "2026-03-29T02:30:00"),
    ]


def test_a_day_whose_midnight_the_clock_skips(read: Read) -> None:
    upload = read(["ds,y", "2018-11-03,1", "2018-11-04,2", "2018-11-05,3"], "America/Sao_Paulo")
    assert (upload.steps - upload.steps[0]).tolist() == [0, 1, 2]
    assert stamps(upload)[1] == "2018-11-04T01:00:00-02:00"


def test_days_across_a_clock_change_are_days(read: Read) -> None:
    upload = read(["ds,y", "2026-03-28,1", "2026-03-29,2", "2026-03-30,3", "2026-04-01,4"], BERLIN)
    assert upload.calendar.frequency.name == "D"
    assert (upload.steps - upload.steps[0]).tolist() == [0, 1, 2, 4]
    assert stamps(upload)[1:3] == ["2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"]


# ---------------------------------------------------------------- frequencies


@pytest.mark.parametrize(
    ("dates", "name"),
    [
        (["2026-01-31", "2026-02-28", "2026-03-31"], "ME"),
        (["2026-01-30", "2026-02-28", "2026-03-30"], "MS"),
        (["2026-01", "2026-02", "2026-04"], "MS"),
        (["2026Q1", "2026Q2", "2026Q4"], "QS-JAN"),
        (["2026-01-02", "2026-01-09", "2026-01-23"], "W-FRI"),
        (["2026-01-01 00:00", "2026-01-01 00:30", "2026-01-01 01:30"], "30min"),
    ],
)
def test_frequencies_are_inferred(read: Read, dates: list[str], name: str) -> None:
    assert read(["ds,y"] + [f"{date},1" for date in dates]).calendar.frequency.name == name


def test_a_frequency_that_was_given(read: Read) -> None:
    upload = read(["ds,y", "2026-01-01 00:00,1", "2026-01-01 06:00,1"], frequency=None)
    assert upload.calendar.frequency.name == "6h"
    path_known = read(["ds,y", "2026-01-01 00:00,1", "2026-01-01 06:00,1"], frequency="h")
    assert (path_known.steps - path_known.steps[0]).tolist() == [0, 6]


@pytest.mark.parametrize("layout", ["long", "wide"])
@pytest.mark.parametrize(
    ("column", "known", "expected"),
    [
        ("Europe/Berlin", Known(takes_zone=True), ("D", "Europe/Berlin")),
        ("Europe/Berlin", Known(), None),
        ("Europe/Berlin", Known("h"), ("h", "UTC")),
        ("+01:00", Known(takes_zone=True), None),
    ],
)
def test_a_new_dataset_takes_the_zone_of_the_time_column(
    tmp_path: Path, layout: str, column: str, known: Known, expected: tuple[str, str] | None
) -> None:
    days = np.arange("2026-03-01", "2026-04-20", dtype="datetime64[D]")
    local = Calendar.of("D", "Europe/Berlin").to_utc(days.astype("datetime64[us]").astype(np.int64))[0]
    times = pa.array(local).cast(pa.timestamp("us", column))
    path = tmp_path / "body.parquet"
    parquet.write_table(pa.table({"timestamp": times, "value": pa.array(np.arange(50.0))}), path)
    ask = Ask("application/vnd.apache.parquet", layout=layout)
    if expected is None:
        with pytest.raises(Invalid, match="give time_zone="):
            parse(path, ask, known)
    else:
        calendar = parse(path, ask, known).calendar
        assert (calendar.frequency.name, calendar.time_zone) == expected


def test_mixed_steps_are_refused_with_the_series_that_differs(read: Read) -> None:
    hours = [f"A,2026-01-{1 + hour // 24:02}T{hour % 24:02}:00Z,1" for hour in range(300)]
    days = [f"B,2026-01-{day:02},1" for day in range(1, 21)]
    with pytest.raises(Invalid, match=r"step differently.*the first such series is 'B'") as caught:
        read(["key,timestamp,value", *hours, *days])
    assert [(each.code, each.row, each.column) for each in caught.value.errors] == [("no_frequency", 302, "timestamp")]
