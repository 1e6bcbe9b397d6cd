"""The decoder: symbols attend to those before them and to a memory (Vaswani et al. 2017, Fig. 1).

In training all symbols of a target are read at once (`Decoder.forward`). To write, symbols are
read as they come (`Decoder.extend`), and what was computed for earlier ones is kept in a cache.
The decoder knows no special symbols; those that begin, end and pad are the business of
`vitrail.nn.decoding`. Targets are padded on the right, where no earlier symbol can see.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.nn.blocks import Mlp
from vitrail.nn.embedding import Rotation, SequencePositions, TokenEmbedding
from vitrail.nn.encoder import SequenceActivation
from vitrail.nn.init import init_linear
from vitrail.nn.sequence_attention import (
    CausalAttention,
    CrossAttention,
    KeyValueCache,
    Memory,
    padding_bias,
)


class DecoderBlock(nn.Module, ABC):
    """What both kinds of block hold. Subclasses say where the norms stand.

    Args:
        dim: Width D, also that of the memory.
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
        self.attn = CausalAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.cross = CrossAttention(dim, heads)
        self.norm3 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, hidden, activation=activation)
        self.dropout = nn.Dropout(dropout)
        self.apply(init_linear)

    @abstractmethod
    def forward(
        self,
        tokens: Float[Tensor, "B T D"],
        rotation: Rotation | None,
        memory: Memory,
        cache: KeyValueCache | None,
    ) -> Float[Tensor, "B T D"]:
        """One layer."""


class PreNormDecoderBlock(DecoderBlock):
    """x + part(norm(x)) for self-attention, cross-attention and MLP (Xiong et al. 2020)."""

    def forward(
        self,
        tokens: Float[Tensor, "B T D"],
        rotation: Rotation | None,
        memory: Memory,
        cache: KeyValueCache | None,
    ) -> Float[Tensor, "B T D"]:
        """One layer."""
        tokens = tokens + self.dropout(self.attn(self.norm1(tokens), rotation, cache))
        tokens = tokens + self.dropout(self.cross(self.norm2(tokens), memory))
        return tokens + self.dropout(self.mlp(self.norm3(tokens)))


class PostNormDecoderBlock(DecoderBlock):
    """norm(x + part(x)) for each of the three (Vaswani et al. 2017, section 3.1)."""

    def forward(
        self,
        tokens: Float[Tensor, "B T D"],
        rotation: Rotation | None,
        memory: Memory,
        cache: KeyValueCache | None,
    ) -> Float[Tensor, "B T D"]:
        """One layer."""
        tokens = self.norm1(tokens + self.dropout(self.attn(tokens, rotation, cache)))
        tokens = self.norm2(tokens + self.dropout(self.cross(tokens, memory)))
        return self.norm3(tokens + self.dropout(self.mlp(tokens)))


@dataclass(slots=True)
class DecoderCache:
    """What a decoder keeps between symbols, one entry a layer.

    Attributes:
        past: Keys and values of the symbols read, with room for all that may come.
        memories: Keys and values of the memory, computed once.
    """

    past: list[KeyValueCache]
    memories: list[Memory]

    @property
    def length(self) -> int:
        """Symbols read."""
        return self.past[0].length

    def repeat(self, times: int) -> None:
        """Follow every sequence by copies of it: rows 0 0 1 1 2 2 for two times."""
        count = self.past[0].keys.shape[0]
        rows = torch.arange(count, device=self.past[0].keys.device).repeat_interleave(times)
        self.select(rows)
        self.memories = [memory.select(rows) for memory in self.memories]

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Row i goes on from what row `rows[i]` has read; both have the same memory."""
        for layer in self.past:
            layer.select(rows)


class TiedGenerator(nn.Module):
    """Logits by the embedding's own table (section 3.4; Press & Wolf 2017), and a bias."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(
        self, hidden: Float[Tensor, "B T D"], table: Float[Tensor, "C D"]
    ) -> Float[Tensor, "B T C"]:
        """Products with the vector of each symbol."""
        return F.linear(hidden, table, self.bias)


class Decoder(nn.Module):
    """Embedded symbols, positions, blocks, a last norm, and a linear map to logits.

    Args:
        vocabulary: Number C of symbols.
        dim: Width D.
        blocks: The layers, first to last.
        positions: How the place of a symbol is told.
        norm: After the last block: LayerNorm, or Identity (the paper, whose blocks end in one).
        tied: The embedding is also the map to logits.
        dropout: On the sum of embeddings and positions (section 5.4).
    """

    def __init__(
        self,
        vocabulary: int,
        dim: int,
        blocks: Iterable[DecoderBlock],
        positions: SequencePositions,
        *,
        norm: nn.LayerNorm | nn.Identity,
        tied: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(vocabulary, dim)
        self.positions = positions
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        # Not one parameter under two names: a model file holds every tensor once.
        self.generator = TiedGenerator(vocabulary) if tied else nn.Linear(dim, vocabulary)
        init_linear(self.generator)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        memory: Float[Tensor, "B N D"],
        memory_mask: Bool[Tensor, "B N"] | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Logits of the symbol after each one (teacher forcing).

        Args:
            tokens: The symbols so far, the begin symbol first, padded on the right.
            memory: What the encoder gave.
            memory_mask: True at its tokens, False at padding; None for no padding.

        Raises:
            ValueError: there are no symbols.
        """
        return self.logits(self.hidden(tokens, memory, memory_mask))

    def hidden(
        self,
        tokens: Int[Tensor, "B T"],
        memory: Float[Tensor, "B N D"],
        memory_mask: Bool[Tensor, "B N"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The vectors that the logits are made of; arguments and errors as in `forward`."""
        memories = self._read(memory, memory_mask)
        return self._run(tokens, 0, memories, [None] * len(memories))

    def logits(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T C"]:
        """The generator: one logit a symbol of the vocabulary."""
        if isinstance(self.generator, TiedGenerator):
            return self.generator(hidden, self.embedding.weight)
        return self.generator(hidden)

    def start(
        self,
        memory: Float[Tensor, "B N D"],
        memory_mask: Bool[Tensor, "B N"] | None = None,
        *,
        capacity: int,
    ) -> DecoderCache:
        """An empty cache for `capacity` symbols, the begin symbol included.

        A cache is written in place: use it under `torch.no_grad`.
        """
        memories = self._read(memory, memory_mask)
        past: list[KeyValueCache] = []
        for layer in memories:
            B, h, _, d = layer.keys.shape
            room = layer.keys.new_empty(2, B, h, capacity, d)
            past.append(KeyValueCache(room[0], room[1]))
        return DecoderCache(past, memories)

    def extend(self, tokens: Int[Tensor, "B T"], cache: DecoderCache) -> Float[Tensor, "B T D"]:
        """Read further symbols; the vectors are those that `hidden` gives at their places.

        Raises:
            ValueError: there are no symbols, or more than the cache has room for.
        """
        return self._run(tokens, cache.length, cache.memories, cache.past)

    def _read(self, memory: Tensor, mask: Tensor | None) -> list[Memory]:
        bias = padding_bias(mask)
        return [block.cross.read(memory, bias) for block in self._layers()]

    def _run(
        self,
        tokens: Int[Tensor, "B T"],
        start: int,
        memories: Sequence[Memory],
        past: Sequence[KeyValueCache | None],
    ) -> Float[Tensor, "B T D"]:
        if tokens.shape[1] == 0:
            raise ValueError("the target has no symbols: begin it with the begin symbol")
        x, rotation = self.positions(self.embedding(tokens), start)
        x = self.dropout(x)
        for block, memory, cache in zip(self._layers(), memories, past, strict=True):
            x = block(x, rotation, memory, cache)
        return self.norm(x)

    def _layers(self) -> list[DecoderBlock]:
        return cast("list[DecoderBlock]", list(self.blocks))
