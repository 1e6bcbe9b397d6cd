"""From all tokens to one vector an image."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.nn.blocks import FeedForward
from vitrail.nn.probe import Probe, SoftmaxWeights


class Pool(nn.Module, ABC):
    """One vector from the tokens of an image."""

    @abstractmethod
    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B E"]:
        """Pool; E is D unless a subclass says otherwise."""


class ClassTokenPool(Pool):
    """The class token, which stands first (ViT equation 4; BERT)."""

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """The first token."""
        return tokens[:, 0]


class MeanPool(Pool):
    """The mean of the patch tokens (ViT appendix D.3, global average pooling)."""

    def __init__(self, *, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """The mean without the prefix tokens."""
        return tokens[:, self.prefix :].mean(dim=1)


class ClassTokenAndMeanPool(Pool):
    """The class token and, beside it, the mean of the patch tokens (DINOv2, appendix B.3).

    The result is twice as wide as a token.
    """

    def __init__(self, *, prefix: int) -> None:
        super().__init__()
        self.mean = MeanPool(prefix=prefix)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B E"]:
        """Side by side, E = 2 D."""
        return torch.cat([tokens[:, 0], self.mean(tokens)], dim=1)


class AttentionPool(Pool):
    """A learned query that attends to the tokens (MAP head; Zhai et al. 2022, section 3.1).

    `probe` is as in `vitrail.nn.attention.Attention`.
    """

    def __init__(self, dim: int, heads: int, mlp: FeedForward, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.heads = heads
        self.probe: Probe | None = None
        self.latent = nn.Parameter(torch.empty(1, 1, dim))
        nn.init.trunc_normal_(self.latent, std=dim**-0.5)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.mlp = mlp

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """Attend once, then x + mlp(norm(x))."""
        B, N, D = tokens.shape
        d = D // self.heads
        q = self.q(self.latent).expand(B, 1, D).reshape(B, 1, self.heads, d).transpose(1, 2)
        k, v = self.kv(tokens).reshape(B, N, 2, self.heads, d).permute(2, 0, 3, 1, 4).unbind(0)
        joined = F.scaled_dot_product_attention(q, k, v)
        if self.probe is not None:
            self.probe(SoftmaxWeights(q, k, None, d**-0.5), v, joined)
        pooled = self.proj(joined.transpose(1, 2).reshape(B, D))
        return pooled + self.mlp(self.norm(pooled))
