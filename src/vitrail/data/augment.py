"""Training-time augmentation: one random view of an image, of the size that the model is made for.

Every random number comes from the generator that is passed in, so a view is a function of
(seed, epoch, index) and of nothing else.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from vitrail.config import Config
from vitrail.data.color_jitter import ColorJitter, color_jitter
from vitrail.data.elastic import Elastic, elastic
from vitrail.data.preprocess import CenterCrop, Line, Preprocess
from vitrail.data.rand_augment import RandAugment, rand_augment

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class NoGeometry(Config):
    """The evaluation-time resize and crop."""

    kind: Literal["none"] = "none"


class RandomResizedCrop(Config):
    """A random rectangle, stretched to the size (Szegedy et al. 2015, section 6).

    Attributes:
        scale: Least and largest share of the image's area.
        ratio: Least and largest width / height of the rectangle.
    """

    kind: Literal["random_resized_crop"] = "random_resized_crop"
    scale: tuple[Positive, Annotated[float, Field(gt=0, le=1)]] = (0.08, 1.0)
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)

    @model_validator(mode="after")
    def _ordered(self) -> RandomResizedCrop:
        if self.scale[0] > self.scale[1] or self.ratio[0] > self.ratio[1]:
            raise ValueError("scale and ratio are written (least, largest)")
        return self


class RandomCrop(Config):
    """Resize the short side to size / crop_pct, then cut the size out at a random place.

    Attributes:
        crop_pct: Share of the short side that the crop keeps.
    """

    kind: Literal["random_crop"] = "random_crop"
    crop_pct: float = Field(default=0.875, gt=0, le=1)


class PadCrop(Config):
    """Pad all sides, then cut the size out at a random place (He et al. 2015, section 4.2).

    Attributes:
        padding: Pixels on each side.
        mode: What the padding shows: black, the edge pixel, or the mirrored image.
    """

    kind: Literal["pad_crop"] = "pad_crop"
    padding: int = Field(default=4, ge=0)
    mode: Literal["constant", "edge", "reflect"] = "constant"


class Affine(Config):
    """A small rotation, shift, scaling and shear about the centre, for small images.

    Attributes:
        degrees: Rotation, from -degrees to degrees.
        translate: Shift as a share of each side, from -translate to translate.
        scale: Least and largest enlargement.
        shear: Angle of the shear along x in degrees, from -shear to shear.
        fill: Grey level of the places that are left empty, 0 to 255.
    """

    kind: Literal["affine"] = "affine"
    degrees: float = Field(default=10.0, ge=0, le=180)
    translate: float = Field(default=0.1, ge=0, lt=1)
    scale: tuple[Positive, Positive] = (0.9, 1.1)
    shear: float = Field(default=0.0, ge=0, lt=90)
    fill: int = Field(default=0, ge=0, le=255)


Geometry = Annotated[
    NoGeometry | RandomResizedCrop | RandomCrop | PadCrop | Affine | Elastic,
    Field(discriminator="kind"),
]


class AugmentConfig(Config):
    """What happens to a training image, in the order of the fields.

    Attributes:
        geometry: How the image is brought to size.
        hflip: Chance of a mirror image.
        vflip: Chance of an upside-down image.
        rand_augment: RandAugment, or None.
        color_jitter: Colour jitter, or None.
        erasing: Chance that one rectangle of 2 % to a third of the area is erased (Zhong et al.
            2017).
        erasing_value: Erase with random pixels around the mean colour, or with the mean colour.
    """

    geometry: Geometry = NoGeometry()
    hflip: Probability = 0.0
    vflip: Probability = 0.0
    rand_augment: RandAugment | None = None
    color_jitter: ColorJitter | None = None
    erasing: Probability = 0.0
    erasing_value: Literal["pixel", "mean"] = "pixel"


class Augment:
    """A random view of an image, of exactly the size that the preprocessing gives.

    Args:
        config: What to do.
        preprocess: Size, filter and colours that the model is made for.
    """

    def __init__(self, config: AugmentConfig, preprocess: Preprocess) -> None:
        self.config, self.preprocess = config, preprocess
        rgb = slice(None) if preprocess.channel_order == "rgb" else slice(None, None, -1)
        self._mean = np.array(preprocess.mean[rgb], dtype=np.float32) * 255
        self._std = np.array(preprocess.std[rgb], dtype=np.float32) * 255

    def __call__(
        self, image: UInt8[Tensor, "3 H W"], rng: np.random.Generator
    ) -> UInt8[Tensor, "3 h w"]:
        """Draw one view.

        Args:
            image: RGB, 0 to 255; it is not changed.
            rng: The only source of randomness.

        Returns:
            RGB, 0 to 255, of size `preprocess.output_size(H, W)`; it may share the image's memory.
        """
        config = self.config
        image = self._geometry(image, rng)
        flipped = [
            axis
            for axis, chance in ((2, config.hflip), (1, config.vflip))
            if chance and rng.random() < chance
        ]
        if flipped:
            image = image.flip(flipped)
        if config.rand_augment or config.color_jitter:
            image = self._recolor(image, rng)
        if config.erasing and rng.random() < config.erasing:
            image = self._erase(image, rng)
        return image

    def _geometry(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        match self.config.geometry:
            case RandomResizedCrop() as crop:
                height, width = image.shape[1:]
                top, left, rows, columns = _rectangle(crop, height, width, rng)
                view = image[:, top : top + rows, left : left + columns]
                return self.preprocess.scale(view, self.preprocess.output_size(height, width))
            case RandomCrop(crop_pct=crop_pct):
                return self._random_crop(image, crop_pct, rng)
            case PadCrop() as crop:
                return _pad_crop(crop, self._prepared(image), rng)
            case Affine() as affine:
                return _affine(affine, self._prepared(image), rng)
            case Elastic() as config:
                return _tensor(elastic(config, _pixels(self._prepared(image)), rng))
            case NoGeometry():
                return self._prepared(image)

    def _prepared(self, image: Tensor) -> Tensor:
        """As in evaluation, but for a line that is too long: all of a batch have one size."""
        prepared, rule = self.preprocess.prepare(image), self.preprocess.resize
        if isinstance(rule, Line) and prepared.shape[2] != rule.size[1]:
            return self.preprocess.scale(image, rule.size)
        return prepared

    def _random_crop(self, image: Tensor, crop_pct: float, rng: np.random.Generator) -> Tensor:
        """Cut first, then resize what is kept: the same view to a fraction of a pixel."""
        height, width = image.shape[1:]
        size = self.preprocess.output_size(height, width)
        resized = CenterCrop(size=size, crop_pct=crop_pct).resized(height, width)
        rows = min(height, max(1, round(size[0] * height / resized[0])))
        columns = min(width, max(1, round(size[1] * width / resized[1])))
        down, across = rng.random(2).tolist()
        top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
        return self.preprocess.scale(image[:, top : top + rows, left : left + columns], size)

    def _recolor(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        picture = Image.fromarray(_pixels(image))
        if self.config.rand_augment:
            red, green, blue = (round(value) for value in self._mean.tolist())
            picture = rand_augment(picture, self.config.rand_augment, rng, (red, green, blue))
        if self.config.color_jitter:
            picture = color_jitter(self.config.color_jitter, picture, rng)
        return _tensor(np.array(picture))

    def _erase(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        pixels = _pixels(image)
        height, width = pixels.shape[:2]
        for _ in range(_TRIES):
            share, aspect, down, across = rng.random(4).tolist()
            area = height * width * (0.02 + share * (1 / 3 - 0.02))
            ratio = math.exp((2 * aspect - 1) * math.log(0.3))
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < rows < height and 0 < columns < width:
                top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
                pixels = pixels.copy()
                pixels[top : top + rows, left : left + columns] = self._filling(rows, columns, rng)
                return _tensor(pixels)
        return image

    def _filling(self, rows: int, columns: int, rng: np.random.Generator) -> NDArray[np.float32]:
        if self.config.erasing_value == "mean":
            return self._mean
        noise = rng.standard_normal((rows, columns, 3), dtype=np.float32)
        noise *= self._std
        noise += self._mean
        return np.clip(noise, 0, 255, out=noise)


_TRIES = 10


def _rectangle(
    crop: RandomResizedCrop, height: int, width: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width; the largest centred one if no random one fits."""
    low, high = math.log(crop.ratio[0]), math.log(crop.ratio[1])
    for _ in range(_TRIES):
        share, aspect, down, across = rng.random(4).tolist()
        area = height * width * (crop.scale[0] + share * (crop.scale[1] - crop.scale[0]))
        ratio = math.exp(low + aspect * (high - low))
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
            return top, left, rows, columns
    rows = min(height, max(1, round(width / crop.ratio[0])))
    columns = min(width, max(1, round(height * crop.ratio[1])))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _pad_crop(crop: PadCrop, image: Tensor, rng: np.random.Generator) -> Tensor:
    height, width = image.shape[1:]
    places = 2 * crop.padding + 1
    top, left = (int(draw * places) for draw in rng.random(2).tolist())
    pixels = _pixels(image)
    if crop.mode == "constant":
        padding = crop.padding
        canvas = np.zeros((height + 2 * padding, width + 2 * padding, 3), dtype=np.uint8)
        canvas[padding : padding + height, padding : padding + width] = pixels
        return _tensor(canvas[top : top + height, left : left + width])
    rows = _padded(height, crop.padding, crop.mode)[top : top + height]
    columns = _padded(width, crop.padding, crop.mode)[left : left + width]
    return _tensor(pixels.take(rows, axis=0).take(columns, axis=1))


@lru_cache(maxsize=64)
def _padded(side: int, padding: int, mode: Literal["edge", "reflect"]) -> NDArray[np.int64]:
    """For each place of a padded line, the place whose pixel it shows."""
    return np.pad(np.arange(side), padding, mode=mode)


def _affine(affine: Affine, image: Tensor, rng: np.random.Generator) -> Tensor:
    """Rotate, shear and scale about the centre, then shift.

    The drawn map is L = scale * rotation * shear; Pillow wants the way back from the result to the
    image, with the centre kept in place.
    """
    height, width = image.shape[1:]
    turn, lean, size, down, across = rng.random(5).tolist()
    angle = math.radians(affine.degrees) * (2 * turn - 1)
    shear = math.tan(math.radians(affine.shear) * (2 * lean - 1))
    scale = affine.scale[0] + size * (affine.scale[1] - affine.scale[0])
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    a, b, d, e = cos + shear * sin, sin - shear * cos, -sin, cos
    x = width / 2 + affine.translate * (2 * across - 1) * width
    y = height / 2 + affine.translate * (2 * down - 1) * height
    matrix = (a, b, width / 2 - a * x - b * y, d, e, height / 2 - d * x - e * y)
    picture = Image.fromarray(_pixels(image)).transform(
        (width, height),
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.BILINEAR,
        fillcolor=(affine.fill,) * 3,
    )
    return _tensor(np.array(picture))


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    """A view of height, width and channels."""
    return image.permute(1, 2, 0).numpy()


def _tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """A view of channels, height and width."""
    return torch.from_numpy(pixels).permute(2, 0, 1)  # pyright: ignore[reportUnknownMemberType]
