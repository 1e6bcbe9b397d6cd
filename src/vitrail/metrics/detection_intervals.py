"""How far average precision would move on other images: a bootstrap over images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vitrail.metrics.agreement import mean_of_defined
from vitrail.metrics.classification import interval
from vitrail.metrics.detection_matches import IOUS, Matches, average_precision

RESAMPLES = 200
"""Resamples of a bootstrap; fewer where the data are large, down to `FEWEST`."""
FEWEST = 50
WORK = 400_000_000
"""Detections times overlaps times resamples: some ten seconds on one core."""


def precision_intervals(
    matches: Sequence[Matches], values: dict[str, float]
) -> dict[str, tuple[float, float]]:
    """Bootstrap 95 % interval of mAP and of AP at IoU 0.5.

    Images are drawn with replacement; what matched what in an image does not depend on the others.

    Args:
        matches: One a class.
        values: Both by name, in this order.
    """
    images = len(matches[0].objects)
    work = len(IOUS) * max(1, sum(len(each.scores) for each in matches))
    rng = np.random.default_rng(0)
    times = min(RESAMPLES, max(FEWEST, WORK // work))
    drawn: list[tuple[float, float]] = []
    for weights in rng.multinomial(images, np.full(images, 1 / images), size=times):
        each = np.stack([average_precision(one, weights) for one in matches])
        mean, at_half = float(mean_of_defined(each.ravel())), float(mean_of_defined(each[:, 0]))
        if not np.isnan(mean):  # some object was drawn
            drawn.append((mean, at_half))
    rows = np.array(drawn or [tuple(values.values())])
    return {name: interval(rows[:, i], value) for i, (name, value) in enumerate(values.items())}
