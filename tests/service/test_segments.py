"""Segments in memory: packed and unpacked, painted over each other, cut into pieces."""

import numpy as np
import pytest
from numpy.typing import NDArray

from app.services import codecs, segments
from app.services.segments import GAP, LONGEST, Painted, Piece, Segment

NAN = np.nan


def segment(start: int, values: list[float]) -> Segment:
    return Segment(1, "", start, len(values), *codecs.encode(np.array(values)))


def unpacked(piece: Piece) -> NDArray[np.float64]:
    return codecs.decode(piece.codec, piece.payload, piece.length)


def test_later_segments_lie_over_earlier_ones() -> None:
    painted = segments.paint([segment(10, [1, 2, 3, 4]), segment(12, [NAN, 9]), segment(16, [7]), segment(0, [])])
    assert painted.start == 10
    np.testing.assert_array_equal(painted.values, [1, 2, NAN, 9, NAN, NAN, 7])


@pytest.mark.parametrize(
    ("window", "start", "values"),
    [((11, 13), 11, [2, 3]), ((0, 11), 10, [1]), ((13, 99), 13, [4]), ((14, 99), 14, []), ((0, 10), 0, [])],
)
def test_a_window_shows_only_its_steps(window: tuple[int, int], start: int, values: list[float]) -> None:
    painted = segments.paint([segment(10, [1, 2, 3, 4])], window)
    assert (painted.start, painted.values.tolist()) == (start, values)


def test_runs_end_at_large_gaps_and_at_breaks() -> None:
    steps = np.array([0, 1, GAP + 1, 2 * GAP + 2, 2 * GAP + 3, 2 * GAP + 4])
    breaks = np.array([False, False, False, False, False, True])
    first, last = segments.runs(steps, breaks)
    assert (first.tolist(), last.tolist()) == ([0, 3, 5], [2, 4, 5])
    assert [len(ends) for ends in segments.runs(steps[:0])] == [0, 0]


def test_long_values_are_cut() -> None:
    values = np.arange(LONGEST * 2 + 5, dtype=np.float64)
    pieces = segments.packed(list(segments.cut(7, "x", False, Painted(-3, values))))
    assert [(p.owner, p.column, p.base, p.start, p.length) for p in pieces] == [
        (7, "x", False, -3, LONGEST),
        (7, "x", False, LONGEST - 3, LONGEST),
        (7, "x", False, 2 * LONGEST - 3, 5),
    ]
    np.testing.assert_array_equal(np.concatenate([unpacked(piece) for piece in pieces]), values)


def test_a_fresh_base_leaves_large_gaps_out_and_keeps_an_all_missing_target() -> None:
    values = np.full(GAP * 3, NAN)
    values[[1, 3, GAP * 2]] = [1.0, 2.0, 3.0]
    pieces = segments.packed(list(segments.fresh_base(0, "", Painted(100, values))))
    assert [(piece.base, piece.start, piece.length) for piece in pieces] == [(True, 101, 3), (True, 100 + GAP * 2, 1)]
    np.testing.assert_array_equal(unpacked(pieces[0]), [1.0, NAN, 2.0])
    nothing = Painted(100, np.full(5, NAN))
    assert [(span.start, len(span.values)) for span in segments.fresh_base(0, "", nothing)] == [(100, 1)]
    assert [(span.start, len(span.values)) for span in segments.fresh_base(0, "promo", nothing)] == [(0, 0)]
