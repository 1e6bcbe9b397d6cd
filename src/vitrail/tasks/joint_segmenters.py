"""Published heads whose queries run through encoder blocks together with the patches.

Segmenter (Strudel et al. 2021, "Segmenter: Transformer for semantic segmentation", section 3.2)
does so after the backbone, with a query a class. EoMT (Kerssies et al. 2025, "Your ViT is secretly
an image segmentation model", section 3) makes the last blocks of the ViT itself do it: the backbone
here is what comes before, without its norm.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.config import Config, Depth, Width
from vitrail.errors import ConfigError
from vitrail.nn.attention import Attention
from vitrail.nn.blocks import Activation, FeedForward, Mlp, PreNormBlock, SwiGlu
from vitrail.nn.init import init_linear
from vitrail.nn.positions import Placeless
from vitrail.nn.projector import ChannelNorm
from vitrail.tasks.segmenter import Segmenter
from vitrail.types import Features, Grid, MaskQueries, PixelLogits

Probability = Annotated[float, Field(ge=0, le=1)]


class SegmenterReadout(Config):
    """A mask Transformer: one query a class, among the patches (Segmenter).

    Attributes:
        width: Width D of patches and queries.
        depth: Blocks.
        heads: Attention heads a block.
        hidden: Hidden width of the MLPs.
        eps: LayerNorm epsilon.
        drop_path: Stochastic depth of every block.
    """

    kind: Literal["segmenter"] = "segmenter"
    width: Width = 192
    depth: Depth = 2
    heads: PositiveInt = 3
    hidden: PositiveInt = 768
    eps: float = Field(default=1e-5, gt=0)
    drop_path: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> SegmenterReadout:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class EomtReadout(Config):
    """The last blocks of a ViT, with queries in front of its tokens (EoMT).

    Blocks are as wide as the backbone, and mostly as its own. In training every block has its own
    opinion of the masks. `mask_probs` says how often a query then sees no patches but those of its
    mask: published models were trained from 1 down to 0, so that they need no masks on the way;
    here it stays what it is.

    Attributes:
        queries: The most segments an image can have.
        depth: Blocks.
        heads: Attention heads a block.
        mlp_ratio: Hidden width of the MLPs over the width.
        activation: Of the MLPs in the blocks.
        head_activation: Of the upscaling and of the mask head.
        eps: LayerNorm epsilon of blocks and last norm.
        layer_scale: Start of LayerScale; None for none.
        drop_path: Stochastic depth of every block.
        upscale: How often the map of patches is doubled, for masks finer than patches.
        mask_probs: A block each, the chance that a query sees its own mask alone; empty for 0. A
            finished model draws no chances: from one half on, all do.
    """

    kind: Literal["eomt"] = "eomt"
    queries: PositiveInt = 100
    depth: Depth = 3
    heads: PositiveInt = 3
    mlp_ratio: PositiveFloat = 4.0
    activation: Activation | Literal["swiglu"] = "gelu"
    head_activation: Activation = "gelu"
    eps: float = Field(default=1e-6, gt=0)
    layer_scale: float | None = 1e-5
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    upscale: int = Field(default=2, ge=0, le=6)
    mask_probs: tuple[Probability, ...] = ()

    @property
    def chances(self) -> tuple[float, ...]:
        """One a block."""
        return self.mask_probs or (0.0,) * self.depth

    @model_validator(mode="after")
    def _consistent(self) -> EomtReadout:
        if self.mask_probs and len(self.mask_probs) != self.depth:
            raise ValueError(
                f"mask_probs: {len(self.mask_probs)} for {self.depth} blocks; give one a block"
            )
        return self


class MaskTransformer(Segmenter):
    """Class queries and patches in one sequence; a mask is their cosine (Segmenter, equation 5).

    Queries stand in front of the patches, which changes no sum: blocks know no places.

    Args:
        readout: What it is.
        channels: Width of the backbone's coarsest map.
        stride: Its stride.
        classes: Number of classes, two at least: the last norm runs over them.
    """

    def __init__(self, readout: SegmenterReadout, channels: int, stride: int, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise ConfigError(
                "task.readout.kind = 'segmenter' compares classes with one another and needs two; "
                "take 'class_queries'"
            )
        width = readout.width
        self.stride = stride
        self.project = nn.Linear(channels, width)
        self.queries = nn.Parameter(torch.empty(1, classes, width))
        self.blocks = nn.ModuleList(
            PreNormBlock(
                width,
                Attention(width, readout.heads, Placeless()),
                Mlp(width, readout.hidden),
                eps=readout.eps,
                layer_scale=None,
                drop_path=readout.drop_path,
            )
            for _ in range(readout.depth)
        )
        self.norm = nn.LayerNorm(width, eps=readout.eps)
        self.patch_proj = nn.Linear(width, width, bias=False)
        self.query_proj = nn.Linear(width, width, bias=False)
        self.mask_norm = nn.LayerNorm(classes, eps=readout.eps)
        self.apply(init_linear)
        nn.init.trunc_normal_(self.queries, std=0.02)
        for proj in (self.patch_proj, self.query_proj):
            nn.init.normal_(proj.weight, std=width**-0.5)

    def forward(self, features: Features) -> PixelLogits:
        """A logit a class and patch."""
        cells = features.maps[-1]
        grid, count = (cells.shape[2], cells.shape[3]), self.queries.shape[1]
        patches = self.project(cells.flatten(2).transpose(1, 2))
        tokens = torch.cat([self.queries.expand(len(patches), -1, -1), patches], dim=1)
        for block in self.blocks:
            tokens = block(tokens, grid)
        tokens = self.norm(tokens)
        queries = F.normalize(self.query_proj(tokens[:, :count]), dim=-1)
        patches = F.normalize(self.patch_proj(tokens[:, count:]), dim=-1)
        masks = self.mask_norm(patches @ queries.mT)
        return PixelLogits(masks.transpose(1, 2).unflatten(2, grid))


class Upscale(nn.Module):
    """A map twice as fine: transposed convolution, GELU, a convolution a channel, norm."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.act = nn.GELU(approximate=_approximation(activation))
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = ChannelNorm(width, eps=1e-6)

    def forward(self, x: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D _h _w"]:
        """Twice as many rows and columns."""
        return self.norm(self.conv(self.act(self.enlarge(x))))


class MaskHead(nn.Module):
    """From a query to the vector that its mask is told by: three linear maps."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (nn.Linear(width, width) for _ in range(3))
        self.act = nn.GELU(approximate=_approximation(activation))

    def forward(self, queries: Float[Tensor, "B Q D"]) -> Float[Tensor, "B Q D"]:
        """One vector a query."""
        return self.fc3(self.act(self.fc2(self.act(self.fc1(queries)))))


class EncoderOnlyMaskTransformer(Segmenter):
    """Queries in front of the backbone's tokens, through the last blocks with them (EoMT, Fig. 3).

    Args:
        readout: What it is.
        width: Width D of the backbone's tokens.
        stride: Pixels a patch.
        classes: Number of classes; a query has one output more, for no segment.
    """

    matched = True

    def __init__(self, readout: EomtReadout, width: int, stride: int, classes: int) -> None:
        super().__init__()
        if width % readout.heads:
            raise ConfigError(
                f"task.readout.heads = {readout.heads} does not divide the width {width} of the "
                "backbone, whose blocks go on here; give as many heads as it has"
            )
        if stride % 2**readout.upscale:
            raise ConfigError(
                f"task.readout.upscale = {readout.upscale} cuts patches of {stride} pixels into "
                "parts that are no whole pixels; give less"
            )
        self.stride = stride // 2**readout.upscale
        self.readout, self.chances = readout, readout.chances
        self.queries = nn.Parameter(torch.empty(1, readout.queries, width))
        self.blocks = nn.ModuleList(_block(readout, width) for _ in range(readout.depth))
        self.norm = nn.LayerNorm(width, eps=readout.eps)
        self.upscale = nn.Sequential(
            *(Upscale(width, readout.head_activation) for _ in range(readout.upscale))
        )
        self.mask_head = MaskHead(width, readout.head_activation)
        self.classify = nn.Linear(width, classes + 1)
        self.apply(init_linear)
        nn.init.normal_(self.queries)

    def forward(self, features: Features) -> MaskQueries:
        """What every query tells; while training, before every block too."""
        hidden, earlier = self.run(features)
        *_, rows, columns = features.maps[-1].shape
        return self.tell(hidden, (rows, columns))._replace(earlier=tuple(earlier))

    def run(self, features: Features) -> tuple[Float[Tensor, "B N D"], list[MaskQueries]]:
        """All tokens after the last norm, queries first, and opinions on the way in training."""
        *_, rows, columns = features.maps[-1].shape
        grid = (rows, columns)
        queries = self.queries.expand(len(features.tokens), -1, -1)
        tokens = torch.cat([queries, features.tokens], dim=1)
        earlier: list[MaskQueries] = []
        seen: Tensor | None = None
        for block, chance in zip(self.blocks, self.chances, strict=True):
            if self.training or chance > 0:
                told = self.tell(self.norm(tokens), grid)
                seen = self._seen(told.masks, tokens.shape[1], grid, chance)
                if self.training:
                    earlier.append(told)
            # A block whose chance is 0 keeps the masks of the block before, as in transformers.
            tokens = block(tokens, grid, seen)
        return self.norm(tokens), earlier

    def tell(self, tokens: Float[Tensor, "B N D"], grid: Grid) -> MaskQueries:
        """Classes and masks from tokens after the norm.

        Args:
            tokens: Queries, the backbone's leading tokens, patches.
            grid: Rows and columns of the patches.
        """
        queries = tokens[:, : self.readout.queries]
        patches = tokens[:, tokens.shape[1] - grid[0] * grid[1] :]
        pixels = self.upscale(patches.transpose(1, 2).unflatten(2, grid))
        masks = self.mask_head(queries) @ pixels.flatten(2)
        return MaskQueries(self.classify(queries), masks.unflatten(2, pixels.shape[2:]))

    def _seen(
        self, masks: Float[Tensor, "B Q _h _w"], tokens: int, grid: Grid, chance: float
    ) -> Bool[Tensor, "B 1 N N"] | None:
        """What each token sees: a query the patches of its mask, and all else everything."""
        if not self.training:
            chance = float(chance >= 0.5)
        if chance == 0:
            return None
        B, Q = masks.shape[:2]
        own = F.interpolate(masks.detach(), size=grid, mode="bilinear").flatten(2) > 0
        if chance < 1:
            own |= torch.rand(B, Q, 1, device=own.device) >= chance
        seen = own.new_ones(B, tokens, tokens)
        seen[:, :Q, tokens - own.shape[2] :] = own
        return seen[:, None]


def _block(readout: EomtReadout, width: int) -> PreNormBlock:
    return PreNormBlock(
        width,
        Attention(width, readout.heads, Placeless()),
        _mlp(readout, width),
        eps=readout.eps,
        layer_scale=readout.layer_scale,
        drop_path=readout.drop_path,
    )


def _mlp(readout: EomtReadout, width: int) -> FeedForward:
    hidden = round(width * readout.mlp_ratio)
    if readout.activation == "swiglu":
        return SwiGlu(width, hidden)
    return Mlp(width, hidden, activation=readout.activation)


def _approximation(activation: Activation) -> Literal["none", "tanh"]:
    return "tanh" if activation == "gelu_tanh" else "none"
