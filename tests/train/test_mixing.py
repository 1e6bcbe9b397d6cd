"""Mixing: targets stay distributions, and shares are those of the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitrail.train.mixing import mix, smooth
from vitrail.train.recipe import MixRecipe

RECIPES = {
    "mixup": MixRecipe(mixup=0.8),
    "cutmix": MixRecipe(cutmix=1.0),
    "both": MixRecipe(mixup=0.8, cutmix=1.0),
    "sometimes": MixRecipe(mixup=0.8, cutmix=1.0, probability=0.5),
}


def flat_images(count: int = 5, height: int = 12, width: int = 7) -> Tensor:
    """Image i is of the one colour 20 * i, so that pixels tell where they come from."""
    colours = torch.arange(count, dtype=torch.uint8).mul(20).view(-1, 1, 1, 1)
    return colours.expand(count, 3, height, width).clone()


def one_hot(count: int = 5) -> Tensor:
    return torch.eye(count, dtype=torch.float32)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", RECIPES)
@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_targets_sum_to_one(name: str, seed: int) -> None:
    images, targets = mix(flat_images(), one_hot(), RECIPES[name], rng(seed))
    torch.testing.assert_close(targets.sum(1), torch.ones(5))
    assert (targets >= 0).all()
    assert images.shape == flat_images().shape
    assert images.float().min() >= 0
    assert images.float().max() <= 80


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_cutmix_share_is_the_share_of_pixels(seed: int) -> None:
    before = flat_images()
    images, targets = mix(before, one_hot(), RECIPES["cutmix"], rng(seed))
    assert images.dtype == torch.uint8
    for row in range(5):
        partner = 4 - row
        own = images[row, 0] == 20 * row
        other = images[row, 0] == 20 * partner
        assert (own | other).all(), "no third colour"
        assert (images[row] == images[row, :1]).all(), "channels stay together"
        if row != partner:
            assert targets[row, row].item() == pytest.approx(own.double().mean().item(), abs=1e-6)
            assert targets[row, partner].item() == pytest.approx(
                other.double().mean().item(), abs=1e-6
            )


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_mixup_is_convex(seed: int) -> None:
    images, targets = mix(flat_images(), one_hot(), RECIPES["mixup"], rng(seed))
    keep = targets[0, 0]
    assert 0 <= keep <= 1
    expected = flat_images().float() * keep + flat_images().flip(0).float() * (1 - keep)
    torch.testing.assert_close(images.float(), expected, atol=1e-3, rtol=0)


def test_cutmix_cuts_rectangles() -> None:
    images, _ = mix(flat_images(), one_hot(), RECIPES["cutmix"], rng(1))
    pasted = images[0, 0] != 0
    assert pasted.any(), "this seed cuts"
    rows, columns = pasted.any(1).nonzero()[:, 0], pasted.any(0).nonzero()[:, 0]
    assert pasted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_off_is_the_identity() -> None:
    images, targets = flat_images(), one_hot()
    for recipe in (MixRecipe(), MixRecipe(mixup=1, probability=0)):
        mixed, same = mix(images, targets, recipe, rng(0))
        assert mixed is images
        assert same is targets


@pytest.mark.parametrize("name", RECIPES)
def test_a_function_of_the_generator(name: str) -> None:
    def run(seed: int) -> tuple[Tensor, Tensor]:
        return mix(flat_images(), one_hot(), RECIPES[name], rng(seed))

    for seed in range(4):
        for a, b in zip(run(seed), run(seed), strict=True):
            assert torch.equal(a, b)
    assert len({run(seed)[1].numpy().tobytes() for seed in range(8)}) > 1


def test_the_input_is_not_changed() -> None:
    images, targets = flat_images(), one_hot()
    for recipe in RECIPES.values():
        mix(images, targets, recipe, rng(3))
    assert torch.equal(images, flat_images())
    assert torch.equal(targets, one_hot())


def test_both_take_turns_and_probability_is_a_share() -> None:
    kinds = [mix(flat_images(), one_hot(), RECIPES["both"], rng(s))[0].dtype for s in range(200)]
    assert 60 < kinds.count(torch.float32) < 140
    images = flat_images()
    same = sum(
        mix(images, one_hot(), RECIPES["sometimes"], rng(s))[0] is images for s in range(200)
    )
    assert 60 < same < 140


def test_smoothing_by_hand() -> None:
    rows = smooth(one_hot(4), 0.2, multilabel=False)
    torch.testing.assert_close(rows[0], torch.tensor([0.85, 0.05, 0.05, 0.05]))
    rows = smooth(torch.tensor([[1.0, 0.0, 1.0]]), 0.2, multilabel=True)
    torch.testing.assert_close(rows[0], torch.tensor([0.9, 0.1, 0.9]))
    targets = one_hot(3)
    assert smooth(targets, 0.0, multilabel=False) is targets
