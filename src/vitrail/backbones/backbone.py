"""The seam of all backbones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from vitrail.types import Features


class Backbone(nn.Module, ABC):
    """Normalised images to features.

    Attributes:
        channels: Width of each feature map, fine to coarse.
        strides: Pixels a cell of each feature map.
        pooled_width: Width of `Features.pooled`.
        prefix: Number of leading tokens that are no patches (class token, registers).
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    pooled_width: int
    prefix: int

    @abstractmethod
    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        """Features of a batch of any size, square or not."""

    @abstractmethod
    def layers(self) -> list[list[nn.Module]]:
        """Modules from the stem to the last block, grouped by depth.

        Layer-wise learning-rate decay and freezing count along this list; parameters that stand
        in no group (the last norm, the pool) belong to the end.
        """


@dataclass(frozen=True, slots=True)
class Published:
    """What is known of a published variant.

    Attributes:
        top1: ImageNet-1k validation accuracy, 0 to 1, or None where none was published.
        source: Where the figure comes from.
    """

    top1: float | None
    source: str
