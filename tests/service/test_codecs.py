"""Values as bytes and back, bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from app.services import codecs
from app.services.codecs import DECIMAL, PLAIN, RAW, SHUFFLED

NAN = np.nan
ODD_NAN = np.array([0x7FF8000000000001], np.int64).view(np.float64)[0]
RANDOM = np.random.default_rng(1)
CASES: list[tuple[list[float] | NDArray[np.float64], int | None]] = [
    ([], RAW),
    ([1.5, NAN], RAW),
    (np.full(5000, NAN), DECIMAL),
    (np.tile([1.0, 2.0, 3.0], 2000), DECIMAL),
    (np.round(RANDOM.normal(100, 10, 5000), 1), DECIMAL),
    (np.round(np.cumsum(RANDOM.normal(0, 1, 5000)), 3), DECIMAL),
    (np.cumsum(RANDOM.normal(0, 1, 5000)), SHUFFLED),
    ([1.0, NAN, 3.0, 4.5, NAN, NAN], DECIMAL),
    ([NAN, NAN, NAN, NAN, -7.25], DECIMAL),
    (np.arange(1e6, 1e6 + 500), DECIMAL),
    (-np.arange(1.0, 10.0) * 1e8, DECIMAL),
    ([0.0, 255.0, 1.0, 254.0, 3.0], DECIMAL),
    ([0.0, 255.0, NAN, 254.0, 3.0], DECIMAL),
    ([0.0, -0.0, 5.0, 6.0], None),
    ([1.0, 2.0, 3.0, ODD_NAN], None),
    ([1.0, 2.0, 3.0, 4.0, 0.1234567], None),
    ([2.0**52, 2.0**53, 2.0**60, 1e300], None),
    ([0.0, -0.0, 5e-324, 1.7976931348623157e308, -1e-300, NAN], None),
]


@pytest.mark.parametrize(("values", "codec"), CASES)
def test_what_was_packed_comes_back_bit_for_bit(values: list[float] | NDArray[np.float64], codec: int | None) -> None:
    sent = np.array(values, np.float64)
    chosen, payload = codecs.encode(sent)
    assert codec is None or chosen == codec
    assert codec is not None or chosen != DECIMAL
    read = codecs.decode(chosen, payload, len(sent))
    assert read.tobytes() == sent.tobytes()
    read[:] = 0.0  # what is read may be written to


def test_many_at_once_are_as_one_by_one() -> None:
    parts = [np.array(values, np.float64) for values, _ in CASES]
    parts += [np.round(np.random.default_rng(place).normal(0, 3, 3000), place % 4) for place in range(60)]
    together = codecs.encode_all(parts)
    assert together == [codecs.encode(part) for part in parts]
    for (codec, payload), part in zip(together, parts, strict=True):
        assert codecs.decode(codec, payload, len(part)).tobytes() == part.tobytes()
    kinds, payloads = [codec for codec, _ in together], [payload for _, payload in together]
    read = codecs.decode_all(kinds, payloads, [len(part) for part in parts])
    assert read.tobytes() == np.concatenate(parts).tobytes()


NUMBERS = st.one_of(
    st.floats(width=64),
    st.integers(-(10**6), 10**6).map(lambda number: number / 100),
    st.integers(-300, 300).map(float),
    st.just(NAN),
)


@given(arrays(np.float64, st.integers(0, 60), elements=NUMBERS))
def test_any_values_come_back(values: NDArray[np.float64]) -> None:
    codec, payload = codecs.encode(values)
    assert codecs.decode(codec, payload, len(values)).tobytes() == values.tobytes()


def test_decimals_take_less_than_either_way_of_packing_floats() -> None:
    values = np.round(np.random.default_rng(3).normal(500, 80, 1000), 2)
    floats = codecs._floats(values)[1]  # pyright: ignore[reportPrivateUsage]
    assert len(codecs.encode(values)[1]) < 0.7 * len(floats)
    words = np.random.default_rng(4).choice([1e10 / 3, 3.25, -7.5], 4096)
    assert codecs.encode(words)[0] in (PLAIN, SHUFFLED)
    assert len(codecs.encode(words)[1]) < words.nbytes / 8


@pytest.mark.parametrize(
    ("codec", "values", "length"),
    [(5, [1.0], 1), (0, [1.0], 1), (RAW, [1.0, 2.0], 3), (DECIMAL, [1.0] * 5, 4), (DECIMAL, [1.0] * 5, 6)],
)
def test_a_payload_that_does_not_fit_is_refused(codec: int, values: list[float], length: int) -> None:
    _, payload = codecs.encode(np.array(values))
    with pytest.raises((ValueError, codecs.zstandard.ZstdError)):
        codecs.decode(codec, payload, length)
