"""DETR's encoder: the cells of a map look at each other before queries read them.

Carion et al. 2020, section 3.2 and Fig. 10, left: norms after each residual sum, and positions that
are added to queries and keys, not to values, in every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from vitrail.nn.blocks import Mlp
from vitrail.nn.deformable import DenseAttention, FeatureMemory


class CellLayer(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x)).

    Args:
        dim: Width D.
        heads: Attention heads.
        hidden: Hidden width of the MLP.
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attn = DenseAttention(dim, heads)
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = Mlp(dim, hidden, activation="relu")
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, memory: FeatureMemory) -> FeatureMemory:
        """One layer; cells that show nothing of the image are not read."""
        tokens, places = memory.tokens, memory.places
        assert places is not None, "cells need to know where they stand"
        told = self.attn(tokens + places, None, memory)
        tokens = self.norm1(tokens + told)
        tokens = self.norm2(tokens + self.mlp(tokens))
        return replace(memory, tokens=tokens)


class CellEncoder(nn.Module):
    """Layers one after the other.

    Args:
        layers: First to last; there may be none.
    """

    def __init__(self, layers: Sequence[CellLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, memory: FeatureMemory) -> FeatureMemory:
        """The same places with tokens that know of each other."""
        for layer in self.layers:
            memory = layer(memory)
        return memory
