"""Precision and recall over the threshold from which on an answer is believed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from vitrail.config import Config
from vitrail.metrics.detection_matches import Matches

POINTS = 200
"""Points of a curve at most."""


class Point(Config):
    """What comes of believing every answer from one threshold on.

    Attributes:
        threshold: Score of a detection, or probability of a pixel.
        precision: Share of these answers that are right; of detections, at IoU 0.5.
        recall: Share of the objects, or of the pixels, that they find.
    """

    threshold: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


class Curve(Config):
    """Precision and recall, the highest threshold first.

    Attributes:
        points: Thresholds at which the recall grows: every level of pixels, of scores at most
            `POINTS`, evenly from all; empty where no answer is right.
        best: The point of the highest F1 among all; None where no answer is right.
    """

    points: tuple[Point, ...]
    best: Point | None


def curve(matches: Sequence[Matches]) -> Curve:
    """The curve of one class, or of several pooled."""
    kept = [~each.ignored[0] for each in matches]
    scores = np.concatenate([each.scores[k] for each, k in zip(matches, kept, strict=True)])
    right = np.concatenate([each.right[0, k] for each, k in zip(matches, kept, strict=True)])
    objects = sum(int(each.objects.sum()) for each in matches)
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    if not objects or not len(hits) or not hits[-1]:
        return Curve(points=(), best=None)
    # No threshold tells equal scores apart: the last of them speaks for all.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    last = last[np.diff(hits[last], prepend=0) > 0]
    precision, recall = hits[last] / (last + 1), hits[last] / objects
    return Curve(
        points=_points(scores[last], precision, recall, _spread(len(last))),
        best=_points(
            scores[last],
            precision,
            recall,
            # F1 = 2 hits / (detections + objects)
            np.array([np.argmax(hits[last] / (last + 1 + objects))]),
        )[0],
    )


def _spread(count: int) -> Int[np.ndarray, "P"]:
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(np.int64))


def _points(
    scores: Float[np.ndarray, "D"],
    precision: Float[np.ndarray, "D"],
    recall: Float[np.ndarray, "D"],
    places: Int[np.ndarray, "P"],
) -> tuple[Point, ...]:
    return tuple(
        Point(threshold=float(scores[i]), precision=float(precision[i]), recall=float(recall[i]))
        for i in places
    )
