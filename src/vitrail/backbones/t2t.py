"""Tokens-to-Token ViT (Yuan et al. 2021): overlapping soft splits before a deep, narrow ViT."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vitrail.backbones.backbone import Backbone, BackboneBase
from vitrail.config import Config, Depth, Width
from vitrail.nn.attention import Attention
from vitrail.nn.blocks import Mlp, PreNormBlock, drop_path_rates
from vitrail.nn.init import init_linear
from vitrail.nn.positions import Learned1d, Placeless, SineCosine1d
from vitrail.nn.soft_split import (
    PerformerTokenAttention,
    SoftmaxTokenAttention,
    TokenBlock,
    TokensToToken,
)
from vitrail.types import Features, Grid

_EPS = 1e-5
"""LayerNorm epsilon of the original code."""


class SoftSplitConfig(Config):
    """Overlapping patches.

    Attributes:
        kernel: Side of a patch, at least the stride; the overlap is what it has above that.
        stride: Cells from one patch to the next.
    """

    kernel: PositiveInt
    stride: PositiveInt

    @model_validator(mode="after")
    def _one_patch_a_stride(self) -> SoftSplitConfig:
        if self.kernel < self.stride:
            raise ValueError(f"kernel {self.kernel} is smaller than stride {self.stride}")
        if self.stride == 1 and self.kernel % 2 == 0:
            raise ValueError(f"stride 1 needs an odd kernel, got {self.kernel}")
        return self


class TokenTransformerConfig(Config):
    """Softmax attention between the splits: its cost grows with the square of the tokens."""

    kind: Literal["transformer"] = "transformer"


class TokenPerformerConfig(Config):
    """Random-feature attention between the splits: its cost grows with the tokens.

    Attributes:
        features: Random features m.
        dropout: On both branches while training.
    """

    kind: Literal["performer"] = "performer"
    features: PositiveInt = 32
    dropout: float = Field(default=0.1, ge=0, lt=1)


TokenBlockConfig = Annotated[
    TokenTransformerConfig | TokenPerformerConfig, Field(discriminator="kind")
]


class T2TConfig(BackboneBase):
    """A T2T-ViT.

    Attributes:
        image_size: Height and width that positions are made for; other sizes are served too.
        splits: The soft splits, from pixels to the patches of the encoder.
        token_block: What mixes the tokens between two splits.
        token_width: Width of the tokens between two splits.
        width: Width D of the tokens of the encoder.
        depth: Number of blocks.
        heads: Attention heads a block.
        mlp_ratio: Hidden width of the MLP over D.
        drop_path: Stochastic depth of the last block; it grows linearly from 0 at the first.
    """

    kind: Literal["t2t"] = "t2t"
    splits: tuple[SoftSplitConfig, ...] = Field(
        default=(
            SoftSplitConfig(kernel=7, stride=4),
            SoftSplitConfig(kernel=3, stride=2),
            SoftSplitConfig(kernel=3, stride=2),
        ),
        min_length=1,
    )
    token_block: TokenBlockConfig = TokenPerformerConfig()
    token_width: Width = 64
    width: Width = 384
    depth: Depth = 14
    heads: PositiveInt = 6
    mlp_ratio: float = Field(default=3.0, gt=0)
    drop_path: float = Field(default=0.0, ge=0, lt=1)

    @property
    def stride(self) -> int:
        """Pixels from one patch of the encoder to the next."""
        return prod(split.stride for split in self.splits)

    @property
    def grid(self) -> Grid:
        """Patch grid of `image_size`; an image that is no multiple of the stride is padded."""
        return -(-self.image_size[0] // self.stride), -(-self.image_size[1] // self.stride)

    @model_validator(mode="after")
    def _consistent(self) -> T2TConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if isinstance(self.token_block, TokenPerformerConfig):
            features = self.token_block.features
            if features > self.token_width:
                raise ValueError(
                    f"features {features} cannot be orthogonal in token_width {self.token_width}"
                )
        return self


class T2T(Backbone):
    """Soft splits, class token, fixed sinusoid, encoder blocks, norm (the paper's Fig. 4)."""

    prefix = 1

    def __init__(self, config: T2TConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.channels, self.strides, self.pooled_width = (width,), (config.stride,), width
        self.patch_embed = _tokens_to_token(config)
        self.prefix_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = _sinusoid(width, config.grid)
        rates = drop_path_rates(config.drop_path, config.depth)
        self.blocks = nn.ModuleList(_block(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.apply(init_linear)
        nn.init.trunc_normal_(self.prefix_token, std=0.02)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        """Features of a batch of normalised images of any size."""
        self.insist_size(images)
        patches = self.patch_embed(images)
        grid = (patches.shape[2], patches.shape[3])
        flat = patches.flatten(2).transpose(1, 2)
        tokens = self.pos_embed.embed(flat, self.prefix_token, grid)
        for block in self.blocks:
            tokens = block(tokens, grid)
        tokens = self.norm(tokens)
        patch_map = tokens[:, 1:].transpose(1, 2).unflatten(2, grid)
        return Features(maps=(patch_map,), tokens=tokens, pooled=tokens[:, 0])

    def layers(self) -> list[list[nn.Module]]:
        """The soft splits with the positions, then one group a block."""
        return [[self.patch_embed, self.pos_embed], *([block] for block in self.blocks)]


def _tokens_to_token(config: T2TConfig) -> TokensToToken:
    channels = (3, *[config.token_width] * (len(config.splits) - 1))
    dims = [c * split.kernel**2 for c, split in zip(channels, config.splits, strict=True)]
    splits = [(split.kernel, split.stride) for split in config.splits]
    blocks = [_token_block(config, dim) for dim in dims[:-1]]
    return TokensToToken(config.width, splits, blocks, dim=dims[-1])


def _token_block(config: T2TConfig, dim: int) -> TokenBlock:
    width = config.token_width
    match config.token_block:
        case TokenTransformerConfig():
            return TokenBlock(dim, width, SoftmaxTokenAttention(dim, width), eps=_EPS)
        case TokenPerformerConfig(features=features, dropout=dropout):
            attention = PerformerTokenAttention(dim, width, features=features)
            return TokenBlock(dim, width, attention, eps=_EPS, dropout=dropout)


def _sinusoid(width: int, grid: Grid) -> Learned1d:
    """A table that holds the sinusoid of the places 0 (class token), 1, 2, ... and stays as it is.

    A parameter all the same: the published files carry it, and their counts include it.
    """
    positions = Learned1d(width, grid, prefix=1, resampling="bicubic")
    places = (1, 1 + grid[0] * grid[1])
    sinusoid = SineCosine1d(width, places).table(places)
    positions.weight = nn.Parameter(sinusoid, requires_grad=False)
    return positions


def _block(config: T2TConfig, drop_path: float) -> PreNormBlock:
    return PreNormBlock(
        config.width,
        Attention(config.width, config.heads, Placeless(), qkv_bias=False),
        Mlp(config.width, round(config.width * config.mlp_ratio)),
        eps=_EPS,
        layer_scale=None,
        drop_path=drop_path,
    )
