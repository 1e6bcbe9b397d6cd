"""The encoder over sequences of vectors (Vaswani et al. 2017, Fig. 1 left)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor, nn

from vitrail.nn.blocks import Mlp
from vitrail.nn.embedding import Rotation, SequencePositions
from vitrail.nn.init import init_linear
from vitrail.nn.sequence_attention import SelfAttention, padding_bias

SequenceActivation = Literal["relu", "gelu"]
"""The paper's (equation 2), or exact GELU."""


class EncoderBlock(nn.Module, ABC):
    """What both kinds of block hold. Subclasses say where the norms stand.

    Args:
        dim: Width D.
        heads: Attention heads.
        hidden: Hidden width of the feed-forward part.
        activation: Its nonlinearity.
        eps: LayerNorm epsilon.
        dropout: Chance that a component of a branch is zeroed in training (section 5.4).
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        *,
        activation: SequenceActivation = "relu",
        eps: float = 1e-6,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, hidden, activation=activation)
        self.dropout = nn.Dropout(dropout)
        self.apply(init_linear)

    @abstractmethod
    def forward(
        self,
        tokens: Float[Tensor, "B N D"],
        rotation: Rotation | None,
        bias: Float[Tensor, "B 1 1 N"] | None,
    ) -> Float[Tensor, "B N D"]:
        """One layer."""


class PreNormEncoderBlock(EncoderBlock):
    """x + attention(norm(x)), then x + mlp(norm(x)) (Xiong et al. 2020)."""

    def forward(
        self,
        tokens: Float[Tensor, "B N D"],
        rotation: Rotation | None,
        bias: Float[Tensor, "B 1 1 N"] | None,
    ) -> Float[Tensor, "B N D"]:
        """One layer."""
        tokens = tokens + self.dropout(self.attn(self.norm1(tokens), rotation, bias))
        return tokens + self.dropout(self.mlp(self.norm2(tokens)))


class PostNormEncoderBlock(EncoderBlock):
    """norm(x + attention(x)), then norm(x + mlp(x)) (Vaswani et al. 2017, section 3.1)."""

    def forward(
        self,
        tokens: Float[Tensor, "B N D"],
        rotation: Rotation | None,
        bias: Float[Tensor, "B 1 1 N"] | None,
    ) -> Float[Tensor, "B N D"]:
        """One layer."""
        tokens = self.norm1(tokens + self.dropout(self.attn(tokens, rotation, bias)))
        return self.norm2(tokens + self.dropout(self.mlp(tokens)))


class Encoder(nn.Module):
    """Positions, blocks and a last norm.

    Args:
        blocks: The layers, first to last.
        positions: How the place of a token is told.
        norm: After the last block: LayerNorm, or Identity (the paper, whose blocks end in one).
        dropout: On the sum of embeddings and positions (section 5.4).
    """

    def __init__(
        self,
        blocks: Iterable[EncoderBlock],
        positions: SequencePositions,
        *,
        norm: nn.LayerNorm | nn.Identity,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.positions = positions
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def forward(
        self, tokens: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N D"]:
        """Encode each sequence.

        Args:
            tokens: Embedded symbols.
            mask: True at symbols, False at padding, which nothing attends to; None for no padding.
        """
        bias = padding_bias(mask)
        tokens, rotation = self.positions(tokens, 0)
        tokens = self.dropout(tokens)
        for block in self.blocks:
            tokens = block(tokens, rotation, bias)
        return self.norm(tokens)
