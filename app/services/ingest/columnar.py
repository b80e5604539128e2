"""Parquet and Arrow IPC: typed columns, read in batches: what a file claims is not believed before it is there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.errors import TooLarge
from app.services.ingest.arrow import Column, is_text, pa, parquet, types
from app.services.ingest.sheet import RECORDS, Sheet, named, preview, refuse
from app.services.ingest.upload import Ask

BATCH = 1 << 17


def read_parquet(path: Path, ask: Ask) -> Sheet:
    """A Parquet file. Text comes dictionary-encoded: a key that is repeated costs four bytes a row."""
    try:
        with parquet.ParquetFile(str(path)) as file:
            schema = file.schema_arrow
            _check_width(len(schema), ask)
            if 8 * file.metadata.num_rows * len(schema) > ask.max_inflated_bytes:
                _too_large(ask)
        texts = [field.name for field in schema if is_text(field.type)]
        with parquet.ParquetFile(str(path), read_dictionary=texts, coerce_int96_timestamp_unit="us") as file:
            return _sheet(file.iter_batches(batch_size=BATCH), file.schema_arrow, ask)
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        refuse("unreadable", f"not a readable Parquet file: {preview(str(error))}")


def read_arrow(path: Path, ask: Ask) -> Sheet:
    """An Arrow IPC stream; the file form of the format is taken too."""
    try:
        with pa.OSFile(str(path)) as source:
            start = source.read(6)
            source.seek(0)
            if start == b"ARROW1":
                opened = pa.ipc.open_file(source)
                batches = (opened.get_batch(index) for index in range(opened.num_record_batches))
            else:
                opened = pa.ipc.open_stream(source)
                batches = iter(opened)
            _check_width(len(opened.schema), ask)
            return _sheet(batches, opened.schema, ask)
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        refuse("unreadable", f"not a readable Arrow stream: {preview(str(error))}")


def _check_width(width: int, ask: Ask) -> None:
    if width > ask.max_columns:
        raise TooLarge(f"the file has {width} columns; at most {ask.max_columns} are read")


def _too_large(ask: Ask) -> None:
    raise TooLarge(f"the file unpacks to more than {ask.max_inflated_bytes} bytes, the most this server accepts")


def _sheet(batches: Iterator[Any], schema: Any, ask: Ask) -> Sheet:
    held: list[Any] = []
    size = 0
    for batch in batches:
        # A column may say "a billion times the same" in a few bytes: what counts is what it becomes.
        size += max(batch.nbytes, 8 * batch.num_rows * len(schema))
        if size > ask.max_inflated_bytes:
            _too_large(ask)
        batch.validate(full=True)
        held.append(batch)
    table = pa.Table.from_batches(held, schema=held[0].schema if held else schema)
    if table.num_rows == 0:
        refuse("no_rows", "the file has columns and no rows" if len(schema) else "the file is empty")
    for field in table.schema:
        if types.is_nested(field.type):
            refuse("nested_value", f"expected plain values, got a column of {field.type}", column=field.name)
    columns = [_as_text(column, name) for name, column in zip(table.column_names, table.columns, strict=True)]
    return Sheet(named(table.column_names, columns), table.num_rows, RECORDS)


def _as_text(column: Column, name: str) -> Column:
    """Bytes as the text that older writers mean by them."""
    if not (types.is_binary(column.type) or types.is_large_binary(column.type)):
        return column
    try:
        return column.cast(pa.large_string())
    except pa.ArrowException:
        refuse("encoding", "expected UTF-8 text, got other bytes", column=name)
