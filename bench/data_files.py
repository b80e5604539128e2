"""What bench/data.py sends: hourly series of two decimals as CSV and Parquet, the same points in every file."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
HOUR = 3_600_000_000
BEGIN = 1_704_067_200_000_000  # 2024-01-01T00:00:00Z in µs
CHUNK = 1_000_000
PEER = """
import sys, time, pandas
path, repeats = sys.argv[1], int(sys.argv[2])
for _ in range(repeats):
    began = time.perf_counter()
    frame = pandas.read_csv(path, parse_dates=["ds"]) if path.endswith(".csv") else pandas.read_parquet(path)
    print(time.perf_counter() - began, len(frame), flush=True)
    del frame
"""


@dataclass(frozen=True)
class Shape:
    """So many series of so many hours."""

    series: int
    steps: int

    @property
    def points(self) -> int:
        return self.series * self.steps

    def key(self, place: int) -> str:
        return f"series-{place:07d}"

    def values(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """(series, steps) of the series from `start` to `stop`: a day, a level of their own, noise; two decimals."""
        steps = np.arange(self.steps)
        made = np.empty((stop - start, self.steps))
        for row, place in enumerate(range(start, stop)):
            random = np.random.default_rng(place)
            level = 50 + 400 * random.random()
            shape = level * (1 + 0.3 * np.sin(2 * np.pi * (steps + place) / 24))
            made[row] = np.round(shape + random.normal(0, 0.05 * level, self.steps), 2)
        return made


def tables(shape: Shape, by_time: bool = False) -> Any:
    """The points as tables of about a million rows: sorted by series, or by time."""
    keys = pa.array([shape.key(place) for place in range(shape.series)])
    if by_time:
        values = shape.values(0, shape.series)
        width = max(1, CHUNK // shape.series)
        for start in range(0, shape.steps, width):
            stop = min(start + width, shape.steps)
            codes = np.tile(np.arange(shape.series), stop - start)
            steps = np.repeat(np.arange(start, stop), shape.series)
            yield _table(keys, codes, steps, values[:, start:stop].T.reshape(-1))
        return
    width = max(1, CHUNK // shape.steps)
    for start in range(0, shape.series, width):
        stop = min(start + width, shape.series)
        codes = np.repeat(np.arange(start, stop), shape.steps)
        steps = np.tile(np.arange(shape.steps), stop - start)
        yield _table(keys, codes, steps, shape.values(start, stop).reshape(-1))


def _table(keys: Any, codes: Any, steps: Any, values: Any) -> Any:
    times = pa.array(BEGIN + HOUR * steps).cast(pa.timestamp("us")).cast(pa.timestamp("s"))
    return pa.table({"unique_id": keys.take(pa.array(codes)), "ds": times, "y": values})


def write(shape: Shape, path: Path, by_time: bool = False) -> Path:
    """The file at `path`, CSV or Parquet by its name."""
    writer: Any = None
    for table in tables(shape, by_time):
        if writer is None and path.suffix == ".csv":
            plain = pyarrow.csv.WriteOptions(quoting_style="none", quoting_header="none")
            writer = pyarrow.csv.CSVWriter(str(path), table.schema, write_options=plain)
        elif writer is None:
            writer = pyarrow.parquet.ParquetWriter(str(path), table.schema)
        writer.write_table(table)
    writer.close()
    return path


def pandas_seconds(path: Path, repeats: int) -> float:
    """The best time in which pandas alone reads the file, in a process of its own."""
    ask = [sys.executable, "-c", PEER, str(path), str(repeats)]
    done = subprocess.run(ask, check=True, capture_output=True, text=True)
    return min(float(line.split()[0]) for line in done.stdout.splitlines())
