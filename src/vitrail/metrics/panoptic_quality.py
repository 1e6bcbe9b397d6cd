"""Panoptic quality (Kirillov et al. 2019): segments found, times how well they are drawn.

The rules are those of COCO's own `panopticapi`. torchmetrics knows no crowds, and takes what an
answer leaves out from the union.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from vitrail.masks import area, overlaps
from vitrail.metrics.mask_truth import Truth
from vitrail.types import Grid


def quality(
    rles: Sequence[bytes], labels: Sequence[int], truth: Truth, size: Grid, classes: int
) -> Float[np.ndarray, "C 4"]:
    """Match the segments of an image.

    A segment finds one of its class by an IoU above 0.5; where objects overlap the greatest IoU
    chooses first. Void pixels do not count. What found nothing is no mistake where more than half
    of it is void or crowd of its class; crowds are not missed.

    Args:
        rles: Pixels of each answered segment.
        labels: Class of each.
        truth: The segments of the image.
        size: Its height and width.
        classes: Number of classes.

    Returns:
        For each class: sum of the IoU of those found, how many were found, answers that found
        nothing, segments not found.
    """
    kept = [i for i, rle in enumerate(rles) if area(rle, size)]
    rles, ours = [rles[i] for i in kept], np.array([labels[i] for i in kept], dtype=np.int64)
    theirs, crowds = np.array(truth.labels, dtype=np.int64), np.array(truth.crowds, dtype=np.bool_)
    areas = np.array([area(rle, size) for rle in rles], dtype=np.float64)
    wholes = np.array([area(rle, size) for rle in truth.rles], dtype=np.float64)
    # As if all were crowds: the shares of each answer that lie in each segment.
    share = overlaps(rles, truth.rles, size, [True] * len(truth.rles))
    unknown = np.zeros(len(rles))
    if truth.void is not None and rles:
        unknown = overlaps(rles, [truth.void], size, [True])[:, 0]
    shared = share * areas[:, None]
    union = areas[:, None] * (1 - unknown[:, None]) + wholes - shared
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    same = ours[:, None] == theirs
    pairs = _pairs(np.where(same & ~crowds, iou, 0.0))
    excused = unknown + (share * (same & crowds)).sum(axis=1) > 0.5
    result = np.zeros((classes, 4))
    for i, k in pairs:
        result[ours[i], :2] += iou[i, k], 1
    for i in set(np.flatnonzero(~excused).tolist()) - {i for i, _ in pairs}:
        result[ours[i], 2] += 1
    for k in set(np.flatnonzero(~crowds).tolist()) - {k for _, k in pairs}:
        result[theirs[k], 3] += 1
    return result


def panoptic_quality(
    counts: Float[np.ndarray, "*N C 4"], among: Bool[np.ndarray, "C"] | None = None
) -> Float[np.ndarray, "*N C 3"]:
    """PQ, SQ and RQ of each class; NaN where it has neither segments nor answers.

    Args:
        counts: Sums over images of what `quality` gives.
        among: Classes that are asked for; the others are NaN.
    """
    total, found, surplus, missed = np.moveaxis(counts, -1, 0)
    all_ = found + (surplus + missed) / 2
    known = (all_ > 0) & (True if among is None else among)
    rq = np.divide(found, all_, out=np.full_like(all_, np.nan), where=known)
    sq = np.divide(total, found, out=np.zeros_like(all_), where=found > 0)
    return np.stack([rq * sq, np.where(known, sq, np.nan), rq], axis=-1)


def _pairs(iou: Float[np.ndarray, "M N"]) -> list[tuple[int, int]]:
    """Answers and segments that belong together, each at most once."""
    rows, columns = np.nonzero(iou > 0.5)
    order = np.argsort(-iou[rows, columns], kind="stable")
    free, left = set(range(iou.shape[0])), set(range(iou.shape[1]))
    pairs: list[tuple[int, int]] = []
    for i, k in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if i in free and k in left:
            free.remove(i)
            left.remove(k)
            pairs.append((i, k))
    return pairs
