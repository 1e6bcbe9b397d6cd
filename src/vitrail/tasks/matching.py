"""Which prediction answers for which object: one each, at the least cost in all (Hungarian)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from vitrail.nn.boxes import generalised_iou, to_xyxy
from vitrail.types import Found

CLASS_COST, L1_COST, GIOU_COST = 2.0, 5.0, 2.0
"""Weights of the cost (Deformable DETR; the ratios of L1 and GIoU are DETR's)."""
ALPHA, GAMMA = 0.25, 2.0
"""Of the focal loss (Lin et al. 2017), whose slope is the cost of a class."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The objects of one image as a loss takes them.

    Attributes:
        labels: Index of each one's class.
        boxes: Each one's box, cxcywh as shares of the image.
    """

    labels: Int[Tensor, " T"]
    boxes: Float[Tensor, "T 4"]


@dataclass(frozen=True, slots=True)
class Matches:
    """Pairs of queries and objects over a batch.

    Attributes:
        images: Image of each pair.
        queries: Query of each pair.
        objects: Object of each pair, among those of its image.
        labels: Class of its object.
        boxes: Box of its object, cxcywh.
    """

    images: Int[Tensor, " M"]
    queries: Int[Tensor, " M"]
    objects: Int[Tensor, " M"]
    labels: Int[Tensor, " M"]
    boxes: Float[Tensor, "M 4"]


@torch.no_grad()
def match(found: Found, truths: Sequence[Truth], *, groups: int, softmax: bool) -> Matches:
    """One query for each object, in every group of queries by itself.

    Args:
        found: Predictions of one layer.
        truths: The objects of each image.
        groups: Groups that the queries stand in, side by side.
        softmax: Whether the last output means "no object" (DETR); else each class stands alone.
    """
    costs = cast("NDArray[np.float32]", _costs(found, truths, softmax=softmax).numpy(force=True))
    size = found.logits.shape[1] // groups
    images: list[int] = []
    queries: list[int] = []
    objects: list[int] = []
    for image, truth in enumerate(truths):
        count = len(truth.labels)
        for start in range(0, groups * size, size) if count else ():
            rows, columns = assign(costs[image, start : start + size, :count])
            images += [image] * len(rows)
            queries += [start + row for row in rows]
            objects += columns
    device = found.logits.device
    chosen = [(image, thing) for image, thing in zip(images, objects, strict=True)]
    labels = [truths[image].labels[thing] for image, thing in chosen]
    boxes = [truths[image].boxes[thing] for image, thing in chosen]
    return Matches(
        images=torch.tensor(images, dtype=torch.long, device=device),
        queries=torch.tensor(queries, dtype=torch.long, device=device),
        objects=torch.tensor(objects, dtype=torch.long, device=device),
        labels=torch.stack(labels) if labels else torch.zeros(0, dtype=torch.long, device=device),
        boxes=torch.stack(boxes) if boxes else torch.zeros(0, 4, device=device),
    )


def _costs(found: Found, truths: Sequence[Truth], *, softmax: bool) -> Float[Tensor, "B Q T"]:
    """Cost of every query for every object; beyond an image's own objects it means nothing."""
    most = max((len(truth.labels) for truth in truths), default=0)
    labels = found.logits.new_zeros((len(truths), most), dtype=torch.long)
    boxes = found.boxes.new_full((len(truths), most, 4), 0.5, dtype=torch.float32)
    for row, truth in enumerate(truths):
        labels[row, : len(truth.labels)] = truth.labels
        boxes[row, : len(truth.labels)] = truth.boxes
    logits, own = found.logits.float(), found.boxes.float()
    wanted = labels[:, None].expand(-1, logits.shape[1], -1)
    if softmax:
        classes = -logits.softmax(-1).gather(2, wanted)
    else:
        classes = _focal_slope(logits.gather(2, wanted))
    far = torch.cdist(own, boxes, p=1)
    overlap = generalised_iou(to_xyxy(own)[:, :, None], to_xyxy(boxes)[:, None])
    # DETR's own weight of a class is half of what it became with the focal loss.
    weight = CLASS_COST / 2 if softmax else CLASS_COST
    return weight * classes + L1_COST * far - GIOU_COST * overlap


def _focal_slope(logits: Tensor) -> Tensor:
    p = logits.sigmoid()
    yes = ALPHA * (1 - p) ** GAMMA * -torch.nn.functional.logsigmoid(logits)
    no = (1 - ALPHA) * p**GAMMA * -torch.nn.functional.logsigmoid(-logits)
    return yes - no


def assign(costs: NDArray[np.float32]) -> tuple[list[int], list[int]]:
    """Rows and columns of the pairs, one a row and column, at the least cost in all."""
    from scipy.optimize import (  # pyright: ignore[reportMissingTypeStubs]
        linear_sum_assignment,  # pyright: ignore[reportUnknownVariableType]
    )

    # A loss that is not finite is found, and named, where it is used; here it must only not stop.
    rows, columns = cast("Any", linear_sum_assignment)(np.nan_to_num(costs, nan=1e6, posinf=1e6))
    return rows.tolist(), columns.tolist()
