"""The seam of all heads that give masks."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from vitrail.types import Features, MaskQueries, MaskVectors, PixelLogits


class Segmenter(nn.Module, ABC):
    """From features to masks.

    Attributes:
        stride: Pixels a cell of its masks.
        matched: Whether its queries are matched with segments; else it tells the class of pixels.
        groups: Groups of queries side by side while training.
    """

    stride: int
    matched: bool = False
    groups: int = 1

    @abstractmethod
    def forward(self, features: Features) -> PixelLogits | MaskQueries | MaskVectors:
        """Raw output; vectors while training alone."""
