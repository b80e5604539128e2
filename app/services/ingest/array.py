"""A JSON array of records made into lines, a block at a time, without building a Python object for any of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.services.ingest.sheet import refuse

BLOCK = 4 << 20
_QUOTE, _ESCAPE, _COMMA, _SPACE, _NEWLINE = (ord(c) for c in '"\\, \n')
_CHANGE = np.zeros(256, np.int8)
for _opening, _closing in ("[]", "{}"):
    _CHANGE[ord(_opening)] = 1
    _CHANGE[ord(_closing)] = -1
_BLANK = np.zeros(256, np.bool_)
_BLANK[[9, 10, 13, 32]] = True
_START, _BEGIN, _OPEN, _CLOSE, _SEPARATE, _END, _OTHER = range(7)
_FOLLOWS = np.zeros((7, 7), np.bool_)
for _first, _next in (
    (_START, _BEGIN),
    (_BEGIN, _OPEN),
    (_BEGIN, _END),
    (_OPEN, _CLOSE),
    (_CLOSE, _SEPARATE),
    (_CLOSE, _END),
    (_SEPARATE, _OPEN),
):
    _FOLLOWS[_first, _next] = True


@dataclass
class _State:
    """What one block leaves for the next: inside a string, after an odd run of backslashes, depth, the last mark."""

    quoted: bool = False
    escaped: bool = False
    depth: int = 0
    last: int = _START
    records: int = 0


def split_array(path: Path, start: int, target: Path, size: int = BLOCK) -> int:
    """Write each record of the array in `path` as one line of `target` and count them: the array's own brackets go, its
    commas become line breaks, and line breaks between values spaces. Invalid where the elements are not objects with
    commas between them.
    """
    state = _State()
    with path.open("rb") as source, target.open("wb") as file:
        source.seek(start)
        while block := source.read(size):
            file.write(_split(np.frombuffer(block, np.uint8).copy(), state).tobytes())
        file.write(b"\n")
    if state.last != _END:
        refuse("not_json", f"the JSON array ends in the middle, after {state.records} records")
    return state.records


def _split(text: NDArray[np.uint8], state: _State) -> NDArray[np.uint8]:
    """One block, changed in place: (bytes,) to (bytes,)."""
    quotes = np.flatnonzero(text == _QUOTE)
    escapes = _odd_runs(text, state)
    if escapes is not None:
        quotes = quotes[~escapes[quotes]]
    flips = np.zeros(len(text), np.int8)
    flips[quotes] = 1
    inside = (np.cumsum(flips, dtype=np.int32) + state.quoted) % 2 == 1
    state.quoted = bool(inside[-1])
    inside |= flips.astype(bool)  # both quotes of a string count as inside
    change = np.where(inside, 0, _CHANGE[text])
    depth = np.cumsum(change, dtype=np.int32) + state.depth
    before = depth - change
    top = np.flatnonzero((np.minimum(depth, before) <= 1) & ~(_BLANK[text] & ~inside))
    _check(text, change, before, top, state)
    state.depth = int(depth[-1])
    outer = (change != 0) & (np.minimum(depth, before) == 0)
    text[_BLANK[text] & ~inside] = _SPACE
    text[(text == _COMMA) & (depth == 1) & ~inside] = _NEWLINE
    text[outer] = _SPACE
    return text


def _odd_runs(text: NDArray[np.uint8], state: _State) -> NDArray[np.bool_] | None:
    """Which bytes follow an odd run of backslashes; None when none does."""
    slashes = text == _ESCAPE
    if not slashes.any() and not state.escaped:
        return None
    places = np.arange(len(text))
    plain = np.maximum.accumulate(np.where(slashes, -1, places))
    # A run that began in the block before counts from one byte earlier when that left an odd number of them.
    run = np.where(plain < 0, places + 1 + state.escaped, places - plain)
    odd = (run % 2 == 1) & slashes
    escaped = np.empty(len(text), np.bool_)
    escaped[0] = state.escaped
    escaped[1:] = odd[:-1]
    state.escaped = bool(odd[-1])
    return escaped


def _check(
    text: NDArray[np.uint8],
    change: NDArray[np.int8],
    before: NDArray[np.int32],
    top: NDArray[np.int64],
    state: _State,
) -> None:
    """The marks at the array's own level must go: array begins, record opens, closes, comma, opens, …, array ends."""
    byte, turn, level = text[top], change[top], before[top]
    marks = np.full(len(top), _OTHER, np.int8)
    marks[(turn > 0) & (level == 0) & (byte == ord("["))] = _BEGIN
    marks[(turn > 0) & (level == 1) & (byte == ord("{"))] = _OPEN
    marks[(turn < 0) & (level == 2)] = _CLOSE
    marks[(turn == 0) & (level == 1) & (byte == _COMMA)] = _SEPARATE
    marks[(turn < 0) & (level == 1) & (byte == ord("]"))] = _END
    chain = np.concatenate([[state.last], marks])
    broken = np.flatnonzero(~_FOLLOWS[chain[:-1], chain[1:]])
    if len(broken):
        state.records += int(np.count_nonzero(marks[: broken[0]] == _OPEN))
        record = max(state.records, 1)
        refuse(
            "not_json",
            f"the JSON array is broken at or after record {record}: expected objects with one comma between them",
            row=record,
        )
    state.records += int(np.count_nonzero(marks == _OPEN))
    state.last = int(chain[-1])
