"""Mixup, CutMix and label smoothing, on a batch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from vitrail.train.recipe import MixRecipe


def smooth(
    targets: Float[Tensor, "B C"], amount: float, *, multilabel: bool
) -> Float[Tensor, "B C"]:
    """Label smoothing (Szegedy et al. 2016, section 7); multi-label rows move towards 1/2."""
    if amount == 0:
        return targets
    floor = 0.5 if multilabel else 1 / targets.shape[1]
    return targets * (1 - amount) + amount * floor


def mix(
    images: UInt8[Tensor, "B 3 H W"],
    targets: Float[Tensor, "B C"],
    recipe: MixRecipe,
    rng: np.random.Generator,
) -> tuple[UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"], Float[Tensor, "B C"]]:
    """Mix each image of a batch, and its target, with that of the image opposite it.

    Args:
        images: Pixels, 0 to 255.
        targets: One row an image.
        recipe: Which mixing, how strongly and how often.
        rng: The only source of randomness.

    Returns:
        Images (float32, still 0 to 255, after mixup) and targets.
    """
    if (recipe.mixup == 0 and recipe.cutmix == 0) or rng.random() >= recipe.probability:
        return images, targets
    cut = recipe.mixup == 0 or (recipe.cutmix > 0 and rng.random() < 0.5)
    alpha = recipe.cutmix if cut else recipe.mixup
    keep = float(rng.beta(alpha, alpha))
    if cut:
        images, keep = _cutmix(images, keep, rng)
    else:
        images = images.float().mul(keep).add(images.flip(0).float(), alpha=1 - keep)
    return images, targets * keep + targets.flip(0) * (1 - keep)


def _cutmix(
    images: UInt8[Tensor, "B 3 H W"], keep: float, rng: np.random.Generator
) -> tuple[UInt8[Tensor, "B 3 H W"], float]:
    """Paste a rectangle of the opposite image; also the share of the image that was kept."""
    height, width = images.shape[2:]
    side = (1 - keep) ** 0.5
    y, x = rng.random(2) * (height, width)
    top, bottom = (int(np.clip(y + sign * side * height / 2, 0, height)) for sign in (-1, 1))
    left, right = (int(np.clip(x + sign * side * width / 2, 0, width)) for sign in (-1, 1))
    images = images.clone()
    images[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)
