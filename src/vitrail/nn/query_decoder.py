"""From a feature map to objects: queries that talk to each other and read the map.

A layer is DETR's (Carion et al. 2020, section 3.2): self-attention among the queries, attention to
the memory, an MLP, each followed by a norm. Where queries come from, how they read and whether
their boxes are refined on the way makes DETR, Deformable DETR or LW-DETR of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.nn.blocks import Mlp
from vitrail.nn.boxes import refine
from vitrail.nn.deformable import DenseAttention, FeatureMemory, MemoryAttention
from vitrail.types import Found

FIRST_SIZE = 0.05
"""Sides of a cell's first box, as shares of the image (Zhu et al. 2021, appendix A.4)."""
EDGE = 0.01
"""Cells whose first box reaches nearer to the edge propose nothing."""


class MlpHead(nn.Module):
    """Linear maps with ReLU between.

    Args:
        dim: Width of input and hidden layers.
        out: Width of the output.
        layers: Linear maps.
        inputs: Width of the input where it is another one.
    """

    def __init__(self, dim: int, out: int, *, layers: int, inputs: int | None = None) -> None:
        super().__init__()
        widths = [inputs or dim, *[dim] * (layers - 1), out]
        pairs = pairwise(widths)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B _C"]:
        """Each query by itself."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class QueryLayer(nn.Module):
    """One decoder layer, norms after each residual sum.

    Args:
        dim: Width D.
        heads: Heads among the queries.
        attention: How the memory is read.
        hidden: Hidden width of the MLP.
    """

    def __init__(self, dim: int, heads: int, attention: MemoryAttention, hidden: int) -> None:
        super().__init__()
        self.self_attn = DenseAttention(dim, heads)
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.cross_attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = Mlp(dim, hidden, activation="relu")
        self.norm3 = nn.LayerNorm(dim, eps=1e-5)

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        places: Float[Tensor, "B Q D"],
        boxes: Float[Tensor, "B Q 4"] | None,
        memory: FeatureMemory,
        groups: int,
    ) -> Float[Tensor, "B Q D"]:
        """One layer; queries of different groups do not see each other."""
        B, Q, D = queries.shape
        apart, place = (x.reshape(B * groups, Q // groups, D) for x in (queries, places))
        others = FeatureMemory(apart, ((1, Q // groups),), places=place)
        told = self.self_attn(apart + place, None, others).reshape(B, Q, D)
        queries = self.norm1(queries + told)
        queries = self.norm2(queries + self.cross_attn(queries + places, boxes, memory))
        return self.norm3(queries + self.mlp(queries))


@dataclass(frozen=True, slots=True)
class QueryStart:
    """Queries before the first layer.

    Attributes:
        content: What they say.
        places: Their learned positions; None where these follow from the boxes.
        boxes: Where they look first, cxcywh; None where they do not know.
        proposals: What the chosen tokens said themselves, for the loss.
    """

    content: Float[Tensor, "B Q D"]
    places: Float[Tensor, "B Q D"] | None
    boxes: Float[Tensor, "B Q 4"] | None
    proposals: Found | None


class LearnedQueries(nn.Module):
    """Queries that are the same for every image: a learned position, and nothing said (DETR)."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.groups = 1
        self.places = nn.Parameter(torch.randn(count, dim))

    def forward(self, memory: FeatureMemory) -> QueryStart:
        """The queries, once an image."""
        places = self.places.expand(memory.tokens.shape[0], -1, -1)
        return QueryStart(torch.zeros_like(places), places, None, None)


class Proposer(nn.Module):
    """A head on every token: is there an object, and where (the first of two stages).

    Args:
        dim: Width D.
        classes: Outputs C.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.classify = class_head(dim, classes)
        self.locate = box_head(dim)

    def forward(
        self,
        tokens: Float[Tensor, "B N D"],
        first: Float[Tensor, "B N 4"],
        bad: Bool[Tensor, "B N"],
        count: int,
    ) -> tuple[Found, Int[Tensor, "B Q"]]:
        """What the best tokens say, and which they are."""
        hidden = self.norm(self.project(tokens))
        logits = self.classify(hidden)
        best = logits.amax(-1).masked_fill(bad, -math.inf).topk(count, dim=1).indices
        boxes = refine(pick(first, best), self.locate(pick(hidden, best)))
        return Found(pick(logits, best), boxes), best


class TwoStageQueries(nn.Module):
    """Queries chosen from the tokens: those that look most like an object (Zhu et al. 2021, 4.2).

    While training there are several groups of queries with a proposer each; a group does not see
    the others, so that every object teaches as many queries (Group DETR, Chen et al. 2023).

    Args:
        dim: Width D.
        classes: Outputs C.
        count: Queries Q a group.
        groups: Groups while training; one afterwards.
    """

    def __init__(self, dim: int, classes: int, *, count: int, groups: int) -> None:
        super().__init__()
        self.count, self.groups = count, groups
        self.content = nn.Parameter(torch.randn(groups * count, dim))
        self.shift = nn.Parameter(torch.zeros(groups * count, 4))
        self.proposers = nn.ModuleList(Proposer(dim, classes) for _ in range(groups))

    def forward(self, memory: FeatureMemory) -> QueryStart:
        """Queries that begin at the boxes which the best tokens propose."""
        first, bad = first_boxes(memory)
        tokens = memory.tokens.masked_fill(bad[..., None], 0.0)
        first = first.masked_fill(bad[..., None], 0.0)
        count = min(self.count, tokens.shape[1])
        groups = self.groups if self.training else 1
        found = [self.proposers[i](tokens, first, bad, count)[0] for i in range(groups)]
        proposals = Found(
            torch.cat([one.logits for one in found], dim=1),
            torch.cat([one.boxes for one in found], dim=1),
        )
        content, shift = (
            table.reshape(self.groups, self.count, -1)[:groups, :count].flatten(0, 1)
            for table in (self.content, self.shift)
        )
        # The first stage learns from its own loss alone.
        boxes = refine(proposals.boxes.detach(), shift.expand(tokens.shape[0], -1, -1))
        content = content.expand(tokens.shape[0], -1, -1)
        return QueryStart(content, None, boxes, proposals)


class QueryDecoder(nn.Module):
    """Layers over queries; the position of a query follows from its box.

    Args:
        dim: Width D.
        layers: One a decoder layer.
        from_boxes: Whether positions follow from boxes; else they are learned with the queries.
        refinement: `layers` moves the boxes after every layer (Zhu et al. 2021, 4.1), `once` lets
            all layers look at the first (LW-DETR).
    """

    def __init__(
        self,
        dim: int,
        layers: Sequence[QueryLayer],
        *,
        from_boxes: bool,
        refinement: Literal["layers", "once"],
    ) -> None:
        super().__init__()
        self.refinement = refinement
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.place = MlpHead(dim, dim, layers=2, inputs=2 * dim) if from_boxes else None

    def forward(
        self,
        start: QueryStart,
        memory: FeatureMemory,
        locate: Callable[[Tensor, Tensor | None], Tensor],
        groups: int,
    ) -> list[tuple[Tensor, Tensor | None]]:
        """The normed queries after each layer, and the boxes that they looked at.

        Args:
            start: The queries.
            memory: What they read.
            locate: Boxes that normed queries tell, given those that they looked at.
            groups: Groups of queries that do not see each other.
        """
        queries, boxes, places = start.content, start.boxes, start.places
        seen: list[tuple[Tensor, Tensor | None]] = []
        for index, layer in enumerate(self.layers):
            if boxes is not None and self.place is not None and (index == 0 or self._moves):
                places = self.place(sine_of_boxes(shown(boxes, memory), queries.shape[-1] // 2))
            assert places is not None, "positions are learned, or follow from boxes"
            queries = layer(queries, places, boxes, memory, groups)
            normed = self.norm(queries)
            seen.append((normed, boxes))
            if self._moves and boxes is not None and index + 1 < len(self.layers):
                boxes = locate(normed, boxes).detach()
        return seen

    @property
    def _moves(self) -> bool:
        return self.refinement == "layers"


def class_head(dim: int, classes: int, *, layers: int = 1) -> nn.Module:
    """Logits; everything is unlikely at first, so that the many empty queries drown nothing."""
    head = nn.Linear(dim, classes) if layers == 1 else MlpHead(dim, classes, layers=layers)
    last = head if isinstance(head, nn.Linear) else head.layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.constant_(last.bias, -math.log(99))
    return head


def box_head(dim: int) -> MlpHead:
    """Three linear maps to four numbers, zero at first: boxes stay where they are."""
    head = MlpHead(dim, 4, layers=3)
    last = head.layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return head


def first_boxes(
    memory: FeatureMemory,
) -> tuple[Float[Tensor, "B N 4"], Bool[Tensor, "B N"]]:
    """A small square on every cell, larger on coarser maps, and which cells propose nothing."""
    B, device = memory.tokens.shape[0], memory.tokens.device
    parts: list[Tensor] = []
    for level, (rows, columns) in enumerate(memory.grids):
        y = (torch.arange(rows, device=device) + 0.5) / rows
        x = (torch.arange(columns, device=device) + 0.5) / columns
        y, x = torch.meshgrid(y, x, indexing="ij")
        centres = torch.stack([x, y], dim=-1).expand(B, -1, -1, -1).flatten(1, 2)
        if memory.shares is not None:
            centres = centres / memory.shares[:, level, None]
        size = torch.full_like(centres, FIRST_SIZE * 2.0**level)
        parts.append(torch.cat([centres, size], dim=-1))
    boxes = torch.cat(parts, dim=1).to(memory.tokens.dtype)
    bad = ~((boxes > EDGE) & (boxes < 1 - EDGE)).all(-1)
    return boxes, bad if memory.mask is None else bad | ~memory.mask


def shown(boxes: Float[Tensor, "B Q 4"], memory: FeatureMemory) -> Float[Tensor, "B Q 4"]:
    """Boxes as shares of the whole first map, with what was filled up."""
    if memory.shares is None:
        return boxes
    return boxes * torch.cat([memory.shares, memory.shares], dim=-1)[:, :1]


def sine_of_boxes(boxes: Float[Tensor, "B Q 4"], width: int) -> Float[Tensor, "B Q _D"]:
    """Sines and cosines of y, x, width and height, `width` numbers each (Liu et al. 2022, DAB)."""
    pairs = torch.arange(width, device=boxes.device).div(2, rounding_mode="floor")
    wave = 2 * math.pi / 10_000 ** (2 * pairs / width)
    angles = boxes[..., [1, 0, 2, 3], None] * wave
    both = torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1)
    return both.flatten(2).to(boxes.dtype)


def pick(table: Float[Tensor, "B N _C"], rows: Int[Tensor, "B Q"]) -> Float[Tensor, "B Q _C"]:
    """Some rows of each image's table."""
    return table.gather(1, rows[..., None].expand(-1, -1, table.shape[-1]))
