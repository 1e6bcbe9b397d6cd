"""What decoder queries read a feature map with: at a few places each, or everywhere.

Deformable attention (Zhu et al. 2021, equation 2) takes a handful of bilinear samples around each
query's own box, so that its cost does not grow with the map and it learns from few images where to
look. Dense attention looks everywhere (DETR, Carion et al. 2020).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.nn.probe import Probe, SampledWeights, SoftmaxWeights
from vitrail.nn.sequence_attention import padding_bias
from vitrail.types import Grid


@dataclass(frozen=True, slots=True)
class FeatureMemory:
    """Feature maps as the decoder reads them.

    Attributes:
        tokens: Cells of all maps in raster order, map after map.
        grids: Rows and columns of each map.
        mask: True where a cell shows the image; None where all do.
        shares: Share of each map's width and height that shows the image; None where all does.
        places: Position vectors of the tokens, which dense attention adds to its keys.
    """

    tokens: Float[Tensor, "B N D"]
    grids: tuple[Grid, ...]
    mask: Bool[Tensor, "B N"] | None = None
    shares: Float[Tensor, "B L 2"] | None = None
    places: Float[Tensor, "B N D"] | None = None


def feature_memory(maps: list[Tensor], pixel_mask: Bool[Tensor, "B H W"] | None) -> FeatureMemory:
    """Lay maps `(B, D, H, W)` out as one sequence.

    Args:
        maps: Of one width, in the order in which the decoder knows them.
        pixel_mask: True where a pixel shows the image; resampled to each map by nearest neighbour.
    """
    tokens = torch.cat([one.flatten(2).transpose(1, 2) for one in maps], dim=1)
    grids = tuple((one.shape[2], one.shape[3]) for one in maps)
    if pixel_mask is None:
        return FeatureMemory(tokens, grids)
    masks = [F.interpolate(pixel_mask[:, None].float(), size=grid)[:, 0] > 0 for grid in grids]
    shares = torch.stack(
        [torch.stack([m[:, 0].float().mean(1), m[:, :, 0].float().mean(1)], dim=-1) for m in masks],
        dim=1,
    )
    return FeatureMemory(tokens, grids, torch.cat([m.flatten(1) for m in masks], dim=1), shares)


class MemoryAttention(nn.Module, ABC):
    """How queries read a memory; `probe` is as in `vitrail.nn.attention.Attention`.

    Args:
        dim: Width D.
        heads: Number h of heads; must divide `dim`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        assert dim % heads == 0, f"width {dim} is not a multiple of {heads} heads"
        self.heads = heads
        self.proj = nn.Linear(dim, dim)
        self.probe: Probe | None = None

    @abstractmethod
    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        boxes: Float[Tensor, "B Q 4"] | None,
        memory: FeatureMemory,
    ) -> Float[Tensor, "B Q D"]:
        """What each query takes from the memory.

        Args:
            queries: With their positions added.
            boxes: Where each query looks, cxcywh as shares of the image; None where it does not
                know yet.
            memory: What is read.
        """

    def split(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B h N d"]:
        """Heads apart."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def join(self, x: Float[Tensor, "B h Q d"]) -> Float[Tensor, "B Q D"]:
        """Heads joined by the projection."""
        return self.proj(x.transpose(1, 2).flatten(2))


class DeformableAttention(MemoryAttention):
    """Each head takes `points` bilinear samples of every map around the query's box.

    A sample lies at the box's centre plus an offset in half sizes of the box; offsets and shares
    follow from the query alone. What falls outside the map counts as zero.

    Args:
        dim: Width D.
        heads: Number h of heads.
        points: Samples a head and map.
        levels: Number of maps.
    """

    def __init__(self, dim: int, heads: int, *, points: int, levels: int = 1) -> None:
        super().__init__(dim, heads)
        self.points, self.levels = points, levels
        self.offsets = nn.Linear(dim, heads * levels * points * 2)
        self.shares = nn.Linear(dim, heads * levels * points)
        self.value = nn.Linear(dim, dim)
        self.start()

    def start(self) -> None:
        """Heads look into different directions, points further and further (Zhu et al. 2021)."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angle.cos(), angle.sin()], dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        bias = directions[:, None, None] * steps[:, None]
        nn.init.zeros_(self.offsets.weight)
        with torch.no_grad():
            self.offsets.bias.copy_(bias.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.shares.weight)
        nn.init.zeros_(self.shares.bias)
        for linear in (self.value, self.proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        boxes: Float[Tensor, "B Q 4"] | None,
        memory: FeatureMemory,
    ) -> Float[Tensor, "B Q D"]:
        """What each query takes from the places that it samples."""
        assert boxes is not None, "deformable attention needs to know where to look"
        value = self.value(memory.tokens)
        if memory.mask is not None:
            value = value.masked_fill(~memory.mask[..., None], 0.0)
        places = self.places(queries, boxes, memory.shares)
        B, Q, _ = queries.shape
        shares = self.shares(queries).reshape(B, Q, self.heads, -1).softmax(dim=-1)
        shares = shares.reshape(B, Q, self.heads, self.levels, self.points).transpose(1, 2)
        weights = SampledWeights(places, shares, memory.grids)
        values = self.split(value)
        joined = weights.sample(values)
        if self.probe is not None:
            self.probe(weights, values, joined)
        return self.join(joined)

    def places(
        self,
        queries: Float[Tensor, "B Q D"],
        boxes: Float[Tensor, "B Q 4"],
        shares: Float[Tensor, "B L 2"] | None,
    ) -> Float[Tensor, "B h Q L P 2"]:
        """Where samples lie, x and y as shares of each whole map."""
        B, Q, _ = queries.shape
        offsets = self.offsets(queries).reshape(B, Q, self.heads, self.levels, self.points, 2)
        boxes = boxes[:, :, None].expand(-1, -1, self.levels, -1)
        if shares is not None:
            boxes = boxes * torch.cat([shares, shares], dim=-1)[:, None]
        boxes = boxes[:, :, None, :, None]
        places = boxes[..., :2] + offsets / self.points * boxes[..., 2:] * 0.5
        return places.transpose(1, 2)


class DenseAttention(MemoryAttention):
    """Every query reads every cell: softmax(q kᵀ · scale), positions added to queries and keys."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        for linear in (self.q, self.k, self.v, self.proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        boxes: Float[Tensor, "B Q 4"] | None,
        memory: FeatureMemory,
    ) -> Float[Tensor, "B Q D"]:
        """What each query takes from all cells; boxes tell it nothing beyond its position."""
        del boxes
        tokens = memory.tokens
        keys = tokens if memory.places is None else tokens + memory.places
        q, k, v = self.split(self.q(queries)), self.split(self.k(keys)), self.split(self.v(tokens))
        bias = padding_bias(memory.mask)
        bias = None if bias is None else bias.to(q.dtype)
        scale = q.shape[-1] ** -0.5
        joined = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
        if self.probe is not None:
            self.probe(SoftmaxWeights(q, k, bias, scale), v, joined)
        return self.join(joined)
