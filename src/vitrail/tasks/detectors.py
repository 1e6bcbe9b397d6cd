"""From features to what is where: a decoder of queries over the maps, or the backbone's own tokens.

Every published detector here is one of these configurations: DETR (an encoder, learned queries,
dense attention), LW-DETR and RF-DETR (queries chosen from the tokens, deformable attention), YOLOS
(tokens).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from vitrail.config import Config, Depth, Width
from vitrail.nn.boxes import refine
from vitrail.nn.deformable import (
    DeformableAttention,
    DenseAttention,
    FeatureMemory,
    MemoryAttention,
    feature_memory,
)
from vitrail.nn.detection_encoder import CellEncoder, CellLayer
from vitrail.nn.projector import C2fProjector, LinearProjector, Projector
from vitrail.nn.query_decoder import (
    LearnedQueries,
    QueryDecoder,
    QueryLayer,
    TwoStageQueries,
    box_head,
    class_head,
)
from vitrail.nn.sine_positions import sine_positions
from vitrail.types import Detections, Features, Found


class LinearProjectorConfig(Config):
    """A 1x1 convolution of the coarsest map (DETR)."""

    kind: Literal["linear"] = "linear"


class C2fProjectorConfig(Config):
    """All maps joined and mixed by convolutions (LW-DETR, RF-DETR).

    Attributes:
        scales: What the decoder reads: maps twice as fine, as they are, or half as fine.
        blocks: Pairs of convolutions a scale.
        norm: After each convolution: over a batch (LW-DETR), or over the channels of each cell
            (RF-DETR), which knows nothing of the batch.
    """

    kind: Literal["c2f"] = "c2f"
    scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,)
    blocks: PositiveInt = 3
    norm: Literal["batch", "channels"] = "batch"

    @model_validator(mode="after")
    def _known(self) -> C2fProjectorConfig:
        if any(scale not in (0.5, 1.0, 2.0) for scale in self.scales):
            raise ValueError(f"scales: {list(self.scales)}; take 0.5, 1.0 or 2.0 each")
        return self


ProjectorConfig = Annotated[LinearProjectorConfig | C2fProjectorConfig, Field(discriminator="kind")]


class DeformableConfig(Config):
    """A few samples around each query's box.

    Attributes:
        heads: Attention heads.
        points: Samples a head and map.
    """

    kind: Literal["deformable"] = "deformable"
    heads: PositiveInt = 8
    points: PositiveInt = 4


class DenseConfig(Config):
    """All cells of the map.

    Attributes:
        heads: Attention heads.
    """

    kind: Literal["dense"] = "dense"
    heads: PositiveInt = 8


AttentionConfig = Annotated[DeformableConfig | DenseConfig, Field(discriminator="kind")]


class TwoStageConfig(Config):
    """Queries chosen from the tokens.

    Attributes:
        count: Queries: the most objects that can be found in an image.
        groups: Groups of as many queries each while training.
    """

    kind: Literal["two_stage"] = "two_stage"
    count: PositiveInt = 100
    groups: PositiveInt = 1


class LearnedConfig(Config):
    """Queries that are the same for every image (DETR).

    Attributes:
        count: Queries.
    """

    kind: Literal["learned"] = "learned"
    count: PositiveInt = 100


QueriesConfig = Annotated[TwoStageConfig | LearnedConfig, Field(discriminator="kind")]


class EncoderConfig(Config):
    """A Transformer encoder over the cells of the map, before the decoder reads it (DETR).

    Attributes:
        depth: Layers.
        heads: Attention heads.
        hidden: Hidden width of the MLPs.
    """

    depth: Depth = 6
    heads: PositiveInt = 8
    hidden: PositiveInt = 2048


class TokensReadout(Config):
    """No decoder: the backbone has tokens that find objects themselves (YOLOS)."""

    kind: Literal["tokens"] = "tokens"


class QueryReadout(Config):
    """A decoder of queries over the backbone's maps.

    Attributes:
        projector: From the maps to what the decoder reads.
        encoder: What the cells do among themselves before; None for nothing.
        queries: Where queries come from.
        attention: How they read.
        width: Width D of queries and memory.
        depth: Decoder layers.
        heads: Heads among the queries.
        hidden: Hidden width of the MLPs.
        refinement: Whether boxes move after every layer or are told from the first.
    """

    kind: Literal["queries"] = "queries"
    projector: ProjectorConfig = C2fProjectorConfig()
    encoder: EncoderConfig | None = None
    queries: QueriesConfig = TwoStageConfig()
    attention: AttentionConfig = DeformableConfig()
    width: Width = 256
    depth: Depth = 3
    heads: PositiveInt = 8
    hidden: PositiveInt = 1024
    refinement: Literal["layers", "once"] = "layers"

    @model_validator(mode="after")
    def _consistent(self) -> QueryReadout:
        for heads in (self.heads, self.attention.heads):
            if self.width % heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {heads}")
        learned = isinstance(self.queries, LearnedConfig)
        if learned and isinstance(self.attention, DeformableConfig):
            raise ValueError("learned queries do not know where to look; take attention = dense")
        if self.encoder is not None and self.width % self.encoder.heads:
            raise ValueError(
                f"width {self.width} is not a multiple of encoder.heads {self.encoder.heads}"
            )
        several = isinstance(self.projector, C2fProjectorConfig) and self.projector.scales[1:]
        if several and (self.encoder or isinstance(self.attention, DenseConfig)):
            raise ValueError("an encoder and dense attention read one map; give one scale")
        return self


Readout = Annotated[QueryReadout | TokensReadout, Field(discriminator="kind")]


class Detector(nn.Module, ABC):
    """From features to what is where."""

    groups = 1
    """Groups of queries side by side while training."""

    @abstractmethod
    def forward(self, features: Features) -> Detections:
        """What every query found; while training, every layer's opinion too."""


class TokenDetector(Detector):
    """Two heads on the backbone's own queries (YOLOS, Fang et al. 2021)."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.classify = class_head(width, outputs, layers=3)
        self.locate = box_head(width)

    def forward(self, features: Features) -> Detections:
        """What every query found."""
        assert features.queries is not None, "this backbone has no tokens that find objects"
        queries = features.queries
        return Detections(self.classify(queries), self.locate(queries).sigmoid())


class QueryDetector(Detector):
    """Queries read the maps and tell what is where (DETR and its kin)."""

    def __init__(self, readout: QueryReadout, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        width, queries = readout.width, readout.queries
        self.groups = queries.groups if isinstance(queries, TwoStageConfig) else 1
        self.projector = _projector(readout.projector, channels, width)
        self.encoder = _encoder(readout.encoder, width)
        self.placed = readout.encoder is not None or isinstance(readout.attention, DenseConfig)
        self.queries = _queries(readout.queries, width, outputs)
        self.decoder = QueryDecoder(
            width,
            [
                QueryLayer(width, readout.heads, _attention(readout), readout.hidden)
                for _ in range(readout.depth)
            ],
            from_boxes=isinstance(readout.queries, TwoStageConfig),
            refinement=readout.refinement,
        )
        self.classify = class_head(width, outputs)
        self.locate = box_head(width)

    def forward(self, features: Features) -> Detections:
        """What every query found; while training, every layer's opinion too."""
        layers, proposals = self.layers(features)
        found = [layer for _, layer in layers]
        if not self.training:
            return Detections(*found[-1])
        return Detections(*found[-1], earlier=tuple(found[:-1]), proposals=proposals)

    def layers(
        self, features: Features
    ) -> tuple[list[tuple[Float[Tensor, "B Q D"], Found]], Found | None]:
        """Queries after each layer and what they found; what the chosen tokens said themselves.

        Of the layers the last alone, but while training.
        """
        memory = self.read(features)
        start = self.queries(memory)
        groups = self.groups if self.training else 1
        states = self.decoder(start, memory, self.boxes_of, groups)
        told = [
            (queries, Found(self.classify(queries), self.boxes_of(queries, boxes)))
            for queries, boxes in (states if self.training else states[-1:])
        ]
        return told, start.proposals

    def read(self, features: Features) -> FeatureMemory:
        """What the decoder reads."""
        memory = feature_memory(self.projector(features.maps), features.pixel_mask)
        if not self.placed:
            return memory
        (grid,), (B, _, D) = memory.grids, memory.tokens.shape
        cells = memory.tokens.new_ones((B, *grid), dtype=torch.bool)
        if memory.mask is not None:
            cells = memory.mask.reshape(B, *grid)
        places = sine_positions(cells, D)
        places = places.to(memory.tokens.dtype)
        return self.encoder(replace(memory, places=places))

    def boxes_of(
        self, queries: Float[Tensor, "B Q D"], boxes: Float[Tensor, "B Q 4"] | None
    ) -> Float[Tensor, "B Q 4"]:
        """Boxes that queries tell, given those that they looked at."""
        told = self.locate(queries)
        return told.sigmoid() if boxes is None else refine(boxes, told)


def build_detector(readout: Readout, channels: Sequence[int], outputs: int) -> Detector:
    """The detector that a configuration describes, with fresh weights.

    Args:
        readout: What it is.
        channels: Width of each map of the backbone, fine to coarse.
        outputs: Numbers a query gives.
    """
    match readout:
        case TokensReadout():
            return TokenDetector(channels[-1], outputs)
        case QueryReadout():
            return QueryDetector(readout, channels, outputs)


def _encoder(config: EncoderConfig | None, width: int) -> CellEncoder:
    if config is None:
        return CellEncoder([])
    return CellEncoder([CellLayer(width, config.heads, config.hidden) for _ in range(config.depth)])


def _projector(config: ProjectorConfig, channels: Sequence[int], width: int) -> Projector:
    match config:
        case LinearProjectorConfig():
            return LinearProjector(channels, width)
        case C2fProjectorConfig(scales=scales, blocks=blocks, norm=norm):
            return C2fProjector(channels, width, scales=scales, blocks=blocks, norm=norm)


def _queries(config: QueriesConfig, width: int, outputs: int) -> TwoStageQueries | LearnedQueries:
    match config:
        case TwoStageConfig(count=count, groups=groups):
            return TwoStageQueries(width, outputs, count=count, groups=groups)
        case LearnedConfig(count=count):
            return LearnedQueries(width, count)


def _attention(readout: QueryReadout) -> MemoryAttention:
    match readout.attention, readout.projector:
        case DeformableConfig(heads=heads, points=points), C2fProjectorConfig(scales=scales):
            return DeformableAttention(readout.width, heads, points=points, levels=len(scales))
        case DeformableConfig(heads=heads, points=points), _:
            return DeformableAttention(readout.width, heads, points=points)
        case DenseConfig(heads=heads), _:
            return DenseAttention(readout.width, heads)
