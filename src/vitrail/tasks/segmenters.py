"""From features to masks: a linear map, or queries that are compared with every pixel.

Every head here is one of these configurations: the linear baseline, class queries and matched
queries that read the tokens (a mask is the product of a query and the embedding of each pixel),
Segmenter, EoMT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.config import Config, Depth, Width
from vitrail.nn.deformable import DenseAttention, feature_memory
from vitrail.nn.pixel_decoder import PixelDecoder
from vitrail.nn.projector import LinearProjector
from vitrail.nn.query_decoder import LearnedQueries, MlpHead, QueryDecoder, QueryLayer
from vitrail.tasks.detectors import QueryDetector, QueryReadout
from vitrail.tasks.joint_segmenters import (
    EncoderOnlyMaskTransformer,
    EomtReadout,
    MaskTransformer,
    SegmenterReadout,
)
from vitrail.tasks.segmenter import Segmenter
from vitrail.types import Features, MaskQueries, MaskVectors, PixelLogits

RARE = 2.0
"""Logit, below zero, at which classes start: most pixels are of another one."""
FARTHEST = 8.0
"""Beyond this, a pixel is as far outside of an ellipse as it counts."""


class LinearReadout(Config):
    """A linear map of each cell of the coarsest map: the honest baseline.

    Attributes:
        logits: One logit a class and cell, or one a class and pixel of the cell (p² logits).
    """

    kind: Literal["linear"] = "linear"
    logits: Literal["cell", "pixel"] = "cell"


class PixelsConfig(Config):
    """The embedding of pixels: maps are doubled step by step, and finer ones joined on the way.

    Attributes:
        stride: Pixels a cell of the embedding.
        widths: Channels at strides 1, 2, 4, 8, ...; the last stands for all coarser ones.
        skip: Whether convolutions of the image itself join at every stride: what a patch has lost.
    """

    stride: Literal[1, 2, 4, 8] = 4
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 32, 64, 96)
    skip: bool = True


class ClassQueriesReadout(Config):
    """One learned query a class; its mask is the class (Strudel et al. 2021, with a decoder).

    Attributes:
        pixels: The embedding of pixels.
        width: Width D of the queries.
        depth: Decoder layers: attention to the tokens, among the queries, MLP.
        heads: Attention heads.
        hidden: Hidden width of the MLPs.
    """

    kind: Literal["class_queries"] = "class_queries"
    pixels: PixelsConfig = PixelsConfig()
    width: Width = 128
    depth: Depth = 2
    heads: PositiveInt = 4
    hidden: PositiveInt = 256

    @model_validator(mode="after")
    def _consistent(self) -> ClassQueriesReadout:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class MatchedQueriesReadout(Config):
    """Queries that are matched with segments: what finds objects, with a mask for each.

    Attributes:
        pixels: The embedding of pixels.
        memory: Stride of the map on the way to the embedding that the queries read, which knows
            details too, or of the nearest that there is; None for the maps of the backbone.
        detector: The decoder of the queries.
    """

    kind: Literal["matched_queries"] = "matched_queries"
    pixels: PixelsConfig = PixelsConfig()
    memory: Literal[1, 2, 4, 8, 16] | None = None
    detector: QueryReadout = QueryReadout()


SegmentReadout = Annotated[
    LinearReadout | ClassQueriesReadout | MatchedQueriesReadout | SegmenterReadout | EomtReadout,
    Field(discriminator="kind"),
]
"""From features to masks. Published heads stand in `joint_segmenters`."""
MatchedReadout = MatchedQueriesReadout | EomtReadout
"""Those whose queries are matched with segments, so that they can answer with objects."""


class LinearSegmenter(Segmenter):
    """Each cell of the coarsest map by itself.

    Args:
        readout: What it is.
        width: Channels of the map.
        stride: Its stride.
        classes: Number C of classes.
    """

    def __init__(self, readout: LinearReadout, width: int, stride: int, classes: int) -> None:
        super().__init__()
        self.side = stride if readout.logits == "pixel" else 1
        self.stride = stride // self.side
        self.head = nn.Conv2d(width, classes * self.side**2, 1)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, -RARE)

    def forward(self, features: Features) -> PixelLogits:
        """Logits of each cell, or of each pixel of it."""
        return PixelLogits(F.pixel_shuffle(self.head(features.maps[-1]), self.side))


class ClassQuerySegmenter(Segmenter):
    """A query a class reads the tokens; its product with every pixel is the class's logit.

    Args:
        readout: What it is.
        channels: Width of each map of the backbone, fine to coarse.
        strides: Their strides.
        classes: Number C of classes.
    """

    def __init__(
        self,
        readout: ClassQueriesReadout,
        channels: Sequence[int],
        strides: Sequence[int],
        classes: int,
    ) -> None:
        super().__init__()
        width = readout.width
        self.stride = readout.pixels.stride
        self.pixels = _pixel_decoder(readout.pixels, channels, strides)
        self.project = LinearProjector(channels, width)
        self.queries = LearnedQueries(width, classes)
        self.decoder = QueryDecoder(
            width,
            [
                QueryLayer(
                    width, readout.heads, DenseAttention(width, readout.heads), readout.hidden
                )
                for _ in range(readout.depth)
            ],
            from_boxes=False,
            refinement="once",
        )
        self.embed = MlpHead(width, self.pixels.width + 1, layers=2)
        nn.init.constant_(_last(self.embed).bias[-1:], -RARE)

    def forward(self, features: Features) -> PixelLogits:
        """Logits of each class at each cell of the embedding."""
        assert features.images is not None, "a model hands its images over"
        pixels = self.pixels(features.maps, features.images)
        memory = feature_memory(self.project(features.maps), features.pixel_mask)
        states = self.decoder(self.queries(memory), memory, _nowhere, 1)
        vectors = self.embed(states[-1][0])
        return PixelLogits(product(vectors[..., :-1], pixels) + vectors[..., -1, None, None])


class MatchedQuerySegmenter(Segmenter):
    """What finds objects, and a mask for each: the product of its query with every pixel.

    A mask starts as the ellipse in the query's box, which the query may sharpen, so that objects
    that look alike are told apart by where they lie from the first step on. Whether a pixel is of
    any object at all is told once for all queries, and learned from every pixel.

    Args:
        readout: What it is.
        channels: Width of each map of the backbone, fine to coarse.
        strides: Their strides.
        classes: Number C of classes.
    """

    matched = True

    def __init__(
        self,
        readout: MatchedQueriesReadout,
        channels: Sequence[int],
        strides: Sequence[int],
        classes: int,
    ) -> None:
        super().__init__()
        self.stride = readout.pixels.stride
        self.pixels = _pixel_decoder(readout.pixels, channels, strides)
        self.memory = None
        if readout.memory is not None:
            self.memory = min(max(readout.memory, self.stride), self.pixels.steps[0])
            channels = (self.pixels.width_of(self.memory),)
        self.detector = QueryDetector(readout.detector, channels, classes)
        self.groups = self.detector.groups
        self.embed = MlpHead(readout.detector.width, self.pixels.width + 2, layers=3)
        self.foreground = nn.Conv2d(self.pixels.width, 1, 1)

    def forward(self, features: Features) -> MaskQueries | MaskVectors:
        """Classes, boxes and masks of all queries."""
        assert features.images is not None, "a model hands its images over"
        pyramid = self.pixels.pyramid(features.maps, features.images)
        pixels = pyramid[self.stride]
        if self.memory is not None:
            features = replace(features, maps=(pyramid[self.memory],))
        layers, proposals = self.detector.layers(features)
        if self.training:
            return MaskVectors(
                found=tuple(found for _, found in layers),
                vectors=tuple(self.embed(queries) for queries, _ in layers),
                places=tuple(_shown(found.boxes, features.pixel_mask) for _, found in layers),
                pixels=pixels,
                foreground=self.foreground(pixels),
                proposals=proposals,
            )
        queries, found = layers[-1]
        boxes = _shown(found.boxes, features.pixel_mask)
        masks = boxed_masks(self.embed(queries), boxes, pixels) + self.foreground(pixels)
        return MaskQueries(found.logits, masks, found.boxes)


def build_segmenter(
    readout: SegmentReadout, channels: Sequence[int], strides: Sequence[int], classes: int
) -> Segmenter:
    """The head that a configuration describes, with fresh weights.

    Args:
        readout: What it is.
        channels: Width of each map of the backbone, fine to coarse.
        strides: Their strides.
        classes: Number of classes.
    """
    match readout:
        case LinearReadout():
            return LinearSegmenter(readout, channels[-1], strides[-1], classes)
        case ClassQueriesReadout():
            return ClassQuerySegmenter(readout, channels, strides, classes)
        case MatchedQueriesReadout():
            return MatchedQuerySegmenter(readout, channels, strides, classes)
        case SegmenterReadout():
            return MaskTransformer(readout, channels[-1], strides[-1], classes)
        case EomtReadout():
            return EncoderOnlyMaskTransformer(readout, channels[-1], strides[-1], classes)


def product(
    vectors: Float[Tensor, "B Q E"], pixels: Float[Tensor, "B E h w"]
) -> Float[Tensor, "B Q h w"]:
    """Each vector with each pixel, scaled as in attention."""
    return torch.einsum("bqe,behw->bqhw", vectors * vectors.shape[-1] ** -0.5, pixels)


def boxed_masks(
    vectors: Float[Tensor, "B Q _E"],
    boxes: Float[Tensor, "B Q 4"],
    pixels: Float[Tensor, "B E h w"],
) -> Float[Tensor, "B Q h w"]:
    """Logits of masks that start as ellipses.

    Args:
        vectors: What is compared with the pixels, a shift and the sharpness of the ellipse.
        boxes: Where masks lie, cxcywh as shares of the map.
        pixels: The embedding.
    """
    comparison, (shift, sharpness) = vectors[..., :-2], vectors[..., -2:, None, None].unbind(2)
    h, w = pixels.shape[2:]
    y = (torch.arange(h, device=boxes.device) + 0.5) / h
    x = (torch.arange(w, device=boxes.device) + 0.5) / w
    centre_x, centre_y, width, height = boxes.detach().to(pixels.dtype).unbind(-1)
    across = ((x - centre_x[..., None]) / (width[..., None] / 2).clamp_min(1 / w)) ** 2
    down = ((y - centre_y[..., None]) / (height[..., None] / 2).clamp_min(1 / h)) ** 2
    inside = (1 - across[..., None, :] - down[..., :, None]).clamp_min(-FARTHEST)
    ellipse = F.softplus(sharpness + 1) * inside
    return product(comparison, pixels) + shift + ellipse


def _shown(
    boxes: Float[Tensor, "B Q 4"], pixel_mask: Bool[Tensor, "B H W"] | None
) -> Float[Tensor, "B Q 4"]:
    """Boxes as shares of the whole view, with what was filled up."""
    if pixel_mask is None:
        return boxes
    across, down = (pixel_mask[:, 0].float().mean(1), pixel_mask[:, :, 0].float().mean(1))
    shares = torch.stack([across, down, across, down], dim=-1)
    return boxes * shares[:, None].to(boxes.dtype)


def _pixel_decoder(
    config: PixelsConfig, channels: Sequence[int], strides: Sequence[int]
) -> PixelDecoder:
    return PixelDecoder(
        channels, strides, stride=config.stride, widths=config.widths, skip=config.skip
    )


def _last(head: MlpHead) -> nn.Linear:
    last = head.layers[-1]
    assert isinstance(last, nn.Linear)
    return last


def _nowhere(queries: Tensor, boxes: Tensor | None) -> Tensor:
    """Class queries have no box."""
    del boxes
    return queries
