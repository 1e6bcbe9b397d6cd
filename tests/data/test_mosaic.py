"""Four images fill a view without a gap."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from marked import marked
from vitrail.data.framing import boxes_of
from vitrail.data.mosaic import IMAGES, LEAST, _tiles, mosaic
from vitrail.types import Box, Boxes, Grid, Sample, View

SIDES = st.integers(LEAST, 200)


@given(height=SIDES, width=SIDES, seed=st.integers(0, 1000))
def test_tiles_cover_the_view_once(height: int, width: int, seed: int) -> None:
    covered = np.zeros((height, width), dtype=np.int64)
    tiles = _tiles((height, width), np.random.default_rng(seed))
    for tile in tiles:
        assert min(tile.rows, tile.columns) > 0
        covered[tile.slices] += 1
    assert len(tiles) == IMAGES
    assert (covered == 1).all()


def test_each_box_lies_in_its_quarter() -> None:
    samples = [marked([(0, 0, 5, 5)], (5, 5), [label]) for label in range(IMAGES)]

    def framed(sample: Sample, size: Grid) -> View:
        boxes = sample.target
        assert isinstance(boxes, Boxes)
        colour = sample.image[:, :1, :1].expand(3, *size)
        return View(colour, Boxes((Box((0, 0, size[1], size[0]), boxes.items[0].label),), size))

    view = mosaic(samples, framed, (40, 60), np.random.default_rng(1))
    assert view.image.shape == (3, 40, 60)
    items = boxes_of(view).items
    assert [box.label for box in items] == list(range(IMAGES))
    for box, sample in zip(items, samples, strict=True):
        x1, y1, x2, y2 = map(int, box.corners)
        colour = sample.image[:, :1, :1]
        assert torch.equal(view.image[:, y1:y2, x1:x2], colour.expand(3, y2 - y1, x2 - x1))
    assert items[0].corners[2:] == items[3].corners[:2], "they meet in a point"
