"""CSV: UTF-8 text with a header; comma, semicolon, tab or pipe between fields; read as columns of text."""

import csv as reader
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import MAX_LISTED, Complaint, Invalid, TooLarge
from app.services.ingest.arrow import csv, pa
from app.services.ingest.sheet import Rows, Sheet, named, preview, refuse
from app.services.ingest.text import Scan, scan
from app.services.ingest.upload import Ask

DELIMITERS = (",", ";", "\t", "|")
HEADER_BYTES = 4 << 20
BLOCK_BYTES = 16 << 20
_DATED = re.compile(r"\d{4}-\d\d(-\d\d.*)?|\d{4}/\d\d?/\d\d?.*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class _Shape:
    """What the first lines say: the delimiter, the names, and how many lines end with the header."""

    delimiter: str
    names: list[str]
    header_lines: int


def read_delimited(path: Path, ask: Ask) -> Sheet:
    """The file as text columns. Invalid on a wrong encoding, a missing header, rows of another width; TooLarge on too
    many columns, told from the first 4 MiB."""
    found = scan(path)
    shape = shape_of(path, found, ask)
    table = _read(path, found, shape) if found.lines > shape.header_lines else None
    if table is None or table.num_rows == 0:
        refuse("no_rows", "the file has a header and no rows")
    lines = found.lines - shape.header_lines
    simple = lines == table.num_rows and not found.bare_returns
    first = shape.header_lines + 1
    rows = Rows(
        "Rows are numbered as the lines of the file, the header is row 1.",
        (lambda indexes: [index + first for index in indexes]) if simple else _lines_of(path, shape),
    )
    columns = named(shape.names, table.columns, shape.header_lines)
    return Sheet(columns, table.num_rows, rows, shape.delimiter)


def shape_of(path: Path, found: Scan, ask: Ask) -> _Shape:
    """The delimiter, names and header of a CSV file. Invalid or TooLarge where it has none to read."""
    with path.open("rb") as file:
        file.seek(found.start)
        head = file.read(HEADER_BYTES)
    text = head.decode("utf-8", errors="ignore")
    body = text.lstrip("\r\n")
    if not body.strip():
        refuse("empty_file", "the file is empty")
    blank = len(text[: len(text) - len(body)].splitlines())
    end = re.search(r"\r\n|\n|\r", body)
    if end is None and len(head) == HEADER_BYTES:
        raise TooLarge(f"the header is longer than {HEADER_BYTES} bytes: at most {ask.max_columns} columns are read")
    line = body[: end.start()] if end else body
    if max(line.count(delimiter) for delimiter in DELIMITERS) >= ask.max_columns:
        count = max(line.count(delimiter) for delimiter in DELIMITERS) + 1
        raise TooLarge(f"the header names {count} columns; at most {ask.max_columns} are read")
    first = body if '"' in line else line  # a quoted name may go on in the next line
    records = {delimiter: _first_record(first, delimiter) for delimiter in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda each: len(records[each][0]))
    names, height = records[delimiter]
    names = [name.strip() for name in names]
    if len(names) < 2:
        refuse(
            "one_column",
            f"the header {preview(line)!r} names one column; expected at least a time and a value",
            "separate the fields by comma, semicolon, tab or pipe",
            row=blank + 1,
        )
    _expect_header(names, ask, blank + 1)
    return _Shape(delimiter, names, blank + height)


def _first_record(text: str, delimiter: str) -> tuple[list[str], int]:
    """The fields of the first record and the lines it takes."""
    lines = reader.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return next(lines), lines.line_num
    except (reader.Error, StopIteration):
        return [], 1


def _expect_header(names: list[str], ask: Ask, row: int) -> None:
    shown = names if ask.layout == "long" else names[:1]
    filled = [name for name in shown if name]
    dated = any(_DATED.fullmatch(name) for name in filled)
    if dated or (filled and all(_NUMBER.fullmatch(name) for name in filled)):
        refuse(
            "no_header",
            f"the first row looks like data, not like column names: {preview(', '.join(names))}",
            "begin the file with a header such as unique_id,ds,y",
            row=row,
        )


def _read(path: Path, found: Scan, shape: _Shape) -> Any:
    ragged: list[str] = []

    def skip(row: Any) -> str:
        if len(ragged) < MAX_LISTED:
            ragged.append(f"{row.actual_columns}")
        return "skip"

    names = [str(place) for place in range(len(shape.names))]
    try:
        table = csv.read_csv(
            str(path),
            read_options=csv.ReadOptions(
                column_names=names, skip_rows_after_names=shape.header_lines, block_size=BLOCK_BYTES
            ),
            parse_options=csv.ParseOptions(
                delimiter=shape.delimiter, newlines_in_values=found.quotes, invalid_row_handler=skip
            ),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except (pa.ArrowException, OSError) as error:
        if "straddling" in str(error):
            refuse("long_row", f"a row is longer than {BLOCK_BYTES} bytes", "is a quote opened and never closed?")
        refuse("unreadable", f"the CSV file cannot be read: {preview(str(error))}")
    if ragged:
        _refuse_ragged(path, shape)
    return table


def _refuse_ragged(path: Path, shape: _Shape) -> None:
    width = len(shape.names)
    complaints: list[Complaint] = []
    count = 0
    for line, fields in _records(path, shape.delimiter):
        if fields and len(fields) != width:
            count += 1
            if len(complaints) < MAX_LISTED:
                complaints.append(
                    Complaint(
                        code="ragged_row",
                        message=f"expected {width} fields as in the header, got {len(fields)}",
                        row=line,
                        value_preview=preview(shape.delimiter.join(fields)),
                        hint="a field that holds the delimiter needs double quotes",
                    )
                )
    if not complaints:
        refuse("ragged_row", f"a row does not have the header's {width} fields")
    first = complaints[0]
    raise Invalid(
        f"{count} rows do not have the header's {width} fields, nothing was stored; the first is row {first.row}: "
        f"{first.message}. Rows are numbered as the lines of the file, the header is row 1.",
        code="invalid-file",
        errors=complaints,
        error_count=count,
    )


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Every record that is not blank, with the line it begins on. Slow: for files that are refused."""
    reader.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = reader.reader(file, delimiter=delimiter)
        begins = 1
        for fields in lines:
            if fields:
                yield begins, fields
            begins = lines.line_num + 1


def _lines_of(path: Path, shape: _Shape) -> Callable[[Sequence[int]], list[int]]:
    """Row numbers of a file with blank lines or line breaks inside quotes: it has to be read again."""

    def numbers(indexes: Sequence[int]) -> list[int]:
        wanted = set(indexes)
        last = max(indexes, default=-1)
        found: dict[int, int] = {}
        for index, (line, _) in enumerate(_records(path, shape.delimiter), start=-1):
            if index in wanted:
                found[index] = line
            if index >= last:
                break
        return [found.get(index, index + 2) for index in indexes]

    return numbers
