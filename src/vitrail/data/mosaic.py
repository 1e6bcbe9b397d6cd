"""Mosaic: four images in one view (Bochkovskiy et al. 2020, YOLOv4, section 3.3).

More objects a view, smaller ones, and beside what they never were beside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from vitrail.data.framing import Rectangle, boxes_of
from vitrail.types import Box, Boxes, Grid, Sample, View

IMAGES = 4
LEAST = 2
"""Pixels that each side of a view must have."""
_CROSSING = (0.3, 0.7)
"""Where the four meet, as a share of each side."""

Framed = Callable[[Sample, Grid], View]
"""A part of a sample, of exactly this size."""


def mosaic(samples: Sequence[Sample], framed: Framed, size: Grid, rng: np.random.Generator) -> View:
    """Four samples around a random point, each filling its quarter.

    Args:
        samples: Four, from the upper left to the lower right.
        framed: Draws one of them.
        size: Height and width of the view.
        rng: The only source of randomness.
    """
    assert len(samples) == IMAGES, "one sample a quarter"
    canvas = np.empty((*size, 3), dtype=np.uint8)
    items: list[Box] = []
    for sample, tile in zip(samples, _tiles(size, rng), strict=True):
        view = framed(sample, (tile.rows, tile.columns))
        canvas[tile.slices] = view.image.permute(1, 2, 0).numpy()
        for box in boxes_of(view).items:
            x1, y1, x2, y2 = box.corners
            corners = (x1 + tile.left, y1 + tile.top, x2 + tile.left, y2 + tile.top)
            items.append(replace(box, corners=corners))
    image = torch.from_numpy(canvas).permute(2, 0, 1)  # pyright: ignore[reportUnknownMemberType]
    return View(image, Boxes(tuple(items), size))


def _tiles(size: Grid, rng: np.random.Generator) -> list[Rectangle]:
    """The quarters around a random point; none is empty where a side has `LEAST` pixels."""
    shares: list[float] = rng.uniform(*_CROSSING, 2).tolist()
    y, x = (round(share * side) for share, side in zip(shares, size, strict=True))
    rows, columns = ((0, y), (y, size[0] - y)), ((0, x), (x, size[1] - x))
    return [Rectangle(top, left, height, width) for top, height in rows for left, width in columns]
