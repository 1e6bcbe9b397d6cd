"""Hybrid R+ViT: a Transformer over the map of a ResNet (Dosovitskiy et al. 2021, section 3.1).

The ResNet has weight-standardised convolutions and GroupNorm in the place of BatchNorm
(Kolesnikov et al. 2020, BiT); patches are cut from its last map (Steiner et al. 2022).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vitrail.backbones.backbone import Backbone, BackboneBase
from vitrail.backbones.resnet import ImageNetRootConfig, RootConfig
from vitrail.backbones.vit import Learned1dConfig
from vitrail.config import Depth, Width
from vitrail.nn.attention import Attention
from vitrail.nn.blocks import Activation, Mlp, PreNormBlock, drop_path_rates
from vitrail.nn.convolutions import (
    Bottleneck,
    Root,
    StandardisedConv2d,
    Style,
    TimmStandardisedConv2d,
    Trunk,
    doubling,
    group_norm_style,
)
from vitrail.nn.init import init_linear
from vitrail.nn.patches import PatchStem
from vitrail.nn.pooling import ClassTokenPool, MeanPool
from vitrail.nn.positions import Learned1d, Placeless
from vitrail.types import Features, Grid


class HybridConfig(BackboneBase):
    """A ResNet and a Vision Transformer on top of it.

    Attributes:
        image_size: Height and width that positions are made for; other sizes are served too.
        root: From pixels to the ResNet's first map.
        resnet_depths: Bottlenecks of each stage; none at all leaves the root alone.
        resnet_width: Channels of the root.
        groups: Groups of the ResNet's GroupNorm.
        group_norm_eps: Its epsilon; timm's port has 1e-5.
        standardisation: What kernels are divided by: std + 1e-5 (google-research, `std`) or
            sqrt(variance + 1e-8) (timm, `variance`).
        patch_size: Side of a patch in cells of the ResNet's last map.
        positions: Learned vectors that are added to the patches.
        width: Width D of the tokens.
        depth: Number of encoder blocks.
        heads: Attention heads a block.
        mlp_ratio: Hidden width of the MLP over D.
        eps: Epsilon of the encoder's LayerNorms.
        drop_path: Stochastic depth of the last encoder block; it grows linearly from 0 at the
            first. The ResNet has none.
        pool: The class token, or the mean of the patches; then there is no class token.
    """

    kind: Literal["hybrid"] = "hybrid"
    root: RootConfig = ImageNetRootConfig()
    resnet_depths: tuple[Depth, ...] = (3, 4, 9)
    resnet_width: PositiveInt = 64
    groups: PositiveInt = 32
    group_norm_eps: float = Field(default=1e-6, gt=0)
    standardisation: Literal["std", "variance"] = "std"
    patch_size: PositiveInt = 1
    positions: Learned1dConfig = Learned1dConfig()
    width: Width = 768
    depth: Depth = 12
    heads: PositiveInt = 12
    mlp_ratio: float = Field(default=4.0, gt=0)
    activation: Activation = "gelu"
    eps: float = Field(default=1e-6, gt=0)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    pool: Literal["class", "mean"] = "class"

    @property
    def resnet_stride(self) -> int:
        """Pixels a cell of the ResNet's last map."""
        return self.root.stride * 2 ** max(len(self.resnet_depths) - 1, 0)

    @property
    def stride(self) -> int:
        """Pixels from one patch to the next."""
        return self.resnet_stride * self.patch_size

    @property
    def grid(self) -> Grid:
        """Patch grid of `image_size`; what is no multiple of the stride is padded."""
        return -(-self.image_size[0] // self.stride), -(-self.image_size[1] // self.stride)

    @property
    def prefix(self) -> int:
        """Leading tokens that are no patches."""
        return int(self.pool == "class")

    @model_validator(mode="after")
    def _consistent(self) -> HybridConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.resnet_width % self.groups:
            raise ValueError(
                f"resnet_width {self.resnet_width} is not a multiple of groups {self.groups}"
            )
        if self.positions.start == "sincos_2d" and self.width % 4:
            raise ValueError(f"2-D sine-cosine positions need width divisible by 4: {self.width}")
        return self


class Hybrid(Backbone):
    """ResNet, patches of its last map, class token, positions, encoder blocks, norm, pool.

    The maps are those of the ResNet's stages that are finer than the patches, and then the
    patches themselves.
    """

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        width, style = config.width, _style(config)
        self.config = config
        self.resnet = Trunk(
            Root(config.resnet_width, style, small=config.root.kind == "small"),
            Bottleneck,
            config.resnet_depths,
            doubling(config.resnet_width, len(config.resnet_depths)),
            style,
        )
        self.finer = sum(stride < config.stride for stride in self.resnet.strides)
        self.channels = (*self.resnet.channels[: self.finer], width)
        self.strides = (*self.resnet.strides[: self.finer], config.stride)
        self.pooled_width, self.prefix = width, config.prefix
        self.patch_embed = PatchStem(width, config.patch_size, channels=self.resnet.channels[-1])
        self.prefix_token = nn.Parameter(torch.empty(1, config.prefix, width))
        self.pos_embed = Learned1d(
            width,
            config.grid,
            prefix=config.prefix if config.positions.prefix else 0,
            resampling=config.positions.resampling,
            start=config.positions.start,
        )
        rates = drop_path_rates(config.drop_path, config.depth)
        self.blocks = nn.ModuleList(_block(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=config.eps)
        self.pool = ClassTokenPool() if config.prefix else MeanPool(prefix=0)
        self.blocks.apply(init_linear)
        nn.init.trunc_normal_(self.prefix_token, std=0.02)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        """Features of a batch of normalised images of any size."""
        self.insist_size(images)
        maps = self.resnet(images)
        patches = self.patch_embed(maps[-1])
        grid = (patches.shape[2], patches.shape[3])
        flat = patches.flatten(2).transpose(1, 2)
        tokens = self.pos_embed.embed(flat, self.prefix_token, grid)
        for block in self.blocks:
            tokens = block(tokens, grid)
        tokens = self.norm(tokens)
        patch_map = tokens[:, self.prefix :].transpose(1, 2).unflatten(2, grid)
        return Features(
            maps=(*maps[: self.finer], patch_map), tokens=tokens, pooled=self.pool(tokens)
        )

    def layers(self) -> list[list[nn.Module]]:
        """Root and bottlenecks of the ResNet, the patches with their positions, each block."""
        return [
            *self.resnet.layers(),
            [self.patch_embed, self.pos_embed],
            *([block] for block in self.blocks),
        ]


def _style(config: HybridConfig) -> Style:
    conv = StandardisedConv2d if config.standardisation == "std" else TimmStandardisedConv2d
    return group_norm_style(config.groups, conv=conv, eps=config.group_norm_eps)


def _block(config: HybridConfig, drop_path: float) -> PreNormBlock:
    hidden = round(config.width * config.mlp_ratio)
    return PreNormBlock(
        config.width,
        Attention(config.width, config.heads, Placeless(), eps=config.eps),
        Mlp(config.width, hidden, activation=config.activation),
        eps=config.eps,
        layer_scale=None,
        drop_path=drop_path,
    )
