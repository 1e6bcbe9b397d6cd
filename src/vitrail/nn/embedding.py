"""From symbols to vectors that know their place in a sequence (Vaswani et al. 2017, 3.4 and 3.5).

Any length is served: positions are computed where they are needed and no table ends. They are
computed in float32, whatever the model's precision: bfloat16 could not tell 500 from 501.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

Rotation = tuple[Float[Tensor, "T d"], Float[Tensor, "T d"]]
"""Cosine and sine of the angle of each place and each component of a head."""


class TokenEmbedding(nn.Module):
    """A learned vector a symbol, times sqrt(D) (section 3.4).

    The vectors start with variance 1/D, so that their scaled values start at the size of the
    sinusoid, and logits made with the same table start small.
    """

    def __init__(self, vocabulary: int, dim: int) -> None:
        super().__init__()
        self.scale = math.sqrt(dim)
        self.weight = nn.Parameter(torch.empty(vocabulary, dim))
        nn.init.normal_(self.weight, std=dim**-0.5)

    def forward(self, symbols: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Look up and scale."""
        return F.embedding(symbols, self.weight) * self.scale


class SequencePositions(nn.Module, ABC):
    """How the place of a symbol is told: added to its vector, or rotated in by self-attention."""

    @abstractmethod
    def forward(
        self, tokens: Float[Tensor, "B T D"], start: int
    ) -> tuple[Float[Tensor, "B T D"], Rotation | None]:
        """Vectors to begin with, and the rotation of queries and keys where there is one.

        Args:
            tokens: Embedded symbols.
            start: Place of the first of them, counted from 0.
        """


class SinusoidalPositions(SequencePositions):
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(same), added once (section 3.5)."""

    def forward(
        self, tokens: Float[Tensor, "B T D"], start: int
    ) -> tuple[Float[Tensor, "B T D"], Rotation | None]:
        """Add the sinusoid."""
        _, T, D = tokens.shape
        angle = _angles(D, start, T, tokens.device)
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :D]
        return tokens + table.to(tokens.dtype), None


class RotaryPositions(SequencePositions):
    """Queries and keys are turned by p / 10000^(2i/d) (Su et al. 2021, RoFormer, equation 15).

    Component i is paired with i + d/2: the paper's pairs (2i, 2i+1) in another order, which the
    learned projections absorb. A score depends on the distance of two symbols only.

    Args:
        head_dim: Width d of one head; even.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        assert head_dim % 2 == 0, f"rotary positions need an even head width, got {head_dim}"
        self.head_dim = head_dim

    def forward(
        self, tokens: Float[Tensor, "B T D"], start: int
    ) -> tuple[Float[Tensor, "B T D"], Rotation | None]:
        """The tokens as they are, and the rotation of their places."""
        angle = _angles(self.head_dim, start, tokens.shape[1], tokens.device)
        angle = torch.cat([angle, angle], dim=-1)
        return tokens, (angle.cos(), angle.sin())


def rotate(x: Float[Tensor, "B h T d"], rotation: Rotation) -> Float[Tensor, "B h T d"]:
    """Turn each pair of components of queries or keys."""
    cos, sin = (part.to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _angles(width: int, start: int, length: int, device: torch.device) -> Float[Tensor, "T w"]:
    """Angles p / 10000^(2i/width) of each place p and each pair i."""
    place = torch.arange(start, start + length, dtype=torch.float32, device=device)
    exponent = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
    return place[:, None] * 10_000.0**-exponent
