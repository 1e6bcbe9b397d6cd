"""Segments in the terms of a model and its losses."""

from __future__ import annotations

import pytest
import torch

from segmenter import segments
from vitrail.errors import DataError
from vitrail.tasks.segment_loss import IGNORED
from vitrail.tasks.segment_targets import Relabelled, mask_truths, pixel_truth
from vitrail.types import VOID, Segments

SCENE = segments(
    "11..",
    "1133",
    "..33",
    "",
    "....",
    ".22.",
    ".22.",
    labels=(1, 0, VOID),
)
"""Three segments on two layers: of class 1, of class 0, and one that nobody judges."""


def test_classes_of_pixels_with_a_background() -> None:
    """Where segments overlap the first layer counts."""
    (found,) = pixel_truth([SCENE], background=True, device="cpu").classes
    v = IGNORED
    assert found.tolist() == [[2, 2, 0, 0], [2, 2, v, v], [0, 1, v, v]]


def test_without_a_background_what_is_no_segment_is_not_judged() -> None:
    (found,) = pixel_truth([SCENE], background=False, device="cpu").classes
    v = IGNORED
    assert found.tolist() == [[1, 1, v, v], [1, 1, v, v], [v, 0, v, v]]


def test_an_image_without_segments() -> None:
    empty = Segments(torch.zeros(1, 2, 3, dtype=torch.int16), ())
    assert not pixel_truth([empty], background=True, device="cpu").classes.any()
    assert (pixel_truth([empty], background=False, device="cpu").classes == IGNORED).all()
    (one,) = mask_truths([empty], [], semantic=False, device="cpu")
    assert one.masks.shape == (0, 2, 3)
    assert one.truth.boxes.shape == (0, 4)
    assert one.judged.all()


def test_segments_one_by_one() -> None:
    (one,) = mask_truths([SCENE], [], semantic=False, device="cpu")
    assert one.truth.labels.tolist() == [1, 0]
    assert one.masks.int().tolist() == [
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]],
    ]
    assert one.judged.int().tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]


def test_boxes_are_shares_of_what_shows_the_image() -> None:
    (one,) = mask_truths([SCENE], [], semantic=False, device="cpu")
    expected = torch.tensor([[1 / 4, 1 / 3, 2 / 4, 2 / 3], [2 / 4, 2 / 3, 2 / 4, 2 / 3]])
    torch.testing.assert_close(one.truth.boxes, expected)
    (filled,) = mask_truths([SCENE], [(3, 2)], semantic=False, device="cpu")
    torch.testing.assert_close(filled.truth.boxes, expected * torch.tensor([2.0, 1, 2, 1]))
    (dot,) = mask_truths([segments("...", "..1")], [], semantic=False, device="cpu")
    torch.testing.assert_close(dot.truth.boxes, torch.tensor([[2.5 / 3, 0.75, 1 / 3, 0.5]]))


def test_crowds_are_not_judged() -> None:
    scene = segments("112", "112", labels=(0, 0), crowds=(False, True))
    (one,) = mask_truths([scene], [], semantic=False, device="cpu")
    assert one.truth.labels.tolist() == [0]
    assert one.judged.int().tolist() == [[1, 1, 0], [1, 1, 0]]


def test_segments_of_one_class_are_one_where_classes_are_asked_for() -> None:
    scene = segments("1122", "4433", labels=(2, 0, 2, VOID))
    (one,) = mask_truths([scene], [], semantic=True, device="cpu")
    assert one.truth.labels.tolist() == [0, 2]
    assert one.masks.int().tolist() == [[[0, 0, 1, 1], [0, 0, 0, 0]], [[1, 1, 0, 0], [0, 0, 1, 1]]]
    assert one.judged.int().tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]


def test_segments_without_pixels_are_left_out() -> None:
    scene = segments("22", "..", labels=(1, 0, 1))
    (one,) = mask_truths([scene], [], semantic=False, device="cpu")
    assert one.truth.labels.tolist() == [0]
    assert len(one.masks) == len(one.truth.boxes) == 1


def test_another_model_s_numbers_of_classes() -> None:
    scene = segments("12", "33", labels=(0, 1, VOID))
    found = Relabelled([scene, segments("1.", "..")], (4, 2))
    assert len(found) == 2
    first, second = found
    assert isinstance(first, Segments)
    assert first.labels == (4, 2, VOID)
    assert torch.equal(first.ids, scene.ids)
    assert isinstance(second, Segments)
    assert second.labels == (4,)
    (last,) = found[1:]
    assert isinstance(last, Segments)
    assert last.labels == (4,)


def test_a_sample_without_segments_is_named_when_it_is_read() -> None:
    found = Relabelled([None], (0,))
    with pytest.raises(DataError, match="needs a label for every sample"):
        found[0]
