"""What stored sets take in the database, for bench/data.py: the pages it grows by, and the payloads alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from data_files import CSV, PARQUET
from data_rows import Server, best_zstd
from sqlalchemy import create_engine, text

RELATIONS = ("segments", "series")


def sizes(report: Any, server: Server, folder: Path) -> None:
    """A row for each set in the folder: its train part is uploaded, then read from the file to be packed by zstd."""
    whole = 0, 0, 0
    for place in sorted(each for each in folder.iterdir() if (each / "meta.json").exists()):
        path = next(place / name for name in ("train.parquet", "train.csv") if (place / name).exists())
        before = stored(server.database_url)
        with path.open("rb") as file:
            server.upload(place.name.replace("_", "-"), file, CSV if path.suffix == ".csv" else PARQUET)
        grown, payload = (now - was for now, was in zip(stored(server.database_url), before, strict=True))
        packed = best_zstd(_columns(path))
        whole = whole[0] + grown, whole[1] + payload, whole[2] + packed
        figure = f"{grown / 1024:,.0f} kB, payloads {payload / packed:.2f} of {packed / 1024:,.1f} kB"
        report.add(f"size, {place.name}: times zstd", figure, grown / packed)
    grown, payload, packed = whole
    figure = f"{grown / 1024:,.0f} kB, payloads {payload / packed:.2f} of {packed / 1024:,.1f} kB"
    report.add("size, all sets together: times zstd", figure, grown / packed, 1.2, up=False)


def _columns(path: Path) -> list[np.ndarray[Any, Any]]:
    """The values of each series in the order of time."""
    table = (pyarrow.csv.read_csv if path.suffix == ".csv" else pyarrow.parquet.read_table)(path)
    table = table.sort_by([("unique_id", "ascending"), ("ds", "ascending")])
    codes = np.asarray(table["unique_id"].combine_chunks().dictionary_encode().indices)
    values = np.asarray(table["y"].cast(pa.float64()), dtype="<f8")
    return np.split(values, np.flatnonzero(np.diff(codes)) + 1)


def stored(url: str) -> tuple[int, int]:
    """Bytes that series and segments take with their indexes, in pages in use, and bytes of payloads in them."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        payload = connection.scalar(text("select coalesce(sum(length(payload)), 0) from segments"))
        if engine.dialect.name == "sqlite":
            # Pages of nothing but these tables and their indexes: the write-ahead log and other tables are not in it.
            pages = "select sum(pgsize) from dbstat where name in (select name from sqlite_schema where tbl_name in {})"
            used = connection.scalar(text(pages.format(RELATIONS)))
        else:
            used = sum(connection.scalar(text(f"select pg_total_relation_size('{name}')")) for name in RELATIONS)
    engine.dispose()
    return int(used or 0), int(payload)
