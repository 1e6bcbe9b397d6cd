"""Multi-head self-attention (Vaswani et al. 2017, equations 1 and section 3.2.2)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.nn.positions import AttentionPositions
from vitrail.nn.probe import Probe, SoftmaxWeights
from vitrail.types import Grid


class Attention(nn.Module):
    """softmax(q kᵀ · scale + bias) v for several heads, joined by a projection.

    The product runs in torch's fused kernel; no attention matrix is kept. `probe` is None except
    inside `capture`, which recomputes the matrix beside the fused path.

    Args:
        dim: Width D of the tokens.
        heads: Number h of heads; must divide `dim`.
        positions: What the attention knows of places: nothing, rotation or a relative bias.
        qkv_bias: Whether the query, key and value projections have a bias.
        qk_norm: Normalise queries and keys over the head width (Dehghani et al. 2023).
        eps: Epsilon of those norms.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        positions: AttentionPositions,
        *,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        assert dim % heads == 0, f"width {dim} is not a multiple of {heads} heads"
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = nn.LayerNorm(dim // heads, eps=eps) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // heads, eps=eps) if qk_norm else nn.Identity()
        self.positions = positions
        self.proj = nn.Linear(dim, dim)
        self.probe: Probe | None = None

    def forward(
        self,
        tokens: Float[Tensor, "B N D"],
        grid: Grid,
        mask: Bool[Tensor, "B 1 N N"] | None = None,
    ) -> Float[Tensor, "B N D"]:
        """Mix the tokens of each image.

        Args:
            tokens: All of them.
            grid: The patch grid that the positions speak of.
            mask: True where a row may see a column, at least one in each row; None for everywhere.
        """
        B, N, D = tokens.shape
        qkv = self.qkv(tokens).reshape(B, N, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k, bias = self.positions(self.q_norm(q), self.k_norm(k), grid)
        if mask is not None:
            barred = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, float("-inf"))
            bias = barred if bias is None else bias + barred
        joined = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        if self.probe is not None:
            self.probe(SoftmaxWeights(q, k, bias, self.scale), v, joined)
        return self.proj(joined.transpose(1, 2).reshape(B, N, D))
