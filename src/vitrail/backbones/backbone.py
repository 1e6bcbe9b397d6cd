"""The seam of all backbones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from jaxtyping import Float
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from vitrail.config import Config
from vitrail.errors import ImageSizeError
from vitrail.types import Features


class BackboneBase(Config, ABC):
    """What every family's configuration says.

    Attributes:
        image_size: Height and width that the model is made for; larger and smaller are served too.
    """

    image_size: tuple[PositiveInt, PositiveInt] = (224, 224)

    @property
    @abstractmethod
    def stride(self) -> int:
        """Pixels a cell of the coarsest feature map; no side of an image may be smaller."""

    @model_validator(mode="after")
    def _large_enough(self) -> BackboneBase:
        if min(self.image_size) < self.stride:
            raise ValueError(too_small(self.image_size, self.stride))
        return self


def too_small(size: tuple[int, int], stride: int) -> str:
    """What is wrong with an image of that size, and the way out."""
    return (
        f"images of {size[0]} x {size[1]} pixels are too small: this model halves or cuts them "
        f"down {stride} times; give at least {stride} x {stride}, or take a model with smaller "
        "patches or fewer stages"
    )


class Backbone(nn.Module, ABC):
    """Normalised images to features.

    Attributes:
        channels: Width of each feature map, fine to coarse.
        strides: Pixels a cell of each feature map, fine to coarse.
        pooled_width: Width of `Features.pooled`.
        prefix: Number of leading tokens that are no patches (class token, registers).
        distilled: Whether `Features.distilled` is given: there is a distillation token.
        queries: Number of `Features.queries`; 0 where there are none.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    pooled_width: int
    prefix: int = 0
    distilled: bool = False
    queries: int = 0

    @abstractmethod
    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        """Features of a batch of any size, square or not.

        Map `i` is ceil(H / strides[i]) x ceil(W / strides[i]) cells large.

        Raises:
            ImageSizeError: a side is smaller than the coarsest stride.
        """

    @abstractmethod
    def layers(self) -> list[list[nn.Module]]:
        """Modules from the stem to the last block, grouped by depth.

        Layer-wise learning-rate decay and freezing count along this list; parameters that stand
        in no group (the last norm, the pool) belong to the end.
        """

    def insist_size(self, images: Float[Tensor, "B 3 H W"]) -> None:
        """Refuse images that are smaller than one cell of the coarsest map.

        Raises:
            ImageSizeError: with the least size in the message.
        """
        size = (images.shape[2], images.shape[3])
        if min(size) < self.strides[-1]:
            raise ImageSizeError(too_small(size, self.strides[-1]))


C = TypeVar("C", bound=BackboneBase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant(Generic[C]):
    """A named model of a family, and what is known of it.

    Attributes:
        config: The backbone.
        source: Where the figures come from.
        top1: ImageNet-1k validation accuracy, 0 to 1, or None where none was published.
        classes: Outputs of the published head; 0 where weights were published without one.
        crop_pct: Share of the resized image that evaluation keeps.
        colours: Mean and standard deviation: 0.5 (`half`), or those of ImageNet.
        interpolation: Filter of the resize.
        published: Whether it is somebody's published variant or a preset of ours.
    """

    config: C
    source: str
    top1: float | None = None
    classes: int = 1000
    crop_pct: float = 0.9
    colours: Literal["half", "imagenet"] = "imagenet"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    published: bool = True


def preset(config: C) -> Variant[C]:
    """A variant of our own that learns small images from scratch on a CPU."""
    return Variant(
        config=config,
        source="vitrail preset for small images",
        crop_pct=1.0,
        colours="half",
        published=False,
    )
