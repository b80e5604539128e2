"""How a segment's values become bytes and back, bit for bit: the smallest of four ways.

Most series hold decimals of a few digits. Those are whole numbers once multiplied by a power of ten; a byte or two hold
each, and zstd packs these smaller and faster than the floats themselves. What is not such a number is packed as it is,
its bytes grouped by their place in the float or not.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Bytes grouped by their place in the float, then zstd; zstd alone; whole numbers by a power of ten, grouped, then zstd;
# the bytes as they are.
SHUFFLED, PLAIN, DECIMAL, RAW = 1, 2, 3, 4
SHORT = 4  # values; fewer are kept as they are
LEVEL = 3  # of zstd: higher costs much more and gains little
CACHED = 1 << 16  # values looked at together
DIGITS = 6  # most decimal places looked for
_LARGEST = 2**52
_NAN = 0x7FF8000000000000  # the one NaN that a decimal can stand for
_DIFFERENCES = 0x10

TYPES = {width: np.dtype(f"<u{width}") for width in (1, 2, 4)}  # by the bytes of a number

_local = threading.local()


def encode(values: Floats) -> tuple[int, bytes]:
    """(codec, payload) of (time,) float64."""
    return encode_all([values])[0]


def encode_all(parts: Sequence[Floats]) -> list[tuple[int, bytes]]:
    """(codec, payload) of each of many (time,) arrays: what they have in common is worked out for all at once."""
    found: list[tuple[int, bytes] | None] = [None] * len(parts)
    long: list[int] = []
    for place, part in enumerate(parts):
        if len(part) < SHORT:
            found[place] = RAW, np.ascontiguousarray(part, "<f8").tobytes()
        else:
            long.append(place)
    for exponent in range(DIGITS + 1):
        likely = [place for place in long if _is_decimal(parts[place][:SHORT], exponent)]
        for some in _groups(likely, parts):
            for place, payload in zip(some, _decimals([parts[place] for place in some], exponent), strict=True):
                found[place] = None if payload is None else (DECIMAL, payload)
        long = [place for place in long if found[place] is None]
    for place in long:
        found[place] = _floats(parts[place])
    return [each for each in found if each is not None]


def _groups(places: Sequence[int], parts: Sequence[Floats]) -> Iterator[list[int]]:
    """The places in groups of arrays that together stay in the processor's cache."""
    group: list[int] = []
    count = 0
    for place in places:
        group.append(place)
        count += len(parts[place])
        if count >= CACHED:
            yield group
            group, count = [], 0
    if group:
        yield group


def decode(codec: int, payload: bytes, length: int) -> Floats:
    """The (length,) values behind a payload, writable. Raises ValueError on a codec or a length that does not fit."""
    if codec == DECIMAL:
        return _undecimal(payload, length)
    if codec not in (SHUFFLED, PLAIN, RAW):
        raise ValueError(f"codec: expected {SHUFFLED} to {RAW}, got {codec}")
    raw = np.frombuffer(payload if codec == RAW else _unpacked(payload, length * 8), dtype=np.uint8)
    _check(len(raw), length * 8)
    if codec == SHUFFLED:
        raw = raw.reshape(8, -1).T  # (byte, time) -> (time, byte)
    return raw.copy().reshape(-1).view("<f8").astype(np.float64, copy=False)


# ---------------------------------------------------------------- floats


def _floats(values: Floats) -> tuple[int, bytes]:
    raw = np.ascontiguousarray(values, dtype="<f8")
    packer = _packer()
    plain = packer.compress(raw.tobytes())
    shuffled = packer.compress(raw.view(np.uint8).reshape(-1, 8).T.tobytes())  # (time, byte) -> (byte, time)
    return (SHUFFLED, shuffled) if len(shuffled) < len(plain) else (PLAIN, plain)


# ---------------------------------------------------------------- decimals


def _is_decimal(values: Floats, exponent: int) -> bool:
    """Whether a few values are decimals of so many places, to spare the others a look; the same rule as for many."""
    scale = 10.0**exponent
    for value in values.tolist():
        if value == value and not (abs(value) * scale < _LARGEST and round(value * scale) / scale == value):  # noqa: PLR0124
            return False
    return True


class _Whole(NamedTuple):
    """Arrays end to end as whole numbers, missing ones as 0; `starts` of the arrays, and of each its facts."""

    numbers: Ints
    missing: Bools
    starts: Ints
    good: Bools  # (arrays,) whether all of it is such numbers
    holed: Bools  # (arrays,) whether any value is missing
    low: Ints
    high: Ints


def _whole(parts: Sequence[Floats], exponent: int) -> _Whole:
    flat = np.concatenate(parts)
    scale = 10.0**exponent
    starts = np.concatenate(([0], np.cumsum([len(part) for part in parts])[:-1])).astype(np.int64)
    missing = np.isnan(flat)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.rint(flat * scale)
        fits = (rounded / scale == flat) & (np.abs(rounded) < _LARGEST)
    fits &= ~((flat == 0) & np.signbit(flat))
    if missing.any():
        fits[missing] = flat[missing].view(np.int64) == _NAN
        rounded[missing] = 0
    good = np.logical_and.reduceat(fits, starts)
    rounded[~fits] = 0
    numbers = rounded.astype(np.int64)
    holed = np.logical_or.reduceat(missing, starts)
    return _Whole(
        numbers,
        missing,
        starts,
        good,
        holed,
        np.minimum.reduceat(numbers, starts),
        np.maximum.reduceat(numbers, starts),
    )


def _decimals(parts: Sequence[Floats], exponent: int) -> list[bytes | None]:
    """The payload of each array of decimals with so many places; None where it holds something else, or would need
    more than four bytes a value.

    Ten to the `exponent`, bytes a number, the smallest one; then either the numbers less that or, where these are
    smaller, the differences from one to the next less the smallest of them. The largest that fits means missing.
    """
    whole = _whole(parts, exponent)
    starts = whole.starts
    steps = np.diff(whole.numbers, prepend=0)
    # The first number of each array is kept beside its differences.
    steps[starts] = steps[np.minimum(starts + 1, len(steps) - 1)]
    least, most = np.minimum.reduceat(steps, starts), np.maximum.reduceat(steps, starts)
    differ = ~whole.holed & (most - least < (whole.high - whole.low) // 2)
    low, high = np.where(differ, least, whole.low), np.where(differ, most, whole.high)
    facts = zip(
        starts.tolist(),
        [*starts[1:].tolist(), len(steps)],
        low.tolist(),
        (high - low).tolist(),
        differ.tolist(),
        whole.good.tolist(),
        whole.holed.tolist(),
        whole.numbers[starts].tolist(),
        strict=True,
    )
    packer = _packer()
    made: list[bytes | None] = []
    for start, stop, least_of, reach, by, good, holed, first in facts:
        width = _width(reach)
        if not good or not width:
            made.append(None)
            continue
        kind = TYPES[width]
        numbers = ((steps if by else whole.numbers)[start:stop] - least_of).astype(kind)
        if holed:
            numbers[whole.missing[start:stop]] = np.iinfo(kind).max
        planes = numbers.view(np.uint8).reshape(-1, width).T  # (time, byte) -> (byte, time)
        header = _header(exponent | (_DIFFERENCES if by else 0), width, least_of, first if by else 0)
        made.append(header + packer.compress(planes.tobytes()))
    return made


def _width(reach: int) -> int:
    """Bytes that hold so many numbers and one more, which means missing; 0 where four do not."""
    return next((width for width in TYPES if reach < 256**width - 1), 0)


def _header(kind: int, width: int, *numbers: int) -> bytes:
    size = max((number.bit_length() + 8) // 8 for number in numbers)
    return bytes([kind, width << 4 | size]) + b"".join(
        number.to_bytes(size, "little", signed=True) for number in numbers
    )


def _undecimal(payload: bytes, length: int) -> Floats:
    kind, sizes = payload[0], payload[1]
    width, size = sizes >> 4, sizes & 15
    low, first = (int.from_bytes(payload[at : at + size], "little", signed=True) for at in (2, 2 + size))
    packed = _unpacked(payload[2 + 2 * size :], length * width)
    _check(len(packed), length * width)
    raw = np.frombuffer(packed, np.uint8).reshape(width, -1)
    numbers = np.ascontiguousarray(raw.T).view(TYPES[width]).reshape(-1)
    if kind & _DIFFERENCES:
        steps = numbers.astype(np.int64)
        steps += low
        steps[0] = first
        values = np.cumsum(steps).astype(np.float64)
    else:
        values = numbers.astype(np.float64)
        missing = numbers == np.iinfo(numbers.dtype).max
        values += low
        if missing.any():
            values[missing] = np.nan
    exponent = kind & ~_DIFFERENCES
    if exponent:
        values /= 10.0**exponent
    return values


# ---------------------------------------------------------------- zstd


def _check(got: int, expected: int) -> None:
    if got != expected:
        raise ValueError(f"payload: expected {expected} bytes, got {got}")


def _packer() -> zstandard.ZstdCompressor:
    """This thread's compressor: making one costs more than a small segment."""
    if not hasattr(_local, "packer"):
        _local.packer = zstandard.ZstdCompressor(level=LEVEL)
    return _local.packer


def _unpacked(payload: bytes, most: int) -> bytes:
    if not hasattr(_local, "unpacker"):
        _local.unpacker = zstandard.ZstdDecompressor()
    return _local.unpacker.decompress(payload, max_output_size=most)
