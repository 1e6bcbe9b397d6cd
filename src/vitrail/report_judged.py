"""How many answers are right and wrong from every score on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitrail.metrics.detection_matches import match
from vitrail.types import Box, Boxes, Detection

STEPS = 100
"""Thresholds between 0 and 1 at which answers are counted."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What comes of believing answers from each threshold on, at IoU 0.5.

    Attributes:
        thresholds: Scores, ascending.
        support: Objects of each class.
        given: Answers of each class from each threshold on; those on crowds are left out.
        right: How many of them found an object.
    """

    thresholds: tuple[float, ...]
    support: tuple[int, ...]
    given: tuple[tuple[int, ...], ...]
    right: tuple[tuple[int, ...], ...]


def area_of(box: Box) -> float:
    """Pixels of an object; of its box where the data do not know them."""
    if box.area is not None:
        return box.area
    x1, y1, x2, y2 = box.corners
    return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)


def count_by_threshold(
    predictions: Sequence[Detection],
    targets: Sequence[Boxes],
    classes: Sequence[str],
    threshold: float,
) -> Counts:
    """Answers that are right and wrong from every threshold on.

    Args:
        predictions: One an image.
        targets: One an image.
        classes: Class names.
        threshold: One that is among the thresholds beside the even steps.
    """
    places = sorted({i / STEPS for i in range(STEPS + 1)} | {threshold})
    given: list[tuple[int, ...]] = []
    right: list[tuple[int, ...]] = []
    support: list[int] = []
    for one in match(predictions, targets, classes).matches:
        kept = ~one.ignored[0]
        scores, hits = one.scores[kept], np.append(0, np.cumsum(one.right[0, kept]))
        ends = np.searchsorted(-scores, -np.array(places), side="right")
        given.append(tuple(int(end) for end in ends))
        right.append(tuple(int(hits[end]) for end in ends))
        support.append(int(one.objects.sum()))
    return Counts(tuple(places), tuple(support), tuple(given), tuple(right))
