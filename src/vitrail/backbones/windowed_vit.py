"""A Vision Transformer with windows, for detectors: LW-DETR's (Chen et al. 2024) and RF-DETR's.

Most blocks attend inside the windows of the image, the others over all of it, so that a fine grid
costs little. The outputs of several blocks are feature maps of one stride (section 3.1).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from vitrail.backbones.backbone import Backbone, BackboneBase
from vitrail.config import Depth, Width
from vitrail.nn.attention import Attention
from vitrail.nn.blocks import (
    Activation,
    FeedForward,
    Mlp,
    PreNormBlock,
    SwiGlu,
    drop_path_rates,
)
from vitrail.nn.image_windows import ImageWindowAttention
from vitrail.nn.init import init_linear
from vitrail.nn.patches import PatchStem, pad_to_multiple
from vitrail.nn.positions import Learned1d, Placeless, Resampling
from vitrail.types import Features, Grid


class WindowedViTConfig(BackboneBase):
    """A Vision Transformer with windows.

    Attributes:
        image_size: Height and width that the model is made for; other sizes are served too.
        patch_size: Pixels of a side of a patch.
        table: Rows and columns of the table of positions; None for the grid of `image_size`.
        resampling: How the table is stretched to another grid.
        width: Width D of the tokens.
        depth: Number of blocks.
        heads: Attention heads a block.
        windows: Windows along each side of the image.
        exchanged: Whether patches go to windows as if height and width of their grid were
            exchanged (RF-DETR in transformers). Square images look the same either way.
        whole: Blocks that attend over the whole image, counted from 0; the others see windows.
        taps: The feature maps: after how many blocks each is taken, 0 being the patches. The last
            is taken after the last block.
        norm_taps: Whether one last norm is applied to every feature map (RF-DETR).
        mlp_ratio: Hidden width of the MLP over D.
        activation: Of the MLP; `swiglu` makes it a gated one.
        class_token: Whether a learned token leads the places of each window.
        registers: Learned tokens after it, likewise.
        layer_scale: Start of LayerScale; None for none.
        drop_path: Stochastic depth of the last block; it grows linearly from 0 at the first.
    """

    kind: Literal["windowed_vit"] = "windowed_vit"
    patch_size: PositiveInt = 16
    table: tuple[PositiveInt, PositiveInt] | None = None
    resampling: Resampling = "bicubic_antialias"
    width: Width = 384
    depth: Depth = 12
    heads: PositiveInt = 6
    windows: int = Field(default=2, gt=0, le=64)
    exchanged: bool = False
    whole: tuple[NonNegativeInt, ...] = (3, 6, 9)
    taps: tuple[NonNegativeInt, ...] = Field(default=(3, 6, 9, 12), min_length=1)
    norm_taps: bool = True
    mlp_ratio: float = Field(default=4.0, gt=0)
    activation: Activation | Literal["swiglu"] = "gelu"
    qkv_bias: bool = True
    eps: float = Field(default=1e-6, gt=0)
    class_token: bool = True
    registers: int = Field(default=0, ge=0)
    layer_scale: float | None = None
    drop_path: float = Field(default=0.0, ge=0, lt=1)

    @property
    def stride(self) -> int:
        """Pixels from one patch to the next."""
        return self.patch_size

    @property
    def multiple(self) -> int:
        """Sides of an image are padded to multiples of so many pixels."""
        return self.patch_size * self.windows

    @property
    def grid(self) -> Grid:
        """Patch grid of `image_size`, with whole windows."""
        rows, columns = (-(-side // self.multiple) * self.windows for side in self.image_size)
        return rows, columns

    @property
    def own_prefix(self) -> int:
        """Tokens of one window that are no patches."""
        return self.class_token + self.registers

    @property
    def prefix(self) -> int:
        """The same of all windows."""
        return self.own_prefix * self.windows**2

    @model_validator(mode="after")
    def _consistent(self) -> WindowedViTConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if any(after <= before for before, after in pairwise(self.taps)):
            raise ValueError(f"taps {self.taps} are not in ascending order")
        if self.taps[-1] != self.depth:
            raise ValueError(
                f"the last tap is after block {self.taps[-1]} of {self.depth}: blocks behind it "
                "would do nothing; make depth the last of the taps"
            )
        if self.whole and max(self.whole) >= self.depth:
            raise ValueError(f"whole {self.whole}: blocks are counted from 0 to {self.depth - 1}")
        return self


class WindowedViT(Backbone):
    """Patches, positions, blocks that see windows or the whole image, a map at every tap.

    Sides that are no multiple of patch times windows are padded with the mean colour on the right
    and below, and the maps are cut back; the published models refuse such images. `tokens` are
    those of the last map behind all copies of the prefix, `pooled` is the mean of its places.
    """

    def __init__(self, config: WindowedViTConfig) -> None:
        super().__init__()
        self.config = config
        count = len(config.taps)
        self.channels, self.strides = (config.width,) * count, (config.stride,) * count
        self.pooled_width, self.prefix = config.width, config.prefix
        self.patch_embed = PatchStem(config.width, config.patch_size)
        self.prefix_token = nn.Parameter(torch.empty(1, config.own_prefix, config.width))
        self.pos_embed = Learned1d(
            config.width,
            config.table or config.grid,
            prefix=config.own_prefix,
            resampling=config.resampling,
        )
        rates = drop_path_rates(config.drop_path, config.depth)
        self.blocks = nn.ModuleList(_block(config, i, rate) for i, rate in enumerate(rates))
        norm = nn.LayerNorm(config.width, eps=config.eps)
        self.norm = norm if config.norm_taps else nn.Identity()
        self.apply(init_linear)
        nn.init.trunc_normal_(self.prefix_token, std=0.02)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        """Features of a batch of normalised images of any size."""
        self.insist_size(images)
        padded = pad_to_multiple(images, self.config.multiple)
        patches = self.patch_embed(padded)
        grid = (patches.shape[2], patches.shape[3])
        tokens = self._placed(patches.flatten(2).transpose(1, 2), grid)
        # Where a side is filled up, the original fails, and there is nothing to imitate.
        if self.config.exchanged and padded.shape == images.shape:
            tokens = self._exchanged(tokens, grid)
        taps = [tokens] if 0 in self.config.taps else []
        for index, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, grid)
            if index in self.config.taps:
                taps.append(tokens)
        rows, columns = (-(-side // self.config.stride) for side in images.shape[2:])
        taps = [self.norm(self._inside(tap, grid, (rows, columns))) for tap in taps]
        places = [tap[:, self.prefix :] for tap in taps]
        maps = tuple(part.transpose(1, 2).unflatten(2, (rows, columns)) for part in places)
        return Features(maps=maps, tokens=taps[-1], pooled=places[-1].mean(dim=1))

    def layers(self) -> list[list[nn.Module]]:
        """The stem with its positions, then one group a block."""
        return [[self.patch_embed, self.pos_embed], *([block] for block in self.blocks)]

    def _inside(
        self, tokens: Float[Tensor, "B m D"], padded: Grid, grid: Grid
    ) -> Float[Tensor, "B n D"]:
        """The tokens without places beyond the image."""
        if padded == grid:
            return tokens
        prefix, places = tokens.tensor_split([self.prefix], dim=1)
        places = places.reshape(places.shape[0], *padded, -1)[:, : grid[0], : grid[1]].flatten(1, 2)
        return torch.cat([prefix, places], dim=1)

    def _exchanged(self, tokens: Float[Tensor, "B N D"], grid: Grid) -> Float[Tensor, "B N D"]:
        """Patches where the original puts them: cut as C x R, joined as R x C."""
        prefix, patches = tokens.tensor_split([self.prefix], dim=1)
        B, _, D = patches.shape
        side = self.config.windows
        rows, columns = (n // side for n in grid)
        cut = patches.reshape(B, side, columns, side, rows, D).transpose(2, 3)
        joined = cut.reshape(B, side, side, rows, columns, D).transpose(2, 3)
        return torch.cat([prefix, joined.flatten(1, 4)], dim=1)

    def _placed(self, patches: Float[Tensor, "B M D"], grid: Grid) -> Float[Tensor, "B N D"]:
        """Add positions, and put a copy of the prefix for every window in front."""
        patches = patches + self.pos_embed.table(grid)
        place = self.pos_embed.prefix_table()
        if place is None:
            return patches
        copies = (self.prefix_token + place).repeat(1, self.config.windows**2, 1)
        return torch.cat([copies.expand(patches.shape[0], -1, -1), patches], dim=1)


def _block(config: WindowedViTConfig, index: int, drop_path: float) -> PreNormBlock:
    return PreNormBlock(
        config.width,
        _attention(config, index),
        _mlp(config),
        eps=config.eps,
        layer_scale=config.layer_scale,
        drop_path=drop_path,
    )


def _attention(config: WindowedViTConfig, index: int) -> Attention:
    if index in config.whole or config.windows == 1:
        return Attention(config.width, config.heads, Placeless(), qkv_bias=config.qkv_bias)
    return ImageWindowAttention(
        config.width,
        config.heads,
        side=config.windows,
        prefix=config.own_prefix,
        qkv_bias=config.qkv_bias,
    )


def _mlp(config: WindowedViTConfig) -> FeedForward:
    hidden = round(config.width * config.mlp_ratio)
    if config.activation == "swiglu":
        return SwiGlu(config.width, hidden)
    return Mlp(config.width, hidden, activation=config.activation)
