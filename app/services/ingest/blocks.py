"""A long file of key, time and value read block by block: (rows,) arrays of each block, never all of the file at once.

Clean files alone. Whatever is odd raises Odd, and the reader of whole files judges it, so that a refusal is said in one
place only.
"""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.services.ingest.arrow import Column, csv, is_text, pa, parquet, pc, types
from app.services.ingest.columns import SAMPLE, Roles, choose_roles, tidy
from app.services.ingest.delimited import shape_of
from app.services.ingest.figures import SPELLINGS, read_numbers
from app.services.ingest.grid import to_utc, wanted_frequency, with_zone_of
from app.services.ingest.growing import Growing
from app.services.ingest.keys import key_problem
from app.services.ingest.sheet import RECORDS, Case, Sheet, named
from app.services.ingest.stamps import read_times
from app.services.ingest.text import Scan
from app.services.ingest.upload import ARROW, CSV, PARQUET, Ask, Known

HEAD = 1 << 20  # bytes of a CSV file from which its columns are told
TEXT = 4 << 20  # bytes of it read at a time
BATCH = 1 << 17  # rows of a binary file read at a time
MANY = 8  # times as many keys as a block has: looking all of them up at once costs more than one by one
STREAMED = (CSV, PARQUET, ARROW)


class Odd(Exception):
    """Something that only the reader of whole files can judge."""


class Block(NamedTuple):
    """Rows as they come: key codes in the order of first sight, UTC µs, values with NaN for missing."""

    codes: NDArray[np.int32]
    times: NDArray[np.int64]
    values: NDArray[np.float64]


class Names:
    """Keys by code; a file's dictionary may hold some that no row has."""

    def __init__(self, limit: int) -> None:
        self.keys: list[str] = []
        self._limit = limit
        self._code_of: dict[str, int] = {}
        self._last: tuple[Any, NDArray[np.int32]] | None = None
        self._known: Any = ()  # the first of the keys as an Arrow array

    def codes(self, column: Column) -> NDArray[np.int32]:
        """(rows,) codes of a column of text, or of whole numbers, whose text is the key."""
        if not types.is_dictionary(column.type):
            column = column.dictionary_encode()
        found = [self._of(chunk) for chunk in column.chunks]
        return np.concatenate(found) if len(found) != 1 else found[0]

    def _of(self, chunk: Any) -> NDArray[np.int32]:
        if chunk.null_count or not (is_text(chunk.type) or types.is_integer(chunk.type.value_type)):
            raise Odd
        if self._last is None or not chunk.dictionary.equals(self._last[0]):
            self._last = chunk.dictionary, self._codes(chunk.dictionary)
        codes, places = self._last[1], np.asarray(chunk.indices)
        if places.dtype == codes.dtype and (codes[1:] - codes[:-1] == 1).all():
            return places + codes[:1]  # as where the keys come in their order; a tenth of looking each up
        return codes[places]

    def _codes(self, dictionary: Any) -> NDArray[np.int32]:
        """(values,) codes of a dictionary: each block has one of its own."""
        texts = dictionary.cast(pa.string())
        if texts.null_count:
            raise Odd
        if not self.keys or MANY * len(texts) < len(self.keys):
            return np.array([self._code(key) for key in texts.to_pylist()], np.int32)
        # Where rows are sorted by time, each block has nearly all keys again.
        if len(self._known) < len(self.keys):
            self._known = pa.array(self.keys, pa.string())
        found = pc.index_in(texts, value_set=self._known).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        new = np.flatnonzero(found < 0)
        found[new] = [self._code(key) for key in texts.take(pa.array(new)).to_pylist()]
        return found

    def _code(self, key: str) -> int:
        code = self._code_of.setdefault(key, len(self.keys))
        if code == len(self.keys):
            if key_problem(key):
                raise Odd
            self.keys.append(key)
        return code


@dataclass(frozen=True)
class Source:
    """An opened file: its columns by role, and tables of them, a block at a time."""

    roles: Roles
    case: Case
    tables: Iterator[Any]

    def blocks(self, names: Names) -> Iterator[Block]:
        """Every block as arrays. Raises Odd."""
        for table in self.tables:
            codes = names.codes(table[self.roles.id]) if self.roles.id else np.zeros(table.num_rows, np.int32)
            column = table[self.roles.time]
            if not (types.is_timestamp(column.type) or types.is_date(column.type)):
                raise Odd
            findings = self.case.findings
            times = read_times(column, self.roles.time, findings, None)
            values = read_numbers(table[self.roles.target], self.roles.target, findings)
            utc = times.values if findings.count else to_utc(times, codes.astype(np.int64), self.roles.time, self.case)
            # An hour shown twice is told by rows that another block may hold.
            if findings.count or self.case.warnings.count:
                raise Odd
            yield Block(codes, utc, values)


@contextmanager
def opened(path: Path, ask: Ask, known: Known) -> Generator[Source]:
    """The file at `path`. Raises Odd, or whatever a broken file makes its reader raise."""
    kind = ask.media_type.partition(";")[0].strip().lower()
    if kind == CSV:
        length = path.stat().st_size if ask.length is None else ask.length
        with Growing(path, length) as file, ThreadPoolExecutor(1, "reading") as thread:
            source = _csv(path, file, ask, known)
            yield replace(source, tables=_ahead(thread, source.tables))
    elif kind == PARQUET:
        with parquet.ParquetFile(str(path)) as file:
            schema = file.schema_arrow
            if 8 * file.metadata.num_rows * len(schema) > ask.max_inflated_bytes:
                raise Odd
        texts = [field.name for field in schema if is_text(field.type)]
        with (
            parquet.ParquetFile(str(path), read_dictionary=texts, coerce_int96_timestamp_unit="us") as file,
            ThreadPoolExecutor(1, "reading") as thread,
        ):
            # One thread that reads ahead takes less than Arrow's, which all wait for each other at each batch.
            source = _typed(file.schema_arrow, file.iter_batches(batch_size=BATCH, use_threads=False), ask, known)
            yield replace(source, tables=_ahead(thread, source.tables))
    else:
        with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as stream:
            yield _typed(stream.schema, iter(stream), ask, known)


def _ahead(thread: ThreadPoolExecutor, tables: Iterator[Any]) -> Iterator[Any]:
    """The tables, each read by the thread while the one before is looked at."""
    waiting = thread.submit(next, tables, None)
    while (table := waiting.result()) is not None:
        waiting = thread.submit(next, tables, None)
        yield table


def _roles(sheet: Sheet, ask: Ask, known: Known) -> tuple[Roles, Case]:
    case = Case(ask, known, RECORDS)
    width = len(sheet.columns)
    tidy(sheet, case.warnings)
    roles = choose_roles(sheet, ask, known)
    if roles.extras or len(sheet.columns) < width:
        raise Odd
    wanted_frequency(ask, known)
    return roles, case


def _csv(path: Path, source: Any, ask: Ask, known: Known) -> Source:
    """The file at `path`, whose rows are read from `source`."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    whole = len(head) < HEAD
    start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    shape = shape_of(path, Scan(start, 0, False, False), ask)
    if not whole:
        head = head[: head.rfind(b"\n") + 1]
    _check_text(head)  # with the header in it, or there is no row to tell the columns from
    columns = [str(place) for place in range(len(shape.names))]
    lines = {"column_names": columns, "skip_rows_after_names": shape.header_lines}
    split = csv.ParseOptions(delimiter=shape.delimiter)
    texts = csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()))
    first = csv.read_csv(
        BytesIO(head), read_options=csv.ReadOptions(**lines), parse_options=split, convert_options=texts
    )
    if first.num_rows < SAMPLE and not whole:
        raise Odd
    sheet = Sheet(named(shape.names, first.columns, shape.header_lines), first.num_rows, RECORDS, shape.delimiter)
    place_of = {name: str(place) for place, name in enumerate(sheet.columns)}
    times = dict(sheet.columns)
    roles, case = _roles(sheet, ask, known)
    kinds = {place_of[roles.time]: _time_type(times[roles.time]), place_of[roles.target]: pa.float64()}
    if roles.id:
        kinds[place_of[roles.id]] = pa.dictionary(pa.int32(), pa.string())
    typed = csv.ConvertOptions(column_types=kinds, null_values=SPELLINGS, strings_can_be_null=False)
    options = csv.ReadOptions(**lines, block_size=TEXT)
    reader = csv.open_csv(source, read_options=options, parse_options=split, convert_options=typed)
    names = list(place_of)
    return Source(roles, case, (pa.Table.from_batches([batch]).rename_columns(names) for batch in reader))


def _check_text(head: bytes) -> None:
    """Raises Odd unless the bytes are text. Arrow checks the rows behind the header; the names nobody else does."""
    try:
        odd = "\0" in head.decode()
    except UnicodeDecodeError as error:
        raise Odd from error
    if odd:
        raise Odd


def _time_type(column: Column) -> Any:
    """The type by which Arrow reads a column of texts as times: all local, or all with an offset."""
    for zone in (None, "UTC"):
        try:
            pc.cast(column, pa.timestamp("us", zone))
        except pa.ArrowException:
            continue
        return pa.timestamp("us", zone)
    raise Odd


def _typed(schema: Any, batches: Iterator[Any], ask: Ask, known: Known) -> Source:
    if len(schema) > ask.max_columns or any(types.is_nested(field.type) for field in schema):
        raise Odd
    first = next(batches, None)
    if first is None:
        raise Odd
    sheet = Sheet(named(schema.names, pa.Table.from_batches([first]).columns), first.num_rows, RECORDS)
    columns = dict(sheet.columns)
    names = list(columns)
    roles, case = _roles(sheet, ask, known)
    case.known = with_zone_of(columns[roles.time], case.known)

    def tables() -> Iterator[Any]:
        size = 0
        for batch in chain([first], batches):
            # As where the file is read whole: what counts is what a batch becomes.
            size += max(batch.nbytes, 8 * batch.num_rows * len(schema))
            if size > ask.max_inflated_bytes:
                raise Odd
            yield _checked(batch, names)

    return Source(roles, case, tables())


def _checked(batch: Any, names: list[str]) -> Any:
    batch.validate(full=True)
    return pa.Table.from_batches([batch]).rename_columns(names)
