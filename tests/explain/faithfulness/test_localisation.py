from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.data.preprocess import CenterCrop, Preprocess, Squash, TokenBudget
from vitrail.explain.faithfulness.localisation import chance, energy, pointing, prepared_mask


def mask_of(rows: slice, columns: slice, size: tuple[int, int] = (8, 12)) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


MASK = mask_of(slice(4, 8), slice(0, 4))


def test_a_perfect_map_has_all() -> None:
    heat = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    assert pointing(heat, MASK, (4, 4)) == 1
    assert energy(heat, MASK, (4, 4)) == 1


def test_a_wrong_map_has_nothing() -> None:
    heat = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    assert pointing(heat, MASK, (4, 4)) == 0
    assert energy(heat, MASK, (4, 4)) == 0


def test_ties_are_the_expected_value() -> None:
    heat = torch.tensor([[3.0, 0.0, 3.0], [3.0, 0.0, 3.0]])
    assert pointing(heat, MASK, (4, 4)) == 0.25
    assert energy(heat, MASK, (4, 4)) == 0.25
    assert pointing(torch.zeros(2, 3), MASK, (4, 4)) == pytest.approx(1 / 6)
    assert energy(torch.zeros(2, 3), MASK, (4, 4)) == pytest.approx(1 / 6) == chance(MASK)


def test_the_centre_of_the_cell_counts() -> None:
    heat = torch.tensor([[0.0, 1.0], [0.0, 0.0]])  # the cell's centre is pixel (2, 6)
    assert pointing(heat, mask_of(slice(0, 3), slice(0, 7)), (4, 4)) == 1
    assert pointing(heat, mask_of(slice(0, 2), slice(0, 7)), (4, 4)) == 0
    assert pointing(heat, mask_of(slice(0, 3), slice(0, 6)), (4, 4)) == 0


def test_a_cell_that_hangs_over_points_at_the_edge() -> None:
    heat = torch.tensor([[0.0, 1.0]])
    assert pointing(heat, mask_of(slice(0, 2), slice(4, 5), (2, 5)), (4, 4)) == 1


def test_a_cells_energy_is_spread_over_the_pixels_in_sight() -> None:
    heat = torch.tensor([[1.0, 1.0]])  # 16 pixels, and 4 of a column
    assert energy(heat, mask_of(slice(0, 4), slice(4, 5), (4, 5)), (4, 4)) == pytest.approx(4 / 20)


def test_random_maps_are_at_chance() -> None:
    heat = torch.rand(400, 10, 10, generator=torch.Generator().manual_seed(0))
    mask = mask_of(slice(3, 11), slice(21, 29), (40, 40))
    assert chance(mask) == 0.04
    for measure in (pointing, energy):
        assert np.mean([measure(h, mask, (4, 4)) for h in heat]) == pytest.approx(0.04, abs=0.03)


@pytest.mark.parametrize(
    "resize",
    [
        Squash(size=(10, 20)),
        CenterCrop(size=(16, 16), crop_pct=0.8),
        TokenBudget(patch=4, tokens=20),
    ],
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_mask_lies_where_the_image_does(resize: object, interpolation: str) -> None:
    """An image that is white on the evidence alone shows where it went."""
    preprocess = Preprocess(resize=resize, interpolation=interpolation)
    mask = mask_of(slice(12, 26), slice(15, 39), (40, 60))
    image = (mask.to(torch.uint8) * 255).expand(3, -1, -1).clone()
    found = prepared_mask(mask, preprocess)
    seen = preprocess.prepare(image)[0]
    assert found.shape == seen.shape
    assert bool(found.any())
    assert not bool(found.all())
    assert bool((seen[found] >= 127).all())
    assert bool((seen[~found] <= 128).all())


def test_a_mask_that_fits_stays_as_it_is() -> None:
    preprocess = Preprocess(resize=CenterCrop(size=(8, 12), crop_pct=1.0))
    assert torch.equal(prepared_mask(MASK, preprocess), MASK)


def test_a_mask_may_be_cut_off() -> None:
    preprocess = Preprocess(resize=CenterCrop(size=(8, 8), crop_pct=0.5))
    corner = mask_of(slice(0, 2), slice(0, 2), (16, 16))
    assert not bool(prepared_mask(corner, preprocess).any())
