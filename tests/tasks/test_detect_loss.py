"""What answers cost."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from vitrail.tasks.detect_loss import detection_loss
from vitrail.tasks.matching import Truth
from vitrail.types import Detections, Found

BOX = torch.tensor([[0.3, 0.4, 0.2, 0.2], [0.7, 0.6, 0.3, 0.1]])
TRUTH = [Truth(torch.tensor([0, 1]), BOX), Truth(torch.zeros(0, dtype=torch.long), BOX[:0])]
Scoring = Literal["sigmoid", "softmax"]


def perfect(scoring: Scoring, sure: float = 12.0) -> Detections:
    outputs = 2 + (scoring == "softmax")
    logits = torch.full((2, 3, outputs), -sure)
    logits[0, 0, 0] = logits[0, 1, 1] = sure
    if scoring == "softmax":
        logits[0, 2, 2] = sure
        logits[1, :, 2] = sure
    boxes = torch.full((2, 3, 4), 0.1)
    boxes[0, :2] = BOX
    return Detections(logits, boxes)


@pytest.mark.parametrize("scoring", ["sigmoid", "softmax"])
def test_a_perfect_answer_costs_nothing(scoring: Scoring) -> None:
    losses = detection_loss(perfect(scoring), TRUTH, groups=1, scoring=scoring)
    assert losses.shape == (2,)
    assert float(losses.abs().max()) < 1e-3


@pytest.mark.parametrize("scoring", ["sigmoid", "softmax"])
@pytest.mark.parametrize("fault", ["place", "class", "alarm", "missed"])
def test_every_fault_costs(scoring: Scoring, fault: str) -> None:
    answer = perfect(scoring)
    logits, boxes = answer.logits.clone(), answer.boxes.clone()
    if fault == "place":
        boxes[0, 0, 0] += 0.05
    elif fault == "class":
        logits[0, 0, [0, 1]] = logits[0, 0, [1, 0]]
    elif fault == "alarm":
        logits[1, 0] = logits[0, 0]
    else:
        logits[0, 0] = -answer.logits[0, 0]
        logits[0, 0, 1] = -12.0
    losses = detection_loss(Detections(logits, boxes), TRUTH, groups=1, scoring=scoring)
    assert float(losses[1 if fault == "alarm" else 0]) > 0.05


def test_the_mean_is_the_loss_a_box_of_the_batch() -> None:
    """Only the boxes: a shift by 0.1 to the right of both objects, spread over both images."""
    answer = perfect("softmax", sure=40.0)
    boxes = answer.boxes.clone()
    boxes[0, :2, 0] += 0.1
    losses = detection_loss(Detections(answer.logits, boxes), TRUTH, groups=1, scoring="softmax")
    # Overlap: half of the first box, two thirds of the second; no hull beyond the union.
    giou = [1 - (0.5 / 1.5), 1 - (2 / 3) / (4 / 3)]
    expected = sum(5 * 0.1 + 2 * g for g in giou) / 2
    assert float(losses.mean()) == pytest.approx(expected, abs=1e-4)


def test_layers_and_proposals_are_summed() -> None:
    torch.manual_seed(0)
    layer = Found(torch.randn(2, 3, 2), torch.rand(2, 3, 4))
    alone = detection_loss(Detections(*layer), TRUTH, groups=1, scoring="sigmoid")
    three = detection_loss(
        Detections(*layer, earlier=(layer,), proposals=layer), TRUTH, groups=1, scoring="sigmoid"
    )
    torch.testing.assert_close(three, 3 * alone)


def test_equal_groups_cost_what_one_does() -> None:
    torch.manual_seed(0)
    logits, boxes = torch.randn(2, 3, 2), torch.rand(2, 3, 4)
    one = detection_loss(Detections(logits, boxes), TRUTH, groups=1, scoring="sigmoid")
    two = Detections(logits.repeat(1, 2, 1), boxes.repeat(1, 2, 1))
    torch.testing.assert_close(detection_loss(two, TRUTH, groups=2, scoring="sigmoid"), one)


def test_a_sure_answer_in_a_bad_place_is_told_to_be_less_sure() -> None:
    """The target of a class is how well the box fits (IoU-aware)."""
    logits = torch.full((1, 1, 1), 3.0, requires_grad=True)
    for shift, up in ((0.0, True), (0.09, False)):
        boxes = BOX[None, :1] + torch.tensor([shift, shift, 0, 0])
        truth = [Truth(torch.tensor([0]), BOX[:1])]
        losses = detection_loss(Detections(logits, boxes), truth, groups=1, scoring="sigmoid")
        (slope,) = torch.autograd.grad(losses.sum(), logits)
        assert (float(slope) < 0) == up


def test_a_batch_without_objects_teaches_that_there_are_none() -> None:
    logits = torch.zeros(1, 2, 2, requires_grad=True)
    truth = [TRUTH[1]]
    losses = detection_loss(
        Detections(logits, torch.rand(1, 2, 4)), truth, groups=1, scoring="sigmoid"
    )
    (slope,) = torch.autograd.grad(losses.sum(), logits)
    assert (slope > 0).all()
