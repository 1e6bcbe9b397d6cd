"""Numbers of segments are carried along, never mixed."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitrail.data.segment_views import compact, filled_void, nearest, resampled
from vitrail.data.segments import MOST_SEGMENTS
from vitrail.types import VOID, Segments

SIDES = st.integers(1, 60)


def numbered(height: int, width: int) -> np.ndarray:
    return np.arange(1, height * width + 1, dtype=np.int16).reshape(1, height, width)


@given(height=SIDES, width=SIDES, rows=SIDES, columns=SIDES)
def test_each_pixel_takes_the_number_under_its_centre(
    height: int, width: int, rows: int, columns: int
) -> None:
    ids = numbered(height, width)
    found = nearest(ids, (rows, columns))
    y = ((np.arange(rows) + 0.5) * height / rows + 1e-9).astype(int)
    x = ((np.arange(columns) + 0.5) * width / columns + 1e-9).astype(int)
    assert np.array_equal(found, ids[:, y][:, :, x])


def test_a_stretch_is_that_of_pillow() -> None:
    ids = numbered(31, 41)
    drawn = Image.fromarray(ids[0].astype(np.int32)).resize((96, 78), Image.Resampling.NEAREST)
    assert np.array_equal(nearest(ids, (78, 96))[0], np.asarray(drawn))


def test_what_fits_is_the_very_same() -> None:
    segments = Segments(torch.from_numpy(numbered(5, 4)), (0,) * 20)
    assert resampled(segments, (5, 4)) is segments
    assert filled_void(segments, (5, 4)) is segments


def test_what_is_filled_up_is_not_judged() -> None:
    ids = torch.tensor([[[1, 0]], [[0, 2]]], dtype=torch.int16)
    found = filled_void(Segments(ids, (4, 7), (False, True)), (2, 3))
    assert found.labels == (4, 7, VOID)
    assert found.crowds == (False, True, False)
    assert found.ids.tolist() == [[[1, 0, 3], [3, 3, 3]], [[0, 2, 0], [0, 0, 0]]]


def test_the_most_segments_leave_a_number_for_what_is_filled_up() -> None:
    full = Segments(torch.zeros((1, 1, 1), dtype=torch.int16), (0,) * MOST_SEGMENTS)
    found = filled_void(filled_void(full, (2, 1)), (3, 1))
    assert int(found.ids.max()) == len(found.labels)


def test_segments_without_pixels_go_and_numbers_close_up() -> None:
    ids = torch.tensor([[[2, 2, 0]], [[0, 0, 0]], [[0, 4, 4]]], dtype=torch.int16)
    found = compact(Segments(ids, (5, 6, 7, 8), (True, False, True, True)))
    assert found.labels == (6, 8)
    assert found.crowds == (False, True)
    assert found.ids.tolist() == [[[1, 1, 0]], [[0, 2, 2]]]


def test_what_is_left_of_a_small_one_becomes_void_and_void_is_one() -> None:
    ids = torch.tensor([[[1, 2, 2, 3, 4, 0]]], dtype=torch.int16)
    segments = Segments(ids, (9, 8, VOID, 7))
    found = compact(segments, np.array([2.0, 2.0, 5.0, 0.0]))
    assert found.labels == (VOID, 8, 7)
    assert found.ids.tolist() == [[[1, 2, 2, 1, 3, 0]]]
    assert segments.ids.tolist() == [[[1, 2, 2, 3, 4, 0]]]


def test_an_image_without_segments_stays_one() -> None:
    empty = Segments(torch.zeros(1, 3, 4, dtype=torch.int16), ())
    for found in (compact(empty), compact(resampled(empty, (6, 2)))):
        assert found.labels == ()
        assert found.ids.shape[0] == 1
        assert not found.ids.any()
