"""Boxes as tensors: two ways to write them, overlap, and what a decoder adds to them.

Shapes are `(*, 4)`. `cxcywh` is centre x, centre y, width, height; `xyxy` is left, top, right,
bottom. Units are the caller's: pixels, or shares of the image.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def to_xyxy(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """Corners of centre and size."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def to_cxcywh(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """Centre and size of corners."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def box_area(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """Area of xyxy boxes; an inverted one has none."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(dim=-1)


def iou(
    a: Float[Tensor, "*N 4"], b: Float[Tensor, "*N 4"]
) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N"]]:
    """Intersection over union of xyxy boxes, pair by pair (broadcast), and the union's area."""
    shared = box_area(
        torch.cat(
            [torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], dim=-1
        )
    )
    union = box_area(a) + box_area(b) - shared
    return shared / union.clamp_min(1e-9), union


def generalised_iou(a: Float[Tensor, "*N 4"], b: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    """GIoU of xyxy boxes, -1 to 1 (Rezatofighi et al. 2019, algorithm 1)."""
    overlap, union = iou(a, b)
    low, high = torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])
    hull = box_area(torch.cat([low, high], dim=-1))
    return overlap - (hull - union) / hull.clamp_min(1e-9)


def suppress(boxes: Float[Tensor, "N 4"], labels: Int[Tensor, " N"], limit: float) -> list[int]:
    """Greedy non-maximum suppression within each class.

    Args:
        boxes: xyxy, the surest first.
        labels: Class of each.
        limit: A box that overlaps a surer one of its class by more (IoU) is left out.

    Returns:
        What is left, in order.
    """
    overlaps = iou(boxes[:, None], boxes)[0] > limit
    overlaps &= labels[:, None] == labels
    kept: list[int] = []
    for index in range(len(boxes)):
        if not any(overlaps[index, earlier] for earlier in kept):
            kept.append(index)
    return kept


def refine(
    reference: Float[Tensor, "*N 4"], deltas: Float[Tensor, "*N 4"]
) -> Float[Tensor, "*N 4"]:
    """A cxcywh box moved in units of its own size and scaled by exp (LW-DETR, "reparam")."""
    centre = deltas[..., :2] * reference[..., 2:] + reference[..., :2]
    return torch.cat([centre, deltas[..., 2:].exp() * reference[..., 2:]], dim=-1)
