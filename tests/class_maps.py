"""Truths and answers of segmentation from plain arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vitrail.masks import encode
from vitrail.types import VOID, Region, Segmentation, Segments


def truth(*layers: np.ndarray, labels: Sequence[int], crowds: Sequence[bool] = ()) -> Segments:
    """Segments from maps of their numbers."""
    ids = torch.from_numpy(np.stack(layers).astype(np.int16))
    return Segments(ids, tuple(labels), tuple(crowds))


def answer(regions: Sequence[tuple[str, float, np.ndarray]], size: tuple[int, int]) -> Segmentation:
    """Regions of class, score and mask."""
    return Segmentation(size, tuple(Region(name, score, encode(m)) for name, score, m in regions))


def of_map(classes: np.ndarray, *, background: bool) -> Segments:
    """Semantic truth from a map of class indices, in which -1 is void and -2 background."""
    present = [label for label in np.unique(classes).tolist() if label != -2]
    assert background or -2 not in classes
    ids = np.zeros(classes.shape, dtype=np.int16)
    for number, label in enumerate(present, start=1):
        ids[classes == label] = number
    return truth(ids, labels=present)


def said(classes: np.ndarray, names: Sequence[str]) -> Segmentation:
    """The answer whose pixels are of these classes; those below 0 are of none."""
    present = [label for label in np.unique(classes).tolist() if label >= 0]
    return answer([(names[k], 0.9, classes == k) for k in present], classes.shape)


def one(mask: np.ndarray, void: np.ndarray | None = None) -> Segments:
    """One class on a background."""
    ids = np.where(mask, 1, 0) if void is None else np.where(void, 2, np.where(mask, 1, 0))
    return truth(ids, labels=(0, VOID))


def road(mask: np.ndarray) -> Segmentation:
    """An answer of one class named road."""
    return answer([("road", 0.9, mask)], mask.shape)


def rectangles(
    rng: np.random.Generator, size: tuple[int, int], count: int
) -> list[tuple[int, int, int, int]]:
    """Corners in rows and columns."""
    height, width = size
    tops, lefts = rng.integers(0, height - 4, count), rng.integers(0, width - 4, count)
    spans = rng.integers(3, 9, (count, 2))
    return [
        (int(y), int(x), int(min(height, y + h)), int(min(width, x + w)))
        for y, x, (h, w) in zip(tops, lefts, spans, strict=True)
    ]


def filled(corners: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """The mask of a rectangle."""
    mask = np.zeros(size, dtype=bool)
    y1, x1, y2, x2 = corners
    mask[max(y1, 0) : y2, max(x1, 0) : x2] = True
    return mask
