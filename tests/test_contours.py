from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from scipy import ndimage

from vitrail.contours import one_outline, outlines

MASKS = st.builds(
    lambda seed, height, width, share, smooth: (
        ndimage.uniform_filter(np.random.default_rng(seed).random((height, width)), smooth) < share
    ),
    st.integers(0, 10_000),
    st.integers(1, 24),
    st.integers(1, 24),
    st.floats(0.3, 0.7),
    st.sampled_from([1, 1, 3, 5]),
)


def filled(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """What COCO's own tools make of polygons."""
    if not rings:
        return np.zeros(size, dtype=bool)
    parts = coco.frPyObjects([ring.ravel().astype(float).tolist() for ring in rings], *size)
    return coco.decode(coco.merge(parts)).astype(bool)


def enclosed(ring: np.ndarray) -> float:
    """The shoelace formula; against the clock it is negative."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


@settings(deadline=None, max_examples=200)
@given(MASKS)
def test_filled_again_an_outline_is_the_mask(mask: np.ndarray) -> None:
    rings = outlines(mask)
    assert np.array_equal(filled(rings, mask.shape), mask)
    assert sum(map(enclosed, rings)) == mask.sum()
    assert len(rings) == ndimage.label(mask)[1], "a ring a part"
    one = one_outline(mask)
    assert np.array_equal(filled([one] if len(one) else [], mask.shape), mask)


@settings(deadline=None, max_examples=50)
@given(MASKS)
def test_edges_are_straight_and_end_where_the_outline_turns(mask: np.ndarray) -> None:
    holed = ndimage.label(~np.pad(mask, 1), np.ones((3, 3)))[1] > 1
    for ring in outlines(mask):
        steps = np.roll(ring, -1, axis=0) - ring
        if not holed:
            assert ((steps == 0).sum(axis=1) == 1).all()
            assert ((steps[:, 0] == 0) != (np.roll(steps, 1, axis=0)[:, 0] == 0)).all()


def test_known_shapes() -> None:
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:4, 2:7] = True
    assert outlines(mask)[0].tolist() == [[2, 1], [7, 1], [7, 4], [2, 4]]
    mask[2, 4] = False
    (ring,) = outlines(mask)
    assert len(ring) == 4 + 4 + 2, "a hole adds its corners and a cut there and back"
    assert enclosed(ring) == 14
    mask[4, 7] = True
    rings = outlines(mask)
    assert [enclosed(each) for each in rings] == [14, 1], "a pixel at a corner is a part"
    assert outlines(np.zeros((3, 3), dtype=bool)) == []


def test_an_island_in_a_hole() -> None:
    mask = np.ones((7, 7), dtype=bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    assert sorted(map(enclosed, outlines(mask))) == [1, 24]


@pytest.mark.parametrize("size", [(1, 1), (300, 500)])
def test_a_full_image(size: tuple[int, int]) -> None:
    mask = np.ones(size, dtype=bool)
    assert np.array_equal(filled(outlines(mask), size), mask)
