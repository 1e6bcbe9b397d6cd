"""Boxes go where their pixels go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marked import STRETCHED, marked, seen
from vitrail.data.framing import (
    Rectangle,
    Window,
    boxes_of,
    mirrored,
    moved,
    show,
    transposed,
    upside_down,
)
from vitrail.types import Box, Boxes, Corners, View

WHOLE = Window(Rectangle(0, 0, 40, 60), Rectangle(0, 0, 40, 60))


def only(corners: Corners, *, crowd: bool = False) -> Boxes:
    left, top, right, bottom = map(float, corners)
    return Boxes((Box((left, top, right, bottom), 0, crowd=crowd),), (40, 60))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_pixels_and_boxes_move_together(data: st.DataObject) -> None:
    def part(rows: int, columns: int, least: int) -> Rectangle:
        height = data.draw(st.integers(least, rows))
        width = data.draw(st.integers(least, columns))
        top = data.draw(st.integers(0, rows - height))
        return Rectangle(top, data.draw(st.integers(0, columns - width)), height, width)

    shape = part(80, 100, 20)
    box = (shape.left, shape.top, shape.left + shape.columns, shape.top + shape.rows)
    sample = marked([box], (80, 100))
    window = Window(part(80, 100, 30), part(64, 64, 16))
    black = np.zeros(3, dtype=np.uint8)
    image = show(sample.image, window, (64, 64), STRETCHED, black)
    assert isinstance(sample.target, Boxes)
    for item in moved(sample.target, window, 0.01):
        x1, y1, x2, y2 = item.corners
        if min(x2 - x1, y2 - y1) > 4:
            found = seen(View(image, None), item)
            assert np.abs(np.array(found) - item.corners).max() <= 2


def test_the_whole_image_is_left_as_it_is() -> None:
    sample = marked([(5, 6, 30, 31)], (40, 60))
    image = show(sample.image, WHOLE, (40, 60), STRETCHED, np.zeros(3, dtype=np.uint8))
    assert image is not sample.image
    assert (image == sample.image).all()
    assert isinstance(sample.target, Boxes)
    assert moved(sample.target, WHOLE, 1.0) == sample.target.items


def test_beside_the_place_there_is_the_colour() -> None:
    sample = marked([(0, 0, 60, 40)], (40, 60))
    window = Window(Rectangle(0, 0, 40, 60), Rectangle(3, 4, 5, 6))
    image = show(sample.image, window, (10, 20), STRETCHED, np.array([1, 2, 3], dtype=np.uint8))
    assert image[:, 0, 0].tolist() == image[:, 8, 10].tolist() == [1, 2, 3]
    assert (image[0, 3:8, 4:10] == 255).all()
    assert (image[2] == 3).sum() == 200 - 30


@pytest.mark.parametrize(
    ("left", "crowd", "kept"), [(14, False, True), (18, False, False), (18, True, True)]
)
def test_a_box_is_kept_for_its_share_or_its_centre(left: int, crowd: bool, kept: bool) -> None:
    # The box of 10 to 20 shows 6, then 2, of its 10 columns.
    window = Window(Rectangle(0, left, 40, 40), Rectangle(0, 0, 40, 40))
    assert len(moved(only((10, 0, 20, 20), crowd=crowd), window, 0.3)) == kept


def test_the_inside_of_a_large_object_is_no_background() -> None:
    window = Window(Rectangle(15, 25, 10, 10), Rectangle(0, 0, 40, 40))
    (box,) = moved(only((0, 0, 60, 40)), window, 0.3)
    assert box.corners == (0, 0, 40, 40)


def test_less_than_a_pixel_is_no_box() -> None:
    small = Window(Rectangle(0, 0, 40, 60), Rectangle(0, 0, 4, 6))
    assert moved(only((10, 10, 19, 30)), small, 0.3) == ()
    assert moved(only((10, 10, 20, 20)), small, 0.3)[0].corners == (1, 1, 2, 2)
    assert moved(only((70, 10, 90, 20)), WHOLE, 0.3) == (), "outside of the image"
    assert moved(only((50, 10, 75, 20)), WHOLE, 0.9)[0].corners == (50, 10, 60, 20)


def test_symmetries() -> None:
    sample = marked([(5, 6, 30, 31), (40, 0, 60, 9)], (40, 60))
    view = View(sample.image, sample.target)
    for turn in (mirrored, upside_down, transposed):
        once = turn(view)
        twice = turn(once)
        assert (twice.image == view.image).all()
        assert twice.target == view.target != once.target
        for box in boxes_of(once).items:
            assert seen(once, box) == box.corners
