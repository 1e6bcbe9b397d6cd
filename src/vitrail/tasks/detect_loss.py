"""What a detector's answers cost, layer by layer: classes, L1 and GIoU of the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vitrail.nn.boxes import generalised_iou, iou, to_xyxy
from vitrail.tasks.matching import Matches, Truth, match
from vitrail.types import Detections, Found

L1_WEIGHT, GIOU_WEIGHT = 5.0, 2.0
"""Of the boxes beside the classes (Carion et al. 2020, appendix A.4)."""
NO_OBJECT = 0.1
"""Weight of "no object" in a softmax, which most queries answer (the same)."""
IOU_SHARE = 0.75
"""How much of a sure answer's target is the overlap; the rest is its own probability."""


def detection_loss(
    found: Detections,
    truths: Sequence[Truth],
    *,
    groups: int,
    scoring: Literal["sigmoid", "softmax"],
) -> Float[Tensor, "B"]:
    """One loss an image, so that their mean is the loss a box of the whole batch (DETR).

    Args:
        found: All layers, with `groups` groups of queries side by side while training.
        truths: The objects of each image.
        groups: Groups of queries.
        scoring: Each class alone (`sigmoid`), or against "no object" (`softmax`).
    """
    layers = [*found.earlier, Found(found.logits, found.boxes)]
    if found.proposals is not None:
        layers.append(found.proposals)
    softmax = scoring == "softmax"
    total = torch.stack(
        [layer_loss(layer, truths, groups, softmax=softmax)[0] for layer in layers]
    ).sum(0)
    boxes = max(sum(len(truth.labels) for truth in truths), 1) * groups
    return total * len(truths) / boxes


def layer_loss(
    found: Found, truths: Sequence[Truth], groups: int, *, softmax: bool
) -> tuple[Float[Tensor, "B"], Matches]:
    """What classes and boxes of one layer cost, and which query was taught which object."""
    found = Found(found.logits.float(), found.boxes.float())
    pairs = match(found, truths, groups=groups, softmax=softmax)
    own = found.boxes[pairs.images, pairs.queries]
    far = (own - pairs.boxes).abs().sum(-1)
    overlap = generalised_iou(to_xyxy(own), to_xyxy(pairs.boxes))
    places = L1_WEIGHT * far + GIOU_WEIGHT * (1 - overlap)
    classes = _softmax_loss(found, pairs) if softmax else _sigmoid_loss(found, pairs)
    if softmax:
        classes = classes * max(sum(len(truth.labels) for truth in truths), 1)
    return classes.index_add(0, pairs.images, places), pairs


def _sigmoid_loss(found: Found, pairs: Matches) -> Float[Tensor, "B"]:
    """Binary cross-entropy whose target is how well the box fits (IA-BCE, LW-DETR equation 2)."""
    logits = found.logits
    p = logits.detach().sigmoid()
    own = found.boxes.detach()[pairs.images, pairs.queries]
    fit = iou(to_xyxy(own), to_xyxy(pairs.boxes))[0]
    place = (pairs.images, pairs.queries, pairs.labels)
    target = (p[place] ** (1 - IOU_SHARE) * fit**IOU_SHARE).clamp_min(0.01)
    yes = torch.zeros_like(p).index_put(place, target)
    no = (p**2).index_put(place, 1 - target)
    losses = -yes * F.logsigmoid(logits) - no * F.logsigmoid(-logits)
    return losses.sum((1, 2))


def _softmax_loss(found: Found, pairs: Matches) -> Float[Tensor, "B"]:
    """Cross-entropy of every query, "no object" for those without one, weighed down (DETR)."""
    logits = found.logits
    nothing = logits.shape[-1] - 1
    wanted = torch.full(logits.shape[:2], nothing, device=logits.device)
    wanted = wanted.index_put((pairs.images, pairs.queries), pairs.labels)
    weights = logits.new_ones(nothing + 1)
    weights[nothing] = NO_OBJECT
    losses = F.cross_entropy(logits.transpose(1, 2), wanted, weights, reduction="none")
    return losses.sum(1) / weights[wanted].sum()
