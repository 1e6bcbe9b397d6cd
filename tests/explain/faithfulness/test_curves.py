from __future__ import annotations

import pytest
import torch

from linear import linear_model, true_map
from tiny import photo, tiny_model
from vitrail.explain.faithfulness.curves import Curves, curves
from vitrail.explain.faithfulness.erasing import FILLINGS, filled, probabilities
from vitrail.explain.faithfulness.pixels import ranks

IMAGES = torch.stack([photo(seed) for seed in range(4)])
RANDOM = torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("filling", FILLINGS)
def test_ends_are_the_image_and_the_filling(filling: str) -> None:
    model, classes = tiny_model(), [0, 1, 2, 0]
    both = curves(model, IMAGES, classes, ranks(RANDOM, IMAGES, (4, 4)), filling, steps=7)
    whole = probabilities(model, IMAGES, classes)
    blank = probabilities(model, filled(IMAGES, filling), classes)
    assert both.deletion.shape == both.insertion.shape == (4, 8)
    assert both.shares[0] == 0
    assert both.shares[-1] == 1
    torch.testing.assert_close(both.deletion[:, 0], whole)
    torch.testing.assert_close(both.deletion[:, -1], blank)
    torch.testing.assert_close(both.insertion[:, 0], blank)
    torch.testing.assert_close(both.insertion[:, -1], whole)


def test_the_most_salient_go_first_and_come_first() -> None:
    weights = torch.zeros(2, 3)
    weights[1, 0] = 1.0
    model = linear_model(weights, scale=20)
    image = torch.zeros(1, 3, 8, 12, dtype=torch.uint8)
    image[..., 4:, :4] = 255
    heat = torch.zeros(1, 2, 3)
    heat[0, 1, 0] = 1.0
    both = curves(model, image, [1], ranks(heat, image, (4, 4)), "mean", steps=6)
    # After one sixth of the pixels much of the one cell that counts is gone, or there; none later.
    assert both.deletion[0, 0] > 0.99
    assert both.insertion[0, -1] > 0.99
    assert both.deletion[0, 3] == pytest.approx(float(both.deletion[0, -1]), abs=1e-5)
    assert both.insertion[0, 3] > 0.99
    assert both.deletion_area[0] < 0.35 < 0.85 < both.insertion_area[0]


@pytest.mark.parametrize("seed", range(3))
def test_the_true_map_beats_random_and_inverted_ones(seed: int) -> None:
    weights = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
    model = linear_model(weights, scale=12)
    images = torch.stack([photo(10 * seed + i).clamp_max(200) for i in range(3)])
    images[:, :, :4, 4:8] //= 3
    images[:, :, 4:, 8:] //= 2
    truth = true_map(model, images)
    truth = truth - truth.amin(dim=(1, 2), keepdim=True)
    worst = truth.amax(dim=(1, 2), keepdim=True) - truth

    def areas(maps: torch.Tensor) -> tuple[float, float]:
        pixels = maps.repeat_interleave(4, 1).repeat_interleave(4, 2)
        both = curves(model, images, [1] * 3, ranks(pixels, images, (1, 1)), "mean", steps=6)
        return float(both.deletion_area.mean()), float(both.insertion_area.mean())

    deletion, insertion = areas(truth)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(10):
        other = areas(torch.rand(truth.shape, generator=generator))
        assert deletion < other[0]
        assert insertion > other[1]
    inverted = areas(worst)
    assert inverted[0] > deletion + 0.05
    assert inverted[1] < insertion - 0.05


def test_areas_are_trapezoids() -> None:
    shares = torch.tensor([0.0, 0.5, 1.0])
    found = Curves(shares, torch.tensor([[1.0, 0.5, 0.0]]), torch.tensor([[0.0, 1.0, 1.0]]))
    torch.testing.assert_close(found.deletion_area, torch.tensor([0.5]))
    torch.testing.assert_close(found.insertion_area, torch.tensor([0.75]))


def test_the_batch_size_changes_nothing() -> None:
    order = ranks(RANDOM, IMAGES, (4, 4))
    a, b = (
        curves(tiny_model(), IMAGES, [0, 1, 2, 0], order, "blur", steps=5, batch_size=size)
        for size in (1, 64)
    )
    torch.testing.assert_close(a.deletion, b.deletion)
    torch.testing.assert_close(a.insertion, b.insertion)
