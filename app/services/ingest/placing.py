"""Series in order are put on the calendar and written down, a part at a time; whoever wants to may read along."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from app.services.ingest.blocks import Odd
from app.services.ingest.grid import Ints, allowed_spans
from app.services.ingest.sheet import Case
from app.services.ingest.upload import Audit, Upload
from models import Calendar

ENOUGH = 8  # steps of a series from which on it shows how long its own are; as where a frequency is told
NONE = "0"  # told where no part counts that was told before
KINDS = {"steps": "<i8", "values": "<f8"}

Floats = NDArray[np.float64]
Tell = Callable[[str], None]


class Later:
    """Arrays written by another thread while the next ones are made. One lot waits at most."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writing")
        self._waiting: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._settle()
        finally:
            self._thread.shutdown()

    def write(self, *lot: tuple[BinaryIO, NDArray[Any]], then: Callable[[], None] | None = None) -> None:
        """Append each array to its file, `then` do the rest. Raises what the lot before has raised."""
        self._settle()
        self._waiting = self._thread.submit(_write, lot, then)

    def _settle(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.result()


def _write(lot: Sequence[tuple[BinaryIO, NDArray[Any]]], then: Callable[[], None] | None) -> None:
    for file, array in lot:
        array.tofile(file)
    if then is not None:
        then()


@dataclass(frozen=True)
class Place:
    """Where parts are written, and who is told of each: files in `folder` whose names end in `turn`, a letter that is
    also what `tell` is given. A second turn must not be taken for the first."""

    folder: Path
    turn: str
    tell: Tell | None = None

    def file(self, name: str) -> Path:
        return self.folder / f"{name}-{self.turn}.part"

    def clear(self) -> None:
        """Drop what was written: it does not hold."""
        for name in (*KINDS, "series"):
            self.file(name).unlink(missing_ok=True)


class Placing:
    """Takes the series of a file in the order of keys; what it was given is in three files: steps and values of all
    rows, and a line for each part with the keys, phases and lengths of its series."""

    def __init__(self, place: Place, calendar: Calendar, case: Case, sampled: bool) -> None:
        """`sampled`: the frequency was told from some of the rows, so the others must bear it out."""
        self.calendar = calendar
        self.ends = [0]  # (parts + 1,) rows
        self._place, self._case, self._sampled = place, case, sampled
        self.keys: list[str] = []
        self._phases: list[Ints] = []
        self._lengths: list[Ints] = []
        self._later = Later()
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> Self:
        self._files = {name: self._place.file(name).open("wb", buffering=0) for name in (*KINDS, "series")}
        return self

    def __exit__(self, *why: Any) -> None:
        try:
            self._later.__exit__(*why)
        finally:
            for file in self._files.values():
                file.close()

    def add(self, keys: list[str], lengths: Ints, times: Ints, values: Floats) -> None:
        """The next series, of so many rows each; times and values (rows,) in any order within a series. Raises Odd."""
        steps, own = self.calendar.locate(times)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        apart = _apart(steps, offsets)
        if apart.min() < 1:
            order = np.lexsort((times, _codes(lengths)))
            values, steps, own = values[order], steps[order], own[order]
            apart = _apart(steps, offsets)
        if apart.min() < 1 or (self._sampled and _are_long(apart, offsets)):
            raise Odd
        phases = self._settled(keys, lengths, steps, own)
        common = int(phases[0])
        expected = common if (phases == common).all() else np.repeat(phases, lengths)
        if not self.calendar.on_grid(steps, own, expected).all():
            raise Odd
        if (steps[offsets[1:] - 1] - steps[offsets[:-1]] + 1 > allowed_spans(offsets, self._case.ask)).any():
            raise Odd
        self.keys += keys
        self._phases.append(phases)
        self._lengths.append(lengths)
        self.ends.append(self.ends[-1] + len(steps))
        line = self._line(keys, phases, lengths)
        self._later.write((self._files["steps"], steps), (self._files["values"], values), then=lambda: self._say(line))

    def _settled(self, keys: list[str], lengths: Ints, steps: Ints, own: Ints) -> Ints:
        """The phases of the series, (series,)."""
        if (own == own[0]).all():
            mine = np.full(len(keys), own[0])
        else:
            mine = self.calendar.settle(_codes(lengths), own, steps)
        stored = self._case.known.phases
        if not stored:
            return mine
        return np.array([stored.get(key, phase) for key, phase in zip(keys, mine.tolist(), strict=True)], np.int64)

    def _line(self, keys: list[str], phases: Ints, lengths: Ints) -> bytes:
        facts = {
            "frequency": self.calendar.frequency.name,
            "time_zone": self.calendar.time_zone,
            "keys": keys,
            "phases": phases.tolist(),
            "lengths": lengths.tolist(),
        }
        return orjson.dumps(facts) + b"\n"

    def _say(self, line: bytes) -> None:
        self._files["series"].write(line)
        if self._place.tell is not None:
            self._place.tell(self._place.turn)

    def upload(self, columns: dict[str, object]) -> Upload:
        """All that was added, once this is left."""
        offsets = np.concatenate(([0], np.cumsum(np.concatenate(self._lengths))))
        phases = np.concatenate(self._phases)
        steps, values = (np.memmap(self._place.file(name), kind, "r") for name, kind in KINDS.items())
        return Upload(self.calendar, self.keys, phases, offsets, steps, values, {}, {}, columns, Audit())


def _codes(lengths: Ints) -> Ints:
    return np.repeat(np.arange(len(lengths)), lengths)


def _apart(steps: Ints, offsets: Ints) -> Ints:
    """How far each row is from the one before, (rows,); the first of a series is far from everything."""
    apart = np.empty_like(steps)
    np.subtract(steps[1:], steps[:-1], out=apart[1:])
    apart[offsets[:-1]] = 2
    return apart


def _are_long(apart: Ints, offsets: Ints) -> bool:
    """Whether a series has only steps longer than one, where the frequency was told from others."""
    ones = np.logical_or.reduceat(apart == 1, offsets[:-1])
    return bool((~ones & (np.diff(offsets) > ENOUGH)).any())
