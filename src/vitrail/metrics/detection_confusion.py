"""What a detector takes for what: objects against detections, with a place for neither."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vitrail.metrics.detection_pairs import judge
from vitrail.types import Boxes, Detection

Table = tuple[tuple[int, ...], ...]


def confusion(
    predictions: Sequence[Detection],
    targets: Sequence[Boxes],
    classes: Sequence[str],
    threshold: float,
) -> Table:
    """Count pairs of true and predicted class.

    Which answer is about which object is said in `detection_pairs.judge`; those on a crowd of their
    class are left out.

    Args:
        predictions: One an image.
        targets: One an image.
        classes: Class names.
        threshold: Score from which on a detection counts.

    Returns:
        Rows are true classes, columns predicted ones. The last row is the background that was
        taken for objects, the last column the objects that were not found.
    """
    table = np.zeros((len(classes) + 1, len(classes) + 1), dtype=np.int64)
    for found, target in zip(predictions, targets, strict=True):
        judged = judge(found, target, classes, threshold)
        for answer in judged.answers:
            if answer.verdict != "crowd":
                true = -1 if answer.about is None else target.items[answer.about].label
                table[true, classes.index(found.labels[answer.number])] += 1
        for number in judged.missed:
            table[target.items[number].label, -1] += 1
    return tuple(tuple(row) for row in table.tolist())
