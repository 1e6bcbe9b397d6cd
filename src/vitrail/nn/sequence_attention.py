"""Attention over sequences: among all symbols, among earlier ones only, and to a memory.

Vaswani et al. 2017, section 3.2.3, the three uses of attention. Images have their own
(`vitrail.nn.attention`), which speaks of grids; sequences differ in length and so need masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.nn.embedding import Rotation, rotate
from vitrail.nn.probe import Probe, SoftmaxWeights


def padding_bias(mask: Bool[Tensor, "B N"] | None) -> Float[Tensor, "B 1 1 N"] | None:
    """What to add to the scores: minus infinity where `mask` is False, that is, at padding."""
    if mask is None:
        return None
    bias = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)
    return bias[:, None, None]


@dataclass(slots=True)
class KeyValueCache:
    """Keys and values of the symbols that one causal attention has seen.

    Attributes:
        keys: Room for L symbols, allocated once; the first `length` are filled.
        values: Likewise.
        length: Symbols held.
    """

    keys: Float[Tensor, "B h L d"]
    values: Float[Tensor, "B h L d"]
    length: int = 0

    def append(
        self, k: Float[Tensor, "B h T d"], v: Float[Tensor, "B h T d"]
    ) -> tuple[Float[Tensor, "B h S d"], Float[Tensor, "B h S d"]]:
        """Take in T symbols and return the keys and values of all that are held.

        Raises:
            ValueError: there is no room left.
        """
        end, room = self.length + k.shape[2], self.keys.shape[2]
        if end > room:
            raise ValueError(
                f"a sequence of {end} symbols does not fit the cache, which has room for {room}: "
                "start it with a larger capacity"
            )
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def select(self, rows: Int[Tensor, " R"]) -> None:
        """Row i becomes what row `rows[i]` was; there may be more rows, or fewer."""
        self.keys, self.values = self.keys[rows], self.values[rows]


@dataclass(frozen=True, slots=True)
class Memory:
    """What cross-attention reads: projected once, then read at every step.

    Attributes:
        keys: Keys of the encoder's tokens.
        values: Their values.
        bias: Added to the scores, minus infinity at padding; None where there is none.
    """

    keys: Float[Tensor, "B h N d"]
    values: Float[Tensor, "B h N d"]
    bias: Float[Tensor, "B 1 1 N"] | None

    def select(self, rows: Int[Tensor, " R"]) -> Memory:
        """A memory whose row i is row `rows[i]` of this."""
        bias = None if self.bias is None else self.bias[rows]
        return Memory(self.keys[rows], self.values[rows], bias)


class SequenceAttention(nn.Module):
    """What the three kinds share: heads, the fused product, the projection that joins.

    `probe` is as in `vitrail.nn.attention.Attention`; masks reach it as a bias.

    Args:
        dim: Width D of the tokens.
        heads: Number h of heads; must divide `dim`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        assert dim % heads == 0, f"width {dim} is not a multiple of {heads} heads"
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.proj = nn.Linear(dim, dim)
        self.probe: Probe | None = None

    def _split(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B h T d"]:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _join(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *, causal: bool = False
    ) -> Float[Tensor, "B T D"]:
        bias = None if bias is None else bias.to(q.dtype)
        joined = F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, is_causal=causal, scale=self.scale
        )
        if self.probe is not None:
            seen = _causal_bias(q, k) if causal else bias
            self.probe(SoftmaxWeights(q, k, seen, self.scale), v, joined)
        return self.proj(joined.transpose(1, 2).flatten(2))


class SelfAttention(SequenceAttention):
    """Every symbol attends to every symbol that is no padding (the encoder's)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.qkv = nn.Linear(dim, 3 * dim)

    def forward(
        self,
        tokens: Float[Tensor, "B T D"],
        rotation: Rotation | None,
        bias: Float[Tensor, "B 1 1 T"] | None,
    ) -> Float[Tensor, "B T D"]:
        """Mix the tokens of each sequence."""
        return self._join(*self._project(tokens, rotation), bias)

    def _project(
        self, tokens: Float[Tensor, "B T D"], rotation: Rotation | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (self._split(part) for part in self.qkv(tokens).chunk(3, dim=-1))
        return (q, k, v) if rotation is None else (rotate(q, rotation), rotate(k, rotation), v)


class CausalAttention(SelfAttention):
    """A symbol attends to itself and to those before it (the decoder's)."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        tokens: Float[Tensor, "B T D"],
        rotation: Rotation | None,
        cache: KeyValueCache | None,
    ) -> Float[Tensor, "B T D"]:
        """Mix the tokens of each sequence; with a cache they follow those that it holds."""
        q, k, v = self._project(tokens, rotation)
        if cache is None:
            return self._join(q, k, v, None, causal=True)
        k, v = cache.append(k, v)
        return self._join(q, k, v, _causal_bias(q, k))


class CrossAttention(SequenceAttention):
    """The decoder's tokens attend to the encoder's."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)

    def read(self, memory: Float[Tensor, "B N D"], bias: Float[Tensor, "B 1 1 N"] | None) -> Memory:
        """Project the memory to keys and values, once for all symbols."""
        k, v = (self._split(part) for part in self.kv(memory).chunk(2, dim=-1))
        return Memory(k, v, bias)

    def forward(self, tokens: Float[Tensor, "B T D"], memory: Memory) -> Float[Tensor, "B T D"]:
        """Read the memory for each token."""
        return self._join(self._split(self.q(tokens)), memory.keys, memory.values, memory.bias)


def _causal_bias(
    q: Float[Tensor, "B h T d"], k: Float[Tensor, "B h S d"]
) -> Float[Tensor, "T S"] | None:
    """Minus infinity at later symbols; the T queries are the last of the S keys."""
    T, S = q.shape[2], k.shape[2]
    if T == 1:
        return None
    return torch.full((T, S), -torch.inf, dtype=q.dtype, device=q.device).triu(S - T + 1)
