"""Random brightness, contrast and saturation."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance
from pydantic import Field

from vitrail.config import Config


class ColorJitter(Config):
    """Random brightness, contrast and saturation, in random order.

    Attributes:
        brightness: The factor is drawn from 1 - brightness to 1 + brightness.
        contrast: Likewise.
        saturation: Likewise.
    """

    brightness: float = Field(default=0.0, ge=0)
    contrast: float = Field(default=0.0, ge=0)
    saturation: float = Field(default=0.0, ge=0)


def color_jitter(
    config: ColorJitter, picture: Image.Image, rng: np.random.Generator
) -> Image.Image:
    """Recolour an image.

    Args:
        config: How much.
        picture: RGB; it is not changed.
        rng: The only source of randomness.
    """
    steps = (
        (ImageEnhance.Brightness, config.brightness),
        (ImageEnhance.Contrast, config.contrast),
        (ImageEnhance.Color, config.saturation),
    )
    order: list[int] = rng.permutation(len(steps)).tolist()
    for step in order:
        enhance, strength = steps[step]
        if strength:
            factor = 1 + strength * (2 * rng.random() - 1)
            picture = enhance(picture).enhance(max(0.0, factor))
    return picture
