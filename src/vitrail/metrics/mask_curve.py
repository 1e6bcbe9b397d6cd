"""Precision and recall of pixels over the probability from which on they are foreground."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8

from vitrail.metrics.detection_curves import Curve, Point
from vitrail.types import Grid

LEVELS = 256
"""Steps in which `Segmentation.confidence` is kept."""


def confidence_map(packed: bytes, size: Grid) -> UInt8[np.ndarray, "H W"]:
    """Probability of foreground at each pixel in steps of 1/255."""
    return np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(size)


def histogram(
    confidence: UInt8[np.ndarray, "H W"],
    truth: Bool[np.ndarray, "H W"],
    judged: Bool[np.ndarray, "H W"],
) -> Int[np.ndarray, "2 256"]:
    """Judged pixels of each level: those that are not foreground, and those that are."""
    return np.stack(
        [np.bincount(confidence[mask], minlength=LEVELS) for mask in (judged & ~truth, truth)]
    )


def pixel_curve(counts: Int[np.ndarray, "2 256"]) -> Curve:
    """The curve of all pixels together, the highest threshold first.

    Args:
        counts: Sums over images of what `histogram` gives.
    """
    # From each level on; from level 0 on is everything, which needs no threshold.
    wrong, right = counts[:, ::-1].cumsum(axis=1)[:, :-1]
    levels, all_ = np.arange(LEVELS - 1, 0, -1), int(counts[1].sum())
    grows = np.flatnonzero(np.diff(right, prepend=0) > 0)
    if not len(grows):
        return Curve(points=(), best=None)
    f1 = 2 * right / np.maximum(right + wrong + all_, 1)
    points = _points(levels, wrong, right, all_, grows.tolist())
    return Curve(points=points, best=points[int(np.argmax(f1[grows]))])


def _points(
    levels: Int[np.ndarray, "T"],
    wrong: Int[np.ndarray, "T"],
    right: Int[np.ndarray, "T"],
    all_: int,
    places: Sequence[int],
) -> tuple[Point, ...]:
    return tuple(
        Point(
            # Levels are rounded: this is where level k begins.
            threshold=float((levels[i] - 0.5) / (LEVELS - 1)),
            precision=float(right[i] / (right[i] + wrong[i])),
            recall=float(right[i] / all_),
        )
        for i in places
    )
