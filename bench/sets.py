"""A data set on disk as series, read with Arrow alone: a process that trains here holds what a worker's would.

A folder holds train.parquet or train.csv, test.csv (unique_id, ds, y) and meta.json (freq, horizon, season_length)."""

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from models import Calendar, Series
from models.metrics import DECILES

Array = NDArray[np.float64]

pa.set_memory_pool(pa.system_memory_pool())  # its own keeps what it once held, which a worker's child has never read


@dataclass(frozen=True)
class DataSet:
    """One data set: `train` as series in the order of their keys, `test` (time in µs, value) of the rows after each."""

    name: str
    meta: dict[str, Any]
    calendar: Calendar
    train: list[Series]
    test: dict[str, tuple[NDArray[np.int64], Array]]

    @property
    def horizon(self) -> int:
        return int(self.meta["horizon"])


def read(folder: Path) -> DataSet:
    """The data set in `folder`; times that are left out of a series are missing values."""
    meta = json.loads((folder / "meta.json").read_text())
    calendar = Calendar.of(meta["freq"])
    series = []
    for key, times, values in _rows(folder, "train"):
        steps, phases = calendar.locate(times)
        target = np.full(int(steps[-1] - steps[0]) + 1, np.nan)
        target[steps - steps[0]] = values
        series.append(Series(key, target, int(steps[0]), int(phases[-1])))
    test = {key: (times, values) for key, times, values in _rows(folder, "test")}
    return DataSet(folder.resolve().name, meta, calendar, series, test)


def _rows(folder: Path, part: str) -> Iterator[tuple[str, NDArray[np.int64], Array]]:
    """Each series' key, times in µs, ascending, and values. Keys come as codes from the file and times are cast by
    numpy: Arrow's compute kernels alone are 50 MB of memory, which would count as the training's."""
    path = folder / f"{part}.parquet"
    if path.exists():
        with pa.parquet.ParquetFile(path, read_dictionary=["unique_id"]) as file:
            table = file.read(use_threads=False)
    else:
        kept = pa.csv.ConvertOptions(column_types={"unique_id": pa.dictionary(pa.int32(), pa.string())})
        table = pa.csv.read_csv(folder / f"{part}.csv", convert_options=kept)
    times = table["ds"].to_numpy().astype("datetime64[us]").astype(np.int64)
    keys = table["unique_id"].unify_dictionaries().chunks
    names = keys[0].dictionary.to_pylist()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in keys])
    values = table["y"].to_numpy().astype(np.float64)
    order = np.lexsort((times, codes))
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    for code in sorted(range(len(names)), key=names.__getitem__):
        rows = order[ends[code - 1] if code else 0 : ends[code]]
        yield names[code], times[rows], values[rows]


def write(path: Path, data: DataSet, quantiles: Array) -> None:
    """Decile forecasts (series, horizon, 9) of the test part, as scorers read them: a row for each of its times."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["unique_id", "ds", *(f"q{level:g}" for level in DECILES)])
        for one, levels in zip(data.train, quantiles, strict=True):
            times = data.test[one.key][0]
            steps = data.calendar.locate(times)[0] - one.origin - 1
            for time, step in zip(times.astype("datetime64[us]").astype("datetime64[s]"), steps, strict=True):
                writer.writerow([one.key, time, *levels[step]])


def digest(folder: Path) -> str:
    """A short name for what the folder holds."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.*")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]
