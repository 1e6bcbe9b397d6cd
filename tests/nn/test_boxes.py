"""Boxes as tensors."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitrail.nn.boxes import box_area, generalised_iou, iou, refine, suppress, to_cxcywh, to_xyxy

SIDE = st.floats(0.01, 0.5)
PLACE = st.floats(0.0, 1.0)
BOX = st.tuples(PLACE, PLACE, SIDE, SIDE).map(torch.tensor)


@settings(deadline=None)
@given(BOX)
def test_both_ways_to_write_a_box_say_the_same(box: Tensor) -> None:
    corners = to_xyxy(box)
    torch.testing.assert_close(to_cxcywh(corners), box, atol=1e-6, rtol=0)
    torch.testing.assert_close(box_area(corners), box[2] * box[3], atol=1e-6, rtol=1e-4)


def test_overlap_by_hand() -> None:
    a = torch.tensor([0.0, 0.0, 2.0, 2.0])
    b = torch.tensor([1.0, 1.0, 3.0, 3.0])
    share, union = iou(a, b)
    assert (float(share), float(union)) == (torch.tensor(1 / 7).item(), 7.0)
    # The hull is 3 x 3, of which 2 are in neither box.
    torch.testing.assert_close(generalised_iou(a, b), torch.tensor(1 / 7 - 2 / 9))


def test_far_boxes_are_told_apart_by_their_distance() -> None:
    a = torch.tensor([0.0, 0.0, 1.0, 1.0])
    near, far = torch.tensor([2.0, 0.0, 3.0, 1.0]), torch.tensor([8.0, 0.0, 9.0, 1.0])
    assert iou(a, near)[0] == iou(a, far)[0] == 0
    assert generalised_iou(a, far) < generalised_iou(a, near) < 0


def test_inverted_boxes_have_no_area() -> None:
    inverted = torch.tensor([3.0, 3.0, 1.0, 1.0])
    assert box_area(inverted) == 0
    assert torch.isfinite(generalised_iou(inverted, inverted))


@settings(deadline=None)
@given(BOX, BOX)
def test_overlap_is_a_share_and_the_same_from_both_sides(a: Tensor, b: Tensor) -> None:
    x, y = to_xyxy(a), to_xyxy(b)
    share, other = iou(x, y)[0], iou(y, x)[0]
    torch.testing.assert_close(share, other)
    assert -1e-6 <= share <= 1 + 1e-5
    assert -1 - 1e-5 <= generalised_iou(x, y) <= share + 1e-5
    torch.testing.assert_close(iou(x, x)[0], torch.tensor(1.0), atol=1e-4, rtol=0)


def test_pairs_are_broadcast() -> None:
    a, b = torch.rand(2, 5, 4), torch.rand(2, 7, 4)
    assert iou(a[:, :, None], b[:, None])[0].shape == (2, 5, 7)


def test_refinement_moves_in_units_of_the_box() -> None:
    box = torch.tensor([0.5, 0.5, 0.2, 0.1])
    torch.testing.assert_close(refine(box, torch.zeros(4)), box)
    moved = refine(box, torch.tensor([1.0, -1.0, 0.0, torch.tensor(2.0).log().item()]))
    torch.testing.assert_close(moved, torch.tensor([0.7, 0.4, 0.2, 0.2]))


def test_of_overlapping_boxes_of_a_class_the_surest_is_left() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10], [20, 0, 30, 10.0]])
    assert suppress(boxes, torch.tensor([0, 0, 0, 0]), 0.7) == [0, 2, 3]
    assert suppress(boxes, torch.tensor([0, 1, 0, 0]), 0.7) == [0, 1, 2, 3]
    assert suppress(boxes, torch.tensor([0, 0, 0, 0]), 0.5) == [0, 3]
    assert suppress(boxes[:0], torch.zeros(0, dtype=torch.long), 0.5) == []
