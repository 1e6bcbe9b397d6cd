"""Tokens to tokens: patches that overlap, mixed and split again (Yuan et al. 2021, section 3.1).

Each step re-structures the tokens of the step before with a small attention block, lays them out
as an image and cuts it into overlapping patches, so that neighbours share pixels and the sequence
becomes shorter. Two kinds of attention do the mixing: softmax over all pairs, and Performer's
random features, whose cost is linear in the number of tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.nn.blocks import Mlp
from vitrail.nn.patches import Stem, pad_to_multiple
from vitrail.nn.probe import KernelWeights, Probe, SoftmaxWeights

_EPS = 1e-8
"""Keeps the sum of Performer's weights away from zero."""


class SoftSplit(nn.Module):
    """Overlapping patches of a map, each flattened channel by channel (section 3.1, soft split).

    The padding is the one that gives one patch a stride: (kernel - stride) / 2, rounded up.

    Args:
        kernel: Side of a patch; at least the stride, and odd where the stride is 1.
        stride: Cells from one patch to the next.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        assert kernel >= stride, f"patches of {kernel} leave gaps at stride {stride}"
        assert stride > 1 or kernel % 2, f"a patch of {kernel} has no middle for stride 1"
        self.kernel, self.stride = kernel, stride
        self.padding = (kernel - stride + 1) // 2

    def forward(self, cells: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N K"]:
        """K = C * kernel * kernel values a patch; H and W are multiples of the stride."""
        assert cells.shape[2] % self.stride == 0, "pad the map to a multiple of the stride"
        assert cells.shape[3] % self.stride == 0, "pad the map to a multiple of the stride"
        patches = F.unfold(cells, self.kernel, padding=self.padding, stride=self.stride)
        return patches.transpose(1, 2)


class TokenAttention(nn.Module, ABC):
    """One head that mixes tokens and changes their width from C to D.

    `probe` is as in `vitrail.nn.attention.Attention`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probe: Probe | None = None

    @abstractmethod
    def forward(
        self, tokens: Float[Tensor, "B N C"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B N D"]]:
        """The mixed tokens after the projection, and the values, which the skip path takes."""


class SoftmaxTokenAttention(TokenAttention):
    """softmax(q kᵀ · scale) v, where the scale is C^-0.5: that of the input, not of the head.

    Args:
        dim: Width C of the tokens that come in.
        width: Width D of the head.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.scale = dim**-0.5
        self.qkv = nn.Linear(dim, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(
        self, tokens: Float[Tensor, "B N C"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B N D"]]:
        """All pairs of tokens."""
        q, k, v = self.qkv(tokens)[:, None].chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        if self.probe is not None:
            self.probe(SoftmaxWeights(q, k, None, self.scale), v, mixed)
        return self.proj(mixed[:, 0]), v[:, 0]


class PerformerTokenAttention(TokenAttention):
    """Attention by positive random features (Choromanski et al. 2021, Lemma 1).

    phi(q)·phi(k) stands for exp(q·k), so that no matrix of N x N is formed.
    The features are exponentials: they are computed in float32 under autocast too. The random rows
    have length sqrt(m), as in the code of T2T-ViT; the Performer's own would have sqrt(D).

    Args:
        dim: Width C of the tokens that come in.
        width: Width D of the head.
        features: Number m of random features.
    """

    def __init__(self, dim: int, width: int, *, features: int) -> None:
        super().__init__()
        self.kqv = nn.Linear(dim, 3 * width)
        self.proj = nn.Linear(width, width)
        # Drawn once, never trained: a parameter because the weights mean nothing without it.
        rows = nn.init.orthogonal_(torch.empty(features, width)) * features**0.5
        self.w = nn.Parameter(rows, requires_grad=False)

    def forward(
        self, tokens: Float[Tensor, "B N C"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B N D"]]:
        """Linear in the number of tokens."""
        device = tokens.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                mixed, v = self._mix(tokens.to(self.kqv.weight.dtype))
        else:
            mixed, v = self._mix(tokens)
        return self.proj(mixed), v

    def _mix(
        self, tokens: Float[Tensor, "B N C"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B N D"]]:
        """phi(q) (phi(k)ᵀ v) over phi(q) · sum phi(k)."""
        # One head; keys first in the original's files.
        k, q, v = self.kqv(tokens)[:, None].chunk(3, dim=-1)
        phi_k, phi_q = self._phi(k.float()), self._phi(q.float())
        total = phi_q @ phi_k.sum(dim=2)[..., None]
        mixed = phi_q @ (phi_k.mT @ v.float()) / (total + _EPS)
        if self.probe is not None:
            self.probe(KernelWeights(phi_q, phi_k, _EPS), v, mixed)
        return mixed[:, 0].to(v.dtype), v[:, 0]

    def _phi(self, x: Float[Tensor, "B 1 N D"]) -> Float[Tensor, "B 1 N m"]:
        """exp(w x - |x|^2 / 2) / sqrt(m)."""
        half_square = x.square().sum(dim=-1, keepdim=True) / 2
        return (F.linear(x, self.w.float()) - half_square).exp() / self.w.shape[0] ** 0.5


class TokenBlock(nn.Module):
    """x = v + attention(norm(x)), then x + mlp(norm(x)); the widths differ, so v is the skip.

    Args:
        dim: Width C of the tokens that come in.
        width: Width D of those that go out.
        attention: Mixes C-wide tokens to D-wide ones.
        eps: LayerNorm epsilon.
        dropout: Chance that a value of a branch is dropped while training.
    """

    def __init__(
        self, dim: int, width: int, attention: TokenAttention, *, eps: float, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N D"]:
        """Re-structure the tokens (section 3.1, re-structurization)."""
        mixed, values = self.attn(self.norm1(tokens))
        tokens = values + self.dropout(mixed)
        return tokens + self.dropout(self.mlp(self.norm2(tokens)))


class TokensToToken(Stem):
    """Split, mix, split, mix, ..., split, project (Fig. 3).

    Args:
        width: Width of the patch vectors that go out.
        splits: Kernel and stride of each soft split.
        blocks: One block between each split and the next.
        dim: Width of the patches of the last split.
    """

    def __init__(
        self,
        width: int,
        splits: Sequence[tuple[int, int]],
        blocks: Sequence[TokenBlock],
        *,
        dim: int,
    ) -> None:
        super().__init__()
        assert len(blocks) == len(splits) - 1, "one block between each split and the next"
        self.stride = prod(stride for _, stride in splits)
        self.splits = nn.ModuleList(SoftSplit(kernel, stride) for kernel, stride in splits)
        self.blocks = nn.ModuleList(blocks)
        self.project = nn.Linear(dim, width)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D _h _w"]:
        """One vector a cell of the last split."""
        cells = pad_to_multiple(images, self.stride)
        for split, mix in zip(self.splits, [*self.blocks, self.project], strict=True):
            assert isinstance(split, SoftSplit)
            grid = (cells.shape[2] // split.stride, cells.shape[3] // split.stride)
            cells = mix(split(cells)).transpose(1, 2).unflatten(2, grid)
        return cells
