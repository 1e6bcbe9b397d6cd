"""What a detector takes for what: objects against detections, with a place for neither."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vitrail.metrics.detection_matches import xywh
from vitrail.types import Boxes, Detection

OVERLAP = 0.5
"""IoU from which on a detection is about an object."""

Table = tuple[tuple[int, ...], ...]


def confusion(
    predictions: Sequence[Detection],
    targets: Sequence[Boxes],
    classes: Sequence[str],
    threshold: float,
) -> Table:
    """Count pairs of true and predicted class.

    The surest detection chooses first, among the objects that are free and that it overlaps by
    `OVERLAP`: one of its own class before others, then the one that it overlaps most. Detections
    that chose none and lie on a crowd of their class are left out.

    Args:
        predictions: One an image.
        targets: One an image.
        classes: Class names.
        threshold: Score from which on a detection counts.

    Returns:
        Rows are true classes, columns predicted ones. The last row is the background that was
        taken for objects, the last column the objects that were not found.
    """
    index = {name: i for i, name in enumerate(classes)}
    table = np.zeros((len(classes) + 1, len(classes) + 1), dtype=np.int64)
    for found, target in zip(predictions, targets, strict=True):
        sure = [i for i, score in enumerate(found.scores) if score >= threshold]
        sure.sort(key=lambda i: -found.scores[i])
        labels = [index[found.labels[i]] for i in sure]
        boxes = np.array([xywh(found.boxes[i]) for i in sure]).reshape(-1, 4)
        for pair in _pairs(boxes, labels, target):
            table[pair] += 1
    return tuple(tuple(row) for row in table.tolist())


def _pairs(
    boxes: Float[np.ndarray, "D 4"], labels: Sequence[int], target: Boxes
) -> list[tuple[int, int]]:
    """True and predicted class of everything in one image; -1 for neither."""
    overlaps = _overlaps(boxes, target)
    free = np.array([not box.crowd for box in target.items], dtype=np.bool_)
    classes = np.array([box.label for box in target.items], dtype=np.int64)
    pairs: list[tuple[int, int]] = []
    for row, label in zip(overlaps, labels, strict=True):
        near = np.flatnonzero(free & (row >= OVERLAP))
        if len(near):
            chosen = max(near.tolist(), key=lambda i: (classes[i] == label, row[i]))
            free[chosen] = False
            pairs.append((int(classes[chosen]), label))
        elif not any(
            box.crowd and box.label == label and share >= OVERLAP
            for box, share in zip(target.items, row, strict=True)
        ):
            pairs.append((-1, label))
    return pairs + [(int(label), -1) for label in classes[free]]


def _overlaps(boxes: Float[np.ndarray, "D 4"], target: Boxes) -> Float[np.ndarray, "D G"]:
    """IoU of each detection and object; with a crowd, the share of the detection inside it."""
    from pycocotools import mask

    if not len(boxes) or not target.items:
        return np.zeros((len(boxes), len(target.items)))
    objects = np.array([xywh(box.corners) for box in target.items])
    return np.asarray(mask.iou(boxes, objects, [int(box.crowd) for box in target.items]))
