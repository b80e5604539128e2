"""Tables written out: the five formats as bytes, a piece at a time.

Text is made a column at a time by Arrow and numpy, never a Python object for each value. NaN never leaves: it is `null`
in JSON and NDJSON, empty in CSV, null in Parquet and Arrow. In text, times are RFC 3339 with the zone's offset.
"""

import datetime as dt
from collections.abc import Iterable, Iterator
from io import RawIOBase
from itertools import chain
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import orjson
from numpy.typing import NDArray

from app.services.ingest.arrow import pa, parquet, pc

ROWS = 65_536  # rows turned into text at a time
WIDE = 1 << 23  # bytes of a table that need no company
LARGE = 1 << 16  # bytes that go out by themselves
DAY = 86_400_000_000
Text = Literal["json", "csv"]
Stream = Literal["csv", "ndjson", "arrow", "parquet"]


def json_pieces(table: Any) -> Iterator[bytes]:
    """One JSON object of equal-length columns."""
    for place, name in enumerate(table.column_names):
        yield (b"," if place else b"{") + orjson.dumps(name) + b":["
        first = True
        for chunk in _chunks(table.select([place])):
            text = _joined([_texts(chunk.column(0), "json"), _text(",")], "")
            yield (b"" if first else b",") + text[:-1]
            first = False
        yield b"]"
    yield b"}" if table.num_columns else b"{}"


def ndjson_pieces(table: Any) -> Iterator[bytes]:
    """A JSON object a row, each on its line."""
    names = [
        ("," if place else "{") + orjson.dumps(name).decode() + ":" for place, name in enumerate(table.column_names)
    ]
    for chunk in _chunks(table):
        parts: list[Any] = []
        for name, column in zip(names, chunk.columns, strict=True):
            parts += [_text(name), _texts(column, "json")]
        yield _joined([*parts, _text("}\n")], "")


def csv_pieces(table: Any) -> Iterator[bytes]:
    """CSV: the header first, then the rows."""
    header = pa.array(table.column_names, pa.large_string())
    yield ",".join(_texts(header, "csv").to_pylist()).encode() + b"\n"
    for chunk in _chunks(table):
        *texts, last = (_texts(column, "csv") for column in chunk.columns)
        yield _joined([*texts, pc.binary_join_element_wise(last, _text("\n"), _text(""))], ",")


def arrow_bytes(table: Any) -> bytes:
    """An Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def parquet_bytes(table: Any) -> bytes:
    """A Parquet file."""
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def stream(pages: Iterator[Any], kind: Stream) -> Iterator[bytes]:
    """Tables with the same columns as one text, Arrow stream or Parquet file; memory holds one of them at a time, or a
    run of small ones."""
    if kind in ("arrow", "parquet"):
        yield from _written(grouped(pages), kind)
        return
    for place, table in enumerate(pages):
        pieces = csv_pieces(table) if kind == "csv" else ndjson_pieces(table)
        if kind == "csv":  # one header, with the first rows: short as it is alone, nobody would pack what follows it
            header = next(pieces)
            pieces = pieces if place else chain([header + next(pieces, b"")], pieces)
        yield from pieces


def grouped(tables: Iterable[Any]) -> Iterator[Any]:
    """The tables in runs of at least `ROWS` rows, or `WIDE` bytes: many small row groups, or batches, are slow to
    read."""
    held: list[Any] = []
    for table in tables:
        held.append(table)
        if sum(one.num_rows for one in held) >= ROWS or sum(one.nbytes for one in held) >= WIDE:
            yield pa.concat_tables(held) if held[1:] else held[0]
            held = []
    if held:
        yield pa.concat_tables(held)


def _written(pages: Iterator[Any], kind: str) -> Iterator[bytes]:
    sink = _Sink()
    writer: Any = None
    for table in pages:
        if writer is None and kind == "arrow":
            writer = pa.ipc.new_stream(sink, table.schema)
        elif writer is None:
            writer = parquet.ParquetWriter(sink, table.schema, compression="zstd")
        writer.write_table(null_for_nan(table))
        yield from sink.taken()
    writer.close()
    yield from sink.taken()


class _Sink(RawIOBase):
    """A file that keeps what is written until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[bytes | bytearray] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, piece: Any, /) -> int:
        size = len(piece)
        # What is small is put together; what is large, a column of numbers, is copied once and not again.
        if size < LARGE and self._held and isinstance(self._held[-1], bytearray):
            self._held[-1] += piece
        else:
            self._held.append(bytearray(piece) if size < LARGE else bytes(piece))
        self._size += size
        return size

    def tell(self) -> int:
        return self._size

    def taken(self) -> Iterator[bytes]:
        held, self._held = self._held, []
        return map(bytes, held)


def _chunks(table: Any) -> Iterator[Any]:
    for start in range(0, table.num_rows, ROWS):
        yield table.slice(start, ROWS).combine_chunks().to_batches()[0]


def _joined(parts: list[Any], separator: str) -> bytes:
    """The rows of `parts` joined side by side, then end to end: Arrow keeps a column's strings in one run of bytes."""
    rows = pc.binary_join_element_wise(*parts, _text(separator))
    ends = np.frombuffer(rows.buffers()[1], dtype=np.int64)[rows.offset : rows.offset + len(rows) + 1]
    return rows.buffers()[2][int(ends[0]) : int(ends[-1])].to_pybytes()


def _text(value: str) -> Any:
    return pa.scalar(value, pa.large_string())


# ---------------------------------------------------------------- a column as text


def _texts(column: Any, dialect: Text) -> Any:
    """Each value as it stands in the text, missing ones as that text says it: (n,) large_string without nulls."""
    kind = column.type
    missing = "null" if dialect == "json" else ""
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_timestamp(kind):
        texts = _stamps(column, quoted=dialect == "json")
    elif pa.types.is_floating(kind):
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, kind))
        texts = pc.cast(column, pa.large_string())
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        texts = pc.cast(column, pa.large_string())
    else:
        texts = _strings(column, dialect)
    return pc.fill_null(texts, _text(missing))


def _strings(column: Any, dialect: Text) -> Any:
    """Strings quoted where the text needs it; each distinct one is looked at once, for keys repeat."""
    coded = pc.dictionary_encode(column)
    made = [_quoted(value, dialect) for value in coded.dictionary.to_pylist()]
    return pa.array(made, pa.large_string()).take(coded.indices)


def _quoted(value: str, dialect: Text) -> str:
    if dialect == "json":
        return orjson.dumps(value).decode()
    # An empty string is quoted, so that it is not read as missing.
    plain = value and not any(mark in value for mark in ',"\r\n') and value.strip() == value
    return value if plain else '"' + value.replace('"', '""') + '"'


def _stamps(column: Any, quoted: bool) -> Any:
    """RFC 3339 texts with the offset of the column's zone at each time, microseconds only where the column has any."""
    zone = ZoneInfo(column.type.tz or "UTC")
    column = column.cast(pa.timestamp("us", column.type.tz))
    times = np.asarray(pc.fill_null(column.cast(pa.int64()), 0), dtype=np.int64)
    offsets = _offsets(times, zone)
    local = (times + offsets * 60_000_000).view("datetime64[us]")
    unit = "us" if (times % 1_000_000).any() else "s"
    clock = np.datetime_as_string(local, unit=unit).astype("S")
    clock = clock.view(np.uint8).reshape(len(times), -1)[:, : 19 if unit == "s" else 26]  # (n, characters)
    hours, minutes = np.divmod(np.abs(offsets), 60)
    digits = np.stack([hours // 10, hours % 10, minutes // 10, minutes % 10], axis=1).astype(np.uint8) + ord("0")
    sign = np.where(offsets < 0, ord("-"), ord("+")).astype(np.uint8)[:, None]
    colon = np.full((len(times), 1), ord(":"), np.uint8)
    parts = [clock, sign, digits[:, :2], colon, digits[:, 2:]]
    if quoted:
        quote = np.full((len(times), 1), ord('"'), np.uint8)
        parts = [quote, *parts, quote]
    texts = np.concatenate(parts, axis=1)  # (n, characters)
    ends = pa.array(np.arange(len(times) + 1, dtype=np.int64) * texts.shape[1])
    buffers = [ends.buffers()[1], pa.py_buffer(texts.tobytes())]
    made = pa.LargeStringArray.from_buffers(len(times), *buffers)
    return pc.if_else(pc.is_valid(column), made, pa.scalar(None, pa.large_string()))


def _offsets(times: NDArray[np.int64], zone: ZoneInfo) -> NDArray[np.int64]:
    """Minutes east of UTC at each time. A day whose ends agree has one offset; other days are looked at one by one.

    Before zones were kept by the minute (mean solar time) the offset is rounded to minutes, which RFC 3339 asks for;
    the instant stays exact, since the clock is shifted by the same minutes.
    """
    days, where = np.unique(times // DAY, return_inverse=True)
    starts = np.array([_offset(int(day) * DAY, zone) for day in days], dtype=np.int64)
    ends = np.array([_offset((int(day) + 1) * DAY - 1, zone) for day in days], dtype=np.int64)
    offsets = starts[where]
    for row in np.flatnonzero((starts != ends)[where]):
        offsets[row] = _offset(int(times[row]), zone)
    return offsets


def _offset(time: int, zone: ZoneInfo) -> int:
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=time)
    try:
        shift = moment.astimezone(zone).utcoffset() or dt.timedelta()
    except OverflowError:  # within a day of year 1 or 9999
        shift = dt.timedelta()
    return int((shift.total_seconds() + 30) // 60)


def null_for_nan(table: Any) -> Any:
    """The table with null where a number is not finite."""
    for place, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table.column(place)
            finite = pc.is_finite(column)
            if not pc.all(finite).as_py():
                column = pc.if_else(finite, column, pa.scalar(None, field.type))
                table = table.set_column(place, field, column)
    return table
