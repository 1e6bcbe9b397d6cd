"""Where tiles and windows lie."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vitrail.data.tiles import ALIGNED, LONGEST, Tiles, Windows, tile_starts


@given(length=st.integers(1, 3000), side=st.integers(1, 700), overlap=st.floats(0, 0.75))
def test_tiles_cover_a_length_evenly_and_overlap(length: int, side: int, overlap: float) -> None:
    starts = tile_starts(length, side, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - side)
    steps = np.diff(starts)
    if len(steps):
        assert steps.max() <= side
        assert steps.max() - steps.min() <= 2 * ALIGNED
        assert steps.max() <= math.ceil(side * (1 - overlap)) + ALIGNED
        if side * overlap >= ALIGNED:
            assert all(start % ALIGNED == 0 for start in starts[:-1])
    assert Tiles(size=(side, 5), overlap=overlap).starts(length, 5) == (starts, [0])


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 90), st.integers(0, 60))
def test_windows_cover_the_image(height: int, width: int, side: int, more: int) -> None:
    for stride in (None, max(1, side - more)):
        rule = Windows(side=side, short=side + more, stride=stride)
        size = rule.resized(height, width)
        assert min(size) == side + more
        assert max(size) <= LONGEST * min(size)
        for starts, length in zip(rule.starts(*size), size, strict=True):
            assert starts[0] == 0
            assert starts[-1] == length - side
            assert all(0 < step <= side for step in np.diff(starts))
            if stride is None:
                assert len(starts) == math.ceil(length / side)
            else:
                assert all(start % stride == 0 for start in starts[:-1])


def test_windows_lie_as_published() -> None:
    # EomtImageProcessor: 3 windows of 64 over 150 share 21 pixels, and int() truncates.
    assert Windows(side=64).starts(64, 150) == ([0], [0, 43, 86])
    assert Windows(side=64).resized(480, 640) == (64, 85)
    assert Windows(side=64).resized(641, 480) == (85, 64)
    # Segmenter: multiples of the stride below H - window, then H - window.
    assert Windows(side=64, stride=48).starts(64, 160) == ([0], [0, 48, 96])
    assert Windows(side=64, stride=48).starts(64, 161) == ([0], [0, 48, 96, 97])


def test_windows_that_leave_gaps() -> None:
    with pytest.raises(ValidationError, match="stride 65 leaves gaps between windows of 64"):
        Windows(side=64, stride=65)
    with pytest.raises(ValidationError, match="short 63 is less than the side of a window, 64"):
        Windows(side=64, short=63)
