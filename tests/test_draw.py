from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.draw import colour_of, draw_boxes
from vitrail.types import Corners

SIDES = st.floats(-50, 400)
BOXES = st.lists(
    st.tuples(SIDES, SIDES, st.floats(0, 300), st.floats(0, 300)).map(
        lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
    ),
    max_size=5,
)


def grey(height: int, width: int) -> torch.Tensor:
    return torch.full((3, height, width), 128, dtype=torch.uint8)


def test_a_colour_is_a_class_s_own() -> None:
    assert colour_of("cat") == colour_of("cat")
    names = [f"class {i}" for i in range(100)]
    assert len({colour_of(name) for name in names}) > 95
    red, white = colour_of("RBC"), colour_of("WBC")
    assert max(abs(a - b) for a, b in zip(red, white, strict=True)) > 100, "told apart by eye"


def test_the_frame_is_the_box() -> None:
    image = grey(200, 300)
    drawn = draw_boxes(image, [(50.0, 60.0, 150.0, 160.0)], ["cat"], [0.5])
    assert torch.equal(image, grey(200, 300)), "the image itself is left alone"
    colour = torch.tensor(colour_of("cat"), dtype=torch.uint8)
    for x, y in ((50, 100), (149, 100), (100, 159), (50, 159)):
        assert torch.equal(drawn[:, y, x], colour), (x, y)
    for x, y in ((49, 100), (150, 100), (100, 160), (100, 110)):
        assert drawn[:, y, x].eq(128).all(), (x, y)


def test_the_surest_is_on_top() -> None:
    boxes: list[Corners] = [(20.0, 40.0, 80.0, 90.0), (20.0, 40.0, 80.0, 90.0)]
    drawn = draw_boxes(grey(100, 100), boxes, ["first", "second"], [0.9, 0.8])
    assert drawn[:, 60, 20].tolist() == list(colour_of("first"))


@pytest.mark.parametrize("side", [16, 100, 640, 3000])
def test_letters_grow_with_the_image(side: int) -> None:
    box = (0.0, 0.5 * side, 0.9 * side, 0.9 * side)
    plain = draw_boxes(grey(side, side), [box], [""])
    named = draw_boxes(grey(side, side), [box], ["a dog"])
    rows = (plain != named).any(dim=0).any(dim=1).nonzero()
    height = int(rows[-1] - rows[0]) + 1
    assert height >= max(7, side / 60)


@settings(deadline=None, max_examples=25)
@given(BOXES, st.integers(1, 60), st.integers(1, 60))
def test_any_box_on_any_image(boxes: list[Corners], height: int, width: int) -> None:
    labels = ["größer; 猫" if i % 2 else "x" for i in range(len(boxes))]
    drawn = draw_boxes(grey(height, width), boxes, labels)
    assert drawn.shape == (3, height, width)
    assert drawn.dtype == torch.uint8
    assert boxes or torch.equal(drawn, grey(height, width))
