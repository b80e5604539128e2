"""How a segment's values become bytes and back, bit for bit: the smallest of four ways.

Most series hold decimals of a few digits. Those are whole numbers once multiplied by a power of ten; a byte or two hold
each, and zstd packs these smaller and faster than the floats themselves. What is not such a number is packed as it is,
its bytes grouped by their place in the float or not.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Numbers = NDArray[np.signedinteger[Any]]

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
    lengths = [len(part) for part in parts]
    for place, part in enumerate(parts):
        if len(part) < SHORT:
            found[place] = RAW, np.ascontiguousarray(part, "<f8").tobytes()
        else:
            long.append(place)
    if not long:
        return [each for each in found if each is not None]
    left = np.array(long, np.int64)
    heads = np.concatenate([np.empty(0), *(parts[place][:SHORT] for place in long)]).reshape(-1, SHORT)
    for exponent in range(DIGITS + 1):
        if not len(left):
            break
        likely = _likely(heads, exponent)
        for some in _groups(left[likely].tolist(), lengths):
            for place, payload in zip(some, _decimals([parts[place] for place in some], exponent), strict=True):
                found[place] = None if payload is None else (DECIMAL, payload)
        likely[likely] = [found[place] is not None for place in left[likely].tolist()]
        left, heads = left[~likely], heads[~likely]
    rest: list[int] = left.tolist()
    for place in rest:
        found[place] = _floats(parts[place])
    return [each for each in found if each is not None]


def _groups(places: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """The places in groups of arrays that together stay in the processor's cache."""
    group: list[int] = []
    count = 0
    for place in places:
        group.append(place)
        count += lengths[place]
        if count >= CACHED:
            yield group
            group, count = [], 0
    if group:
        yield group


def decode(codec: int, payload: bytes, length: int) -> Floats:
    """The (length,) values behind a payload, writable. Raises ValueError on a codec or a length that does not fit."""
    if codec == DECIMAL:
        return _undecimals([payload], [length])
    if codec == RAW:  # as points one by one are, and a read of some hundred should not take longer than they are worth
        _check(len(payload), length * 8)
        return np.frombuffer(payload, "<f8").astype(np.float64)
    if codec not in (SHUFFLED, PLAIN):
        raise ValueError(f"codec: expected {SHUFFLED} to {RAW}, got {codec}")
    raw = np.frombuffer(_unpacked(payload, length * 8), dtype=np.uint8)
    _check(len(raw), length * 8)
    if codec == SHUFFLED:
        raw = raw.reshape(8, -1).T  # (byte, time) -> (time, byte)
    return raw.copy().reshape(-1).view("<f8").astype(np.float64, copy=False)


def decode_all(codecs: Sequence[int], payloads: Sequence[bytes], lengths: Sequence[int]) -> Floats:
    """The values behind many payloads end to end: those of one kind are put together at once. Raises as `decode`."""
    starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).tolist()
    values = np.empty(starts[-1])
    alike: dict[tuple[int, int], list[int]] = {}
    raw: list[int] = []
    for place, (codec, payload) in enumerate(zip(codecs, payloads, strict=True)):
        if codec == DECIMAL:
            alike.setdefault((payload[0], payload[1] >> 4), []).append(place)
        elif codec == RAW:
            _check(len(payload), lengths[place] * 8)
            raw.append(place)
        else:
            values[starts[place] : starts[place + 1]] = decode(codec, payload, lengths[place])
    if raw:
        sizes = np.array([lengths[place] for place in raw], np.int64)
        shifts = np.array([starts[place] for place in raw], np.int64) - (np.cumsum(sizes) - sizes)
        joined = np.frombuffer(b"".join([payloads[place] for place in raw]), "<f8")
        values[np.repeat(shifts, sizes) + np.arange(len(joined))] = joined
    for places in alike.values():
        for some in _groups(places, lengths):
            found = _undecimals([payloads[place] for place in some], [lengths[place] for place in some])
            if some[-1] - some[0] + 1 == len(some):
                values[starts[some[0]] : starts[some[-1] + 1]] = found
                continue
            at = 0
            for place in some:
                values[starts[place] : starts[place + 1]] = found[at : at + lengths[place]]
                at += lengths[place]
    return values


# ---------------------------------------------------------------- floats


def _floats(values: Floats) -> tuple[int, bytes]:
    raw = np.ascontiguousarray(values, dtype="<f8")
    packer = _packer()
    plain = packer.compress(raw.tobytes())
    shuffled = packer.compress(raw.view(np.uint8).reshape(-1, 8).T.tobytes())  # (time, byte) -> (byte, time)
    return (SHUFFLED, shuffled) if len(shuffled) < len(plain) else (PLAIN, plain)


# ---------------------------------------------------------------- decimals


def _likely(heads: Floats, exponent: int) -> Bools:
    """Which arrays begin, (arrays, SHORT), with decimals of so many places, to spare the others a look; the same rule
    as for all of an array."""
    scale = 10.0**exponent
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.rint(heads * scale)
        fits = (rounded / scale == heads) & (np.abs(rounded) < _LARGEST)
    return (fits | np.isnan(heads)).all(axis=1)


class _Whole(NamedTuple):
    """Arrays end to end as whole numbers, missing ones as 0; `starts` and `lengths` of the arrays, and of each its
    facts."""

    numbers: Numbers
    missing: Bools | None  # None: nothing is
    starts: Ints
    lengths: Ints
    good: Bools  # (arrays,) whether all of it is such numbers
    holed: Bools  # (arrays,) whether any value is missing
    low: Ints
    high: Ints


def _whole(parts: Sequence[Floats], exponent: int) -> _Whole:
    flat = np.concatenate(parts)
    scale = 10.0**exponent
    lengths = np.array([len(part) for part in parts], np.int64)
    starts = np.cumsum(lengths) - lengths
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = flat * scale
        np.rint(rounded, out=rounded)
        fits = rounded / scale == flat
    least, most = float(rounded.min()), float(rounded.max())  # NaN where any is
    good, holed, missing = np.ones(len(parts), np.bool_), np.zeros(len(parts), np.bool_), None
    if not (least > -_LARGEST and most < _LARGEST and fits.all() and (least > 0 or not _has_minus_zero(flat))):
        missing = np.isnan(flat)
        fits &= (np.abs(rounded) < _LARGEST) & ~((flat == 0) & np.signbit(flat))
        fits[missing] = flat[missing].view(np.int64) == _NAN
        good, holed = np.logical_and.reduceat(fits, starts), np.logical_or.reduceat(missing, starts)
        rounded[~fits | missing] = 0
        least, most = float(rounded.min()), float(rounded.max())
    # Half as wide, twice as fast; differences have to fit, too.
    numbers = rounded.astype(np.int32 if max(-least, most) < 2**30 else np.int64)
    return _Whole(numbers, missing, starts, lengths, good, holed, *_reach(numbers, starts))


def _has_minus_zero(values: Floats) -> bool:
    return bool(np.signbit(values[values == 0]).any())


def _reach(numbers: Numbers, starts: Ints) -> tuple[Ints, Ints]:
    """The smallest and the largest number of each array."""
    least, most = np.minimum.reduceat(numbers, starts), np.maximum.reduceat(numbers, starts)
    return least.astype(np.int64), most.astype(np.int64)


def _decimals(parts: Sequence[Floats], exponent: int) -> list[bytes | None]:
    """The payload of each array of decimals with so many places; None where it holds something else, or would need
    more than four bytes a value.

    Ten to the `exponent`, bytes a number, the smallest one; then either the numbers less that or, where these are
    smaller, the differences from one to the next less the smallest of them. The largest that fits means missing.
    """
    whole = _whole(parts, exponent)
    numbers, starts = whole.numbers, whole.starts
    steps = np.diff(numbers, prepend=numbers[:1])
    # The first number of each array is kept beside its differences.
    steps[starts] = steps[starts + 1]
    least, most = _reach(steps, starts)
    differ = ~whole.holed & (most - least < (whole.high - whole.low) // 2)
    low, high = np.where(differ, least, whole.low), np.where(differ, most, whole.high)
    if differ.any():
        by = np.repeat(differ, whole.lengths)
        numbers = np.where(by, steps, numbers)
    reach = high - low
    widths = np.select([reach < 256**width - 1 for width in TYPES], list(TYPES), 0)
    widths[~whole.good] = 0
    # Beside an array that is none of these numbers may wrap around; it is not looked at.
    shifted = numbers - np.repeat(low.astype(numbers.dtype), whole.lengths)
    firsts = np.where(differ, whole.numbers[starts], 0)
    made: list[bytes | None] = [None] * len(parts)
    for width in sorted({*widths.tolist()} - {0}):
        planes = _planes(shifted, whole.missing, TYPES[width])
        mine = np.flatnonzero(widths == width)
        ends = zip(starts[mine].tolist(), (starts + whole.lengths)[mine].tolist(), strict=True)
        # In one call, for each lets go of the interpreter and may have to wait for it afterwards.
        packed: Any = _packer().multi_compress_to_buffer([planes[:, start:stop].tobytes() for start, stop in ends])
        facts = (mine, differ[mine], low[mine], firsts[mine])
        for found, place, by, least_of, first in zip(packed, *(each.tolist() for each in facts), strict=True):
            made[place] = _header(exponent | (_DIFFERENCES if by else 0), width, least_of, first) + found.tobytes()
    return made


def _planes(numbers: Numbers, missing: Bools | None, kind: np.dtype[Any]) -> NDArray[np.uint8]:
    """(byte, time) of whole numbers, the largest that fits where one is missing."""
    narrow = numbers.astype(kind)
    if missing is not None:
        narrow[missing] = np.iinfo(kind).max
    return np.ascontiguousarray(narrow.view(np.uint8).reshape(-1, kind.itemsize).T)


def _header(kind: int, width: int, low: int, first: int) -> bytes:
    size = max(low.bit_length(), first.bit_length()) // 8 + 1
    facts = bytes((kind, width << 4 | size))
    return facts + low.to_bytes(size, "little", signed=True) + first.to_bytes(size, "little", signed=True)


def _undecimals(payloads: Sequence[bytes], lengths: Sequence[int]) -> Floats:
    """The values of payloads of one kind and width, end to end."""
    kind, width = payloads[0][0], payloads[0][1] >> 4
    planes = np.empty((width, sum(lengths)), np.uint8)
    lows: list[int] = []
    firsts: list[int] = []
    at = 0
    for payload, length in zip(payloads, lengths, strict=True):
        size = payload[1] & 15
        lows.append(int.from_bytes(payload[2 : 2 + size], "little", signed=True))
        firsts.append(int.from_bytes(payload[2 + size : 2 + 2 * size], "little", signed=True))
        packed = _unpacked(payload[2 + 2 * size :], length * width)
        _check(len(packed), length * width)
        planes[:, at : at + length] = np.frombuffer(packed, np.uint8).reshape(width, length)
        at += length
    numbers = planes[-1].astype(TYPES[width])
    for plane in planes[-2::-1]:
        numbers <<= 8
        numbers |= plane
    if kind & _DIFFERENCES:
        values = _added_up(numbers.astype(np.int64), lows, firsts, lengths).astype(np.float64)
    else:
        values = numbers.astype(np.float64)
        values += lows[0] if len(lows) == 1 else np.repeat(np.array(lows, np.float64), lengths)
        missing = numbers == np.iinfo(numbers.dtype).max
        if missing.any():
            values[missing] = np.nan
    exponent = kind & ~_DIFFERENCES
    if exponent:
        values /= 10.0**exponent
    return values


def _added_up(steps: Ints, lows: Sequence[int], firsts: Sequence[int], lengths: Sequence[int]) -> Ints:
    """The numbers that arrays end to end have, each `firsts` and then its differences, which are `lows` too small."""
    starts = np.cumsum(lengths, dtype=np.int64) - np.array(lengths, np.int64)
    steps += np.repeat(lows, lengths)
    steps[starts] = firsts
    sums = np.cumsum(steps)
    before = np.concatenate(([0], sums[starts[1:] - 1]))
    return sums - np.repeat(before, lengths)


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
