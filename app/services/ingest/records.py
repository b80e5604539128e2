"""NDJSON and JSON: records, or an object of equal-length columns. Flat values only: text, number, true, false, null."""

import json as standard
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import orjson

from app.errors import MAX_LISTED, TooLarge
from app.services.ingest.array import split_array
from app.services.ingest.arrow import json, pa, pc
from app.services.ingest.sheet import RECORDS, Finding, Findings, Sheet, named, preview, refuse
from app.services.ingest.text import scan
from app.services.ingest.upload import Ask

BLOCK_BYTES = 16 << 20
THREADED = 1 << 16  # bytes
PEEK = 100
CHUNK = 20_000
DENSE_CELLS = 10_000_000


def read_json(path: Path, folder: Path, ask: Ask) -> Sheet:
    """A JSON body. An array becomes lines in `folder` first, so that it is read as NDJSON is."""
    start = scan(path).start
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(1 << 16).lstrip()
    if head.startswith(b"["):
        lines = folder / "records.ndjson"
        return _read_lines(lines, 0, split_array(path, start, lines), ask)
    if head.startswith(b"{"):
        return _read_columns(path, start, ask)
    refuse(
        "not_records",
        f"expected an array of records or an object of columns, got {preview(head[:80].decode(errors='replace'))!r}",
    )


def read_lines(path: Path, ask: Ask) -> Sheet:
    """An NDJSON body: one record a line, blank lines skipped and not counted."""
    found = scan(path)
    return _read_lines(path, found.start, found.lines, ask)


def _read_lines(path: Path, start: int, lines: int, ask: Ask) -> Sheet:
    schema = _schema(path, start, ask)
    if schema is not None:
        _check_density(lines, len(schema), path)
    table = _read_fast(path, start, schema) if schema is not None else None
    if table is None:
        return _read_slowly(path, start, ask)
    if table.num_rows == 0:
        refuse("no_rows", "the file holds no records")
    return Sheet(named(table.column_names, table.columns), table.num_rows, RECORDS)


def _check_density(rows: int, width: int, path: Path) -> None:
    """Refuse records that would need far more memory as a table than as text: most of them lack most fields."""
    if rows * width > max(DENSE_CELLS, path.stat().st_size):
        raise TooLarge(
            f"{rows} records of up to {width} fields, most of which are missing, are more than this server unpacks; "
            "send one record for each series and time"
        )


def _lines(path: Path, start: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if line.strip():
                yield line


def _schema(path: Path, start: int, ask: Ask) -> Any | None:
    """Arrow types by the first records, or None when they are not plain enough for Arrow's own reader."""
    kinds: dict[str, set[type]] = {}
    for count, line in enumerate(_lines(path, start)):
        if count == PEEK:
            break
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(record, dict):
            return None
        for name, value in cast("dict[str, object]", record).items():
            kinds.setdefault(name, set()).add(type(value))
        if len(kinds) > ask.max_columns:
            raise TooLarge(f"the records have more than {ask.max_columns} fields, the most this server reads")
    fields: list[tuple[str, Any]] = []
    for name, seen in kinds.items():
        kind = _arrow_kind(seen - {type(None)})
        if kind is None:
            return None
        fields.append((name, kind))
    return pa.schema(fields) if fields else None


def _arrow_kind(seen: set[type]) -> Any | None:
    if seen == {str}:
        return pa.string()
    if seen == {int}:
        return pa.int64()
    if seen in ({float}, {int, float}):
        return pa.float64()
    return pa.bool_() if seen == {bool} else None


def _read_fast(path: Path, start: int, schema: Any) -> Any | None:
    """The table by Arrow's reader, or None when the file has something in it that the slow reader has to judge."""
    size = path.stat().st_size
    # The reader makes room for a whole block; and a short file is read before a thread has begun.
    options = json.ReadOptions(block_size=min(BLOCK_BYTES, size + 1), use_threads=size > THREADED)
    for each in (schema, _floats(schema)):
        rules = json.ParseOptions(explicit_schema=each, unexpected_field_behavior="error")
        try:
            with pa.OSFile(str(path)) as file:
                file.seek(start)
                return json.read_json(file, read_options=options, parse_options=rules)
        except (pa.ArrowException, OSError):
            continue
    return None


def _floats(schema: Any) -> Any:
    """The schema for a file whose first numbers happen to be whole."""
    kinds = [pa.float64() if field.type == pa.int64() else field.type for field in schema]
    return pa.schema(list(zip(schema.names, kinds, strict=True)))


# ---------------------------------------------------------------- the slow way: anything odd, or wrong


class _Texts:
    """Columns of text that grow by chunks, beside the kinds of value each has held."""

    def __init__(self, ask: Ask) -> None:
        self.limit = ask.max_columns
        self.kinds: dict[str, set[str]] = {}
        self.chunks: dict[str, list[Any]] = {}
        self.pending: dict[str, list[str | None]] = {}
        self.rows = 0
        self.flushed = 0

    def add(self, record: dict[str, object], findings: Findings) -> None:
        for name, value in record.items():
            pending = self.pending.get(name)
            if pending is None:
                pending = self._begin(name)
            text, kind = _as_text(value)
            if kind == "nested":
                finding = Finding("nested_value", "expected a plain value, got a list or object", self.rows, None, name)
                findings.add(finding)
            self.kinds[name].add(kind)
            missing = self.rows - self.flushed - len(pending)
            if missing > 0:
                pending.extend([None] * missing)
            pending.append(text)
        self.rows += 1
        if self.rows - self.flushed == CHUNK:
            self.flush()

    def _begin(self, name: str) -> list[str | None]:
        if len(self.kinds) >= self.limit:
            raise TooLarge(f"the records have more than {self.limit} fields, the most this server reads")
        self.kinds[name] = set()
        self.chunks[name] = [pa.nulls(self.flushed, pa.string())]
        self.pending[name] = []
        return self.pending[name]

    def flush(self) -> None:
        height = self.rows - self.flushed
        for name, pending in self.pending.items():
            pending.extend([None] * (height - len(pending)))
            self.chunks[name].append(pa.array(pending, pa.string()))
            pending.clear()
        self.flushed = self.rows

    def columns(self) -> dict[str, Any]:
        self.flush()
        made = {name: pa.chunked_array(chunks, pa.string()) for name, chunks in self.chunks.items()}
        return {name: _typed(column, self.kinds[name] - {"null"}) for name, column in made.items()}


def _as_text(value: object) -> tuple[str | None, str]:
    if value is None:
        return None, "null"
    if isinstance(value, str):
        return value, "text"
    if isinstance(value, bool):
        return ("true" if value else "false"), "bool"
    if isinstance(value, int):
        return str(value), "int"
    return (repr(value), "float") if isinstance(value, float) else (None, "nested")


def _typed(column: Any, kinds: set[str]) -> Any:
    """Text back to what it was, where all of a column was one kind."""
    try:
        if kinds == {"int"}:
            return pc.cast(column, pa.int64())
        if kinds and kinds <= {"int", "float"}:
            return pc.cast(column, pa.float64())
        if kinds == {"bool"}:
            return pc.cast(column, pa.bool_())
    except pa.ArrowException:
        return column  # whole numbers beyond 64 bits stay text
    return column


def _read_slowly(path: Path, start: int, ask: Ask) -> Sheet:
    findings = Findings()
    texts = _Texts(ask)
    for index, line in enumerate(_lines(path, start)):
        record = _record(line)
        if isinstance(record, dict):
            texts.add(cast("dict[str, object]", record), findings)
            if texts.rows % CHUNK == 0:
                _check_density(texts.rows, len(texts.kinds), path)
            continue
        shown = line[:80].decode(errors="replace").strip()
        wrong = "a record that is not valid JSON" if record is None else "a value that is not a record"
        findings.add(Finding("not_a_record", f"expected a JSON object, got {wrong}", index, value=shown))
        texts.add({}, findings)
        if findings.count >= MAX_LISTED:
            break
    findings.refuse(RECORDS)
    if texts.rows == 0:
        refuse("no_rows", "the file holds no records")
    _check_density(texts.rows, len(texts.kinds), path)
    columns = texts.columns()
    return Sheet(named(list(columns), list(columns.values())), texts.rows, RECORDS)


def _record(line: bytes) -> object:
    """The line's value; None when it is not JSON. Python's own NaN and Infinity are understood."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        if b"NaN" not in line and b"Infinity" not in line:
            return None
    try:
        return standard.loads(line)
    except (ValueError, RecursionError):
        return None


def _read_columns(path: Path, start: int, ask: Ask) -> Sheet:
    with path.open("rb") as file:
        file.seek(start)
        document = _record(file.read())
    if not isinstance(document, dict):
        refuse(
            "not_json", "the body is not valid JSON", "send an array of records or an object of equal-length columns"
        )
    lists = cast("dict[str, object]", document)
    if len(lists) > ask.max_columns:
        raise TooLarge(f"the object has {len(lists)} columns; at most {ask.max_columns} are read")
    columns: dict[str, Any] = {}
    height: int | None = None
    for name, values in lists.items():
        if not isinstance(values, list):
            refuse(
                "not_columns",
                f"expected a list of values for {name!r}, got {type(values).__name__}",
                "send an array of records or an object of equal-length columns",
                column=name,
            )
        listed = cast("list[object]", values)
        height = len(listed) if height is None else height
        if len(listed) != height:
            refuse("unequal_columns", f"expected {height} values in every column, got {len(listed)}", column=name)
        columns[name] = _column(name, listed)
    if not height:
        refuse("no_rows", "the file holds no records")
    return Sheet(named(list(columns), list(columns.values())), height, RECORDS)


def _column(name: str, values: list[object]) -> Any:
    kind = _arrow_kind({type(value) for value in values} - {type(None)})
    if kind is not None:
        try:
            return pa.chunked_array([pa.array(values, kind)])
        except (pa.ArrowException, OverflowError):
            pass
    texts = [_as_text(value) for value in values]
    for index, (_, seen) in enumerate(texts):
        if seen == "nested":
            refuse("nested_value", "expected a plain value, got a list or object", row=index + 1, column=name)
    column = pa.chunked_array([pa.array([text for text, _ in texts], pa.string())], pa.string())
    return _typed(column, {seen for _, seen in texts} - {"null"})
