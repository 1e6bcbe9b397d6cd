"""Encoder blocks: attention and MLP around residual paths (ViT Fig. 1 right; Vaswani Fig. 1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.nn.attention import Attention
from vitrail.types import Grid

Activation = Literal["gelu", "gelu_tanh"]
"""Exact GELU (timm, DeiT), or its tanh form (google-research)."""


class FeedForward(nn.Module, ABC):
    """What follows attention in a block: each token by itself."""

    @abstractmethod
    def forward(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Each token by itself."""


class Mlp(FeedForward):
    """Two linear maps with a nonlinearity between: GELU (ViT 3.1) or ReLU (Vaswani, equation 2)."""

    def __init__(
        self, dim: int, hidden: int, *, activation: Activation | Literal["relu"] = "gelu"
    ) -> None:
        super().__init__()
        gelu = nn.GELU(approximate="tanh" if activation == "gelu_tanh" else "none")
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.ReLU() if activation == "relu" else gelu
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Each token by itself."""
        return self.fc2(self.act(self.fc1(tokens)))


class SwiGlu(FeedForward):
    """A gated MLP: (silu(x W1) * x W2) W3 (Shazeer 2020, equation 6; DINOv2 giant).

    `fc1` holds W1 and W2 one above the other.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Each token by itself."""
        gate, value = self.fc1(tokens).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * value)


class LayerScale(nn.Module):
    """A learned factor a channel on a residual branch (Touvron et al. 2021, CaiT, equation 3)."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Scale each channel."""
        return tokens * self.gamma


class StochasticDepth(nn.Module):
    """Drop a residual branch for whole samples while training (Huang et al. 2016).

    The branches that stay are divided by the chance to stay, so that the mean is kept.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        assert 0 <= rate < 1, f"drop rate {rate} is not in [0, 1)"
        self.rate = rate

    def forward(self, branch: Float[Tensor, "B *N"]) -> Float[Tensor, "B *N"]:
        """Identity in evaluation."""
        if not self.training or self.rate == 0:
            return branch
        one_a_sample = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        keep = branch.new_empty(one_a_sample).bernoulli_(1 - self.rate)
        return branch * keep.div_(1 - self.rate)


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Chance to drop each block: linear from 0 at the first to `last` (Huang et al. 2016)."""
    return [last * i / max(depth - 1, 1) for i in range(depth)]


class Block(nn.Module):
    """What both kinds of block hold. Subclasses say where the norms stand.

    Args:
        dim: Width D.
        attention: The attention part.
        mlp: The MLP part.
        eps: LayerNorm epsilon.
        layer_scale: Start value of LayerScale, or None for none.
        drop_path: Chance that a branch is dropped while training.
    """

    def __init__(
        self,
        dim: int,
        attention: Attention,
        mlp: FeedForward,
        *,
        eps: float,
        layer_scale: float | None,
        drop_path: float,
    ) -> None:
        super().__init__()
        scaled = layer_scale is not None
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attention
        self.ls1 = LayerScale(dim, layer_scale) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = mlp
        self.ls2 = LayerScale(dim, layer_scale) if scaled else nn.Identity()
        self.drop_path = StochasticDepth(drop_path)


class PreNormBlock(Block):
    """x + attention(norm(x)), then x + mlp(norm(x)) (ViT equations 2 and 3)."""

    def forward(
        self,
        tokens: Float[Tensor, "B N D"],
        grid: Grid,
        mask: Bool[Tensor, "B 1 N N"] | None = None,
    ) -> Float[Tensor, "B N D"]:
        """One layer; `mask` says which tokens see which."""
        tokens = tokens + self.drop_path(self.ls1(self.attn(self.norm1(tokens), grid, mask)))
        return tokens + self.drop_path(self.ls2(self.mlp(self.norm2(tokens))))


class PostNormBlock(Block):
    """norm(x + attention(x)), then norm(x + mlp(x)) (Vaswani et al. 2017, section 3.1)."""

    def forward(self, tokens: Float[Tensor, "B N D"], grid: Grid) -> Float[Tensor, "B N D"]:
        """One layer."""
        tokens = self.norm1(tokens + self.drop_path(self.ls1(self.attn(tokens, grid))))
        return self.norm2(tokens + self.drop_path(self.ls2(self.mlp(tokens))))
