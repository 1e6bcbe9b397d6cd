"""RandAugment (Cubuk et al. 2020): a few random operations of one shared magnitude.

Operations and ranges are those of the "increasing" set, as in the recipes of DeiT: every range
begins near the identity at magnitude 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field

from vitrail.config import Config

_MAX = 10.0
Fill = tuple[int, int, int]


class RandAugment(Config):
    """How many operations, and how strong.

    Attributes:
        ops: Operations an image, drawn with replacement.
        magnitude: Strength, 0 to 10.
        std: Standard deviation of the strength from one operation to the next.
        probability: Chance that a drawn operation is carried out.
    """

    ops: int = Field(default=2, ge=1)
    magnitude: float = Field(default=9.0, ge=0, le=_MAX)
    std: float = Field(default=0.5, ge=0)
    probability: float = Field(default=0.5, ge=0, le=1)


def rand_augment(
    image: Image.Image, config: RandAugment, rng: np.random.Generator, fill: Fill
) -> Image.Image:
    """Apply random operations.

    Args:
        image: RGB.
        config: Number and strength of the operations.
        rng: The only source of randomness.
        fill: Colour of the places that geometry leaves empty.
    """
    for _ in range(config.ops):
        choice, chance, sign, smooth = rng.random(4).tolist()
        strength = rng.normal(config.magnitude, config.std) if config.std else config.magnitude
        if chance < config.probability:
            level = min(max(strength, 0.0), _MAX) / _MAX
            operation = OPERATIONS[int(choice * len(OPERATIONS))]
            image = operation(image, _Draw(level, -1 if sign < 0.5 else 1, smooth < 0.5, fill))
    return image


class _Draw:
    """What one operation needs to know: level 0..1, sign, filter and empty colour."""

    __slots__ = ("fill", "level", "sign", "smooth")

    def __init__(self, level: float, sign: int, smooth: bool, fill: Fill) -> None:  # noqa: FBT001
        self.level, self.sign, self.smooth, self.fill = level, sign, smooth, fill

    @property
    def factor(self) -> float:
        """Of an enhancement: 1 is the identity; 0.1 to 1.9."""
        return max(0.1, 1 + self.sign * 0.9 * self.level)

    def affine(self, image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
        """Resample; the matrix maps places of the result to places of the image."""
        resampling = Image.Resampling.BICUBIC if self.smooth else Image.Resampling.BILINEAR
        return image.transform(
            image.size, Image.Transform.AFFINE, matrix, resampling, fillcolor=self.fill
        )


def _auto_contrast(image: Image.Image, draw: _Draw) -> Image.Image:
    del draw
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, draw: _Draw) -> Image.Image:
    del draw
    return ImageOps.equalize(image)


def _invert(image: Image.Image, draw: _Draw) -> Image.Image:
    del draw
    return ImageOps.invert(image)


def _rotate(image: Image.Image, draw: _Draw) -> Image.Image:
    resampling = Image.Resampling.BICUBIC if draw.smooth else Image.Resampling.BILINEAR
    return image.rotate(draw.sign * 30 * draw.level, resampling, fillcolor=draw.fill)


def _posterize(image: Image.Image, draw: _Draw) -> Image.Image:
    bits = 4 - int(4 * draw.level)
    # Pillow refuses to keep no bit at all; that image is black.
    return ImageOps.posterize(image, bits) if bits else Image.new("RGB", image.size)


def _solarize(image: Image.Image, draw: _Draw) -> Image.Image:
    return ImageOps.solarize(image, 256 - int(256 * draw.level))


def _solarize_add(image: Image.Image, draw: _Draw) -> Image.Image:
    added = int(110 * draw.level)
    return image.point([min(255, v + added) if v < 128 else v for v in range(256)] * 3)


def _color(image: Image.Image, draw: _Draw) -> Image.Image:
    return ImageEnhance.Color(image).enhance(draw.factor)


def _contrast(image: Image.Image, draw: _Draw) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(draw.factor)


def _brightness(image: Image.Image, draw: _Draw) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(draw.factor)


def _sharpness(image: Image.Image, draw: _Draw) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(draw.factor)


def _shear_x(image: Image.Image, draw: _Draw) -> Image.Image:
    return draw.affine(image, (1.0, draw.sign * 0.3 * draw.level, 0.0, 0.0, 1.0, 0.0))


def _shear_y(image: Image.Image, draw: _Draw) -> Image.Image:
    return draw.affine(image, (1.0, 0.0, 0.0, draw.sign * 0.3 * draw.level, 1.0, 0.0))


def _translate_x(image: Image.Image, draw: _Draw) -> Image.Image:
    shift = draw.sign * 0.45 * draw.level * image.width
    return draw.affine(image, (1.0, 0.0, shift, 0.0, 1.0, 0.0))


def _translate_y(image: Image.Image, draw: _Draw) -> Image.Image:
    shift = draw.sign * 0.45 * draw.level * image.height
    return draw.affine(image, (1.0, 0.0, 0.0, 0.0, 1.0, shift))


OPERATIONS: tuple[Callable[[Image.Image, _Draw], Image.Image], ...] = (
    _auto_contrast,
    _equalize,
    _invert,
    _rotate,
    _posterize,
    _solarize,
    _solarize_add,
    _color,
    _contrast,
    _brightness,
    _sharpness,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
)
