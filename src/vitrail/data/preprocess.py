"""The one evaluation-time preprocessing: any upright photo to the pixels that a model was made for.

It is part of the model's config and stored in the model file; evaluation, prediction, export and
serving all run it. Pixels stay uint8: normalisation happens on the whole batch, in the model.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Literal

import torch
from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from vitrail.config import Config
from vitrail.data.segment_views import filled_void, resampled
from vitrail.data.tiles import Tiles, Windows
from vitrail.types import Boxes, Grid, Sample, Segments, Target, View

Interpolation = Literal["bilinear", "bicubic"]
Size = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
Colour = tuple[float, float, float]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
HALF: Colour = (0.5, 0.5, 0.5)
"""Mean and standard deviation that map 0..1 to -1..1 (ViT, google-research)."""

LONGEST = 16
"""Widths of a `Line` that the longest line may have at its own scale."""


class CenterCrop(Config):
    """Resize the short side to `floor(size / crop_pct)`, then cut out the centre.

    The integer rounding is that of timm's evaluation transform.

    Attributes:
        size: Height and width of the result.
        crop_pct: Share of the resized image that the crop keeps, at most 1.
    """

    kind: Literal["center_crop"] = "center_crop"
    size: Size
    crop_pct: float = Field(default=0.875, gt=0, le=1)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size of the whole image before the crop."""
        rows, columns = (math.floor(side / self.crop_pct) for side in self.size)
        if rows == columns:
            # Truncated, as torchvision's Resize does.
            short, long = min(height, width), max(height, width)
            longer = int(rows * long / short)
            return (rows, longer) if height <= width else (longer, rows)
        ratio = min(height / rows, width / columns)
        return round(height / ratio), round(width / ratio)


class Squash(Config):
    """Stretch the image to the size, whatever its aspect ratio.

    Attributes:
        size: Height and width of the result.
    """

    kind: Literal["squash"] = "squash"
    size: Size

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The size itself."""
        del height, width
        return self.size


class TokenBudget(Config):
    """Keep the aspect ratio and fill a number of patches (NaViT, Dehghani et al. 2023).

    Sides are rounded to multiples of the patch. A small image is enlarged up to the budget, never
    beyond it.

    Attributes:
        patch: Side of a patch in pixels.
        tokens: Most patches that an image may have.
    """

    kind: Literal["token_budget"] = "token_budget"
    patch: int = Field(gt=0)
    tokens: int = Field(gt=0)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Multiples of the patch, with at most `tokens` patches."""
        short, long = min(height, width), max(height, width)
        few = round(math.sqrt(self.tokens * short / long))
        few = min(max(few, 1), math.isqrt(self.tokens))
        many = min(max(round(math.sqrt(self.tokens * long / short)), 1), self.tokens // few)
        few, many = few * self.patch, many * self.patch
        return (few, many) if height <= width else (many, few)


class Line(Config):
    """Bring a line of text to one height at its own scale, and fill up to the width.

    What is filled repeats the last column. A line that is longer keeps its scale and gets the next
    multiple of the height; training, whose batches have one size, squeezes it instead. Beyond
    `LONGEST` widths it is squeezed anyway: a hair of 1 x 30,000 pixels is no line of text.

    Attributes:
        size: Height, and the width that most lines fit into.
    """

    kind: Literal["line"] = "line"
    size: Size

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size of the image before it is filled up."""
        columns = round(width * self.size[0] / height)
        return self.size[0], min(max(1, columns), LONGEST * self.size[1])

    def filled(self, height: int, width: int) -> tuple[int, int]:
        """Size of the result."""
        rows, columns = self.resized(height, width)
        return rows, self.size[1] if columns <= self.size[1] else -(-columns // rows) * rows


class Fit(Config):
    """Keep the aspect ratio: the short side to a length, unless the long one becomes too long.

    The size is that of DETR's evaluation (facebookresearch/detr, `datasets/transforms.py`). What is
    missing to whole multiples is filled up with black on the right and below, and masked in the
    model, so that images of about one shape make batches of one size.

    Attributes:
        short: Length of the short side.
        long: Greatest length of the long side.
        multiple: Sides are filled up to multiples of it; 1 fills nothing up.
        cut_to: Before that, sides are shortened to multiples of it (YOLOS: 16); 1 leaves them.
    """

    kind: Literal["fit"] = "fit"
    short: int = Field(gt=0)
    long: int = Field(gt=0)
    multiple: int = Field(default=32, gt=0)
    cut_to: int = Field(default=1, gt=0)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size of the image before it is filled up."""
        least, most = min(height, width), max(height, width)
        side = float(self.short)
        if most / least * side > self.long:
            side = self.long * least / most
        unit = self.cut_to
        short, long = (
            max(unit, length // unit * unit) for length in (round(side), int(side * most / least))
        )
        return (short, long) if height <= width else (long, short)

    def filled(self, height: int, width: int) -> tuple[int, int]:
        """Size of the result."""
        rows, columns = self.resized(height, width)
        return _up(rows, self.multiple), _up(columns, self.multiple)


class Letterbox(Config):
    """Keep the aspect ratio, fit the image into a square and fill up with black, unmasked.

    What is filled up is part of the picture for the model: so EoMT learned objects (Kerssies et al.
    2025). `Fit` fills up too, but hides it.

    Attributes:
        side: Of the square.
    """

    kind: Literal["letterbox"] = "letterbox"
    side: int = Field(gt=0)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size of the image before it is filled up."""
        return Fit(short=self.side, long=self.side).resized(height, width)

    def filled(self, height: int, width: int) -> tuple[int, int]:
        """The square."""
        del height, width
        return self.side, self.side


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


Resize = Annotated[
    CenterCrop | Squash | TokenBudget | Line | Fit | Letterbox | Tiles | Windows,
    Field(discriminator="kind"),
]


class Preprocess(Config):
    """What is done to every image before a model sees it.

    Attributes:
        resize: Rule for the size.
        interpolation: Filter of the resize.
        antialias: Widen the filter when shrinking, as Pillow does.
        mean: Subtracted from each channel, on the scale 0 to 1.
        std: Each channel is divided by it, on the scale 0 to 1.
        channel_order: Order that the model was trained in; mean and std are in this order too.
    """

    resize: Resize
    interpolation: Interpolation = "bicubic"
    antialias: bool = True
    mean: Colour = IMAGENET_MEAN
    std: tuple[
        Annotated[float, Field(gt=0)],
        Annotated[float, Field(gt=0)],
        Annotated[float, Field(gt=0)],
    ] = IMAGENET_STD
    channel_order: Literal["rgb", "bgr"] = "rgb"

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of `prepare`'s result for an image of this size."""
        match self.resize:
            case CenterCrop(size=size):
                return size
            case Line() | Fit() | Letterbox() | Tiles() as rule:
                return rule.filled(height, width)
            case rule:
                return rule.resized(height, width)

    def prepare(self, image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 h w"]:
        """Resize and crop; an image that already fits is returned as it is.

        Args:
            image: RGB, 0 to 255. Memory in the order height, width, channel is fastest.

        Returns:
            RGB, 0 to 255, of size `output_size(H, W)`; it may be a view.
        """
        height, width = image.shape[1:]
        resized = self.resize.resized(height, width)
        image = self.scale(image, resized)
        if isinstance(self.resize, Line):
            return _fill(image, self.resize.filled(height, width)[1])
        if isinstance(self.resize, Fit | Letterbox | Tiles):
            return fill_black(image, self.resize.filled(height, width))
        return _center(image, self.output_size(height, width))

    def view(self, sample: Sample) -> View:
        """A sample as evaluation and prediction show it to the model, what lies on it with it.

        Only rules that keep the whole image serve labels that lie on it.
        """
        image = self.prepare(sample.image)
        extent = None
        if isinstance(self.resize, Fit | Letterbox | Tiles):
            extent = self.resize.resized(sample.image.shape[1], sample.image.shape[2])
        filled = image.shape[1], image.shape[2]
        return View(image, self._laid(sample.target, extent or filled, filled), extent)

    def _laid(self, target: Target, shown: Grid, filled: Grid) -> Target:
        """A label where the view shows it."""
        match target:
            case Boxes():
                return stretched(target, shown)
            case Segments():
                assert not isinstance(self.resize, CenterCrop | Line), "the whole image is shown"
                return filled_void(resampled(target, shown), filled)
            case _:
                return target

    def scale(self, image: UInt8[Tensor, "3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "3 h w"]:
        """Resample to exactly this size with the filter of this preprocessing."""
        if image.shape[1:] == size:
            return image
        # On uint8 in channels-last memory torch runs Pillow's own algorithm, vectorised. The detour
        # gives the batch axis the stride by which torch recognises that memory.
        batch = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
        return F.interpolate(batch, size=size, mode=self.interpolation, antialias=self.antialias)[0]


def stretched(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """The boxes of an image after it was stretched to another height and width."""
    assert boxes.size is not None, "a sample that was read knows its size"
    if boxes.size == size:
        return boxes
    down, across = size[0] / boxes.size[0], size[1] / boxes.size[1]
    items = tuple(
        replace(
            box,
            corners=(
                box.corners[0] * across,
                box.corners[1] * down,
                box.corners[2] * across,
                box.corners[3] * down,
            ),
            area=None if box.area is None else box.area * down * across,
        )
        for box in boxes.items
    )
    return Boxes(items, size)


def fill_black(image: UInt8[Tensor, "3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "3 h w"]:
    """Black on the right and below, up to the size."""
    down, across = size[0] - image.shape[1], size[1] - image.shape[2]
    return image if down == across == 0 else F.pad(image, (0, across, 0, down))


def _fill(image: UInt8[Tensor, "3 H W"], width: int) -> UInt8[Tensor, "3 H w"]:
    """Repeat the last column up to the width."""
    missing = width - image.shape[2]
    if missing == 0:
        return image
    return torch.cat([image, image[:, :, -1:].expand(-1, -1, missing)], dim=2)


def _center(image: UInt8[Tensor, "3 H W"], size: tuple[int, int]) -> UInt8[Tensor, "3 h w"]:
    height, width = image.shape[1:]
    # Half to even, as torchvision's CenterCrop does.
    top, left = round((height - size[0]) / 2), round((width - size[1]) / 2)
    return image[:, top : top + size[0], left : left + size[1]]
