"""Swin Transformer, version 1 (Liu et al. 2021) and version 2 (Liu et al. 2022)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from vitrail.backbones.backbone import Backbone, BackboneBase
from vitrail.config import Depth, Width
from vitrail.nn.blocks import Mlp, StochasticDepth, drop_path_rates
from vitrail.nn.init import init_linear
from vitrail.nn.patches import PatchStem
from vitrail.nn.positions import AbsolutePositions, Learned1d, NoPositions
from vitrail.nn.windows import (
    ContinuousPositions,
    CosineWindowAttention,
    NoWindowPositions,
    PatchMerging,
    PatchMergingV2,
    RelativePositions,
    WindowAttention,
    WindowPositions,
    Windows,
)
from vitrail.types import Features, Grid


class SwinBase(BackboneBase):
    """What both versions say. Tuples have one entry a stage.

    Attributes:
        image_size: Height and width that the model is made for; other sizes are served too.
        patch_size: Pixels of a side of a patch.
        width: Width of the first stage; it doubles with each.
        depths: Blocks.
        heads: Attention heads a block.
        window: Places of a side of a window. A stage whose map of `image_size` is no larger has
            one window of the map's shorter side and no shift, as in the classification code.
        shift: Whether every second block shifts its windows by half (Table 4, first two rows).
        positions: A learned bias for each offset in a window (`relative`), a table that is added
            to the patches (`absolute`), both, or neither (Table 4).
        mlp_ratio: Hidden width of the MLP over the tokens' width.
        drop_path: Stochastic depth of the last block; it grows linearly from 0 at the first.
    """

    patch_size: PositiveInt = 4
    width: Width = 96
    depths: tuple[Depth, ...] = Field(default=(2, 2, 6, 2), min_length=1)
    heads: tuple[PositiveInt, ...] = (3, 6, 12, 24)
    window: PositiveInt = 7
    shift: bool = True
    positions: Literal["none", "absolute", "relative", "absolute_and_relative"] = "relative"
    mlp_ratio: float = Field(default=4.0, gt=0)
    eps: float = Field(default=1e-5, gt=0)
    drop_path: float = Field(default=0.0, ge=0, lt=1)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels a place of each stage's map."""
        return tuple(self.patch_size * 2**stage for stage in range(len(self.depths)))

    @property
    def stride(self) -> int:
        """Pixels a place of the last stage's map."""
        return self.strides[-1]

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each stage."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Rows and columns of each stage's map of `image_size`."""
        height, width = self.image_size
        return tuple((-(-height // stride), -(-width // stride)) for stride in self.strides)

    @property
    def windows(self) -> tuple[Windows, ...]:
        """How these maps are cut in the blocks that shift; other maps are cut alike."""
        return tuple(map(self._windows, self.grids))

    def _windows(self, grid: Grid) -> Windows:
        if min(grid) <= self.window:
            return Windows(grid, min(grid))
        return Windows(grid, self.window, self.window // 2 if self.shift else 0)

    @model_validator(mode="after")
    def _consistent(self) -> SwinBase:
        if len(self.depths) != len(self.heads):
            raise ValueError("depths and heads need one entry for each stage")
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads:
                raise ValueError(f"a stage of width {width} cannot have {heads} heads")
        return self


class SwinConfig(SwinBase):
    """A Swin Transformer: norm before each branch, scores q kᵀ / sqrt(d).

    Attributes:
        qkv_bias: Whether queries, keys and values have a bias.
    """

    kind: Literal["swin"] = "swin"
    qkv_bias: bool = True


class SwinV2Config(SwinBase):
    """A Swin Transformer V2: norm after each branch, cosine scores, bias from an MLP.

    Attributes:
        pretrained_windows: Windows that the model was trained with before, one a stage, 0 or
            nothing where it was trained with its own. Weights do not tell: they are needed where
            the window was enlarged for fine-tuning.
    """

    kind: Literal["swinv2"] = "swinv2"
    window: PositiveInt = 8
    pretrained_windows: tuple[NonNegativeInt, ...] = ()

    @model_validator(mode="after")
    def _one_window_a_stage(self) -> SwinV2Config:
        if len(self.pretrained_windows) not in (0, len(self.depths)):
            raise ValueError("pretrained_windows needs one entry for each stage, or none at all")
        return self


class SwinBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (v1 equation 3)."""

    def __init__(
        self, width: int, attention: WindowAttention, mlp: Mlp, *, eps: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = mlp
        self.drop_path = StochasticDepth(drop_path)

    def forward(
        self,
        tokens: Float[Tensor, "B n D"],
        windows: Windows,
        mask: Float[Tensor, "W 1 N N"] | None,
    ) -> Float[Tensor, "B n D"]:
        """One layer on a map in raster order."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), windows, mask))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class SwinV2Block(SwinBlock):
    """x + norm(attention(x)), then x + norm(mlp(x)) (v2 section 3.2, "residual post norm")."""

    def forward(
        self,
        tokens: Float[Tensor, "B n D"],
        windows: Windows,
        mask: Float[Tensor, "W 1 N N"] | None,
    ) -> Float[Tensor, "B n D"]:
        """One layer on a map in raster order."""
        tokens = tokens + self.drop_path(self.norm1(self.attn(tokens, windows, mask)))
        return tokens + self.drop_path(self.norm2(self.mlp(tokens)))


class SwinStage(nn.Module):
    """Blocks on one map; every second one shifts its windows.

    Args:
        downsample: What leads from the stage before, None for the first.
        blocks: The blocks.
        windows: Size and shift of the windows.
    """

    def __init__(
        self, downsample: PatchMerging | None, blocks: list[SwinBlock], windows: Windows
    ) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.windows = windows

    def forward(
        self, tokens: Float[Tensor, "B _m _C"], grid: Grid
    ) -> tuple[Float[Tensor, "B n D"], Grid]:
        """The stage's map in raster order, and its rows and columns."""
        if self.downsample is not None:
            tokens, grid = self.downsample(tokens, grid)
        cuts = [self.cut(block, grid) for block in range(len(self.blocks))]
        masks = [cut.mask(tokens.device) for cut in cuts[:2]]
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, cuts[i], masks[i % 2])
        return tokens, grid

    def cut(self, block: int, grid: Grid) -> Windows:
        """How a block cuts a map: every second one shifts."""
        return Windows(grid, self.windows.size, self.windows.shift if block % 2 else 0)


class Swin(Backbone):
    """Patches, stages of shifted-window blocks with merging between them, norm (v1 Fig. 3).

    `maps` are the outputs of the stages, the last after the final norm; `tokens` are the last map's
    places in raster order, and `pooled` is their mean.
    """

    def __init__(self, config: SwinConfig | SwinV2Config) -> None:
        super().__init__()
        self.config = config
        self.channels, self.strides = config.widths, config.strides
        self.pooled_width = self.channels[-1]
        self.patch_embed = PatchStem(config.width, config.patch_size)
        self.patch_norm = nn.LayerNorm(config.width, eps=config.eps)
        self.pos_embed = _absolute_positions(config)
        self.stages = nn.ModuleList(_stage(config, i) for i in range(len(config.depths)))
        self.norm = nn.LayerNorm(self.pooled_width, eps=config.eps)
        self.apply(_start)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        """Features of a batch of normalised images of any size."""
        self.insist_size(images)
        # Channels lie side by side in tokens: let the convolution write them so, without a copy.
        patches = self.patch_embed(images.contiguous(memory_format=torch.channels_last))
        grid: Grid = (patches.shape[2], patches.shape[3])
        tokens = self.patch_norm(patches.flatten(2).transpose(1, 2))
        if not isinstance(self.pos_embed, NoPositions):
            tokens = tokens + self.pos_embed.table(grid)
        maps: list[Tensor] = []
        for stage in self.stages:
            tokens, grid = stage(tokens, grid)
            maps.append(_as_map(tokens, grid))
        tokens = self.norm(tokens)
        maps[-1] = _as_map(tokens, grid)
        return Features(maps=tuple(maps), tokens=tokens, pooled=tokens.mean(dim=1))

    def layers(self) -> list[list[nn.Module]]:
        """The stem with its positions, then one group a block; merging goes with what follows."""
        groups: list[list[nn.Module]] = [[self.patch_embed, self.patch_norm, self.pos_embed]]
        for stage in self.stages:
            assert isinstance(stage, SwinStage)
            blocks: list[list[nn.Module]] = [[block] for block in stage.blocks]
            if stage.downsample is not None:
                blocks[0].insert(0, stage.downsample)
            groups += blocks
        return groups


def _as_map(tokens: Float[Tensor, "B n D"], grid: Grid) -> Float[Tensor, "B D _h _w"]:
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)


def _absolute_positions(config: SwinConfig | SwinV2Config) -> AbsolutePositions:
    if config.positions not in ("absolute", "absolute_and_relative"):
        return NoPositions(config.width)
    return Learned1d(config.width, config.grids[0], prefix=0, resampling="bicubic")


def _stage(config: SwinConfig | SwinV2Config, stage: int) -> SwinStage:
    """One stage with its share of the drop rates."""
    width, before = config.widths[stage], sum(config.depths[:stage])
    rates = drop_path_rates(config.drop_path, sum(config.depths))[before:]
    merging = PatchMerging if isinstance(config, SwinConfig) else PatchMergingV2
    kind = SwinBlock if isinstance(config, SwinConfig) else SwinV2Block
    return SwinStage(
        merging(width // 2, eps=config.eps) if stage else None,
        [
            kind(
                width,
                _attention(config, stage),
                Mlp(width, int(width * config.mlp_ratio)),
                eps=config.eps,
                drop_path=rates[block],
            )
            for block in range(config.depths[stage])
        ],
        config.windows[stage],
    )


def _attention(config: SwinConfig | SwinV2Config, stage: int) -> WindowAttention:
    width, heads, size = config.widths[stage], config.heads[stage], config.windows[stage].size
    relative = config.positions in ("relative", "absolute_and_relative")
    positions: WindowPositions
    match config:
        case SwinConfig():
            positions = RelativePositions(heads, size) if relative else NoWindowPositions()
            return WindowAttention(width, heads, positions, qkv_bias=config.qkv_bias)
        case SwinV2Config():
            before = config.pretrained_windows[stage] if config.pretrained_windows else 0
            positions = (
                ContinuousPositions(heads, size, pretrained=before)
                if relative
                else NoWindowPositions()
            )
            return CosineWindowAttention(width, heads, positions)


def _start(module: nn.Module) -> None:
    """As in our ViT; the branches of v2 start at zero as in the official code."""
    init_linear(module)
    if isinstance(module, SwinV2Block):
        nn.init.zeros_(module.norm1.weight)
        nn.init.zeros_(module.norm2.weight)
