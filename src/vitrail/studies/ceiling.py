"""What one number a cell can say of a mask: what patches cost thin things, without a model.

A head that gives one logit a patch is judged after its map was enlarged to the pixels. Given the
truth, each cell gets the share of its pixels that are foreground, the map is enlarged as a model's
is, and the best threshold is taken: that is what a head learns that judges each cell by itself.

It is no bound. Numbers that are fitted to the truth, each knowing its neighbours, draw a line more
finely than shares do; what they reach is told beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from vitrail.metrics.agreement import f_measure
from vitrail.metrics.boundary import within
from vitrail.metrics.mask_curve import LEVELS, histogram, pixel_curve
from vitrail.metrics.mask_overlap import iou
from vitrail.nn.pixel_decoder import magnified

CELLS = (2, 4, 8, 16, 32)
TOLERANCE = 2
"""Pixels by which `f1_tolerance` lets a mask be off."""

Mask = Bool[np.ndarray, "H W"]
Levels = UInt8[np.ndarray, "H W"]
"""A map in steps of 1/255."""


STEPS, RATE = 60, 0.3
"""How numbers are fitted (Adam)."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How well a set of masks can be told.

    Attributes:
        cell: Side of a cell in pixels.
        iou: Of shares, the pixels of all images together, as the next two.
        f1: Likewise.
        f1_tolerance: Where pixels may be off by two.
        dice: F1, the mean over images.
        cldice: The mean over images.
        fitted: F1 of fitted numbers, the pixels of all images together.
    """

    cell: int
    iou: float
    f1: float
    f1_tolerance: float
    dice: float
    cldice: float
    fitted: float


def ceiling(masks: Sequence[Mask], cell: int) -> Ceiling:
    """Tell masks by one number a cell.

    Args:
        masks: True masks, with some foreground among them.
        cell: Side of a cell in pixels.
    """
    from vitrail.metrics.topology import centrelines

    least, f1 = _best_level([shares(mask, cell) for mask in masks], masks)
    areas, near, lines = (np.zeros((len(masks), 4)) for _ in range(3))
    for row, mask in enumerate(masks):
        answer = shares(mask, cell) >= least
        areas[row] = within(answer, mask, 0)
        near[row] = within(answer, mask, TOLERANCE)
        lines[row] = centrelines(answer, mask)
    return Ceiling(
        cell=cell,
        iou=float(iou(areas.sum(axis=0))),
        f1=f1,
        f1_tolerance=float(f_measure(near.sum(axis=0))),
        dice=float(f_measure(areas).mean()),
        cldice=float(f_measure(lines).mean()),
        fitted=_best_level([fitted(mask, cell) for mask in masks], masks)[1],
    )


def best_f1(masks: Sequence[Mask], cell: int) -> float:
    """The F1 of `ceiling` by itself."""
    return _best_level([shares(mask, cell) for mask in masks], masks)[1]


def shares(mask: Mask, cell: int) -> Levels:
    """The share of each cell that is foreground, enlarged to the pixels.

    Cells that are cut by the edge of the image have the share of what is inside.
    """
    return _levels(_enlarged(_pooled(_pixels(mask), cell), cell, mask))


def fitted(mask: Mask, cell: int) -> Levels:
    """Probabilities of logits, one a cell, that were fitted to the mask by soft Dice."""
    pixels = _pixels(mask)
    logits = torch.logit(_pooled(pixels, cell).clamp(0.01, 0.99)).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=RATE)
    for _ in range(STEPS):
        p = _enlarged(logits, cell, mask).sigmoid()
        dice = 2 * (p * pixels).sum() / (p.sum() + pixels.sum())
        optimizer.zero_grad()
        (-dice).backward()  # pyright: ignore[reportUnknownMemberType]
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]
    return _levels(_enlarged(logits.detach(), cell, mask).sigmoid())


def _pixels(mask: Mask) -> Float[Tensor, "1 1 H W"]:
    return torch.from_numpy(mask.astype(np.float32))[None, None]  # pyright: ignore[reportUnknownMemberType]


def _pooled(pixels: Float[Tensor, "1 1 H W"], cell: int) -> Float[Tensor, "1 1 h w"]:
    return F.avg_pool2d(pixels, cell, ceil_mode=True)


def _enlarged(cells: Float[Tensor, "1 1 h w"], cell: int, mask: Mask) -> Float[Tensor, "1 1 H W"]:
    return magnified(cells, cell, 1, (mask.shape[0], mask.shape[1]))


def _levels(map_: Float[Tensor, "1 1 H W"]) -> Levels:
    return (map_[0, 0] * (LEVELS - 1)).round().to(torch.uint8).numpy()


def _best_level(maps: Sequence[Levels], masks: Sequence[Mask]) -> tuple[int, float]:
    """The level from which on pixels are foreground, for the best F1 of all of them; and that."""
    counts = np.zeros((2, LEVELS), dtype=np.int64)
    for map_, mask in zip(maps, masks, strict=True):
        counts += histogram(map_, mask, np.ones_like(mask))
    best = pixel_curve(counts).best
    assert best is not None, "masks with some foreground"
    f1 = 2 * best.precision * best.recall / (best.precision + best.recall)
    return round(best.threshold * (LEVELS - 1) + 0.5), f1
