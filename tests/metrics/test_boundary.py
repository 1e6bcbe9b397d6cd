from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vitrail.metrics.agreement import f_measure
from vitrail.metrics.boundary import boundary, boundary_within, dilate, within


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 4))
def test_dilation_is_a_distance(seed: int, radius: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 14)) < 0.08
    far = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    assert np.array_equal(dilate(mask, radius), far <= radius)


def line(column: int) -> np.ndarray:
    mask = np.zeros((10, 20), dtype=bool)
    mask[:, column] = True
    return mask


@pytest.mark.parametrize(("off", "tolerance", "f1"), [(0, 0, 1), (2, 2, 1), (2, 1, 0), (3, 2, 0)])
def test_a_line_that_is_off(off: int, tolerance: int, f1: float) -> None:
    assert f_measure(within(line(5), line(5 + off), tolerance)) == f1


def test_precision_and_recall_are_told_apart() -> None:
    half = line(5)
    half[5:] = False
    # Two rows beyond the end of the answer are near it.
    assert within(half, line(5), 2).tolist() == [5, 5, 7, 10]


def test_boundary_of_a_square() -> None:
    mask = np.zeros((6, 6), dtype=bool)
    mask[2:4, 2:4] = True
    expected = np.zeros((6, 6), dtype=bool)
    expected[1:4, 1:4] = True
    expected[2, 2] = False
    assert np.array_equal(boundary(mask), expected)
    assert not boundary(np.ones((3, 3), dtype=bool)).any(), "an edge of the image is no boundary"


def test_areas_do_not_count_at_boundaries() -> None:
    truth = np.zeros((40, 40), dtype=bool)
    truth[5:35, 5:35] = True
    ring = truth.copy()
    ring[15:25, 15:25] = False
    right, answered, found, true = boundary_within(ring, truth, 2)
    assert found == true
    assert right / answered == pytest.approx(120 / (120 + 40), abs=0.02)
