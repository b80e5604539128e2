"""An Upload of which a part after the other can be had while the process that reads the file is still at it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from app.services.ingest.placing import KINDS, NONE, Place
from app.services.ingest.upload import Audit, Upload
from models import Calendar


class Retold(Exception):
    """Parts that were taken do not hold: the file is not what it looked like at first. The whole Upload holds."""


class Coming:
    """What is read of a file into `folder`. `told` are the letters that its reader says, `answer` waits for its end."""

    def __init__(self, folder: Path, told: Iterator[str], answer: Callable[[], Upload]) -> None:
        self._folder, self._told, self._answer = folder, told, answer
        self._whole: Upload | None = None

    def whole(self) -> Upload:
        """All of it, once it is there. Raises as `parse`."""
        if self._whole is None:
            self._whole = self._answer()
        return self._whole

    def parts(self) -> Iterator[tuple[int, Upload]]:
        """As those of `Upload`, each as soon as it is there; once. Raises Retold, and what `whole` raises."""
        series, turn = 0, ""
        with ExitStack() as stack:
            files: dict[str, BinaryIO] = {}
            for letter in self._told:
                if letter != turn:
                    if series:
                        raise Retold
                    turn = letter
                if letter == NONE:
                    continue
                try:
                    if not files:
                        place = Place(self._folder, turn)
                        files = {name: stack.enter_context(place.file(name).open("rb")) for name in (*KINDS, "series")}
                    part = _read(files)
                except (OSError, ValueError) as error:  # its reader has thought better of it
                    raise Retold from error
                for first, some in part.parts():
                    yield series + first, some
                series += len(part.keys)
        if not series:
            yield from self.whole().parts()
        elif len(self.whole().keys) != series:
            raise Retold


def _read(files: dict[str, BinaryIO]) -> Upload:
    """The next part. ValueError where it is not there whole."""
    facts = orjson.loads(files["series"].readline())
    offsets = np.concatenate(([0], np.cumsum(np.array(facts["lengths"], np.int64))))
    steps, values = (_mapped(files[name], kind, int(offsets[-1])) for name, kind in KINDS.items())
    calendar = Calendar.of(facts["frequency"], facts["time_zone"])
    phases = np.array(facts["phases"], np.int64)
    return Upload(calendar, facts["keys"], phases, offsets, steps, values, {}, {}, {}, Audit())


def _mapped(file: BinaryIO, kind: str, count: int) -> NDArray[Any]:
    """The next so many numbers of a file, as they lie in the system's memory: reading them would copy them to pages of
    our own, which takes longer than using them. ValueError where they are not there."""
    start = file.tell()
    found = np.asarray(np.memmap(file, kind, "r", start, (count,)))
    file.seek(start + found.nbytes)
    return found
