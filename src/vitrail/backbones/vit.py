"""Vision Transformer (Dosovitskiy et al. 2021, "An image is worth 16x16 words")."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vitrail.backbones.backbone import Backbone, BackboneBase
from vitrail.config import Config, Depth, Width
from vitrail.nn.attention import Attention
from vitrail.nn.blocks import (
    Activation,
    FeedForward,
    Mlp,
    PostNormBlock,
    PreNormBlock,
    SwiGlu,
    drop_path_rates,
)
from vitrail.nn.init import init_linear
from vitrail.nn.patches import ConvStem, PatchStem, Stem
from vitrail.nn.pooling import (
    AttentionPool,
    ClassTokenAndMeanPool,
    ClassTokenPool,
    MeanPool,
    Pool,
)
from vitrail.nn.positions import (
    AbsolutePositions,
    AttentionPositions,
    AxialRotary,
    Learned1d,
    Learned2d,
    NoPositions,
    Placeless,
    RelativeBias2d,
    Resampling,
    SineCosine1d,
    SineCosine2d,
    Start,
)
from vitrail.types import Features, Grid


class PatchStemConfig(Config):
    """Non-overlapping patches."""

    kind: Literal["patch"] = "patch"
    patch_size: PositiveInt = 16

    @property
    def stride(self) -> int:
        """Pixels from one patch to the next."""
        return self.patch_size


class ConvStemConfig(Config):
    """3x3 convolutions with BatchNorm and ReLU, then 1x1 to the width."""

    kind: Literal["conv"] = "conv"
    widths: tuple[PositiveInt, ...]
    strides: tuple[PositiveInt, ...]

    @property
    def stride(self) -> int:
        """Pixels from one patch to the next."""
        stride = 1
        for step in self.strides:
            stride *= step
        return stride

    @model_validator(mode="after")
    def _one_stride_a_convolution(self) -> ConvStemConfig:
        if len(self.widths) != len(self.strides) or not self.widths:
            raise ValueError("a convolutional stem needs one stride for each width, at least one")
        return self


StemConfig = Annotated[PatchStemConfig | ConvStemConfig, Field(discriminator="kind")]


class NoPositionsConfig(Config):
    """No positions."""

    kind: Literal["none"] = "none"


class Learned1dConfig(Config):
    """One learned vector a token (the original).

    Attributes:
        prefix: The class token has a position too (original and DeiT; not DeiT-III, big_vision).
        resampling: How the table is stretched to another grid.
        start: Values before training; sines and cosines spare small data the learning of place.
    """

    kind: Literal["learned_1d"] = "learned_1d"
    prefix: bool = True
    resampling: Resampling = "bicubic_antialias"
    start: Start = "normal"


class Learned2dConfig(Config):
    """Learned rows and columns."""

    kind: Literal["learned_2d"] = "learned_2d"


class SineCosine1dConfig(Config):
    """Fixed sinusoid over the raster order."""

    kind: Literal["sincos_1d"] = "sincos_1d"


class SineCosine2dConfig(Config):
    """Fixed sines and cosines of x and y."""

    kind: Literal["sincos_2d"] = "sincos_2d"


class Relative2dConfig(Config):
    """Learned bias an offset, in every layer."""

    kind: Literal["relative_2d"] = "relative_2d"


class Rotary2dConfig(Config):
    """Axial rotary positions, in every layer."""

    kind: Literal["rotary_2d"] = "rotary_2d"


PositionsConfig = Annotated[
    NoPositionsConfig
    | Learned1dConfig
    | Learned2dConfig
    | SineCosine1dConfig
    | SineCosine2dConfig
    | Relative2dConfig
    | Rotary2dConfig,
    Field(discriminator="kind"),
]


IN_ATTENTION = ("relative_2d", "rotary_2d")
"""Kinds that act inside every layer by themselves instead of being added."""


class ViTConfig(BackboneBase):
    """A Vision Transformer.

    Attributes:
        image_size: Height and width that positions are made for; other sizes are served too.
        stem: From pixels to patch vectors.
        positions: How a patch's place is told.
        positions_in: Where positions that are added come in: once at the stem, or at the beginning
            of every layer, from tables of their own or one that all share (appendix D.4).
        width: Width D of the tokens.
        depth: Number of blocks.
        heads: Attention heads a block.
        mlp_ratio: Hidden width of the MLP over D.
        activation: Of the MLP; `swiglu` makes it a gated one (DINOv2 giant).
        norm: LayerNorm before (`pre`) or after (`post`) the residual sum.
        class_token: Whether a learned token leads the sequence.
        distillation_token: Whether a second token follows it, which learns from a teacher
            (Touvron et al. 2021, section 4, Fig. 2).
        registers: Learned tokens after these (Darcet et al. 2024).
        detection_tokens: Learned tokens after these that find one object each (Fang et al. 2021,
            "You only look at one sequence", YOLOS).
        pool: What becomes the image vector; `class_and_mean` is twice as wide as a token.
        norm_after_pool: The last norm follows the pooling (MAE, timm `fc_norm`) instead of
            preceding it.
        final_norm: Whether there is a last norm; without one, whoever reads the tokens has it: the
            first blocks of a longer ViT end like this (EoMT).
        layer_scale: Start of LayerScale; None for none.
        drop_path: Stochastic depth of the last block; it grows linearly from 0 at the first.
    """

    kind: Literal["vit"] = "vit"
    stem: StemConfig = PatchStemConfig()
    positions: PositionsConfig = Learned1dConfig()
    positions_in: Literal["stem", "layers", "layers_shared"] = "stem"
    width: Width = 192
    depth: Depth = 12
    heads: PositiveInt = 3
    mlp_ratio: float = Field(default=4.0, gt=0)
    qkv_bias: bool = True
    qk_norm: bool = False
    norm: Literal["pre", "post"] = "pre"
    activation: Activation | Literal["swiglu"] = "gelu"
    eps: float = Field(default=1e-6, gt=0)
    layer_scale: float | None = None
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    class_token: bool = True
    distillation_token: bool = False
    registers: int = Field(default=0, ge=0)
    detection_tokens: int = Field(default=0, ge=0)
    pool: Literal["class", "mean", "class_and_mean", "attention"] = "class"
    norm_after_pool: bool = False
    final_norm: bool = True

    @property
    def pooled_width(self) -> int:
        """Width of the image vector."""
        return 2 * self.width if self.pool == "class_and_mean" else self.width

    @property
    def stride(self) -> int:
        """Pixels from one patch to the next."""
        return self.stem.stride

    @property
    def grid(self) -> Grid:
        """Patch grid of `image_size`; an image that is no multiple of the stride is padded."""
        return -(-self.image_size[0] // self.stem.stride), -(
            -self.image_size[1] // self.stem.stride
        )

    @property
    def prefix(self) -> int:
        """Leading tokens that are no patches."""
        own = self.class_token + self.distillation_token
        return own + self.registers + self.detection_tokens

    @model_validator(mode="after")
    def _consistent(self) -> ViTConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.pool in ("class", "class_and_mean") and not self.class_token:
            raise ValueError(f"pool = '{self.pool}' needs class_token = true")
        if self.distillation_token and not self.class_token:
            raise ValueError("distillation_token = true needs class_token = true")
        if self.distillation_token and self.pool != "class":
            raise ValueError(f"distillation_token = true needs pool = 'class', not '{self.pool}'")
        if self.norm_after_pool and not self.final_norm:
            raise ValueError("norm_after_pool = true needs final_norm = true")
        head = self.width // self.heads
        if self.positions_in != "stem" and self.positions.kind in ("none", *IN_ATTENTION):
            raise ValueError(
                f"positions_in = '{self.positions_in}' needs positions that are added, "
                f"such as learned_1d; '{self.positions.kind}' is not"
            )
        if self.positions.kind == "rotary_2d" and head % 4:
            raise ValueError(f"rotary positions need width / heads divisible by 4, got {head}")
        sines = self.positions.kind == "sincos_2d" or (
            isinstance(self.positions, Learned1dConfig) and self.positions.start == "sincos_2d"
        )
        if sines and self.width % 4:
            raise ValueError(f"2-D sine-cosine positions need width divisible by 4: {self.width}")
        return self


class ViT(Backbone):
    """Patches, class token, positions, encoder blocks, norm, pool (the paper's Fig. 1)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.channels, self.strides = (width,), (config.stem.stride,)
        self.pooled_width = config.pooled_width
        self.prefix, self.distilled = config.prefix, config.distillation_token
        self.queries = config.detection_tokens
        self.patch_embed = build_stem(config.stem, width)
        self.prefix_token = nn.Parameter(torch.empty(1, config.prefix, width))
        self.pos_embed = _absolute_positions(config)
        rates = drop_path_rates(config.drop_path, config.depth)
        self.blocks = nn.ModuleList(_block(config, rate) for rate in rates)
        own = config.depth - 1 if config.positions_in == "layers" else 0
        self.layer_pos_embed = nn.ModuleList(_absolute_positions(config) for _ in range(own))
        normed = config.pooled_width if config.norm_after_pool else width
        norm = nn.LayerNorm(normed, eps=config.eps) if config.final_norm else nn.Identity()
        self.norm = nn.Identity() if config.norm_after_pool else norm
        self.pool = _pool(config)
        self.fc_norm = norm if config.norm_after_pool else nn.Identity()
        self.apply(init_linear)
        nn.init.trunc_normal_(self.prefix_token, std=0.02)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        """Features of a batch of normalised images of any size."""
        self.insist_size(images)
        patches = self.patch_embed(images)
        grid = (patches.shape[2], patches.shape[3])
        flat = patches.flatten(2).transpose(1, 2)
        tokens = self.pos_embed.embed(flat, self.prefix_token, grid)
        for index, block in enumerate(self.blocks):
            if index and self.config.positions_in != "stem":
                tokens = tokens + self._places(index, grid)
            tokens = block(tokens, grid)
        tokens = self.norm(tokens)
        pooled = self.fc_norm(self.pool(tokens))
        patch_map = tokens[:, self.prefix :].transpose(1, 2).unflatten(2, grid)
        distilled = tokens[:, 1] if self.distilled else None
        found = tokens[:, self.prefix - self.queries : self.prefix] if self.queries else None
        return Features(
            maps=(patch_map,), tokens=tokens, pooled=pooled, distilled=distilled, queries=found
        )

    def layers(self) -> list[list[nn.Module]]:
        """The stem with its positions, then one group a block, with its own positions if any."""
        groups: list[list[nn.Module]] = [[block] for block in self.blocks]
        for group, positions in zip(groups[1:], self.layer_pos_embed, strict=False):
            group.append(positions)
        return [[self.patch_embed, self.pos_embed], *groups]

    def _places(self, layer: int, grid: Grid) -> Float[Tensor, "1 N D"]:
        """Positions that are added again before a later layer; none is a zero."""
        shared = self.config.positions_in == "layers_shared"
        positions = self.pos_embed if shared else self.layer_pos_embed[layer - 1]
        assert isinstance(positions, AbsolutePositions)
        patches = positions.table(grid)
        prefix = positions.prefix_table()
        if prefix is None:
            prefix = patches.new_zeros(1, self.prefix, patches.shape[2])
        return torch.cat([prefix, patches], dim=1)


def build_stem(config: StemConfig, width: int) -> Stem:
    """The stem that a configuration describes, with fresh weights."""
    match config:
        case PatchStemConfig(patch_size=patch_size):
            return PatchStem(width, patch_size)
        case ConvStemConfig(widths=widths, strides=strides):
            return ConvStem(width, widths, strides)


def _absolute_positions(config: ViTConfig) -> AbsolutePositions:
    match config.positions:
        case Learned1dConfig(prefix=prefix, resampling=resampling, start=start):
            own = config.prefix if prefix else 0
            return Learned1d(
                config.width, config.grid, prefix=own, resampling=resampling, start=start
            )
        case Learned2dConfig():
            return Learned2d(config.width, config.grid)
        case SineCosine1dConfig():
            return SineCosine1d(config.width, config.grid)
        case SineCosine2dConfig():
            return SineCosine2d(config.width, config.grid)
        case NoPositionsConfig() | Relative2dConfig() | Rotary2dConfig():
            return NoPositions(config.width)


def _attention_positions(config: ViTConfig) -> AttentionPositions:
    match config.positions:
        case Relative2dConfig():
            return RelativeBias2d(config.heads, config.grid, prefix=config.prefix)
        case Rotary2dConfig():
            return AxialRotary(config.width // config.heads, prefix=config.prefix)
        case _:
            return Placeless()


def _block(config: ViTConfig, drop_path: float) -> nn.Module:
    attention = Attention(
        config.width,
        config.heads,
        _attention_positions(config),
        qkv_bias=config.qkv_bias,
        qk_norm=config.qk_norm,
        eps=config.eps,
    )
    block = PreNormBlock if config.norm == "pre" else PostNormBlock
    return block(
        config.width,
        attention,
        _mlp(config),
        eps=config.eps,
        layer_scale=config.layer_scale,
        drop_path=drop_path,
    )


def _mlp(config: ViTConfig) -> FeedForward:
    hidden = round(config.width * config.mlp_ratio)
    if config.activation == "swiglu":
        return SwiGlu(config.width, hidden)
    return Mlp(config.width, hidden, activation=config.activation)


def _pool(config: ViTConfig) -> Pool:
    match config.pool:
        case "class":
            return ClassTokenPool()
        case "mean":
            return MeanPool(prefix=config.prefix)
        case "class_and_mean":
            return ClassTokenAndMeanPool(prefix=config.prefix)
        case "attention":
            return AttentionPool(config.width, config.heads, _mlp(config), eps=config.eps)
