"""ResNet (He et al. 2016, "Deep residual learning for image recognition"): the CNN baseline."""

from __future__ import annotations

from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from vitrail.backbones.backbone import Backbone, BackboneBase
from vitrail.config import Config, Depth, Width
from vitrail.nn.convolutions import (
    BasicBlock,
    Bottleneck,
    Root,
    Trunk,
    batch_norm_style,
    doubling,
)
from vitrail.types import Features


class ImageNetRootConfig(Config):
    """A 7x7 convolution of stride 2 and a 3x3 maximum of stride 2, for photos."""

    kind: Literal["imagenet"] = "imagenet"

    @property
    def stride(self) -> int:
        """Pixels a cell of the root's map."""
        return 4


class SmallRootConfig(Config):
    """A 3x3 convolution at full resolution, for images of a few dozen pixels."""

    kind: Literal["small"] = "small"

    @property
    def stride(self) -> int:
        """Pixels a cell of the root's map."""
        return 1


RootConfig = Annotated[ImageNetRootConfig | SmallRootConfig, Field(discriminator="kind")]


class ResNetConfig(BackboneBase):
    """A ResNet.

    Attributes:
        root: From pixels to the first map.
        block: Two 3x3 convolutions (`basic`), or 1x1, 3x3 and 1x1 (`bottleneck`).
        depths: Blocks of each stage; each stage after the first halves height and width.
        width: Channels of the root and of the 3x3 convolutions in the first stage; every further
            stage doubles it.
        widths: Channels of the 3x3 convolutions stage by stage, where they do not double.
        dilated: Whether the last stage keeps the size of the map and spreads its 3x3 convolutions
            instead (DETR's DC5).
        drop_path: Stochastic depth of the last block; it grows linearly from 0 at the first.
    """

    kind: Literal["resnet"] = "resnet"
    root: RootConfig = ImageNetRootConfig()
    block: Literal["basic", "bottleneck"] = "bottleneck"
    depths: Annotated[tuple[Depth, ...], Field(min_length=1)] = (3, 4, 6, 3)
    width: Width = 64
    widths: tuple[Width, ...] | None = None
    dilated: bool = False
    drop_path: float = Field(default=0.0, ge=0, lt=1)

    @property
    def stride(self) -> int:
        """Pixels a cell of the last stage's map."""
        halved = len(self.depths) - 1
        return self.root.stride * 2 ** (halved - (self.dilated and halved > 0))

    @property
    def planes(self) -> tuple[int, ...]:
        """Channels of the 3x3 convolutions of each stage."""
        return self.widths or doubling(self.width, len(self.depths))

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the root, and of the map of each stage."""
        expansion = block_type(self).expansion
        return (self.width, *(planes * expansion for planes in self.planes))

    @model_validator(mode="after")
    def _one_width_a_stage(self) -> ResNetConfig:
        if self.widths is not None and len(self.widths) != len(self.depths):
            raise ValueError(
                f"{len(self.widths)} widths for {len(self.depths)} stages; give one for each depth"
            )
        return self


def block_type(config: ResNetConfig) -> type[BasicBlock | Bottleneck]:
    """The block that a configuration names."""
    return BasicBlock if config.block == "basic" else Bottleneck


class ResNet(Backbone):
    """Root, stages, mean over the last map (He et al. 2016, Table 1)."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        style = batch_norm_style()
        self.trunk = Trunk(
            Root(config.width, style, small=config.root.kind == "small"),
            block_type(config),
            config.depths,
            config.planes,
            style,
            dilated=config.dilated,
            drop_path=config.drop_path,
        )
        self.channels, self.strides = self.trunk.channels, self.trunk.strides
        self.pooled_width = self.channels[-1]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        """Features of normalised images of any size; a token is a cell of the last map."""
        self.insist_size(images)
        maps = self.trunk(images)
        tokens = maps[-1].flatten(2).transpose(1, 2)
        return Features(maps=maps, tokens=tokens, pooled=tokens.mean(dim=1))

    def layers(self) -> list[list[nn.Module]]:
        """The root, then one group a block."""
        return self.trunk.layers()
