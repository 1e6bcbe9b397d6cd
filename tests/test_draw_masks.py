from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from masked import blobs, objects_of, regions_of
from vitrail.draw_masks import FILL, draw_masks, edge, paint
from vitrail.masks import encode
from vitrail.palette import FIRST, colours
from vitrail.types import Region, Segmentation

NAMES = ("cat", "dog", "größer; 猫")


def grey(height: int, width: int) -> torch.Tensor:
    return torch.full((3, height, width), 100, dtype=torch.uint8)


def square(top: int, left: int, side: int, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_edge_full_fill_half_and_nothing_else() -> None:
    mask = square(10, 20, 12, (40, 60))
    found = Segmentation((40, 60), (Region("dog", 0.5, encode(mask)),))
    image = grey(40, 60)
    drawn = draw_masks(image, found, NAMES)
    assert torch.equal(image, grey(40, 60)), "the image itself is left alone"
    colour = torch.tensor(colours(3)[1], dtype=torch.float64)
    rim = edge(mask, 1)
    assert rim.sum() == 4 * 11
    shown = drawn[:, :40, :60].to(torch.float64)
    assert (shown[:, torch.from_numpy(rim)] == colour[:, None]).all()
    inner = shown[:, torch.from_numpy(mask & ~rim)]
    assert (inner - (FILL * colour + (1 - FILL) * 100)[:, None]).abs().max() <= 0.5
    assert (shown[:, torch.from_numpy(~mask)] == 100).all()


def test_a_legend_stands_below() -> None:
    found = regions_of(blobs(0, 3, (60, 200)), NAMES)
    drawn = draw_masks(grey(60, 200), found, NAMES)
    assert drawn.shape[1] > 60
    legend = drawn[:, 60:].permute(1, 2, 0).reshape(-1, 3)
    for colour in colours(3):
        assert (legend == torch.tensor(colour)).all(dim=1).any(), colour
    nothing = Segmentation((60, 200), ())
    assert torch.equal(draw_masks(grey(60, 200), nothing, NAMES), grey(60, 200))


def test_the_border_of_the_image_is_no_edge() -> None:
    mask = np.ones((30, 40), dtype=bool)
    found = Segmentation((30, 40), (Region("cat", 0.5, encode(mask)),))
    painted = paint(grey(30, 40), found, [(0, 0, 0)])
    assert painted.unique().tolist() == [round(100 * (1 - FILL))]
    assert edge(mask, 2).sum() == 30 * 40 - 26 * 36


def test_the_surest_object_is_on_top() -> None:
    mask = encode(square(2, 2, 9, (20, 20)))
    found = Segmentation((20, 20), (Region("cat", 0.9, mask), Region("cat", 0.8, mask)))
    painted = paint(grey(20, 20), found, [(255, 0, 0), (0, 0, 255)])
    assert painted[:, 2, 2].tolist() == [255, 0, 0]


def test_neighbouring_objects_have_different_colours() -> None:
    size = (20, 200)
    masks = [square(5, 10 * i, 10, size) for i in range(20)]
    found = Segmentation(size, tuple(Region("cat", 0.5, encode(mask)) for mask in masks))
    drawn = draw_masks(grey(*size), found, NAMES, {"cat"})
    seen = [tuple(drawn[:, 5, 10 * i + 5].tolist()) for i in range(20)]
    assert set(seen) <= set(FIRST)
    assert all(a != b for a, b in pairwise(seen))
    apart = Segmentation(size, tuple(found.regions[i] for i in (0, 10)))
    drawn = draw_masks(grey(*size), apart, NAMES)
    assert drawn[:, 5, 5].tolist() == drawn[:, 5, 105].tolist() == list(colours(1)[0])


@pytest.mark.parametrize("side", [100, 640, 2000])
def test_letters_grow_with_the_image(side: int) -> None:
    found = Segmentation((side, side), (Region("cat", 0.5, encode(square(0, 0, 9, (side, side)))),))
    drawn = draw_masks(grey(side, side), found, NAMES)
    assert drawn.shape[1] - side >= side / 45


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(0, 12), st.booleans())
def test_any_regions(seed: int, count: int, objects: bool) -> None:
    found = objects_of(seed, count, NAMES)
    drawn = draw_masks(grey(*found.size), found, NAMES, NAMES if objects else ())
    assert drawn.dtype == torch.uint8
    assert drawn.shape[1] >= 20
    assert drawn.shape[2] >= 30
